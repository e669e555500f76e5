package serve_test

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"revoked/api/serve"
	"revoked/internal/await"
)

// Clients with keep-alive send requests throughout a shutdown. Each request gets an answer, unless
// its client can no longer connect.
func TestShutdown_KeepAlive_LosesNoRequest(t *testing.T) {
	for _, h2 := range []bool{false, true} {
		s := start(t, func(c *serve.Config) { c.RetireTime = 500 * time.Millisecond })
		var answered, asked atomic.Int64
		var wg sync.WaitGroup
		begun := make(chan struct{}, 1000)
		for range 8 {
			c := s.client(t, h2, 0)
			wg.Go(func() {
				for {
					// GOAWAY names the requests that the server has not seen, so the client may retry
					// them.
					body := io.Reader(strings.NewReader("hello"))
					if !h2 {
						body = io.NopCloser(body)
					}
					res, err := c.Post("https://"+s.addr, "text/plain", body)
					var op *net.OpError
					if errors.As(err, &op) && op.Op == "dial" {
						return // no byte of the request was sent
					}
					if err != nil {
						t.Errorf("HTTP/2 %t: got error %v after %d answers, want an answer", h2, err, answered.Load())
						return
					}
					_, _ = io.Copy(io.Discard, res.Body)
					res.Body.Close()
					answered.Add(1)
					if res.Close || res.Header.Get("Connection") == "close" {
						asked.Add(1)
					}
					select {
					case begun <- struct{}{}:
					default:
					}
				}
			})
		}
		for range 50 {
			await.Receive(t, begun, "requests in progress")
		}
		if err := s.Shutdown(t.Context()); err != nil {
			t.Errorf("HTTP/2 %t: Shutdown: got %v, want nil", h2, err)
		}
		wg.Wait()
		if !h2 && asked.Load() == 0 {
			t.Error("HTTP/1: got no answer with Connection: close, want some")
		}
		t.Logf("HTTP/2 %t: %d answers, %d with Connection: close", h2, answered.Load(), asked.Load())
	}
}

// A request that arrives during the shutdown, on a connection that was idle before, is answered.
func TestShutdown_IdleConnection_LastRequestIsAnswered(t *testing.T) {
	s := start(t, func(c *serve.Config) { c.RetireTime = time.Minute })
	c := s.client(t, false, 0)
	if _, _, err := s.post(c, "https"); err != nil {
		t.Fatal(err)
	}
	down := make(chan error, 1)
	go func() { down <- s.Shutdown(t.Context()) }()
	for {
		res, _, err := s.post(c, "https")
		if err != nil {
			t.Fatal(err)
		}
		if res.Close {
			break // the only connection has closed, so the shutdown continues
		}
	}
	if err := await.Receive(t, down, "the end of Shutdown"); err != nil {
		t.Errorf("got %v, want nil", err)
	}
	if _, err := http.Get("http://" + s.addr); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("after the shutdown: got %v, want a refused connection", err)
	}
}

// A client cannot know of a GOAWAY that is on its way. Requests that cross the GOAWAY are answered,
// on connections that were open when the shutdown began and on those that come later.
func TestShutdown_RequestCrossesGoAway_IsAnswered(t *testing.T) {
	s := start(t, func(c *serve.Config) { c.RetireTime, c.ShutdownTimeout = time.Minute, time.Minute })
	used, unused := s.frames(t), s.frames(t)
	used.ask(t, 1)
	if _, err := unused.ReadFrame(); err != nil { // SETTINGS: the server has begun to serve it
		t.Fatal(err)
	}
	down := make(chan error, 1)
	go func() { down <- s.Shutdown(t.Context()) }()
	used.awaitGoAway(t)
	unused.awaitGoAway(t)
	late := s.frames(t)
	late.ask(t, 1)
	late.awaitGoAway(t)
	for name, c := range map[string]*frameClient{"used": used, "unused": unused, "late": late} {
		for id := uint32(3); id < 9; id += 2 {
			if got := c.ask(t, id); got != "200" {
				t.Errorf("%s connection, stream %d after GOAWAY: got %s, want 200", name, id, got)
			}
		}
		if err := c.conn.Close(); err != nil {
			t.Error(err)
		}
	}
	if err := await.Receive(t, down, "the end of Shutdown"); err != nil {
		t.Errorf("Shutdown: got %v, want nil", err)
	}
}

// frames connects by HTTP/2.
func (s *server) frames(t *testing.T) *frameClient {
	t.Helper()
	c, err := tls.Dial("tcp", s.addr, &tls.Config{RootCAs: s.pool, NextProtos: []string{"h2"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	f := newFrameClient(c)
	f.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	if _, err = io.WriteString(c, http2.ClientPreface); err == nil {
		err = f.WriteSettings()
	}
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// ask sends a request and returns its status or the error.
func (f *frameClient) ask(t *testing.T, id uint32) string {
	t.Helper()
	if err := f.request(id, true); err != nil {
		t.Fatal(err)
	}
	for {
		frame, err := f.ReadFrame()
		if err != nil {
			return err.Error()
		}
		switch frame := frame.(type) {
		case *http2.MetaHeadersFrame:
			if frame.StreamID == id {
				return frame.PseudoValue("status")
			}
		case *http2.GoAwayFrame:
			f.goAway = true
			if frame.LastStreamID < id {
				return fmt.Sprintf("GOAWAY after stream %d", frame.LastStreamID)
			}
		}
	}
}

func (f *frameClient) awaitGoAway(t *testing.T) {
	t.Helper()
	for !f.goAway {
		frame, err := f.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		_, f.goAway = frame.(*http2.GoAwayFrame)
	}
}
