package certify_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"log/slog"
	"slices"
	"testing"
	"time"

	"revoked"
	"revoked/fsm/command"
	"revoked/internal/jointoken"
	"revoked/node/certify"
	"revoked/node/nodepb"
	"revoked/transport/enroll"
	"revoked/transport/pki"
)

// A state is a certify.State in memory.
type state struct {
	admissions map[string]revoked.Admission
	tokens     []revoked.JoinToken
	next       func() // applies a log entry after the next read; nil: no entry
}

func (s *state) apply() {
	if next := s.next; next != nil {
		s.next = nil
		next()
	}
}

func (s *state) Admission(node string) (revoked.Admission, bool) {
	defer s.apply()
	a, ok := s.admissions[node]
	return a, ok
}

func (s *state) JoinTokens() []revoked.JoinToken {
	defer s.apply()
	return slices.Clone(s.tokens)
}

// A bench is a Signer of a leader, with the operations that the Signer has committed.
type bench struct {
	certify.Signer
	state
	ca        *pki.CA
	members   map[string]bool
	committed []*command.Op
	refuse    error // error of each commit; nil: success
	barriers  int
}

func newBench(t *testing.T) *bench {
	t.Helper()
	ca, err := pki.NewCA("test CA", time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	b := &bench{ca: ca, members: map[string]bool{"node1": true},
		state: state{admissions: map[string]revoked.Admission{}}}
	b.Signer = certify.Signer{
		NodeID: "node1", CA: ca, Log: slog.New(slog.DiscardHandler), Now: time.Now, State: &b.state,
		IsMember: func(node string) bool { return b.members[node] },
		Leads:    func() bool { return true },
		Current:  func(context.Context) error { b.barriers++; return nil },
		Commit: func(_ context.Context, op *command.Op) error {
			b.committed = append(b.committed, op)
			return b.refuse
		},
	}
	return b
}

// token adds a join token to the state.
func (b *bench) token(change func(*revoked.JoinToken)) jointoken.Token {
	t := jointoken.New(pki.KeyHash(b.ca.Certificate()))
	row := revoked.JoinToken{ID: "t", Hash: jointoken.Digest(t.PublicKey()), HasKey: true,
		ExpiresAt: revoked.TimeOf(time.Now().Add(10 * time.Minute))}
	if change != nil {
		change(&row)
	}
	b.tokens = append(b.tokens, row)
	return t
}

// use marks the first token as used by node4. The admission of node4 gets the token id and the key.
func (b *bench) use(id string, key revoked.Digest) {
	b.tokens[0].UsedBy = "node4"
	b.admissions["node4"] = revoked.Admission{Node: "node4", State: revoked.Admitted, JoinToken: id, Key: key,
		ExpiresAt: b.tokens[0].ExpiresAt}
}

// keyOf returns the digest of the public key in a certificate request.
func keyOf(r *enroll.Request) revoked.Digest {
	csr, err := pki.ParseRequest(r.CSR)
	if err != nil {
		panic(err)
	}
	return csr.KeyHash
}

func request(t *testing.T, token jointoken.Token, node string) *enroll.Request {
	t.Helper()
	csr, _, err := pki.NewRequest(node)
	if err != nil {
		t.Fatal(err)
	}
	bound := []byte("binding")
	return &enroll.Request{Node: node, CSR: csr, TokenKey: token.PublicKey(), Binding: bound,
		Proof: token.SignEnrollment(node, csr, bound)}
}

func wantError(t *testing.T, what string, err, sentinel error, text string) {
	t.Helper()
	if !errors.Is(err, sentinel) || revoked.Detail(err) != text {
		t.Errorf("%s: got %v, want %v: %s", what, err, sentinel, text)
	}
}

func TestIssue_EachRefusal_SignsNothing(t *testing.T) {
	const (
		unproved = "join token: node4 did not prove that it holds the token"
		used     = "join token: another node or another key has used it"
	)
	for _, tt := range []struct {
		name     string
		change   func(*bench, *enroll.Request)
		sentinel error
		text     string
	}{
		{"bad name", func(_ *bench, r *enroll.Request) { r.Node = "../n" }, revoked.ErrInvalid,
			"node: want only A-Z a-z 0-9 . _ -"},
		{"another connection", func(_ *bench, r *enroll.Request) { r.Binding = []byte("another") },
			revoked.ErrForbidden, unproved},
		{"no binding", func(_ *bench, r *enroll.Request) { r.Binding = nil }, revoked.ErrForbidden, unproved},
		{"another request", func(_ *bench, r *enroll.Request) { r.CSR = bytes.Clone(r.CSR[1:]) },
			revoked.ErrForbidden, unproved},
		{"another key of a token", func(_ *bench, r *enroll.Request) {
			r.TokenKey = jointoken.New([32]byte{}).PublicKey()
		}, revoked.ErrForbidden, unproved},
		{"unknown token", func(b *bench, _ *enroll.Request) { b.tokens = nil }, revoked.ErrForbidden,
			"join token: unknown, deleted or expired: create another"},
		{"deleted token", func(b *bench, _ *enroll.Request) { b.tokens[0].DeletedAt = 1 }, revoked.ErrForbidden,
			"join token: unknown, deleted or expired: create another"},
		{"expired token", func(b *bench, _ *enroll.Request) { b.tokens[0].ExpiresAt = 1 }, revoked.ErrForbidden,
			"join token: unknown, deleted or expired: create another"},
		{"name of a member", func(b *bench, _ *enroll.Request) { b.members["node4"] = true }, revoked.ErrConflict,
			"node4 is a member: its certificate does not come from a join token"},
		{"used by another node", func(b *bench, _ *enroll.Request) { b.tokens[0].UsedBy = "node5" }, revoked.ErrForbidden,
			used},
		{"used by another key", func(b *bench, _ *enroll.Request) { b.use("t", revoked.Digest{1}) },
			revoked.ErrForbidden, used},
		{"used, with the admission of another token", func(b *bench, r *enroll.Request) { b.use("t2", keyOf(r)) },
			revoked.ErrForbidden, used},
		{"refused by the log", func(b *bench, _ *enroll.Request) { b.refuse = revoked.ErrTokenEnded }, revoked.ErrForbidden,
			"join token: unknown, deleted or expired: create another"},
	} {
		b := newBench(t)
		req := request(t, b.token(nil), "node4")
		tt.change(b, req)
		der, err := b.Issue(t.Context(), req)
		wantError(t, tt.name, err, tt.sentinel, tt.text)
		if der != nil || len(b.committed) > 0 && b.refuse == nil {
			t.Errorf("%s: got a certificate of %d bytes, %d commits, want none", tt.name, len(der), len(b.committed))
		}
	}
}

func TestIssue_ValidRequest_ExpiresWithTheToken(t *testing.T) {
	b := newBench(t)
	req := request(t, b.token(nil), "node4")
	der, err := b.Issue(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	if node, err := pki.NodeOf(cert); err != nil || node != "node4" || cert.Subject.CommonName != "node4" {
		t.Errorf("got %q, %v, subject %v, want node4", node, err, cert.Subject)
	}
	if end := b.tokens[0].ExpiresAt.Std(); cert.NotAfter.After(end) || cert.NotAfter.Before(end.Add(-time.Minute)) {
		t.Errorf("got expiry %v, want that of the token, %v", cert.NotAfter, end)
	}
	m := b.committed[0].GetEnrollNode()
	key := pki.KeyHash(cert)
	if m.GetNode() != "node4" || !bytes.Equal(m.GetKey(), key[:]) || m.GetSigner() != "node1" || b.barriers != 0 {
		t.Errorf("got %v, %d barriers, want the use for the key of the certificate", m, b.barriers)
	}
}

// A retry with the same node and key is proposed again. For a joined node, Apply returns the
// reason.
func TestIssue_UsedToken_RepeatIsCommitted(t *testing.T) {
	for name, change := range map[string]func(*bench, *enroll.Request){
		"same key": func(b *bench, r *enroll.Request) { b.use("t", keyOf(r)) },
		"joined": func(b *bench, _ *enroll.Request) {
			b.tokens[0].UsedBy = "node5"
			b.admissions["node4"] = revoked.Admission{Node: "node4", State: revoked.Joined}
		},
	} {
		b := newBench(t)
		req := request(t, b.token(nil), "node4")
		change(b, req)
		if der, err := b.Issue(t.Context(), req); err != nil || der == nil || len(b.committed) != 1 {
			t.Errorf("%s: got %v, %d commits, want a certificate after a commit", name, err, len(b.committed))
		}
	}
}

// The log entry of an earlier try of the same request may be applied between two reads of the
// state. A token may also expire after the signer has found it. In both cases, Apply decides.
func TestServeEnroll_StateChanges_ApplyDecides(t *testing.T) {
	for name, change := range map[string]func(*bench, revoked.Digest){
		"used by this request": func(b *bench, key revoked.Digest) {
			b.next = func() { b.use("t", key) }
		},
		"deleted": func(b *bench, _ revoked.Digest) {
			b.tokens[0].UsedBy, b.tokens[0].DeletedAt = "node4", 1
		},
		"expired": func(b *bench, _ revoked.Digest) {
			b.tokens[0].UsedBy, b.tokens[0].ExpiresAt = "node4", 1
		},
	} {
		b := newBench(t)
		b.refuse = revoked.ErrTokenEnded // any error but the one for a used token
		req := request(t, b.token(nil), "node4")
		change(b, keyOf(req))
		err := b.ServeEnroll(t.Context(), "node1", &nodepb.EnrollRequest{Node: "node4", Csr: req.CSR,
			TokenKey: req.TokenKey, Proof: req.Proof, Binding: req.Binding})
		if !errors.Is(err, b.refuse) || len(b.committed) != 1 {
			t.Errorf("%s: got %v, %d commits, want the error of 1 commit", name, err, len(b.committed))
		}
	}
}

// renewal returns what a member presents to renew its certificate.
func renewal(t *testing.T, b *bench, node string) (cert *x509.Certificate, csr []byte) {
	t.Helper()
	csr, _, err := pki.NewRequest(node)
	if err != nil {
		t.Fatal(err)
	}
	req, err := pki.ParseRequest(csr)
	if err != nil {
		t.Fatal(err)
	}
	der, err := b.ca.SignNode(node, req, time.Now().Add(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	if cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	b.members[node] = true
	b.admissions[node] = revoked.Admission{Node: node, State: revoked.Joined, Key: req.KeyHash, JoinToken: "t"}
	return cert, csr
}

func TestRenew_EachRefusal_SignsNothing(t *testing.T) {
	const (
		noMember = "node4 is not a member with an admission"
		otherKey = "certificate of node4: key does not match its admission"
	)
	change := func(f func(*revoked.Admission)) func(*bench) {
		return func(b *bench) {
			a := b.admissions["node4"]
			f(&a)
			b.admissions["node4"] = a
		}
	}
	for _, tt := range []struct {
		name     string
		change   func(*bench)
		sentinel error
		text     string
	}{
		{"no CA key", func(b *bench) { b.CA = nil }, revoked.ErrUnprocessable, "node1 has no cluster_ca_key"},
		{"removed", func(b *bench) {
			delete(b.members, "node4")
			b.admissions["node4"] = revoked.Admission{Node: "node4", State: revoked.Barred}
		}, revoked.ErrForbidden, noMember},
		{"left", func(b *bench) { delete(b.members, "node4"); delete(b.admissions, "node4") },
			revoked.ErrForbidden, noMember},
		{"enrolled only", func(b *bench) {
			delete(b.members, "node4")
			change(func(a *revoked.Admission) { a.State = revoked.Admitted })(b)
		}, revoked.ErrForbidden, noMember},
		{"barred", change(func(a *revoked.Admission) { a.State = revoked.Barred }), revoked.ErrForbidden, noMember},
		{"withdrawn", change(func(a *revoked.Admission) { a.State = revoked.Withdrawn }), revoked.ErrForbidden, noMember},
		{"no admission", func(b *bench) { delete(b.admissions, "node4") }, revoked.ErrForbidden, noMember},
		{"admitted by name", change(func(a *revoked.Admission) { a.Key = revoked.Digest{} }), revoked.ErrForbidden, otherKey},
		{"another key", change(func(a *revoked.Admission) { a.Key = revoked.Digest{1} }), revoked.ErrForbidden, otherKey},
	} {
		b := newBench(t)
		cert, csr := renewal(t, b, "node4")
		tt.change(b)
		der, _, err := b.Renew(t.Context(), "node4", cert, csr)
		wantError(t, tt.name, err, tt.sentinel, tt.text)
		if der != nil {
			t.Errorf("%s: got a certificate, want none", tt.name)
		}
		if (tt.name == "removed" || tt.name == "left") && b.barriers != 0 {
			t.Errorf("%s: got %d read barriers, want none", tt.name, b.barriers)
		}
	}
	b := newBench(t)
	cert, _ := renewal(t, b, "node4")
	_, other := renewal(t, b, "node5")
	_, _, err := b.Renew(t.Context(), "node4", cert, other)
	wantError(t, "request with another key", err, revoked.ErrForbidden,
		"certificate request of node4: key does not match its admission")
	_, _, err = b.Renew(t.Context(), "node4", cert, []byte("x"))
	if !errors.Is(err, revoked.ErrInvalid) {
		t.Errorf("malformed request: got %v, want %v", err, revoked.ErrInvalid)
	}
}

// A node requests a renewal as soon as it is a member, but the signer may not have applied the join
// yet.
func TestRenew_SignerIsBehind_CatchesUp(t *testing.T) {
	for name, state := range map[string]revoked.AdmissionState{
		"before the join": revoked.Admitted, "after the join": revoked.Joined,
	} {
		b := newBench(t)
		cert, csr := renewal(t, b, "node4")
		now := b.admissions["node4"]
		before := now
		before.State, before.ExpiresAt = state, revoked.TimeOf(time.Now().Add(time.Minute))
		b.admissions["node4"] = before
		delete(b.members, "node4")
		b.Current = func(context.Context) error {
			b.admissions["node4"], b.members["node4"] = now, true
			return nil
		}
		if der, _, err := b.Renew(t.Context(), "node4", cert, csr); err != nil || der == nil {
			t.Errorf("%s: got %v, want a certificate", name, err)
		}
	}
}

func TestRenew_Member_KeepsItsKey(t *testing.T) {
	b := newBench(t)
	cert, csr := renewal(t, b, "node4")
	der, ca, err := b.Renew(t.Context(), "node4", cert, csr)
	if err != nil {
		t.Fatal(err)
	}
	got, err := x509.ParseCertificate(der)
	if err != nil || pki.KeyHash(got) != pki.KeyHash(cert) || !got.NotAfter.Equal(b.ca.Certificate().NotAfter) {
		t.Errorf("got %v, expiry %v, want the same key and the CA's expiry, which is earlier", err, got.NotAfter)
	}
	if want := pki.KeyHash(b.ca.Certificate()); ca != want {
		t.Errorf("got CA %x, want %x", ca, want)
	}
	if der, ca, err = b.Renew(t.Context(), "node4", cert, nil); err != nil || der != nil || ca == [32]byte{} {
		t.Errorf("without a request: got %d bytes, CA %x, %v, want the hash of the CA only", len(der), ca, err)
	}
}
