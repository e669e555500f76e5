//go:build system

package systemtest

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"revoked/cmd/revoked/internal/devcluster"
)

// repository is the root of the source tree, relative to these tests.
const repository = "../../.."

// composeFiles define a stack whose image contains a binary that is built outside Docker.
var composeFiles = []string{"docker-compose.yml", "docker-compose.local.yml"}

// A stack is the project of docker-compose.yml under a unique name. Its containers are the nodes of
// the harness, without a process field.
type stack struct {
	*cluster
	project, image string
	compose        []string // command of the compose tool
	profile        []string // the flag of the profile, if any
	env            []string
}

// startStack builds the image and starts n nodes. Test cleanup removes everything.
func startStack(t *testing.T, n int, profile ...string) *stack {
	t.Helper()
	name := fmt.Sprintf("revokedtest%d", rand.Uint32())
	s := &stack{project: name, image: "revoked:" + name, compose: composeCommand(), profile: profile}
	port := freePorts(t, n)
	s.env = cleanEnvironment("REVOKED_IMAGE=" + s.image)
	for k := range n {
		s.env = append(s.env, fmt.Sprintf("REVOKED_PORT%d=127.0.0.1:%d", k+1, port+k))
	}
	if _, err := tool(t, s.env, filepath.Join(repository, "scripts/dist.sh")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.remove(t) })
	start := time.Now()
	s.mustCompose(t, "up", "-d", "--build")
	s.readCertificates(t, n, port)
	s.awaitHealthy(t)
	t.Logf("%d nodes are healthy %v after up --build", n, time.Since(start).Round(time.Second))
	return s
}

// composeCommand returns the compose tool of this machine.
func composeCommand() []string {
	if exec.Command("docker", "compose", "version").Run() == nil {
		return []string{"docker", "compose"}
	}
	return []string{"docker-compose"}
}

// readCertificates copies the CA and the clients out of a container, as the compose file explains.
func (s *stack) readCertificates(t *testing.T, n, port int) {
	t.Helper()
	s.cluster = &cluster{dir: realDir(t), Clients: map[string]devcluster.Credential{}, pool: x509.NewCertPool()}
	s.CA = filepath.Join(s.dir, "ca.pem")
	for _, name := range []string{"ca.pem", "clients.json"} {
		s.mustDocker(t, "cp", s.container(t, "node1")+":/certs/"+name, s.dir)
	}
	pem, err := os.ReadFile(s.CA)
	if err != nil {
		t.Fatal(err)
	}
	if !s.pool.AppendCertsFromPEM(pem) {
		t.Fatal("ca.pem contains no certificate")
	}
	data, err := os.ReadFile(filepath.Join(s.dir, "clients.json"))
	if err != nil {
		t.Fatal(err)
	}
	var list []devcluster.Credential
	if err := json.Unmarshal(data, &list); err != nil {
		t.Fatal(err)
	}
	for _, cl := range list {
		s.Clients[cl.ClientID] = cl
	}
	for k := range n {
		s.Nodes = append(s.Nodes, &member{Node: devcluster.Node{
			ID: fmt.Sprintf("node%d", k+1), API: fmt.Sprintf("https://127.0.0.1:%d", port+k)},
			client: s.httpClient()})
	}
}

// remove removes the containers, volumes, networks and the image of the project.
func (s *stack) remove(t *testing.T) {
	if t.Failed() {
		out, _ := s.run(t, "logs", "--tail", "25")
		t.Logf("end of the logs:\n%s", out)
	}
	if out, err := s.run(t, "down", "--volumes", "--remove-orphans", "--timeout", "10"); err != nil {
		t.Errorf("down: %v\n%s", err, out)
	}
	_, _ = tool(t, s.env, "docker", "rmi", "--force", s.image) // missing if the build failed
	label := "label=com.docker.compose.project=" + s.project
	for what, args := range map[string][]string{
		"containers": {"ps", "--all", "--quiet", "--filter", label},
		"volumes":    {"volume", "ls", "--quiet", "--filter", label},
		"networks":   {"network", "ls", "--quiet", "--filter", label},
		"images":     {"images", "--quiet", s.image},
	} {
		if left := strings.TrimSpace(s.mustDocker(t, args...)); left != "" {
			t.Errorf("got %s %s after the removal, want none", what, left)
		}
	}
}

func (s *stack) run(t *testing.T, args ...string) (string, error) {
	command := append([]string{}, s.compose[1:]...)
	command = append(command, "-p", s.project)
	for _, f := range composeFiles {
		command = append(command, "-f", filepath.Join(repository, f))
	}
	command = append(command, s.profile...)
	return tool(t, s.env, s.compose[0], append(command, args...)...)
}

func (s *stack) mustCompose(t *testing.T, args ...string) string {
	t.Helper()
	out, err := s.run(t, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func (s *stack) mustDocker(t *testing.T, args ...string) string {
	t.Helper()
	out, err := tool(t, s.env, "docker", args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// container returns the id of a service's container.
func (s *stack) container(t *testing.T, service string) string {
	t.Helper()
	id := strings.TrimSpace(s.mustDocker(t, "ps", "--all", "--quiet", "--no-trunc",
		"--filter", "label=com.docker.compose.project="+s.project, "--filter", "label=com.docker.compose.service="+service))
	if id == "" || strings.Contains(id, "\n") {
		t.Fatalf("service %s: got containers %q, want one", service, id)
	}
	return id
}

// awaitHealthy waits until Docker reports the nodes' containers as healthy.
func (s *stack) awaitHealthy(t *testing.T) {
	t.Helper()
	for _, m := range s.Nodes {
		id := s.container(t, m.ID)
		await(t, m.ID+" to be healthy", func() error {
			switch state := strings.TrimSpace(s.mustDocker(t, "inspect", "--format",
				"{{.State.Status}} {{.State.Health.Status}}", id)); state {
			case "running healthy":
				return nil
			default:
				return errors.New(state)
			}
		})
	}
}

// awaitAnswering waits until the nodes are ready and report a leader. It is awaitReady for nodes
// without a process of the test.
func (s *stack) awaitAnswering(t *testing.T, nodes ...*member) {
	t.Helper()
	for _, m := range nodes {
		await(t, m.ID+" to be ready", func() error { return s.readiness(m) })
	}
}

// leading waits for a leader among nodes and returns it with the others.
func (s *stack) leading(t *testing.T, nodes ...*member) (leader *member, others []*member) {
	t.Helper()
	await(t, "a leader", func() error {
		leader, others = nil, nil
		for _, m := range nodes {
			if st, err := s.status(m); err == nil && st.State == "leader" {
				leader = m
			} else {
				others = append(others, m)
			}
		}
		if leader == nil {
			return errors.New("no leader")
		}
		return nil
	})
	return leader, others
}

// The test starts the stack of docker-compose.yml as a user does. A token revoked through one node
// is inactive on all. It stays inactive after the loss of a container, a network and all nodes.
func TestComposeStack_SurvivesFaults(t *testing.T) {
	if !hasCompose(t) {
		return
	}
	s := startStack(t, 3)
	s.awaitAnswering(t, s.Nodes...)
	s.checkHardened(t)

	s.mustRegister(t, s.Nodes[0], "g-1", "alice", "access-1", "refresh-1")
	s.wantActive(t, "access-1", true, s.Nodes...)
	s.mustRevoke(t, s.Nodes[1], "refresh-1")
	s.wantActive(t, "access-1", false, s.Nodes...)

	s.loseContainer(t)
	s.loseNetwork(t)
	s.stopAndStart(t)
	s.spillRegistrations(t)
}

// checkHardened inspects the running containers, not the file.
func (s *stack) checkHardened(t *testing.T) {
	t.Helper()
	for _, m := range s.Nodes {
		id := s.container(t, m.ID)
		got := strings.TrimSpace(s.mustDocker(t, "inspect", "--format",
			"{{.Config.User}} {{.HostConfig.ReadonlyRootfs}} {{.HostConfig.CapDrop}} {{.HostConfig.SecurityOpt}}", id))
		if want := "65532:65532 true [ALL] [no-new-privileges:true]"; got != want {
			t.Errorf("%s: got user and rights %q, want %q", m.ID, got, want)
		}
		out := s.mustDocker(t, "exec", id, "revoked", "members")
		for _, want := range []string{"node1", "node2", "node3"} {
			if !strings.Contains(out, want) {
				t.Errorf("members in %s: got %s\nwant %s", m.ID, out, want)
			}
		}
		if _, err := tool(t, s.env, "docker", "exec", id, "/bin/sh", "-c", "true"); err == nil {
			t.Errorf("%s: got a shell, want none", m.ID)
		}
	}
}

// loseContainer kills the container of the leader. The others continue, and the container returns
// with its data.
func (s *stack) loseContainer(t *testing.T) {
	t.Helper()
	s.mustRegister(t, s.Nodes[0], "g-2", "alice", "access-2", "refresh-2")
	lost, others := s.leading(t, s.Nodes...)
	s.mustDocker(t, "kill", s.container(t, lost.ID))
	s.awaitAnswering(t, others...)
	s.mustRevoke(t, others[0], "access-2")
	s.mustRegister(t, others[1], "g-3", "bob", "access-3", "refresh-3")
	s.wantActive(t, "access-2", false, others...)
	s.wantActive(t, "access-3", true, others...)
	s.mustDocker(t, "start", s.container(t, lost.ID))
	s.awaitAnswering(t, lost)
	for _, dead := range []string{"access-1", "access-2", "refresh-2"} {
		s.wantActive(t, dead, false, s.Nodes...)
	}
	s.wantActive(t, "access-3", true, s.Nodes...)
}

// loseNetwork cuts the leader off from the nodes but not from its clients. The leader stops
// answering and the others continue. After the reconnect, the old leader is ready and has the
// revocations that it missed.
func (s *stack) loseNetwork(t *testing.T) {
	t.Helper()
	s.mustRegister(t, s.Nodes[0], "g-4", "carol", "access-4", "refresh-4")
	cut, others := s.leading(t, s.Nodes...)
	s.mustDocker(t, "network", "disconnect", s.project+"_wan", s.container(t, cut.ID))
	s.mustRevoke(t, others[0], "access-4")
	if active, ok := s.introspect(cut, "app", "access-4").active(); ok && active {
		t.Errorf("%s: got active after the acknowledged revocation, want inactive or 503", cut.ID)
	}
	s.awaitNotReady(t, cut)
	if err := s.introspect(cut, "app", "access-3").want(http.StatusServiceUnavailable); err != nil {
		t.Errorf("%s, cut off: %v", cut.ID, err)
	}
	if err := s.revoke(cut, "app", "access-3").want(http.StatusServiceUnavailable); err != nil {
		t.Errorf("%s, cut off: %v", cut.ID, err)
	}
	s.awaitAnswering(t, others...)
	s.mustRevoke(t, others[1], "access-3")
	s.mustDocker(t, "network", "connect", "--alias", cut.ID+".wan", s.project+"_wan", s.container(t, cut.ID))
	s.awaitAnswering(t, s.Nodes...)
	s.wantActive(t, "access-4", false, s.Nodes...)
	s.wantActive(t, "access-3", false, s.Nodes...)
}

// stopAndStart shuts all nodes down cleanly and replaces the containers. The volumes hold every
// acknowledged change.
func (s *stack) stopAndStart(t *testing.T) {
	t.Helper()
	s.mustRegister(t, s.Nodes[2], "g-5", "dave", "access-5", "refresh-5")
	s.mustCompose(t, "stop")
	for _, m := range s.Nodes {
		if got := strings.TrimSpace(s.mustDocker(t, "inspect", "--format", "{{.State.ExitCode}}",
			s.container(t, m.ID))); got != "0" {
			t.Errorf("%s: got exit code %s, want 0", m.ID, got)
		}
	}
	s.mustCompose(t, "down")
	s.mustCompose(t, "up", "-d")
	s.awaitAnswering(t, s.Nodes...)
	for _, dead := range []string{"access-1", "access-2", "access-3", "refresh-4"} {
		s.wantActive(t, dead, false, s.Nodes...)
	}
	s.wantActive(t, "access-5", true, s.Nodes...)
}

// spillRegistrations sends more lines than a node keeps results of in memory. The client reads
// nothing before it has sent everything, so the node needs a temporary file although its root is
// read-only.
func (s *stack) spillRegistrations(t *testing.T) {
	t.Helper()
	const pairs = 20_000
	var lines bytes.Buffer
	out := json.NewEncoder(&lines)
	for i := range pairs {
		if err := out.Encode(registration(fmt.Sprintf("bulk-%d", i), "erin", fmt.Sprintf("bulk-%d", i),
			fmt.Sprintf("bulk-refresh-%d", i))); err != nil {
			t.Fatal(err)
		}
	}
	a := s.sendLines(s.Nodes[1], "/v1/grants", lines.Bytes())
	if err := a.want(http.StatusOK); err != nil {
		t.Fatal(err)
	}
	if got := bytes.Count(a.body, []byte(`"state":"active"`)); got != pairs {
		t.Errorf("got %d registered pairs, want %d; end of the answer: %s", got, pairs, a.body[max(0, len(a.body)-300):])
	}
}

// tool runs a program of this machine until it exits. The error has its output.
func tool(t *testing.T, env []string, name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), longStop)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = env
	cmd.WaitDelay = 5 * time.Second
	var out, messages bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &messages
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%s %s: %w\n%s%s", filepath.Base(name), strings.Join(args, " "), err, out.String(),
			messages.String())
	}
	return out.String(), nil
}
