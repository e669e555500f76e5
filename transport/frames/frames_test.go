package frames_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"revoked"
	"revoked/transport/frames"
)

var limits = frames.Limits{Silence: 4 * time.Second, MaxBody: 1 << 20, MaxCalls: 8}

// A peer is the accepting side of one connection, with the counts of its server.
type peer struct {
	frames.Server
	begun, ended, added, read atomic.Int64
	served                    chan error
	cancel                    context.CancelFunc
}

// echo answers with the path and the body.
func echo(_ context.Context, path string, body []byte) (frames.Answer, bool) {
	return frames.Answer{Status: 200, Body: append([]byte(path+":"), body...)}, true
}

// connect serves one end of a pipe and returns the other, which the server has accepted.
func connect(t *testing.T, tune func(*frames.Server)) (*peer, net.Conn) {
	t.Helper()
	near, far := net.Pipe()
	p := &peer{served: make(chan error, 1)}
	p.Server = frames.Server{
		Limits: limits, Call: echo,
		Begin: func() *frames.Answer { p.begun.Add(1); return nil },
		Add:   func(n int64) *frames.Answer { p.added.Add(n); return nil },
		End:   func(n int64) { p.ended.Add(1); p.read.Add(n) },
	}
	if tune != nil {
		tune(&p.Server)
	}
	var ctx context.Context
	ctx, p.cancel = context.WithCancel(context.Background())
	go func() { p.served <- p.Serve(ctx, far) }()
	if err := frames.Accepted(near, time.Second); err != nil {
		t.Fatal(err)
	}
	return p, near
}

// end waits for the end of the server. Its counts of begun and ended calls must be equal.
func (p *peer) end(t *testing.T) {
	t.Helper()
	<-p.served
	if p.begun.Load() != p.ended.Load() || p.added.Load() != p.read.Load() {
		t.Errorf("got %d calls begun and %d ended, %d bytes added and %d returned, want each pair equal",
			p.begun.Load(), p.ended.Load(), p.added.Load(), p.read.Load())
	}
}

// run runs a test in virtual time: it fails if a goroutine is left.
func run(t *testing.T, test func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, test)
}

func TestCall_BodiesOfAllSizes_AreEchoed(t *testing.T) {
	run(t, func(t *testing.T) {
		p, conn := connect(t, nil)
		c := frames.NewClient(conn, limits)
		var callers sync.WaitGroup
		for i, n := range []int{0, 1, 64 << 10, 64<<10 + 1, 200 << 10, 1<<20 - 3} {
			callers.Go(func() {
				path, body := fmt.Sprint("/", i), bytes.Repeat([]byte{byte(i)}, n)
				a, err := c.Call(t.Context(), path, body)
				if err != nil || a.Status != 200 || !bytes.Equal(a.Body, append([]byte(path+":"), body...)) {
					t.Errorf("%d bytes: got %d, %d bytes, %v, want them back", n, a.Status, len(a.Body), err)
				}
			})
		}
		callers.Wait()
		c.Close()
		p.end(t)
	})
}

func TestCall_Refused_ConnectionStaysOpen(t *testing.T) {
	var refuse, add atomic.Pointer[frames.Answer]
	small := func(n int64) frames.Limits { return frames.Limits{Silence: time.Second, MaxBody: n} }
	for name, tc := range map[string]struct {
		tune   func(*frames.Server)
		body   int
		client frames.Limits
		status int
		is     error
	}{
		"too large for the server": {func(s *frames.Server) { s.MaxBody = 100 << 10 }, 300 << 10, limits, 413, nil},
		"too large for the client": {nil, 300 << 10, small(1 << 10), 0, frames.ErrNotSent},
		"too many calls":           {func(s *frames.Server) { s.Begin = refuse.Load }, 300 << 10, limits, 429, nil},
		"too many bytes": {func(s *frames.Server) {
			s.Add = func(int64) *frames.Answer { return add.Load() }
		}, 300 << 10, limits, 507, nil},
		"no answer": {func(s *frames.Server) {
			s.Call = func(ctx context.Context, path string, b []byte) (frames.Answer, bool) {
				a, _ := echo(ctx, path, b)
				return a, path == "/after"
			}
		}, 1, limits, 0, nil},
		"answer too large": {func(s *frames.Server) {
			s.Call = func(ctx context.Context, path string, b []byte) (frames.Answer, bool) {
				if path != "/after" {
					b = make([]byte, 300<<10)
				}
				return echo(ctx, path, b)
			}
		}, 1, small(100 << 10), 0, frames.ErrTooLarge},
	} {
		t.Run(name, func(t *testing.T) {
			run(t, func(t *testing.T) {
				refuse.Store(&frames.Answer{Status: 429})
				add.Store(&frames.Answer{Status: 507})
				p, conn := connect(t, tc.tune)
				c := frames.NewClient(conn, tc.client)
				a, err := c.Call(t.Context(), "/", make([]byte, tc.body))
				if a.Status != tc.status || (err == nil) != (tc.status != 0) || tc.is != nil && !errors.Is(err, tc.is) {
					t.Errorf("got %d, %v, want status %d, error %v", a.Status, err, tc.status, tc.is)
				}
				refuse.Store(nil)
				add.Store(nil)
				if a, err := c.Call(t.Context(), "/after", []byte("x")); err != nil || string(a.Body) != "/after:x" {
					t.Errorf("next call: got %q, %v, want an answer", a.Body, err)
				}
				c.Close()
				<-p.served
			})
		})
	}
}

// The cancellation of a call reaches its handler, and the connection stays usable.
func TestCall_CallerGivesUp_HandlerIsCanceled(t *testing.T) {
	run(t, func(t *testing.T) {
		left := make(chan error, 1)
		p, conn := connect(t, func(s *frames.Server) {
			s.Call = func(ctx context.Context, path string, body []byte) (frames.Answer, bool) {
				if path == "/wait" {
					<-ctx.Done()
					left <- ctx.Err()
				}
				return echo(ctx, path, body)
			}
		})
		c := frames.NewClient(conn, limits)
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		if _, err := c.Call(ctx, "/wait", nil); !errors.Is(err, context.Canceled) || errors.Is(err, frames.ErrNotSent) {
			t.Errorf("got %v, want context.Canceled without ErrNotSent", err)
		}
		<-left
		if a, err := c.Call(t.Context(), "/", nil); err != nil || string(a.Body) != "/:" {
			t.Errorf("next call: got %q, %v, want an answer", a.Body, err)
		}
		if _, err := c.Call(ctx, "/", nil); !errors.Is(err, frames.ErrNotSent) {
			t.Errorf("call with an ended context: got %v, want ErrNotSent", err)
		}
		c.Close()
		p.end(t)
	})
}

// A handler may take longer than Silence, as long as the peer answers pings.
func TestCall_SlowHandler_IsAwaited(t *testing.T) {
	run(t, func(t *testing.T) {
		p, conn := connect(t, func(s *frames.Server) {
			s.Call = func(ctx context.Context, path string, body []byte) (frames.Answer, bool) {
				time.Sleep(time.Minute)
				return echo(ctx, path, body)
			}
		})
		c := frames.NewClient(conn, limits)
		if a, err := c.Call(t.Context(), "/", nil); err != nil || string(a.Body) != "/:" {
			t.Errorf("got %q, %v, want an answer after a minute", a.Body, err)
		}
		c.Close()
		p.end(t)
	})
}

func TestCall_PeerSilent_EndsAfterSilence(t *testing.T) {
	for name, reads := range map[string]bool{"peer reads": true, "peer does not read": false} {
		t.Run(name, func(t *testing.T) {
			run(t, func(t *testing.T) {
				near, far := net.Pipe()
				if reads {
					go func() { _, _ = io.Copy(io.Discard, far) }()
				}
				c := frames.NewClient(near, limits)
				began := time.Now()
				_, err := c.Call(t.Context(), "/", nil)
				if took := time.Since(began); err == nil || errors.Is(err, frames.ErrNotSent) ||
					took < limits.Silence || took > 2*limits.Silence {
					t.Errorf("got %v after %v, want an unknown outcome after %v", err, took, limits.Silence)
				}
				if !c.Ended() {
					t.Error("got an open connection, want it ended")
				}
				if _, err := c.Call(t.Context(), "/", nil); !errors.Is(err, frames.ErrNotSent) {
					t.Errorf("next call: got %v, want ErrNotSent", err)
				}
				c.Close()
				_ = far.Close()
			})
		})
	}
}

// The server closes the connection of a silent client, and cancels the contexts of its calls.
func TestServer_ClientSilent_EndsCalls(t *testing.T) {
	run(t, func(t *testing.T) {
		p, conn := connect(t, func(s *frames.Server) {
			s.Call = func(ctx context.Context, _ string, _ []byte) (frames.Answer, bool) {
				<-ctx.Done()
				return frames.Answer{Status: 200}, true
			}
		})
		go func() { _, _ = io.Copy(io.Discard, conn) }()
		_, _ = conn.Write([]byte("\x00\x00\x00\x10\x02\x00\x00\x00\x00\x00\x00\x00\x01\x00\x01/\x00\x00\x00\x00"))
		p.end(t)
	})
}

// A server that stops ends its calls, and reports success for none of them.
func TestServer_Stopped_CallsHaveNoAnswer(t *testing.T) {
	run(t, func(t *testing.T) {
		p, conn := connect(t, func(s *frames.Server) {
			s.Call = func(ctx context.Context, path string, body []byte) (frames.Answer, bool) {
				<-ctx.Done()
				return echo(ctx, path, body)
			}
		})
		c := frames.NewClient(conn, limits)
		time.AfterFunc(time.Second, p.cancel)
		if a, err := c.Call(t.Context(), "/", nil); err == nil || errors.Is(err, frames.ErrNotSent) {
			t.Errorf("got %d, %v, want an unknown outcome", a.Status, err)
		}
		c.Close()
		p.end(t)
	})
}

func TestServer_Malformed_EndsConnection(t *testing.T) {
	call := "\x00\x00\x00\x10\x02\x00\x00\x00\x00\x00\x00\x00\x01\x00\x01/\x00\x00\x00\x05"
	for name, bytes := range map[string]string{
		"empty message":            "\x00\x00\x00\x00",
		"unknown kind":             "\x00\x00\x00\x01\x63",
		"hello":                    "\x00\x00\x00\x01\x01",
		"answer":                   "\x00\x00\x00\x13\x03\x00\x00\x00\x00\x00\x00\x00\x01\x00\xc8\x00\x00\x00\x00\x00\x00\x00\x00",
		"too long":                 "\x7f\x00\x00\x00",
		"bytes after a ping":       "\x00\x00\x00\x02\x07x",
		"part of an unknown call":  "\x00\x00\x00\x09\x04\x00\x00\x00\x00\x00\x00\x00\x09",
		"id in use":                call + call,
		"more than announced":      call + "\x00\x00\x00\x0f\x04\x00\x00\x00\x00\x00\x00\x00\x01123456",
		"stream after a call":      call + "\x00\x00\x00\x04\x09\x00\x01/",
		"path longer than allowed": "\x00\x00\x00\x05\x09\xff\xff//",
	} {
		t.Run(name, func(t *testing.T) {
			run(t, func(t *testing.T) {
				p, conn := connect(t, nil)
				go func() { _, _ = io.WriteString(conn, bytes) }()
				_, err := io.Copy(io.Discard, conn)
				if p.end(t); err != nil {
					t.Errorf("got %v, want the end of the connection", err)
				}
			})
		})
	}
}

func TestServer_TooManyCalls_EndsConnection(t *testing.T) {
	run(t, func(t *testing.T) {
		p, conn := connect(t, func(s *frames.Server) {
			s.Call = func(ctx context.Context, _ string, _ []byte) (frames.Answer, bool) {
				<-ctx.Done()
				return frames.Answer{}, false
			}
		})
		c := frames.NewClient(conn, limits)
		var callers sync.WaitGroup
		for range limits.MaxCalls + 1 {
			callers.Go(func() {
				if _, err := c.Call(context.Background(), "/", nil); err == nil {
					t.Error("got an answer, want none")
				}
			})
		}
		callers.Wait()
		if p.begun.Load() != int64(limits.MaxCalls) {
			t.Errorf("got %d calls begun, want %d", p.begun.Load(), limits.MaxCalls)
		}
		c.Close()
		p.end(t)
	})
}

// A retired client ends after its calls.
func TestClient_Retired_FinishesItsCalls(t *testing.T) {
	run(t, func(t *testing.T) {
		p, conn := connect(t, func(s *frames.Server) {
			s.Call = func(ctx context.Context, path string, body []byte) (frames.Answer, bool) {
				time.Sleep(time.Second)
				return echo(ctx, path, body)
			}
		})
		c := frames.NewClient(conn, limits)
		var caller sync.WaitGroup
		caller.Go(func() {
			if _, err := c.Call(t.Context(), "/", nil); err != nil {
				t.Errorf("got %v, want an answer", err)
			}
		})
		synctest.Wait()
		c.Retire()
		if c.Ended() {
			t.Error("got the end of the connection before that of its call")
		}
		caller.Wait()
		p.end(t)
		if !c.Ended() {
			t.Error("got an open connection, want it ended")
		}
		c.Close()
	})
}

func TestStream_FramesBothWays(t *testing.T) {
	run(t, func(t *testing.T) {
		p, conn := connect(t, func(s *frames.Server) {
			s.Stream = func(_ context.Context, path string, accept func() (*frames.Stream, error)) frames.Answer {
				f, err := accept()
				for err == nil {
					var frame []byte
					if frame, err = f.Recv(); err == nil {
						err = f.Send(append([]byte(path+":"), frame...))
					}
				}
				return frames.Answer{}
			}
		})
		s, refusal, err := frames.OpenStream(t.Context(), conn, "/reports", limits)
		if err != nil || refusal != nil {
			t.Fatal(refusal, err)
		}
		for _, n := range []int{0, 1, 64 << 10, frames.MaxFrame - 9} {
			payload := bytes.Repeat([]byte{7}, n)
			if err := s.Send(payload); err != nil {
				t.Fatal(err)
			}
			if got, err := s.Recv(); err != nil || !bytes.Equal(got, append([]byte("/reports:"), payload...)) {
				t.Fatalf("%d bytes: got %d, %v, want them back", n, len(got), err)
			}
		}
		if err := s.Send(make([]byte, frames.MaxFrame+1)); !errors.Is(err, frames.ErrTooLarge) {
			t.Errorf("frame too large: got %v, want ErrTooLarge", err)
		}
		time.Sleep(time.Minute) // both sides answer pings
		if err := s.Send([]byte("x")); err != nil {
			t.Error(err)
		}
		if got, err := s.Recv(); string(got) != "/reports:x" {
			t.Errorf("after a minute: got %q, %v, want the frame back", got, err)
		}
		s.Close()
		s.Close()
		if err := s.Send(nil); !errors.Is(err, revoked.ErrClosed) {
			t.Errorf("send after Close: got %v, want ErrClosed", err)
		}
		if _, err := s.Recv(); !errors.Is(err, revoked.ErrClosed) {
			t.Errorf("receive after Close: got %v, want ErrClosed", err)
		}
		p.end(t)
	})
}

// Recv returns the frames that have arrived before it returns the end of the stream. A side that
// does not read blocks the other side, but no connection ends before Silence.
func TestStream_ReceiverSlow_BoundsMemory(t *testing.T) {
	run(t, func(t *testing.T) {
		var sent atomic.Int64
		p, conn := connect(t, func(s *frames.Server) {
			s.Stream = func(_ context.Context, _ string, accept func() (*frames.Stream, error)) frames.Answer {
				f, err := accept()
				for range 40 {
					if err == nil {
						err = f.Send(make([]byte, 100<<10))
						sent.Add(1)
					}
				}
				if err != nil {
					t.Error(err)
				}
				return frames.Answer{}
			}
		})
		s, _, err := frames.OpenStream(t.Context(), conn, "/", limits)
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if n := sent.Load(); n > 15 {
			t.Errorf("got %d frames of 100 KiB sent and none received, want about 1 MiB", n)
		}
		time.Sleep(limits.Silence / 2)
		n := 0
		for ; err == nil; n++ {
			_, err = s.Recv()
		}
		if n != 41 || err != io.EOF {
			t.Errorf("got %d frames and %v, want 40 and io.EOF", n-1, err)
		}
		s.Close()
		p.end(t)
	})
}

func TestStream_Refused_ReturnsAnswer(t *testing.T) {
	run(t, func(t *testing.T) {
		p, conn := connect(t, func(s *frames.Server) {
			s.Stream = func(context.Context, string, func() (*frames.Stream, error)) frames.Answer {
				return frames.Answer{Status: 503, Code: 3, Body: []byte("not the leader")}
			}
		})
		s, refusal, err := frames.OpenStream(t.Context(), conn, "/", limits)
		if s != nil || err != nil || refusal == nil || refusal.Status != 503 || refusal.Code != 3 ||
			string(refusal.Body) != "not the leader" {
			t.Errorf("got %v, %+v, %v, want the refusal", s, refusal, err)
		}
		p.end(t)
	})
}

func TestStream_PeerSilent_EndsAfterSilence(t *testing.T) {
	run(t, func(t *testing.T) {
		near, far := net.Pipe()
		go func() { _, _ = io.Copy(io.Discard, far) }()
		go func() { _, _ = far.Write([]byte("\x00\x00\x00\x01\x0a")) }()
		s, _, err := frames.OpenStream(t.Context(), near, "/", limits)
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		if _, err := s.Recv(); err == nil || !strings.Contains(err.Error(), "silent") {
			t.Errorf("got %v, want an error that the peer is silent", err)
		}
		if took := time.Since(began); took > 2*limits.Silence {
			t.Errorf("got the end after %v, want about %v", took, limits.Silence)
		}
		s.Close()
		_ = far.Close()
	})
}

// FuzzServer sends any bytes to a server. The server neither panics nor hangs, and its counts stay
// equal.
func FuzzServer(f *testing.F) {
	f.Add([]byte("\x00\x00\x00\x10\x02\x00\x00\x00\x00\x00\x00\x00\x01\x00\x01/\x00\x00\x00\x00"))
	f.Add([]byte("\x00\x00\x00\x10\x02\x00\x00\x00\x00\x00\x00\x00\x01\x00\x01/\x00\x00\x00\x02" +
		"\x00\x00\x00\x0b\x04\x00\x00\x00\x00\x00\x00\x00\x01ab\x00\x00\x00\x09\x05\x00\x00\x00\x00\x00\x00\x00\x01"))
	f.Add([]byte("\x00\x00\x00\x04\x09\x00\x01/\x00\x00\x00\x03\x0bab"))
	f.Fuzz(func(t *testing.T, in []byte) {
		near, far := net.Pipe()
		p := &peer{served: make(chan error, 1)}
		p.Server = frames.Server{
			Limits: limits, Call: echo,
			Begin: func() *frames.Answer { p.begun.Add(1); return nil },
			Add:   func(n int64) *frames.Answer { p.added.Add(n); return nil },
			End:   func(n int64) { p.ended.Add(1); p.read.Add(n) },
			Stream: func(_ context.Context, _ string, accept func() (*frames.Stream, error)) frames.Answer {
				f, err := accept()
				for err == nil {
					_, err = f.Recv()
				}
				return frames.Answer{}
			},
		}
		go func() { p.served <- p.Serve(context.Background(), far) }()
		go func() { _, _ = io.Copy(io.Discard, near) }()
		_, _ = near.Write(in)
		_ = near.Close()
		p.end(t)
	})
}

func BenchmarkCall(b *testing.B) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	s := frames.Server{
		Limits: limits, Call: echo, Begin: func() *frames.Answer { return nil },
		Add: func(int64) *frames.Answer { return nil }, End: func(int64) {},
	}
	go func() {
		if c, err := ln.Accept(); err == nil {
			_ = s.Serve(context.Background(), c)
		}
	}()
	conn, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		b.Fatal(err)
	}
	if err := frames.Accepted(conn, time.Minute); err != nil {
		b.Fatal(err)
	}
	c := frames.NewClient(conn, limits)
	defer c.Close()
	body := make([]byte, 300)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Call(context.Background(), "/node/v1/submit", body); err != nil {
			b.Fatal(err)
		}
	}
}
