package serve_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"revoked"
	"revoked/api/serve"
	"revoked/internal/await"
)

// A server is the server under test. Test cleanup closes it.
type server struct {
	*serve.Server
	pool   *x509.CertPool
	addr   string
	served chan error
	calls  *atomic.Int32 // accepted calls to the default handler
}

// start serves a handler that refuses ambiguous lengths and otherwise answers with the protocol and
// the body of the request.
func start(t testing.TB, change ...func(*serve.Config)) *server {
	t.Helper()
	certFile, keyFile, pool := certFiles(t, t.TempDir(), "one")
	cert, err := serve.LoadCertificate(certFile, keyFile)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &server{pool: pool, addr: l.Addr().String(), served: make(chan error, 1), calls: new(atomic.Int32)}
	handler := func(w http.ResponseWriter, r *http.Request) {
		if serve.AmbiguousLength(r) {
			w.Header().Set("Connection", "close")
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		body, err := io.ReadAll(r.Body)
		if err != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		s.calls.Add(1)
		fmt.Fprintf(w, "%s TLS %t %s", r.Proto, r.TLS != nil, body)
	}
	cfg := serve.Config{Listener: l, TLS: serve.TLSConfig(cert, nil), Handler: http.HandlerFunc(handler),
		RequestTimeout: await.Limit, ShutdownTimeout: await.Limit}
	for _, f := range change {
		f(&cfg)
	}
	s.Server = serve.New(cfg)
	go func() { s.served <- s.Serve() }()
	t.Cleanup(func() {
		for range 2 {
			if err := s.Close(); err != nil {
				t.Errorf("Close: got %v, want nil", err)
			}
		}
		if err := await.Receive(t, s.served, "the end of Serve"); err != nil {
			t.Errorf("Serve: got %v, want nil", err)
		}
	})
	return s
}

func (s *server) client(t testing.TB, h2 bool, version uint16) *http.Client {
	tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: s.pool, MaxVersion: version}, ForceAttemptHTTP2: h2}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

func (s *server) post(c *http.Client, scheme string) (*http.Response, string, error) {
	res, err := c.Post(scheme+"://"+s.addr, "text/plain", strings.NewReader("hello"))
	if err != nil {
		return nil, "", err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	return res, string(b), err
}

func TestServer_EachProtocol_IsServed(t *testing.T) {
	s := start(t)
	for _, row := range []struct {
		name    string
		h2      bool
		version uint16
		proto   string
	}{
		{"HTTP/1.1 over TLS 1.3", false, tls.VersionTLS13, "HTTP/1.1"},
		{"HTTP/1.1 over TLS 1.2", false, tls.VersionTLS12, "HTTP/1.1"},
		{"HTTP/2 over TLS 1.3", true, tls.VersionTLS13, "HTTP/2.0"},
		{"HTTP/2 over TLS 1.2", true, tls.VersionTLS12, "HTTP/2.0"},
	} {
		c := s.client(t, row.h2, row.version)
		for range 3 { // on one connection
			res, body, err := s.post(c, "https")
			if err != nil {
				t.Fatalf("%s: %v", row.name, err)
			}
			if want := row.proto + " TLS true hello"; res.StatusCode != 200 || body != want || res.Header.Get("Server") != "" {
				t.Errorf("%s: got %d %q, Server %q, want 200 %q",
					row.name, res.StatusCode, body, res.Header.Get("Server"), want)
			}
		}
	}
	if _, _, err := s.post(s.client(t, false, tls.VersionTLS11), "https"); err == nil {
		t.Error("TM-16 TLS 1.1: got an answer, want an error")
	}
	if _, body, err := s.post(http.DefaultClient, "http"); err != nil || body != "HTTP/1.1 TLS false hello" {
		t.Errorf("plain HTTP: got %q, error %v, want an answer", body, err)
	}
	http.DefaultClient.CloseIdleConnections()
	got := s.raw(t, false, "POST / HTTP/1.0\r\nContent-Length: 5\r\n\r\nhello")
	if got != "200 HTTP/1.0 TLS true hello true" {
		t.Errorf("HTTP/1.0: got %s, want 200 and a closed connection", got)
	}
}

func TestServer_RSAKeyExchange_IsRefused(t *testing.T) {
	s := start(t)
	c, err := tls.Dial("tcp", s.addr, &tls.Config{RootCAs: s.pool, MaxVersion: tls.VersionTLS12,
		CipherSuites: []uint16{tls.TLS_RSA_WITH_AES_128_GCM_SHA256, tls.TLS_RSA_WITH_AES_128_CBC_SHA}})
	if err == nil {
		c.Close()
		t.Error("TM-16 RSA key exchange: got a connection, want an error")
	}
}

// dial connects by HTTP/1, with or without TLS.
func (s *server) dial(t *testing.T, plain bool) net.Conn {
	t.Helper()
	var c net.Conn
	var err error
	if plain {
		c, err = net.Dial("tcp", s.addr)
	} else {
		c, err = tls.Dial("tcp", s.addr, &tls.Config{RootCAs: s.pool})
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// raw sends bytes and returns status, body and whether the connection closes.
func (s *server) raw(t *testing.T, plain bool, request string) string {
	t.Helper()
	c := s.dial(t, plain)
	if _, err := io.WriteString(c, request); err != nil {
		t.Fatal(err)
	}
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return "closed"
	}
	defer res.Body.Close()
	b, _ := io.ReadAll(res.Body)
	return fmt.Sprintf("%d %s %t", res.StatusCode, b, res.Close)
}

const chunks = "5\r\nhello\r\n0\r\n\r\n"

// The server refuses a request that another server may frame differently (RFC 9112 section 6.3).
func TestServer_AmbiguousFraming_IsRefused(t *testing.T) {
	s := start(t)
	const head = "POST / HTTP/1.1\r\nHost: as.example\r\n"
	for _, row := range []struct{ name, request, want string }{
		{"TM-20 both lengths", head + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks, "400"},
		{"TM-20 both lengths, reversed", head + "Transfer-Encoding: chunked\r\ncontent-LENGTH:5\r\n\r\n" + chunks, "400"},
		{"two different lengths", head + "Content-Length: 5\r\nContent-Length: 4\r\n\r\nhello", "400"},
		{"an unknown encoding", head + "Transfer-Encoding: xchunked\r\n\r\n" + chunks, "501"},
	} {
		for _, plain := range []bool{false, true} {
			if got := s.raw(t, plain, row.request); !strings.HasPrefix(got, row.want) || !strings.HasSuffix(got, "true") {
				t.Errorf("%s (plain %t): got %s, want %s and a closed connection", row.name, plain, got, row.want)
			}
		}
	}
	c, err := tls.Dial("tcp", s.addr, &tls.Config{RootCAs: s.pool})
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.WriteString(c, head+"Content-Length: 5\r\nConnection: close\r\n\r\nhel")
	_ = c.CloseWrite()
	b, _ := io.ReadAll(c)
	c.Close()
	if len(b) > 0 && !strings.HasPrefix(string(b), "HTTP/1.1 400") {
		t.Errorf("MF-19 truncated body: got %s, want 400 or a closed connection", b)
	}
	if n := s.calls.Load(); n != 0 {
		t.Errorf("got %d requests read as valid, want 0", n)
	}
	got := s.raw(t, false, head+"Transfer-Encoding: chunked\r\n\r\n"+chunks)
	if got != "200 HTTP/1.1 TLS true hello false" {
		t.Errorf("chunks alone: got %s, want 200 and an open connection", got)
	}
}

func TestServer_OwnRefusal_IsJSON(t *testing.T) {
	s := start(t)
	const head = "POST /oauth2/revoke HTTP/1.1\r\nHost: as.example\r\n"
	const good = "GET / HTTP/1.1\r\nHost: as.example\r\n\r\n"
	for _, row := range []struct {
		name, request string
		status        int
	}{
		{"another protocol", "SSH-2.0-x\r\n\r\n", 400},
		{"an invalid escape in the path", "POST /oauth2/%zz HTTP/1.1\r\nHost: as.example\r\n\r\n", 400},
		{"two different lengths", head + "Content-Length: 9\r\nContent-Length: 8\r\n\r\ntoken=AT1", 400},
		{"a bad header name", head + "a b: c\r\nContent-Length: 0\r\n\r\n", 400},
		{"a bad header value", head + "a: \x00\r\nContent-Length: 0\r\n\r\n", 400},
		{"a missing Host", "POST /oauth2/revoke HTTP/1.1\r\nContent-Length: 0\r\n\r\n", 400},
		{"an unknown encoding", head + "Transfer-Encoding: gzip, chunked\r\n\r\n" + chunks, 501},
		{"a large header", head + "a: " + strings.Repeat("x", 40<<10) + "\r\n\r\n", 431},
		{"an unknown expectation", head + "Expect: foo\r\nContent-Length: 9\r\n\r\ntoken=AT1", 417},
		{"an unknown expectation in HTTP/1.0", "POST /oauth2/revoke HTTP/1.0\r\nExpect: foo\r\n\r\n", 417},
		{"an unknown version", "GET / HTTP/3.0\r\nHost: as.example\r\n\r\n", 505},
	} {
		for _, plain := range []bool{false, true} {
			for _, place := range []string{"first", "second", "pipelined"} {
				c := s.dial(t, plain)
				br := bufio.NewReader(c)
				request := row.request
				switch place {
				case "second":
					_, _ = io.WriteString(c, good)
				case "pipelined": // both arrive in one read
					_, _ = io.WriteString(c, good+request)
					request = ""
				}
				if place != "first" {
					res, err := http.ReadResponse(br, nil)
					if err != nil {
						t.Fatal(err)
					}
					_, _ = io.Copy(io.Discard, res.Body)
					s.calls.Add(-1)
				}
				_, _ = io.WriteString(c, request)
				res, err := http.ReadResponse(br, nil)
				if err != nil {
					t.Errorf("%s (plain %t, %s): %v", row.name, plain, place, err)
					continue
				}
				body, err := io.ReadAll(res.Body)
				const prefix = `{"error":"invalid_request","error_description":"`
				if res.StatusCode != row.status || err != nil || !strings.HasPrefix(string(body), prefix) ||
					!json.Valid(body) || !res.Close {
					t.Errorf("%s (plain %t, %s): got %d %q, error %v, close %t, want %d, JSON and a closed connection",
						row.name, plain, place, res.StatusCode, body, err, res.Close, row.status)
				}
				h := res.Header
				if h.Get("Content-Type") != "application/json" || h.Get("Cache-Control") != "no-store" ||
					h.Get("Pragma") != "no-cache" || h.Get("X-Content-Type-Options") != "nosniff" || h.Get("Date") == "" {
					t.Errorf("%s (plain %t, %s): got headers %v, want those of an OAuth error",
						row.name, plain, place, h)
				}
				for _, name := range []string{"Revoked-Client-Id", "Revoked-Scope", "Revoked-Subject"} {
					if got := h[name]; len(got) != 1 || got[0] != "" {
						t.Errorf("%s: got %s %q, want it empty, as in every answer of /v1/check", row.name, name, got)
					}
				}
			}
		}
	}
	if n := s.calls.Load(); n != 0 {
		t.Errorf("got %d requests read as valid, want 0", n)
	}
}

// A body that looks like a refusal of net/http is sent unchanged.
func TestServer_BodyLikeRefusal_IsKept(t *testing.T) {
	like := "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n" +
		"400 Bad Request" + strings.Repeat("x", 8<<10)
	s := start(t, func(c *serve.Config) {
		c.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if err := http.NewResponseController(w).Flush(); err != nil {
				t.Error(err)
			}
			for range 3 { // larger than the buffers of net/http: each is a write to the connection
				_, _ = io.WriteString(w, like)
			}
		})
	})
	want := fmt.Sprintf("200 %s true", strings.Repeat(like, 3))
	if got := s.raw(t, false, "GET / HTTP/1.0\r\n\r\n"); got != want {
		t.Errorf("got %.200q and more, want the bytes of the handler", got)
	}
}

// blocking returns a configuration whose handler signals entered and then blocks until leave
// returns.
func blocking(entered chan<- struct{}, leave func(*http.Request)) func(*serve.Config) {
	return func(c *serve.Config) {
		c.Handler = http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			close(entered)
			leave(r)
		})
	}
}

func TestShutdown_RequestUnderWay_Finishes(t *testing.T) {
	entered, leave := make(chan struct{}), make(chan struct{})
	s := start(t, blocking(entered, func(*http.Request) { <-leave }))
	type answer struct {
		status int
		err    error
	}
	got := make(chan answer, 1)
	go func() {
		res, _, err := s.post(s.client(t, false, 0), "https")
		if err != nil {
			got <- answer{err: err}
			return
		}
		got <- answer{status: res.StatusCode}
	}()
	await.Receive(t, entered, "the request in the handler")
	down := make(chan error, 1)
	go func() { down <- s.Shutdown(t.Context()) }()
	if err := await.Receive(t, s.served, "the end of Serve"); err != nil {
		t.Errorf("Serve: got %v, want nil", err)
	}
	s.served <- nil
	if c, err := net.Dial("tcp", s.addr); err == nil {
		c.Close()
		t.Error("dial during the shutdown: got a connection, want an error")
	}
	close(leave)
	if a := await.Receive(t, got, "an answer"); a.err != nil || a.status != 200 {
		t.Errorf("CL-17: got %+v, want 200", a)
	}
	if err := await.Receive(t, down, "the end of Shutdown"); err != nil {
		t.Errorf("Shutdown: got %v, want nil", err)
	}
	if err := s.Shutdown(t.Context()); err != nil {
		t.Errorf("second Shutdown: got %v, want nil", err)
	}
}

func TestShutdown_Timeout_CutsRequests(t *testing.T) {
	entered := make(chan struct{})
	s := start(t, blocking(entered, func(r *http.Request) { <-r.Context().Done() }),
		func(c *serve.Config) { c.ShutdownTimeout = 20 * time.Millisecond })
	ended := make(chan struct{})
	go func() {
		_, _, _ = s.post(s.client(t, false, 0), "https")
		close(ended)
	}()
	await.Receive(t, entered, "the request in the handler")
	if err := s.Shutdown(t.Context()); err == nil {
		t.Error("got nil, want an error because a request was cut")
	}
	await.Receive(t, ended, "the end of the request")
}

func TestUntilShutdown_Shutdown_EndsContext(t *testing.T) {
	for _, h2 := range []bool{false, true} {
		entered, cause := make(chan struct{}), make(chan error, 1)
		s := start(t, blocking(entered, func(r *http.Request) {
			ctx, cancel := serve.UntilShutdown(r)
			defer cancel()
			<-ctx.Done()
			cause <- context.Cause(ctx)
		}))
		go func() { _, _, _ = s.post(s.client(t, h2, 0), "https") }()
		await.Receive(t, entered, "the request in the handler")
		if err := s.Shutdown(t.Context()); err != nil {
			t.Errorf("HTTP/2 %t: Shutdown: got %v, want nil", h2, err)
		}
		if err := await.Receive(t, cause, "the cause"); !errors.Is(err, revoked.ErrClosed) {
			t.Errorf("HTTP/2 %t: got cause %v, want ErrClosed", h2, err)
		}
	}
}

func TestServer_Closed_LeavesNoGoroutine(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := serve.New(serve.Config{Listener: l, Handler: http.NotFoundHandler()})
	served := make(chan error, 1)
	go func() { served <- s.Serve() }()
	c, err := net.Dial("tcp", l.Addr().String()) // sends nothing
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if err := await.Receive(t, served, "the end of Serve"); err != nil {
		t.Error(err)
	}
	unserved, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := serve.New(serve.Config{Listener: unserved, Handler: http.NotFoundHandler()}).Close(); err != nil {
		t.Error(err)
	}
}
