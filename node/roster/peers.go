package roster

import (
	"cmp"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/raft"

	"revoked/fsm/command"
	"revoked/node/lease"
	"revoked/node/nodepb"
)

// The peers table holds the leader's data about the other members, from their reports. Operators,
// autopilot and leadership transfers use it. Acknowledgements depend on the lease table instead.
// Methods take the time as an argument and may be called concurrently.
type peers struct {
	self    raft.ServerID
	silence time.Duration // time without a report after which a member counts as unreachable

	mu      sync.Mutex
	started time.Time // start of this term
	members map[raft.ServerID]raft.Server
	reports map[raft.ServerID]*peerState
	// highest holds the highest applied index ever reported to this process. Invariant: it never
	// decreases.
	highest map[raft.ServerID]*command.Mark
	rates   map[raft.ServerID]*lease.RateWatch // kept across terms: a clock's rate does not depend on the term
}

// A peerState holds the reports of one member in this term.
type peerState struct {
	hello     *nodepb.Hello
	boot      string
	stream    uint64 // number of the newest stream: only its reports count
	connected bool
	since     time.Time // start of the stream
	at        time.Time // time of the newest report; zero: none yet
	applied   uint64
	lastIndex uint64
	lastTerm  uint64
	diverged  string // description of how the hashes differ; empty if they agree
	load      uint32 // Report.write_load
}

// newPeers returns a table in which members count as unreachable after silence.
func newPeers(self raft.ServerID, silence time.Duration) *peers {
	return &peers{
		self: self, silence: silence,
		members: map[raft.ServerID]raft.Server{}, reports: map[raft.ServerID]*peerState{},
		highest: map[raft.ServerID]*command.Mark{}, rates: map[raft.ServerID]*lease.RateWatch{},
	}
}

// startTerm discards the reports of earlier terms.
func (p *peers) startTerm(now time.Time, conf raft.Configuration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.started = now
	p.reports = map[raft.ServerID]*peerState{}
	p.setMembers(conf)
}

// configure sets the newest configuration.
func (p *peers) configure(conf raft.Configuration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.setMembers(conf)
}

func (p *peers) setMembers(conf raft.Configuration) {
	p.members = make(map[raft.ServerID]raft.Server, len(conf.Servers))
	for _, s := range conf.Servers {
		p.members[s.ID] = s
	}
	maps.DeleteFunc(p.rates, func(id raft.ServerID, _ *lease.RateWatch) bool { return p.members[id].ID == "" })
}

// isMember reports whether id is in the configuration that was set last.
func (p *peers) isMember(id raft.ServerID) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, ok := p.members[id]
	return ok
}

// open starts a stream of reports, which replaces the member's earlier streams.
func (p *peers) open(id raft.ServerID, stream uint64, now time.Time, hello *nodepb.Hello, boot string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	st := &peerState{hello: hello, boot: boot, stream: stream, since: now, connected: true}
	if old := p.reports[id]; old != nil && old.boot == boot {
		st.applied, st.lastIndex, st.lastTerm, st.at = old.applied, old.lastIndex, old.lastTerm, old.at
	}
	p.reports[id] = st
}

// close ends a stream. The member is unreachable until it opens another.
func (p *peers) close(id raft.ServerID, stream uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if st := p.reports[id]; st != nil && st.stream == stream {
		st.connected = false
	}
}

// mark returns the highest index that a member has reported to this process as applied, or nil.
func (p *peers) mark(id raft.ServerID) *command.Mark {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.highest[id]
}

// servers returns the server ids of the members in ascending order.
func (p *peers) servers() []raft.ServerID {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Sorted(maps.Keys(p.members))
}

// observe records one report.
func (p *peers) observe(id raft.ServerID, stream uint64, now time.Time, r *nodepb.Report, diverged string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	st := p.reports[id]
	if st == nil || st.stream != stream {
		return
	}
	if r.Applied > p.highest[id].GetIndex() {
		p.highest[id] = &command.Mark{Server: string(id), Boot: []byte(st.boot), Index: r.Applied}
	}
	st.applied, st.lastIndex, st.lastTerm, st.at, st.diverged = r.Applied, r.LastIndex, r.LastTerm, now, diverged
	st.load = r.WriteLoad
}

// watchRate compares the member's boot clock when it sent a report, theirs, with this node's boot
// clock when the report arrived, now. It returns whether the clock rates differ by more than leases
// allow, whether this verdict changed, and by how much the rates differ. A new boot inherits the
// verdict on the previous boot, because the clock belongs to the machine.
func (p *peers) watchRate(
	id raft.ServerID, stream uint64, now, theirs lease.Instant,
) (wrong, changed bool, drift float64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	st, w := p.reports[id], p.rates[id]
	if st == nil || st.stream != stream {
		return false, false, 0
	}
	if w == nil || w.Boot() != st.boot {
		w = lease.NewRateWatch(st.boot, w != nil && w.Wrong())
		p.rates[id] = w
	}
	before := w.Wrong()
	w.Observe(now, theirs)
	return w.Wrong(), w.Wrong() != before, w.Drift()
}

// rateWrong returns the newest verdict on a member's clock.
func (p *peers) rateWrong(id raft.ServerID) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	w := p.rates[id]
	return w != nil && w.Wrong()
}

// clockOutlier reports whether the clocks of most connected members run at a rate that differs from
// this node's. If so, this node's clock is the wrong one.
func (p *peers) clockOutlier() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	wrong, all := 0, 0
	for id, st := range p.reports {
		if w := p.rates[id]; st.connected && w != nil {
			all++
			if w.Wrong() {
				wrong++
			}
		}
	}
	return 2*wrong > all
}

// inGracePeriod reports whether the term is so young that a live member may not have reported yet.
func (p *peers) inGracePeriod(now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return now.Sub(p.started) < p.silence
}

// isSingleNode reports whether the cluster has at most one member.
func (p *peers) isSingleNode() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.members) <= 1
}

// writeLoad returns the highest load that a connected member has reported, in percent.
func (p *peers) writeLoad() (highest uint32) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, st := range p.reports {
		if st.connected {
			highest = max(highest, st.load)
		}
	}
	return highest
}

// A peerView is a copy of the data about one member.
type peerView struct {
	server    raft.Server
	hello     *nodepb.Hello // nil: no report in this term
	applied   uint64
	lastIndex uint64
	lastTerm  uint64
	alive     bool          // this node is always alive
	since     time.Duration // age of the report stream
	age       time.Duration // age of the newest report
	diverged  string
}

// view lists the members, this node included, by server id.
func (p *peers) view(now time.Time) []peerView {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := make([]peerView, 0, len(p.members))
	for id, s := range p.members {
		v := peerView{server: s, alive: id == p.self}
		if st := p.reports[id]; st != nil && !st.at.IsZero() {
			v.hello, v.diverged = st.hello, st.diverged
			v.applied, v.lastIndex, v.lastTerm = st.applied, st.lastIndex, st.lastTerm
			v.age, v.since = now.Sub(st.at), now.Sub(st.since)
			v.alive = st.connected && v.age < p.silence
		}
		out = append(out, v)
	}
	slices.SortFunc(out, func(a, b peerView) int { return cmp.Compare(a.server.ID, b.server.ID) })
	return out
}
