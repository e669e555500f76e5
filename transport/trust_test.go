package transport_test

import (
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"revoked/transport"
)

type issue func() (certPEM, keyPEM []byte, err error)

func TestStrangersAreRefusedBeforeTheFirstByte(t *testing.T) {
	a, other := newAuthority(t), newAuthority(t)
	hosts := []string{"127.0.0.1"}
	node := func(a *transport.Authority, validFor time.Duration) issue {
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
		{name: "a client certificate of the same CA", issue: func() ([]byte, []byte, error) { return a.IssueClient("app", time.Hour) },
			alpn: []string{"revoked-raft/1"}, reason: "does not name a node"},
		{name: "a server certificate of the same CA", issue: func() ([]byte, []byte, error) { return a.IssueServer(hosts, time.Hour) },
			alpn: []string{"h2"}, reason: "incompatible key usage"},
		{name: "a node of another CA", issue: node(other, time.Hour), alpn: []string{"revoked-raft/1"}, reason: "unknown authority"},
		{name: "a node whose certificate has ended", issue: node(a, -time.Minute), alpn: []string{"h2"}, reason: "expired"},
		{name: "TLS 1.2", issue: node(a, time.Hour), alpn: []string{"h2"}, max: tls.VersionTLS12, reason: "unsupported versions"},
		{name: "another protocol", issue: node(a, time.Hour), alpn: []string{"smtp"}, reason: "unsupported application protocols"},
		{name: "no protocol", issue: node(a, time.Hour), reason: "offers neither"},
		{name: "a node that may not speak Raft", issue: node(a, time.Hour), alpn: []string{"revoked-raft/1"}, reason: "node node1 may not speak Raft here: not a member"},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			s := start(t, a, "node2", func(cfg *transport.Config) {
				cfg.AllowRaft = func(string) error { return errors.New("not a member") }
				cfg.Handler = http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("handler was reached") })
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
				// Sent whether or not the server's list of CAs names its issuer.
				config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }
			}
			conn, err := tls.Dial("tcp", s.addr, config)
			if err == nil {
				defer func() { _ = conn.Close() }()
				_ = conn.SetDeadline(time.Now().Add(longStop))
				_, _ = conn.Write([]byte{0}) // an AppendEntries would begin so
				if n, err := conn.Read(make([]byte, 1)); err == nil {
					t.Errorf("read %d bytes, want none", n)
				}
			}
			s.log.wait(t, "refused a connection", c.reason)
			select {
			case <-s.Raft().Consumer():
				t.Error("Raft got a message")
			default:
			}
			if got := s.metric(t, "revoked_peer_refused_total", nil); got != 1 {
				t.Errorf("refusals counted: got %v, want 1", got)
			}
		})
	}
}

func TestRaftDialsNobodyButTheNodeThatItMeans(t *testing.T) {
	a := newAuthority(t)
	n1, n2 := start(t, a, "node1", nil), start(t, a, "node2", func(cfg *transport.Config) { cfg.Instance = "0a1b" })
	foreign := start(t, newAuthority(t), "node3", nil)
	serveRaft(t, n2)
	for _, c := range []struct {
		name string
		addr raft.ServerAddress
		ok   bool
	}{
		{"the node", transport.RaftAddress("node2", n2.addr), true},
		{"the instance", transport.InstanceAddress("node2", n2.addr, "0a1b"), true},
		{"the instance that had the disk before", transport.InstanceAddress("node2", n2.addr, "ffff"), false},
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
	n2.log.wait(t, "wants instance ffff of this node, which is 0a1b")
	if got := n2.metric(t, "revoked_peer_refused_total", map[string]string{"reason": "another_instance"}); got < 1 {
		t.Errorf("refusals for another instance: got %v, want one", got)
	}
}

func TestACallThatThePeerRefusesAtTheHandshakeWasNotSent(t *testing.T) {
	a, b := newAuthority(t), newAuthority(t)
	n2 := start(t, a, "node2", nil)
	n1 := start(t, a, "node1", func(cfg *transport.Config) {
		cert, key, err := b.IssueNode("node1", nil, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		caFile, certFile, keyFile := files(t, append(a.CertPEM(), b.CertPEM()...), cert, key)
		if cfg.Certs, err = transport.LoadCerts(caFile, certFile, keyFile, nil); err != nil {
			t.Fatal(err)
		}
	})
	_, err := n1.Call(within(t), n2.addr, "node2", "/", nil)
	if !errors.Is(err, transport.ErrNotSent) {
		t.Errorf("got %v, want ErrNotSent", err)
	}
}

func TestTooManyConnectionsAreRefused(t *testing.T) {
	a := newAuthority(t)
	s := start(t, a, "node2", func(cfg *transport.Config) { cfg.MaxConnections = 1; cfg.DialTimeout = longStop })
	hold, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	more, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	s.log.wait(t, "too many connections")
	if _, err := more.Read(make([]byte, 1)); err == nil {
		t.Error("the second connection was served")
	}
	_ = more.Close()
	// The place becomes free again.
	_ = hold.Close()
	s.log.wait(t, "handshake")
	n1 := start(t, a, "node1", nil)
	if _, err := n1.Call(within(t), s.addr, "node2", "/", nil); err != nil {
		t.Errorf("after the place became free: %v", err)
	}
}

func TestASilentHandshakeIsCutOff(t *testing.T) {
	s := start(t, newAuthority(t), "node2", func(cfg *transport.Config) {
		cfg.DialTimeout = 20 * time.Millisecond
		cfg.MaxHandshakes = 1
	})
	c, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(longStop))
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("got bytes, want the end of the connection")
	}
	s.log.wait(t, "reason=handshake")
}

func TestNewRefusesAConfigurationThatCannotWork(t *testing.T) {
	a := newAuthority(t)
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
		"no listener":                            func(c *transport.Config) { c.Listener = nil },
		"no certificates":                        func(c *transport.Config) { c.Certs = nil },
		"no handler":                             func(c *transport.Config) { c.Handler = nil },
		"nobody decides who speaks Raft":         func(c *transport.Config) { c.AllowRaft = nil },
		"the certificate names another node":     func(c *transport.Config) { c.NodeID = "node2" },
		"a node id with a slash":                 func(c *transport.Config) { c.NodeID = "a/b" },
		"an advertised address without a host":   func(c *transport.Config) { c.Advertise = ":7443" },
		"an advertised address that is wildcard": func(c *transport.Config) { c.Advertise = "0.0.0.0:7443" },
		"a negative timeout":                     func(c *transport.Config) { c.RaftTimeout = -1 },
	} {
		cfg := good
		spoil(&cfg)
		if _, err := transport.New(cfg); err == nil {
			t.Errorf("%s: got no error", name)
		}
	}
}
