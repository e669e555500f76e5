package roster

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"

	"revoked"
	"revoked/fsm/command"
	"revoked/node/nodepb"
	"revoked/node/propose"
)

// JoinCluster joins the cluster at one of the addresses and returns the index of the admission. It
// blocks until this node has applied the admission, for at most two request timeouts.
//
// Errors: ErrAlreadyMember, ErrUnprocessable if no address leads to a cluster, ErrForbidden if this
// node is not admitted, ErrConflict if a member has its address or node id, ErrOutcomeUnknown.
func (r *Roster) JoinCluster(ctx context.Context, addresses []string) (uint64, error) {
	if conf, err := r.Configuration(); err != nil || len(conf.Servers) > 0 || r.ClusterID() != "" {
		return 0, fmt.Errorf("%w: %s; run `revoked leave` first", revoked.ErrAlreadyMember, r.ClusterID())
	}
	ctx, cancel := context.WithTimeout(ctx, 2*r.RequestTimeout)
	defer cancel()
	index, err := r.joiner.joinAt(ctx, addresses)
	if err != nil {
		return 0, err
	}
	r.joiner.stop()
	return index, nil
}

// Leave returns the read lease, removes this node from the configuration and stops the node. A
// leader transfers leadership first. After an error the node stays a member and requests leases
// again.
//
// Errors: ErrUnprocessable outside a cluster, ErrQuorumRisk, ErrNoLeader, ErrOutcomeUnknown.
func (r *Roster) Leave(ctx context.Context, by revoked.Actor) (uint64, error) {
	if r.ClusterID() == "" {
		return 0, fmt.Errorf("%w: %w: nothing to leave", revoked.ErrUnprocessable, revoked.ErrNoCluster)
	}
	if err := r.NoLeader(); err != nil {
		return 0, err
	}
	if !r.leads() {
		waiting, cancel := context.WithTimeout(ctx, r.HeartbeatTimeout)
		r.reporter.giveBack(waiting)
		cancel()
	}
	r.reporter.leaving.Store(true)
	req := adminRequest(nodepb.AdminRequest_LEAVE, by, "")
	req.Server = string(r.self)
	index, err := r.toLeader(ctx, req)
	if err != nil {
		if !errors.Is(err, revoked.ErrOutcomeUnknown) {
			r.reporter.leaving.Store(false)
		}
		r.reporter.resume()
		return 0, err
	}
	if err := r.Identity.MarkLeft(); err != nil {
		return 0, err
	}
	r.End(nil)
	return index, nil
}

// Remove removes all instances of a node and returns the index of the change. It blocks until their
// read leases have expired. If force is true, Remove also removes a live node and skips the quorum
// check. It then needs a reason, which is logged.
//
// Errors: ErrUnprocessable, ErrNotFound, ErrConflict if the node is alive, ErrQuorumRisk,
// ErrNoLeader, ErrOutcomeUnknown; ErrForbidden or ErrActorChanged if, in the leader's state, the
// actor is not an administrator or operator.
func (r *Roster) Remove(
	ctx context.Context, by revoked.Actor, node string, force bool, reason string,
) (uint64, error) {
	if err := r.checkInCluster(); err != nil {
		return 0, err
	}
	req := adminRequest(nodepb.AdminRequest_REMOVE, by, node)
	req.Force, req.Reason = force, reason
	return r.toLeader(ctx, req)
}

// TransferLeader transfers leadership to a node, or to the live voter with the longest log if node
// is empty. It returns an index that the old leader had applied.
//
// Errors: ErrUnprocessable, ErrNotFound, ErrQuorumRisk without another live voter, ErrNoLeader;
// ErrForbidden or ErrActorChanged as in Remove.
func (r *Roster) TransferLeader(ctx context.Context, by revoked.Actor, node string) (uint64, error) {
	if err := r.checkInCluster(); err != nil {
		return 0, err
	}
	return r.toLeader(ctx, adminRequest(nodepb.AdminRequest_TRANSFER, by, node))
}

// Promote makes a node a voter and returns the index of the change.
//
// Errors: ErrNotFound; ErrUnprocessable if the node has not caught up, is configured as a
// non-voter, or the cluster has enough voters; ErrNoLeader, ErrOutcomeUnknown; ErrForbidden or
// ErrActorChanged as in Remove.
func (r *Roster) Promote(ctx context.Context, by revoked.Actor, node string) (uint64, error) {
	return r.changeSuffrage(ctx, nodepb.AdminRequest_PROMOTE, by, node)
}

// Demote removes the vote of a node and returns the index of the change. The node stays a non-voter
// until it is promoted. A leader transfers leadership first.
//
// Errors: ErrNotFound, ErrQuorumRisk, ErrUnprocessable, ErrNoLeader, ErrOutcomeUnknown;
// ErrForbidden or ErrActorChanged as in Remove.
func (r *Roster) Demote(ctx context.Context, by revoked.Actor, node string) (uint64, error) {
	return r.changeSuffrage(ctx, nodepb.AdminRequest_DEMOTE, by, node)
}

func (r *Roster) changeSuffrage(
	ctx context.Context, kind nodepb.AdminRequest_Kind, by revoked.Actor, node string,
) (uint64, error) {
	if err := r.checkInCluster(); err != nil {
		return 0, err
	}
	index, err := r.toLeader(ctx, adminRequest(kind, by, node))
	if errors.Is(err, revoked.ErrInvalid) {
		return 0, fmt.Errorf("%w: the leader runs a version that does not support this change; upgrade every member first",
			revoked.ErrUnprocessable)
	}
	return index, err
}

// TransferAway transfers leadership from this node to the live voter with the longest log. It may
// block for an election timeout.
func (r *Roster) TransferAway() error { return r.transfers.transferAway() }

// checkInCluster returns an error unless this node is in a cluster. The error wraps
// ErrUnprocessable first, because clients retry after ErrNoCluster alone.
func (r *Roster) checkInCluster() error {
	if conf, err := r.Configuration(); err != nil || len(conf.Servers) > 0 || r.ClusterID() != "" {
		return err
	}
	return fmt.Errorf("%w: %w: send the request to a member", revoked.ErrUnprocessable, revoked.ErrNoCluster)
}

// toLeader executes a change on the leader, which may be this node. It retries while no leader is
// known.
func (r *Roster) toLeader(ctx context.Context, req *nodepb.AdminRequest) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*r.RequestTimeout)
	defer cancel()
	for {
		changed := r.LeaderChanged()
		index, err := r.execute(ctx, r.NodeID, req)
		if errors.Is(err, revoked.ErrNoLeader) && !r.leads() {
			var resp nodepb.AdminResponse
			if err = r.CallLeader(ctx, nodepb.PathAdmin, req, &resp); err == nil {
				index, err = resp.Index, nodepb.DecodeError(resp.Code, resp.Detail)
			}
		}
		if !errors.Is(err, revoked.ErrNoLeader) {
			return index, err
		}
		if useless := r.NoLeader(); useless != nil {
			return 0, useless
		}
		select {
		case <-ctx.Done():
			return 0, err
		case <-changed:
		case <-time.After(propose.RetryPause):
		}
	}
}

// execute makes a change if this node leads, and returns ErrNoLeader if it does not. via is the
// node that forwards the request: this one, or the member that the certificate names.
func (r *Roster) execute(ctx context.Context, via string, req *nodepb.AdminRequest) (uint64, error) {
	if !r.leads() || r.Raft.State() != raft.Leader { // the term and the state do not change at the same time
		return 0, fmt.Errorf("%w: this node does not lead", revoked.ErrNoLeader)
	}
	index, err := uint64(0), r.authorize(ctx, via, req)
	if err == nil {
		index, err = r.change(via, req)
	}
	if !errors.Is(err, revoked.ErrNoLeader) { // the caller retries on the next leader
		r.logChange(via, req, err)
	}
	return index, err
}

// adminRequest returns a request of the given kind on behalf of a caller.
func adminRequest(kind nodepb.AdminRequest_Kind, by revoked.Actor, node string) *nodepb.AdminRequest {
	return &nodepb.AdminRequest{Kind: kind, Node: node, Actor: command.ActorMessage(by), RequestId: by.RequestID}
}

func (r *Roster) change(via string, req *nodepb.AdminRequest) (uint64, error) {
	by := req.GetActor().Actor()
	by.RequestID, by.Via = req.RequestId, via
	switch req.Kind {
	case nodepb.AdminRequest_LEAVE:
		id := raft.ServerID(req.Server)
		withdraw := command.WithdrawNodeOp(revoked.Actor{}, nodeOf(id))
		return r.changes.remove(id, command.OnBehalf(withdraw, r.knownCaller(by)), false,
			"stop this node instead and have it removed with force and a reason")
	case nodepb.AdminRequest_REMOVE:
		if req.Force && req.Reason == "" {
			return 0, fmt.Errorf("%w: forced removal: reason is missing", revoked.ErrUnprocessable)
		}
		return r.changes.removeNode(by, req.Node, req.Force, req.Reason)
	case nodepb.AdminRequest_TRANSFER:
		return r.transfers.transfer(req.Node)
	case nodepb.AdminRequest_PROMOTE:
		return r.changes.promoteNode(req.Node)
	case nodepb.AdminRequest_DEMOTE:
		return r.changes.demoteNode(req.Node)
	}
	return 0, fmt.Errorf("%w: unknown membership change", revoked.ErrInvalid)
}

// ServeAdmin executes a membership change for another member. It does not forward the request.
func (r *Roster) ServeAdmin(ctx context.Context, peer string, req *nodepb.AdminRequest) *nodepb.AdminResponse {
	if !r.IsMember(peer) {
		return refusal(fmt.Errorf("%w: not a member of this cluster", revoked.ErrForbidden))
	}
	ctx, cancel := context.WithTimeout(ctx, r.RequestTimeout)
	defer cancel()
	index, err := r.execute(ctx, peer, req)
	if err != nil {
		return refusal(err)
	}
	return &nodepb.AdminResponse{Index: index}
}

// ServeJoin admits a node. A member that does not lead forwards the request once. The leader
// accepts a forwarded request only after the joining node has confirmed it. The leader trusts the
// forwarding member only for the binding of that member's connection to the node. It checks the
// proof of a join token again.
func (r *Roster) ServeJoin(ctx context.Context, peer string, req *nodepb.JoinRequest) *nodepb.AdminResponse {
	h := req.GetHello()
	switch {
	case h.GetInstance() == "" || h.ClusterAddr == "":
		return refusal(fmt.Errorf("%w: join request: instance or cluster address is missing", revoked.ErrForbidden))
	case req.Forwarded && !r.IsMember(peer):
		return refusal(fmt.Errorf("%w: join request: forwarded by %s, which is not a member", revoked.ErrForbidden, peer))
	case !req.Forwarded && h.NodeId != peer:
		return refusal(fmt.Errorf("%w: a node may join only under its own name", revoked.ErrForbidden))
	}
	token, err := presentedBy(req)
	if err != nil {
		return refusal(err)
	}
	if !r.leads() {
		if req.Forwarded {
			return refusal(revoked.ErrNoLeader)
		}
		forwarded := &nodepb.JoinRequest{Hello: h, Forwarded: true, Token: req.Token, CertificateKey: req.CertificateKey}
		if token.key != nil {
			forwarded.TokenKey, forwarded.TokenProof, forwarded.Binding = req.TokenKey, req.TokenProof, req.Binding
			if err := r.LeaderKnows(ctx, command.KeyTokens); err != nil {
				return refusal(err)
			}
		}
		var resp nodepb.AdminResponse
		if err := r.CallLeader(ctx, nodepb.PathJoin, forwarded, &resp); err != nil {
			return refusal(err)
		}
		return &resp
	}
	if req.Forwarded {
		if err := r.checkForwarded(ctx, h); err != nil {
			return refusal(err)
		}
	}
	index, err := r.changes.admit(ctx, h, token)
	if err != nil {
		return refusal(err)
	}
	resp := &nodepb.AdminResponse{Index: index, ClusterId: r.ClusterID()}
	for _, p := range r.views() {
		if addr := p.hello.GetGossipAddr(); addr != "" {
			resp.GossipAddrs = append(resp.GossipAddrs, addr)
		}
	}
	if r.Gossip.Advertise != "" {
		resp.GossipAddrs = append(resp.GossipAddrs, r.Gossip.Advertise)
	}
	return resp
}

// checkForwarded returns an error unless the node that h names answers at the address in h. That
// node must have a certificate of that name and be the same instance. Without this check, a holder
// of one member's key could move other members and add instances of them.
func (r *Roster) checkForwarded(ctx context.Context, h *nodepb.Hello) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	var own nodepb.Hello
	err := r.Call(ctx, h.ClusterAddr, h.NodeId, nodepb.PathHello, r.Hello(), &own)
	switch {
	case err != nil:
		return fmt.Errorf("%w: the leader cannot check the join of %s at %s: %v",
			revoked.ErrNoLeader, h.NodeId, h.ClusterAddr, err)
	case own.NodeId != h.NodeId || own.Instance != h.Instance || own.ClusterAddr != h.ClusterAddr:
		return fmt.Errorf("%w: %s did not request this join", revoked.ErrForbidden, h.NodeId)
	}
	return nil
}

// refusal encodes an error as a response.
func refusal(err error) *nodepb.AdminResponse {
	return &nodepb.AdminResponse{Code: revoked.Code(err), Detail: revoked.Detail(err)}
}
