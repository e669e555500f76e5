package transport_test

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"revoked/transport"
	"revoked/transport/pki"
)

type issue func() (certPEM, keyPEM []byte, err error)

func TestAdmit_InvalidPeer_IsRefused(t *testing.T) {
	a, other := newCA(t), newCA(t)
	hosts := []string{"127.0.0.1"}
	node := func(a *pki.CA, validFor time.Duration) issue {
		return func() ([]byte, []byte, error) { return a.IssueNode("node1", hosts, validFor) }
	}
	cases := []struct {
		name   string
		issue  issue
		alpn   []string
		max    uint16
		reason string // in the log
	}{
		{name: "no certificate", alpn: []string{"h2"}, reason: "didn't provide a certificate"},
		{name: "client certificate of the same CA",
			issue: func() ([]byte, []byte, error) { return a.IssueClient("app", time.Hour) },
			alpn:  []string{"revoked-raft/1"}, reason: "does not name a node"},
		{name: "server certificate of the same CA",
			issue: func() ([]byte, []byte, error) { return a.IssueServer(hosts, time.Hour) },
			alpn:  []string{"h2"}, reason: "incompatible key usage"},
		{name: "node of another CA", issue: node(other, time.Hour), alpn: []string{"revoked-raft/1"},
			reason: "unknown authority"},
		{name: "node with an expired certificate", issue: node(a, -time.Minute), alpn: []string{"h2"}, reason: "expired"},
		{name: "TLS 1.2", issue: node(a, time.Hour), alpn: []string{"h2"}, max: tls.VersionTLS12,
			reason: "unsupported versions"},
		{name: "another protocol", issue: node(a, time.Hour), alpn: []string{"smtp"},
			reason: "unsupported application protocols"},
		{name: "no protocol", issue: node(a, time.Hour), reason: "offered no supported ALPN protocol"},
		{name: "node not allowed to use Raft", issue: node(a, time.Hour), alpn: []string{"revoked-raft/1"},
			reason: "node node1 may not open a Raft stream: not a member"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			s := start(t, a, "node2", func(cfg *transport.Config) {
				cfg.AllowRaft = func(string) error { return errors.New("not a member") }
				cfg.Handler = http.HandlerFunc(func(http.ResponseWriter,
					*http.Request) {
					t.Error("got a call to the handler, want none")
				})
			})
			config := &tls.Config{InsecureSkipVerify: true, NextProtos: c.alpn, MaxVersion: c.max}
			if c.issue != nil {
				certPEM, keyPEM, err := c.issue()
				if err != nil {
					t.Fatal(err)
				}
				pair, err := tls.X509KeyPair(certPEM, keyPEM)
				if err != nil {
					t.Fatal(err)
				}
				// The certificate is sent even if the server's list of CAs lacks its issuer.
				config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }
			}
			conn, err := tls.Dial("tcp", s.addr, config)
			if err == nil {
				defer func() { _ = conn.Close() }()
				_ = conn.SetDeadline(time.Now().Add(longStop))
				_, _ = conn.Write([]byte{0}) // the first byte of an AppendEntries
				if n, err := conn.Read(make([]byte, 1)); err == nil {
					t.Errorf("got %d bytes, want 0", n)
				}
			}
			s.log.Wait(t, "refused a connection", c.reason)
			select {
			case <-s.Raft().Consumer():
				t.Error("got a Raft message, want none")
			default:
			}
			if got := s.metric(t, "revoked_peer_refused_total", nil); got != 1 {
				t.Errorf("got %v counted refusals, want 1", got)
			}
		})
	}
}

func TestRaftDial_WrongPeer_Fails(t *testing.T) {
	a := newCA(t)
	n1, n2 := start(t, a, "node1", nil), start(t, a, "node2", func(cfg *transport.Config) { cfg.Instance = "0a1b" })
	foreign := start(t, newCA(t), "node3", nil)
	serveRaft(t, n2)
	for _, c := range []struct {
		name string
		addr raft.ServerAddress
		ok   bool
	}{
		{"node", transport.RaftAddress("node2", n2.addr), true},
		{"instance", transport.InstanceAddress("node2", n2.addr, "0a1b"), true},
		{"earlier instance", transport.InstanceAddress("node2", n2.addr, "ffff"), false},
		{"another name", transport.RaftAddress("node9", n2.addr), false},
		{"another CA", transport.RaftAddress("node3", foreign.addr), false},
		{"no name", raft.ServerAddress(n2.addr), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			var resp raft.AppendEntriesResponse
			err := n1.Raft().AppendEntries("x", c.addr, heartbeat(n1), &resp)
			if (err == nil) != c.ok {
				t.Errorf("got %v, want ok: %v", err, c.ok)
			}
		})
	}
	n2.log.Wait(t, "dialed another instance (got ffff, want 0a1b)")
	if got := n2.metric(t, "revoked_peer_refused_total", map[string]string{"reason": "another_instance"}); got < 1 {
		t.Errorf("got %v refusals for another instance, want at least 1", got)
	}
}

func TestCall_RefusedHandshake_IsNotSent(t *testing.T) {
	a, b := newCA(t), newCA(t)
	n2 := start(t, a, "node2", nil)
	n1 := start(t, a, "node1", func(cfg *transport.Config) {
		cert, key, err := b.IssueNode("node1", nil, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		caFile, certFile, keyFile := files(t, append(a.CertPEM(), b.CertPEM()...), cert, key)
		if cfg.Certs, err = pki.LoadCerts(caFile, certFile, keyFile, nil); err != nil {
			t.Fatal(err)
		}
	})
	_, err := n1.Call(within(t), n2.addr, "node2", "/", nil)
	if !errors.Is(err, transport.ErrNotSent) {
		t.Errorf("got %v, want ErrNotSent", err)
	}
}

func TestAdmit_TooManyConnections_AreRefused(t *testing.T) {
	a := newCA(t)
	s := start(t, a, "node2", func(cfg *transport.Config) { cfg.MaxConnections = 1 })
	n1, n3 := start(t, a, "node1", nil), start(t, a, "node3", nil)
	if _, err := n1.Call(within(t), s.addr, "node2", "/", nil); err != nil {
		t.Fatal(err)
	}
	if _, err := n3.Call(within(t), s.addr, "node2", "/", nil); !errors.Is(err, transport.ErrNotSent) {
		t.Errorf("second connection: got %v, want ErrNotSent", err)
	}
	s.log.Wait(t, "too many connections (want at most 1)")
	if err := n1.Close(); err != nil {
		t.Fatal(err)
	}
	for s.metric(t, "revoked_peer_connections", nil) > 0 && within(t).Err() == nil {
		runtime.Gosched()
	}
	if _, err := n3.Call(within(t), s.addr, "node2", "/", nil); err != nil {
		t.Errorf("after the first connection closed: got %v, want nil", err)
	}
}

func TestAdmit_SilentConnection_TimesOut(t *testing.T) {
	for name, first := range map[string][]byte{"nothing": nil, "half ClientHello": clientHello(t)[:100]} {
		t.Run(name, func(t *testing.T) {
			s := start(t, newCA(t), "node2", func(cfg *transport.Config) {
				cfg.DialTimeout = 20 * time.Millisecond
				cfg.MaxHandshakes = 1
			})
			c := dialFrom(t, "127.0.0.1", s.addr, 1, first)[0]
			_ = c.SetDeadline(time.Now().Add(longStop))
			if _, err := c.Read(make([]byte, 1)); err == nil {
				t.Error("got bytes, want the end of the connection")
			}
			s.log.Wait(t, "reason=silent")
		})
	}
}

func TestAdmit_StalledHandshake_TimesOut(t *testing.T) {
	s := start(t, newCA(t), "node2", func(cfg *transport.Config) { cfg.DialTimeout = 20 * time.Millisecond })
	c := dialFrom(t, "127.0.0.1", s.addr, 1, clientHello(t))[0]
	_ = c.SetDeadline(time.Now().Add(longStop))
	if _, err := io.Copy(io.Discard, c); err != nil && !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("got %v, want the end of the connection", err)
	}
	s.log.Wait(t, "reason=handshake")
}

func TestNew_InvalidConfig_ReturnsError(t *testing.T) {
	a := newCA(t)
	certs := nodeCerts(t, a, "node1")
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	good := transport.Config{
		NodeID: "node1", Listener: ln, Advertise: "127.0.0.1:7443", Certs: certs,
		Handler: http.NotFoundHandler(), AllowRaft: func(string) error { return nil },
	}
	for name, spoil := range map[string]func(*transport.Config){
		"no listener":                       func(c *transport.Config) { c.Listener = nil },
		"no certificates":                   func(c *transport.Config) { c.Certs = nil },
		"no handler":                        func(c *transport.Config) { c.Handler = nil },
		"no AllowRaft":                      func(c *transport.Config) { c.AllowRaft = nil },
		"certificate of another node":       func(c *transport.Config) { c.NodeID = "node2" },
		"node id with a slash":              func(c *transport.Config) { c.NodeID = "a/b" },
		"advertised address without a host": func(c *transport.Config) { c.Advertise = ":7443" },
		"wildcard advertised address":       func(c *transport.Config) { c.Advertise = "0.0.0.0:7443" },
		"negative timeout":                  func(c *transport.Config) { c.RaftTimeout = -1 },
	} {
		cfg := good
		spoil(&cfg)
		if _, err := transport.New(cfg); err == nil {
			t.Errorf("%s: got nil, want an error", name)
		}
	}
}

// After a CA is removed, the connections of its nodes are closed, and no session ticket resumes
// them.
func TestRecheck_RemovedCA_ClosesConnections(t *testing.T) {
	a, b := newCA(t), newCA(t)
	cert, key, err := b.IssueNode("node2", nil, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	both := append(a.CertPEM(), b.CertPEM()...)
	ca, certFile, keyFile := files(t, both, cert, key)
	n2 := start(t, a, "node2", func(c *transport.Config) {
		if c.Certs, err = pki.LoadCerts(ca, certFile, keyFile, nil); err != nil {
			t.Fatal(err)
		}
		c.PollInterval = time.Millisecond
	})
	cert1, key1, err := a.IssueNode("node1", nil, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	ca1, certFile1, keyFile1 := files(t, both, cert1, key1)
	n1 := start(t, a, "node1", func(c *transport.Config) {
		if c.Certs, err = pki.LoadCerts(ca1, certFile1, keyFile1, nil); err != nil {
			t.Fatal(err)
		}
	})
	if _, err := n1.Call(within(t), n2.addr, "node2", "/", nil); err != nil {
		t.Fatal(err)
	}
	write(t, ca, b.CertPEM()) // node2 no longer trusts a
	n2.log.Wait(t, "closed connections of untrusted peers")
	// The first call may use the connection that was just closed: its outcome is unknown. Later
	// calls need a new connection.
	for range 10 {
		if _, err = n1.Call(within(t), n2.addr, "node2", "/", nil); err == nil {
			t.Fatal("got nil, want an error")
		}
		if errors.Is(err, transport.ErrNotSent) {
			return
		}
	}
	t.Errorf("got %v, want ErrNotSent", err)
}

func TestConn_PeerCertificateExpires_IsClosed(t *testing.T) {
	a := newCA(t)
	ended := make(chan error, 1)
	n2 := start(t, a, "node2", func(c *transport.Config) { c.Handler = echoFrames(ended) })
	n1 := start(t, a, "node1", func(c *transport.Config) {
		cert, key, err := a.IssueNode("node1", nil, 6*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		ca, certFile, keyFile := files(t, a.CertPEM(), cert, key)
		if c.Certs, err = pki.LoadCerts(ca, certFile, keyFile, nil); err != nil {
			t.Fatal(err)
		}
	})
	s, err := n1.Stream(within(t), n2.addr, "node2", "/")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, err := s.Recv(); err == nil {
		t.Error("got no error, want the end of the connection")
	}
	if _, err := n1.Call(within(t), n2.addr, "node2", "/", nil); !errors.Is(err, transport.ErrNotSent) {
		t.Errorf("with an expired certificate: got %v, want ErrNotSent", err)
	}
}
