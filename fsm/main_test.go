package fsm_test

import (
	"flag"
	"testing"

	"go.uber.org/goleak"
)

// TestMain checks fewer random histories under the race detector, which makes each several times
// slower. Most of them use one goroutine. If the flag -rapid.checks is set, it takes precedence.
func TestMain(m *testing.M) {
	flag.Parse()
	set := false
	flag.Visit(func(f *flag.Flag) { set = set || f.Name == "rapid.checks" })
	if underRace && !set {
		_ = flag.Set("rapid.checks", "20")
	}
	goleak.VerifyTestMain(m)
}
