package transport_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"revoked/transport"
)

// dialFrom opens n TCP connections to addr from the source address ip, and sends first on each.
func dialFrom(t *testing.T, ip, addr string, n int, first []byte) []net.Conn {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(ip)}}
	var conns []net.Conn
	for range n {
		c, err := d.DialContext(within(t), "tcp", addr)
		if err != nil {
			t.Skipf("no source address %s here: %v", ip, err)
		}
		t.Cleanup(func() { _ = c.Close() })
		if _, err := c.Write(first); err != nil {
			t.Logf("write to %s: %v", addr, err) // the server may already have closed it
		}
		conns = append(conns, c)
	}
	return conns
}

// clientHello returns the first flight of a TLS client.
func clientHello(t *testing.T) []byte {
	t.Helper()
	client, server := net.Pipe()
	defer func() { _ = server.Close() }()
	go func() {
		_ = tls.Client(client, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}}).HandshakeContext(within(t))
	}()
	header := make([]byte, 5)
	if _, err := io.ReadFull(server, header); err != nil {
		t.Fatal(err)
	}
	body := make([]byte, int(header[3])<<8|int(header[4]))
	if _, err := io.ReadFull(server, body); err != nil {
		t.Fatal(err)
	}
	return append(header, body...)
}

// Connections may send nothing, half of a ClientHello, or only a ClientHello. They must not keep
// out a node at another address or at the same address.
func TestAdmit_Flood_DoesNotKeepNodesOut(t *testing.T) {
	hello := clientHello(t)
	for name, first := range map[string][]byte{
		"silent":            nil,
		"first byte":        hello[:1],
		"record header":     hello[:5],
		"half ClientHello":  hello[:len(hello)/2],
		"whole ClientHello": hello,
		"TLS alert":         {21, 3, 3, 0, 2, 1, 0},
	} {
		for _, source := range []string{"127.0.0.2", "127.0.0.1"} {
			t.Run(name+" from "+source, func(t *testing.T) {
				a := newCA(t)
				s := start(t, a, "node2", nil)
				dialFrom(t, source, s.addr, 300, first)
				for range 6 {
					n1 := start(t, a, "node1", nil)
					if _, err := n1.Call(within(t), s.addr, "node2", "/", nil); err != nil {
						t.Fatalf("got %v, want the node admitted", err)
					}
				}
			})
		}
	}
}

// Many addresses together get at most half of the slots, so that the members keep the other half.
func TestAdmit_FloodFromManyAddresses_LeavesMembersHalf(t *testing.T) {
	a := newCA(t)
	s := start(t, a, "node2", func(cfg *transport.Config) {
		cfg.MaxHandshakes = 4
		cfg.Known = func() []string { return []string{"127.0.0.1:7443"} }
	})
	s.log.Wait(t, "known addresses")
	hello := clientHello(t)
	member := dialFrom(t, "127.0.0.1", s.addr, 1, hello)[0]
	for _, source := range []string{"127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.5", "127.0.0.6"} {
		dialFrom(t, source, s.addr, 4, hello)
	}
	s.waitRefused(t, "displaced", 18)
	// The member's handshake still holds its slot: the server has answered and waits.
	_ = member.SetDeadline(time.Now().Add(longStop))
	if _, err := member.Read(make([]byte, 1)); err != nil {
		t.Errorf("handshake of a member: got %v, want it in progress", err)
	}
	n1 := start(t, a, "node1", nil)
	if _, err := n1.Call(within(t), s.addr, "node2", "/", nil); err != nil {
		t.Errorf("got %v, want the node admitted", err)
	}
}

// waitRefused waits until at least n connections were refused for the reason, or for any reason if
// it is empty.
func (s *server) waitRefused(t *testing.T, reason string, n float64) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	ctx := within(t)
	want := map[string]string{}
	if reason != "" {
		want["reason"] = reason
	}
	for s.metric(t, "revoked_peer_refused_total", want) < n {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("got %v refusals (%s), want %v; log:\n%s",
				s.metric(t, "revoked_peer_refused_total", want), reason, n, s.log)
		}
	}
}

func TestAdmit_NoClientHello_IsRefusedImmediately(t *testing.T) {
	for name, first := range map[string]string{
		"HTTP":           "GET / HTTP/1.1\r\n",
		"one wrong byte": "G",
		"SSL 2":          "\x80\x2e\x01\x00\x02",
		"wrong version":  "\x16\x02",
		"alert":          "\x15\x03\x03",
		"empty record":   "\x16\x03\x01\x00\x00",
		"long record":    "\x16\x03\x01\xff\xff",
		"ServerHello":    "\x16\x03\x01\x00\x20\x02",
	} {
		t.Run(name, func(t *testing.T) {
			s := start(t, newCA(t), "node2", nil)
			c := dialFrom(t, "127.0.0.1", s.addr, 1, []byte(first))[0]
			_ = c.SetDeadline(time.Now().Add(longStop))
			if n, err := c.Read(make([]byte, 1)); n > 0 || errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got %d bytes, %v, want the end of the connection", n, err)
			}
			s.waitRefused(t, "not_tls", 1)
			s.log.Wait(t, "reason=not_tls", "from=127.0.0.1")
		})
	}
}

func TestAdmit_ManyRefusals_AreLoggedRarely(t *testing.T) {
	s := start(t, newCA(t), "node2", nil)
	dialFrom(t, "127.0.0.1", s.addr, 200, []byte("GET / HTTP/1.1\r\n"))
	s.waitRefused(t, "", 200) // some of them displaced before they were read
	if got := s.log.Count("refused a connection"); got == 0 || got > 10 {
		t.Errorf("got %d lines for 200 refusals, want 1 to 10", got)
	}
}

// One node cannot use up the connections of the other nodes.
func TestAdmit_ManyConnectionsOfOneNode_LeaveRoom(t *testing.T) {
	a := newCA(t)
	s := start(t, a, "node2", func(cfg *transport.Config) { cfg.MaxConnections = 8 })
	certs := nodeCerts(t, a, "node9").ClientConfig("node2", "", "h2")
	for range 10 {
		c, err := tls.Dial("tcp", s.addr, certs)
		if err != nil {
			continue
		}
		t.Cleanup(func() { _ = c.Close() })
	}
	s.waitRefused(t, "full", 8)
	s.log.Wait(t, "node node9 has too many connections")
	n1 := start(t, a, "node1", nil)
	if _, err := n1.Call(within(t), s.addr, "node2", "/", nil); err != nil {
		t.Errorf("got %v, want the node admitted", err)
	}
}
