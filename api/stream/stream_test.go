package stream_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"revoked/api/stream"
	"revoked/internal/await"
)

// echo sends each line of the body back as it reads it, and returns the error of the answer.
func echo(t *testing.T, w http.ResponseWriter, r *http.Request, cfg stream.SpoolConfig, idle time.Duration) error {
	s := stream.New(w, r, idle)
	cfg.Full = s.Stall
	if err := s.EnableFullDuplex(); err != nil {
		t.Error(err)
	}
	lines := stream.NewLineReader(s, 1<<10)
	if err := lines.WaitFirst(); err != nil {
		t.Error(err)
	}
	out := stream.NewSpool(cfg)
	drained := make(chan error, 1)
	go func() { drained <- out.Drain(s, s.Flush) }()
	for {
		line, _, err := lines.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Error(err)
			break
		}
		if _, err := out.Write(append(line, '\n')); err != nil {
			break
		}
	}
	out.Close()
	return <-drained
}

// roomy returns the configuration of a spool that never fills up.
func roomy(t *testing.T) stream.SpoolConfig {
	return stream.SpoolConfig{Dir: t.TempDir(), Limit: 64 << 20, Budget: stream.NewBudget(64 << 20)}
}

// serveEcho returns a client of an echo server, and its URL.
func serveEcho(t *testing.T, h2 bool) (*http.Client, string) {
	cfg := roomy(t)
	return serveHTTP(t, h2, func(w http.ResponseWriter, r *http.Request) {
		if err := echo(t, w, r, cfg, stream.Idle); err != nil {
			t.Error(err)
		}
	})
}

func serveHTTP(t *testing.T, h2 bool, handler http.HandlerFunc) (*http.Client, string) {
	srv := newHTTP(t, h2, handler)
	srv.StartTLS()
	return srv.Client(), srv.URL
}

// newHTTP returns a server that does not serve yet.
func newHTTP(t *testing.T, h2 bool, handler http.HandlerFunc) *httptest.Server {
	srv := httptest.NewUnstartedServer(handler)
	srv.EnableHTTP2 = h2
	t.Cleanup(srv.Close)
	return srv
}

func TestStream_ClientSendsFirst_NoDeadlock(t *testing.T) {
	body := bytes.Repeat(append(bytes.Repeat([]byte("x"), 999), '\n'),
		12<<10) // more than the windows of Go's client, 4 MiB
	for _, h2 := range []bool{false, true} {
		client, url := serveEcho(t, h2)
		r, w := io.Pipe()
		sent := make(chan error, 1)
		go func() {
			_, err := w.Write(body)
			w.Close()
			sent <- err
		}()
		res, err := client.Post(url, stream.TypeNDJSON, r)
		if err != nil {
			t.Fatal(err)
		}
		if err := await.Receive(t, sent, "the end of the body"); err != nil { // nothing was read yet
			t.Errorf("HTTP/2 %t: send: got %v, want nil", h2, err)
		}
		got, err := io.ReadAll(res.Body)
		res.Body.Close()
		if err != nil || !bytes.Equal(got, body) || (res.ProtoMajor == 2) != h2 {
			t.Errorf("HTTP/2 %t: got %d bytes over %s, error %v, want %d", h2, len(got), res.Proto, err, len(body))
		}
	}
}

// A client that waits for results gets them, although its body has not ended.
func TestStream_ClientWaits_GetsResults(t *testing.T) {
	for _, h2 := range []bool{false, true} {
		client, url := serveEcho(t, h2)
		r, w := io.Pipe()
		line := append(bytes.Repeat([]byte("x"), 1<<10), '\n')
		block := bytes.Repeat(line, 48) // more than the gate lets pass before the body ends
		go func() { _, _ = w.Write(block) }()
		res, err := client.Post(url, stream.TypeNDJSON, r)
		if err != nil {
			t.Fatal(err)
		}
		got := make([]byte, len(block))
		if _, err := io.ReadFull(res.Body, got); err != nil || !bytes.Equal(got, block) {
			t.Errorf("HTTP/2 %t: got error %v, want the lines back", h2, err)
		}
		w.Close()
		if _, err := io.ReadAll(res.Body); err != nil {
			t.Errorf("HTTP/2 %t: end: got %v, want nil", h2, err)
		}
		res.Body.Close()
	}
}

// A client that reads while it sends gets the whole answer through a spool that is smaller than the
// answer.
func TestStream_SmallSpool_DelaysTheBody(t *testing.T) {
	body := bytes.Repeat(append(bytes.Repeat([]byte("x"), 999), '\n'), 8<<10)
	for _, h2 := range []bool{false, true} {
		cfg := stream.SpoolConfig{Dir: t.TempDir(), Limit: 100 << 10, Budget: stream.NewBudget(80 << 10)}
		client, url := serveHTTP(t, h2, func(w http.ResponseWriter, r *http.Request) {
			if err := echo(t, w, r, cfg, stream.Idle); err != nil {
				t.Errorf("HTTP/2 %t: got %v, want nil", h2, err)
			}
		})
		r, w := io.Pipe()
		go func() {
			_, err := w.Write(body)
			w.CloseWithError(err)
		}()
		res, err := client.Post(url, stream.TypeNDJSON, r)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(res.Body)
		res.Body.Close()
		if err != nil || !bytes.Equal(got, body) {
			t.Errorf("HTTP/2 %t: got %d bytes, error %v, want %d", h2, len(got), err, len(body))
		}
		if used := cfg.Budget.Used(); used != 0 {
			t.Errorf("HTTP/2 %t: got %d bytes of the budget at the end, want 0", h2, used)
		}
	}
}

// A pipeListener accepts connections in memory, so that a test can use virtual time.
type pipeListener struct {
	conns  chan net.Conn
	closed chan struct{}
	once   sync.Once

	mu    sync.Mutex
	pipes []net.Conn
}

// cut closes every connection below TLS. Otherwise both sides may wait for each other to read their
// close_notify, while a goroutine waits for a mutex. Virtual time would then stand still.
func (l *pipeListener) cut() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, c := range l.pipes {
		_ = c.Close()
	}
}

func (l *pipeListener) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	near, far := net.Pipe()
	l.mu.Lock()
	l.pipes = append(l.pipes, near, far)
	l.mu.Unlock()
	select {
	case l.conns <- far:
		return near, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
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

func (l *pipeListener) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 443} }

// A client that sends without end and reads nothing is stopped, and its part of the budget is
// released.
func TestStream_ClientNeverReads_ReturnsErrIdle(t *testing.T) {
	for _, h2 := range []bool{false, true} {
		dir := t.TempDir()
		synctest.Test(t, func(t *testing.T) { neverRead(t, h2, dir) })
	}
}

func neverRead(t *testing.T, h2 bool, dir string) {
	cfg := stream.SpoolConfig{Dir: dir, Limit: 1 << 20, Budget: stream.NewBudget(1 << 30)}
	ended := make(chan error, 1)
	srv := newHTTP(t, h2, func(w http.ResponseWriter, r *http.Request) {
		ended <- echo(t, w, r, cfg, stream.Idle)
		panic(http.ErrAbortHandler)
	})
	_ = srv.Listener.Close()
	l := &pipeListener{conns: make(chan net.Conn), closed: make(chan struct{})}
	srv.Listener = l
	srv.StartTLS()
	srv.Client().Transport.(*http.Transport).DialContext = l.dial
	r, w := io.Pipe()
	var most atomic.Int64
	go func() {
		for line := append(bytes.Repeat([]byte("x"), 999), '\n'); ; {
			if _, err := w.Write(line); err != nil {
				return
			}
			most.Store(max(most.Load(), cfg.Budget.Used()))
		}
	}()
	res, err := srv.Client().Post(srv.URL, stream.TypeNDJSON, r)
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if err := <-ended; !errors.Is(err, stream.ErrIdle) {
		t.Errorf("HTTP/2 %t: got %v, want %v", h2, err, stream.ErrIdle)
	}
	if took := time.Since(began); took < stream.Idle || took > 2*stream.Idle { // virtual
		t.Errorf("HTTP/2 %t: got the end after %v, want it after %v", h2, took, stream.Idle)
	}
	l.cut()
	res.Body.Close()
	r.Close()
	if got := most.Load(); got > cfg.Limit || cfg.Budget.Used() != 0 {
		t.Errorf("HTTP/2 %t: got at most %d bytes on disk and %d at the end, want %d and 0", h2, got,
			cfg.Budget.Used(), cfg.Limit)
	}
}

// A lateWriter is a client whose connection fails a write at the write deadline. Just then the
// stream reads a part of the body, which moves the deadline.
type lateWriter struct {
	*httptest.ResponseRecorder
	read func()
}

func (w lateWriter) Write([]byte) (int, error) {
	w.read()
	return 0, os.ErrDeadlineExceeded
}

func (w lateWriter) SetReadDeadline(time.Time) error  { return nil }
func (w lateWriter) SetWriteDeadline(time.Time) error { return nil }

func TestStream_ReadAtWriteDeadline_ReturnsErrIdle(t *testing.T) {
	for _, aborted := range []bool{false, true} {
		var s *stream.Stream
		w := lateWriter{httptest.NewRecorder(), func() {
			if aborted {
				s.Abort()
			}
			if _, err := s.Read(make([]byte, 1)); err != nil {
				t.Errorf("Read: got %v, want nil", err)
			}
		}}
		s = stream.New(w, httptest.NewRequest(http.MethodPost, "/", strings.NewReader("x")), stream.Idle)
		if _, err := s.Write([]byte("x")); err == nil || errors.Is(err, stream.ErrIdle) == aborted {
			t.Errorf("aborted %t: got %v, want %v unless it was aborted", aborted, err, stream.ErrIdle)
		}
	}
}

func TestStream_StopReading_EndsRead(t *testing.T) {
	ended := make(chan error, 1)
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s := stream.New(w, r, stream.Idle)
		time.AfterFunc(time.Millisecond, s.StopReading)
		_, err := s.Read(make([]byte, 1))
		ended <- err
	}))
	defer srv.Close()
	r, w := io.Pipe()
	defer w.Close()
	go func() {
		if res, err := srv.Client().Post(srv.URL, stream.TypeNDJSON, r); err == nil {
			res.Body.Close()
		}
	}()
	if err := await.Receive(t, ended, "the end of Read"); err == nil {
		t.Error("got nil, want an error of the blocked Read")
	}
}
