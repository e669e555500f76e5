package fsm

import (
	"sync"
	"time"

	"revoked/fsm/command"
)

// A Leadership is the leader of a term, as the first command of the term names it.
type Leadership struct {
	Term     uint64
	Server   string        // id in Raft's configuration; empty: not known
	OwnLease time.Duration // the longest lease that it grants itself in the term; 0: not known
}

// leaders remembers the leaders of the two newest terms whose first command this process applied.
// It is not part of the state: a restart loses it. Methods may be called concurrently.
type leaders struct {
	mu             sync.Mutex
	newest, second Leadership
}

// opened records the first command of a term, from an entry of the given term. It ignores a command
// for a term other than that of its entry, because such a command opens no term. Raft appends a
// command that waited for too long in a later term of the same leader.
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

// forget drops everything. Call it after the state was replaced, because the skipped entries may
// have opened terms.
func (l *leaders) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.newest, l.second = Leadership{}, Leadership{}
}

// LeaderBefore returns the leader of the newest term below term whose first command the state
// includes. It returns the zero value if this process does not know that leader. The first command
// of term must have been applied.
func (f *FSM) LeaderBefore(term uint64) Leadership {
	f.leaders.mu.Lock()
	defer f.leaders.mu.Unlock()
	if f.leaders.newest.Term != term {
		return Leadership{}
	}
	return f.leaders.second
}
