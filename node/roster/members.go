package roster

import (
	"context"
	"fmt"
	"time"

	"github.com/hashicorp/raft"

	"revoked"
	"revoked/node/nodepb"
)

// Members returns the leader's view of the members, or this node's own view if the leader does not
// answer.
func (r *Roster) Members(ctx context.Context) []revoked.Member {
	if r.leads() {
		return membersOf(r.table())
	}
	ctx, cancel := context.WithTimeout(ctx, r.HeartbeatTimeout*2)
	defer cancel()
	var resp nodepb.MembersResponse
	err := r.CallLeader(ctx, nodepb.PathMembers, &nodepb.AdminRequest{}, &resp)
	if err != nil || resp.Code != 0 || len(resp.Members) == 0 { // a leader of version 0.2 sends none
		return membersOf(r.table())
	}
	return membersOf(resp.Members)
}

// LeaderView returns this node's view of the members if it leads, else false. It calls no node.
func (r *Roster) LeaderView() ([]revoked.Member, bool) {
	if !r.leads() {
		return nil, false
	}
	return membersOf(r.table()), true
}

// ServeMembers returns the leader's view to another member.
func (r *Roster) ServeMembers(peer string) *nodepb.MembersResponse {
	if !r.IsMember(peer) || !r.leads() {
		return &nodepb.MembersResponse{Code: revoked.Code(revoked.ErrNoLeader)}
	}
	return &nodepb.MembersResponse{Members: r.table()}
}

// table returns this node's view of the members. The leader's view comes from their reports, the
// view of any other node from its log and from gossip.
func (r *Roster) table() []*nodepb.Member {
	conf, err := r.Configuration()
	if err != nil {
		return nil
	}
	views := map[raft.ServerID]peerView{}
	for _, p := range r.views() {
		views[p.server.ID] = p
	}
	gossip := r.gossip.known()
	_, leader := r.leader()
	applied := r.FSM.Applied()
	out := make([]*nodepb.Member, 0, len(conf.Servers))
	for _, s := range conf.Servers {
		m := &nodepb.Member{
			NodeId: nodeOf(s.ID), Cluster: hostOf(s.Address),
			Voter: s.Suffrage == raft.Voter, Leader: s.ID == leader,
			LastContact: -1, LeaseLeft: int64(r.Leader.RemainingOf(s.ID)),
		}
		if g, ok := gossip[m.NodeId]; ok {
			m.Region, m.Api, m.Version, m.Alive = g.Region, g.API, g.Version, g.Alive
		}
		switch v := views[s.ID]; {
		case s.ID == r.self:
			m.Region, m.Api, m.Version, m.Alive = r.Region, r.API, r.Version, true
			m.AppliedIndex, m.LastContact, m.LeaseLeft = applied, 0, int64(r.Holder.Remaining())
		case v.hello != nil:
			m.Region, m.Api, m.Version, m.Alive = v.hello.Region, v.hello.Api, v.hello.Version, v.alive
			m.AppliedIndex, m.LastContact = v.applied, int64(v.age)
		case leader == r.self && !r.peers.inGracePeriod(time.Now()): // gossip detects failures later
			m.Alive = false
		}
		if m.AppliedIndex < applied {
			m.Behind = applied - m.AppliedIndex
		}
		out = append(out, m)
	}
	return out
}

// membersOf converts messages to members. It never returns nil.
func membersOf(messages []*nodepb.Member) []revoked.Member {
	out := make([]revoked.Member, len(messages))
	for i, m := range messages {
		out[i] = revoked.Member{
			NodeID: m.NodeId, Region: m.Region, API: m.Api, Cluster: m.Cluster,
			Voter: m.Voter, Leader: m.Leader, Alive: m.Alive, AppliedIndex: m.AppliedIndex, Behind: m.Behind,
			LastContact: time.Duration(m.LastContact), LeaseLeft: time.Duration(m.LeaseLeft), Version: m.Version,
		}
	}
	return out
}

// APIOf returns the API URL of a member, or "" if it is unknown. It may call the leader, which
// takes at most a second.
func (r *Roster) APIOf(id raft.ServerID) string {
	if id == r.self {
		return r.API
	}
	if g, ok := r.gossip.known()[nodeOf(id)]; ok {
		return g.API
	}
	if known := r.leaderAPI.Load(); known != nil && known.id == id {
		return known.url
	}
	addr, _ := r.leader()
	ctx, cancel := context.WithTimeout(r.Context, time.Second)
	defer cancel()
	h, err := r.hello(ctx, hostOf(addr))
	if err != nil || serverOf(h) != id {
		return ""
	}
	r.leaderAPI.Store(&leaderAPI{id, h.Api})
	return h.Api
}

// WriteLoad returns the highest load of the members' stores, in percent: see [fsm.FSM.WriteLoad].
// Only the leader has the loads of other members.
func (r *Roster) WriteLoad() int { return max(r.FSM.WriteLoad(), int(r.peers.writeLoad())) }

// CanApply returns ErrUnprocessable unless every member is known to support commands of a version.
// An entry that a member cannot apply would stop that member. While the leader is so new that a
// member may not have reported yet, CanApply returns ErrNoLeader instead.
func (r *Roster) CanApply(version uint32) error {
	return canApply(version, r.views(), r.self, r.FSM.Version(), r.peers.inGracePeriod(time.Now()))
}

// IsKnown reports whether every member is known to support commands of a version. It does not use
// reports, because a new leader has none yet. It uses the versions in the log or, in the first
// term, the hellos of the initial members.
func (r *Roster) IsKnown(version uint32) bool {
	return version <= r.FSM.Version() || r.joiner.initialMembersKnow(version)
}

// canApply is CanApply for the given members. This node, self, supports every operation that it
// proposes. Every member supports inLog, the highest version of a command in the log. If isNew is
// true, this node has just become leader.
func canApply(version uint32, members []peerView, self raft.ServerID, inLog uint32, isNew bool) error {
	if version <= inLog {
		return nil
	}
	for _, m := range members {
		switch {
		case m.server.ID == self:
		case m.hello == nil && isNew:
			return fmt.Errorf("%w: the leader is new and has no report from %s yet", revoked.ErrNoLeader,
				nodeOf(m.server.ID))
		case m.hello == nil:
			return fmt.Errorf("%w: %s has not reported which operations it supports; bring it back or remove it",
				revoked.ErrUnprocessable, nodeOf(m.server.ID))
		case max(m.hello.Commands, 1) < version:
			return tooOld(m.server.ID, m.hello)
		}
	}
	return nil
}

func tooOld(id raft.ServerID, h *nodepb.Hello) error {
	return fmt.Errorf("%w: %s runs version %s, which does not support this operation; upgrade every member first",
		revoked.ErrUnprocessable, nodeOf(id), h.Version)
}

// LeaderKnows returns ErrUnprocessable if the leader, which is another member, does not support
// commands of a version. It calls the leader, unless the log has commands of that version, because
// then every member supports them. It returns ErrNoLeader if the leader does not answer.
func (r *Roster) LeaderKnows(ctx context.Context, version uint32) error {
	if version <= r.FSM.Version() {
		return nil
	}
	addr, id := r.leader()
	h, err := r.hello(ctx, hostOf(addr))
	switch {
	case err != nil:
		return fmt.Errorf("%w: cannot get the version of the leader: %v", revoked.ErrNoLeader, err)
	case serverOf(h) != id:
		return fmt.Errorf("%w: %s was restarted or replaced", revoked.ErrNoLeader, nodeOf(id))
	case max(h.Commands, 1) < version:
		return tooOld(id, h)
	}
	return nil
}
