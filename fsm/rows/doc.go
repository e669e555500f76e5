// Package rows defines the format of the stored state: keys, the encoding of each row, and the
// state hash.
//
// The same row always has the same bytes. Parse functions never panic, never allocate more than
// the row justifies, and return an error that wraps revoked.ErrDamaged for bytes that no Append
// function writes.
//
// Dangerous: a change of any byte changes the state hash, so members of two versions would diverge.
package rows
