package certify

import (
	"context"
	"crypto/x509"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"revoked"
	"revoked/fsm/command"
	"revoked/internal/jointoken"
	"revoked/node/nodepb"
	"revoked/transport/enroll"
	"revoked/transport/pki"
)

// Lifetime is the validity of a renewed certificate. A first certificate expires with its join
// token.
const Lifetime = 90 * 24 * time.Hour

// State is the part of *fsm.FSM that holds admissions.
type State interface {
	Admission(node string) (revoked.Admission, bool)
	JoinTokens() []revoked.JoinToken
}

// A Signer signs the certificates of nodes. Its methods may be called concurrently.
type Signer struct {
	NodeID string
	CA     *pki.CA // nil: this node cannot sign
	Log    *slog.Logger
	Now    func() time.Time
	State  State

	IsMember func(node string) bool
	Leads    func() bool
	// Current blocks until State contains every change that was acknowledged before the call.
	Current func(context.Context) error
	// Commit proposes an operation of the cluster, if this node leads.
	Commit func(context.Context, *command.Op) error
	// CallLeader makes a PathEnroll call to the leader, which is another member. It returns an error
	// if the leader does not support that path.
	CallLeader func(context.Context, *nodepb.EnrollRequest) error
}

// Issue returns the DER of a first certificate. It expires with the join token, so the certificate
// of a node that never joins is soon useless.
//
// Errors: ErrForbidden, ErrConflict for the name of a member, ErrInvalid, ErrNoLeader,
// ErrOutcomeUnknown. The node may retry after the last two.
func (s *Signer) Issue(ctx context.Context, r *enroll.Request) ([]byte, error) {
	req := &nodepb.EnrollRequest{Node: r.Node, Csr: r.CSR, TokenKey: r.TokenKey, Proof: r.Proof, Binding: r.Binding}
	csr, err := check(req)
	if err != nil {
		return nil, err
	}
	t, err := s.find(ctx, jointoken.Digest(r.TokenKey))
	if err != nil {
		return nil, err
	}
	if s.Leads() {
		err = s.use(ctx, req, csr, s.NodeID)
	} else {
		err = s.CallLeader(ctx, req)
	}
	if err != nil {
		return nil, err
	}
	der, err := s.CA.SignNode(r.Node, csr, t.ExpiresAt.Std())
	if err != nil {
		return nil, err
	}
	s.Log.Info("issued the first certificate of a node",
		"peer", r.Node, "join_token", t.ID, "not_after", t.ExpiresAt.Std())
	return der, nil
}

// check verifies the parts of a request that can be verified without the state.
func check(r *nodepb.EnrollRequest) (*pki.Request, error) {
	if err := revoked.CheckNodeID(r.Node); err != nil {
		return nil, err
	}
	if len(r.Binding) == 0 || !jointoken.VerifyEnrollment(r.TokenKey, r.Proof, r.Node, r.Csr, r.Binding) {
		return nil, fmt.Errorf("%w: join token: %s did not prove that it holds the token", revoked.ErrForbidden, r.Node)
	}
	csr, err := pki.ParseRequest(r.Csr)
	if err != nil {
		return nil, fmt.Errorf("%w: %v", revoked.ErrInvalid, err)
	}
	return csr, nil
}

// find returns the join token with that digest. An unknown digest costs at most one read barrier,
// and no log entry while this node holds a read lease.
func (s *Signer) find(ctx context.Context, digest revoked.Digest) (revoked.JoinToken, error) {
	now := revoked.TimeOf(s.Now())
	for behind := true; ; behind = false {
		list := s.State.JoinTokens()
		at := slices.IndexFunc(list, func(t revoked.JoinToken) bool { return t.HasKey && t.Hash == digest })
		switch {
		case at >= 0 && list[at].DeletedAt == 0 && now < list[at].ExpiresAt:
			return list[at], nil
		case at >= 0 || !behind:
			return revoked.JoinToken{}, revoked.ErrTokenEnded
		}
		if err := s.Current(ctx); err != nil {
			return revoked.JoinToken{}, err
		}
	}
}

// use records in the log that the token is used for the node and the key. This node must lead. It
// also checks Raft's configuration, because a new member may be there before it is in the state.
func (s *Signer) use(ctx context.Context, r *nodepb.EnrollRequest, csr *pki.Request, signer string) error {
	if s.IsMember(r.Node) {
		return fmt.Errorf("%w: %s is a member: its certificate does not come from a join token", revoked.ErrConflict, r.Node)
	}
	if err := s.checkUse(r.Node, jointoken.Digest(r.TokenKey), csr.KeyHash); err != nil {
		return err
	}
	op := command.EnrollNodeOp(r.Node, jointoken.Digest(r.TokenKey), csr.KeyHash, signer)
	return s.Commit(ctx, command.Via(op, signer))
}

// checkUse returns an error if the state already shows that Apply would always refuse this use of
// the token. So a retry with a stolen token costs no log entry. A used token stays used, and an
// admission that has ended does not come back, unless the node has joined. For a node that has
// joined, and for an ended token, Apply returns the reason.
func (s *Signer) checkUse(node string, token, key revoked.Digest) error {
	list := s.State.JoinTokens() // read before the admission, so that the admission is at least as new
	a, _ := s.State.Admission(node)
	at := slices.IndexFunc(list, func(t revoked.JoinToken) bool { return t.Hash == token })
	if at < 0 || a.State == revoked.Joined {
		return nil
	}
	switch t := list[at]; {
	case t.UsedBy == "" || t.DeletedAt != 0 || revoked.TimeOf(s.Now()) >= t.ExpiresAt:
		return nil
	case t.UsedBy != node || a.JoinToken != t.ID || a.Key != key:
		return revoked.ErrTokenUsed
	}
	return nil
}

// ServeEnroll records the use of a token on behalf of peer, the member that signs the certificate.
// This node trusts the peer only for the binding of the node's connection, and checks the proof
// again.
func (s *Signer) ServeEnroll(ctx context.Context, peer string, r *nodepb.EnrollRequest) error {
	switch {
	case !s.IsMember(peer):
		return fmt.Errorf("%w: not a member of this cluster", revoked.ErrForbidden)
	case !s.Leads():
		return fmt.Errorf("%w: this node does not lead", revoked.ErrNoLeader)
	}
	csr, err := check(r)
	if err != nil {
		return err
	}
	return s.use(ctx, r, csr, peer)
}

// Renew returns the DER of a certificate for the member peer and the hash of the signing CA's key.
// The current certificate of peer is cert. If der, the certificate request, is empty, Renew returns
// only the hash.
//
// Errors: ErrUnprocessable if this node does not have the CA's key, ErrForbidden, ErrInvalid,
// ErrNoLeader.
func (s *Signer) Renew(ctx context.Context, peer string, cert *x509.Certificate, der []byte) ([]byte, [32]byte, error) {
	var none [32]byte
	if s.CA == nil {
		return nil, none, fmt.Errorf("%w: %s has no cluster_ca_key", revoked.ErrUnprocessable, s.NodeID)
	}
	notMember := fmt.Errorf("%w: %s is not a member with an admission", revoked.ErrForbidden, peer)
	key := revoked.Digest(pki.KeyHash(cert))
	// A removed node must not cause a read barrier. But a node with an open admission may be a new
	// member that this node has not seen yet.
	if a, _ := s.State.Admission(peer); !s.IsMember(peer) && (a.Key != key || !a.Open(revoked.TimeOf(s.Now()))) {
		return nil, none, notMember
	}
	if err := s.Current(ctx); err != nil {
		return nil, none, err
	}
	ca := pki.KeyHash(s.CA.Certificate())
	a, ok := s.State.Admission(peer)
	switch {
	case !s.IsMember(peer) || !ok || a.State != revoked.Joined:
		return nil, none, notMember
	case a.Key.IsZero() || a.Key != key:
		return nil, none, fmt.Errorf("%w: certificate of %s: key does not match its admission",
			revoked.ErrForbidden, peer)
	case len(der) == 0:
		return nil, ca, nil
	}
	csr, err := pki.ParseRequest(der)
	if err != nil {
		return nil, none, fmt.Errorf("%w: %v", revoked.ErrInvalid, err)
	}
	if a.Key != csr.KeyHash {
		return nil, none, fmt.Errorf("%w: certificate request of %s: key does not match its admission",
			revoked.ErrForbidden, peer)
	}
	end := s.Now().Add(Lifetime)
	if der, err = s.CA.SignNode(peer, csr, end); err == nil {
		s.Log.Info("renewed the certificate of a member", "peer", peer, "not_after", end)
	}
	return der, ca, err
}
