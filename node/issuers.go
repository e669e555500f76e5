package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"revoked"
	"revoked/fsm/command"
	"revoked/node/jwks"
	"revoked/node/nodepb"
)

// newKeyRunner returns the runner that fetches key sets while this node leads. Keys are fetched on
// one node only, so that an issuer is asked once for the whole cluster.
func (n *Node) newKeyRunner() *jwks.Runner {
	return jwks.NewRunner(jwks.RunnerConfig{
		Issuers: n.Issuers, Fetch: n.cfg.hooks.fetchKeys, Log: n.log,
		Store: func(
			ctx context.Context, by revoked.Actor, i *revoked.Issuer, keys []revoked.IssuerKey,
		) (uint64, error) {
			op := command.PutIssuerKeysOp(i.Name, i.KeysVersion, keys)
			return n.propose.CommitHere(ctx, command.OnBehalf(op, by))
		},
		Count: func(ok bool) {
			if ok {
				n.metrics.keyFetches.done.Inc()
			} else {
				n.metrics.keyFetches.failed.Inc()
			}
		},
	})
}

// RefreshIssuer implements api.Backend. The leader fetches the keys. It blocks for one fetch.
// ErrQuota means that the last one began less than 30 s ago, ErrKeysNotFetched that it failed.
func (n *Node) RefreshIssuer(
	ctx context.Context, by revoked.Actor, name string,
) (index uint64, changed bool, err error) {
	if err := n.Current(ctx); err != nil {
		return 0, false, err
	}
	i, err := n.issuer(name)
	switch {
	case err != nil:
		return 0, false, err
	case i.JWKSURI == "":
		return 0, false, fmt.Errorf("%w: the issuer has jwks, which is not fetched", revoked.ErrUnprocessable)
	}
	resp, err := n.askKeys(ctx, &nodepb.KeyFetchRequest{
		Refresh: name, Actor: command.ActorMessage(by), RequestId: by.RequestID,
	})
	if errors.Is(err, revoked.ErrNotCurrent) {
		err = fmt.Errorf("%w: %s", revoked.ErrKeysNotFetched, revoked.Detail(err))
	}
	return resp.GetIndex(), resp.GetChanged(), err
}

// KeyFetches implements api.Backend. It returns the leader's fetches. A new leader knows only its
// own, so some may be missing after a change of leader.
func (n *Node) KeyFetches(ctx context.Context) (map[string]revoked.KeyFetch, error) {
	resp, err := n.askKeys(ctx, &nodepb.KeyFetchRequest{})
	if err != nil {
		return nil, err
	}
	fetches := map[string]revoked.KeyFetch{}
	for _, f := range resp.Fetches {
		fetches[f.Issuer] = revoked.KeyFetch{At: revoked.Time(f.At), Error: f.Error, NextAt: revoked.Time(f.NextAt)}
	}
	return fetches, nil
}

// askKeys asks the leader, which may be this node.
func (n *Node) askKeys(ctx context.Context, req *nodepb.KeyFetchRequest) (*nodepb.KeyFetchResponse, error) {
	resp := new(nodepb.KeyFetchResponse)
	if n.leadership.proposer() != nil {
		resp = n.leaderKeys(ctx, n.cfg.NodeID, req)
	} else if err := (caller{n.transport, n.raft}).callLeader(ctx, nodepb.PathKeys, req, resp); err != nil {
		return nil, err
	}
	if err := revoked.FromCode(resp.Code); err != nil {
		return resp, fmt.Errorf("%w: %s", err, resp.Detail)
	}
	return resp, nil
}

// refetchWait is how long a token with an unknown key waits for the leader's fetch. A caller of an
// introspection waits for it, and gets 503 afterwards.
const refetchWait = 2 * time.Second

// refetchKeys makes the leader fetch the keys of an issuer, unless it did in the last 30 seconds.
// It returns ErrKeysNotFetched if the newest keys are not known. A changed key set is final, so a
// node with a lease has applied it.
func (n *Node) refetchKeys(ctx context.Context, i *revoked.Issuer) error {
	ctx, cancel := context.WithTimeout(ctx, refetchWait)
	defer cancel()
	resp, err := n.askKeys(ctx, &nodepb.KeyFetchRequest{Refresh: i.Name})
	if err == nil {
		return nil
	}
	cause := revoked.Detail(err)
	for _, f := range resp.GetFetches() {
		switch {
		case f.Issuer != i.Name || !errors.Is(err, revoked.ErrQuota):
		case f.Error != "":
			cause = f.Error // of the fetch that began a short time ago
		case f.At != 0:
			return nil
		}
	}
	return fmt.Errorf("%w: issuer %q: %s", revoked.ErrKeysNotFetched, i.Name, cmp.Or(cause, err.Error()))
}

// serveKeys answers another member. A refresh makes this node open a connection, so only a member
// may ask for one.
func (n *Node) serveKeys(ctx context.Context, peer string, req *nodepb.KeyFetchRequest) *nodepb.KeyFetchResponse {
	if !n.roster.IsMember(peer) {
		return &nodepb.KeyFetchResponse{Code: revoked.Code(revoked.ErrNoLeader), Detail: "the asking node is not a member"}
	}
	return n.leaderKeys(ctx, peer, req)
}

// leaderKeys answers the node via, if this node leads. Two leaders at a time do no harm, because
// Apply decides about the keys.
func (n *Node) leaderKeys(ctx context.Context, via string, req *nodepb.KeyFetchRequest) *nodepb.KeyFetchResponse {
	resp := new(nodepb.KeyFetchResponse)
	if req.Refresh != "" {
		by := req.GetActor().Actor()
		by.RequestID, by.Via = req.RequestId, via
		out, err := n.leadership.keys.Refresh(ctx, by, req.Refresh)
		if err == nil && out.Shared && by.ClientID != "" { // the entry with the keys does not name this caller
			_ = n.Note(ctx, by, revoked.AuditEntry{
				Kind: revoked.AuditIssuerRefresh, Object: revoked.AuditObject{Name: req.Refresh},
			})
		}
		resp.Code, resp.Detail = revoked.Code(err), revoked.Detail(err)
		resp.Index, resp.Changed = out.Index, out.Changed
	}
	states, leads := n.leadership.keys.States()
	if !leads {
		resp.Code = revoked.Code(revoked.ErrNoLeader)
	}
	for name, s := range states {
		resp.Fetches = append(resp.Fetches, &nodepb.KeyFetch{
			Issuer: name, At: int64(revoked.TimeOf(s.At)), Error: s.Error, NextAt: int64(revoked.TimeOf(s.NextAt)),
		})
	}
	return resp
}
