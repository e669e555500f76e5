package fsm

import (
	"sync"
	"time"

	"revoked/fsm/command"
)

// A Leadership describes the leader of a term. The first command of the term contains it.
type Leadership struct {
	Term     uint64
	Server   string        // id in Raft's configuration; empty: not known
	OwnLease time.Duration // longest lease that the leader grants itself in the term; 0: not known
}

// leaders records the leaders of the two newest terms whose first command this process applied.
// It is not part of the state: a restart loses it. Methods may be called concurrently.
type leaders struct {
	mu             sync.Mutex
	newest, second Leadership
}

// opened records the leader that m names, if m is for the term of its log entry. Otherwise m opens
// no term, and opened ignores it. This happens if m was queued for so long that Raft appended it in
// a later term of the same leader.
func (l *leaders) opened(term uint64, m *command.Epoch) {
	if m.Term != term {
		return
	}
	n := Leadership{Term: term, Server: m.Server, OwnLease: time.Duration(m.OwnLease) * time.Microsecond}
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case term > l.newest.Term:
		l.newest, l.second = n, l.newest
	case term < l.newest.Term:
	case n.OwnLease == 0 || l.newest.OwnLease == 0: // the same term again, without a bound
		l.newest.OwnLease = 0
	default:
		l.newest.OwnLease = max(l.newest.OwnLease, n.OwnLease)
	}
}

// forget drops the recorded leaders. Call it after a snapshot has replaced the state, because the
// entries that the snapshot skipped may have opened terms.
func (l *leaders) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.newest, l.second = Leadership{}, Leadership{}
}

// LeaderBefore returns the leader of the newest term before the given one whose first command the
// state includes. It returns the zero value if this process has not recorded that leader. The first
// command of the given term must have been applied.
func (f *FSM) LeaderBefore(term uint64) Leadership {
	f.leaders.mu.Lock()
	defer f.leaders.mu.Unlock()
	if f.leaders.newest.Term != term {
		return Leadership{}
	}
	return f.leaders.second
}
