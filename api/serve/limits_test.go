package serve_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"revoked/api/serve"
	"revoked/internal/await"
)

// refusing answers a refused request with the status and text of its Refusal. It answers /busy when
// release is closed, and other requests immediately.
func refusing(entered chan<- struct{}, release <-chan struct{}) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if f := serve.Refused(r); f != nil && r.URL.Path != "/livez" {
			http.Error(w, f.Text, f.Status)
			return
		}
		if r.URL.Path == "/busy" {
			entered <- struct{}{}
			<-release
		}
		fmt.Fprint(w, "served")
	}
}

// refusals configures a server whose handler answers with the reason of each refusal.
func refusals(c *serve.Config) { c.Handler = refusing(nil, nil) }

// A oneConn is a client with one connection. get returns status, body and whether the connection
// closes, as one string, or "closed" without a response.
type oneConn struct {
	net.Conn
	r *bufio.Reader
}

func (s *server) one(t *testing.T) *oneConn {
	t.Helper()
	c := s.dial(t, false)
	return &oneConn{c, bufio.NewReader(c)}
}

func (c *oneConn) send(path string) error {
	_, err := fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: as.example\r\n\r\n", path)
	return err
}

func (c *oneConn) get(path string) string {
	if err := c.send(path); err != nil {
		return "closed"
	}
	res, err := http.ReadResponse(c.r, nil)
	if err != nil {
		return "closed"
	}
	defer res.Body.Close()
	b, _ := io.ReadAll(res.Body)
	return fmt.Sprintf("%d %s %t", res.StatusCode, strings.TrimSpace(string(b)), res.Close)
}

// At a limit the connection that has been idle the longest makes room. If none is idle, the
// requests of a new connection are refused with the name of the limit, but health probes are
// answered.
func TestConns_AtLimit_IdleMakesRoom(t *testing.T) {
	all := func(c *serve.Config) { c.MaxConns, c.MaxConnsPerAddress = 3, 3 }
	address := func(c *serve.Config) { c.MaxConns, c.MaxConnsPerAddress = 10, 3 }
	proxy := func(c *serve.Config) {
		c.MaxConns, c.MaxConnsPerAddress = 3, 1
		c.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	}
	for _, tt := range []struct {
		name   string
		limit  func(*serve.Config)
		refuse string
	}{
		{"all", all, "503 too many connections from this address, retry later true"},
		{"one address", address, "503 too many connections from this address, retry later true"},
		{"a trusted proxy", proxy, "503 too many connections, retry later true"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			entered, release := make(chan struct{}), make(chan struct{})
			reg := prometheus.NewRegistry()
			s := start(t, tt.limit, func(c *serve.Config) { c.Registerer, c.Handler = reg, refusing(entered, release) })
			var open []*oneConn
			for range 3 {
				c := s.one(t)
				if got := c.get("/"); got != "200 served false" {
					t.Fatalf("within the limit: got %s, want 200", got)
				}
				open = append(open, c)
				awaitIdle(t, reg, len(open))
			}
			fourth := s.one(t)
			if got := fourth.get("/"); got != "200 served false" {
				t.Errorf("fourth connection: got %s, want 200", got)
			}
			awaitIdle(t, reg, len(open))
			if got := open[0].get("/"); got != "closed" {
				t.Errorf("oldest idle connection: got %s, want it closed", got)
			}
			busy := []*oneConn{open[1], open[2], fourth}
			for _, c := range busy {
				if err := c.send("/busy"); err != nil {
					t.Fatal(err)
				}
				await.Receive(t, entered, "the request in the handler")
			}
			for range 50 { // more than the spare slots
				if got := s.one(t).get("/"); got != tt.refuse {
					t.Errorf("all busy: got %s, want %s", got, tt.refuse)
				}
			}
			if got := s.one(t).get("/livez"); got != "200 served true" {
				t.Errorf("/livez, all busy: got %s, want 200 and a closed connection", got)
			}
			if _, err := s.client(t, true, 0).Get("https://" + s.addr + "/livez"); err != nil {
				t.Errorf("/livez over HTTP/2, all busy: %v", err)
			}
			close(release)
			for i, c := range busy {
				res, err := http.ReadResponse(c.r, nil)
				if err != nil || res.StatusCode != 200 {
					t.Errorf("busy connection %d: got %v, error %v, want 200", i, res, err)
				}
			}
		})
	}
}

// Behind a trusted proxy the limit of requests applies to each user, not to the proxy. A request
// without the address of a user counts only toward the limit for all requests.
func TestRequests_BehindProxy_LimitEachUser(t *testing.T) {
	const refused = "503 too many requests in progress from this address, retry later"
	entered, release := make(chan struct{}), make(chan struct{})
	s := start(t, func(c *serve.Config) {
		c.MaxRequests, c.MaxRequestsPerAddress, c.Handler = 100, 2, refusing(entered, release)
		c.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	})
	ask := func(path, user string) (*oneConn, error) {
		c := s.one(t)
		_, err := fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: a\r\n%s\r\n", path, user)
		return c, err
	}
	for _, user := range []string{"X-Forwarded-For: 192.0.2.1\r\n", "X-Forwarded-For: 203.0.113.9, 192.0.2.1\r\n",
		"X-Forwarded-For: 2001:db8::1\r\n", "X-Forwarded-For: [2001:db8::2]:4711, 127.0.0.9\r\n", "", "", ""} {
		if _, err := ask("/busy", user); err != nil {
			t.Fatal(err)
		}
		await.Receive(t, entered, "the request in the handler")
	}
	for user, want := range map[string]string{
		"X-Forwarded-For: 192.0.2.1\r\n":            refused,
		"X-Forwarded-For: 192.0.2.1:99\r\n":         refused,
		"X-Forwarded-For: 2001:db8::3\r\n":          refused, // of the same /64
		"X-Forwarded-For: 192.0.2.1, 192.0.2.2\r\n": "200 served",
		"X-Forwarded-For: 2001:db8:0:1::1\r\n":      "200 served",
		"X-Forwarded-For: 127.0.0.9\r\n":            "200 served",
		"X-Forwarded-For: 192.0.2.1, not known\r\n": "200 served",
		"": "200 served",
	} {
		c, err := ask("/", user)
		if err != nil {
			t.Fatal(err)
		}
		res, err := http.ReadResponse(c.r, nil)
		if err != nil {
			t.Fatal(err)
		}
		text, _ := io.ReadAll(res.Body)
		if got := fmt.Sprintf("%d %s", res.StatusCode, strings.TrimSpace(string(text))); got != want {
			t.Errorf("%q: got %s, want %s", user, got, want)
		}
	}
	close(release)
}

// An HTTP/2 connection without a request in progress is idle too.
func TestConns_IdleHTTP2_MakesRoom(t *testing.T) {
	reg := prometheus.NewRegistry()
	s := start(t, func(c *serve.Config) { c.Registerer, c.MaxConns, c.MaxConnsPerAddress = reg, 4, 4 })
	for i := range 40 {
		if res, _, err := s.post(s.client(t, true, 0), "https"); err != nil || res.StatusCode != 200 {
			t.Fatalf("got %v, error %v, want 200 on each new connection", res, err)
		}
		awaitIdle(t, reg, min(i+1, 4))
	}
}

// Connections that send nothing, or half a header, hold no slot that another one needs.
func TestConns_SilentConnections_MakeRoom(t *testing.T) {
	s := start(t, func(c *serve.Config) { c.MaxConns, c.MaxConnsPerAddress = 8, 8 })
	for i := range 64 {
		c, err := net.Dial("tcp", s.addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		_, _ = io.WriteString(c, []string{"", "\x16", "GET / HTTP/1.1\r\nHost:"}[i%3])
	}
	if res, _, err := s.post(s.client(t, false, 0), "https"); err != nil || res.StatusCode != 200 {
		t.Errorf("got %v, error %v, want 200", res, err)
	}
}

// awaitIdle waits until n connections are idle.
func awaitIdle(t *testing.T, r prometheus.Gatherer, n int) {
	t.Helper()
	await.Until(t, fmt.Sprint(n, " idle connections"), func() bool {
		families, err := r.Gather()
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range families {
			if f.GetName() == "revoked_api_idle_connections" {
				return f.GetMetric()[0].GetGauge().GetValue() == float64(n)
			}
		}
		return false
	})
}

// value returns the value of a series with a label cause.
func value(t *testing.T, r prometheus.Gatherer, name, cause string) float64 {
	t.Helper()
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == name && m.GetLabel()[0].GetValue() == cause {
				return m.GetCounter().GetValue()
			}
		}
	}
	return 0
}

// First bytes of other protocols are counted by cause and logged once, with the remedy.
func TestListener_OtherProtocols_AreCounted(t *testing.T) {
	reg, log := prometheus.NewRegistry(), &await.Log{}
	s := start(t, func(c *serve.Config) { c.Registerer, c.Log = reg, slog.New(slog.NewTextHandler(log, nil)) })
	const hello = "\x16\x03\x01"
	for _, tt := range []struct{ name, bytes, cause, logged string }{
		{"PROXY protocol, version 1", "PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n" + hello, "proxy_v1",
			"PROXY protocol (version 1)"},
		{"PROXY protocol, version 1, unknown", "PROXY UNKNOWN\r\n" + hello, "proxy_v1", ""},
		{"PROXY protocol, version 2", "\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c" + hello, "proxy_v2",
			"PROXY protocol (version 2)"},
		{"HTTP/2 in plain", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "http2_cleartext", "HTTP/2 without TLS"},
		{"SSL 2.0", "\x80\x2e\x01\x00\x02", "not_http", "neither TLS nor HTTP"},
		{"zero bytes", strings.Repeat("\x00", 40), "not_http", ""},
		{"no bytes", "", "closed", ""},
		{"half a signature", "PROX", "closed", ""},
		{"a broken ClientHello", hello + "\x00\x05hello", "handshake", ""},
	} {
		for _, split := range []bool{false, true} {
			before := value(t, reg, "revoked_api_connections_refused_total", tt.cause)
			c, err := net.Dial("tcp", s.addr)
			if err != nil {
				t.Fatal(err)
			}
			if split { // in two packets
				_, _ = io.WriteString(c, tt.bytes[:len(tt.bytes)/2])
				_, _ = io.WriteString(c, tt.bytes[len(tt.bytes)/2:])
			} else {
				_, _ = io.WriteString(c, tt.bytes)
			}
			_ = c.(*net.TCPConn).CloseWrite()
			_, _ = io.Copy(io.Discard, c) // until the server has closed
			c.Close()
			if got := value(t, reg, "revoked_api_connections_refused_total", tt.cause); got != before+1 {
				t.Errorf("%s (split %t): got %v counted as %s, want %v", tt.name, split, got, tt.cause, before+1)
			}
		}
		if tt.logged != "" && strings.Count(log.String(), tt.logged) != 1 {
			t.Errorf("%s: got log %q, want %q once", tt.name, log.String(), tt.logged)
		}
	}
	for _, method := range []string{"POST", "PUT", "PATCH", "PROPFIND", "P"} { // share a prefix with PROXY
		got := s.raw(t, true, method+" / HTTP/1.1\r\nHost: as.example\r\nContent-Length: 0\r\n\r\n")
		if !strings.HasPrefix(got, "200 ") {
			t.Errorf("%s: got %s, want 200", method, got)
		}
	}
}

// After a write that failed in the middle of a TLS record, the server stops writing. The client
// gets the end of the stream, not a record that it cannot decrypt.
func TestServer_PartialWrite_SendsNoBadRecord(t *testing.T) {
	ended := make(chan struct{})
	s := start(t, func(c *serve.Config) {
		c.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			defer close(ended)
			_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(20 * time.Millisecond))
			b := make([]byte, 1<<20)
			for {
				if _, err := w.Write(b); err != nil {
					return
				}
			}
		})
	})
	c, err := tls.Dial("tcp", s.addr, &tls.Config{RootCAs: s.pool})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: as.example\r\n\r\n")
	await.Receive(t, ended, "a failed write") // the buffers are full and the record is cut
	if _, err = io.Copy(io.Discard, c); err != nil && strings.Contains(err.Error(), "bad record MAC") {
		t.Errorf("got %v, want the end of the stream", err)
	}
}

// A piecemeal connection sends and receives in small pieces of changing sizes, the first bytes one
// by one.
type piecemeal struct {
	net.Conn
	sizes *rand.Rand // source of the sizes of writes
	sent  int
}

func (c *piecemeal) Write(b []byte) (n int, err error) {
	for n < len(b) && err == nil {
		size := 1
		if c.sent > 40 {
			size += c.sizes.IntN(4000)
		}
		var m int
		m, err = c.Conn.Write(b[n:min(len(b), n+size)])
		n, c.sent = n+m, c.sent+m
	}
	return n, err
}

func (c *piecemeal) Read(b []byte) (int, error) { return c.Conn.Read(b[:min(len(b), 999)]) }

// Many clients send their requests in random pieces, and cancel some of them. Later, the server
// shuts down. Each answer is complete, and every client can decrypt every record. A request may
// fail because of the shutdown or a slow machine.
func TestServer_Stress_RecordsStayWhole(t *testing.T) {
	s := start(t)
	var whole, failed atomic.Int64
	var clients sync.WaitGroup
	for k := range uint64(12) {
		clients.Go(func() {
			sizes := rand.New(rand.NewPCG(k, 7))
			dial := func(ctx context.Context, network, addr string) (net.Conn, error) {
				c, err := new(net.Dialer).DialContext(ctx, network, addr)
				return &piecemeal{Conn: c, sizes: rand.New(rand.NewPCG(k, 8))}, err
			}
			c := s.client(t, k%2 == 0, 0)
			c.Transport.(*http.Transport).DialContext = dial
			for i := range 24 {
				if i == 18 && k == 0 {
					_ = s.Shutdown(t.Context())
				}
				body := strings.Repeat(string(rune('a'+i)), 1+sizes.IntN(40<<10))
				ctx, leave := context.WithCancel(t.Context())
				req, err := http.NewRequestWithContext(ctx, http.MethodPost, "https://"+s.addr, strings.NewReader(body))
				if err != nil {
					t.Error(err)
				}
				if i%6 == 5 { // leave in the middle
					time.AfterFunc(time.Duration(sizes.IntN(3000))*time.Microsecond, leave)
				}
				var got []byte
				res, err := c.Do(req)
				if err == nil {
					got, err = io.ReadAll(res.Body)
					res.Body.Close()
				}
				leave()
				switch {
				case err == nil && strings.HasSuffix(string(got), " TLS true "+body):
					whole.Add(1)
				case err == nil:
					t.Errorf("got an answer of %d bytes that is not the request's of %d", len(got), len(body))
				case strings.Contains(err.Error(), "record") || strings.Contains(err.Error(), "remote error"):
					t.Errorf("got %v", err)
				default:
					failed.Add(1)
				}
			}
		})
	}
	clients.Wait()
	t.Logf("%d whole answers, %d requests without one", whole.Load(), failed.Load())
	if whole.Load() == 0 {
		t.Error("got no whole answer")
	}
}
