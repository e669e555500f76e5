package server

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"revoked"
	"revoked/cmd/revoked/internal/config"
	"revoked/internal/await"
	"revoked/internal/jointoken"
	"revoked/node/certify"
	"revoked/node/datadir"
	"revoked/transport/enroll"
	"revoked/transport/pki"
)

// An enrollKit has a CA, a token that names it, and the newcomer node4 with its data directory.
type enrollKit struct {
	t     *testing.T
	ca    *pki.CA
	token jointoken.Token
	dir   string
	log   await.Log
	hup   chan os.Signal
	files *config.Files // the files of the last enrollment
}

func newEnrollKit(t *testing.T) *enrollKit {
	t.Helper()
	ca, err := pki.NewCA("CA", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	return &enrollKit{t: t, ca: ca, token: jointoken.New(pki.KeyHash(ca.Certificate())),
		dir: filepath.Join(t.TempDir(), "data"), hup: make(chan os.Signal, 1)}
}

// member serves the cluster port of a node with a certificate of ca, and returns its address. issue
// is nil for a node that issues no certificates.
func (k *enrollKit) member(ca *pki.CA, issue func(context.Context, *enroll.Request) ([]byte, error)) string {
	k.t.Helper()
	cert, key, err := ca.IssueNode("node1", nil, time.Hour)
	if err != nil {
		k.t.Fatal(err)
	}
	path := func(name string) string { return filepath.Join(k.t.TempDir(), name) }
	files := certify.Files{CA: path("ca"), Cert: path("cert"), Key: path("key")}
	for name, b := range map[string][]byte{files.CA: ca.CertPEM(), files.Cert: cert, files.Key: key} {
		if err := certify.Write(name, b); err != nil {
			k.t.Fatal(err)
		}
	}
	certs, err := pki.LoadCerts(files.CA, files.Cert, files.Key, nil)
	if err != nil {
		k.t.Fatal(err)
	}
	protocol, serve := "", func(context.Context, *tls.Conn) {}
	if issue != nil {
		protocol, serve = enroll.Protocol, enroll.NewServer(issue).Serve
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		k.t.Fatal(err)
	}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			raw, err := l.Accept()
			if err != nil {
				return
			}
			running.Go(func() {
				defer raw.Close()
				c := tls.Server(raw, certs.ServerConfig(protocol, "revoked-frames/1"))
				if c.HandshakeContext(k.t.Context()) == nil {
					serve(k.t.Context(), c)
				}
			})
		}
	})
	k.t.Cleanup(func() { _ = l.Close(); running.Wait() })
	return l.Addr().String()
}

// sign issues a certificate, as a member with cluster_ca_key does.
func (k *enrollKit) sign(_ context.Context, r *enroll.Request) ([]byte, error) {
	req, err := pki.ParseRequest(r.CSR)
	if err != nil {
		return nil, err
	}
	return k.ca.SignNode(r.Node, req, time.Now().Add(time.Minute))
}

// refuse returns a function for a member that answers every request with err.
func refuse(err error) func(context.Context, *enroll.Request) ([]byte, error) {
	return func(context.Context, *enroll.Request) ([]byte, error) { return nil, err }
}

const own = "127.0.0.1:2" // cluster_advertise of node4

// config returns the configuration of node4.
func (k *enrollKit) config(join ...string) *config.Config {
	path := func(name string) string { return filepath.Join(k.dir, "tls", name) }
	return &config.Config{Settings: config.Settings{NodeID: "node4", DataDir: k.dir, Join: join, ClusterAdvertise: own,
		ClusterCA: path("ca.crt"), ClusterCert: path("node.crt"), ClusterKey: path("node.key")}}
}

// get runs the enrollment of node4.
func (k *enrollKit) get(ctx context.Context, join ...string) error {
	k.files = &config.Files{JoinToken: k.token.Text()}
	return getCertificate(ctx, k.config(join...), k.files, k.hup, k.log.Logger())
}

// applicant returns the applicant of node4, without addresses of other nodes.
func (k *enrollKit) applicant() *applicant {
	return newApplicant(k.config(), k.token, k.hup, k.log.Logger())
}

// read returns a file of the directory tls, or nil.
func (k *enrollKit) read(name string) []byte {
	b, err := os.ReadFile(filepath.Join(k.dir, "tls", name))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		k.t.Fatal(err)
	}
	return b
}

// A host may have left the cluster, or may belong to another cluster with this CA. After its
// refusal, the node calls the others.
func TestGetCertificate_OneHostRefuses_CallsOthers(t *testing.T) {
	k := newEnrollKit(t)
	other, err := pki.NewCA("other", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	wrong := k.member(k.ca, refuse(revoked.ErrTokenEnded))
	wrongIssue := k.member(k.ca, func(context.Context, *enroll.Request) ([]byte, error) { return []byte("x"), nil })
	noCA, foreign := k.member(k.ca, nil), k.member(other, k.sign)
	if err := k.get(t.Context(), wrong, wrongIssue, noCA, foreign, k.member(k.ca, k.sign)); err != nil {
		t.Fatalf("got %v, want the certificate of the last host", err)
	}
	parent := filepath.Dir(k.dir)
	var calls atomic.Int64 // number of requests to a member that knows no leader at first
	k.dir = filepath.Join(parent, "second")
	late := k.member(k.ca, func(ctx context.Context, r *enroll.Request) ([]byte, error) {
		if calls.Add(1) == 1 {
			return nil, revoked.ErrNoLeader
		}
		return k.sign(ctx, r)
	})
	if err := k.get(t.Context(), late, wrong); err != nil || calls.Load() != 2 {
		t.Fatalf("got %v, %d calls, want the certificate of the second call", err, calls.Load())
	}
	k.dir = filepath.Join(parent, "third")
	err = k.get(t.Context(), wrong, wrongIssue, noCA, foreign, own)
	first := "cannot get a certificate: " + wrong + ": " + revoked.Detail(revoked.ErrTokenEnded)
	for _, want := range []string{first, wrongIssue} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("no host is left: got %v, want %q", err, want)
		}
	}
	if !errors.Is(err, revoked.ErrForbidden) || k.read("node.crt") != nil || len(k.read("node.key")) == 0 {
		t.Errorf("no host is left: got %v, want %v, the key and no certificate", err, revoked.ErrForbidden)
	}
	if err = k.get(t.Context(), own); err == nil || !strings.Contains(err.Error(), "lists only this node") {
		t.Errorf("only its own address: got %v, want an error about join", err)
	}
}

// With another token, a node that has a certificate gets a new one for the same key.
func TestGetCertificate_AnotherToken_KeepsTheKey(t *testing.T) {
	k := newEnrollKit(t)
	signer := k.member(k.ca, k.sign)
	var seen [2][3][]byte
	for i := range seen {
		if err := k.get(t.Context(), signer); err != nil {
			t.Fatal(err)
		}
		seen[i] = [3][]byte{k.read("node.key"), k.read("node.crt"), k.read("used-token")}
		if k.files.JoinToken != k.token.Text() || bytes.Contains(seen[i][2], k.token.PublicKey()) {
			t.Error("got no token for the join, or a record with its key, want the token and a digest")
		}
		k.token = jointoken.New(k.token.CA())
	}
	if !bytes.Equal(seen[0][0], seen[1][0]) || bytes.Equal(seen[0][1], seen[1][1]) ||
		bytes.Equal(seen[0][2], seen[1][2]) {
		t.Error("another token: want the same key, another certificate and another record")
	}
}

// A node whose token is refused continues with its certificate and without the token. A join with
// the token would record a member without a key, which cannot renew.
func TestGetCertificate_Refused_KeepsTheCertificate(t *testing.T) {
	k := newEnrollKit(t)
	if err := k.get(t.Context(), k.member(k.ca, k.sign)); err != nil {
		t.Fatal(err)
	}
	was := [3][]byte{k.read("node.key"), k.read("node.crt"), k.read("used-token")}
	k.token = jointoken.New(k.token.CA())
	for i, refusal := range []error{
		fmt.Errorf("%w: node4 has joined already", revoked.ErrConflict), revoked.ErrTokenEnded, revoked.ErrTokenUsed,
	} {
		if err := k.get(t.Context(), k.member(k.ca, refuse(refusal))); err != nil {
			t.Fatalf("%v: got %v, want the old certificate", refusal, err)
		}
		if got := [3][]byte{k.read("node.key"), k.read("node.crt"), k.read("used-token")}; !slices.EqualFunc(
			got[:], was[:], bytes.Equal) {
			t.Errorf("%v: got other files, want them kept", refusal)
		}
		if k.log.Count("keeping the old one") != i+1 || k.files.JoinToken != "" {
			t.Errorf("%v: got no warning, or token %q, want a warning and no token", refusal, k.files.JoinToken)
		}
	}
	unusable := k.member(k.ca, func(context.Context, *enroll.Request) ([]byte, error) { return []byte("x"), nil })
	if err := k.get(t.Context(), unusable); !errors.Is(err, errWrongIssue) {
		t.Errorf("unusable certificate: got %v, want %v", err, errWrongIssue)
	}
	if err := os.Remove(filepath.Join(k.dir, "tls", "node.crt")); err != nil {
		t.Fatal(err)
	}
	if err := k.get(t.Context(), k.member(k.ca, refuse(revoked.ErrTokenEnded))); !errors.Is(err, revoked.ErrForbidden) {
		t.Errorf("no certificate: got %v, want %v", err, revoked.ErrForbidden)
	}
}

// The certificate for a second token of the same CA may expire before the node's current
// certificate.
func TestGetCertificate_NewExpiresEarlier_KeepsOld(t *testing.T) {
	k := newEnrollKit(t)
	validFor := 30 * time.Minute
	signer := k.member(k.ca, func(_ context.Context, r *enroll.Request) ([]byte, error) {
		req, err := pki.ParseRequest(r.CSR)
		if err != nil {
			return nil, err
		}
		return k.ca.SignNode(r.Node, req, time.Now().Add(validFor))
	})
	var seen [3][2][]byte
	for i := range seen {
		if err := k.get(t.Context(), signer); err != nil || k.files.JoinToken == "" {
			t.Fatalf("got %v, token %q, want a certificate and the token", err, k.files.JoinToken)
		}
		seen[i] = [2][]byte{k.read("node.crt"), k.read("used-token")}
		k.token = jointoken.New(k.token.CA())
		validFor = []time.Duration{time.Minute, 40 * time.Minute, 0}[i]
	}
	if !bytes.Equal(seen[0][0], seen[1][0]) || bytes.Equal(seen[0][1], seen[1][1]) {
		t.Error("shorter certificate: want the longer one kept, and another record")
	}
	if bytes.Equal(seen[1][0], seen[2][0]) {
		t.Error("longer certificate: got the old one, want the new one")
	}
}

// A stop between two writes must leave files that the node can use, even if the CA is another one.
func TestStore_EachWriteFails_NodeHasACertificate(t *testing.T) {
	next, err := pki.NewCA("next", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	for n, done := 0, false; !done; n++ {
		k := newEnrollKit(t)
		if err := k.get(t.Context(), k.member(k.ca, k.sign)); err != nil {
			t.Fatal(err)
		}
		key := k.read("node.key")
		csr, err := pki.RequestFor("node4", key)
		if err != nil {
			t.Fatal(err)
		}
		req, err := pki.ParseRequest(csr)
		if err != nil {
			t.Fatal(err)
		}
		der, err := next.SignNode("node4", req, time.Now().Add(30*time.Minute))
		if err != nil {
			t.Fatal(err)
		}
		got, err := checkIssued(next.CertPEM(), key, der, "node4")
		if err != nil {
			t.Fatal(err)
		}
		a := k.applicant()
		writes := 0
		a.write = func(name string, b []byte) error {
			if writes++; writes > n {
				return errFull
			}
			return certify.Write(name, b)
		}
		err = a.store(got)
		if done = err == nil; !done && !errors.Is(err, errFull) {
			t.Fatal(err)
		}
		if !a.hasCertificate() {
			t.Errorf("after %d writes: got no usable certificate, want one", n)
		}
		if done && (n < 3 || !bytes.Equal(k.read("node.crt"), got.cert) || !bytes.Equal(k.read("ca.crt"), got.ca)) {
			t.Errorf("after %d writes: got other files, want the new CA and its certificate", n)
		}
	}
}

var errFull = errors.New("disk is full")

// A full disk often has room for a small file, or for an empty one.
func TestPrepare_LittleRoom_ReturnsError(t *testing.T) {
	k := newEnrollKit(t)
	a := k.applicant()
	a.write = func(name string, b []byte) error {
		if len(b) > 1024 {
			return errFull
		}
		return certify.Write(name, b)
	}
	if _, err := a.prepare(); !errors.Is(err, errFull) || !strings.Contains(err.Error(), "the join token was not used") {
		t.Errorf("got %v, want %v", err, errFull)
	}
	a.write = certify.Write
	if _, err := a.prepare(); err != nil || k.read("probe") != nil {
		t.Errorf("got %v, probe of %d bytes, want no probe left", err, len(k.read("probe")))
	}
}

// Without the lock, two processes with one data directory would request certificates for two keys.
func TestGetCertificate_DuringEnrollment_HoldsLock(t *testing.T) {
	k := newEnrollKit(t)
	held := make(chan error, 1)
	signer := k.member(k.ca, func(ctx context.Context, r *enroll.Request) ([]byte, error) {
		held <- k.get(ctx, "127.0.0.1:1") // the second process
		return k.sign(ctx, r)
	})
	if err := k.get(t.Context(), signer); err != nil {
		t.Fatal(err)
	}
	want := "data directory " + k.dir + " is in use by another process: " +
		"stop that process, or set another data_dir for this node"
	err := await.Receive(t, held, "the second process")
	if !errors.Is(err, revoked.ErrConflict) || revoked.Detail(err) != want {
		t.Errorf("got %v, want %s", err, want)
	}
	id, err := datadir.Open(k.dir, "node4", false) // the later start in this process
	if err != nil {
		t.Fatalf("got %v, want the lock free after the enrollment", err)
	}
	if err := id.Close(); err != nil {
		t.Error(err)
	}
}

// A start that fails later must not have used up the token.
func TestGetCertificate_UnusableDataDir_SendsNothing(t *testing.T) {
	k := newEnrollKit(t)
	signer := k.member(k.ca, func(context.Context, *enroll.Request) ([]byte, error) {
		t.Error("got a request, want none")
		return nil, revoked.ErrTokenEnded
	})
	for name, tt := range map[string]struct{ identity, want string }{
		"another node": {`{"node_id":"node5","instance":"a"}`, `wrong node (got "node5", want node_id "node4")`},
		"has left":     {`{"node_id":"node4","instance":"a","left":true,"cluster_id":"c"}`, "use --rejoin"},
		"damaged":      {`{}`, "node id or instance is missing"},
	} {
		if err := os.MkdirAll(k.dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(k.dir, "identity.json"), []byte(tt.identity), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := k.get(t.Context(), signer); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: got %v, want %q", name, err, tt.want)
		}
	}
}

// SIGHUP makes the node send its request immediately. The pause between two rounds grows to
// seconds.
func TestGetCertificate_SIGHUP_RequestsAgain(t *testing.T) {
	k := newEnrollKit(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- k.get(ctx, "127.0.0.1:1") }()
	k.log.Wait(t, "cannot obtain a certificate yet")
	k.hup <- syscall.SIGHUP
	k.log.Wait(t, "requesting the certificate again after SIGHUP")
	cancel()
	if err := await.Receive(t, done, "the end"); err != nil {
		t.Errorf("got %v, want nil at the end of the context", err)
	}
}

// A stop of the process must not hide that the disk failed.
func TestGetCertificate_DiskFailsDuringStop_IsReported(t *testing.T) {
	k := newEnrollKit(t)
	if err := os.MkdirAll(k.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(k.dir, "tls"), nil, 0o600); err != nil { // a file, not a directory
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := k.get(ctx, "127.0.0.1:1"); err == nil || !strings.Contains(err.Error(), "the join token was not used") {
		t.Errorf("got %v, want the error of the directory", err)
	}
}
