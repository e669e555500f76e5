package node_test

import (
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"revoked"
	"revoked/fsm/command"
	"revoked/internal/jointoken"
	"revoked/node"
	"revoked/node/certify"
	"revoked/node/nodepb"
	"revoked/node/nodetest"
	"revoked/transport/enroll"
	"revoked/transport/pki"
)

// A newcomer is a node without a certificate of the cluster.
type newcomer struct {
	t   *testing.T
	c   *nodetest.Cluster
	m   *nodetest.Member
	key []byte
	csr []byte
}

func newNewcomer(t *testing.T, c *nodetest.Cluster, m *nodetest.Member) *newcomer {
	t.Helper()
	csr, key, err := pki.NewRequest(m.ID)
	if err != nil {
		t.Fatal(err)
	}
	return &newcomer{t, c, m, key, csr}
}

// enroll sends the request to a member until it decides.
func (n *newcomer) enroll(
	to *nodetest.Member, node string, token jointoken.Token,
) (got *enroll.Certificate, err error) {
	n.t.Helper()
	ask := enroll.Applicant{Node: node, Token: token, CSR: n.csr}
	n.c.Until("the member decides", func() bool {
		got, err = ask.Ask(n.t.Context(), to.ClusterAddr())
		return !errors.Is(err, revoked.ErrNoLeader) && !errors.Is(err, revoked.ErrOutcomeUnknown) &&
			(err == nil || !strings.Contains(err.Error(), "has not reported"))
	})
	return got, err
}

// files replaces the certificate that the kit made.
func (n *newcomer) files(got *enroll.Certificate) certify.Files {
	n.t.Helper()
	cert, err := pki.CheckIssued(got.CAPEM, n.key, got.DER, n.m.ID)
	if err != nil {
		n.t.Fatal(err)
	}
	for name, b := range map[string][]byte{"ca.pem": got.CAPEM, "node.pem": cert, "node-key.pem": n.key} {
		if err := certify.Write(filepath.Join(n.m.Dir, name), b); err != nil {
			n.t.Fatal(err)
		}
	}
	return filesOf(n.m)
}

func filesOf(m *nodetest.Member) certify.Files {
	path := func(name string) string { return filepath.Join(m.Dir, name) }
	return certify.Files{CA: path("ca.pem"), Cert: path("node.pem"), Key: path("node-key.pem")}
}

// A node with only a join token gets a certificate from a member with the CA's key. It joins with
// the enrolled key, and renews its certificate by itself.
func TestEnroll_JoinToken_NodeJoinsAndRenews(t *testing.T) {
	t.Parallel()
	var log logLines
	tokens, renew := map[string]string{}, map[string]*certify.Files{}
	c := nodetest.Start(t, nodetest.Options{Signers: 2, Log: log.handler(), Node: func(_ int, conf *node.Config) {
		conf.JoinToken, conf.Renew = tokens[conf.NodeID], renew[conf.NodeID]
	}})
	m, other := c.Add(), c.Add()
	text := joinToken(t, c, `{"ttl":"10m"}`)
	token := parseToken(t, text)
	n := newNewcomer(t, c, m)
	if _, err := n.enroll(c.Members[0], m.ID, token); err != nil {
		t.Fatal(err)
	}
	got, err := n.enroll(c.Members[1], m.ID, token) // a retry, at another member: one of them forwards
	if err != nil {
		t.Fatal(err)
	}
	thief := newNewcomer(t, c, other)
	for name, tt := range map[string]struct {
		to       int
		node     string
		token    jointoken.Token
		sentinel error
		text     string
	}{
		"another key": {0, m.ID, token, revoked.ErrForbidden, "join token: another node or another key has used it"},
		"another node": {1, other.ID, token, revoked.ErrForbidden,
			"join token: another node or another key has used it"},
		"a member": {0, "node1", token, revoked.ErrConflict,
			"node1 is a member: its certificate does not come from a join token"},
		"unknown": {1, other.ID, jointoken.New(token.CA()), revoked.ErrForbidden,
			"join token: unknown, deleted or expired: create another"},
		"another cluster": {0, other.ID, jointoken.New([32]byte{1}), pki.ErrOtherCA, pki.ErrOtherCA.Error()},
		"no CA key":       {2, other.ID, token, enroll.ErrNotOffered, enroll.ErrNotOffered.Error()},
	} {
		_, err := thief.enroll(c.Members[tt.to], tt.node, tt.token)
		if !errors.Is(err, tt.sentinel) || err.Error() != tt.text {
			t.Errorf("%s: got %v, want %s", name, err, tt.text)
		}
	}
	files := n.files(got)
	stolen, err := os.ReadFile(files.Cert)
	if err != nil {
		t.Fatal(err)
	}
	tokens[m.ID], renew[m.ID] = text, &files
	m.Start()
	mustJoin(t, m, c.Members[2])
	c.Until("the certificate is renewed", func() bool {
		return log.has("certificate of this node renewed", "node="+m.ID)
	})
	renewed, err := os.ReadFile(files.Cert)
	if err != nil || string(renewed) == string(stolen) {
		t.Fatalf("got %v, same %t, want another certificate", err, string(renewed) == string(stolen))
	}
	certs, err := pki.LoadCerts(files.CA, files.Cert, files.Key, nil)
	if err != nil || time.Until(certs.Expiry()) < 11*time.Minute {
		t.Errorf("got %v, end %v, want one that expires after the token", err, certs.Expiry())
	}
	r := adminCall(t, c.Leader(), "GET", "/v1/audit?kind=cluster.admit", "", 200)
	if !strings.Contains(r.Body, `"join_token":`) || !strings.Contains(r.Body, "certificate by node") {
		t.Errorf("got audit %s, want the token and the member that signed", r.Body)
	}
}

// A member of an older version could not apply the use of a token. The error contains its name.
func TestEnroll_OldMember_ErrorContainsItsName(t *testing.T) {
	t.Parallel()
	c := nodetest.Start(t, nodetest.Options{Signers: 3, Node: func(_ int, conf *node.Config) {
		if conf.NodeID == "node3" {
			conf.Announce(command.Enrollment - 1)
			conf.NonVoter, conf.CAKey = true, nil // it must not lead, and does not sign
		}
	}})
	m := c.Add()
	n := newNewcomer(t, c, m)
	token := parseToken(t, joinToken(t, c, `{}`))
	const want = "node3 runs version test, which does not support this operation; upgrade every member first"
	for _, to := range c.Members[:2] {
		if _, err := n.enroll(to, m.ID, token); !errors.Is(err, revoked.ErrUnprocessable) || err.Error() != want {
			t.Errorf("%s: got %v, want %s", to.ID, err, want)
		}
	}
	if _, err := n.enroll(c.Members[2], m.ID, token); !errors.Is(err, enroll.ErrNotOffered) {
		t.Errorf("old member: got %v, want %v", err, enroll.ErrNotOffered)
	}
}

// The admission is valid only for the key that was enrolled with the token. Another certificate for
// the same name, from the same CA, cannot use it to join.
func TestEnroll_OtherCertificate_DoesNotJoin(t *testing.T) {
	t.Parallel()
	c := nodetest.Start(t, nodetest.Options{Nodes: 1, Signers: 1})
	m := c.Add() // with a certificate that the kit made
	token := parseToken(t, joinToken(t, c, `{}`))
	if _, err := newNewcomer(t, c, m).enroll(c.Members[0], m.ID, token); err != nil {
		t.Fatal(err)
	}
	m.Start()
	want := "certificate of " + m.ID + ": key does not match its admission"
	if r := decidedJoin(m, c.Members[0]); r.Status != http.StatusForbidden || !strings.Contains(r.Body, want) {
		t.Errorf("got %d %s, want 403: %s", r.Status, r.Body, want)
	}
}

// The certificate of a removed node is valid until it expires, but cannot be renewed.
func TestRenew_RemovedNode_IsRefused(t *testing.T) {
	t.Parallel()
	c := nodetest.Start(t, nodetest.Options{Nodes: 1, Signers: 1})
	m := c.Add()
	token := parseToken(t, joinToken(t, c, `{}`))
	n := newNewcomer(t, c, m)
	got, err := n.enroll(c.Members[0], m.ID, token)
	if err != nil {
		t.Fatal(err)
	}
	n.files(got)
	m.Start()
	ask := func() *nodepb.RenewResponse {
		t.Helper()
		resp := new(nodepb.RenewResponse)
		c.Until("an answer", func() bool {
			err := m.Node.CallHost(t.Context(), c.Members[0].ClusterAddr(), nodepb.PathRenew,
				&nodepb.RenewRequest{Csr: n.csr}, resp)
			return err == nil && resp.Code != revoked.Code(revoked.ErrNoLeader)
		})
		return resp
	}
	want := m.ID + " is not a member with an admission"
	if resp := ask(); resp.Detail != want || len(resp.Certificate) != 0 {
		t.Errorf("before the join: got %q, want %q", resp.Detail, want)
	}
	mustJoin(t, m, c.Members[0])
	if resp := ask(); resp.Code != 0 || len(resp.Certificate) == 0 {
		t.Errorf("member: got %q, want a certificate", resp.Detail)
	}
	m.Stop()
	c.Until("the node is removed", func() bool {
		r := c.Leader().JSON(http.MethodPost, "/v1/cluster/remove", "admin",
			`{"node":"`+m.ID+`","force":true,"reason":"stolen"}`)
		return r.Status == http.StatusOK || r.Status == http.StatusNotFound
	})
	m.Wipe()
	m.Start() // the thief
	if resp := ask(); resp.Detail != want || len(resp.Certificate) != 0 {
		t.Errorf("removed: got %q, want %q", resp.Detail, want)
	}
}
