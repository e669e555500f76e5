package lease

import (
	"slices"
	"testing"
	"time"
)

// A tableCase checks one rule of "Read leases" (node/DESIGN.md) on the leader's side. The table's
// term is 5, its first command has index 10, and its members are a and b. The table inherits no
// lease, unless the case opens its own table. The first instant is base.
type tableCase struct {
	name string
	do   func(t *testing.T, lt *Table)
}

const (
	base       = Instant(time.Hour)
	testLength = 2 * time.Second
)

func openTable(inherit bool) *Table {
	lt := NewTable(Term{Number: 5, First: 10, Since: base, Length: testLength,
		Longest: testLength, Members: []string{"a", "b"}})
	if !inherit {
		adopt(lt, "a", 5)
		adopt(lt, "b", 5)
	}
	return lt
}

// adopt reports that a member has adopted a term.
func adopt(lt *Table, id string, term uint64) { lt.clearInherited(lt.reservations[id], term) }

func requestOf(nonce, applied uint64) Request {
	return Request{Server: "b", Boot: "1", Nonce: nonce, Applied: applied, Adopted: 5}
}

func wantAdmit(t *testing.T, lt *Table, now Instant, r Request, want Refusal) {
	t.Helper()
	if _, got := lt.Admit(now, r); got != want {
		t.Fatalf("admit %+v: got %q, want %q", r, got, want)
	}
}

func wantAck(t *testing.T, lt *Table, now Instant, index uint64, want bool) {
	t.Helper()
	if got := lt.tryAcknowledge(now, index); got != want {
		t.Fatalf("acknowledge %d after %v: got %v, want %v", index, now.Sub(base), got, want)
	}
}

func TestTable_IsBehind_IgnoresOwnLease(t *testing.T) {
	lt := openTable(false)
	lt.Report(base, Request{Server: "b", Boot: "1", Applied: 12, Adopted: 5})
	if lt.IsBehind(base, "a", 20) {
		t.Error("without a lease: got behind, want no wait for it")
	}
	wantAdmit(t, lt, base, requestOf(1, 12), Admitted)
	for index, want := range map[uint64]bool{12: false, 13: true} {
		if got := lt.IsBehind(base, "a", index); got != want {
			t.Errorf("index %d: got %t, want %t", index, got, want)
		}
	}
	if lt.IsBehind(base, "b", 13) {
		t.Error("self: got behind, want the other members only")
	}
	if lt.IsBehind(base.Add(time.Minute), "a", 13) {
		t.Error("lease expired: got behind, want not behind")
	}
}

func isDone(w *Waiter) bool {
	select {
	case <-w.Done():
		return true
	default:
		return false
	}
}

func TestTable_EachRule_Holds(t *testing.T) {
	bound := ReservedFor(testLength)
	for _, c := range []tableCase{
		{"rule 2: a server that is not a member is refused", func(t *testing.T, lt *Table) {
			wantAdmit(t, lt, base, Request{Server: "c", Boot: "1", Nonce: 1, Applied: 10}, RefusedNotMember)
		}},
		{"rule 2: a member that joined during the term is admitted", func(t *testing.T, lt *Table) {
			lt.addMember("c")
			wantAdmit(t, lt, base, Request{Server: "c", Boot: "1", Nonce: 1, Applied: 10}, Admitted)
		}},
		{"rule 2: a member behind the term's first command is refused", func(t *testing.T, lt *Table) {
			wantAdmit(t, lt, base, requestOf(1, 9), RefusedBehind)
		}},
		{"rule 2: a member just behind gets a reservation, and acknowledgements wait for it", func(t *testing.T, lt *Table) {
			wantAck(t, lt, base, 12, true)
			wantAdmit(t, lt, base, requestOf(1, 11), RefusedBehind)
			wantAck(t, lt, base, 13, false)
			lt.Report(base, Request{Server: "b", Boot: "1", Applied: 13})
			wantAck(t, lt, base, 13, true)
			wantAdmit(t, lt, base, requestOf(1, 11), Admitted) // the newest report of the member counts
		}},
		{"rule 2: a member far behind gets no reservation", func(t *testing.T, lt *Table) {
			wantAck(t, lt, base, 12+maxBehind, true)
			wantAdmit(t, lt, base, requestOf(1, 11), RefusedBehind)
			wantAck(t, lt, base, 13+maxBehind, true)
		}},
		{"rule 2: a member that has applied nothing new gets no second reservation", func(t *testing.T, lt *Table) {
			wantAck(t, lt, base, 12, true)
			wantAdmit(t, lt, base, requestOf(1, 11), RefusedBehind)
			wantAdmit(t, lt, base.Add(bound/2), requestOf(2, 11), RefusedBehind)
			wantAck(t, lt, base.Add(bound-1), 13, false)
			wantAck(t, lt, base.Add(bound), 13, true) // the second request did not extend the reservation
			wantAdmit(t, lt, base.Add(bound), requestOf(3, 11), RefusedBehind)
			wantAck(t, lt, base.Add(bound), 14, true)
			wantAdmit(t, lt, base.Add(bound), requestOf(4, 12), RefusedBehind)
			wantAck(t, lt, base.Add(bound), 15, false) // the member has applied entries since its last reservation
		}},
		{"rule 2: a member behind an acknowledged index is refused", func(t *testing.T, lt *Table) {
			wantAck(t, lt, base, 12, true)
			wantAdmit(t, lt, base, requestOf(1, 11), RefusedBehind)
			wantAdmit(t, lt, base, requestOf(1, 12), Admitted)
		}},
		{"rule 2: a member behind an index that waited for a quarter lease is refused", func(t *testing.T, lt *Table) {
			wantAdmit(t, lt, base, requestOf(1, 10), Admitted)
			lt.Wait(base, 12)
			wantAdmit(t, lt, base.Add(testLength/4), requestOf(2, 10), Admitted)
			wantAdmit(t, lt, base.Add(testLength/4+1), requestOf(3, 10), RefusedBehind)
		}},
		{"rule 2: the lease of an admitted request is reserved before the reply", func(t *testing.T, lt *Table) {
			wantAdmit(t, lt, base, requestOf(1, 10), Admitted)
			wantAck(t, lt, base, 11, false)
		}},
		{"rule 2: a reservation covers a lease on the slowest clock, seen from the fastest", func(t *testing.T, lt *Table) {
			if want := testLength*101/99 + 50*time.Millisecond; bound != want {
				t.Fatalf("bound: got %v, want %v", bound, want)
			}
			wantAdmit(t, lt, base, requestOf(1, 10), Admitted)
			wantAck(t, lt, base.Add(bound-1), 11, false)
			wantAck(t, lt, base.Add(bound), 11, true)
		}},
		{"rule 2: a reservation never shrinks", func(t *testing.T, lt *Table) {
			wantAdmit(t, lt, base, requestOf(1, 10), Admitted)
			lt.length = testLength / 4
			wantAdmit(t, lt, base.Add(1), requestOf(2, 10), Admitted)
			wantAck(t, lt, base.Add(bound-1), 11, false)
		}},
		{"rule 4: a request whose replies its node rejects gets no reservation", func(t *testing.T, lt *Table) {
			wantAdmit(t, lt, base, requestOf(1, 10), Admitted)
			lt.Return(base, "b", "1", 2)
			wantAdmit(t, lt, base, requestOf(2, 10), RefusedReturned)
			wantAck(t, lt, base, 11, true)
			wantAdmit(t, lt, base, requestOf(3, 11), Admitted)
		}},
		{"rule 6: a holder that has applied an index does not block its acknowledgement", func(t *testing.T, lt *Table) {
			wantAdmit(t, lt, base, requestOf(1, 10), Admitted)
			lt.Report(base, Request{Server: "b", Boot: "1", Applied: 11})
			wantAck(t, lt, base, 11, true)
			wantAck(t, lt, base, 12, false)
		}},
		{"rule 6: a report that arrives after a newer one has no effect", func(t *testing.T, lt *Table) {
			wantAdmit(t, lt, base, requestOf(1, 10), Admitted)
			lt.Report(base, Request{Server: "b", Boot: "1", Applied: 11})
			lt.Report(base, Request{Server: "b", Boot: "1", Applied: 10})
			wantAck(t, lt, base, 11, true)
		}},
		{"rule 6: the applied index of an earlier incarnation is ignored", func(t *testing.T, lt *Table) {
			lt.Report(base, Request{Server: "b", Boot: "1", Applied: 11})
			wantAdmit(t, lt, base, Request{Server: "b", Boot: "2", Nonce: 1, Applied: 10, Adopted: 5}, Admitted)
			wantAck(t, lt, base, 11, false)
		}},
		{"rule 6: the reservation of an earlier incarnation lasts until it expires", func(t *testing.T, lt *Table) {
			wantAdmit(t, lt, base, requestOf(1, 10), Admitted)
			lt.Report(base.Add(1), Request{Server: "b", Boot: "2", Applied: 20})
			wantAck(t, lt, base.Add(bound-1), 11, false)
			wantAck(t, lt, base.Add(bound), 11, true)
		}},
		{"rule 6: a late report of an earlier incarnation has no effect", func(t *testing.T, lt *Table) {
			wantAdmit(t, lt, base, Request{Server: "b", Boot: "2", Nonce: 1, Applied: 10, Adopted: 5}, Admitted)
			lt.Report(base, Request{Server: "b", Boot: "1", Applied: 20})
			wantAck(t, lt, base, 11, false)
		}},
		{"rule 6: expired incarnations are forgotten", func(t *testing.T, lt *Table) {
			now := base
			for life := range 5 {
				r := Request{Server: "b", Boot: string(rune('1' + life)), Nonce: 1, Applied: 10, Adopted: 5}
				wantAdmit(t, lt, now, r, Admitted)
				now = now.Add(bound - time.Second)
			}
			if got := len(lt.reservations["b"].earlier); got > 2 {
				t.Fatalf("earlier incarnations: got %d, want at most 2", got)
			}
		}},
		{"rule 6: the last report releases a waiter", func(t *testing.T, lt *Table) {
			wantAdmit(t, lt, base, requestOf(1, 10), Admitted)
			w, canceled := lt.Wait(base, 11), lt.Wait(base, 11)
			lt.Cancel(canceled)
			lt.Release(base)
			if isDone(w) {
				t.Fatal("got the waiter released before the holder applied 11, want it waiting")
			}
			lt.Report(base, Request{Server: "b", Boot: "1", Applied: 11})
			lt.Release(base)
			if !isDone(w) || isDone(canceled) {
				t.Fatalf("got %v and %v, want the waiter released and the canceled one not", isDone(w), isDone(canceled))
			}
		}},
		{"rule 6: the next expiry is the first that can release a waiter", func(t *testing.T, lt *Table) {
			wantAdmit(t, lt, base, requestOf(1, 10), Admitted)
			if got := lt.NextExpiry(base); got != 0 {
				t.Fatalf("without a waiter: got %d, want 0", got)
			}
			lt.Wait(base, 11)
			if got := lt.NextExpiry(base); got != base.Add(bound) {
				t.Fatalf("got %v, want %v", got.Sub(base), bound)
			}
		}},
		{"rule 7: a report clears an inherited reservation only if it adopts this term", func(t *testing.T, _ *Table) {
			lt := openTable(true)
			adopt(lt, "a", 5)
			adopt(lt, "b", 4)
			lt.Report(base, Request{Server: "b", Boot: "1", Applied: 20})
			wantAck(t, lt, base, 11, false)
			adopt(lt, "b", 5)
			wantAck(t, lt, base, 11, true)
		}},
		{"rule 7: adopting the term never clears a reservation of the term", func(t *testing.T, lt *Table) {
			wantAdmit(t, lt, base, requestOf(1, 10), Admitted)
			adopt(lt, "b", 6)
			wantAck(t, lt, base, 11, false)
		}},
		{"rule 7: silent members block for the longest lease of any earlier leader", func(t *testing.T, _ *Table) {
			lt := NewTable(Term{Number: 5, First: 10, Since: base, Length: testLength,
				Longest: 3 * testLength, Members: []string{"a", "b"}})
			wantAck(t, lt, base.Add(ReservedFor(3*testLength)-1), 11, false)
			wantAck(t, lt, base.Add(ReservedFor(3*testLength)), 11, true)
		}},
		{"rule 7: inherited leases block even an index below the first command", func(t *testing.T, _ *Table) {
			lt := openTable(true)
			wantAck(t, lt, base, 9, false)
			wantAck(t, lt, base.Add(bound), 9, true)
		}},
		{"rule 9: a member is free once its own and its inherited reservation expire", func(t *testing.T, _ *Table) {
			lt := openTable(true)
			if ok, until := lt.IsFree("b", base); ok || until != base.Add(bound) {
				t.Fatalf("inherited: got %v until %v, want false until %v", ok, until.Sub(base), bound)
			}
			wantAdmit(t, lt, base.Add(time.Second), requestOf(1, 10), Admitted) // clears the inherited reservation
			if ok, until := lt.IsFree("b", base); ok || until != base.Add(time.Second+bound) {
				t.Fatalf("reserved: got %v until %v", ok, until.Sub(base))
			}
			if ok, _ := lt.IsFree("b", base.Add(time.Second+bound)); !ok {
				t.Fatal("after it expired: got not free, want free")
			}
		}},
		{"rule 9: a member with a reserved earlier incarnation is not free", func(t *testing.T, lt *Table) {
			wantAdmit(t, lt, base, requestOf(1, 10), Admitted)
			lt.Report(base, Request{Server: "b", Boot: "2", Applied: 20})
			if ok, _ := lt.IsFree("b", base); ok {
				t.Fatal("got free, want reserved for its earlier incarnation")
			}
		}},
		{"rule 9: a blocked member is refused until it is unblocked", func(t *testing.T, lt *Table) {
			lt.Block("b", true)
			wantAdmit(t, lt, base, requestOf(1, 10), RefusedReturned)
			lt.Block("b", false)
			wantAdmit(t, lt, base, requestOf(2, 10), Admitted)
		}},
		{"rule 9: a returned lease ends the reservation", func(t *testing.T, lt *Table) {
			wantAdmit(t, lt, base, requestOf(1, 10), Admitted)
			lt.Return(base, "b", "1", 1)
			wantAck(t, lt, base, 11, true)
		}},
		{"rule 9: a return does not free another incarnation", func(t *testing.T, lt *Table) {
			wantAdmit(t, lt, base, requestOf(1, 10), Admitted)
			lt.Return(base, "b", "0", 9)
			wantAck(t, lt, base, 11, false)
		}},
		{"rule 9: a return that arrives after a later request has no effect", func(t *testing.T, lt *Table) {
			wantAdmit(t, lt, base, requestOf(2, 10), Admitted)
			lt.Return(base, "b", "1", 1)
			wantAck(t, lt, base, 11, false)
		}},
	} {
		t.Run(c.name, func(t *testing.T) { c.do(t, openTable(false)) })
	}
}

func TestTable_BlockedBy_NamesHolders(t *testing.T) {
	lt := NewTable(Term{Number: 5, First: 10, Since: base, Length: testLength,
		Longest: testLength, Members: []string{"a", "b", "c"}})
	for _, id := range []string{"a", "b", "c"} {
		a := Request{Server: id, Boot: "boot", Nonce: 1, Applied: 10, Adopted: 5}
		if _, reason := lt.Admit(base, a); reason != Admitted {
			t.Fatalf("admit %s: got %q, want no refusal", id, reason)
		}
	}
	want := func(now Instant, ids ...string) {
		t.Helper()
		if got := lt.BlockedBy(now); !slices.Equal(got, ids) {
			t.Errorf("got %v, want %v", got, ids)
		}
	}
	want(base) // without a waiter
	lt.Wait(base, 11)
	want(base, "a", "b", "c")
	lt.Report(base, Request{Server: "b", Boot: "boot", Applied: 11})
	want(base, "a", "c")
	lt.Report(base, Request{Server: "a", Boot: "boot", Applied: 12})
	want(base, "c")
	want(base.Add(ReservedFor(testLength) + 1)) // the reservation of c has expired
	lt.Report(base, Request{Server: "c", Boot: "boot", Applied: 11})
	lt.Release(base)
	want(base)
}
