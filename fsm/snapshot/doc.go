// Package snapshot defines the format of snapshots and backups. A stream has every row of the
// state; a marker represents a local snapshot.
//
// The same state always gives the same bytes. Read accepts a stream only if its checksums, state
// hash and counts are correct. It also checks the order and the encoding of the rows. It checks
// every length against a limit before it allocates memory.
package snapshot
