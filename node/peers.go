package node

import (
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// replicatesTo reports whether this node leads in term and has the server in its configuration.
func (n *Node) replicatesTo(id raft.ServerID, term uint64) bool {
	if n.raft.State() != raft.Leader || n.raft.CurrentTerm() != term {
		return false
	}
	conf, err := n.configuration()
	return err == nil && inConfiguration(conf, id)
}

// peers is what the leader knows of the other members by their reports. It is for operators, for
// autopilot and for choosing a successor; what acknowledgements rest on is the lease table.
// Time is an argument.
type peers struct {
	silence time.Duration // a member that said nothing for so long is not reachable

	mu      sync.Mutex
	highest map[raft.ServerID]uint64 // applied by each instance as far as this process has ever heard
	began   time.Time                // when this term began to lead
	members map[raft.ServerID]raft.Server
	self    raft.ServerID
	heard   map[raft.ServerID]*peerState
	rates   map[raft.ServerID]*rateWatch // of all terms: they are this machine's clock and theirs
}

type peerState struct {
	who       *Hello
	boot      string
	stream    uint64 // the stream that speaks for it: a newer one replaces an older
	connected bool
	applied   uint64
	lastIndex uint64
	lastTerm  uint64
	at        time.Time
	diverged  string
}

func newPeers(self raft.ServerID, silence time.Duration) *peers {
	return &peers{self: self, silence: silence, heard: map[raft.ServerID]*peerState{}, highest: map[raft.ServerID]uint64{}, rates: map[raft.ServerID]*rateWatch{}, members: map[raft.ServerID]raft.Server{}}
}

// lead begins a term: what earlier terms heard counts no more.
func (p *peers) lead(now time.Time, conf raft.Configuration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.began = now
	p.heard = map[raft.ServerID]*peerState{}
	p.setMembers(conf)
}

func (p *peers) setMembers(conf raft.Configuration) {
	p.members = make(map[raft.ServerID]raft.Server, len(conf.Servers))
	for _, s := range conf.Servers {
		p.members[s.ID] = s
	}
	maps.DeleteFunc(p.rates, func(id raft.ServerID, _ *rateWatch) bool { return p.members[id].ID == "" })
}

// configure tells the newest configuration.
func (p *peers) configure(conf raft.Configuration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.setMembers(conf)
}

// isMember reports whether id is in the configuration that was told last.
func (p *peers) isMember(id raft.ServerID) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	_, ok := p.members[id]
	return ok
}

// open begins a stream of reports.
func (p *peers) open(id raft.ServerID, stream uint64, who *Hello, boot string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	st := &peerState{who: who, boot: boot, stream: stream, connected: true}
	if old := p.heard[id]; old != nil && old.boot == boot {
		st.applied, st.lastIndex, st.lastTerm, st.at = old.applied, old.lastIndex, old.lastTerm, old.at
	}
	p.heard[id] = st
}

// rolledBack reports whether an instance has come back with a log that ends below what it had applied:
// an old image of its disk. It may have forgotten a vote, too.
func (p *peers) rolledBack(id raft.ServerID, lastIndex uint64) (had uint64, back bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.highest[id], lastIndex < p.highest[id]
}

// observe takes one report.
func (p *peers) observe(id raft.ServerID, stream uint64, now time.Time, r *Report, diverged string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	st := p.heard[id]
	if st == nil || st.stream != stream {
		return
	}
	p.highest[id] = max(p.highest[id], r.Applied)
	st.applied, st.lastIndex, st.lastTerm, st.at, st.diverged = r.Applied, r.LastIndex, r.LastTerm, now, diverged
}

// watchRate takes a member's boot clock as it was sent and this node's as it came in, by the stream that speaks
// for the member. It reports whether the two run apart further than leases allow, whether that is news, and
// by how much. A new life begins with what was said of the one before.
func (p *peers) watchRate(id raft.ServerID, stream uint64, now, theirs instant) (wrong, news bool, drift float64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	st, w := p.heard[id], p.rates[id]
	if st == nil || st.stream != stream {
		return false, false, 0
	}
	if w == nil || w.boot != st.boot {
		next := &rateWatch{boot: st.boot, wrong: w != nil && w.wrong}
		p.rates[id], w = next, next
	}
	was := w.wrong
	w.observe(now, theirs)
	return w.wrong, w.wrong != was, w.drift
}

// rateWrong reports what watchRate said of a member last.
func (p *peers) rateWrong(id raft.ServerID) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	w := p.rates[id]
	return w != nil && w.wrong
}

// alien reports whether the clocks of most members that report run apart from this node's: then it is this
// one's that is wrong.
func (p *peers) alien() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	wrong, all := 0, 0
	for id, st := range p.heard {
		if w := p.rates[id]; st.connected && w != nil {
			all++
			if w.wrong {
				wrong++
			}
		}
	}
	return 2*wrong > all
}

// close ends a stream: the member is not reachable until it opens another.
func (p *peers) close(id raft.ServerID, stream uint64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if st := p.heard[id]; st != nil && st.stream == stream {
		st.connected = false
	}
}

// settling reports whether the term is so young that a live member may not have reported yet.
func (p *peers) settling(now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return now.Sub(p.began) < p.silence
}

// alone reports whether there is no other member: nobody has to learn the commit index.
func (p *peers) alone() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.members) <= 1
}

// A peerView is a copy of what is known of one member.
type peerView struct {
	server    raft.Server
	who       *Hello // nil: never heard in this term
	applied   uint64
	lastIndex uint64
	lastTerm  uint64
	alive     bool
	heardAgo  time.Duration
	diverged  string
}

// view lists the members, this node included, by server id.
func (p *peers) view(now time.Time) []peerView {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := make([]peerView, 0, len(p.members))
	for id, s := range p.members {
		v := peerView{server: s}
		if st := p.heard[id]; st != nil {
			v.who, v.applied, v.lastIndex, v.lastTerm, v.diverged = st.who, st.applied, st.lastIndex, st.lastTerm, st.diverged
			v.alive = st.connected && !st.at.IsZero() && now.Sub(st.at) < p.silence
			v.heardAgo = now.Sub(st.at)
			if st.at.IsZero() {
				v.who = nil
			}
		}
		out = append(out, v)
	}
	slices.SortFunc(out, func(a, b peerView) int {
		if a.server.ID < b.server.ID {
			return -1
		}
		return 1
	})
	return out
}
