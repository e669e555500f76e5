package node

import (
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/hashicorp/raft"
)

// An anchoredLog is a log whose entries at and below the newest snapshot count only if they lead to
// that snapshot: if the entry at its index is there and has its term. Raft's paper (section 7) has a
// follower discard its log otherwise; hashicorp/raft keeps it. Two things follow, and this is
// against both:
//
//   - The entry that the follower still has at the snapshot's index, or the lack of one, refuses
//     every append, the leader sends its snapshot again, and so on without end. So the snapshot's
//     index is answered with the snapshot's term. Where the log ends at that very index, Raft does
//     not ask it: see anchorAppends.
//   - Should that node lead one day, it would send the entries below, which were never committed, to
//     a node that lags behind. So they are not shown, and the next append deletes them. A leader that
//     is asked for one that is not there sends its snapshot.
//
// Entries above the snapshot are left alone: Raft remembers them and removes them itself.
type anchoredLog struct {
	raft.LogStore
	newest  func() (index, term uint64)
	verdict atomic.Pointer[anchor]
}

var _ raft.LogStore = (*anchoredLog)(nil)

// An anchor is what was found out about one snapshot. It stays true: a snapshot is of committed
// entries, and those at its index and below are deleted from the front only.
type anchor struct {
	index, term uint64
	held        bool // the log leads to the snapshot, or holds nothing at its index and below
}

func newAnchoredLog(store raft.LogStore) *anchoredLog {
	return &anchoredLog{LogStore: store, newest: func() (uint64, uint64) { return 0, 0 }}
}

// use sets the source of the newest snapshot and discards what does not lead to it. Of a log that
// holds another entry at the snapshot's index nothing is of use, so all of it goes; Raft, which
// does not run yet, remembers none of it.
func (l *anchoredLog) use(newest func() (index, term uint64)) error {
	l.newest = newest
	a, err := l.anchor()
	if err != nil || a.index == 0 {
		return err
	}
	last, err := l.LogStore.LastIndex()
	if err != nil {
		return fmt.Errorf("last index: %w", err)
	}
	var entry raft.Log
	switch err := l.LogStore.GetLog(a.index, &entry); {
	case errors.Is(err, raft.ErrLogNotFound):
		// Entries above may follow the snapshot: a compaction may have cut right there.
		last = min(last, a.index)
	case err != nil:
		return fmt.Errorf("read entry %d: %w", a.index, err)
	case entry.Term == a.term:
		return nil
	}
	return l.discard(a, last)
}

// IsMonotonic tells Raft that gaps are allowed.
func (l *anchoredLog) IsMonotonic() bool { return false }

// GetLog reads an entry. The entry at the index of a snapshot that the log does not lead to is made
// up: it has the right index and term and nothing in it. Raft only compares it; it cannot be sent,
// since the entry before it, which would have to be sent along as the previous one, is not shown.
func (l *anchoredLog) GetLog(index uint64, entry *raft.Log) error {
	if newest, _ := l.newest(); index > newest {
		return l.LogStore.GetLog(index, entry)
	}
	a, err := l.anchor()
	switch {
	case err != nil:
		return err
	case index < a.index && !a.held:
		return raft.ErrLogNotFound
	case index != a.index:
		return l.LogStore.GetLog(index, entry)
	}
	err = l.LogStore.GetLog(index, entry)
	if errors.Is(err, raft.ErrLogNotFound) || err == nil && entry.Term != a.term {
		*entry = raft.Log{Index: a.index, Term: a.term, Type: raft.LogNoop}
		return nil
	}
	return err
}

// StoreLog stores an entry.
func (l *anchoredLog) StoreLog(entry *raft.Log) error { return l.StoreLogs([]*raft.Log{entry}) }

// StoreLogs stores entries, after removing those that do not lead to the newest snapshot: with the
// first entry stored above them, a later snapshot could no longer tell that they are wrong.
func (l *anchoredLog) StoreLogs(entries []*raft.Log) error {
	a, err := l.anchor()
	if err != nil {
		return err
	}
	if !a.held {
		if err := l.discard(a, a.index); err != nil {
			return err
		}
	}
	return l.LogStore.StoreLogs(entries)
}

// discard removes all entries up to last.
func (l *anchoredLog) discard(a *anchor, last uint64) error {
	first, err := l.LogStore.FirstIndex()
	if err != nil {
		return fmt.Errorf("first index: %w", err)
	}
	if first != 0 && first <= last {
		if err := l.LogStore.DeleteRange(first, last); err != nil {
			return err
		}
	}
	l.verdict.Store(&anchor{index: a.index, term: a.term, held: true})
	return nil
}

// anchor returns what is known of the newest snapshot, looking it up once for each.
func (l *anchoredLog) anchor() (*anchor, error) {
	index, term := l.newest()
	if a := l.verdict.Load(); a != nil && a.index == index && a.term == term {
		return a, nil
	}
	a := &anchor{index: index, term: term, held: true}
	if index > 0 {
		var entry raft.Log
		switch err := l.LogStore.GetLog(index, &entry); {
		case errors.Is(err, raft.ErrLogNotFound):
			first, err := l.LogStore.FirstIndex()
			if err != nil {
				return nil, fmt.Errorf("first index: %w", err)
			}
			a.held = first == 0 || first > index
		case err != nil:
			return nil, fmt.Errorf("read entry %d: %w", index, err)
		default:
			a.held = entry.Term == term
		}
	}
	l.verdict.Store(a)
	return a, nil
}

// anchorAppends returns what is to be done to an AppendEntries request before Raft sees it. What a snapshot ends
// with and holds is committed, and every leader has it; so of a request that begins at or below the newest snapshot,
// what the snapshot holds is left out, and there is no previous entry to compare.
//
// Where the log ends at the snapshot's index in an entry of another term, Raft compares with the term that it
// remembers of it and asks no log: it would refuse what follows the snapshot, be sent the snapshot again, and so on
// without end (hashicorp/raft#697). And a leader that goes back step by step, because of a snapshot that came between
// this look and Raft's, would end at its own snapshot, which may be older, and Raft would go back to that.
func anchorAppends(newest func() (index, term uint64)) func(*raft.AppendEntriesRequest) {
	return func(req *raft.AppendEntriesRequest) {
		index, term := newest()
		if req.PrevLogEntry > index || req.PrevLogEntry == index && req.PrevLogTerm != term {
			return
		}
		held := 0
		for held < len(req.Entries) && req.Entries[held].Index <= index {
			if e := req.Entries[held]; e.Index == index && e.Term != term {
				return // of no leader: for Raft to refuse
			}
			held++
		}
		req.PrevLogEntry, req.PrevLogTerm, req.Entries = 0, 0, req.Entries[held:]
	}
}
