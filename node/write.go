package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"revoked"
	"revoked/fsm"
	"revoked/fsm/command"
)

// The changes below share one contract. They return the index of the entry once the change is
// final: committed, and applied by every node that may answer under a read lease. Only Register
// already returns after the commit, unless it made an older token inactive.
//
// Errors: ErrNoLeader and ErrOverloaded guarantee that nothing was proposed. After
// ErrOutcomeUnknown the change may be applied; a retry is safe. A refused change returns the
// sentinel error of the violated rule.

// Revoke implements api.Backend.
func (n *Node) Revoke(ctx context.Context, by revoked.Actor, d revoked.Digest) (revoked.RevokeResult, error) {
	res, err := n.propose.CommitResult(ctx, command.RevokeOp(by, d, ""))
	return revoked.RevokeResult{Index: res.Index, Unknown: res.Unknown}, err
}

// RevokeToken implements api.Backend. A JWT is verified with state that is current as of the call,
// because its issuer or the issuer's key may be new. Apply decides who may revoke the token.
func (n *Node) RevokeToken(
	ctx context.Context, by revoked.Actor, p revoked.PresentedToken,
) (revoked.RevokeResult, error) {
	mark := n.leases.mark()
	j, err := n.tokens.Verify(ctx, &p)
	if err == nil && !n.leases.covers(mark) {
		j, err = n.verifyCurrent(ctx, &p)
	}
	for range revokeAttempts {
		if err != nil {
			return revoked.RevokeResult{}, err
		}
		if j == nil {
			return n.Revoke(ctx, by, p.Digest)
		}
		res, revokeErr := n.propose.CommitResult(ctx, command.RevokeJWTOp(by, j, ""))
		if !errors.Is(revokeErr, revoked.ErrConflict) {
			return revoked.RevokeResult{Index: res.Index}, revokeErr
		}
		j, err = n.verifyCurrent(ctx, &p) // the claims of j were read with an outdated mapping
	}
	return revoked.RevokeResult{}, fmt.Errorf("%w: issuer record changed during each of %d attempts",
		revoked.ErrNotCurrent, revokeAttempts)
}

// revokeAttempts is the number of attempts if the record of the issuer changes between verification
// and Apply.
const revokeAttempts = 3

// verifyCurrent verifies a JWT with a copy of the state that is current as of the call.
func (n *Node) verifyCurrent(ctx context.Context, p *revoked.PresentedToken) (*revoked.JWT, error) {
	if err := n.propose.ReadBarrier(ctx); err != nil {
		return nil, err
	}
	return n.tokens.Verify(ctx, p)
}

// RevokeJTI implements api.Backend.
func (n *Node) RevokeJTI(ctx context.Context, by revoked.Actor, r revoked.JTIRevocation) (uint64, error) {
	return n.propose.Commit(ctx, jtiOp(by, &r))
}

// RevokeJTIs implements api.Backend.
func (n *Node) RevokeJTIs(
	ctx context.Context, by revoked.Actor, list []revoked.JTIRevocation,
) ([]error, uint64, error) {
	ops := make([]*command.Op, len(list))
	for i := range list {
		ops[i] = command.InChunk(jtiOp(by, &list[i]))
	}
	committed, err := n.propose.Propose(ctx, ops, true)
	if err != nil {
		return nil, 0, err
	}
	results := make([]error, len(committed.Results))
	for i := range committed.Results {
		results[i] = committed.Results[i].Err
	}
	return results, committed.Index, nil
}

func jtiOp(by revoked.Actor, r *revoked.JTIRevocation) *command.Op {
	j := revoked.JWT{Issuer: r.Issuer, JTI: r.JTI, ExpiresAt: r.ExpiresAt}
	return command.RevokeJWTOp(by, &j, r.Reason)
}

// DeleteGrant implements api.Backend.
func (n *Node) DeleteGrant(ctx context.Context, by revoked.Actor, id, reason string) (uint64, error) {
	return n.propose.Commit(ctx, command.DeleteGrantOp(by, id, reason))
}

// RevokeMatching implements api.Backend. If DryRun or Expect is set, it first counts the active
// grants that match, behind a read barrier.
func (n *Node) RevokeMatching(
	ctx context.Context, by revoked.Actor, req revoked.CutoffRequest,
) (revoked.CutoffResult, error) {
	var res revoked.CutoffResult
	if req.DryRun || req.Expect != nil {
		count, err := n.countMatching(ctx, req)
		if err != nil {
			return res, err
		}
		res.Matched = &count
		if req.Expect != nil && *req.Expect != count {
			return res, fmt.Errorf("%w: %d active grants match, %d were expected", revoked.ErrExpectation, count, *req.Expect)
		}
		if req.DryRun {
			res.Index = n.fsm.Applied()
			return res, nil
		}
	}
	index, err := n.propose.Commit(ctx, command.CutoffOp(by, req.Selector, req.IssuedBefore, req.Reason))
	res.Index = index
	return res, err
}

// countMatching counts the active grants that req matches, behind a read barrier. So it includes
// every matching grant that was registered before the call.
func (n *Node) countMatching(ctx context.Context, req revoked.CutoffRequest) (int, error) {
	if err := n.propose.ReadBarrier(ctx); err != nil {
		return 0, err
	}
	now := revoked.TimeOf(n.cfg.Now())
	before := req.IssuedBefore
	if before == 0 {
		before = max(now, n.fsm.Stamp())
	}
	return n.fsm.CountMatching(ctx, req.Selector, before, now)
}

// Register implements api.Backend. Each registration succeeds or fails independently; the returned
// error applies to all of them.
func (n *Node) Register(
	ctx context.Context, by revoked.Actor, regs []revoked.Registration,
) ([]revoked.RegisterResult, error) {
	committed, err := n.propose.Propose(ctx, registerOps(by, regs), false)
	return registerResults(regs, committed), err
}

// RegisterBulk implements api.Backend.
func (n *Node) RegisterBulk(
	ctx context.Context, by revoked.Actor, regs []revoked.Registration,
) ([]revoked.RegisterResult, error) {
	committed, err := n.propose.ProposeBulk(ctx, registerOps(by, regs))
	return registerResults(regs, committed), err
}

func registerOps(by revoked.Actor, regs []revoked.Registration) []*command.Op {
	ops := make([]*command.Op, len(regs))
	for i, r := range regs {
		ops[i] = command.RegisterOp(by, r)
	}
	return ops
}

// registerResults returns nil if nothing was committed.
func registerResults(regs []revoked.Registration, committed fsm.Outcome) []revoked.RegisterResult {
	if committed.Results == nil {
		return nil
	}
	out := make([]revoked.RegisterResult, len(regs))
	for i, r := range committed.Results {
		out[i] = revoked.RegisterResult{
			GrantID: cmp.Or(r.Register.GrantID, regs[i].GrantID), // the tokens may already belong to another grant
			Index:   cmp.Or(r.Index, committed.Index),
			Created: r.Register.Created, Revoked: r.Register.Revoked, Err: r.Err,
		}
	}
	return out
}

// Note implements api.Backend. It returns once the entry is committed. A node that is not in a
// cluster writes the entry to its log, and passes it to Config.LocalAudit.
func (n *Node) Note(ctx context.Context, by revoked.Actor, e revoked.AuditEntry) error {
	if e.Refused {
		e.Object = n.fsm.KnownObject(e.Object, n.roster.IsMember)
	}
	if n.roster.ClusterID() == "" {
		n.noteHere(by, e)
		return nil
	}
	out, err := n.propose.Propose(ctx, []*command.Op{command.NoteOp(by, e)}, false)
	if err == nil {
		err = out.Results[0].Err
	}
	return err
}

// noteHere records an entry of a node that is not in a cluster. Other nodes never get this entry.
func (n *Node) noteHere(by revoked.Actor, e revoked.AuditEntry) {
	e.Time, e.Node, e.RequestID = revoked.TimeOf(n.cfg.Now()), n.cfg.NodeID, by.RequestID
	e.Actor, e.ActorVersion = by.ClientID, by.Version
	n.log.Warn("call refused: node is not in a cluster", "kind", string(e.Kind), "client_id", e.Actor,
		"request_id", e.RequestID, "detail", e.Detail)
	if n.cfg.LocalAudit != nil {
		n.cfg.LocalAudit(e)
	}
}

// CreateClient implements api.Backend.
func (n *Node) CreateClient(ctx context.Context, by revoked.Actor, c revoked.Client) (*revoked.Client, uint64, error) {
	return n.putClient(ctx, command.PutClientOp(by, &c, 0), c.ID)
}

// UpdateClient implements api.Backend.
func (n *Node) UpdateClient(ctx context.Context, by revoked.Actor, c revoked.Client) (*revoked.Client, uint64, error) {
	return n.putClient(ctx, command.PutClientOp(by, &c, c.Version), c.ID)
}

// putClient commits op and returns the client's record in this node's state.
func (n *Node) putClient(ctx context.Context, op *command.Op, id string) (*revoked.Client, uint64, error) {
	index, err := n.propose.CommitHere(ctx, op)
	if err != nil {
		return nil, 0, err
	}
	c, ok := n.fsm.Client(id)
	if !ok {
		return nil, 0, fmt.Errorf("%w: client was deleted in the meantime", revoked.ErrConflict)
	}
	return c, index, nil
}

// DeleteClient implements api.Backend. The tokens of the client become inactive.
func (n *Node) DeleteClient(ctx context.Context, by revoked.Actor, id string) (uint64, error) {
	return n.propose.Commit(ctx, command.DeleteClientOp(by, id))
}

// UpdateSettings implements api.Backend.
func (n *Node) UpdateSettings(
	ctx context.Context, by revoked.Actor, s revoked.Settings,
) (revoked.Settings, uint64, error) {
	index, err := n.propose.CommitHere(ctx, command.PutSettingsOp(by, s, s.Version))
	if err != nil {
		return revoked.Settings{}, 0, err
	}
	return n.fsm.Settings(), index, nil
}

// noteChange records a completed change that has no operation of its own in the log. If it cannot
// record the entry, the change is not undone.
func (n *Node) noteChange(by revoked.Actor, kind revoked.AuditKind, node, detail string) {
	ctx, cancel := context.WithTimeout(n.life.ctx, n.cfg.RequestTimeout)
	defer cancel()
	err := n.Note(ctx, by, revoked.AuditEntry{
		Kind: kind, Detail: detail, Object: revoked.AuditObject{Node: node},
	})
	if err != nil {
		n.metrics.auditLost.Inc()
		n.cfg.Log.Warn("audit entry lost", "kind", string(kind), "error", err)
	}
}
