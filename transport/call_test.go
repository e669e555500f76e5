package transport_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"testing"

	"revoked"
	"revoked/internal/await"
	"revoked/transport"
	"revoked/transport/pki"
)

func TestCall_Handler_SeesCallerNode(t *testing.T) {
	a := newCA(t)
	n1, n2 := start(t, a, "node1", nil), start(t, a, "node2", nil)
	for _, want := range []string{"node2", ""} {
		got, err := n1.Call(within(t), n2.addr, want, "/echo", []byte("hello"))
		if err != nil || string(got) != "node1:hello" {
			t.Errorf("Call wanting %q: got %q, %v, want node1:hello", want, got, err)
		}
	}
	if got := n1.metric(t, "revoked_peer_calls_total", map[string]string{"result": "ok"}); got != 2 {
		t.Errorf("got %v counted calls, want 2", got)
	}
	if got := n2.metric(t, "revoked_peer_connections", map[string]string{"protocol": "call", "direction": "in"}); got < 1 {
		t.Errorf("got %v connections, want at least 1", got)
	}
	if n1.metric(t, "revoked_peer_sent_bytes_total", nil) == 0 ||
		n1.metric(t, "revoked_peer_received_bytes_total", nil) == 0 {
		t.Error("got 0 counted bytes, want more")
	}
	if got := n1.metric(t, "revoked_peer_certificate_expiry_seconds", nil); got == 0 {
		t.Error("got no certificate expiry, want one")
	}
}

func TestCall_EachFailure_ReturnsItsError(t *testing.T) {
	a := newCA(t)
	n1 := start(t, a, "node1", func(c *transport.Config) { c.MaxBody = 1 << 20 })
	n2 := start(t, a, "node2", func(c *transport.Config) {
		c.MaxBody = 1 << 20
		c.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch r.URL.Path {
			case "/no-leader":
				transport.WriteError(w, http.StatusServiceUnavailable, revoked.Code(revoked.ErrNoLeader), "election")
			case "/redirect":
				http.Redirect(w, r, "/echo", http.StatusTemporaryRedirect)
			case "/big-announced":
				_, _ = w.Write(make([]byte, 1<<20+1))
			case "/big":
				for range 20 {
					_, _ = w.Write(make([]byte, 1<<16))
					_ = http.NewResponseController(w).Flush()
				}
			case "/drain":
				_, err := io.Copy(io.Discard, r.Body)
				if !errors.Is(err, transport.ErrTooLarge) {
					t.Errorf("body beyond the limit: got %v, want ErrTooLarge", err)
				}
				transport.WriteError(w, http.StatusRequestEntityTooLarge, 0, "")
			case "/panic":
				panic(http.ErrAbortHandler)
			default:
				echo(w, r)
			}
		})
	})
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_ = free.Close()
	gone := free.Addr().String()

	var answered *transport.CallError
	cases := []struct {
		name, addr, node, path string
		body                   []byte
		is                     error
		notSent                bool
		status                 int
	}{
		{name: "sentinel error of the peer", addr: n2.addr, node: "node2", path: "/no-leader", is: revoked.ErrNoLeader,
			status: 503},
		{name: "redirect", addr: n2.addr, node: "node2", path: "/redirect", status: 307},
		{name: "closed port", addr: gone, node: "node2", path: "/", notSent: true},
		{name: "another node", addr: n2.addr, node: "node3", path: "/", is: pki.ErrWrongNode, notSent: true},
		{name: "invalid address", addr: "nowhere", node: "node2", path: "/", is: transport.ErrBadAddress, notSent: true},
		{name: "invalid path", addr: n2.addr, node: "node2", path: "x", notSent: true},
		{name: "request too large", addr: n2.addr, node: "node2", path: "/", body: make([]byte, 1<<20+1),
			is: transport.ErrTooLarge, notSent: true},
		{name: "answer too large, announced", addr: n2.addr, node: "node2", path: "/big-announced",
			is: transport.ErrTooLarge},
		{name: "answer too large, streamed", addr: n2.addr, node: "node2", path: "/big", is: transport.ErrTooLarge},
		{name: "handler aborts", addr: n2.addr, node: "node2", path: "/panic"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			_, err := n1.Call(within(t), c.addr, c.node, c.path, c.body)
			if err == nil {
				t.Fatal("got nil, want an error")
			}
			if c.is != nil && !errors.Is(err, c.is) {
				t.Errorf("got %v, want %v", err, c.is)
			}
			if got := errors.Is(err, transport.ErrNotSent); got != c.notSent {
				t.Errorf("ErrNotSent: got %v, want %v (%v)", got, c.notSent, err)
			}
			status := 0
			if errors.As(err, &answered) {
				status = answered.Status
			}
			if status != c.status {
				t.Errorf("status: got %d, want %d (%v)", status, c.status, err)
			}
		})
	}

	t.Run("canceled after sending", func(t *testing.T) {
		entered := make(chan struct{})
		n3 := start(t, a, "node3", func(c *transport.Config) {
			c.Handler = http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
				close(entered)
				<-r.Context().Done()
			})
		})
		ctx, cancel := context.WithCancel(within(t))
		go func() { <-entered; cancel() }()
		_, err := n1.Call(ctx, n3.addr, "node3", "/", nil)
		if !errors.Is(err, context.Canceled) || errors.Is(err, transport.ErrNotSent) {
			t.Errorf("got %v, want context.Canceled without ErrNotSent", err)
		}
	})

	t.Run("caller with a larger limit", func(t *testing.T) {
		n4 := start(t, a, "node4", nil)
		_, err := n4.Call(within(t), n2.addr, "node2", "/drain", bytes.Repeat([]byte{1}, 1<<20+1))
		if !errors.As(err, &answered) || answered.Status != http.StatusRequestEntityTooLarge {
			t.Errorf("got %v, want status 413", err)
		}
	})
}

func TestClose_EndsCalls(t *testing.T) {
	a := newCA(t)
	entered, left := make(chan struct{}), make(chan struct{})
	n1 := start(t, a, "node1", nil)
	n2 := start(t, a, "node2", func(c *transport.Config) {
		c.Handler = http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			close(entered)
			<-r.Context().Done()
			close(left)
		})
	})
	failed := make(chan error, 1)
	go func() {
		_, err := n1.Call(within(t), n2.addr, "node2", "/", nil)
		failed <- err
	}()
	await.Receive(t, entered, "call in the handler")
	if err := n2.Close(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-left:
	default:
		t.Error("got Close before the end of the handler, want it after")
	}
	if err := await.Receive(t, failed, "result of the call"); err == nil || errors.Is(err, transport.ErrNotSent) {
		t.Errorf("call: got %v, want an error with unknown outcome", err)
	}
	if err := n2.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
	n2.Serve() // does nothing
	if _, err := n2.Call(within(t), n1.addr, "node1", "/", nil); !errors.Is(err, revoked.ErrClosed) ||
		!errors.Is(err, transport.ErrNotSent) {
		t.Errorf("call after Close: got %v, want ErrClosed and ErrNotSent", err)
	}
}
