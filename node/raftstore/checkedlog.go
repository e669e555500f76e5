package raftstore

import (
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/hashicorp/raft"
)

// snapshotCheckedLog returns entries up to the newest snapshot only if they lead to it. The entry
// at the snapshot's index must exist and have the snapshot's term. Otherwise a follower in Raft's
// paper (section 7) discards its log, but hashicorp/raft keeps it. That has two consequences, and
// this layer prevents both:
//
//   - Because of the entry at the snapshot's index, or its absence, Raft refuses every append. The
//     leader sends its snapshot again and again. So GetLog returns an entry with the snapshot's
//     term for the snapshot's index. If the log ends at that index, Raft does not read the log: see
//     ReviewAppend.
//   - If the node leads later, it would send the entries below the snapshot, which were never
//     committed, to a follower that lags behind. So they are hidden, and the next append deletes
//     them. A leader that lacks an entry that a follower needs sends its snapshot.
//
// Entries above the snapshot stay: Raft keeps track of them and removes them itself.
type snapshotCheckedLog struct {
	raft.LogStore
	newest  func() (index, term uint64)
	checked atomic.Pointer[snapshotCheck]
}

var _ raft.LogStore = (*snapshotCheckedLog)(nil)

// snapshotCheck is the result of comparing the log with one snapshot. The result stays valid: a
// snapshot contains committed entries, and log entries up to its index are deleted only from the
// front.
type snapshotCheck struct {
	index, term uint64
	leads       bool // whether the log leads to the snapshot, or has no entry up to its index
}

// newSnapshotCheckedLog returns the log after deleting the entries that do not lead to the newest
// snapshot. If the log has an entry of another term at the snapshot's index, the whole log is
// deleted. Raft must not run yet, because it keeps the position of the last entry in memory.
//
// newest returns index and term of the newest snapshot, or zeros without a snapshot. Every read and
// write of the log calls it, from several goroutines: it must be quick and must not use the log.
func newSnapshotCheckedLog(store raft.LogStore, newest func() (index, term uint64)) (*snapshotCheckedLog, error) {
	l := &snapshotCheckedLog{LogStore: store, newest: newest}
	c, err := l.check()
	if err != nil || c.index == 0 {
		return l, err
	}
	last, err := store.LastIndex()
	if err != nil {
		return nil, fmt.Errorf("last index: %w", err)
	}
	var entry raft.Log
	switch err := store.GetLog(c.index, &entry); {
	case errors.Is(err, raft.ErrLogNotFound):
		// Entries after this index may follow the snapshot: a compaction may have cut the log at the
		// index.
		last = min(last, c.index)
	case err != nil:
		return nil, fmt.Errorf("read entry %d: %w", c.index, err)
	case entry.Term == c.term:
		return l, nil
	}
	return l, l.discard(c, last)
}

// IsMonotonic implements raft.MonotonicLogStore: gaps are allowed.
func (l *snapshotCheckedLog) IsMonotonic() bool { return false }

// GetLog implements raft.LogStore. If the log does not lead to the newest snapshot, GetLog returns
// a synthetic entry for the snapshot's index. That entry has the right index and term, and is
// otherwise empty. Raft only compares it. Raft never sends it, because sending requires the entry
// before it, which is hidden.
func (l *snapshotCheckedLog) GetLog(index uint64, entry *raft.Log) error {
	if newest, _ := l.newest(); index > newest {
		return l.LogStore.GetLog(index, entry)
	}
	c, err := l.check()
	switch {
	case err != nil:
		return err
	case index < c.index && !c.leads:
		return raft.ErrLogNotFound
	case index != c.index:
		return l.LogStore.GetLog(index, entry)
	}
	err = l.LogStore.GetLog(index, entry)
	if errors.Is(err, raft.ErrLogNotFound) || err == nil && entry.Term != c.term {
		*entry = raft.Log{Index: c.index, Term: c.term, Type: raft.LogNoop}
		return nil
	}
	return err
}

// StoreLog implements raft.LogStore.
func (l *snapshotCheckedLog) StoreLog(entry *raft.Log) error {
	return l.StoreLogs([]*raft.Log{entry})
}

// StoreLogs implements raft.LogStore. It first deletes entries that do not lead to the newest
// snapshot. With a valid entry above them, the check against a later snapshot could not detect that
// they are wrong.
func (l *snapshotCheckedLog) StoreLogs(entries []*raft.Log) error {
	c, err := l.check()
	if err != nil {
		return err
	}
	if !c.leads {
		if err := l.discard(c, c.index); err != nil {
			return err
		}
	}
	return l.LogStore.StoreLogs(entries)
}

// discard deletes all entries up to last.
func (l *snapshotCheckedLog) discard(c *snapshotCheck, last uint64) error {
	first, err := l.FirstIndex()
	if err != nil {
		return fmt.Errorf("first index: %w", err)
	}
	if first != 0 && first <= last {
		if err := l.DeleteRange(first, last); err != nil {
			return err
		}
	}
	l.checked.Store(&snapshotCheck{index: c.index, term: c.term, leads: true})
	return nil
}

// check compares the log with the newest snapshot, once for each snapshot.
func (l *snapshotCheckedLog) check() (*snapshotCheck, error) {
	index, term := l.newest()
	if c := l.checked.Load(); c != nil && c.index == index && c.term == term {
		return c, nil
	}
	c := &snapshotCheck{index: index, term: term, leads: true}
	if index > 0 {
		var entry raft.Log
		switch err := l.LogStore.GetLog(index, &entry); {
		case errors.Is(err, raft.ErrLogNotFound):
			first, err := l.FirstIndex()
			if err != nil {
				return nil, fmt.Errorf("first index: %w", err)
			}
			c.leads = first == 0 || first > index
		case err != nil:
			return nil, fmt.Errorf("read entry %d: %w", index, err)
		default:
			c.leads = entry.Term == term
		}
	}
	l.checked.Store(c)
	return c, nil
}

// reviewAppend removes the entries that the newest snapshot contains from a received AppendEntries
// request. They are committed, so every leader has them. After that, a request that began at or
// below the snapshot has no previous entry for Raft to compare.
//
// Suppose that the log ends at the snapshot's index in an entry of another term. Raft does not read
// the log, but compares the term that it keeps in memory. It would refuse the entries after the
// snapshot, and the leader would send the snapshot forever (hashicorp/raft#697).
//
// The next request, which begins below the snapshot, must pass too. Otherwise the leader goes back
// entry by entry to its own snapshot. That snapshot may be older, and Raft would install it.
func reviewAppend(req *raft.AppendEntriesRequest, index, term uint64) {
	if req.PrevLogEntry > index || req.PrevLogEntry == index && req.PrevLogTerm != term {
		return
	}
	held := 0
	for held < len(req.Entries) && req.Entries[held].Index <= index {
		if e := req.Entries[held]; e.Index == index && e.Term != term {
			return // a valid leader sends no such entry, so Raft must refuse it
		}
		held++
	}
	req.PrevLogEntry, req.PrevLogTerm, req.Entries = 0, 0, req.Entries[held:]
}
