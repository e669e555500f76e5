package certify

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"revoked/node/nodepb"
	"revoked/transport/pki"
)

// A renewal is a Renewer of node4, and a member that signs for it with a CA.
type renewal struct {
	Renewer
	ca       *pki.CA // the CA that signs
	requests int     // number of calls with a certificate request
	during   func()  // called before the response
}

// newRenewal returns a renewer with a certificate of the first CA. The renewer trusts all of cas.
func newRenewal(t *testing.T, validFor time.Duration, cas ...*pki.CA) *renewal {
	t.Helper()
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	cert, key, err := cas[0].IssueNode("node4", nil, validFor)
	if err != nil {
		t.Fatal(err)
	}
	var trusted []byte
	for _, ca := range cas {
		trusted = append(trusted, ca.CertPEM()...)
	}
	r := &renewal{ca: cas[0], during: func() {}}
	r.Files = Files{CA: path("ca.crt"), Cert: path("node.crt"), Key: path("node.key")}
	for name, b := range map[string][]byte{r.Files.CA: trusted, r.Files.Cert: cert, r.Files.Key: key} {
		if err := Write(name, b); err != nil {
			t.Fatal(err)
		}
	}
	if r.Certs, err = pki.LoadCerts(r.Files.CA, r.Files.Cert, r.Files.Key, nil); err != nil {
		t.Fatal(err)
	}
	r.NodeID, r.Log, r.Now = "node4", slog.New(slog.DiscardHandler), time.Now
	r.IsMember = func(string) bool { return true }
	r.Members = func() []string { return []string{"node1:1"} }
	r.Call = func(_ context.Context, _ string, req *nodepb.RenewRequest, resp *nodepb.RenewResponse) error {
		hash := pki.KeyHash(r.ca.Certificate())
		resp.CaKey = hash[:]
		if len(req.Csr) == 0 {
			return nil
		}
		r.requests++
		csr, err := pki.ParseRequest(req.Csr)
		if err != nil {
			return err
		}
		r.during()
		resp.Certificate, err = r.ca.SignNode("node4", csr, time.Now().Add(Lifetime))
		return err
	}
	return r
}

func newCA(t *testing.T) *pki.CA {
	t.Helper()
	ca, err := pki.NewCA("CA", 2*Lifetime)
	if err != nil {
		t.Fatal(err)
	}
	return ca
}

func TestStep_WhenDue_Renews(t *testing.T) {
	ca, next := newCA(t), newCA(t)
	for name, tt := range map[string]struct {
		validFor time.Duration
		later    time.Duration // time that has passed since the certificate was issued
		signer   *pki.CA
		trusted  []*pki.CA
		want     bool
	}{
		"first certificate":    {time.Hour, 0, ca, nil, true},
		"longest first":        {30 * 24 * time.Hour, 0, ca, nil, true},
		"new":                  {Lifetime, 0, ca, nil, false},
		"before two thirds":    {Lifetime, Lifetime*2/3 - time.Hour, ca, nil, false},
		"after two thirds":     {Lifetime, Lifetime*2/3 + time.Hour, ca, nil, true},
		"next CA, trusted":     {Lifetime, 0, next, []*pki.CA{next}, true},
		"next CA, not trusted": {Lifetime, 0, next, nil, false},
	} {
		r := newRenewal(t, tt.validFor, append([]*pki.CA{ca}, tt.trusted...)...)
		r.ca = tt.signer
		r.Now = func() time.Time { return time.Now().Add(tt.later) }
		before, _ := os.ReadFile(r.Files.Cert)
		err := r.step(t.Context())
		after, _ := os.ReadFile(r.Files.Cert)
		if err != nil || bytes.Equal(before, after) == tt.want || (r.requests > 0) != tt.want {
			t.Errorf("%s: got %v, changed %t, %d requests, want changed %t",
				name, err, !bytes.Equal(before, after), r.requests, tt.want)
		}
		if from, to := r.Certs.Validity(); tt.want && to.Sub(from) < Lifetime {
			t.Errorf("%s: got a loaded certificate for %v, want the new one", name, to.Sub(from))
		}
	}
}

// An operator may replace the files while a member signs.
func TestStep_FilesReplacedMeanwhile_KeepsNewFiles(t *testing.T) {
	ca := newCA(t)
	r := newRenewal(t, time.Hour, ca)
	cert, key, err := ca.IssueNode("node4", nil, Lifetime)
	if err != nil {
		t.Fatal(err)
	}
	r.during = func() {
		if err := Write(r.Files.Key, key); err != nil {
			t.Error(err)
		}
		if err := Write(r.Files.Cert, cert); err != nil {
			t.Error(err)
		}
	}
	if err := r.step(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got, _ := os.ReadFile(r.Files.Cert); !bytes.Equal(got, cert) {
		t.Error("got another certificate, want the operator's certificate")
	}
}

// A certificate that this node would not load must not replace the one that it has.
func TestStep_UnusableCertificate_IsNotStored(t *testing.T) {
	r := newRenewal(t, time.Hour, newCA(t))
	r.ca = newCA(t)
	before, _ := os.ReadFile(r.Files.Cert)
	if err := r.step(t.Context()); err == nil {
		t.Error("certificate of an unknown CA: got success, want an error")
	}
	if after, _ := os.ReadFile(r.Files.Cert); !bytes.Equal(before, after) {
		t.Error("got another certificate, want the old certificate")
	}
}

// A CA that expires soon issues certificates with a short validity. Such a certificate must not be
// renewed again and again.
func TestStep_ShortRenewedCertificate_IsNotDueAgain(t *testing.T) {
	ca, err := pki.NewCA("CA", 24*time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	r := newRenewal(t, time.Hour, ca)
	for range 3 {
		if err := r.step(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if r.requests != 1 {
		t.Errorf("got %d renewals, want 1", r.requests)
	}
}
