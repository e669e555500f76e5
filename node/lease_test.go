package node

import (
	"slices"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

// A tableCase is one rule of "Read leases" (ARCHITECTURE.md) on the leader's side. The table is of term
// 5, opened at index 10 with members a and b, their inherited leases cleared unless the case says
// otherwise; time starts at base.
type tableCase struct {
	name string
	do   func(t *testing.T, lt *leaseTable)
}

const (
	base       = instant(time.Hour)
	testLength = 2 * time.Second
)

func openTable(inherit bool) *leaseTable {
	lt := newLeaseTable(5, 10, base, testLength, testLength, []raft.ServerID{"a", "b"})
	if !inherit {
		lt.adopt(leaseAsk{server: "a", adopted: 5})
		lt.adopt(leaseAsk{server: "b", adopted: 5})
	}
	return lt
}

func askOf(nonce, applied uint64) leaseAsk {
	return leaseAsk{server: "b", boot: "1", nonce: nonce, applied: applied, adopted: 5}
}

func wantAdmit(t *testing.T, lt *leaseTable, now instant, a leaseAsk, want refusalReason) {
	t.Helper()
	if got := lt.admit(now, a); got != want {
		t.Fatalf("admit %+v: got %q, want %q", a, got, want)
	}
}

func wantSettle(t *testing.T, lt *leaseTable, now instant, index uint64, want bool) {
	t.Helper()
	if got := lt.settle(now, index); got != want {
		t.Fatalf("settle %d, %v after the start: got %v, want %v", index, now.sub(base), got, want)
	}
}

func closed(w *leaseWaiter) bool {
	select {
	case <-w.done:
		return true
	default:
		return false
	}
}

func TestLeaseTable(t *testing.T) {
	bound := boundAfter(testLength)
	for _, c := range []tableCase{
		{"rule 2: who is no member is not admitted", func(t *testing.T, lt *leaseTable) {
			wantAdmit(t, lt, base, leaseAsk{server: "c", boot: "1", nonce: 1, applied: 10}, refusedNotMember)
		}},
		{"rule 2: a member that came in during the term is admitted", func(t *testing.T, lt *leaseTable) {
			lt.addMember("c", base)
			wantAdmit(t, lt, base, leaseAsk{server: "c", boot: "1", nonce: 1, applied: 10}, admitted)
		}},
		{"rule 2: whoever is behind the term's first command is not admitted", func(t *testing.T, lt *leaseTable) {
			wantAdmit(t, lt, base, askOf(1, 9), refusedBehind)
		}},
		{"rule 2: for a member that is just behind a place is kept, and what is acknowledged waits for it", func(t *testing.T, lt *leaseTable) {
			wantSettle(t, lt, base, 12, true)
			wantAdmit(t, lt, base, askOf(1, 11), refusedBehind)
			wantSettle(t, lt, base, 13, false)
			lt.report(base, "b", "1", 13)
			wantSettle(t, lt, base, 13, true)
			wantAdmit(t, lt, base, askOf(1, 11), admitted) // by its newest report
		}},
		{"rule 2: for a member that is far behind none is kept", func(t *testing.T, lt *leaseTable) {
			wantSettle(t, lt, base, 12+near, true)
			wantAdmit(t, lt, base, askOf(1, 11), refusedBehind)
			wantSettle(t, lt, base, 13+near, true)
		}},
		{"rule 2: a member that has not moved since a place was kept for it gets no other", func(t *testing.T, lt *leaseTable) {
			wantSettle(t, lt, base, 12, true)
			wantAdmit(t, lt, base, askOf(1, 11), refusedBehind)
			wantAdmit(t, lt, base.add(bound/2), askOf(2, 11), refusedBehind)
			wantSettle(t, lt, base.add(bound-1), 13, false)
			wantSettle(t, lt, base.add(bound), 13, true) // its place was not kept for longer
			wantAdmit(t, lt, base.add(bound), askOf(3, 11), refusedBehind)
			wantSettle(t, lt, base.add(bound), 14, true)
			wantAdmit(t, lt, base.add(bound), askOf(4, 12), refusedBehind)
			wantSettle(t, lt, base.add(bound), 15, false) // it has moved
		}},
		{"rule 2: whoever is behind an acknowledged index is not admitted", func(t *testing.T, lt *leaseTable) {
			wantSettle(t, lt, base, 12, true)
			wantAdmit(t, lt, base, askOf(1, 11), refusedBehind)
			wantAdmit(t, lt, base, askOf(1, 12), admitted)
		}},
		{"rule 2: whoever is behind an index that waited longer than a quarter lease is not admitted", func(t *testing.T, lt *leaseTable) {
			wantAdmit(t, lt, base, askOf(1, 10), admitted)
			lt.wait(base, 12)
			wantAdmit(t, lt, base.add(testLength/4), askOf(2, 10), admitted)
			wantAdmit(t, lt, base.add(testLength/4+1), askOf(3, 10), refusedBehind)
		}},
		{"rule 2: what is admitted is booked before a grant is sent", func(t *testing.T, lt *leaseTable) {
			wantAdmit(t, lt, base, askOf(1, 10), admitted)
			wantSettle(t, lt, base, 11, false)
		}},
		{"rule 2: a booking lasts as long as a lease on the slowest clock, seen from the fastest, and the guard", func(t *testing.T, lt *leaseTable) {
			if want := testLength*101/99 + 50*time.Millisecond; bound != want {
				t.Fatalf("bound: got %v, want %v", bound, want)
			}
			wantAdmit(t, lt, base, askOf(1, 10), admitted)
			wantSettle(t, lt, base.add(bound-1), 11, false)
			wantSettle(t, lt, base.add(bound), 11, true)
		}},
		{"rule 2: a booking never shrinks", func(t *testing.T, lt *leaseTable) {
			wantAdmit(t, lt, base, askOf(1, 10), admitted)
			lt.setLength(testLength / 4)
			wantAdmit(t, lt, base.add(1), askOf(2, 10), admitted)
			wantSettle(t, lt, base.add(bound-1), 11, false)
		}},
		{"rule 4: an ask that its own node has called off is not booked", func(t *testing.T, lt *leaseTable) {
			wantAdmit(t, lt, base, askOf(1, 10), admitted)
			lt.giveBack("b", "1", 2)
			wantAdmit(t, lt, base, askOf(2, 10), refusedReturned)
			wantSettle(t, lt, base, 11, true)
			wantAdmit(t, lt, base, askOf(3, 11), admitted)
		}},
		{"rule 6: a holder that has applied the index is not waited for", func(t *testing.T, lt *leaseTable) {
			wantAdmit(t, lt, base, askOf(1, 10), admitted)
			lt.report(base, "b", "1", 11)
			wantSettle(t, lt, base, 11, true)
			wantSettle(t, lt, base, 12, false)
		}},
		{"rule 6: an overtaken report takes nothing back", func(t *testing.T, lt *leaseTable) {
			wantAdmit(t, lt, base, askOf(1, 10), admitted)
			lt.report(base, "b", "1", 11)
			lt.report(base, "b", "1", 10)
			wantSettle(t, lt, base, 11, true)
		}},
		{"rule 6: what an earlier life had applied does not count for the next", func(t *testing.T, lt *leaseTable) {
			lt.report(base, "b", "1", 11)
			wantAdmit(t, lt, base, leaseAsk{server: "b", boot: "2", nonce: 1, applied: 10, adopted: 5}, admitted)
			wantSettle(t, lt, base, 11, false)
		}},
		{"rule 6: an earlier life stays booked to its bound, whatever the next reports", func(t *testing.T, lt *leaseTable) {
			wantAdmit(t, lt, base, askOf(1, 10), admitted)
			lt.report(base.add(1), "b", "2", 20)
			wantSettle(t, lt, base.add(bound-1), 11, false)
			wantSettle(t, lt, base.add(bound), 11, true)
		}},
		{"rule 6: an earlier life's report that comes late frees nobody", func(t *testing.T, lt *leaseTable) {
			wantAdmit(t, lt, base, leaseAsk{server: "b", boot: "2", nonce: 1, applied: 10, adopted: 5}, admitted)
			lt.report(base, "b", "1", 20)
			wantSettle(t, lt, base, 11, false)
		}},
		{"rule 6: lives that are over are forgotten", func(t *testing.T, lt *leaseTable) {
			now := base
			for life := range 5 {
				wantAdmit(t, lt, now, leaseAsk{server: "b", boot: string(rune('1' + life)), nonce: 1, applied: 10, adopted: 5}, admitted)
				now = now.add(bound - time.Second)
			}
			if got := len(lt.books["b"].past); got > 2 {
				t.Fatalf("past lives: got %d, want at most 2", got)
			}
		}},
		{"rule 6: a waiter is released by the last report, not before", func(t *testing.T, lt *leaseTable) {
			wantAdmit(t, lt, base, askOf(1, 10), admitted)
			w, abandoned := lt.wait(base, 11), lt.wait(base, 11)
			lt.abandon(abandoned)
			lt.release(base)
			if closed(w) {
				t.Fatal("released before the holder had applied it")
			}
			lt.report(base, "b", "1", 11)
			lt.release(base)
			if !closed(w) || closed(abandoned) {
				t.Fatalf("got %v and %v, want the waiter released and the abandoned one not", closed(w), closed(abandoned))
			}
		}},
		{"rule 6: the next bound is the first that can release a waiter", func(t *testing.T, lt *leaseTable) {
			wantAdmit(t, lt, base, askOf(1, 10), admitted)
			if got := lt.nextBound(base); got != 0 {
				t.Fatalf("nobody waits: got %d, want 0", got)
			}
			lt.wait(base, 11)
			if got := lt.nextBound(base); got != base.add(bound) {
				t.Fatalf("got %v, want %v", got.sub(base), bound)
			}
		}},
		{"rule 7: a report clears what was inherited only when it follows this term", func(t *testing.T, _ *leaseTable) {
			lt := openTable(true)
			lt.adopt(leaseAsk{server: "a", adopted: 5})
			lt.adopt(leaseAsk{server: "b", adopted: 4})
			lt.report(base, "b", "1", 20)
			wantSettle(t, lt, base, 11, false)
			lt.adopt(leaseAsk{server: "b", adopted: 5})
			wantSettle(t, lt, base, 11, true)
		}},
		{"rule 7: following the term never clears a booking of the term", func(t *testing.T, lt *leaseTable) {
			wantAdmit(t, lt, base, askOf(1, 10), admitted)
			lt.adopt(leaseAsk{server: "b", adopted: 6})
			wantSettle(t, lt, base, 11, false)
		}},
		{"rule 7: silent members are waited for as long as the longest lease of any earlier leader", func(t *testing.T, _ *leaseTable) {
			lt := newLeaseTable(5, 10, base, testLength, 3*testLength, []raft.ServerID{"a", "b"})
			wantSettle(t, lt, base.add(boundAfter(3*testLength)-1), 11, false)
			wantSettle(t, lt, base.add(boundAfter(3*testLength)), 11, true)
		}},
		{"rule 7: not even an index below the term's first command is final before the inherited leases are over", func(t *testing.T, _ *leaseTable) {
			lt := openTable(true)
			wantSettle(t, lt, base, 9, false)
			wantSettle(t, lt, base.add(bound), 9, true)
		}},
		{"rule 9: a booked or inherited member is not free; one past its bound is", func(t *testing.T, _ *leaseTable) {
			lt := openTable(true)
			if ok, until := lt.free("b", base); ok || until != base.add(bound) {
				t.Fatalf("inherited: got %v until %v, want false until %v", ok, until.sub(base), bound)
			}
			wantAdmit(t, lt, base.add(time.Second), askOf(1, 10), admitted) // clears what was inherited
			if ok, until := lt.free("b", base); ok || until != base.add(time.Second+bound) {
				t.Fatalf("booked: got %v until %v", ok, until.sub(base))
			}
			if ok, _ := lt.free("b", base.add(time.Second+bound)); !ok {
				t.Fatal("past its bound: got not free, want free")
			}
		}},
		{"rule 9: an earlier life keeps a member from being free", func(t *testing.T, lt *leaseTable) {
			wantAdmit(t, lt, base, askOf(1, 10), admitted)
			lt.report(base, "b", "2", 20)
			if ok, _ := lt.free("b", base); ok {
				t.Fatal("got free, want booked for its earlier life")
			}
		}},
		{"rule 9: a barred member is not admitted until the bar falls", func(t *testing.T, lt *leaseTable) {
			lt.bar("b", true)
			wantAdmit(t, lt, base, askOf(1, 10), refusedReturned)
			lt.bar("b", false)
			wantAdmit(t, lt, base, askOf(2, 10), admitted)
		}},
		{"rule 9: a lease given back frees its member", func(t *testing.T, lt *leaseTable) {
			wantAdmit(t, lt, base, askOf(1, 10), admitted)
			lt.giveBack("b", "1", 1)
			wantSettle(t, lt, base, 11, true)
		}},
		{"rule 9: giving back frees no other life", func(t *testing.T, lt *leaseTable) {
			wantAdmit(t, lt, base, askOf(1, 10), admitted)
			lt.giveBack("b", "0", 9)
			wantSettle(t, lt, base, 11, false)
		}},
		{"rule 9: giving back, overtaken by a later ask, leaves that booked", func(t *testing.T, lt *leaseTable) {
			wantAdmit(t, lt, base, askOf(2, 10), admitted)
			lt.giveBack("b", "1", 1)
			wantSettle(t, lt, base, 11, false)
		}},
	} {
		t.Run(c.name, func(t *testing.T) { c.do(t, openTable(false)) })
	}
}

func TestWhoHoldsUpIsNamed(t *testing.T) {
	lt := newLeaseTable(5, 10, base, testLength, testLength, []raft.ServerID{"a", "b", "c"})
	for _, id := range []raft.ServerID{"a", "b", "c"} {
		a := leaseAsk{server: id, boot: "boot", nonce: 1, applied: 10, adopted: 5}
		if reason := lt.admit(base, a); reason != admitted {
			t.Fatalf("%s: got %q, want it admitted", id, reason)
		}
	}
	want := func(now instant, ids ...raft.ServerID) {
		t.Helper()
		if got := lt.holdingUp(now); !slices.Equal(got, ids) {
			t.Errorf("got %v, want %v", got, ids)
		}
	}
	want(base) // nothing waits
	lt.wait(base, 11)
	want(base, "a", "b", "c")
	lt.report(base, "b", "boot", 11)
	want(base, "a", "c")
	lt.report(base, "a", "boot", 12)
	want(base, "c")
	want(base.add(boundAfter(testLength) + 1)) // its lease has run out
	lt.report(base, "c", "boot", 11)
	lt.release(base)
	want(base)
}
