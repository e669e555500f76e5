package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"revoked"
	"revoked/fsm"
	"revoked/fsm/command"
	"revoked/node/jwt"
	"revoked/node/nodepb"
	"revoked/node/propose"
)

// issuers serves the calls about trusted issuers: about their records, their keys, and the key sets
// that the leader fetches. Methods may be called concurrently.
type issuers struct {
	nodeID     string
	fsm        *fsm.FSM
	leadership *leadership
	propose    *propose.Router
	now        func() time.Time
	// current blocks until this node has applied every change acknowledged before the call.
	current    func(context.Context) error
	isMember   func(node string) bool
	callLeader func(ctx context.Context, path string, req, resp proto.Message) error
	note       func(context.Context, revoked.Actor, revoked.AuditEntry) error
}

// Issuers implements api.Backend.
func (s *issuers) Issuers() []*revoked.Issuer {
	return slices.DeleteFunc(s.fsm.Issuers(), func(i *revoked.Issuer) bool { return i.DeletedAt != 0 })
}

// issuer returns this node's copy of an issuer that is not deleted. The error wraps ErrNotFound.
func (s *issuers) issuer(name string) (*revoked.Issuer, error) {
	for _, i := range s.Issuers() {
		if i.Name == name {
			return i, nil
		}
	}
	return nil, fmt.Errorf("%w: issuer %q", revoked.ErrNotFound, name)
}

// CheckToken implements api.Backend.
func (s *issuers) CheckToken(ctx context.Context, name, token string) (revoked.TokenCheck, error) {
	if err := s.current(ctx); err != nil {
		return revoked.TokenCheck{}, err
	}
	i, err := s.issuer(name)
	if err != nil {
		return revoked.TokenCheck{}, err
	}
	return jwt.Check(i, token, revoked.TimeOf(s.now()))
}

// ParseKeys implements api.Backend.
func (s *issuers) ParseKeys(set []byte) ([]revoked.IssuerKey, error) { return jwt.ParseInline(set) }

// FormatKeys implements api.Backend.
func (s *issuers) FormatKeys(keys []revoked.IssuerKey) ([]byte, error) { return jwt.FormatKeys(keys) }

// CreateIssuer implements api.Backend.
func (s *issuers) CreateIssuer(
	ctx context.Context, by revoked.Actor, i revoked.Issuer,
) (*revoked.Issuer, uint64, error) {
	return s.putIssuer(ctx, command.PutIssuerOp(by, &i, 0), i.Name)
}

// UpdateIssuer implements api.Backend.
func (s *issuers) UpdateIssuer(
	ctx context.Context, by revoked.Actor, i revoked.Issuer,
) (*revoked.Issuer, uint64, error) {
	return s.putIssuer(ctx, command.PutIssuerOp(by, &i, i.Version), i.Name)
}

// putIssuer commits op and returns the issuer's record in this node's state.
func (s *issuers) putIssuer(ctx context.Context, op *command.Op, name string) (*revoked.Issuer, uint64, error) {
	index, err := s.propose.CommitHere(ctx, op)
	if err != nil {
		return nil, 0, err
	}
	i, err := s.issuer(name)
	if err != nil {
		return nil, 0, fmt.Errorf("%w: issuer was deleted in the meantime", revoked.ErrConflict)
	}
	return i, index, nil
}

// DeleteIssuer implements api.Backend.
func (s *issuers) DeleteIssuer(ctx context.Context, by revoked.Actor, name string) (uint64, error) {
	return s.propose.Commit(ctx, command.DeleteIssuerOp(by, name))
}

// BanIssuerKey implements api.Backend.
func (s *issuers) BanIssuerKey(ctx context.Context, by revoked.Actor, name, thumbprint string) (uint64, error) {
	return s.propose.Commit(ctx, command.BanIssuerKeyOp(by, name, thumbprint))
}

// RefreshIssuer implements api.Backend. The leader fetches the keys, and the call blocks until the
// fetch ends. ErrQuota means that the last fetch began less than 30 s ago. ErrKeysNotFetched means
// that the fetch failed.
func (s *issuers) RefreshIssuer(
	ctx context.Context, by revoked.Actor, name string,
) (index uint64, changed bool, err error) {
	if err := s.current(ctx); err != nil {
		return 0, false, err
	}
	i, err := s.issuer(name)
	switch {
	case err != nil:
		return 0, false, err
	case i.JWKSURI == "":
		return 0, false, fmt.Errorf("%w: the issuer has inline keys, which are not fetched", revoked.ErrUnprocessable)
	}
	resp, err := s.requestKeys(ctx, &nodepb.KeyFetchRequest{
		Refresh: name, Actor: command.ActorMessage(by), RequestId: by.RequestID,
	})
	if errors.Is(err, revoked.ErrNotCurrent) {
		err = fmt.Errorf("%w: %s", revoked.ErrKeysNotFetched, revoked.Detail(err))
	}
	return resp.GetIndex(), resp.GetChanged(), err
}

// KeyFetches implements api.Backend. It returns only the fetches that the current leader made. So
// after a leader change, some may be missing.
func (s *issuers) KeyFetches(ctx context.Context) (map[string]revoked.KeyFetch, error) {
	resp, err := s.requestKeys(ctx, &nodepb.KeyFetchRequest{})
	if err != nil {
		return nil, err
	}
	fetches := map[string]revoked.KeyFetch{}
	for _, f := range resp.Fetches {
		fetches[f.Issuer] = revoked.KeyFetch{At: revoked.Time(f.At), Error: f.Error, NextAt: revoked.Time(f.NextAt)}
	}
	return fetches, nil
}

// requestKeys sends req to the leader, which may be this node.
func (s *issuers) requestKeys(ctx context.Context, req *nodepb.KeyFetchRequest) (*nodepb.KeyFetchResponse, error) {
	resp := new(nodepb.KeyFetchResponse)
	if s.leadership.proposer() != nil {
		resp = s.leaderKeys(ctx, s.nodeID, req)
	} else if err := s.callLeader(ctx, nodepb.PathKeys, req, resp); err != nil {
		return nil, err
	}
	if err := revoked.FromCode(resp.Code); err != nil {
		return resp, fmt.Errorf("%w: %s", err, resp.Detail)
	}
	return resp, nil
}

// refetchWait is how long the introspection of a token with an unknown key waits for the leader's
// fetch. After that, the caller gets 503.
const refetchWait = 2 * time.Second

// refetchKeys makes the leader fetch the keys of an issuer, unless it did so in the last 30
// seconds. It returns ErrKeysNotFetched if this node cannot get the newest keys. When it returns
// nil, a changed key set is final, so every node with a lease has applied it.
func (s *issuers) refetchKeys(ctx context.Context, i *revoked.Issuer) error {
	ctx, cancel := context.WithTimeout(ctx, refetchWait)
	defer cancel()
	resp, err := s.requestKeys(ctx, &nodepb.KeyFetchRequest{Refresh: i.Name})
	if err == nil {
		return nil
	}
	cause := revoked.Detail(err)
	for _, f := range resp.GetFetches() {
		switch {
		case f.Issuer != i.Name || !errors.Is(err, revoked.ErrQuota):
		case f.Error != "":
			cause = f.Error // error of the fetch that began less than 30 s ago
		case f.At != 0:
			return nil
		}
	}
	return fmt.Errorf("%w: issuer %q: %s", revoked.ErrKeysNotFetched, i.Name, cmp.Or(cause, err.Error()))
}

// serveKeys handles a request from another member. Only a member may request a refresh, because a
// refresh makes this node open a connection to the issuer.
func (s *issuers) serveKeys(ctx context.Context, peer string, req *nodepb.KeyFetchRequest) *nodepb.KeyFetchResponse {
	if !s.isMember(peer) {
		return &nodepb.KeyFetchResponse{Code: revoked.Code(revoked.ErrNoLeader), Detail: "requesting node is not a member"}
	}
	return s.leaderKeys(ctx, peer, req)
}

// leaderKeys handles a request if this node leads. The name of the requesting node is via. Two
// leaders at the same time are harmless, because Apply decides which keys are stored.
func (s *issuers) leaderKeys(ctx context.Context, via string, req *nodepb.KeyFetchRequest) *nodepb.KeyFetchResponse {
	resp := new(nodepb.KeyFetchResponse)
	if req.Refresh != "" {
		by := req.GetActor().Actor()
		by.RequestID, by.Via = req.RequestId, via
		out, err := s.leadership.keys.Refresh(ctx, by, req.Refresh)
		if err == nil && out.Shared && by.ClientID != "" { // the audit entry of the keys does not name this caller
			_ = s.note(ctx, by, revoked.AuditEntry{
				Kind: revoked.AuditIssuerRefresh, Object: revoked.AuditObject{Name: req.Refresh},
			})
		}
		resp.Code, resp.Detail = revoked.Code(err), revoked.Detail(err)
		resp.Index, resp.Changed = out.Index, out.Changed
	}
	states, leads := s.leadership.keys.States()
	if !leads {
		resp.Code = revoked.Code(revoked.ErrNoLeader)
	}
	for name, k := range states {
		resp.Fetches = append(resp.Fetches, &nodepb.KeyFetch{
			Issuer: name, At: int64(revoked.TimeOf(k.At)), Error: k.Error, NextAt: int64(revoked.TimeOf(k.NextAt)),
		})
	}
	return resp
}
