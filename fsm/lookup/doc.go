// Package lookup reads committed rows: tokens, grants, and the denials and tombstones that revoke a
// token. The reads of the state machine and the rules of Apply both use it, so a revocation has the
// same effect on both.
//
// Its functions have no state and take no lock. They return the rows of their Reader: the newest
// commit, a snapshot, or the rows of a unit of work. A row that cannot be decoded is an error that
// wraps rows.ErrRow.
package lookup
