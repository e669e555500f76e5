//go:build system

package systemtest

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// Clients with keep-alive introspect through a proxy while every node, the leader included, is
// restarted twice. The proxy does not retry a request that it has sent. No request is lost: each
// gets an answer of a node, 200 or a retryable 503.
func TestRollingRestart_BehindProxy_LosesNoRequest(t *testing.T) {
	t.Parallel() // see doc.go
	for _, p := range []struct {
		name  string
		start func(*testing.T, *cluster) string
	}{{"nginx", startNginxBalancer}, {"haproxy", startHAProxy}} {
		t.Run(p.name, func(t *testing.T) {
			need(t, p.name)
			c := newCluster(t, 3)
			for _, m := range c.Nodes {
				// Longer than the interval of the proxies' health checks.
				m.args = append(m.args, "--shutdown-delay", "3s")
			}
			c.startAll(t)
			c.awaitReady(t, c.Nodes...)
			c.mustRegister(t, c.Nodes[0], "drain", "alice", "drain-at", "drain-rt")
			for _, m := range c.Nodes {
				c.awaitKnown(t, m, "drain-at")
			}
			l := &proxyLoad{t: t, url: p.start(t, c) + "/oauth2/introspect"}
			await(t, "an answer through "+p.name, func() error { return l.ask(c, http.DefaultClient) })
			l.run(c, 8)
			for range 2 {
				for _, m := range append([]*member{c.leader(t)}, c.Nodes...) {
					m.proc.Signal(syscall.SIGTERM)
					c.awaitNotReady(t, m)
					if code := m.proc.exit(t); code != 0 {
						t.Errorf("%s: got exit code %d, want 0; end of its log:\n%s", m.ID, code, tail(m.Log, 10))
					}
					c.start(t, m)
					c.awaitReady(t, m)
				}
			}
			l.halt()
			t.Logf("%s: %d requests, %d answered 200, %d answered 503 by a node, %d lost", p.name, l.sent.Load(),
				l.active.Load(), l.unavailable.Load(), l.lost.Load())
			if l.lost.Load() > 0 || l.active.Load() == 0 {
				t.Errorf("%s: got %d lost requests, the first %q, want 0", p.name, l.lost.Load(), l.first)
			}
		})
	}
}

// A proxyLoad introspects one active token through a proxy.
type proxyLoad struct {
	t   *testing.T
	url string

	stop                            atomic.Bool
	clients                         sync.WaitGroup
	sent, active, unavailable, lost atomic.Int64
	once                            sync.Once
	first                           string
}

func (l *proxyLoad) run(c *cluster, clients int) {
	l.t.Cleanup(l.halt)
	for range clients {
		l.clients.Go(func() {
			tr := &http.Transport{MaxIdleConnsPerHost: 1}
			defer tr.CloseIdleConnections()
			for !l.stop.Load() {
				l.sent.Add(1)
				if err := l.ask(c, &http.Client{Transport: tr, Timeout: 30 * time.Second}); err != nil {
					l.lost.Add(1)
					l.once.Do(func() { l.first = err.Error() })
				}
			}
		})
	}
}

func (l *proxyLoad) halt() {
	l.stop.Store(true)
	l.clients.Wait()
}

// ask sends one introspection. The error means that no node has answered it.
func (l *proxyLoad) ask(c *cluster, client *http.Client) error {
	cl := c.Clients["resource_server"]
	req, err := http.NewRequest(http.MethodPost, l.url, strings.NewReader(url.Values{"token": {"drain-at"}}.Encode()))
	if err != nil {
		return err
	}
	req.SetBasicAuth(url.QueryEscape(cl.ClientID), url.QueryEscape(cl.ClientSecret))
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	res, err := client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	switch text := string(body); {
	case err != nil:
		return err
	case res.StatusCode == http.StatusOK && strings.Contains(text, `"active":true`):
		l.active.Add(1)
	case res.StatusCode == http.StatusServiceUnavailable && strings.Contains(text, "temporarily_unavailable"):
		l.unavailable.Add(1)
	default:
		return fmt.Errorf("got %d %.200s", res.StatusCode, text)
	}
	return nil
}

// startNginxBalancer balances over all nodes with keep-alive connections. It sends a POST to
// another node only if it could not connect, which is its default.
func startNginxBalancer(t *testing.T, c *cluster) string {
	t.Helper()
	dir, addr := realDir(t), fmt.Sprintf("127.0.0.1:%d", freePorts(t, 1))
	var servers strings.Builder
	for _, m := range c.Nodes {
		fmt.Fprintf(&servers, "server %s max_fails=1 fail_timeout=1s;\n", strings.TrimPrefix(m.API, "https://"))
	}
	writeFile(t, dir, "nginx.conf", fmt.Sprintf(`daemon off; pid DIR/pid; error_log DIR/error.log;
worker_processes 1;
events {}
http {
	access_log off;
	client_body_temp_path DIR/body; proxy_temp_path DIR/proxy; fastcgi_temp_path DIR/f; uwsgi_temp_path DIR/u; scgi_temp_path DIR/s;
	upstream revoked { %s keepalive 8; }
	server {
		listen %s;
		location / {
			proxy_pass https://revoked;
			proxy_http_version 1.1;
			proxy_set_header Connection "";
			proxy_ssl_verify on;
			proxy_ssl_trusted_certificate %s;
			proxy_ssl_name localhost;
			proxy_next_upstream error timeout;
		}
	}
}
`, &servers, addr, c.CA))
	startProcess(t, filepath.Join(dir, "out.log"), nil, "nginx", "-c", filepath.Join(dir, "nginx.conf"), "-e",
		filepath.Join(dir, "error.log"))
	return "http://" + addr
}

// startHAProxy runs HAProxy with deploy/examples/haproxy/revoked.cfg, which keeps HTTP/2
// connections to the nodes.
func startHAProxy(t *testing.T, c *cluster) string {
	t.Helper()
	addr := fmt.Sprintf("127.0.0.1:%d", freePorts(t, 1))
	w := newWorkshop(t, c)
	config := w.example(t, "haproxy/revoked.cfg", map[string]string{
		"bind :8443 ssl": "bind " + addr + " #", "/etc/revoked/": "DIR/", "revoked.example.org": "localhost",
	})
	log := filepath.Join(w.dir, "out.log")
	startProcess(t, log, nil, "haproxy", "-db", "-f", config)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("end of the log of HAProxy:\n%s", tail(log, 30))
		}
	})
	return "http://" + addr
}

// writeFile writes a file of dir, and replaces DIR by dir.
func writeFile(t *testing.T, dir, name, content string) {
	t.Helper()
	content = strings.ReplaceAll(content, "DIR", dir)
	if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}
