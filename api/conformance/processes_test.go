package conformance_test

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// processes starts the nodes as processes of the program under test, in a directory that `revoked
// dev` lays out. Their clock cannot be moved.
func processes(t *testing.T, o options) *stage {
	t.Helper()
	dir := t.TempDir()
	out, err := exec.Command(program, "dev", "--init-only", "--nodes", "3", "--dir", dir, "--api-port",
		fmt.Sprint(freePorts(t))).CombinedOutput()
	if err != nil {
		t.Fatalf("dev --init-only: %v\n%s", err, out)
	}
	var layout struct {
		CA    string
		Nodes []struct{ ID, API, Cluster, Data, Config, Log string }
	}
	data, err := os.ReadFile(filepath.Join(dir, "dev.json"))
	if err == nil {
		err = json.Unmarshal(data, &layout)
	}
	if err != nil {
		t.Fatal(err)
	}
	ca, err := os.ReadFile(layout.CA)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	admin := fmt.Sprintf(`[{"client_id":"adm","client_secret":%q,"roles":["admin"]}]`, secretFor("adm"))
	if err := os.WriteFile(filepath.Join(dir, "clients.json"), []byte(admin), 0o600); err != nil {
		t.Fatal(err)
	}
	s := &stage{issuer: "https://as.example" + o.issuerPath, now: time.Now}
	s.HTTP = &http.Client{
		Timeout:       longStop,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, MaxIdleConnsPerHost: 64,
			ForceAttemptHTTP2: true},
	}
	t.Cleanup(s.HTTP.CloseIdleConnections)
	s.http1 = withoutHTTP2(t, s.HTTP)
	for i, n := range layout.Nodes {
		o.write(t, n.Config, i)
		p := &process{config: n.Config, log: n.Log}
		t.Cleanup(func() {
			p.Stop(t)
			p.checkLog(t)
			if t.Failed() {
				t.Logf("end of the log of %s:\n%s", n.ID, p.lastLines(t, 30))
			}
		})
		s.Members = append(s.Members, &member{ID: n.ID, URL: n.API, cluster: n.Cluster, data: n.Data, control: p})
	}
	s.start(t, s.Members...)
	version, err := exec.Command(program, "version", "-o", "json").Output()
	var v struct{ Version string }
	if err == nil {
		err = json.Unmarshal(version, &v)
	}
	if err != nil {
		t.Fatalf("version: %v: %s", err, version)
	}
	s.version = v.Version
	return s
}

// freePorts returns a port from which three API, cluster and gossip ports are free. Its range is
// above that of package systemtest, which may run at the same time. It is below the ports that the
// kernel uses for outgoing connections.
func freePorts(t *testing.T) int {
	t.Helper()
	for range 100 {
		port := 30_000 + rand.IntN(700)
		if allFree(port, port+1, port+2, port+1000, port+1001, port+1002, port+2000, port+2001, port+2002) {
			return port
		}
	}
	t.Fatal("no free ports")
	return 0
}

func allFree(ports ...int) bool {
	for _, p := range ports {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", p))
		if err != nil {
			return false
		}
		l.Close()
	}
	return true
}

// write sets the options in the configuration file of node i.
func (o *options) write(t *testing.T, file string, i int) {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	list := func(l []string) string {
		b, _ := json.Marshal(append([]string{}, l...))
		return string(b)
	}
	var lines []string
	for line := range strings.Lines(string(data)) {
		if !strings.HasPrefix(line, "issuer:") {
			lines = append(lines, strings.TrimSuffix(line, "\n"))
		}
	}
	lines = append(lines,
		"issuer: https://as.example"+o.issuerPath,
		fmt.Sprintf("region: region%d", i%2+1),
		"heartbeat_timeout: "+o.heartbeat.String(), "election_timeout: "+o.heartbeat.String(), "log_level: debug",
		fmt.Sprintf("require_https: %t", !o.open), fmt.Sprintf("require_post: %t", !o.open),
		"cors_origins: "+list(o.cors), "check_networks: "+list(o.checkNetworks),
		"request_timeout: "+o.requestTimeout.String(),
		fmt.Sprintf("auth_failures_per_minute: %d", o.authFailures), fmt.Sprintf("misses_per_second: %d", o.misses))
	if o.metadataExtra != "" {
		lines = append(lines, "metadata_extra: "+o.metadataExtra)
	}
	if err := os.WriteFile(file, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
}

// A process controls a node in a process of the program.
type process struct {
	config, log string
	cmd         *exec.Cmd // nil while stopped
}

func (p *process) Start(t *testing.T) {
	t.Helper()
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(program, "server", "--config", p.config)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p.cmd = cmd
}

// Stop sends SIGTERM and waits for the exit: a clean shutdown lets requests finish.
func (p *process) Stop(t *testing.T) {
	t.Helper()
	if p.cmd == nil {
		return
	}
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // fails if the process has exited
	kill := time.AfterFunc(longStop, func() { _ = p.cmd.Process.Kill() })
	defer kill.Stop()
	if err := p.cmd.Wait(); err != nil {
		t.Errorf("server --config %s: %v", p.config, err)
	}
	p.cmd = nil
}

// lastLines returns the last n log lines, without request lines and debug lines.
func (p *process) lastLines(t *testing.T, n int) string {
	t.Helper()
	data, err := os.ReadFile(p.log)
	if err != nil {
		t.Fatal(err)
	}
	var lines []string
	for line := range strings.Lines(string(data)) {
		if !strings.Contains(line, " msg=request ") && !strings.Contains(line, " level=DEBUG ") {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines[max(0, len(lines)-n):], "")
}

func (p *process) StopGracefully(t *testing.T) { p.Stop(t) }
func (p *process) Running() bool               { return p.cmd != nil }

// checkLog fails the test if the log contains a token or a secret.
func (p *process) checkLog(t *testing.T) {
	f, err := os.Open(p.log)
	if err != nil {
		t.Error(err)
		return
	}
	defer f.Close()
	lines := 0
	for scan := bufio.NewScanner(f); scan.Scan(); lines++ {
		if holdsSecret(scan.Text()) {
			t.Errorf("got a token or a secret in %s, want none: %s", p.log, scan.Text())
		}
	}
	if lines == 0 {
		t.Errorf("%s: got an empty log, want at least one line", p.log)
	}
}
