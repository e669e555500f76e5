package transport_test

import (
	"errors"
	"io"
	"net/http"
	"sync"
	"testing"

	"revoked/internal/await"
	"revoked/transport"
)

// The bodies that a node reads concurrently for one peer share a limit. Calls of other peers are
// still served.
func TestServer_ManyBodiesOfOnePeer_AreLimited(t *testing.T) {
	a := newCA(t)
	read, release := make(chan struct{}, 10), make(chan struct{})
	free := sync.OnceFunc(func() { close(release) })
	s := start(t, a, "node2", func(c *transport.Config) {
		c.MaxBody = 1 << 20
		c.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if _, err := io.ReadAll(r.Body); err != nil {
				transport.WriteError(w, http.StatusRequestEntityTooLarge, 0, err.Error())
				return
			}
			read <- struct{}{}
			<-release
		})
	})
	t.Cleanup(free) // Close waits for the handlers
	n1, n3 := start(t, a, "node1", nil), start(t, a, "node3", nil)
	body := make([]byte, 700<<10)
	call := func(from *server) <-chan error {
		done := make(chan error, 1)
		go func() {
			_, err := from.Call(within(t), s.addr, "node2", "/", body)
			done <- err
		}()
		return done
	}
	first := call(n1)
	await.Receive(t, read, "body in the handler")
	var refused *transport.CallError
	err := await.Receive(t, call(n1), "answer")
	if !errors.As(err, &refused) || refused.Status != http.StatusRequestEntityTooLarge {
		t.Errorf("second body of node1: got %v, want status 413", err)
	}
	other := call(n3)
	await.Receive(t, read, "body in the handler")
	free()
	for _, done := range []<-chan error{first, other} {
		if err := await.Receive(t, done, "answer"); err != nil {
			t.Errorf("got %v, want nil", err)
		}
	}
	// The server may count the first call for a moment after its answer.
	for err := errors.New("not called"); err != nil; {
		if err = await.Receive(t, call(n1), "answer"); err != nil && !errors.As(err, &refused) {
			t.Fatalf("after the first call: got %v, want nil", err)
		}
	}
}

// The calls from one peer are limited over all of its connections.
func TestServer_ManyCallsOfOnePeer_AreLimited(t *testing.T) {
	a := newCA(t)
	began, release := make(chan struct{}, 10), make(chan struct{})
	s := start(t, a, "node2", func(c *transport.Config) {
		c.MaxCalls = 2
		c.Handler = http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/wait" {
				began <- struct{}{}
				<-release
			}
		})
	})
	free := sync.OnceFunc(func() { close(release) })
	t.Cleanup(free) // Close waits for the handlers
	done := make(chan error, 2)
	for range 2 { // two transports with the certificate of node1, so two connections
		n1 := start(t, a, "node1", nil)
		go func() {
			_, err := n1.Call(within(t), s.addr, "node2", "/wait", nil)
			done <- err
		}()
		await.Receive(t, began, "call in the handler")
	}
	var refused *transport.CallError
	_, err := start(t, a, "node1", nil).Call(within(t), s.addr, "node2", "/", nil)
	if !errors.As(err, &refused) || refused.Status != http.StatusTooManyRequests {
		t.Errorf("third call from node1: got %v, want status 429", err)
	}
	if _, err := start(t, a, "node3", nil).Call(within(t), s.addr, "node2", "/", nil); err != nil {
		t.Errorf("call from another node: got %v, want nil", err)
	}
	free()
	for range 2 {
		if err := await.Receive(t, done, "answer"); err != nil {
			t.Errorf("got %v, want nil", err)
		}
	}
}
