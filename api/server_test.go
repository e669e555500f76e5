package api_test

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"revoked"
	"revoked/api"
)

// certFiles writes a self-signed certificate for 127.0.0.1 and its key.
func certFiles(t testing.TB, dir, name string) (certFile, keyFile string, pool *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<60))
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: serial, Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certFile, keyFile = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	for file, b := range map[string][]byte{certFile: certPEM, keyFile: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})} {
		if err := os.WriteFile(file, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	pool = x509.NewCertPool()
	pool.AppendCertsFromPEM(certPEM)
	return certFile, keyFile, pool
}

// A running server, stopped at the end of the test.
type running struct {
	*bench
	server *api.Server
	pool   *x509.CertPool
	addr   string
	served chan error
}

func start(t testing.TB, change func(*api.ServerConfig), configure ...func(*api.Config)) *running {
	t.Helper()
	certFile, keyFile, pool := certFiles(t, t.TempDir(), "one")
	cert, err := api.LoadCertificate(certFile, keyFile)
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &running{bench: newBench(t, configure...), pool: pool, addr: l.Addr().String(), served: make(chan error, 1)}
	cfg := api.ServerConfig{Listener: l, TLS: api.TLSConfig(cert, nil), API: r.api}
	if change != nil {
		change(&cfg)
	}
	r.server = api.NewServer(cfg)
	go func() { r.served <- r.server.Serve() }()
	t.Cleanup(func() {
		for range 2 {
			if err := r.server.Close(); err != nil {
				t.Errorf("close: %v", err)
			}
		}
		if err := <-r.served; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return r
}

func (r *running) client(t testing.TB, h2 bool, version uint16) *http.Client {
	tr := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: r.pool, MaxVersion: version}, ForceAttemptHTTP2: h2}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

func (r *running) introspect(c *http.Client, scheme string) (*http.Response, string, error) {
	req, err := http.NewRequest(http.MethodPost, scheme+"://"+r.addr+pathIntrospect, strings.NewReader("token=AT1"))
	if err != nil {
		return nil, "", err
	}
	req.Header.Set("Content-Type", formType)
	req.Header.Set("Authorization", as("rs1"))
	res, err := c.Do(req)
	if err != nil {
		return nil, "", err
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	return res, string(b), err
}

func TestServerSpeaksEveryProtocolOnOnePort(t *testing.T) {
	r := start(t, nil)
	for _, row := range []struct {
		id      string
		h2      bool
		version uint16
		proto   string
	}{
		{"HTTP/1.1 over TLS 1.3", false, tls.VersionTLS13, "HTTP/1.1"}, {"HTTP/1.1 over TLS 1.2", false, tls.VersionTLS12, "HTTP/1.1"},
		{"HTTP/2 over TLS 1.3", true, tls.VersionTLS13, "HTTP/2.0"}, {"HTTP/2 over TLS 1.2", true, tls.VersionTLS12, "HTTP/2.0"},
	} {
		c := r.client(t, row.h2, row.version)
		for range 3 { // on one connection
			res, body, err := r.introspect(c, "https")
			if err != nil {
				t.Fatalf("%s: %v", row.id, err)
			}
			if res.StatusCode != 200 || res.Proto != row.proto || !strings.HasPrefix(body, `{"active":true`) || res.Header.Get("Server") != "" {
				t.Errorf("%s: got %d %s %s", row.id, res.StatusCode, res.Proto, body)
			}
		}
	}
	if _, _, err := r.introspect(r.client(t, false, tls.VersionTLS11), "https"); err == nil {
		t.Error("TM-16: TLS 1.1 was accepted")
	}
	res, body, err := r.introspect(http.DefaultClient, "http")
	if err != nil || res.StatusCode != 400 || !strings.HasPrefix(body, `{"error":"invalid_request"`) {
		t.Errorf("TM-01 plain HTTP: got %v %s (%v), want 400 invalid_request", res, body, err)
	}
	http.DefaultClient.CloseIdleConnections()
}

func TestServerRefusesRSAKeyExchange(t *testing.T) {
	r := start(t, nil)
	c, err := tls.Dial("tcp", r.addr, &tls.Config{RootCAs: r.pool, MaxVersion: tls.VersionTLS12,
		CipherSuites: []uint16{tls.TLS_RSA_WITH_AES_128_GCM_SHA256, tls.TLS_RSA_WITH_AES_128_CBC_SHA}})
	if err == nil {
		c.Close()
		t.Error("TM-16: RSA key exchange was accepted")
	}
}

// dial connects to the server, by HTTP/1 over TLS or in plain.
func (r *running) dial(t *testing.T, plain bool) net.Conn {
	t.Helper()
	var c net.Conn
	var err error
	if plain {
		c, err = net.Dial("tcp", r.addr)
	} else {
		c, err = tls.Dial("tcp", r.addr, &tls.Config{RootCAs: r.pool})
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// raw sends bytes and returns the first answer that comes back.
func (r *running) raw(t *testing.T, plain bool, request string) string {
	t.Helper()
	c := r.dial(t, plain)
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

func TestAmbiguousFramingIsRefused(t *testing.T) {
	r := start(t, nil)
	head := "POST /oauth2/revoke HTTP/1.1\r\nHost: as.example\r\nAuthorization: " + as("c1") + "\r\nContent-Type: " + formType + "\r\n"
	const chunks = "9\r\ntoken=AT1\r\n0\r\n\r\n"
	for _, row := range []struct{ id, request, want string }{
		{"TM-20 both lengths", head + "Content-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks, "400"},
		{"TM-20 both lengths, the other way round", head + "Transfer-Encoding: chunked\r\ncontent-LENGTH:9\r\n\r\n" + chunks, "400"},
		{"two lengths that differ", head + "Content-Length: 9\r\nContent-Length: 8\r\n\r\ntoken=AT1", "400"},
		{"an unknown encoding", head + "Transfer-Encoding: xchunked\r\n\r\n" + chunks, "501"},
		{"MF-19 a body that ends too early", head + "Content-Length: 9\r\nConnection: close\r\n\r\ntoken", "wait"},
	} {
		if row.want == "wait" { // half-close instead of waiting for the read timeout
			c, err := tls.Dial("tcp", r.addr, &tls.Config{RootCAs: r.pool})
			if err != nil {
				t.Fatal(err)
			}
			_, _ = io.WriteString(c, row.request)
			_ = c.CloseWrite()
			b, _ := io.ReadAll(c)
			c.Close()
			if len(b) > 0 && !strings.HasPrefix(string(b), "HTTP/1.1 400") {
				t.Errorf("%s: got %s", row.id, b)
			}
		} else if got := r.raw(t, false, row.request); !strings.HasPrefix(got, row.want) || !strings.HasSuffix(got, "true") {
			t.Errorf("%s: got %s, want %s and a closed connection", row.id, got, row.want)
		}
		if !r.active(t, "AT1") {
			t.Fatalf("%s: the token was revoked", row.id)
		}
	}
	if got := r.raw(t, true, "POST /oauth2/revoke HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"+chunks); !strings.HasPrefix(got, "400") {
		t.Errorf("TM-20 in plain HTTP: got %s", got)
	}
	if got := r.raw(t, false, head+"Transfer-Encoding: chunked\r\n\r\n"+chunks); got != "200 {} false" {
		t.Errorf("chunks alone: got %s, want 200 and an open connection", got)
	}
	if r.active(t, "AT1") {
		t.Error("a chunked body was not read")
	}
}

// What net/http refuses before a handler sees it has the shape of the contract too.
func TestRefusalsOfTheServerItselfAreJSON(t *testing.T) {
	r := start(t, nil)
	const head = "POST /oauth2/revoke HTTP/1.1\r\nHost: as.example\r\n"
	const chunks = "9\r\ntoken=AT1\r\n0\r\n\r\n"
	const good = "GET /livez HTTP/1.1\r\nHost: as.example\r\n\r\n"
	for _, row := range []struct {
		id, request string
		status      int
	}{
		{"no HTTP", "SSH-2.0-x\r\n\r\n", 400},
		{"a bad escape in the path", "POST /oauth2/%zz HTTP/1.1\r\nHost: as.example\r\n\r\n", 400},
		{"two lengths that differ", head + "Content-Length: 9\r\nContent-Length: 8\r\n\r\ntoken=AT1", 400},
		{"a bad name of a header", head + "a b: c\r\nContent-Length: 0\r\n\r\n", 400},
		{"a bad value of a header", head + "a: \x00\r\nContent-Length: 0\r\n\r\n", 400},
		{"no Host", "POST /oauth2/revoke HTTP/1.1\r\nContent-Length: 0\r\n\r\n", 400},
		{"an unknown encoding", head + "Transfer-Encoding: gzip, chunked\r\n\r\n" + chunks, 501},
		{"a large header", head + "a: " + strings.Repeat("x", 40<<10) + "\r\n\r\n", 431},
		{"an unknown expectation", head + "Expect: foo\r\nContent-Length: 9\r\n\r\ntoken=AT1", 417},
		{"an unknown expectation in HTTP/1.0", "POST /oauth2/revoke HTTP/1.0\r\nExpect: foo\r\n\r\n", 417},
		{"an unknown version", "GET / HTTP/3.0\r\nHost: as.example\r\n\r\n", 505},
	} {
		for _, plain := range []bool{false, true} {
			for _, second := range []bool{false, true} {
				c := r.dial(t, plain)
				br := bufio.NewReader(c)
				if second { // on a connection that has served a request
					_, _ = io.WriteString(c, good)
					res, err := http.ReadResponse(br, nil)
					if err != nil {
						t.Fatal(err)
					}
					_, _ = io.Copy(io.Discard, res.Body)
				}
				_, _ = io.WriteString(c, row.request)
				res, err := http.ReadResponse(br, nil)
				if err != nil {
					t.Errorf("%s: %v", row.id, err)
					continue
				}
				body, err := io.ReadAll(res.Body)
				h := res.Header
				if res.StatusCode != row.status || err != nil || !strings.HasPrefix(string(body), `{"error":"invalid_request","error_description":"`) || !json.Valid(body) || !res.Close {
					t.Errorf("%s (plain %t, second %t): got %d %q %v, close %t, want %d and JSON", row.id, plain, second, res.StatusCode, body, err, res.Close, row.status)
				}
				if h.Get("Content-Type") != "application/json" || h.Get("Cache-Control") != "no-store" || h.Get("Pragma") != "no-cache" || h.Get("X-Content-Type-Options") != "nosniff" || h.Get("Date") == "" {
					t.Errorf("%s (plain %t, second %t): got headers %v", row.id, plain, second, h)
				}
			}
		}
	}
	if !r.active(t, "AT1") {
		t.Error("the token was revoked")
	}
}

// What a handler sends is never taken for a refusal, not even a body that looks like one.
func TestBodiesThatLookLikeRefusals(t *testing.T) {
	like := "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n400 Bad Request" + strings.Repeat("x", 8<<10)
	r := start(t, func(c *api.ServerConfig) {
		c.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if err := http.NewResponseController(w).Flush(); err != nil {
				t.Error(err)
			}
			for range 3 { // larger than the buffers of net/http: each is a write of its own
				_, _ = io.WriteString(w, like)
			}
		})
	})
	if got := r.raw(t, false, "GET / HTTP/1.0\r\n\r\n"); got != fmt.Sprintf("200 %s true", strings.Repeat(like, 3)) {
		t.Errorf("got %.200q and more, want what the handler wrote", got)
	}
}

func TestHTTP10(t *testing.T) {
	r := start(t, nil)
	got := r.raw(t, false, "POST /oauth2/revoke HTTP/1.0\r\nAuthorization: "+as("c1")+"\r\nContent-Type: "+formType+"\r\nContent-Length: 9\r\n\r\ntoken=AT1")
	if !strings.HasPrefix(got, "200 {}") {
		t.Errorf("got %s, want 200 {}", got)
	}
}

func TestServerBoundsItsConnections(t *testing.T) {
	r := start(t, func(c *api.ServerConfig) { c.MaxConns = 1 })
	idle, err := net.Dial("tcp", r.addr)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		_, _, err := r.introspect(r.client(t, false, 0), "https")
		done <- err
	}()
	select {
	case err := <-done:
		t.Fatalf("a second connection was served while the only slot was taken (%v)", err)
	case <-time.After(50 * time.Millisecond): // not proof, but never wrong: the slot is taken for 5 s
	}
	idle.Close()
	if err := <-done; err != nil {
		t.Errorf("after the slot came free: %v", err)
	}
}

func TestShutdownLetsRequestsFinish(t *testing.T) {
	r := start(t, nil)
	entered, leave := make(chan struct{}), make(chan struct{})
	r.node.onStatus = func(context.Context, revoked.Digest) error { close(entered); <-leave; return nil }
	type answer struct {
		status int
		err    error
	}
	got := make(chan answer, 1)
	go func() {
		res, _, err := r.introspect(r.client(t, false, 0), "https")
		if err != nil {
			got <- answer{err: err}
			return
		}
		got <- answer{status: res.StatusCode}
	}()
	<-entered
	down := make(chan error, 1)
	go func() { down <- r.server.Shutdown(t.Context()) }()
	if err := <-r.served; err != nil {
		t.Errorf("serve: %v", err)
	}
	r.served <- nil
	if _, err := net.Dial("tcp", r.addr); err == nil {
		t.Error("a new connection is accepted while shutting down")
	}
	close(leave)
	if a := <-got; a.err != nil || a.status != 200 {
		t.Errorf("CL-17: got %+v, want 200", a)
	}
	if err := <-down; err != nil {
		t.Errorf("shut down: %v", err)
	}
	if err := r.server.Shutdown(t.Context()); err != nil {
		t.Errorf("shut down again: %v", err)
	}
}

func TestShutdownEndsWhatDoesNot(t *testing.T) {
	r := start(t, func(c *api.ServerConfig) { c.ShutdownTimeout = 20 * time.Millisecond })
	entered := make(chan struct{})
	r.node.onStatus = func(ctx context.Context, _ revoked.Digest) error { close(entered); <-ctx.Done(); return ctx.Err() }
	ended := make(chan struct{})
	go func() {
		_, _, _ = r.introspect(r.client(t, false, 0), "https")
		close(ended)
	}()
	<-entered
	if err := r.server.Shutdown(t.Context()); err == nil {
		t.Error("got no error though a request was cut off")
	}
	<-ended
}

func TestServerLeavesNoGoroutine(t *testing.T) {
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	b := newBench(t)
	s := api.NewServer(api.ServerConfig{Listener: l, API: b.api})
	served := make(chan error, 1)
	go func() { served <- s.Serve() }()
	c, err := net.Dial("tcp", l.Addr().String()) // says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
	unserved, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := api.NewServer(api.ServerConfig{Listener: unserved, API: b.api}).Close(); err != nil {
		t.Error(err)
	}
}

func TestCertificateReloads(t *testing.T) {
	dir := t.TempDir()
	certFile, keyFile, _ := certFiles(t, dir, "one")
	cert, err := api.LoadCertificate(certFile, keyFile)
	if err != nil {
		t.Fatal(err)
	}
	serial := func() string {
		c, err := cert.GetCertificate(nil)
		if err != nil {
			t.Fatal(err)
		}
		return c.Leaf.SerialNumber.String()
	}
	first := serial()
	if changed, err := cert.Reload(); changed || err != nil {
		t.Errorf("nothing changed: got %t, %v", changed, err)
	}
	if cert.NotAfter().IsZero() {
		t.Error("NotAfter is zero")
	}
	if err := os.WriteFile(certFile, []byte("no PEM"), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	told, ended := make(chan error), make(chan struct{})
	go func() {
		cert.Watch(ctx, time.Millisecond, func(err error) { told <- err })
		close(ended)
	}()
	if err := <-told; err == nil {
		t.Error("a broken file was taken")
	}
	if serial() != first {
		t.Error("a broken file replaced what was served")
	}
	certFiles(t, dir, "two")
	for err := range told { // key and certificate do not fit for a moment
		if err == nil {
			break
		}
	}
	if serial() == first {
		t.Error("the new certificate is not served")
	}
	cancel()
	<-ended
	if _, err := api.LoadCertificate(certFile, filepath.Join(dir, "none")); err == nil {
		t.Error("a missing key is no error")
	}
}
