package enroll

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"revoked"
	"revoked/internal/await"
	"revoked/internal/jointoken"
	"revoked/transport/pki"
)

func newCA(t *testing.T) *pki.CA {
	t.Helper()
	ca, err := pki.NewCA("test CA", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

// certsOf returns the certificate of node1 under ca, which trusts all the CAs.
func certsOf(t *testing.T, ca *pki.CA, all ...*pki.CA) *pki.Certs {
	t.Helper()
	cert, key, err := ca.IssueNode("node1", nil, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	trusted := ca.CertPEM()
	for _, other := range all {
		trusted = append(trusted, other.CertPEM()...)
	}
	dir := t.TempDir()
	for name, b := range map[string][]byte{"ca": trusted, "cert": cert, "key": key} {
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c, err := pki.LoadCerts(filepath.Join(dir, "ca"), filepath.Join(dir, "cert"), filepath.Join(dir, "key"), nil)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// A port is a cluster port. Without serve, got receives a value for each connection: whether
// anything arrived after the handshake.
type port struct {
	addr string
	got  chan bool
}

// listen serves connections with the configuration; serve may be nil.
func listen(t *testing.T, conf *tls.Config, serve func(context.Context, *tls.Conn)) *port {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &port{l.Addr().String(), make(chan bool, 8)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			raw, err := l.Accept()
			if err != nil {
				return
			}
			c := tls.Server(raw, conf)
			if c.HandshakeContext(t.Context()) == nil && serve != nil {
				serve(t.Context(), c)
			} else {
				n, _ := c.Read(make([]byte, 1))
				p.got <- n > 0
			}
			_ = raw.Close()
		}
	}()
	t.Cleanup(func() { _ = l.Close(); <-done })
	return p
}

func applicant(t *testing.T, token jointoken.Token) *Applicant {
	t.Helper()
	csr, _, err := pki.NewRequest("node4")
	if err != nil {
		t.Fatal(err)
	}
	return &Applicant{Node: "node4", Token: token, CSR: csr}
}

func tokenOf(ca *pki.CA) jointoken.Token { return jointoken.New(pki.KeyHash(ca.Certificate())) }

func TestAsk_Member_GetsTheRequestAndAnswers(t *testing.T) {
	ca, next := newCA(t), newCA(t)
	certs := certsOf(t, ca, next)
	a := applicant(t, tokenOf(ca))
	s := NewServer(func(_ context.Context, r *Request) ([]byte, error) {
		if !jointoken.VerifyEnrollment(r.TokenKey, r.Proof, r.Node, r.CSR, r.Binding) || !bytes.Equal(r.CSR, a.CSR) {
			return nil, revoked.ErrForbidden
		}
		return []byte("certificate of " + r.Node), nil
	})
	p := listen(t, certs.ServerConfig(Protocol, "other"), s.Serve)
	got, err := a.Ask(t.Context(), p.addr)
	if err != nil || string(got.DER) != "certificate of node4" || !bytes.Equal(got.CAPEM, ca.CertPEM()) {
		t.Fatalf("got %v, %v, want the answer and only the pinned CA", got, err)
	}
}

func TestAsk_Refusal_ReturnsSentinelAndText(t *testing.T) {
	ca := newCA(t)
	s := NewServer(func(context.Context, *Request) ([]byte, error) { return nil, revoked.ErrTokenEnded })
	p := listen(t, certsOf(t, ca).ServerConfig(Protocol, "other"), s.Serve)
	_, err := applicant(t, tokenOf(ca)).Ask(t.Context(), p.addr)
	const want = "join token: unknown, deleted or expired: create another"
	if !errors.Is(err, revoked.ErrForbidden) || err.Error() != want {
		t.Errorf("got %v, want %v: %s", err, revoked.ErrForbidden, want)
	}
}

// A member of another CA gets neither the request nor the proof. A member of the pinned CA gets
// both.
func TestAsk_OtherCA_SendsNothing(t *testing.T) {
	ca, other := newCA(t), newCA(t)
	withoutName, key, err := ca.IssueServer([]string{"localhost"}, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	server, err := tls.X509KeyPair(append(withoutName, ca.CertPEM()...), key)
	if err != nil {
		t.Fatal(err)
	}
	plain := func(pair tls.Certificate) *tls.Config {
		return &tls.Config{MinVersion: tls.VersionTLS13, NextProtos: []string{Protocol},
			Certificates: []tls.Certificate{pair}}
	}
	cert, key, err := other.IssueNode("node1", nil, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	foreign, err := tls.X509KeyPair(append(cert, ca.CertPEM()...), key)
	if err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		conf  *tls.Config
		sends bool
	}{
		"the pinned CA":               {certsOf(t, ca).ServerConfig(Protocol, "other"), true},
		"another CA":                  {certsOf(t, other).ServerConfig(Protocol, "other"), false},
		"another CA, pinned in chain": {plain(foreign), false},
		"no node name":                {plain(server), false},
	} {
		p := listen(t, tt.conf, nil)
		_, err := applicant(t, tokenOf(ca)).Ask(t.Context(), p.addr)
		if !tt.sends && !errors.Is(err, pki.ErrOtherCA) {
			t.Errorf("%s: got %v, want %v", name, err, pki.ErrOtherCA)
		}
		if got := await.Receive(t, p.got, "the end of the connection"); got != tt.sends {
			t.Errorf("%s: got data sent %t, want %t", name, got, tt.sends)
		}
	}
}

// A member without the CA's key does not offer the protocol. A handshake that offers another
// protocol as well needs a certificate.
func TestAsk_NotOffered_ReturnsErrNotOffered(t *testing.T) {
	ca := newCA(t)
	certs := certsOf(t, ca)
	p := listen(t, certs.ServerConfig("", "revoked-frames/1"), nil)
	if _, err := applicant(t, tokenOf(ca)).Ask(t.Context(), p.addr); !errors.Is(err, ErrNotOffered) {
		t.Errorf("got %v, want %v", err, ErrNotOffered)
	}
	p = listen(t, certs.ServerConfig(Protocol, "revoked-frames/1"), nil)
	c, err := tls.Dial("tcp", p.addr, &tls.Config{
		InsecureSkipVerify: true, NextProtos: []string{Protocol, "revoked-frames/1"},
	})
	if err == nil {
		_, err = c.Read(make([]byte, 1)) // with TLS 1.3 the client learns only here that it was refused
		_ = c.Close()
	}
	if err == nil || errors.Is(err, io.EOF) {
		t.Errorf("both protocols without a certificate: got %v, want a refusal", err)
	}
}

func TestServe_BadMessages_CloseWithoutIssue(t *testing.T) {
	ca := newCA(t)
	s := NewServer(func(context.Context, *Request) ([]byte, error) {
		t.Error("got a call of issue, want none")
		return nil, revoked.ErrForbidden
	})
	p := listen(t, certsOf(t, ca).ServerConfig(Protocol, "other"), s.Serve)
	for name, message := range map[string][]byte{
		"too long":  {0xff, 0xff, 0xff, 0xff},
		"empty":     {0, 0, 0, 0},
		"truncated": {0, 0, 0, 3, 0, 9, 1},
		"longer":    append([]byte{0, 0, 0, 9}, make([]byte, 9)...),
	} {
		pin := pki.Pin{Hash: pki.KeyHash(ca.Certificate())}
		c, err := tls.Dial("tcp", p.addr, pin.Config(Protocol))
		if err != nil {
			t.Fatal(err)
		}
		_, _ = c.Write(message)
		if n, err := c.Read(make([]byte, 1)); n != 0 || err == nil {
			t.Errorf("%s: got %d bytes, %v, want a closed connection", name, n, err)
		}
		_ = c.Close()
	}
}

// If the node disconnects, the context of issue is canceled.
func TestServe_NodeDisconnects_CancelsIssue(t *testing.T) {
	ca := newCA(t)
	began, ended := make(chan struct{}), make(chan error, 1)
	s := NewServer(func(ctx context.Context, _ *Request) ([]byte, error) {
		close(began)
		<-ctx.Done()
		ended <- ctx.Err()
		return nil, ctx.Err()
	})
	p := listen(t, certsOf(t, ca).ServerConfig(Protocol, "other"), s.Serve)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-began; cancel() }()
	if _, err := applicant(t, tokenOf(ca)).Ask(ctx, p.addr); err == nil {
		t.Error("got a certificate, want none")
	}
	select {
	case err := <-ended:
		if !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, want %v", err, context.Canceled)
		}
	case <-time.After(10 * time.Second): // less than issueTimeout
		t.Error("got issue running after the node disconnected, want it canceled")
	}
}

func FuzzDecode(f *testing.F) {
	r := Request{Node: "node4", CSR: []byte("csr"), TokenKey: []byte("key"), Proof: []byte("proof")}
	b, err := r.encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b[4:])
	f.Add([]byte{0, 0, 0, 1, 0, 1, 'x', 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, err := decodeRequest(b); err == nil {
			again, err := r.encode()
			if len(b) <= maxMessage && (err != nil || !bytes.Equal(again[4:], b)) {
				t.Errorf("request: got %x, %v, want %x", again, err, b)
			}
		}
		if a, err := decodeAnswer(b); err == nil {
			again, err := a.encode()
			if len(b) <= maxMessage && (err != nil || !bytes.Equal(again[4:], b)) {
				t.Errorf("answer: got %x, %v, want %x", again, err, b)
			}
		}
	})
}
