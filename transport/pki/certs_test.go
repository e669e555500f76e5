package pki_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"revoked/transport/pki"
)

const longStop = 30 * time.Second

func newCA(t *testing.T) *pki.CA {
	t.Helper()
	ca, err := pki.NewCA("test CA", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

func issueNode(t *testing.T, ca *pki.CA, node string, validFor time.Duration) (cert, key []byte) {
	t.Helper()
	cert, key, err := ca.IssueNode(node, nil, validFor)
	if err != nil {
		t.Fatal(err)
	}
	return cert, key
}

func write(t *testing.T, file string, b []byte) string {
	t.Helper()
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// files writes a CA, a certificate and a key and returns their paths.
func files(t *testing.T, ca, cert, key []byte) (caFile, certFile, keyFile string) {
	t.Helper()
	dir := t.TempDir()
	return write(t, filepath.Join(dir, "ca.pem"), ca),
		write(t, filepath.Join(dir, "cert.pem"), cert),
		write(t, filepath.Join(dir, "key.pem"), key)
}

func TestLoadCerts_InvalidFiles_NamesTheProblem(t *testing.T) {
	ca, other := newCA(t), newCA(t)
	cert, key := issueNode(t, ca, "node1", time.Hour)
	_, otherKey := issueNode(t, ca, "node1", time.Hour)
	expired, expiredKey := issueNode(t, ca, "node1", -time.Minute)
	server, serverKey, err := ca.IssueServer([]string{"localhost"}, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name          string
		ca, cert, key []byte
		want          []string
	}{
		{"key of another certificate", ca.CertPEM(), cert, otherKey, []string{"key.pem", "does not match", "cert.pem"}},
		{"expired certificate", ca.CertPEM(), expired, expiredKey, []string{"cert.pem", "expired", "issue a new one"}},
		{"server certificate", ca.CertPEM(), server, serverKey,
			[]string{"does not name a node", "`revoked cert node NODE_ID`", "revoked://node/"}},
		{"key not PEM", ca.CertPEM(), cert, []byte("hello"), []string{"key.pem", "no PEM key"}},
		{"another CA", other.CertPEM(), cert, key, []string{"cert.pem", "ca.pem", "unknown authority"}},
		{"CA file without a CA", cert, cert, key, []string{"not a CA certificate"}},
		{"CA file not PEM", []byte("hello"), cert, key, []string{"ca.pem", "BEGIN CERTIFICATE"}},
		{"file too long", make([]byte, 2<<20), cert, key, []string{"ca.pem", "not a certificate file"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			caFile, certFile, keyFile := files(t, c.ca, c.cert, c.key)
			_, err := pki.LoadCerts(caFile, certFile, keyFile, nil)
			if err == nil {
				t.Fatal("got nil, want an error")
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("got %q, want it to contain %q", err, want)
				}
			}
			if strings.Contains(err.Error(), "PRIVATE KEY") {
				t.Errorf("got %q, want it without the key", err)
			}
		})
	}
	_, err = pki.LoadCerts("/nowhere/ca.pem", "/nowhere/cert.pem", "/nowhere/key.pem", nil)
	if !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "revoked cert") {
		t.Errorf("missing file: got %v, want %v and advice to create it", err, os.ErrNotExist)
	}
}

func TestCerts_FailedReload_KeepsPreviousSet(t *testing.T) {
	ca := newCA(t)
	cert, key := issueNode(t, ca, "node1", time.Hour)
	caFile, certFile, keyFile := files(t, ca.CertPEM(), cert, key)
	c, err := pki.LoadCerts(caFile, certFile, keyFile, nil)
	if err != nil {
		t.Fatal(err)
	}
	before := c.Expiry()

	cert, key = issueNode(t, ca, "node2", 2*time.Hour)
	write(t, certFile, cert)
	write(t, keyFile, key)
	if err := c.Reload(); err == nil || c.NodeID() != "node1" || !c.Expiry().Equal(before) {
		t.Errorf("certificate of another node: got %v, node %s, want an error and the old certificate", err, c.NodeID())
	}
	cert, key = issueNode(t, ca, "node1", 2*time.Hour)
	write(t, certFile, cert)
	if err := c.Reload(); err == nil {
		t.Error("certificate without its key: got nil, want an error")
	}
	write(t, keyFile, key)
	if err := c.Reload(); err != nil || !c.Expiry().After(before) {
		t.Errorf("got %v, expiry %v, want the new certificate", err, c.Expiry())
	}
}

// logLines receives log lines and signals each.
type logLines struct {
	mu   sync.Mutex
	text bytes.Buffer
	more chan struct{}
}

func (l *logLines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	close(l.more)
	l.more = make(chan struct{})
	return l.text.Write(p)
}

func (l *logLines) wait(t *testing.T, want string) {
	t.Helper()
	stop := time.After(longStop)
	for {
		l.mu.Lock()
		text, more := l.text.String(), l.more
		l.mu.Unlock()
		if strings.Contains(text, want) {
			return
		}
		select {
		case <-more:
		case <-stop:
			t.Fatalf("got log:\n%s\nwant %q", text, want)
		}
	}
}

func TestCerts_Watch_ReloadsAndLogs(t *testing.T) {
	ca := newCA(t)
	log := &logLines{more: make(chan struct{})}
	cert, key := issueNode(t, ca, "node1", 30*time.Second) // backdated by minutes, so most of its life is over
	caFile, certFile, keyFile := files(t, ca.CertPEM(), cert, key)
	c, err := pki.LoadCerts(caFile, certFile, keyFile, slog.New(slog.NewTextHandler(log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	changed, done := make(chan struct{}, 8), make(chan struct{})
	go func() {
		c.Watch(ctx, time.Millisecond, func() { changed <- struct{}{} })
		close(done)
	}()
	log.wait(t, "cluster certificate expires soon")
	write(t, certFile, []byte("half written"))
	log.wait(t, "cannot reload certificates")
	for range 2 { // the watcher loads the first change; Reload may load the second
		cert, key = issueNode(t, ca, "node1", 2*time.Hour)
		write(t, certFile, cert)
		write(t, keyFile, key)
		_ = c.Reload()
		select {
		case <-changed:
		case <-time.After(longStop):
			t.Fatal("got no call to changed, want one")
		}
	}
	log.wait(t, "certificates reloaded")
	cancel()
	<-done
}

// While a cluster moves to another CA, a join token names the CA that signed the certificate.
func TestCAKeyHash_TwoCAs_NamesTheSigner(t *testing.T) {
	old, next := newCA(t), newCA(t)
	both := append(old.CertPEM(), next.CertPEM()...)
	for name, ca := range map[string]*pki.CA{"old": old, "next": next} {
		cert, key := issueNode(t, ca, "node1", time.Hour)
		caFile, certFile, keyFile := files(t, both, cert, key)
		c, err := pki.LoadCerts(caFile, certFile, keyFile, nil)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := c.CAKeyHash(); err != nil || got != pki.KeyHash(ca.Certificate()) {
			t.Errorf("%s: got %x, %v, want %x", name, got, err, pki.KeyHash(ca.Certificate()))
		}
	}
}

func TestCA_Load_IssuesUnderTheSameCA(t *testing.T) {
	ca := newCA(t)
	dir := t.TempDir()
	certFile, keyFile := write(t, dir+"/ca.pem", ca.CertPEM()), write(t, dir+"/ca-key.pem", ca.KeyPEM())
	loaded, err := pki.LoadCA(certFile, keyFile)
	if err != nil {
		t.Fatal(err)
	}
	cert, key, err := loaded.IssueNode("node1", []string{"localhost", "::1"}, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	caFile, certFile2, keyFile2 := files(t, ca.CertPEM(), cert, key)
	if _, err := pki.LoadCerts(caFile, certFile2, keyFile2, nil); err != nil {
		t.Error(err)
	}
	write(t, keyFile, newCA(t).KeyPEM())
	if _, err := pki.LoadCA(certFile, keyFile); err == nil {
		t.Error("key of another CA: got nil, want an error")
	}
	if _, _, err := ca.IssueNode("no/slash", nil, time.Hour); !errors.Is(err, pki.ErrBadNodeID) {
		t.Errorf("got %v, want %v", err, pki.ErrBadNodeID)
	}
}
