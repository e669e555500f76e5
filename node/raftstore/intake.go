package raftstore

import "github.com/hashicorp/raft"

// intakeLog calls took before entries are stored.
type intakeLog struct {
	raft.LogStore
	took func(low, high uint64)
}

var _ raft.LogStore = intakeLog{}

// StoreLog implements raft.LogStore.
func (l intakeLog) StoreLog(entry *raft.Log) error { return l.StoreLogs([]*raft.Log{entry}) }

// StoreLogs implements raft.LogStore.
func (l intakeLog) StoreLogs(entries []*raft.Log) error {
	if len(entries) > 0 {
		low, high := entries[0].Term, entries[0].Term
		for _, e := range entries {
			low, high = min(low, e.Term), max(high, e.Term)
		}
		l.took(low, high)
	}
	return l.LogStore.StoreLogs(entries)
}
