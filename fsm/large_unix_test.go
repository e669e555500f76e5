//go:build unix

package fsm_test

import (
	"os"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// processorTime returns the processor time of all threads of this process.
func processorTime(b *testing.B) time.Duration {
	b.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkRegister_LargeState registers pairs in a state of FSM_PAIRS pairs, by default 100,000.
// It reports the processor time of a pair, flushes and compactions included. That time hardly
// depends on other load on the machine. Use -benchtime 200x or more: 100,000 pairs.
func BenchmarkRegister_LargeState(b *testing.B) {
	before := 100_000
	if v := os.Getenv("FSM_PAIRS"); v != "" {
		n, err := strconv.Atoi(v)
		if err != nil {
			b.Fatal(err)
		}
		before = n
	}
	m := newMachine(b)
	for range before / 512 {
		m.f.Apply(bulk(m, 1)[0])
		m.log[len(m.log)-1] = &raft.Log{} // a log of millions of pairs would not fit into memory
	}
	logs := bulk(m, b.N)
	b.ResetTimer()
	used := processorTime(b)
	for _, l := range logs {
		m.f.Apply(l)
	}
	used = processorTime(b) - used
	b.StopTimer()
	pairs := float64(512 * b.N)
	b.ReportMetric(float64(used.Nanoseconds())/1e3/pairs, "cpu-us/pair")
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/1e3/pairs, "us/pair")
}
