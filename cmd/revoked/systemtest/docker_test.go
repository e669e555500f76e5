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

	yaml "go.yaml.in/yaml/v3"
)

// repository is the root of the source tree, seen from the folder of these tests.
const repository = "../../.."

// composeFiles are the files of a stack whose image is made from a binary built outside.
var composeFiles = []string{"docker-compose.yml", "docker-compose.local.yml"}

// A stack is the project of docker-compose.yml under a name of its own. Its containers are what the
// harness calls nodes; they have no processes of ours.
type stack struct {
	*cluster
	project, image string
	compose        []string // the command
	env            []string
}

// startStack builds the image and brings the three nodes up. What it makes is taken away in the end.
func startStack(t *testing.T) *stack {
	t.Helper()
	name := fmt.Sprintf("revokedtest%d", rand.Uint32())
	s := &stack{project: name, image: "revoked:" + name, compose: composeCommand()}
	port := freePorts(t, 3)
	s.env = cleanEnvironment("REVOKED_IMAGE=" + s.image)
	for k := range 3 {
		s.env = append(s.env, fmt.Sprintf("REVOKED_PORT%d=127.0.0.1:%d", k+1, port+k))
	}
	if _, err := tool(t, s.env, filepath.Join(repository, "scripts/dist.sh")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.remove(t) })
	s.mustCompose(t, "up", "-d", "--build")
	s.readCertificates(t, port)
	s.awaitHealthy(t)
	return s
}

// composeCommand is the compose tool of this machine.
func composeCommand() []string {
	if exec.Command("docker", "compose", "version").Run() == nil {
		return []string{"docker", "compose"}
	}
	return []string{"docker-compose"}
}

// readCertificates copies what a user needs out of a container, as the comment in the file says.
func (s *stack) readCertificates(t *testing.T, port int) {
	t.Helper()
	s.cluster = &cluster{dir: realFolder(t), Clients: map[string]credential{}, pool: x509.NewCertPool()}
	s.CA = filepath.Join(s.dir, "ca.pem")
	for _, name := range []string{"ca.pem", "clients.json"} {
		s.mustDocker(t, "cp", s.container(t, "node1")+":/certs/"+name, s.dir)
	}
	pem, err := os.ReadFile(s.CA)
	if err != nil {
		t.Fatal(err)
	}
	if !s.pool.AppendCertsFromPEM(pem) {
		t.Fatal("ca.pem holds no certificate")
	}
	data, err := os.ReadFile(filepath.Join(s.dir, "clients.json"))
	if err != nil {
		t.Fatal(err)
	}
	var list []credential
	if err := json.Unmarshal(data, &list); err != nil {
		t.Fatal(err)
	}
	for _, cl := range list {
		s.Clients[cl.ClientID] = cl
	}
	for k := range 3 {
		s.Nodes = append(s.Nodes, &member{ID: fmt.Sprintf("node%d", k+1), API: fmt.Sprintf("https://127.0.0.1:%d", port+k), client: s.httpClient()})
	}
}

// remove takes away the containers, volumes, networks and the image of the project, whatever became of it.
func (s *stack) remove(t *testing.T) {
	if t.Failed() {
		out, _ := s.run(t, "logs", "--tail", "25")
		t.Logf("the ends of the logs:\n%s", out)
	}
	if out, err := s.run(t, "down", "--volumes", "--remove-orphans", "--timeout", "10"); err != nil {
		t.Errorf("down: %v\n%s", err, out)
	}
	_, _ = tool(t, s.env, "docker", "rmi", "--force", s.image) // it is not there when the build failed
	label := "label=com.docker.compose.project=" + s.project
	for what, args := range map[string][]string{
		"containers": {"ps", "--all", "--quiet", "--filter", label},
		"volumes":    {"volume", "ls", "--quiet", "--filter", label},
		"networks":   {"network", "ls", "--quiet", "--filter", label},
		"images":     {"images", "--quiet", s.image},
	} {
		if left := strings.TrimSpace(s.mustDocker(t, args...)); left != "" {
			t.Errorf("%s were left behind: %s", what, left)
		}
	}
}

func (s *stack) run(t *testing.T, args ...string) (string, error) {
	command := append([]string{}, s.compose[1:]...)
	command = append(command, "-p", s.project)
	for _, f := range composeFiles {
		command = append(command, "-f", filepath.Join(repository, f))
	}
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

// awaitHealthy waits until Docker itself finds the containers of the nodes healthy.
func (s *stack) awaitHealthy(t *testing.T) {
	t.Helper()
	for _, m := range s.Nodes {
		id := s.container(t, m.ID)
		await(t, m.ID+" to be healthy", func() error {
			switch state := strings.TrimSpace(s.mustDocker(t, "inspect", "--format", "{{.State.Status}} {{.State.Health.Status}}", id)); state {
			case "running healthy":
				return nil
			default:
				return errors.New(state)
			}
		})
	}
}

// awaitAnswering waits until the nodes answer with the promise kept and know a leader. It is the
// harness's awaitReady for nodes without processes of ours.
func (s *stack) awaitAnswering(t *testing.T, nodes ...*member) {
	t.Helper()
	for _, m := range nodes {
		await(t, m.ID+" to be ready", func() error { return s.readiness(m) })
	}
}

// leading returns the node that leads, among those given.
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
			return errors.New("nobody leads")
		}
		return nil
	})
	return leader, others
}

// The stack of docker-compose.yml, as a user starts it: revoke through one node and it is dead on all;
// lose a container, a network, everything at once, and it stays dead.
func TestComposeStack(t *testing.T) {
	if !engineAnswers() {
		t.Log("no Docker engine answers on this machine: only the files are checked (TestComposeFiles); the same faults run in TestNetworkPartitions")
		return
	}
	if _, err := exec.LookPath(composeCommand()[0]); err != nil {
		t.Log("a Docker engine, but no compose tool on this machine: only the files are checked (TestComposeFiles)")
		return
	}
	s := startStack(t)
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

func engineAnswers() bool { return exec.Command("docker", "version").Run() == nil }

// checkHardened looks at what runs, not at the file.
func (s *stack) checkHardened(t *testing.T) {
	t.Helper()
	for _, m := range s.Nodes {
		id := s.container(t, m.ID)
		got := strings.TrimSpace(s.mustDocker(t, "inspect", "--format", "{{.Config.User}} {{.HostConfig.ReadonlyRootfs}} {{.HostConfig.CapDrop}} {{.HostConfig.SecurityOpt}}", id))
		if want := "65532:65532 true [ALL] [no-new-privileges:true]"; got != want {
			t.Errorf("%s runs as %q, want %q", m.ID, got, want)
		}
		out := s.mustDocker(t, "exec", id, "revoked", "members")
		for _, want := range []string{"node1", "node2", "node3"} {
			if !strings.Contains(out, want) {
				t.Errorf("the tool inside %s does not know %s:\n%s", m.ID, want, out)
			}
		}
		if _, err := tool(t, s.env, "docker", "exec", id, "/bin/sh", "-c", "true"); err == nil {
			t.Errorf("%s has a shell", m.ID)
		}
	}
}

// loseContainer kills the container of the leader; the others go on, and it comes back with what it knew.
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

// loseNetwork cuts the leader off the others, but not off its clients: it stops answering, they go on;
// reconnected it is ready again and knows what was revoked meanwhile.
func (s *stack) loseNetwork(t *testing.T) {
	t.Helper()
	s.mustRegister(t, s.Nodes[0], "g-4", "carol", "access-4", "refresh-4")
	cut, others := s.leading(t, s.Nodes...)
	s.mustDocker(t, "network", "disconnect", s.project+"_wan", s.container(t, cut.ID))
	s.mustRevoke(t, others[0], "access-4")
	if active, ok := s.introspect(cut, "app", "access-4").active(); ok && active {
		t.Errorf("%s says active after the revocation was acknowledged", cut.ID)
	}
	s.awaitNotReady(t, cut)
	if err := s.introspect(cut, "app", "access-3").want(http.StatusServiceUnavailable); err != nil {
		t.Errorf("%s without the others: %v", cut.ID, err)
	}
	if err := s.revoke(cut, "app", "access-3").want(http.StatusServiceUnavailable); err != nil {
		t.Errorf("%s without the others: %v", cut.ID, err)
	}
	s.awaitAnswering(t, others...)
	s.mustRevoke(t, others[1], "access-3")
	s.mustDocker(t, "network", "connect", "--alias", cut.ID+".wan", s.project+"_wan", s.container(t, cut.ID))
	s.awaitAnswering(t, s.Nodes...)
	s.wantActive(t, "access-4", false, s.Nodes...)
	s.wantActive(t, "access-3", false, s.Nodes...)
}

// stopAndStart stops all nodes in an orderly way, takes the containers away and makes new ones: the
// volumes hold what was acknowledged.
func (s *stack) stopAndStart(t *testing.T) {
	t.Helper()
	s.mustRegister(t, s.Nodes[2], "g-5", "dave", "access-5", "refresh-5")
	s.mustCompose(t, "stop")
	for _, m := range s.Nodes {
		if got := strings.TrimSpace(s.mustDocker(t, "inspect", "--format", "{{.State.ExitCode}}", s.container(t, m.ID))); got != "0" {
			t.Errorf("%s stopped with exit code %s, want 0", m.ID, got)
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

// spillRegistrations sends more than is kept in memory for a caller that reads nothing before it has
// sent everything: the container, whose root is read-only, needs a place for it.
func (s *stack) spillRegistrations(t *testing.T) {
	t.Helper()
	const pairs = 20_000
	var lines bytes.Buffer
	out := json.NewEncoder(&lines)
	for i := range pairs {
		if err := out.Encode(registration(fmt.Sprintf("bulk-%d", i), "erin", fmt.Sprintf("bulk-%d", i), fmt.Sprintf("bulk-refresh-%d", i))); err != nil {
			t.Fatal(err)
		}
	}
	a := s.sendLines(s.Nodes[1], "/v1/grants", lines.Bytes())
	if err := a.want(http.StatusOK); err != nil {
		t.Fatal(err)
	}
	if got := bytes.Count(a.body, []byte(`"state":"active"`)); got != pairs {
		t.Errorf("got %d pairs registered, want %d; the end of the answer: %s", got, pairs, a.body[max(0, len(a.body)-300):])
	}
}

// The compose files hold with any compose tool, and no service of them has more rights than it needs.
func TestComposeFiles(t *testing.T) {
	data, err := os.ReadFile(filepath.Join(repository, composeFiles[0]))
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Services map[string]struct {
			ReadOnly    bool     `yaml:"read_only"`
			CapDrop     []string `yaml:"cap_drop"`
			SecurityOpt []string `yaml:"security_opt"`
			Privileged  bool     `yaml:"privileged"`
			Volumes     []string `yaml:"volumes"`
		} `yaml:"services"`
	}
	if err := yaml.Unmarshal(data, &file); err != nil {
		t.Fatal(err)
	}
	if len(file.Services) != 4 {
		t.Errorf("got %d services, want certs and three nodes", len(file.Services))
	}
	for name, s := range file.Services {
		if !s.ReadOnly || s.Privileged || fmt.Sprint(s.CapDrop) != "[ALL]" || fmt.Sprint(s.SecurityOpt) != "[no-new-privileges:true]" {
			t.Errorf("service %s has more rights than it needs: %+v", name, s)
		}
		for _, v := range s.Volumes {
			if volume, _, _ := strings.Cut(v, ":"); strings.ContainsAny(volume, "/.") {
				t.Errorf("service %s mounts %s of the host", name, v)
			}
		}
	}
	compose := composeCommand()
	if _, err := exec.LookPath(compose[0]); err != nil {
		t.Log("no compose tool on this machine: the files were only parsed")
		return
	}
	for _, files := range [][]string{composeFiles[:1], composeFiles} {
		args := append([]string{}, compose[1:]...)
		for _, f := range files {
			args = append(args, "-f", filepath.Join(repository, f))
		}
		if _, err := tool(t, cleanEnvironment(), compose[0], append(args, "config")...); err != nil {
			t.Errorf("%v: %v", files, err)
		}
	}
}

// tool runs a program of this machine to its end; its error has what it said.
func tool(t *testing.T, env []string, name string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), longStop)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = env
	cmd.WaitDelay = 5 * time.Second
	var out, messages bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &messages
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%s %s: %w\n%s%s", filepath.Base(name), strings.Join(args, " "), err, out.String(), messages.String())
	}
	return out.String(), nil
}
