package node

import (
	"context"
	"slices"
	"time"

	"github.com/hashicorp/raft"
	autopilot "github.com/hashicorp/raft-autopilot"

	"revoked/transport"
)

// voterKeeper runs raft-autopilot during a term: a member that has caught up and was healthy for a
// while becomes a voter, unless it chose not to. It removes and demotes nobody: dead-server clean-up
// has shrunk quorums elsewhere. Liveness comes from the report streams, not from gossip.
type voterKeeper struct {
	n       *Node
	pilot   *autopilot.Autopilot
	stopped chan struct{}
}

var _ autopilot.ApplicationIntegration = (*voterKeeper)(nil)

func (n *Node) startAutopilot(ctx context.Context) *voterKeeper {
	v := &voterKeeper{n: n, stopped: make(chan struct{})}
	v.pilot = autopilot.New(n.raft, v,
		autopilot.WithPromoter(&choosyPromoter{}),
		autopilot.WithUpdateInterval(500*time.Millisecond),
		autopilot.WithReconcileInterval(500*time.Millisecond),
		autopilot.WithLogger(transport.RaftLog(n.log, "autopilot")))
	v.pilot.Start(ctx)
	return v
}

func (v *voterKeeper) stop() {
	<-v.pilot.Stop()
	close(v.stopped)
}

// AutopilotConfig implements autopilot.ApplicationIntegration.
func (v *voterKeeper) AutopilotConfig() *autopilot.Config {
	return &autopilot.Config{
		CleanupDeadServers:      false,
		LastContactThreshold:    v.n.peers.silence,
		MaxTrailingLogs:         512,
		ServerStabilizationTime: v.n.cfg.StableTime,
	}
}

// NotifyState implements autopilot.ApplicationIntegration.
func (v *voterKeeper) NotifyState(*autopilot.State) {}

// RemoveFailedServer implements autopilot.ApplicationIntegration; clean-up is off, so it is never called.
func (v *voterKeeper) RemoveFailedServer(*autopilot.Server) {}

// KnownServers implements autopilot.ApplicationIntegration.
func (v *voterKeeper) KnownServers() map[raft.ServerID]*autopilot.Server {
	out := map[raft.ServerID]*autopilot.Server{}
	for _, p := range v.n.views() {
		self := p.server.ID == v.n.self
		s := &autopilot.Server{
			ID: p.server.ID, Name: nodeOf(p.server.ID), Address: p.server.Address,
			NodeStatus: autopilot.NodeFailed, RaftVersion: int(raft.ProtocolVersionMax), IsLeader: self,
			Meta: map[string]string{},
		}
		if self || p.alive {
			s.NodeStatus = autopilot.NodeAlive
		}
		if p.who != nil && p.who.NonVoter || self && v.n.cfg.NonVoter {
			s.Meta[nonVoterMeta] = "true"
		}
		switch {
		case self:
			s.Meta[regionMeta] = v.n.cfg.Region
		case p.who != nil:
			s.Meta[regionMeta] = p.who.Region
		}
		out[s.ID] = s
	}
	return out
}

// FetchServerStats implements autopilot.ApplicationIntegration.
func (v *voterKeeper) FetchServerStats(_ context.Context, servers map[raft.ServerID]*autopilot.Server) map[raft.ServerID]*autopilot.ServerStats {
	out := map[raft.ServerID]*autopilot.ServerStats{}
	for _, p := range v.n.views() {
		switch {
		case servers[p.server.ID] == nil:
		case p.server.ID == v.n.self:
			out[p.server.ID] = &autopilot.ServerStats{LastTerm: v.n.raft.CurrentTerm(), LastIndex: v.n.raft.LastIndex()}
		case p.alive:
			out[p.server.ID] = &autopilot.ServerStats{LastContact: p.heardAgo, LastTerm: p.lastTerm, LastIndex: p.lastIndex}
		}
	}
	return out
}

// What KnownServers tells the promoter about a member.
const (
	nonVoterMeta = "non_voter"
	regionMeta   = "region"
)

// A choosyPromoter promotes like autopilot's own, but leaves out members that chose not to vote.
type choosyPromoter struct{ autopilot.StablePromoter }

var _ autopilot.Promoter = (*choosyPromoter)(nil)

// CalculatePromotionsAndDemotions implements autopilot.Promoter.
func (c *choosyPromoter) CalculatePromotionsAndDemotions(conf *autopilot.Config, st *autopilot.State) autopilot.RaftChanges {
	all := c.StablePromoter.CalculatePromotionsAndDemotions(conf, st)
	var candidates []raft.ServerID
	for _, id := range all.Promotions {
		if st.Servers[id].Server.Meta[nonVoterMeta] == "" {
			candidates = append(candidates, id)
		}
	}
	return autopilot.RaftChanges{Promotions: spread(candidates, st.Servers)}
}

// maxVoters bounds the majority that every write has to wait for; further members are replicas until
// a voter goes.
const maxVoters = 7

// spread chooses whom to promote: the region with the fewest voters comes first, so that the loss of
// one region costs as few votes as can be.
func spread(candidates []raft.ServerID, servers map[raft.ServerID]*autopilot.ServerState) []raft.ServerID {
	inRegion, voters := map[string]int{}, 0
	for _, s := range servers {
		if s.HasVotingRights() {
			inRegion[s.Server.Meta[regionMeta]]++
			voters++
		}
	}
	regionOf := func(id raft.ServerID) string { return servers[id].Server.Meta[regionMeta] }
	var out []raft.ServerID
	slices.Sort(candidates)
	for len(candidates) > 0 && voters < maxVoters {
		best := 0
		for i, id := range candidates {
			if inRegion[regionOf(id)] < inRegion[regionOf(candidates[best])] {
				best = i
			}
		}
		id := candidates[best]
		out, candidates = append(out, id), slices.Delete(candidates, best, best+1)
		inRegion[regionOf(id)]++
		voters++
	}
	return out
}
