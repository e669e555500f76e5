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

// leaders remembers the leaders of the two newest terms whose first command this process has
// applied. It is not part of the state: after a restart, older ones are not known. All methods may
// be called concurrently.
type leaders struct {
	mu             sync.Mutex
	newest, second Leadership
}

// opened notes the first command of a term, in an entry of the given term. A leader that waited for
// an earlier term to end may have proposed the command in a later one: that opens no term.
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
	case n.OwnLease == 0 || l.newest.OwnLease == 0: // a repeat without a bound
		l.newest.OwnLease = 0
	default:
		l.newest.OwnLease = max(l.newest.OwnLease, n.OwnLease)
	}
}

// forget drops everything: the state was replaced, and its entries may have opened terms.
func (l *leaders) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.newest, l.second = Leadership{}, Leadership{}
}

// LeaderBefore returns the leader of the newest term below term whose first command the state
// includes. It is zero if this process does not know it. The first command of term must be applied.
func (f *FSM) LeaderBefore(term uint64) Leadership {
	f.leaders.mu.Lock()
	defer f.leaders.mu.Unlock()
	if f.leaders.newest.Term != term {
		return Leadership{}
	}
	return f.leaders.second
}
