package serve_test

import (
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"revoked/api/serve"
)

// A pipeListener accepts connections in memory, so that a test can use virtual time.
type pipeListener struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once
}

func (l *pipeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *pipeListener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *pipeListener) Addr() net.Addr { return &net.TCPAddr{} }

// A frameClient is an HTTP/2 client that sends single frames.
type frameClient struct {
	*http2.Framer
	conn   net.Conn
	block  []byte // encoded header of a POST
	goAway bool   // a GOAWAY has been read
}

// Clients that send or read slowly lose their connection, however they do it. Each row sets the
// time after which the connection must have ended.
func TestServer_SlowClient_LosesConnection(t *testing.T) {
	certFile, keyFile, pool := certFiles(t, t.TempDir(), "one")
	cert, err := serve.LoadCertificate(certFile, keyFile)
	if err != nil {
		t.Fatal(err)
	}
	const second = time.Second
	trickle := func(c net.Conn, b string) {
		for i := 0; ; i++ {
			time.Sleep(second)
			if _, err := c.Write([]byte{b[i%len(b)]}); err != nil {
				return
			}
		}
	}
	for _, tt := range []struct {
		name  string
		proto string
		send  func(c net.Conn, f *frameClient)
		reads bool // the client reads what the server sends
		most  time.Duration
	}{
		{"HTTP/1: no byte", "http/1.1", func(net.Conn, *frameClient) {}, true, 6 * second},
		{"HTTP/1: header trickles", "http/1.1", func(c net.Conn, _ *frameClient) {
			_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n")
			trickle(c, "a: b\r\n")
		}, true, 6 * second},
		{"HTTP/1: half a body", "http/1.1", func(c net.Conn, _ *frameClient) {
			_, _ = io.WriteString(c, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nx")
		}, true, 7 * second},
		{"HTTP/1: body trickles", "http/1.1", func(c net.Conn, _ *frameClient) {
			_, _ = io.WriteString(c, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9000\r\n\r\nx")
			trickle(c, "x")
		}, true, 7 * second},
		{"HTTP/1: answer is not read", "http/1.1", func(c net.Conn, _ *frameClient) {
			_, _ = io.WriteString(c, "GET /large HTTP/1.1\r\nHost: a\r\n\r\n")
		}, false, 21 * second},
		{"HTTP/2: no request", "h2", func(c net.Conn, f *frameClient) {
			for f.WritePing(false, [8]byte{}) == nil { // a PING is not a request
				time.Sleep(second)
			}
		}, true, 12 * second},
		{"HTTP/2: half a preface", "h2", func(c net.Conn, _ *frameClient) {}, true, 12 * second},
		{"HTTP/2: half a frame header", "h2", func(c net.Conn, f *frameClient) {
			_ = f.request(1, true)
			_, _ = c.Write([]byte{0, 0, 8, 6})
		}, true, 12 * second},
		{"HTTP/2: half a payload trickles", "h2", func(c net.Conn, f *frameClient) {
			_ = f.request(1, true)
			_, _ = c.Write([]byte{0, 0x20, 0, 0xff, 0, 0, 0, 0, 0})
			trickle(c, "x")
		}, true, 12 * second},
		{"HTTP/2: header without its end", "h2", func(c net.Conn, f *frameClient) {
			_ = f.request(1, true)
			_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: 3, BlockFragment: f.block})
		}, true, 6 * second},
		{"HTTP/2: header trickles by CONTINUATION", "h2", func(c net.Conn, f *frameClient) {
			_ = f.request(1, false) // an open stream keeps the connection from being idle
			_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: 3, BlockFragment: f.block})
			for f.WriteContinuation(3, false, nil) == nil {
				time.Sleep(second)
			}
		}, true, 6 * second},
		{"HTTP/2: answer is not read", "h2", func(c net.Conn, f *frameClient) { _ = f.request(1, true) }, false, 21 * second},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := &pipeListener{conns: make(chan net.Conn), closed: make(chan struct{})}
				s := serve.New(serve.Config{Listener: l, TLS: serve.TLSConfig(cert, nil), Handler: http.HandlerFunc(answer)})
				served := make(chan error, 1)
				go func() { served <- s.Serve() }()
				near, far := net.Pipe()
				l.conns <- far
				began := time.Now()
				c := net.Conn(near)
				if tt.name != "HTTP/1: no byte" {
					tc := tls.Client(near, &tls.Config{RootCAs: pool, ServerName: "127.0.0.1", NextProtos: []string{tt.proto},
						Time: func() time.Time { return certTime(cert) }})
					if err := tc.Handshake(); err != nil {
						t.Fatal(err)
					}
					c = tc
				}
				ended := make(chan struct{})
				f := newFrameClient(c)
				if tt.reads {
					go func() { _, _ = io.Copy(io.Discard, c) }()
				}
				go func() {
					defer close(ended)
					if tt.proto == "h2" && tt.name != "HTTP/2: half a preface" {
						_, _ = io.WriteString(c, http2.ClientPreface)
						_ = f.WriteSettings()
					} else if tt.proto == "h2" {
						_, _ = io.WriteString(c, http2.ClientPreface[:10])
					}
					tt.send(c, f)
				}()
				synctest.Wait()
				if n, _ := s.Connections(); n != 1 {
					t.Errorf("got %d connections at first, want 1", n)
				}
				for n, _ := s.Connections(); n > 0; n, _ = s.Connections() {
					if time.Since(began) > tt.most {
						t.Errorf("got a connection after %v, want none after %v", time.Since(began), tt.most)
						break
					}
					time.Sleep(second / 10)
				}
				t.Logf("ended after %v", time.Since(began))
				near.Close()
				<-ended
				if err := s.Close(); err != nil {
					t.Error(err)
				}
				<-served
			})
		})
	}
}

// answer reads the body and answers. The answer of /large exceeds every buffer.
func answer(w http.ResponseWriter, r *http.Request) {
	if _, err := io.ReadAll(r.Body); err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	if r.URL.Path == "/large" {
		_, _ = w.Write(make([]byte, 1<<20))
	}
}

// certTime returns a time within the validity of cert. The clock of a synctest bubble begins in the
// year 2000, before cert is valid.
func certTime(cert *serve.Certificate) time.Time { return cert.NotAfter().Add(-time.Minute) }

func newFrameClient(c net.Conn) *frameClient {
	f := &frameClient{Framer: http2.NewFramer(c, c), conn: c}
	var b bytes.Buffer
	enc := hpack.NewEncoder(&b)
	enc.SetMaxDynamicTableSize(0)
	for _, h := range [][2]string{{":method", "POST"}, {":scheme", "https"}, {":authority", "a"}, {":path", "/large"}} {
		_ = enc.WriteField(hpack.HeaderField{Name: h[0], Value: h[1]})
	}
	f.block = b.Bytes()
	return f
}

func (f *frameClient) request(id uint32, whole bool) error {
	return f.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: f.block, EndHeaders: true,
		EndStream: whole})
}
