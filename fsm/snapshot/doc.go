// Package snapshot defines the format of snapshots and backups: a stream with every row of the
// state, and the marker that stands for a local snapshot.
//
// The same state always gives the same bytes. Read accepts a stream only if every checksum, the
// order and form of every row, the state hash and the counts of the head are right. It bounds
// every length before it allocates.
package snapshot
