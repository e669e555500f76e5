package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/proto"

	"revoked"
	"revoked/fsm/command"
	"revoked/node/jwks"
	"revoked/node/nodepb"
	"revoked/transport"
)

// A caller makes calls to other nodes. Its methods may be called concurrently.
type caller struct {
	transport *transport.Transport
	raft      *raft.Raft
}

// callLeader makes one call to the leader that Raft knows. ErrNoLeader guarantees that the leader
// did not get the request; after every other error the outcome is unknown.
func (c caller) callLeader(ctx context.Context, path string, req, resp proto.Message) error {
	addr, _ := c.raft.LeaderWithID()
	if addr == "" {
		return fmt.Errorf("%w: no leader is known", revoked.ErrNoLeader)
	}
	name, host, err := transport.SplitAddress(addr)
	if err != nil {
		return err
	}
	return c.call(ctx, host, name, path, req, resp)
}

// call makes one call to the node at host, whose certificate must contain name. An empty name
// accepts every node of the cluster's CA.
func (c caller) call(ctx context.Context, host, name, path string, req, resp proto.Message) error {
	body, err := proto.Marshal(req)
	if err != nil {
		return err
	}
	b, err := c.transport.Call(ctx, host, name, path, body)
	switch {
	case errors.Is(err, transport.ErrNotSent):
		return fmt.Errorf("%w: %v", revoked.ErrNoLeader, err)
	case err != nil:
		return fmt.Errorf("%w: %v", revoked.ErrOutcomeUnknown, err)
	}
	if err := proto.Unmarshal(b, resp); err != nil {
		return fmt.Errorf("%w: response of %s: %v", revoked.ErrOutcomeUnknown, host, err)
	}
	return nil
}

// maxCallBody bounds the body of a call in bytes.
const maxCallBody = 16 << 20

// handler serves the calls of other nodes. The transport has checked the peer's certificate; the
// handlers check the rights of the peer. Requests arrive only after the roster exists.
func (n *Node) handler() http.Handler {
	mux := http.NewServeMux()
	handle(mux, nodepb.PathHello, func(context.Context, string, *nodepb.Hello) *nodepb.Hello { return n.roster.Hello() })
	handle(mux, nodepb.PathJoin, func(ctx context.Context, peer string, req *nodepb.JoinRequest) *nodepb.AdminResponse {
		return n.roster.ServeJoin(ctx, peer, req)
	})
	handle(mux, nodepb.PathAdmin, func(ctx context.Context, peer string, req *nodepb.AdminRequest) *nodepb.AdminResponse {
		return n.roster.ServeAdmin(ctx, peer, req)
	})
	handle(mux, nodepb.PathMembers, func(_ context.Context, peer string, _ *nodepb.AdminRequest) *nodepb.MembersResponse {
		return n.roster.ServeMembers(peer)
	})
	handle(mux, nodepb.PathSubmit, n.serveSubmit)
	handle(mux, nodepb.PathKeys, n.serveKeys)
	mux.HandleFunc("POST "+nodepb.PathReports, func(w http.ResponseWriter, r *http.Request) {
		n.roster.ServeReports(w, r)
	})
	return mux
}

// serveSubmit proposes the operations that another member forwarded to this node.
func (n *Node) serveSubmit(ctx context.Context, peer string, req *nodepb.SubmitRequest) *nodepb.SubmitResponse {
	if !n.roster.IsMember(peer) { // it left or has not joined; nothing was proposed, so clients may retry
		return &nodepb.SubmitResponse{
			Code: revoked.Code(revoked.ErrNoLeader), Detail: "the forwarding node is not a member of this cluster",
		}
	}
	return n.propose.Serve(ctx, peer, req)
}

// handle registers a call with a protobuf request and response. Errors travel inside the response.
func handle[Req, Resp any, PReq interface {
	*Req
	proto.Message
}, PResp interface {
	*Resp
	proto.Message
}](mux *http.ServeMux, path string, serve func(ctx context.Context, peer string, req PReq) PResp) {
	mux.HandleFunc("POST "+path, func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxCallBody))
		if err != nil {
			http.Error(w, "body too large or incomplete", http.StatusRequestEntityTooLarge)
			return
		}
		req := PReq(new(Req))
		if err := proto.Unmarshal(body, req); err != nil {
			http.Error(w, "malformed body", http.StatusBadRequest)
			return
		}
		b, err := proto.Marshal(serve(r.Context(), transport.PeerNode(r), req))
		if err != nil {
			http.Error(w, "failed", http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/protobuf")
		_, _ = w.Write(b)
	})
}

// newKeyRunner returns the runner that fetches key sets while this node leads.
func (n *Node) newKeyRunner() *jwks.Runner {
	return jwks.NewRunner(jwks.RunnerConfig{
		Issuers: n.Issuers, Fetch: n.cfg.hooks.fetchKeys, Log: n.log,
		Store: func(ctx context.Context, i *revoked.Issuer, keys []revoked.IssuerKey) (uint64, error) {
			return n.propose.CommitHere(ctx, command.PutIssuerKeysOp(i.Name, i.KeysVersion, keys))
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

// RefreshIssuer implements api.Backend. The leader fetches the keys.
func (n *Node) RefreshIssuer(ctx context.Context, name string) (index uint64, changed bool, err error) {
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
	resp, err := n.askKeys(ctx, &nodepb.KeyFetchRequest{Refresh: name})
	return resp.GetIndex(), resp.GetChanged(), err
}

// KeyFetches implements api.Backend. It returns the leader's fetches.
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
		resp = n.leaderKeys(ctx, req)
	} else if err := (caller{n.transport, n.raft}).callLeader(ctx, nodepb.PathKeys, req, resp); err != nil {
		return nil, err
	}
	if err := revoked.FromCode(resp.Code); err != nil {
		return resp, fmt.Errorf("%w: %s", err, resp.Detail)
	}
	return resp, nil
}

// refetchWait is how long a token with an unknown key waits for the leader's fetch.
const refetchWait = 2 * time.Second

// refetchKeys makes the leader fetch the keys of an issuer, unless it did in the last 30 seconds.
// It returns ErrNotCurrent if the newest keys are not known. A changed key set is final, so a node
// with a lease has applied it.
func (n *Node) refetchKeys(ctx context.Context, i *revoked.Issuer) error {
	ctx, cancel := context.WithTimeout(ctx, refetchWait)
	defer cancel()
	resp, err := n.askKeys(ctx, &nodepb.KeyFetchRequest{Refresh: i.Name})
	if err == nil {
		return nil
	}
	for _, f := range resp.GetFetches() {
		if errors.Is(err, revoked.ErrQuota) && f.Issuer == i.Name && f.At != 0 && f.Error == "" {
			return nil
		}
	}
	return fmt.Errorf("%w: keys of issuer %s: %v", revoked.ErrNotCurrent, i.Name, err)
}

// serveKeys answers another member.
func (n *Node) serveKeys(ctx context.Context, peer string, req *nodepb.KeyFetchRequest) *nodepb.KeyFetchResponse {
	if !n.roster.IsMember(peer) {
		return &nodepb.KeyFetchResponse{Code: revoked.Code(revoked.ErrNoLeader), Detail: "the asking node is not a member"}
	}
	return n.leaderKeys(ctx, req)
}

// leaderKeys answers if this node leads.
func (n *Node) leaderKeys(ctx context.Context, req *nodepb.KeyFetchRequest) *nodepb.KeyFetchResponse {
	resp := new(nodepb.KeyFetchResponse)
	if req.Refresh != "" {
		out, err := n.leadership.keys.Refresh(ctx, req.Refresh)
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
