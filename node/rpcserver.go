package node

import (
	"context"
	"io"
	"net/http"

	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/proto"

	"revoked"
	"revoked/fsm"
	"revoked/transport"
)

// Paths of the node-to-node calls. All are POST over h2 with protobuf bodies.
const (
	pathHello   = "/node/v1/hello"
	pathJoin    = "/node/v1/join"
	pathAdmin   = "/node/v1/admin"
	pathSubmit  = "/node/v1/submit"
	pathMembers = "/node/v1/members"
	pathReports = "/node/v1/reports"
)

const maxCallBody = 16 << 20

// handler serves the calls of other nodes. The transport has checked the peer's certificate; what a
// peer may do is decided here.
func (n *Node) handler() http.Handler {
	mux := http.NewServeMux()
	handle(n, mux, pathHello, func(context.Context, string, *Hello) (*Hello, error) { return n.hello(), nil })
	handle(n, mux, pathJoin, n.serveJoin)
	handle(n, mux, pathAdmin, n.serveAdmin)
	handle(n, mux, pathSubmit, n.serveSubmit)
	handle(n, mux, pathMembers, n.serveMembers)
	mux.HandleFunc("POST "+pathReports, n.serveReports)
	return mux
}

// handle registers a call with protobuf request and response. Errors travel inside the response.
func handle[Req, Resp any, PReq interface {
	*Req
	proto.Message
}, PResp interface {
	*Resp
	proto.Message
}](n *Node, mux *http.ServeMux, path string, serve func(ctx context.Context, peer string, req PReq) (PResp, error)) {
	mux.HandleFunc("POST "+path, func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxCallBody))
		if err != nil {
			http.Error(w, "body too large or cut off", http.StatusRequestEntityTooLarge)
			return
		}
		req := PReq(new(Req))
		if err := proto.Unmarshal(body, req); err != nil {
			http.Error(w, "body is not what this path takes", http.StatusBadRequest)
			return
		}
		resp, err := serve(r.Context(), transport.PeerNode(r), req)
		if err != nil {
			n.log.Warn("node-to-node call failed", "path", path, "peer", transport.PeerNode(r), "error", err)
			http.Error(w, "failed", http.StatusServiceUnavailable)
			return
		}
		b, err := proto.Marshal(resp)
		if err != nil {
			http.Error(w, "failed", http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/protobuf")
		w.Write(b)
	})
}

// serveSubmit is the leader's half of forwarding. It never forwards again.
func (n *Node) serveSubmit(ctx context.Context, peer string, req *SubmitRequest) (*SubmitResponse, error) {
	if !n.isMemberNode(peer) {
		// Its callers are not to blame: it has left, or is not in yet. Nothing was proposed.
		return &SubmitResponse{Code: revoked.Code(revoked.ErrNoLeader), Detail: "the node that was asked is no member of this cluster"}, nil
	}
	p := n.proposer.Load()
	if p == nil {
		return &SubmitResponse{Code: revoked.Code(revoked.ErrNoLeader)}, nil
	}
	for _, op := range req.Ops {
		if op.GetActor() == nil || op.Kind == nil {
			return &SubmitResponse{Code: revoked.Code(revoked.ErrInvalid), Detail: "operation without actor or kind"}, nil
		}
	}
	ctx, cancel := context.WithTimeout(ctx, n.cfg.RequestTimeout)
	defer cancel()
	s := newSubmission(req.Ops, req.Final)
	if err := p.submit(ctx, s); err != nil {
		return &SubmitResponse{Code: revoked.Code(err), Detail: detailOf(err)}, nil
	}
	resp := &SubmitResponse{Index: s.index, Results: make([]*OpResult, len(s.results))}
	for i, r := range s.results {
		resp.Results[i] = &OpResult{Code: revoked.Code(r.err), Detail: detailOf(r.err), Index: r.index, Created: r.created, Revoked: r.revoked}
		if r.grantID != req.Ops[i].GetRegister().GetGrantId() {
			resp.Results[i].GrantId = r.grantID
		}
	}
	return resp, nil
}

func serverIDOf(who *Hello) raft.ServerID {
	return identity{NodeID: who.NodeId, Instance: who.Instance}.serverID()
}

// isMemberNode reports whether a node id is in the newest configuration.
func (n *Node) isMemberNode(node string) bool {
	conf, err := n.configuration()
	if err != nil {
		return false
	}
	for _, s := range conf.Servers {
		if nodeOf(s.ID) == node {
			return true
		}
	}
	return false
}

func inConfiguration(conf raft.Configuration, id raft.ServerID) bool {
	for _, s := range conf.Servers {
		if s.ID == id {
			return true
		}
	}
	return false
}

// configuration returns the newest configuration in this node's log.
func (n *Node) configuration() (raft.Configuration, error) {
	f := n.raft.GetConfiguration()
	if err := f.Error(); err != nil {
		return raft.Configuration{}, err
	}
	return f.Configuration(), nil
}

var _ raft.FSM = (*fsm.FSM)(nil)
