// Package await has the waits of tests, for tests only. Each wait ends: a goroutine that has failed
// must not hang the test that waits for it.
package await
