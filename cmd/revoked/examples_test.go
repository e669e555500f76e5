package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"revoked/cmd/revoked/internal/devcluster"
	"revoked/cmd/revoked/internal/devfolder"
)

// shell runs a script with sh -e in dir. It returns the output and the exit code.
func shell(t *testing.T, dir string, env []string, script string) (string, int) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "/bin/sh", "-ec", script)
	cmd.Dir = dir
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "REVOKED_") {
			cmd.Env = append(cmd.Env, v)
		}
	}
	cmd.Env = append(cmd.Env, env...)
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return string(out), cmd.ProcessState.ExitCode()
}

// runBlock runs a block with its names replaced, after a prelude. It fails the test unless the exit
// code is 0, or the one in the comment above the block.
func runBlock(t *testing.T, b block, dir string, env []string, names *strings.Replacer, prelude string) string {
	t.Helper()
	code := 0
	if _, text, ok := strings.Cut(b.test, "exit "); ok {
		var err error
		if code, err = strconv.Atoi(text); err != nil {
			t.Fatalf("%v: exit code: %v", b, err)
		}
	}
	// An error answer stops the block, because a reader would stop there.
	script := strings.ReplaceAll(names.Replace(b.text), "curl ", "curl --fail-with-body ")
	out, got := shell(t, dir, env, prelude+script)
	if got != code {
		t.Fatalf("%v: got exit code %d, want %d:\n%s", b, got, code, out)
	}
	return out
}

func needCurl(t *testing.T) {
	t.Helper()
	if _, err := exec.LookPath("curl"); err != nil {
		t.Skip("no curl on this machine")
	}
}

// A docsCluster is a cluster started by `revoked dev`, with the node and host names that the
// documentation uses.
type docsCluster struct {
	devcluster.Cluster
	work  string // directory in which the blocks run
	env   []string
	names *strings.Replacer
}

func newDocsCluster(t *testing.T, c devcluster.Cluster) docsCluster {
	t.Helper()
	d := docsCluster{Cluster: c, work: t.TempDir()}
	write := func(name, text string) string {
		name = filepath.Join(d.work, name)
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	ca, err := os.ReadFile(c.CA)
	if err != nil {
		t.Fatal(err)
	}
	admin := c.Clients["admin"]
	var addrs, pairs []string
	for i, n := range c.Nodes {
		addrs = append(addrs, n.API)
		pairs = append(pairs, fmt.Sprintf("https://127.0.0.1:%d", 8443+i), n.API,
			fmt.Sprintf("https://node%d.example.org:8443", i+1), n.API)
	}
	for id, cl := range c.Clients {
		d.env = append(d.env, strings.ToUpper(id)+"="+id+":"+cl.ClientSecret)
		pairs = append(pairs, "-u "+id+":SECRET", "-u "+id+":"+cl.ClientSecret)
	}
	d.env = append(d.env, "REVOKED_ADDR="+strings.Join(addrs, ","), "REVOKED_CACERT="+write("ca.pem", string(ca)),
		"REVOKED_CLIENT_ID=admin", "REVOKED_CLIENT_SECRET=",
		"REVOKED_CLIENT_SECRET_FILE="+write("admin.secret", admin.ClientSecret+"\n"))
	pairs = append(pairs, "dev token --dir D", "dev token --dir '"+filepath.Dir(c.CA)+"'")
	d.names = strings.NewReplacer(append(pairs, "/var/lib/revoked", filepath.Join(d.work, "data"))...)
	return d
}

// run runs the blocks of a page that are marked with kind and returns their output.
func (d docsCluster) run(t *testing.T, page, kind string) []string {
	t.Helper()
	var out []string
	for _, b := range tested(t, page, kind) {
		out = append(out, runBlock(t, b, d.work, d.env, d.names, ""))
	}
	return out
}

func TestDocs_Blocks_RunOnDevCluster(t *testing.T) {
	if testing.Short() {
		t.Skip("runs three nodes")
	}
	needCurl(t)
	dir := t.TempDir()
	p, _ := startCluster(t, dir)
	c := newDocsCluster(t, readDevFile(t, dir))

	answers := func(t *testing.T, out, want string) {
		t.Helper()
		found := regexp.MustCompile(`\{("active":(true|false)|\}|"grant_id")`).FindAllString(out, -1)
		if got := strings.Join(found, " "); got != want {
			t.Errorf("got %s, want %s:\n%s", got, want, out)
		}
	}
	t.Run("README: a first revocation", func(t *testing.T) {
		out := c.run(t, "README.md", "curl")
		answers(t, out[0], `{"grant_id" {"active":true {} {"active":false`)
		answers(t, out[1], `{"active":true {} {"active":false`)
	})
	t.Run("issuers.md: trying it", func(t *testing.T) {
		out := c.run(t, "docs/issuers.md", "cli")[0]
		for _, want := range []string{"verified    yes", "active      true", "active  false"} {
			if !strings.Contains(out, want) {
				t.Errorf("got %s, want %q", out, want)
			}
		}
	})
	t.Run("api.md", func(t *testing.T) { c.run(t, "docs/api.md", "curl") })
	t.Run("configure.md", func(t *testing.T) { c.run(t, "docs/configure.md", "") })
	t.Run("operate.md", func(t *testing.T) { c.run(t, "docs/operate.md", "cli") })
	t.Run("metrics.md: the families of the libraries", func(t *testing.T) { c.checkLibraryMetrics(t) })
	if err := p.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := p.wait(t); err != nil {
		t.Errorf("dev: got %v, want exit code 0; standard error:\n%s", err, p.stderr)
	}
}

// checkLibraryMetrics checks that the nodes show every metric of Raft and gossip in metrics.md. It
// waits for missing metrics: some appear only with their first event.
func (d docsCluster) checkLibraryMetrics(t *testing.T) {
	var names []string
	for _, cells := range tableRows(readPage(t, "docs/metrics.md")) {
		name := unquote(cells[0])
		if strings.HasPrefix(name, "revoked_raft_") || strings.HasPrefix(name, "revoked_memberlist_") {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		t.Error("docs/metrics.md has no metric of the libraries")
	}
	deadline, stop := context.WithTimeout(t.Context(), longStop)
	defer stop()
	for {
		var all strings.Builder
		for _, n := range d.Nodes {
			page, code := shell(t, d.work, d.env, "curl -sS --cacert ca.pem "+n.API+"/metrics")
			if code != 0 {
				t.Fatal(page)
			}
			all.WriteString(page)
		}
		names = slices.DeleteFunc(names, func(name string) bool {
			return strings.Contains(all.String(), "\n# TYPE "+name+" ")
		})
		if len(names) == 0 {
			return
		}
		select {
		case <-deadline.Done():
			t.Fatalf("docs/metrics.md has %q, which no node shows", names)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// install.md creates a cluster of three nodes and its first clients. The test replaces only hosts,
// ports and directories.
func TestDocs_Install_CreatesCluster(t *testing.T) {
	if testing.Short() {
		t.Skip("runs three nodes")
	}
	const page = "docs/install.md"
	work, base := t.TempDir(), freeBase(t, 3)
	pairs := []string{"node$i.example.org", "127.0.0.1"}
	for k := 1; k <= 3; k++ {
		pairs = append(pairs,
			fmt.Sprintf("node%d.example.org:8443", k), fmt.Sprintf("127.0.0.1:%d", base+k-1),
			fmt.Sprintf("node%d.example.org:7443", k), fmt.Sprintf("127.0.0.1:%d", base+k-1+devfolder.ClusterOffset))
	}
	names := strings.NewReplacer(pairs...)
	runBlock(t, tested(t, page, "")[0], work, nil, names, "")

	settings := names.Replace(tested(t, page, "file revoked.yml")[0].text)
	programs := make([]*program, 3)
	folders := make([]*strings.Replacer, 3)
	for i := range programs {
		id := fmt.Sprintf("node%d", i+1)
		etc := filepath.Join(work, id, "etc")
		folders[i] = strings.NewReplacer("/etc/revoked", etc, "/var/lib/revoked", filepath.Join(work, id, "data"))
		layOutNode(t, filepath.Join(work, "pki"), etc, id)
		own, shared, ok := strings.Cut(settings, "bootstrap_expect")
		if !ok || strings.Count(own, "node1") != 1 { // the addresses have been replaced already
			t.Fatalf("settings of node 1: got %q", own)
		}
		own = strings.NewReplacer("node1", id, strconv.Itoa(base), strconv.Itoa(base+i),
			strconv.Itoa(base+devfolder.ClusterOffset), strconv.Itoa(base+i+devfolder.ClusterOffset)).Replace(own)
		text := folders[i].Replace(own+"bootstrap_expect"+shared) +
			fmt.Sprintf("api_addr: 127.0.0.1:%d\ncluster_addr: 127.0.0.1:%d\ngossip_addr: 127.0.0.1:%d\n"+
				"heartbeat_timeout: 3s\nelection_timeout: 3s\n", // a stall is not an outage
				base+i, base+i+devfolder.ClusterOffset, base+i+devfolder.GossipOffset)
		if err := os.WriteFile(filepath.Join(etc, "revoked.yml"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	everywhere := tested(t, page, "on every node")
	check, health := everywhere[0], everywhere[1]
	for i := range programs {
		if out := runBlock(t, check, work, nil, folders[i], ""); strings.Contains(out, "warning") {
			t.Errorf("%s: got %s, want no warning", fmt.Sprintf("node%d", i+1), out)
		}
		programs[i] = startProgram(t, "server", "--config",
			filepath.Join(work, fmt.Sprintf("node%d", i+1), "etc", "revoked.yml"))
	}
	for i := range programs {
		awaitBlock(t, health, work, folders[i])
	}
	first := tested(t, page, "cli")[0]
	var exports string
	for line := range strings.Lines(first.text) {
		if strings.HasPrefix(line, "export ") {
			exports += names.Replace(line)
		}
	}
	for _, b := range tested(t, page, "cli") {
		runBlock(t, b, work, nil, names, exports)
	}
	for _, p := range programs {
		stopProgram(t, p)
	}
}

// layOutNode copies files from pki to the directory of a node, according to the table in
// install.md.
func layOutNode(t *testing.T, pki, etc, id string) {
	t.Helper()
	if err := os.MkdirAll(etc, 0o700); err != nil {
		t.Fatal(err)
	}
	quoted := regexp.MustCompile("`([^`]+)`")
	copied := 0
	for _, cells := range tableRows(readPage(t, "docs/install.md")) {
		if !strings.HasPrefix(unquote(cells[0]), "pki/") {
			continue
		}
		from, to := quoted.FindAllStringSubmatch(cells[0], -1), quoted.FindAllStringSubmatch(cells[1], -1)
		if len(from) != len(to) {
			t.Fatalf("docs/install.md: %q goes to %q", cells[0], cells[1])
		}
		for i := range from {
			data, err := os.ReadFile(filepath.Join(pki, strings.Replace(strings.TrimPrefix(from[i][1], "pki/"), "nodeN", id, 1)))
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(etc, filepath.Base(to[i][1])), data, 0o600); err != nil {
				t.Fatal(err)
			}
			copied++
		}
	}
	if copied < 7 {
		t.Fatalf("docs/install.md: got %d files for a node", copied)
	}
}

// awaitBlock runs a block until it exits with 0.
func awaitBlock(t *testing.T, b block, dir string, names *strings.Replacer) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), longStop)
	defer cancel()
	err := devcluster.Poll(ctx, pollInterval, func(context.Context) error {
		if out, code := shell(t, dir, nil, names.Replace(b.text)); code != 0 {
			return errors.New(out)
		}
		return nil
	})
	if err != nil {
		t.Fatalf("%v: %v", b, err)
	}
}

// The blocks of operate.md renew the certificates and keys that install.md creates.
func TestDocs_RenewalBlocks_RenewCertificates(t *testing.T) {
	work := t.TempDir()
	same := strings.NewReplacer()
	runBlock(t, tested(t, "docs/install.md", "")[0], work, nil, same, "")
	before, err := os.ReadFile(filepath.Join(work, "pki", "node1.pem"))
	if err != nil {
		t.Fatal(err)
	}
	for _, b := range tested(t, "docs/operate.md", "pki") {
		runBlock(t, b, work, nil, same, "")
	}
	after, err := os.ReadFile(filepath.Join(work, "pki", "node1.pem"))
	if err != nil || string(after) == string(before) {
		t.Errorf("the certificate of node1 was not renewed (%v)", err)
	}
}

// As in operate.md, a node uses and logs a new certificate, and a metric shows its expiry.
func TestDocs_NewCertificate_IsUsed(t *testing.T) {
	if testing.Short() {
		t.Skip("runs a node")
	}
	needCurl(t)
	c, _ := oneNode(t)
	dir := filepath.Dir(c.CA)
	p := startProgram(t, "server", "--config", c.Nodes[0].Config)
	awaitReady(t, p, &c)
	expiry := func() string {
		page, code := shell(t, dir, nil, "curl -sS --cacert ca.pem "+c.Nodes[0].API+"/metrics")
		_, value, ok := strings.Cut(page, "\nrevoked_peer_certificate_expiry_seconds ")
		if code != 0 || !ok {
			t.Fatalf("no expiry of the certificate: %d %s", code, page)
		}
		value, _, _ = strings.Cut(value, "\n")
		return value
	}
	serial := func(ctx context.Context) string {
		tlsConfig, err := c.TLS()
		if err != nil {
			t.Fatal(err)
		}
		conn, err := (&tls.Dialer{Config: tlsConfig}).DialContext(ctx, "tcp", strings.TrimPrefix(c.Nodes[0].API, "https://"))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		return conn.(*tls.Conn).ConnectionState().PeerCertificates[0].SerialNumber.String()
	}
	before, served := expiry(), serial(t.Context())
	renew := tested(t, "docs/operate.md", "pki")[0].text
	names := strings.NewReplacer("pki", ".", "node1.example.org,revoked.example.org", "127.0.0.1",
		"node1.example.org", "127.0.0.1", "--force", "--force --days 30")
	if out, code := shell(t, dir, nil, names.Replace(renew)); code != 0 {
		t.Fatal(out)
	}
	ctx, cancel := context.WithTimeout(t.Context(), longStop)
	defer cancel()
	err := devcluster.Poll(ctx, pollInterval, func(ctx context.Context) error {
		if expiry() == before || serial(ctx) == served {
			return errors.New("the old certificate is still in use")
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	stopProgram(t, p)
	for _, want := range []string{
		`msg="certificates reloaded" node=node1 not_after=`, `msg="API certificate reloaded" node=node1 not_after=`,
	} {
		if !strings.Contains(p.stderr.String(), want) {
			t.Errorf("got no line with %s; standard error:\n%s", want, p.stderr)
		}
	}
}
