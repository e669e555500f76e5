package await

import (
	"testing"
	"time"
)

// Limit ends every wait. It is far longer than a stall of a busy machine.
const Limit = time.Minute

// Receive returns the next value of c, or the zero value once c is closed. If nothing arrives
// within [Limit], it ends the test with an error that contains what. Only the test's own goroutine
// may call it.
func Receive[T any](t testing.TB, c <-chan T, what string) T {
	t.Helper()
	stop := time.NewTimer(Limit)
	defer stop.Stop()
	select {
	case v := <-c:
		return v
	case <-stop.C:
		t.Fatalf("got nothing in %v, want %s", Limit, what)
		panic("unreachable")
	}
}

// Until calls ok until it returns true. After [Limit] it ends the test with an error that
// contains what. Only the test's own goroutine may call it.
func Until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	stop := time.NewTimer(Limit)
	defer stop.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-stop.C:
			t.Fatalf("waited %v for: %s", Limit, what)
		}
	}
}
