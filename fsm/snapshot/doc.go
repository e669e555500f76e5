// Package snapshot defines the format of snapshots and backups. A stream has every row of the
// state; a marker stands for a local snapshot.
//
// The same state always gives the same bytes. Read accepts a stream only if its checksums, the
// order and form of its rows, its state hash and the counts of its head are right. It bounds every
// length before it allocates.
package snapshot
