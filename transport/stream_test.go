package transport_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"revoked"
	"revoked/internal/await"
	"revoked/transport"
	"revoked/transport/pki"
)

// echoFrames sends back every frame with the peer's node in front. It sends the error that ended
// each stream to ended. The caller may end a stream while the handler still accepts it.
func echoFrames(ended chan<- error) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s, err := transport.ServeStream(w, r)
		if err != nil {
			ended <- fmt.Errorf("accept: %w", err)
			return
		}
		defer s.Close()
		for {
			frame, err := s.Recv()
			if err == nil {
				err = s.Send(append([]byte(transport.PeerNode(r)+":"), frame...))
			}
			if err != nil {
				ended <- err
				return
			}
		}
	})
}

func TestStream_SendsFramesBothWays(t *testing.T) {
	a := newCA(t)
	ended := make(chan error, 1)
	n1 := start(t, a, "node1", nil)
	n2 := start(t, a, "node2", func(c *transport.Config) {
		c.Handler = echoFrames(ended)
		c.MaxBody = 1 << 20 // a stream may carry more than a call
	})
	s, err := n1.Stream(within(t), n2.addr, "node2", "/reports")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	var sender sync.WaitGroup
	defer sender.Wait()
	sizes := []int{0, 1, 100, transport.MaxFrame - 6, 3, transport.MaxFrame - 6}
	sender.Go(func() {
		for _, n := range sizes {
			if err := s.Send(bytes.Repeat([]byte{7}, n)); err != nil {
				t.Errorf("send %d bytes: %v", n, err)
			}
		}
	})
	for _, n := range sizes {
		got, err := s.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if want := append([]byte("node1:"), bytes.Repeat([]byte{7}, n)...); !bytes.Equal(got, want) {
			t.Fatalf("got %d bytes, want %d", len(got), len(want))
		}
	}
	if err := s.Send(make([]byte, transport.MaxFrame+1)); !errors.Is(err, transport.ErrTooLarge) {
		t.Errorf("frame too large: got %v, want ErrTooLarge", err)
	}
	s.Close()
	s.Close()
	if err := s.Send(nil); !errors.Is(err, revoked.ErrClosed) {
		t.Errorf("send after Close: got %v, want ErrClosed", err)
	}
	if _, err := s.Recv(); err == nil {
		t.Error("receive after Close: got nil, want an error")
	}
	await.Receive(t, ended, "end of the stream on the other side")
}

func TestStream_Refused_ReturnsCallErrors(t *testing.T) {
	a := newCA(t)
	n1 := start(t, a, "node1", nil)
	n2 := start(t, a, "node2", func(c *transport.Config) {
		c.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/no" {
				transport.WriteError(w, http.StatusServiceUnavailable, revoked.Code(revoked.ErrNoLeader), "not the leader")
			}
		})
	})
	if _, err := n1.Stream(within(t), n2.addr, "node2", "/no"); !errors.Is(err, revoked.ErrNoLeader) {
		t.Errorf("got %v, want ErrNoLeader", err)
	}
	if _, err := n1.Stream(within(t), n2.addr, "node2", "/plain"); err == nil {
		t.Error("answer without a stream: got nil, want an error")
	}
	if _, err := n1.Stream(within(t), n2.addr, "node3", "/"); !errors.Is(err, pki.ErrWrongNode) {
		t.Errorf("got %v, want ErrWrongNode", err)
	}
}

func TestStream_EndsWithContextOrPeer(t *testing.T) {
	a := newCA(t)
	ended := make(chan error, 2)
	n1 := start(t, a, "node1", nil)
	n2 := start(t, a, "node2", func(c *transport.Config) { c.Handler = echoFrames(ended) })

	ctx, cancel := context.WithCancel(within(t))
	s, err := n1.Stream(ctx, n2.addr, "node2", "/")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	cancel()
	if _, err := s.Recv(); err == nil {
		t.Error("receive after the end of the context: got nil, want an error")
	}
	await.Receive(t, ended, "end of the stream on the other side")

	s, err = n1.Stream(within(t), n2.addr, "node2", "/")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := n2.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Recv(); err == nil {
		t.Error("receive after the end of the peer: got nil, want an error")
	}
}

// cutLink forwards bytes between a client and a server until it is cut. Then both sides keep a
// silent connection, as if a cable were pulled.
type cutLink struct {
	addr string
	ln   net.Listener
	cut  chan struct{}
	wg   sync.WaitGroup
	mu   sync.Mutex
	open []net.Conn
}

func newCutLink(t testing.TB, to string) *cutLink {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l := &cutLink{addr: ln.Addr().String(), ln: ln, cut: make(chan struct{})}
	l.wg.Go(func() {
		for {
			in, err := ln.Accept()
			if err != nil {
				return
			}
			out, err := net.Dial("tcp", to)
			if err != nil {
				_ = in.Close()
				continue
			}
			l.mu.Lock()
			l.open = append(l.open, in, out)
			l.mu.Unlock()
			l.wg.Go(func() { l.copy(out, in) })
			l.wg.Go(func() { l.copy(in, out) })
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		l.mu.Lock()
		for _, c := range l.open {
			_ = c.Close()
		}
		l.mu.Unlock()
		l.wg.Wait()
	})
	return l
}

func (l *cutLink) copy(to, from net.Conn) {
	buf := make([]byte, 64<<10)
	for {
		n, err := from.Read(buf)
		select {
		case <-l.cut:
			if err != nil {
				return // the other side is not closed
			}
			continue // discarded
		default:
		}
		if err != nil {
			_ = to.Close()
			return
		}
		if _, err := to.Write(buf[:n]); err != nil {
			_ = from.Close()
			return
		}
	}
}

func TestTransport_SilentPeer_EndsAllCalls(t *testing.T) {
	a := newCA(t)
	quick := func(c *transport.Config) {
		c.Silence, c.RaftTimeout, c.DialTimeout = 2*time.Second, 2*time.Second, 2*time.Second
	}
	ended := make(chan error, 1)
	n1 := start(t, a, "node1", quick)
	n2 := start(t, a, "node2", func(c *transport.Config) {
		quick(c)
		frames := echoFrames(ended)
		c.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/frames" {
				frames.ServeHTTP(w, r)
				return
			}
			echo(w, r)
		})
	})
	serveRaft(t, n2)
	link := newCutLink(t, n2.addr)

	if _, err := n1.Call(within(t), link.addr, "node2", "/", nil); err != nil {
		t.Fatal(err)
	}
	s, err := n1.Stream(within(t), link.addr, "node2", "/frames")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	target := transport.RaftAddress("node2", link.addr)
	if err := n1.Raft().AppendEntries("node2", target, heartbeat(n1), &raft.AppendEntriesResponse{}); err != nil {
		t.Fatal(err)
	}

	close(link.cut)
	// No context ends here, but all calls must end, on both sides.
	if _, err := n1.Call(context.Background(), link.addr, "node2", "/", nil); err == nil ||
		errors.Is(err, transport.ErrNotSent) {
		t.Errorf("call: got %v, want an error with unknown outcome", err)
	}
	if _, err := s.Recv(); err == nil {
		t.Error("stream, near side: got nil, want an error")
	}
	await.Receive(t, ended, "end of the stream on the other side")
	if err := n1.Raft().AppendEntries("node2", target, heartbeat(n1), &raft.AppendEntriesResponse{}); err == nil {
		t.Error("Raft: got nil, want an error")
	}
	if _, err := n1.Call(context.Background(), link.addr, "node2", "/", nil); !errors.Is(err, transport.ErrNotSent) {
		t.Errorf("call over a cut link: got %v, want ErrNotSent", err)
	}
}

func TestCall_Concurrent_SharesConnections(t *testing.T) {
	a := newCA(t)
	n1, n2 := start(t, a, "node1", nil), start(t, a, "node2", nil)
	var wg sync.WaitGroup
	for i := range 64 {
		wg.Go(func() {
			body := fmt.Sprint(i)
			got, err := n1.Call(within(t), n2.addr, "node2", "/", []byte(body))
			if err != nil || string(got) != "node1:"+body {
				t.Errorf("got %q, %v, want node1:%s", got, err, body)
			}
		})
	}
	wg.Wait()
	big := bytes.Repeat([]byte("x"), 8<<20)
	got, err := n1.Call(within(t), n2.addr, "node2", "/", big)
	if err != nil || len(got) != len(big)+6 {
		t.Errorf("8 MiB: got %d bytes, %v, want %d", len(got), err, len(big)+6)
	}
}
