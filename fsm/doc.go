// Package fsm is the replicated state machine: it applies the commands of the log to the stored
// state and serves reads from it.
//
// Members that have applied the same log hold the same rows and the same two hashes and give the
// same results. Crashes, replays and snapshots do not change this. Apply depends on no clock, no
// random source and no map order. It writes the applied index in the Pebble batch of the rows. A
// grant or token that has ended never becomes active again, even if its client was deleted and a
// new client has the same id.
//
// The package never gets a raw token or a secret, only digests and hashes. It never skips a command
// that it cannot decode. Such a command, a failed write, and a log that contradicts the state are
// reported to Config.Fatal, which must exit the process.
//
// Dangerous: the store has no WAL. Rows that are not flushed are lost when the process exits. Only
// a replay restores them, so the log must not be truncated beyond DurableIndex. Snapshot ensures
// this: it flushes before its marker is persisted. Raft must start with NoSnapshotRestoreOnStart if
// and only if DurableIndex is at or above its newest snapshot, and NewSnapshotStore must wrap its
// snapshot store.
//
// Package rules implements the rules by which a command changes the state. This package calls rules
// from Raft's goroutine, commits the changes, and serves reads concurrently.
package fsm
