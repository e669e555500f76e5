package raftstore

import (
	"errors"
	"fmt"

	"github.com/hashicorp/raft"
)

// replayBatch is the number of entries that Replay passes on together.
const replayBatch = 64

// A Survey describes the content of a stopped node's store.
type Survey struct {
	Index, Term   uint64             // position of the last entry, committed or not
	Snapshot      uint64             // index of the newest snapshot, or 0
	Configuration raft.Configuration // latest configuration, committed or not
}

// Survey reads the whole store. Raft must not run. It returns an error if an entry after the newest
// snapshot is missing or damaged.
func (s *Store) Survey() (Survey, error) {
	var v Survey
	list, err := s.snapshots.List()
	if err != nil {
		return v, fmt.Errorf("list snapshots: %w", err)
	}
	if len(list) > 0 {
		v.Index, v.Term, v.Configuration = list[0].Index, list[0].Term, list[0].Configuration
		v.Snapshot = v.Index
	}
	err = s.entries(v.Index, func(e *raft.Log) error {
		v.Index, v.Term = e.Index, e.Term
		if e.Type == raft.LogConfiguration {
			v.Configuration = raft.DecodeConfiguration(e.Data)
		}
		return nil
	})
	return v, err
}

// entries calls f for each entry after an index, in order. It fails at a missing entry.
func (s *Store) entries(after uint64, f func(*raft.Log) error) error {
	last, err := s.log.LastIndex()
	if err != nil {
		return fmt.Errorf("last index: %w", err)
	}
	for i := after + 1; i <= last; i++ {
		e := &raft.Log{}
		if err := s.log.GetLog(i, e); err != nil {
			return Damaged(s.Path(), fmt.Errorf("read entry %d: %w", i, err))
		}
		if err := f(e); err != nil {
			return err
		}
	}
	return nil
}

// Replay passes to apply the commands and configurations after the entry with the given index and
// term. Raft would apply the same entries if the whole log were committed. Raft must not run.
//
// A received state may be newer than the log. If the entry at index has an earlier term, a later
// leader has replaced it and all entries after it. Replay then passes nothing.
func (s *Store) Replay(index, term uint64, apply func([]*raft.Log) error) error {
	var at raft.Log
	switch err := s.log.GetLog(index, &at); {
	case errors.Is(err, raft.ErrLogNotFound):
	case err != nil:
		return Damaged(s.Path(), fmt.Errorf("read entry %d: %w", index, err))
	case at.Term < term:
		return nil
	case at.Term > term:
		return Damaged(s.Path(), fmt.Errorf("entry %d: got term %d, but the state has term %d", index, at.Term, term))
	}
	var batch []*raft.Log
	err := s.entries(index, func(e *raft.Log) error {
		if e.Term < term {
			return Damaged(s.Path(), fmt.Errorf("entry %d: got term %d after term %d", e.Index, e.Term, term))
		}
		if term = e.Term; e.Type != raft.LogCommand && e.Type != raft.LogConfiguration {
			return nil
		}
		if batch = append(batch, e); len(batch) < replayBatch {
			return nil
		}
		full := batch
		batch = nil
		return apply(full)
	})
	if err == nil && len(batch) > 0 {
		err = apply(batch)
	}
	return err
}
