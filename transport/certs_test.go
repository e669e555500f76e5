package transport_test

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"revoked/transport"
)

func TestLoadCertsSaysWhatIsWrong(t *testing.T) {
	a, other := newAuthority(t), newAuthority(t)
	cert, key, err := a.IssueNode("node1", nil, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	_, otherKey, err := a.IssueNode("node1", nil, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	ended, endedKey, err := a.IssueNode("node1", nil, -time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	server, serverKey, err := a.IssueServer([]string{"localhost"}, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name          string
		ca, cert, key []byte
		says          []string
	}{
		{"the key of another certificate", a.CertPEM(), cert, otherKey, []string{"key.pem", "does not fit", "cert.pem"}},
		{"a certificate that has ended", a.CertPEM(), ended, endedKey, []string{"cert.pem", "expired", "issue a new one"}},
		{"a server certificate", a.CertPEM(), server, serverKey, []string{"does not name a node", "`revoked cert node NODE_ID`", "revoked://node/"}},
		{"a key that is no PEM", a.CertPEM(), cert, []byte("hello"), []string{"key.pem", "no key in PEM"}},
		{"another CA", other.CertPEM(), cert, key, []string{"cert.pem", "ca.pem", "unknown authority"}},
		{"no CA in the CA file", cert, cert, key, []string{"not a CA certificate"}},
		{"a file that is no PEM", []byte("hello"), cert, key, []string{"ca.pem", "BEGIN CERTIFICATE"}},
		{"a file that is far too long", make([]byte, 2<<20), cert, key, []string{"ca.pem", "not a certificate file"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			ca, certFile, keyFile := files(t, c.ca, c.cert, c.key)
			_, err := transport.LoadCerts(ca, certFile, keyFile, nil)
			if err == nil {
				t.Fatal("got no error")
			}
			for _, want := range c.says {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("got %q, want it to say %q", err, want)
				}
			}
			if strings.Contains(err.Error(), "PRIVATE KEY") {
				t.Error("the error holds a key")
			}
		})
	}
	_, err = transport.LoadCerts("/nowhere/ca.pem", "/nowhere/cert.pem", "/nowhere/key.pem", nil)
	if !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "revoked cert") {
		t.Errorf("missing file: got %v, want it to be ErrNotExist and to name a remedy", err)
	}
}

func TestReloadKeepsTheOldOnFailure(t *testing.T) {
	a := newAuthority(t)
	cert, key, err := a.IssueNode("node1", nil, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	ca, certFile, keyFile := files(t, a.CertPEM(), cert, key)
	c, err := transport.LoadCerts(ca, certFile, keyFile, nil)
	if err != nil {
		t.Fatal(err)
	}
	before := c.Expiry()

	// Another node's certificate is refused: a node keeps its name.
	cert2, key2, err := a.IssueNode("node2", nil, 2*time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	write(t, certFile, cert2)
	write(t, keyFile, key2)
	if err := c.Reload(); err == nil || c.NodeID() != "node1" || !c.Expiry().Equal(before) {
		t.Errorf("got %v, node %s, want an error and the old certificate", err, c.NodeID())
	}
	// Half of a replacement is refused too.
	cert3, key3, err := a.IssueNode("node1", nil, 2*time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	write(t, certFile, cert3)
	if err := c.Reload(); err == nil {
		t.Error("certificate without its key: got no error")
	}
	write(t, keyFile, key3)
	if err := c.Reload(); err != nil || !c.Expiry().After(before) {
		t.Errorf("got %v, expiry %v, want the new certificate", err, c.Expiry())
	}
}

func TestWatchReloadsAndSaysSo(t *testing.T) {
	a := newAuthority(t)
	log := newLogBook()
	cert, key, err := a.IssueNode("node1", nil, 30*time.Second) // nearly over: backdated by minutes
	if err != nil {
		t.Fatal(err)
	}
	ca, certFile, keyFile := files(t, a.CertPEM(), cert, key)
	c, err := transport.LoadCerts(ca, certFile, keyFile, log.logger())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	changed, done := make(chan struct{}, 8), make(chan struct{})
	go func() {
		c.Watch(ctx, time.Millisecond, func() { changed <- struct{}{} })
		close(done)
	}()
	log.wait(t, "the node's certificate ends soon")
	write(t, certFile, []byte("half written"))
	log.wait(t, "certificates not reloaded")
	cert, key, err = a.IssueNode("node1", nil, 2*time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	write(t, certFile, cert)
	write(t, keyFile, key)
	select {
	case <-changed:
	case <-time.After(longStop):
		t.Fatal("not reloaded")
	}
	log.wait(t, "certificates reloaded")
	cancel()
	<-done
}

// With a CA taken away, the connections that it vouched for are closed, and no ticket brings them
// back.
func TestATakenCAClosesItsConnections(t *testing.T) {
	a, b := newAuthority(t), newAuthority(t)
	cert, key, err := b.IssueNode("node2", nil, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	both := append(a.CertPEM(), b.CertPEM()...)
	ca, certFile, keyFile := files(t, both, cert, key)
	n2 := start(t, a, "node2", func(c *transport.Config) {
		if c.Certs, err = transport.LoadCerts(ca, certFile, keyFile, nil); err != nil {
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
		if c.Certs, err = transport.LoadCerts(ca1, certFile1, keyFile1, nil); err != nil {
			t.Fatal(err)
		}
	})
	if _, err := n1.Call(within(t), n2.addr, "node2", "/", nil); err != nil {
		t.Fatal(err)
	}
	write(t, ca, b.CertPEM()) // node2 trusts a no more
	n2.log.wait(t, "closed connections of peers")
	// The first call may still go out on the connection that was just closed: its outcome is unknown.
	// A new one finds the door shut.
	for range 10 {
		if _, err = n1.Call(within(t), n2.addr, "node2", "/", nil); err == nil {
			t.Fatal("a call came through")
		}
		if errors.Is(err, transport.ErrNotSent) {
			return
		}
	}
	t.Errorf("got %v, want ErrNotSent", err)
}

func TestAConnectionEndsWithThePeersCertificate(t *testing.T) {
	a := newAuthority(t)
	ended := make(chan error, 1)
	n2 := start(t, a, "node2", func(c *transport.Config) { c.Handler = echoFrames(t, ended) })
	n1 := start(t, a, "node1", func(c *transport.Config) {
		cert, key, err := a.IssueNode("node1", nil, 3*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		ca, certFile, keyFile := files(t, a.CertPEM(), cert, key)
		if c.Certs, err = transport.LoadCerts(ca, certFile, keyFile, nil); err != nil {
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
		t.Errorf("with an ended certificate: got %v, want ErrNotSent", err)
	}
}

func TestAuthoritySurvivesItsFiles(t *testing.T) {
	a := newAuthority(t)
	dir := t.TempDir()
	certFile, keyFile := write(t, dir+"/ca.pem", a.CertPEM()), write(t, dir+"/ca-key.pem", a.KeyPEM())
	b, err := transport.LoadAuthority(certFile, keyFile)
	if err != nil {
		t.Fatal(err)
	}
	cert, key, err := b.IssueNode("node1", []string{"localhost", "::1"}, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	ca, certFile2, keyFile2 := files(t, a.CertPEM(), cert, key)
	if _, err := transport.LoadCerts(ca, certFile2, keyFile2, nil); err != nil {
		t.Error(err)
	}
	other := newAuthority(t)
	write(t, keyFile, other.KeyPEM())
	if _, err := transport.LoadAuthority(certFile, keyFile); err == nil {
		t.Error("key of another CA: got no error")
	}
	if _, _, err := a.IssueNode("no/slash", nil, time.Hour); !errors.Is(err, transport.ErrBadNodeID) {
		t.Errorf("got %v, want ErrBadNodeID", err)
	}
}
