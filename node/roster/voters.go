package roster

import (
	"context"
	"slices"
	"time"

	"github.com/hashicorp/raft"
	autopilot "github.com/hashicorp/raft-autopilot"

	"revoked/internal/hashilog"
)

// Voters promotes members to voters during one term, through raft-autopilot. A member becomes a
// voter once it has caught up and has been healthy for StableTime, unless it is configured as a
// non-voter. Voters never removes or demotes a server: automatic clean-up can shrink the quorum.
// Liveness comes from the report streams, not from gossip.
type Voters struct {
	*local
	pilot *autopilot.Autopilot
}

var _ autopilot.ApplicationIntegration = (*Voters)(nil)

// StartVoters starts promotions; Stop ends them. Call it only while this node leads.
func (r *Roster) StartVoters(ctx context.Context) *Voters {
	v := &Voters{local: r.local}
	v.pilot = autopilot.New(pilotRaft{r.Raft, r.changes}, v,
		autopilot.WithPromoter(&promoter{}),
		autopilot.WithUpdateInterval(500*time.Millisecond),
		autopilot.WithReconcileInterval(500*time.Millisecond),
		autopilot.WithLogger(hashilog.New(r.Log, "autopilot")))
	v.pilot.Start(ctx)
	return v
}

// Stop stops promotions and waits until they have stopped.
func (v *Voters) Stop() { <-v.pilot.Stop() }

// AutopilotConfig implements autopilot.ApplicationIntegration.
func (v *Voters) AutopilotConfig() *autopilot.Config {
	return &autopilot.Config{
		CleanupDeadServers:      false,
		LastContactThreshold:    v.peers.silence,
		MaxTrailingLogs:         maxTrailing,
		ServerStabilizationTime: v.StableTime,
	}
}

// NotifyState implements autopilot.ApplicationIntegration.
func (v *Voters) NotifyState(*autopilot.State) {}

// RemoveFailedServer implements autopilot.ApplicationIntegration. Autopilot does not call it while
// clean-up is off.
func (v *Voters) RemoveFailedServer(*autopilot.Server) {}

// Keys of a server's metadata for the promoter.
const (
	nonVoterMeta = "non_voter"
	regionMeta   = "region"
)

// KnownServers implements autopilot.ApplicationIntegration.
func (v *Voters) KnownServers() map[raft.ServerID]*autopilot.Server {
	out := map[raft.ServerID]*autopilot.Server{}
	for _, p := range v.views() {
		self := p.server.ID == v.self
		s := &autopilot.Server{
			ID: p.server.ID, Name: nodeOf(p.server.ID), Address: p.server.Address,
			NodeStatus: autopilot.NodeFailed, RaftVersion: int(raft.ProtocolVersionMax), IsLeader: self,
			Meta: map[string]string{},
		}
		if p.alive {
			s.NodeStatus = autopilot.NodeAlive
		}
		if v.mustNotVote(p) {
			s.Meta[nonVoterMeta] = "true"
		}
		s.Meta[regionMeta] = p.hello.GetRegion()
		if self {
			s.Meta[regionMeta] = v.Region
		}
		out[s.ID] = s
	}
	return out
}

// FetchServerStats implements autopilot.ApplicationIntegration.
func (v *Voters) FetchServerStats(
	_ context.Context, servers map[raft.ServerID]*autopilot.Server,
) map[raft.ServerID]*autopilot.ServerStats {
	out := map[raft.ServerID]*autopilot.ServerStats{}
	for _, p := range v.views() {
		switch {
		case servers[p.server.ID] == nil:
		case p.server.ID == v.self:
			out[p.server.ID] = &autopilot.ServerStats{LastTerm: v.Raft.CurrentTerm(), LastIndex: v.Raft.LastIndex()}
		case p.alive:
			out[p.server.ID] = &autopilot.ServerStats{LastContact: p.age, LastTerm: p.lastTerm, LastIndex: p.lastIndex}
		}
	}
	return out
}

// A pilotRaft is the Raft handle that autopilot gets. Its changes obey the rules of package roster.
type pilotRaft struct {
	*raft.Raft
	changes *changes
}

// AddVoter promotes a member. Autopilot may have decided on an older configuration. Raft's own
// AddVoter would then add a server that was removed in the meantime.
func (p pilotRaft) AddVoter(id raft.ServerID, addr raft.ServerAddress, _ uint64, _ time.Duration) raft.IndexFuture {
	index, err := p.changes.promote(id)
	return doneFuture{index, err}
}

// A doneFuture is a change that is complete.
type doneFuture struct {
	index uint64
	err   error
}

func (f doneFuture) Error() error  { return f.err }
func (f doneFuture) Index() uint64 { return f.index }

// A promoter promotes like autopilot's stable promoter, but skips members that are configured as
// non-voters, and new instances of nodes that still vote.
type promoter struct{ autopilot.StablePromoter }

var _ autopilot.Promoter = (*promoter)(nil)

// CalculatePromotionsAndDemotions implements autopilot.Promoter.
func (p *promoter) CalculatePromotionsAndDemotions(conf *autopilot.Config, st *autopilot.State) autopilot.RaftChanges {
	all := p.StablePromoter.CalculatePromotionsAndDemotions(conf, st)
	votes := map[string]bool{}
	for _, s := range st.Servers {
		votes[s.Server.Name] = votes[s.Server.Name] || s.HasVotingRights()
	}
	candidates := slices.DeleteFunc(all.Promotions, func(id raft.ServerID) bool {
		s := st.Servers[id].Server
		return s.Meta[nonVoterMeta] != "" || votes[s.Name]
	})
	return autopilot.RaftChanges{Promotions: spread(candidates, st.Servers)}
}

// spread returns the candidates to promote, in order. It keeps the cluster at maxVoters voters or
// fewer. The region with the fewest voters comes first, so that the loss of one region costs as few
// votes as possible.
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
	for ; len(candidates) > 0 && voters < maxVoters; voters++ {
		best := slices.MinFunc(candidates, func(a, b raft.ServerID) int {
			return inRegion[regionOf(a)] - inRegion[regionOf(b)]
		})
		out = append(out, best)
		candidates = slices.DeleteFunc(candidates, func(id raft.ServerID) bool { return id == best })
		inRegion[regionOf(best)]++
	}
	return out
}
