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
	"strconv"
	"strings"
	"syscall"
	"testing"

	"revoked/transport"
)

// oneNode lays out a cluster of one node in a folder and returns it with a free port for metrics.
func oneNode(t *testing.T) (c devCluster, metricsAddr string) {
	t.Helper()
	dir, port := t.TempDir(), freeBase(t, 2)
	if err := startProgram(t, "dev", "--init-only", "--nodes", "1", "--dir", dir, "--api-port", strconv.Itoa(port)).wait(t); err != nil {
		t.Fatal(err)
	}
	return readDevFile(t, dir), net.JoinHostPort("127.0.0.1", strconv.Itoa(port+1))
}

func awaitReady(t *testing.T, p *program, c *devCluster) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), longStop)
	defer cancel()
	if _, err := waitReady(ctx, c); err != nil {
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

// metrics_addr carries health and metrics in plain HTTP, and nothing else; healthcheck finds it, and
// the API port, by the settings alone.
func TestMetricsListenerAndHealthcheck(t *testing.T) {
	if testing.Short() {
		t.Skip("runs a node")
	}
	c, metricsAddr := oneNode(t)
	p := startProgram(t, "server", "--config", c.Nodes[0].Config, "--metrics-addr", metricsAddr)
	awaitReady(t, p, &c)
	for path, want := range map[string]int{"/livez": 200, "/readyz": 200, "/metrics": 200, "/v1/status": 404, "/oauth2/introspect": 404} {
		if got := getStatus(t, "http://"+metricsAddr+path, nil); got != want {
			t.Errorf("%s on metrics_addr: got %d, want %d", path, got, want)
		}
	}
	tlsConfig, err := trustConfig(c.CA)
	if err != nil {
		t.Fatal(err)
	}
	if got := getStatus(t, c.Nodes[0].API+"/metrics", tlsConfig); got != 404 {
		t.Errorf("/metrics on the API port: got %d, want 404: it has moved", got)
	}
	for name, args := range map[string][]string{
		"by the settings, without a CA": {"--config", c.Nodes[0].Config},
		"by address and CA":             {"--addr", c.Nodes[0].API, "--cacert", c.CA, "--revoke"},
		"by the metrics listener":       {"--addr", "http://" + metricsAddr},
	} {
		h := startProgram(t, append([]string{"healthcheck", "--timeout", "30s"}, args...)...)
		if err := h.wait(t); err != nil {
			t.Errorf("healthcheck %s: got %v: %s", name, err, h.stderr)
		}
	}
	stopProgram(t, p)
	h := startProgram(t, "healthcheck", "--config", c.Nodes[0].Config)
	var exit *exec.ExitError
	if err := h.wait(t); !errors.As(err, &exit) || exit.ExitCode() != exitFailed {
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

// A new certificate and a new log level are taken over on SIGHUP, without a restart.
func TestServerReloadsOnSIGHUP(t *testing.T) {
	if testing.Short() {
		t.Skip("runs a node")
	}
	c, _ := oneNode(t)
	p := startProgram(t, "server", "--config", c.Nodes[0].Config)
	awaitReady(t, p, &c)
	dir := filepath.Dir(c.CA)
	authority, err := transport.LoadAuthority(c.CA, filepath.Join(dir, "ca-key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	cert, key, err := authority.IssueServer([]string{"127.0.0.1", "renewed.example"}, day)
	if err != nil {
		t.Fatal(err)
	}
	if err := writeFiles(true, newFile{filepath.Join(dir, "node1-api-key.pem"), key, privateMode}, newFile{filepath.Join(dir, "node1-api.pem"), cert, publicMode}); err != nil {
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
	err = poll(ctx, func(ctx context.Context) error {
		tlsConfig, err := trustConfig(c.CA)
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
	if !bytes.Contains(p.stderr.Bytes(), []byte(`msg="log level changed" log_level=debug`)) {
		t.Errorf("the log level did not change; standard error:\n%s", p.stderr)
	}
}

// What a user meets when something else has what the node needs: one line that names it.
func TestServerSaysWhatIsTaken(t *testing.T) {
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
		{"its data directory", []string{"--api-addr", at(0), "--cluster-addr", at(devClusterOffset), "--gossip-addr", at(devGossipOffset)},
			"data directory " + n.Data + " is in use by another process"},
	} {
		other := startProgram(t, append([]string{"server", "--config", n.Config}, tt.args...)...)
		err := other.wait(t)
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != exitFailed {
			t.Errorf("%s: got %v, want exit code 1", tt.name, err)
		}
		if got := other.stderr.String(); !strings.Contains(got, tt.want) || strings.Count(got, "\n") != 1 {
			t.Errorf("%s: got %q, want one line that says %q", tt.name, got, tt.want)
		}
	}
	stopProgram(t, p)
}
