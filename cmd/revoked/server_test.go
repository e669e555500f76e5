package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"revoked/cmd/revoked/internal/cli"
	"revoked/cmd/revoked/internal/config"
	"revoked/cmd/revoked/internal/devcluster"
	"revoked/cmd/revoked/internal/devfolder"
	"revoked/cmd/revoked/internal/files"
	"revoked/internal/await"
	"revoked/transport/pki"
)

// oneNode creates the directory of a cluster of one node and returns it with a free address for
// metrics.
func oneNode(t *testing.T) (c devcluster.Cluster, metricsAddr string) {
	t.Helper()
	dir, port := t.TempDir(), freeBase(t, 2)
	if err := startProgram(t, "dev", "--init-only", "--nodes", "1", "--dir", dir, "--api-port",
		strconv.Itoa(port)).wait(t); err != nil {
		t.Fatal(err)
	}
	return readDevFile(t, dir), net.JoinHostPort("127.0.0.1", strconv.Itoa(port+1))
}

func awaitReady(t *testing.T, p *program, c *devcluster.Cluster) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), longStop)
	defer cancel()
	if _, err := newRunner(t, c).AwaitCluster(ctx); err != nil {
		_ = p.cmd.Process.Kill()
		_ = p.wait(t)
		t.Fatalf("%v; standard error:\n%s", err, p.stderr)
	}
}

func stopProgram(t *testing.T, p *program) {
	t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := p.wait(t); err != nil {
		t.Errorf("got %v after SIGTERM, want exit code 0; standard error:\n%s", err, p.stderr)
	}
}

// notifySocket takes the place of systemd: it returns the states that a program sends.
func notifySocket(t *testing.T) <-chan string {
	t.Helper()
	dir, err := os.MkdirTemp("", "n") // a path of a socket has at most 107 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	name := filepath.Join(dir, "s")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("NOTIFY_SOCKET", name)
	t.Setenv("WATCHDOG_USEC", "200000")
	states := make(chan string, 1000)
	var reading sync.WaitGroup
	reading.Go(func() {
		buf := make([]byte, 4096)
		for {
			n, err := conn.Read(buf)
			if err != nil {
				return
			}
			select {
			case states <- string(buf[:n]):
			default:
			}
		}
	})
	t.Cleanup(func() {
		conn.Close()
		reading.Wait()
	})
	return states
}

// awaitState waits for a state. Only messages of the watchdog may come before it.
func awaitState(t *testing.T, states <-chan string, want string) {
	t.Helper()
	stop := time.After(longStop)
	for {
		select {
		case got := <-states:
			if got == want {
				return
			}
			if got != "WATCHDOG=1" {
				t.Fatalf("got %s, want %s", got, want)
			}
		case <-stop:
			t.Fatalf("got nothing, want %s", want)
		}
	}
}

// During shutdown_delay the node is not ready but answers, on old and new connections. A second
// signal ends the delay. The node reports each step to systemd.
func TestServer_ShutdownDelay_ServesUnready(t *testing.T) {
	if testing.Short() {
		t.Skip("runs a node")
	}
	c, _ := oneNode(t)
	states := notifySocket(t)
	p := startProgram(t, "server", "--config", c.Nodes[0].Config, "--shutdown-delay", "10m")
	awaitReady(t, p, &c)
	awaitState(t, states, "READY=1")
	awaitState(t, states, "WATCHDOG=1")
	tlsConfig, err := c.TLS()
	if err != nil {
		t.Fatal(err)
	}
	api := c.Nodes[0].API
	if got := getStatus(t, api+"/readyz", tlsConfig); got != 200 {
		t.Fatalf("/readyz: got %d, want 200", got)
	}
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	awaitState(t, states, "STOPPING=1")
	for stop := time.Now().Add(longStop); getStatus(t, api+"/readyz", tlsConfig) != 503; {
		if time.Now().After(stop) {
			t.Fatal("/readyz after SIGTERM: got 200, want 503")
		}
	}
	for path, want := range map[string]int{"/livez": 200, "/readyz": 503, "/v1/status": 401, "/oauth2/introspect": 405} {
		if got := getStatus(t, api+path, tlsConfig); got != want {
			t.Errorf("%s during the delay: got %d, want %d", path, got, want)
		}
	}
	stopProgram(t, p) // the second signal
	if !strings.Contains(p.stderr.String(), "shutdown_delay ended by a second signal") {
		t.Errorf("got log %s, want the second signal in it", p.stderr)
	}
}

// The lines of requests are written a little later. No line is lost at shutdown.
func TestServer_Stop_WritesEveryRequestLine(t *testing.T) {
	if testing.Short() {
		t.Skip("runs a node")
	}
	c, _ := oneNode(t)
	p := startProgram(t, "server", "--config", c.Nodes[0].Config, "--shutdown-delay", "0s")
	awaitReady(t, p, &c)
	tlsConfig, err := c.TLS()
	if err != nil {
		t.Fatal(err)
	}
	const requests = 20
	for range requests {
		if got := getStatus(t, c.Nodes[0].API+"/oauth2/revoke", tlsConfig); got != 405 {
			t.Errorf("GET /oauth2/revoke: got %d, want 405", got)
		}
	}
	stopProgram(t, p)
	if n := strings.Count(p.stderr.String(), " route=/oauth2/revoke status=405 "); n != requests {
		t.Errorf("got %d lines of requests, want %d:\n%s", n, requests, p.stderr)
	}
}

// The service managers in deploy/ wait for shutdown_delay and shutdown_timeout with their defaults.
func TestDeploy_StopTimes_CoverShutdown(t *testing.T) {
	var needed time.Duration
	for _, s := range config.Table() {
		if s.Key == "shutdown_delay" || s.Key == "shutdown_timeout" {
			d, err := time.ParseDuration(s.Default)
			if err != nil {
				t.Fatal(err)
			}
			needed += d
		}
	}
	for file, pattern := range map[string]string{
		"deploy/systemd/revoked.service":   `(?m)^TimeoutStopSec=(\d+)$`,
		"deploy/kubernetes/base/nodes.yml": `terminationGracePeriodSeconds: (\d+)\b`,
		"docker-compose.yml":               `stop_grace_period: (\d+)s\b`,
	} {
		data, err := os.ReadFile(filepath.Join("..", "..", file))
		if err != nil {
			t.Fatal(err)
		}
		found := regexp.MustCompile(pattern).FindSubmatch(data)
		if found == nil {
			t.Errorf("%s: got no match of %s, want one", file, pattern)
			continue
		}
		seconds, err := strconv.Atoi(string(found[1]))
		if err != nil || time.Duration(seconds)*time.Second <= needed {
			t.Errorf("%s: got %d s (%v), want more than %v", file, seconds, err, needed)
		}
	}
}

// If metrics_networks is empty, every caller of /metrics must authenticate.
func TestServer_NoMetricsNetworks_Authenticates(t *testing.T) {
	if testing.Short() {
		t.Skip("runs a node")
	}
	c, metricsAddr := oneNode(t)
	p := startProgram(t, "server", "--config", c.Nodes[0].Config, "--metrics-addr", metricsAddr, "--metrics-networks", "",
		"--pprof")
	awaitReady(t, p, &c)
	for path, want := range map[string]int{"/readyz": 200, "/metrics": 401, "/debug/pprof/heap": 401} {
		if got := getStatus(t, "http://"+metricsAddr+path, nil); got != want {
			t.Errorf("%s: got %d, want %d", path, got, want)
		}
	}
	stopProgram(t, p)
}

// metrics_addr serves health and metrics in plain HTTP and nothing else. healthcheck finds it, and
// the API port, in the settings.
func TestServer_MetricsAddr_ServesHealthAndMetrics(t *testing.T) {
	if testing.Short() {
		t.Skip("runs a node")
	}
	c, metricsAddr := oneNode(t)
	p := startProgram(t, "server", "--config", c.Nodes[0].Config, "--metrics-addr", metricsAddr)
	awaitReady(t, p, &c)
	for path, want := range map[string]int{"/livez": 200, "/readyz": 200, "/metrics": 200, "/v1/status": 404,
		"/oauth2/introspect": 404} {
		if got := getStatus(t, "http://"+metricsAddr+path, nil); got != want {
			t.Errorf("%s on metrics_addr: got %d, want %d", path, got, want)
		}
	}
	tlsConfig, err := c.TLS()
	if err != nil {
		t.Fatal(err)
	}
	if got := getStatus(t, c.Nodes[0].API+"/metrics", tlsConfig); got != 404 {
		t.Errorf("/metrics on the API port: got %d, want 404", got)
	}
	for name, args := range map[string][]string{
		"by the settings":         {"--config", c.Nodes[0].Config},
		"by address and CA":       {"--addr", c.Nodes[0].API, "--cacert", c.CA, "--revoke"},
		"by the metrics listener": {"--addr", "http://" + metricsAddr},
	} {
		h := startProgram(t, append([]string{"healthcheck", "--timeout", "30s"}, args...)...)
		if err := h.wait(t); err != nil {
			t.Errorf("healthcheck %s: got %v: %s", name, err, h.stderr)
		}
	}
	stopProgram(t, p)
	h := startProgram(t, "healthcheck", "--config", c.Nodes[0].Config)
	var exit *exec.ExitError
	if err := h.wait(t); !errors.As(err, &exit) || exit.ExitCode() != cli.ExitFailed {
		t.Errorf("healthcheck of a stopped node: got %v, want exit code 1", err)
	}
}

// getStatus returns the status code of a GET.
func getStatus(t *testing.T, url string, tlsConfig *tls.Config) int {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), longStop)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := (&http.Transport{TLSClientConfig: tlsConfig, DisableKeepAlives: true}).RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode
}

func TestServer_SIGHUP_ReloadsCertificateAndLevel(t *testing.T) {
	if testing.Short() {
		t.Skip("runs a node")
	}
	c, _ := oneNode(t)
	p := startProgram(t, "server", "--config", c.Nodes[0].Config)
	awaitReady(t, p, &c)
	dir := filepath.Dir(c.CA)
	authority, err := pki.LoadCA(c.CA, filepath.Join(dir, "ca-key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	cert, key, err := authority.IssueServer([]string{"127.0.0.1", "renewed.example"}, 24*time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	if err := files.Write(true, files.Private(filepath.Join(dir, "node1-api-key.pem"), key),
		files.Public(filepath.Join(dir, "node1-api.pem"), cert)); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(c.Nodes[0].Config, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString("log_level: debug\n"); err != nil || f.Close() != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), longStop)
	defer cancel()
	err = devcluster.Poll(ctx, pollInterval, func(ctx context.Context) error {
		tlsConfig, err := c.TLS()
		if err != nil {
			return err
		}
		tlsConfig.ServerName = "renewed.example"
		d := tls.Dialer{Config: tlsConfig}
		conn, err := d.DialContext(ctx, "tcp", strings.TrimPrefix(c.Nodes[0].API, "https://"))
		if err != nil {
			return err
		}
		return conn.Close()
	})
	if err != nil {
		t.Errorf("the new certificate is not served: %v", err)
	}
	stopProgram(t, p)
	if !bytes.Contains(p.stderr.Bytes(), []byte(`msg="log level changed" node=node1 log_level=debug`)) {
		t.Errorf("the log level did not change; standard error:\n%s", p.stderr)
	}
}

// api_client_ca is read again on SIGHUP, and when the file changes.
func TestServer_ClientCAs_AreReloaded(t *testing.T) {
	if testing.Short() {
		t.Skip("runs a node")
	}
	c, _ := oneNode(t)
	dir := t.TempDir()
	trusted := filepath.Join(dir, "clients.pem")
	authorities := map[string][]byte{} // PEM by name
	for _, name := range []string{"old", "new"} {
		authority, err := pki.NewCA(name, 24*time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		cert, key, err := authority.IssueClient("web", 24*time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		authorities[name] = authority.CertPEM()
		if err := files.Write(false, files.Private(filepath.Join(dir, name+".key"), key),
			files.Public(filepath.Join(dir, name+".pem"), cert)); err != nil {
			t.Fatal(err)
		}
	}
	trust := func(name string) {
		t.Helper()
		if err := files.Write(true, files.Public(trusted, authorities[name])); err != nil {
			t.Fatal(err)
		}
	}
	trust("old")
	p := startProgram(t, "server", "--config", c.Nodes[0].Config, "--api-client-ca", trusted)
	awaitReady(t, p, &c)
	actAs(t, c, "admin")
	want(t, 0, "", "client", "create", "web", "--role", "resource_server", "--auth-method", "tls_client_auth",
		"--tls-client-auth-subject-dn", "CN=web,O=revoked")
	t.Setenv("REVOKED_CLIENT_SECRET", "")
	ask := func(name string) outcome {
		return runWith(t, "shop-token", "token", "introspect", "-", "--client-id", "web",
			"--client-cert", filepath.Join(dir, name+".pem"), "--client-key", filepath.Join(dir, name+".key"))
	}
	// expect waits until the node accepts certificates of one CA, and checks that it refuses those
	// of the other.
	expect := func(known, unknown string) {
		t.Helper()
		await.Until(t, "an answer to a certificate of the CA "+known, func() bool {
			return ask(known).code == cli.ExitNegative
		})
		// The TLS client of Go does not send a certificate if the node does not name its CA.
		if got := ask(unknown); got.code != cli.ExitFailed || !strings.Contains(got.stderr, "401") {
			t.Errorf("a certificate of the CA %s: got %d %s, want 401", unknown, got.code, got.stderr)
		}
	}
	expect("old", "new")
	trust("new")
	expect("new", "old") // the node noticed that the file changed
	trust("old")
	if err := p.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	expect("old", "new")
	stopProgram(t, p)
	if !strings.Contains(p.stderr.String(), `msg="client CAs reloaded"`) {
		t.Errorf("got no line of a reload; standard error:\n%s", p.stderr)
	}
}

// The error is one line that names the setting.
func TestServer_PortOrDirInUse_NamesIt(t *testing.T) {
	if testing.Short() {
		t.Skip("runs a node")
	}
	c, metricsAddr := oneNode(t)
	n := c.Nodes[0]
	p := startProgram(t, "server", "--config", n.Config)
	awaitReady(t, p, &c)
	_, port, err := net.SplitHostPort(metricsAddr)
	if err != nil {
		t.Fatal(err)
	}
	free, err := strconv.Atoi(port)
	if err != nil {
		t.Fatal(err)
	}
	at := func(offset int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(free+offset)) }
	for _, tt := range []struct {
		name string
		args []string
		want string
	}{
		{"its API port", nil, "api_addr: " + strings.TrimPrefix(n.API, "https://") + " is in use by another process"},
		{"its cluster port", []string{"--api-addr", at(0)}, "cluster_addr: " + n.Cluster + " is in use"},
		{"its data directory", []string{"--api-addr", at(0), "--cluster-addr", at(devfolder.ClusterOffset), "--gossip-addr",
			at(devfolder.GossipOffset)},
			"data directory " + n.Data + " is in use by another process"},
	} {
		other := startProgram(t, append([]string{"server", "--config", n.Config}, tt.args...)...)
		err := other.wait(t)
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != cli.ExitFailed {
			t.Errorf("%s: got %v, want exit code 1", tt.name, err)
		}
		if got := other.stderr.String(); !strings.Contains(got, tt.want) || strings.Count(got, "\n") != 1 {
			t.Errorf("%s: got %q, want one line with %q", tt.name, got, tt.want)
		}
	}
	stopProgram(t, p)
}
