// Package await lets tests wait for values, conditions and log lines; only tests import it. Each
// wait has a limit, so that a failed goroutine does not hang the test that waits for it.
package await
