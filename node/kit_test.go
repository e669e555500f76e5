package node

import (
	"flag"
	"log/slog"
	"os"
	"testing"
	"time"
)

// TestMain runs more tests at a time than there are processors, because a test of a cluster mostly
// waits. The race detector leaves room for fewer. The flag -parallel still decides if it is set.
func TestMain(m *testing.M) {
	flag.Parse()
	set, tests := false, "4"
	if underRace {
		tests = "2"
	}
	flag.Visit(func(f *flag.Flag) { set = set || f.Name == "test.parallel" })
	if !set {
		_ = flag.Set("test.parallel", tests)
	}
	os.Exit(m.Run())
}

// longStop bounds every wait of a test.
const longStop = 30 * time.Second

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }
