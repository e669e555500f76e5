// Package rows defines the format of the stored state: keys, the encoding of each row, and the
// state hash.
//
// The same row always has the same bytes. Parse functions never panic, and never allocate more
// memory than the length of the row justifies. For bytes that no Append function writes, they
// return an error that wraps revoked.ErrDamaged.
//
// Dangerous: a change of any byte changes the state hash, so members of two versions would diverge.
package rows
