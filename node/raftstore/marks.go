package raftstore

import (
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/hashicorp/raft"
	raftboltdb "github.com/hashicorp/raft-boltdb/v2"

	"revoked/fsm/command"
)

const (
	keyMarks = "Marks"

	// Limits of the search for the newest marks in an old log. A leader writes marks once a second.
	maxMarkEntries = 4096
	maxMarkBytes   = 64 << 20
)

// markedLog records the progress of each member, from the marks that leaders write into ticks. An
// entry contains all marks of its leader, so only the newest entry with marks counts after a
// restart. A mark is valid even if its entry is not committed.
//
// Invariant: every mark in known is in the newest entry with marks or under keyMarks. Before
// entries are removed, from the front or from the end, their marks are stored under keyMarks.
type markedLog struct {
	raft.LogStore
	stable raft.StableStore

	mu     sync.Mutex
	known  map[string]*command.Mark // by server
	newest uint64                   // index of the newest entry with marks; 0: all are under keyMarks
}

// newMarkedLog reads the marks in a log and its stable store. Raft must not run yet.
func newMarkedLog(log raft.LogStore, stable raft.StableStore) (*markedLog, error) {
	l := &markedLog{LogStore: log, stable: stable, known: map[string]*command.Mark{}}
	b, err := stable.Get([]byte(keyMarks))
	if err != nil && !errors.Is(err, raftboltdb.ErrKeyNotFound) {
		return nil, fmt.Errorf("read %s: %w", keyMarks, err)
	}
	l.learn(0, command.MarksOf(b))
	return l, l.search()
}

// search adds the newest marks in the log to those under keyMarks. Either set may be the newer one:
// keyMarks may have marks from a truncated end of the log, which are newer than all remaining
// entries. So search keeps the servers of both sets. A server that has left is removed when the
// next entry with marks is stored.
func (l *markedLog) search() error {
	first, err := l.FirstIndex()
	if err != nil {
		return fmt.Errorf("first index: %w", err)
	}
	last, err := l.LastIndex()
	if err != nil {
		return fmt.Errorf("last index: %w", err)
	}
	for n, size := 0, 0; last >= max(first, 1) && n < maxMarkEntries && size < maxMarkBytes; n, last = n+1, last-1 {
		var e raft.Log
		switch err := l.GetLog(last, &e); {
		case errors.Is(err, raft.ErrLogNotFound):
			continue
		case err != nil:
			return fmt.Errorf("read entry %d: %w", last, err)
		}
		if marks := marksOf(&e); marks != nil {
			for server, m := range l.known {
				if !slices.ContainsFunc(marks, func(m *command.Mark) bool { return m.Server == server }) {
					marks = append(marks, m)
				}
			}
			l.learn(last, marks)
			return nil
		}
		size += len(e.Data)
	}
	return nil
}

// marksOf returns the marks in an entry, or nil.
func marksOf(e *raft.Log) []*command.Mark {
	if e.Type != raft.LogCommand {
		return nil
	}
	return command.MarksOf(e.Data)
}

// StoreLog implements raft.LogStore.
func (l *markedLog) StoreLog(e *raft.Log) error { return l.StoreLogs([]*raft.Log{e}) }

// StoreLogs implements raft.LogStore.
func (l *markedLog) StoreLogs(entries []*raft.Log) error {
	if err := l.LogStore.StoreLogs(entries); err != nil {
		return err
	}
	for _, e := range entries {
		l.learn(e.Index, marksOf(e))
	}
	return nil
}

// DeleteRange implements raft.LogStore.
func (l *markedLog) DeleteRange(first, last uint64) error {
	if err := l.keep(first, last); err != nil {
		return err
	}
	return l.LogStore.DeleteRange(first, last)
}

// keep writes the marks to the stable store if the newest entry with marks is about to be deleted.
func (l *markedLog) keep(first, last uint64) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.newest == 0 || l.newest < first || l.newest > last {
		return nil
	}
	t := &command.Tick{}
	for _, m := range l.known {
		t.Marks = append(t.Marks, m)
	}
	b, err := command.Encode(t)
	if err != nil {
		return err
	}
	if err := l.stable.Set([]byte(keyMarks), b); err != nil {
		return fmt.Errorf("keep marks: %w", err)
	}
	l.newest = 0
	return nil
}

// learn replaces the known marks with those of the entry at index, but keeps the higher mark of
// each server. Servers without a mark have left the configuration.
func (l *markedLog) learn(index uint64, marks []*command.Mark) {
	if marks == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	known := make(map[string]*command.Mark, len(marks))
	for _, m := range marks {
		if old := l.known[m.Server]; old != nil && old.Index > m.Index {
			m = old
		}
		known[m.Server] = m
	}
	l.known, l.newest = known, index
}

// mark returns the highest known mark of a server, or nil. The caller must not change the mark.
func (l *markedLog) mark(server raft.ServerID) *command.Mark {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.known[string(server)]
}
