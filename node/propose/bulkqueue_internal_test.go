package propose

import (
	"testing"
	"time"

	"revoked"
	"revoked/fsm/command"
)

// Each client gets an equal part of an entry. The operations of clients with more operations fill
// the rest of the entry.
func TestBulkQueue_Take_SplitsEntryByClient(t *testing.T) {
	q := newBulkQueue()
	a, b, c := registering("a", 500), registering("b", 30), registering("c", 500)
	for _, p := range []*proposal{a, b, c, registering("b", 2)} {
		if err := q.push(p); err != nil {
			t.Fatal(err)
		}
	}
	got := map[string]int{}
	for _, s := range q.take(300) {
		got[clientOf(s.ops)] += s.to - s.from
	}
	if got["a"] != 100 || got["b"] != 32 || got["c"] != 168 {
		t.Errorf("got %v, want a 100, b 32, c the rest: 168", got)
	}
	if s := q.take(300); q.isReady() || s != nil {
		t.Errorf("before the entry committed: got ready %t and %d shares, want none", q.isReady(), len(s))
	}
	q.reopen()
	if rest := q.take(10_000); len(rest) != 2 || rest[0].from != 100 || !rest[0].last() {
		t.Errorf("got %d shares, want the rest of a and c", len(rest))
	}
	if q.count != 0 || !q.waiting.Empty() {
		t.Errorf("got %d operations left, want 0", q.count)
	}
}

func registering(client string, n int) *proposal {
	ops := make([]*command.Op, n)
	for i := range ops {
		ops[i] = command.RegisterOp(revoked.Actor{ClientID: client}, revoked.Registration{ClientID: "app"})
	}
	return newProposal(ops, false)
}

// One slow entry, which waited for a CPU, does not change the pace. Eight slow entries do.
func TestPace_SlowEntry_IsIgnored(t *testing.T) {
	var p Pace
	ops := func() int { return p.Ops(10*time.Millisecond, 16, 1024) }
	want := func(when string, want int) {
		t.Helper()
		if got := ops(); got != want {
			t.Errorf("%s: got %d, want %d", when, got, want)
		}
	}
	want("nothing measured", firstOps)
	p.Observe(100, time.Millisecond)
	want("10 us an operation", 1000)
	p.Observe(0, time.Second)
	want("an entry without operations", 1000)
	p.Observe(1000, time.Second)
	want("one slow entry", 1000)
	for range paceEntries {
		p.Observe(1000, 100*time.Millisecond)
	}
	want("100 us an operation", 100)
	for range paceEntries {
		p.Observe(100, time.Second)
	}
	want("10 ms an operation", 16)
	p.Observe(1000, time.Millisecond)
	want("cheap again", 1024)
}
