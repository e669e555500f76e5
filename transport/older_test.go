package transport_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"testing"

	"revoked"
	"revoked/internal/await"
	"revoked/transport"
)

// olderServer serves calls as a node of version 0.3 does: over HTTP/2 only.
func olderServer(t *testing.T, s *server, addr string) net.Listener {
	t.Helper()
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	protocols := new(http.Protocols)
	protocols.SetHTTP2(true)
	certs := nodeCerts(t, s.ca, s.name)
	srv := &http.Server{Protocols: protocols, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/reports" {
			transport.WriteError(w, http.StatusServiceUnavailable, revoked.Code(revoked.ErrNoLeader), "not the leader")
			return
		}
		echo(w, r)
	})}
	go func() { _ = srv.Serve(tls.NewListener(ln, certs.ServerConfig("", "revoked-raft/1", "h2"))) }()
	t.Cleanup(func() { _ = srv.Close() })
	return ln
}

// A node calls a peer of version 0.3 over HTTP/2, and over frames once the peer has been upgraded.
func TestCall_OlderPeer_UsesHTTP2(t *testing.T) {
	a := newCA(t)
	n1, n2 := start(t, a, "node1", nil), start(t, a, "node2", nil)
	ln := olderServer(t, n2, "127.0.0.1:0")
	old := ln.Addr().String()
	for range 3 {
		got, err := n1.Call(within(t), old, "node2", "/", []byte("hello"))
		if err != nil || string(got) != "node1:hello" {
			t.Fatalf("got %q, %v, want node1:hello", got, err)
		}
	}
	if _, err := n1.Stream(within(t), old, "node2", "/reports"); !errors.Is(err, revoked.ErrNoLeader) {
		t.Errorf("stream: got %v, want the peer's ErrNoLeader", err)
	}
	if _, err := n1.Call(within(t), n2.addr, "node2", "/", nil); err != nil {
		t.Errorf("another address: got %v, want nil", err)
	}
}

// A node may open a stream before it calls a peer of version 0.3.
func TestStream_OlderPeer_UsesHTTP2(t *testing.T) {
	a := newCA(t)
	n1, n2 := start(t, a, "node1", nil), start(t, a, "node2", nil)
	old := olderServer(t, n2, "127.0.0.1:0").Addr().String()
	if _, err := n1.Stream(within(t), old, "node2", "/reports"); !errors.Is(err, revoked.ErrNoLeader) {
		t.Errorf("got %v, want the peer's ErrNoLeader", err)
	}
}

// A node of version 0.3 offers HTTP/2 only. The server serves its calls and streams.
func TestServer_OlderPeer_IsServed(t *testing.T) {
	a := newCA(t)
	ended := make(chan error, 1)
	frames := echoFrames(ended)
	n2 := start(t, a, "node2", func(c *transport.Config) {
		c.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/frames" {
				frames.ServeHTTP(w, r)
				return
			}
			echo(w, r)
		})
	})
	protocols := new(http.Protocols)
	protocols.SetHTTP2(true)
	old := &http.Transport{Protocols: protocols, TLSClientConfig: nodeCerts(t, a, "node1").ClientConfig("node2", "", "h2")}
	defer old.CloseIdleConnections()
	post := func(path string, body io.Reader) *http.Response {
		t.Helper()
		r, err := http.NewRequestWithContext(within(t), http.MethodPost, "https://"+n2.addr+path, body)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := old.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		return resp
	}
	resp := post("/", bytes.NewReader([]byte("hello")))
	got, err := io.ReadAll(resp.Body)
	if _ = resp.Body.Close(); err != nil || string(got) != "node1:hello" {
		t.Errorf("call: got %q, %v, want node1:hello", got, err)
	}
	body, out := io.Pipe()
	resp = post("/frames", body)
	if _, err := out.Write([]byte("\x00\x00\x00\x01x")); err != nil {
		t.Fatal(err)
	}
	frame := make([]byte, 11)
	if _, err := io.ReadFull(resp.Body, frame); err != nil || string(frame) != "\x00\x00\x00\x07node1:x" {
		t.Errorf("stream: got %q, %v, want the frame back", frame, err)
	}
	_ = out.Close()
	_ = resp.Body.Close()
	await.Receive(t, ended, "end of the stream")
}

// Calls to a peer that was upgraded at the same address still succeed. They use frames once the
// peer no longer counts as older.
func TestCall_PeerUpgraded_Succeeds(t *testing.T) {
	a := newCA(t)
	n1 := start(t, a, "node1", nil)
	n2 := start(t, a, "node2", nil)
	ln := olderServer(t, n2, "127.0.0.1:0")
	old := ln.Addr().String()
	if _, err := n1.Call(within(t), old, "node2", "/", nil); err != nil {
		t.Fatal(err)
	}
	_ = ln.Close()
	start(t, a, "node2", func(c *transport.Config) {
		_ = c.Listener.Close()
		var err error
		if c.Listener, err = net.Listen("tcp", old); err != nil {
			t.Fatal(err)
		}
	})
	ctx := within(t)
	for {
		_, err := n1.Call(ctx, old, "node2", "/", nil)
		if err == nil {
			break
		}
		if errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(err)
		}
	}
}
