package roster

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"revoked"
	"revoked/fsm/command"
	"revoked/internal/jointoken"
	"revoked/node/nodepb"
)

// admissionVersion is the version of the operations that record admissions.
const admissionVersion = 2

// usesVersion2 reports whether the log contains commands of version 2. Every member then supports
// them, because an older program would have stopped at them. So a member that has not reported, or
// that reports a lower version, is not treated as old.
func (l *local) usesVersion2() bool { return l.FSM.Version() >= admissionVersion }

// isOld reports whether the member's last hello shows that it does not support commands of version
// 2.
func (p *peerView) isOld() bool { return p.hello != nil && max(p.hello.Commands, 1) < admissionVersion }

// A presented holds the join token that a joining node presents, and the key of its certificate.
// The zero value means no token and an unknown key.
type presented struct {
	token string // token in plain text, from a node older than command.KeyTokens
	key   []byte // public key of a token whose proof has been verified

	certificate revoked.Digest // digest of the public key of the node's certificate; zero: unknown
}

// joinOp returns the operation that uses up the admission of node or the presented token.
func (p presented) joinOp(node string) *command.Op {
	switch {
	case p.key != nil:
		return command.JoinWithKeyOp(node, jointoken.Digest(p.key))
	case p.token != "":
		return command.JoinNodeOp(node, revoked.DigestToken(p.token))
	}
	return command.JoinNodeOp(node, revoked.Digest{})
}

// presentedBy returns the join token of a request. It returns ErrForbidden unless the token's proof
// is valid for the node and the instance in req.Hello and for req.Binding.
func presentedBy(req *nodepb.JoinRequest) (p presented, err error) {
	h := req.Hello
	copy(p.certificate[:], req.CertificateKey)
	switch {
	case jointoken.HasKey(req.Token):
		return presented{}, fmt.Errorf("%w: join token: %s runs version %s, which sends the token in plain text; "+
			"upgrade the node and delete the token", revoked.ErrForbidden, h.NodeId, h.Version)
	case len(req.TokenKey) == 0 && len(req.TokenProof) == 0:
		p.token = req.Token
		return p, nil
	case len(req.Binding) == 0 || !jointoken.VerifyJoin(req.TokenKey, req.TokenProof, h.NodeId, h.Instance, req.Binding):
		return presented{}, fmt.Errorf("%w: join token: %s did not prove that it holds the token",
			revoked.ErrForbidden, h.NodeId)
	}
	p.key = req.TokenKey
	return p, nil
}

// errOldToken is returned by callJoin if the called member does not support join tokens with a key.
var errOldToken = fmt.Errorf("%w: join token", revoked.ErrUnprocessable)

// callJoin requests admission of this node from the node at host, which sent h. A join token with a
// key never leaves this node: the request proves that this node has the token. The proof is valid
// only on its connection.
func (j *joiner) callJoin(ctx context.Context, host string, h *nodepb.Hello, resp proto.Message) error {
	own := j.Hello()
	if j.JoinToken == "" || jointoken.IsOlder(j.JoinToken) {
		return j.Call(ctx, host, h.NodeId, nodepb.PathJoin, &nodepb.JoinRequest{Hello: own, Token: j.JoinToken}, resp)
	}
	token, err := jointoken.Parse(j.JoinToken)
	switch {
	case err != nil:
		return fmt.Errorf("%w: %v", revoked.ErrUnprocessable, err)
	case h.Commands < command.KeyTokens:
		return fmt.Errorf("%w: %s runs version %s, which does not support join tokens of this form; "+
			"upgrade it to version %s", errOldToken, h.NodeId, h.Version, j.Version)
	}
	return j.CallBound(ctx, host, h.NodeId, nodepb.PathJoin, func(binding []byte) proto.Message {
		return &nodepb.JoinRequest{Hello: own, TokenKey: token.PublicKey(),
			TokenProof: token.SignJoin(own.NodeId, own.Instance, binding)}
	}, resp)
}

// useAdmission uses up the admission of the node that sent h, or its join token. It returns
// ErrForbidden if the node is not admitted. A node with the name of a current member needs neither:
// it is a new instance that replaces the old one. But a barred name is always refused.
func (t *turn) useAdmission(ctx context.Context, h *nodepb.Hello, token presented) error {
	old := t.oldMember()
	if err := t.checkVersion(h, old != nil); err != nil {
		return err
	}
	if instanceOf(t.conf, h.NodeId) != "" {
		if a, ok := t.FSM.Admission(h.NodeId); ok && a.State == revoked.Barred {
			return revoked.NotAdmittedError(h.NodeId, true)
		}
		return nil
	}
	if token.key != nil { // a later deletion of the token compares the node with the recorded members
		if err := t.note(); err != nil {
			return err
		}
	}
	// Only an open admission is checked here. Without one, Apply checks whether a first certificate
	// with another key may be valid for the name.
	if a, _ := t.FSM.Admission(h.NodeId); a.Open(t.Clock.Stamp()) {
		if err := token.checkKey(&a); err != nil {
			return err
		}
	}
	var err error
	if old == nil {
		err = t.Commit(ctx, command.Via(token.joinOp(h.NodeId), h.NodeId))
		if errors.Is(err, revoked.ErrUnprocessable) {
			old = t.oldMember() // the member may have reported since
		}
	}
	if old == nil {
		return err
	}
	if node := nodeOf(old.server.ID); t.unenforced != node {
		t.Log.Warn("admission is not enforced", "node", node, "version", old.hello.Version)
		t.unenforced = node
	}
	return nil
}

// checkKey returns ErrForbidden if the admission requires a key other than that of the node's
// certificate.
func (p presented) checkKey(a *revoked.Admission) error {
	if a.Key.IsZero() || a.Key == p.certificate {
		return nil
	}
	return fmt.Errorf("%w: certificate of %s: key does not match its admission",
		revoked.ErrForbidden, a.Node)
}

// checkUsed checks the admission that useAdmission has used. Before useAdmission committed its
// operation, an administrator may have ended the admission, or another key may have used a join
// token for the name.
func (t *turn) checkUsed(h *nodepb.Hello, token presented) error {
	a, ok := t.FSM.Admission(h.NodeId)
	switch {
	case !ok || instanceOf(t.conf, h.NodeId) != "":
		return nil
	case a.State != revoked.Joined:
		return revoked.NotAdmittedError(h.NodeId, a.State == revoked.Barred)
	}
	return token.checkKey(&a)
}

// checkVersion returns an error if the node that sent h would stop at an entry of the log. If mixed
// is true, a member is too old for such entries too, so the leader proposes none.
func (t *turn) checkVersion(h *nodepb.Hello, mixed bool) error {
	switch {
	case max(h.Commands, 1) >= max(admissionVersion, t.FSM.Version()) || mixed:
		return nil
	case !t.usesVersion2() && t.peers.inGracePeriod(time.Now()):
		return fmt.Errorf("%w: the leader is new and has no report from all members yet", revoked.ErrNoLeader)
	}
	return fmt.Errorf("%w: %s runs version %s, which does not support the operations of this cluster: upgrade it first",
		revoked.ErrUnprocessable, h.NodeId, h.Version)
}

// oldMember returns a member that does not support commands of version 2, or nil. If the log has
// such commands, no member is old, regardless of its reports.
func (c *changes) oldMember() *peerView {
	if c.usesVersion2() {
		return nil
	}
	for _, p := range c.views() {
		if p.isOld() {
			return &p
		}
	}
	return nil
}

// endAdmission records that the name of a member may not join again. The caller calls endAdmission
// before the removal, so that the name cannot join again in between. endAdmission records nothing
// unless every member supports the operation.
func (t *turn) endAdmission(op *command.Op) error {
	if op == nil || canApply(admissionVersion, t.views(), t.self, t.FSM.Version(), false) != nil {
		return nil
	}
	if t.hasEnded(op) {
		return nil
	}
	ctx, cancel := context.WithTimeout(t.Context, t.RequestTimeout)
	defer cancel()
	return t.Commit(ctx, op)
}

// hasEnded reports whether an earlier leader committed op for the same call, but failed before the
// removal. In that case, a second op would write a second audit entry.
func (t *turn) hasEnded(op *command.Op) bool {
	e, ok := command.Describe(op)
	a, known := t.FSM.Admission(e.Object.Node)
	if !ok || !known || e.RequestID == "" {
		return false
	}
	list, err := t.FSM.AuditAt(a.Index) // ErrGone counts as no entry
	return err == nil && slices.ContainsFunc(list, func(v revoked.AuditEntry) bool {
		return v.Kind == e.Kind && v.Object.Node == e.Object.Node && v.RequestID == e.RequestID && v.Actor == e.Actor
	})
}
