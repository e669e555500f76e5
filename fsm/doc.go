// Package fsm is the replicated state machine: what the log's commands mean, and where their effect is
// kept.
//
// It promises that two members that have applied the same log hold the same rows, the same two hashes
// and give the same results, whatever crash, replay or snapshot lies between: Apply reads no clock, no
// random source and no map order, and the applied index is written in one Pebble batch with what it
// tells of. A grant, a token or a client that was ended never comes back to life.
//
// It never sees a raw token or a secret, only their digests and hashes. It never skips a command that
// it does not understand: that, a failed write, and a log that contradicts the state are reported to
// Config.Fatal, which must end the process.
//
// Dangerous: Pebble runs without its own WAL, for the Raft log is the WAL. What is not flushed is lost
// with the process and comes back by replay only; the log may be cut no further than DurableIndex,
// which Snapshot sees to by flushing before its marker is persisted. Raft must start with
// NoSnapshotRestoreOnStart exactly when DurableIndex is not below its newest snapshot's index, and its
// snapshot store must be wrapped by NewSnapshotStore.
package fsm
