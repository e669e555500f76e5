// Package snapshot defines the format of snapshots and backups. A stream has every row of the
// state; a marker represents a local snapshot.
//
// The same state always gives the same bytes. Read accepts a stream only if its checksums, state
// hash and counts are right. It also checks the order and the form of the rows. It bounds every
// length before it allocates.
package snapshot
