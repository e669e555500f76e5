package rotateca

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"revoked/transport/pki"
)

func newCA(t *testing.T, name string) (*pki.CA, *x509.Certificate) {
	t.Helper()
	ca, err := pki.NewCA(name, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	return ca, ca.Certificate()
}

// serve is the cluster port of a node that trusts some CAs. It returns the address.
func serve(t *testing.T, id string, issuer *pki.CA, trusted ...*pki.CA) string {
	t.Helper()
	dir := t.TempDir()
	certPEM, keyPEM, err := issuer.IssueNode(id, []string{"node.example", "192.0.2.1"}, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	var cas []byte
	for _, ca := range trusted {
		cas = append(cas, ca.CertPEM()...)
	}
	path := func(name string, data []byte) string {
		name = filepath.Join(dir, name)
		if err := os.WriteFile(name, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	certs, err := pki.LoadCerts(path("ca.pem", cas), path("node.pem", certPEM), path("key.pem", keyPEM), nil)
	if err != nil {
		t.Fatal(err)
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", certs.ServerConfig("", "h2"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_ = c.(*tls.Conn).HandshakeContext(t.Context())
			}()
		}
	}()
	return l.Addr().String()
}

func TestLook_Node_ShowsItsCAs(t *testing.T) {
	old, oldCert := newCA(t, "old")
	next, nextCert := newCA(t, "next")
	other, _ := newCA(t, "other")
	both := authorities{[]*x509.Certificate{oldCert}, nextCert}
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed.Close()
	for _, tt := range []struct {
		name, address string
		cas           authorities
		trusts        string
		fromNext      bool
		problem       string
	}{
		{"before", serve(t, "node1", old, old), authorities{old: both.old}, "o", false, ""},
		{"trusts both", serve(t, "node1", old, old, next), both, "on", false, ""},
		{"new certificate", serve(t, "node1", next, next, old), both, "on", true, ""},
		{"only the next", serve(t, "node1", next, next), both, "n", true, ""},
		{"certificate of a third CA", serve(t, "node1", other, other, next), both, "", false, "neither the current CA nor"},
		{"another cluster", serve(t, "node1", other, other), both, "", false, "trusts neither"},
		{"another node", serve(t, "node2", old, old), both, "", false, "is for node2"},
		{"no node", closed.Addr().String(), both, "", false, "refused"},
	} {
		n := look(t.Context(), "node1", tt.address, tt.cas)
		want := state("node1", tt.trusts, tt.fromNext)
		if tt.problem != "" {
			if n.err == nil || !strings.Contains(n.err.Error(), tt.problem) {
				t.Errorf("%s: got error %v, want %q", tt.name, n.err, tt.problem)
			}
			continue
		}
		if n.err != nil || n.trustsOld != want.trustsOld || n.trustsNext != want.trustsNext || n.fromNext != want.fromNext {
			t.Errorf("%s: got %+v, want %+v", tt.name, n, want)
		}
		if got := strings.Join(hostsOf(n.leaf), " "); got != "node.example 192.0.2.1" {
			t.Errorf("%s: got names %q", tt.name, got)
		}
	}
}
