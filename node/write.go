package node

import (
	"context"
	"fmt"
	"io"

	"revoked"
	"revoked/fsm"
)

// one commits a single operation that must be final everywhere.
func (n *Node) one(ctx context.Context, op *fsm.Op) (uint64, error) {
	s, err := n.submit(ctx, []*fsm.Op{op}, true)
	if err != nil {
		return 0, err
	}
	if err := s.results[0].err; err != nil {
		return 0, err
	}
	return s.index, nil
}

// Revoke implements api.Revoker.
func (n *Node) Revoke(ctx context.Context, by revoked.Actor, d revoked.Digest) (uint64, error) {
	return n.one(ctx, fsm.RevokeOp(by, d, ""))
}

// DeleteGrant implements api.Revoker.
func (n *Node) DeleteGrant(ctx context.Context, by revoked.Actor, id, reason string) (uint64, error) {
	return n.one(ctx, fsm.DeleteGrantOp(by, id, reason))
}

// RevokeMatching implements api.Revoker. With DryRun or Expect the live grants are counted first, on
// a state that is proven current.
func (n *Node) RevokeMatching(ctx context.Context, by revoked.Actor, req revoked.CutoffRequest) (revoked.CutoffResult, error) {
	var res revoked.CutoffResult
	if req.DryRun || req.Expect != nil {
		if err := n.prove(ctx); err != nil {
			return res, err
		}
		now := revoked.TimeOf(n.cfg.Now())
		before := req.IssuedBefore
		if before == 0 {
			before = max(now, n.fsm.Stamp())
		}
		count, err := n.fsm.CountMatching(ctx, req.Selector, before, now)
		if err != nil {
			return res, err
		}
		res.Matched = &count
		if req.Expect != nil && *req.Expect != count {
			return res, fmt.Errorf("%w: %d live grants match, %d were expected", revoked.ErrExpectation, count, *req.Expect)
		}
		if req.DryRun {
			res.Index = n.fsm.Applied()
			return res, nil
		}
	}
	index, err := n.one(ctx, fsm.CutoffOp(by, req.Selector, req.IssuedBefore, req.Reason))
	res.Index = index
	return res, err
}

// Register implements api.GrantStore.
func (n *Node) Register(ctx context.Context, by revoked.Actor, regs []revoked.Registration) ([]revoked.RegisterResult, error) {
	ops := make([]*fsm.Op, len(regs))
	for i, r := range regs {
		ops[i] = fsm.RegisterOp(by, r)
	}
	s, err := n.submit(ctx, ops, false)
	if err != nil {
		return nil, err
	}
	out := make([]revoked.RegisterResult, len(regs))
	for i, r := range s.results {
		out[i] = revoked.RegisterResult{GrantID: regs[i].GrantID, Index: r.index, Created: r.created, Revoked: r.revoked, Err: r.err}
		if r.grantID != "" { // all of it was known already, in that grant
			out[i].GrantID = r.grantID
		}
		if out[i].Index == 0 {
			out[i].Index = s.index
		}
	}
	return out, nil
}

// Grant implements api.GrantStore.
func (n *Node) Grant(ctx context.Context, id string) (revoked.GrantView, error) {
	if err := n.prove(ctx); err != nil {
		return revoked.GrantView{}, err
	}
	return n.fsm.View(id, revoked.TimeOf(n.cfg.Now()))
}

// Events implements api.Feed.
func (n *Node) Events(_ context.Context, after uint64, limit int) ([]revoked.Event, uint64, error) {
	return n.fsm.Events(after, limit)
}

// Newest implements api.Feed.
func (n *Node) Newest(ctx context.Context) (uint64, error) {
	if err := n.prove(ctx); err != nil {
		return 0, err
	}
	return n.fsm.Applied(), nil
}

// WaitApplied implements api.Feed.
func (n *Node) WaitApplied(ctx context.Context, index uint64) error { return n.fsm.Wait(ctx, index) }

// Client implements api.ClientStore. A node that has never been in a cluster knows the clients of its
// bootstrap files.
func (n *Node) Client(id string) (*revoked.Client, bool) {
	if n.clusterID() != "" {
		return n.fsm.Client(id)
	}
	for i := range n.cfg.BootstrapClients {
		if c := &n.cfg.BootstrapClients[i]; c.ID == id {
			return c, true
		}
	}
	return nil, false
}

// ClientsCurrent implements api.ClientStore: the state that a crash left is behind until the log has
// been replayed.
func (n *Node) ClientsCurrent() bool { return n.clusterID() == "" || n.leases.everHeld.Load() }

// Current implements api.ClientStore. Under a lease nothing is acknowledged that this node has not applied.
func (n *Node) Current(ctx context.Context) error {
	if n.clusterID() == "" || n.leases.valid() && !n.diverged.Load() {
		return nil
	}
	return n.prove(ctx)
}

// Clients implements api.ClientStore.
func (n *Node) Clients(ctx context.Context) ([]*revoked.Client, error) {
	if err := n.Current(ctx); err != nil {
		return nil, err
	}
	return n.fsm.Clients(), nil
}

// CreateClient implements api.ClientStore.
func (n *Node) CreateClient(ctx context.Context, by revoked.Actor, c revoked.Client) (*revoked.Client, uint64, error) {
	return n.putClient(ctx, fsm.PutClientOp(by, &c, 0), c.ID)
}

// UpdateClient implements api.ClientStore.
func (n *Node) UpdateClient(ctx context.Context, by revoked.Actor, c revoked.Client) (*revoked.Client, uint64, error) {
	return n.putClient(ctx, fsm.PutClientOp(by, &c, c.Version), c.ID)
}

// putClient returns the record as this node holds it after the change.
func (n *Node) putClient(ctx context.Context, op *fsm.Op, id string) (*revoked.Client, uint64, error) {
	index, err := n.one(ctx, op)
	if err != nil {
		return nil, 0, err
	}
	if err := n.fsm.Wait(ctx, index); err != nil {
		return nil, 0, fmt.Errorf("%w: changed at index %d, not yet applied here", revoked.ErrOutcomeUnknown, index)
	}
	c, ok := n.fsm.Client(id)
	if !ok {
		return nil, 0, fmt.Errorf("%w: client was deleted meanwhile", revoked.ErrConflict)
	}
	return c, index, nil
}

// DeleteClient implements api.ClientStore.
func (n *Node) DeleteClient(ctx context.Context, by revoked.Actor, id string) (uint64, error) {
	return n.one(ctx, fsm.DeleteClientOp(by, id))
}

// Settings implements api.SettingsStore.
func (n *Node) Settings() revoked.Settings {
	if n.fsm.ClusterID() == "" {
		return n.cfg.Defaults
	}
	return n.fsm.Settings()
}

// UpdateSettings implements api.SettingsStore.
func (n *Node) UpdateSettings(ctx context.Context, by revoked.Actor, s revoked.Settings) (revoked.Settings, uint64, error) {
	index, err := n.one(ctx, fsm.PutSettingsOp(by, s, s.Version))
	if err != nil {
		return revoked.Settings{}, 0, err
	}
	if err := n.fsm.Wait(ctx, index); err != nil {
		return revoked.Settings{}, 0, fmt.Errorf("%w: changed at index %d, not yet applied here", revoked.ErrOutcomeUnknown, index)
	}
	return n.fsm.Settings(), index, nil
}

// Snapshot implements api.Cluster. The state is proven current first: a backup holds everything that
// was acknowledged before it was asked for.
func (n *Node) Snapshot(ctx context.Context, w io.Writer) error {
	if err := n.prove(ctx); err != nil {
		return err
	}
	_, err := n.fsm.WriteSnapshot(ctx, w)
	return err
}
