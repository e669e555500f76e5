// Package memory holds the part of the state that every request needs: clients, settings, issuers,
// cut-offs, admissions and counters. Load reads it from the rows. From then on a commit publishes
// its changes here after it has written the rows, so the memory is never ahead of the store.
//
// No function of this package locks. The owner of a State guards it with a lock: many readers, or
// the one commit that changes it.
//
// The values that a State points to never change. A commit replaces a pointer, so a reader may keep
// a value after it has released the lock.
package memory
