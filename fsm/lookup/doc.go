// Package lookup reads committed rows: tokens, grants, and the denials and tombstones that revoke a
// token. Both the reads of the state machine and the rules of Apply use it, so they cannot disagree
// about what revokes a token.
//
// Its functions hold no state and lock nothing: they see what their Reader sees. That is the newest
// commit, a snapshot, or the rows of a unit of work. A row that cannot be decoded is an error that
// wraps rows.ErrRow.
package lookup
