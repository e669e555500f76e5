// Package memory keeps the part of the state that every request needs: clients, settings, issuers,
// cut-offs, admissions and counters. Load reads this part from the rows. From then on a commit
// publishes its changes in a State after it has written the rows, so the memory is never ahead of
// the store.
//
// The functions of this package take no lock. The owner of a State must protect it with a lock,
// which many readers may hold, or the one commit that changes the State.
//
// The values that a State points to never change. A commit replaces a pointer, so a reader may keep
// a value after it has released the lock.
package memory
