// Package store keeps the state in Pebble databases: one generation that is in use, and during a
// restore the next one.
//
// A Store runs without Pebble's WAL, because the Raft log is the WAL. Committed rows survive
// the process only after Flush. Replacing the generation is one rename of the file CURRENT.
//
// Dangerous: after the first background error of Pebble, further writes may never reach the disk.
// Options.Fatal must end the process.
package store
