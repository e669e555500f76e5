package node

import (
	"testing"
	"time"
)

// A steadyTable is a leader's table whose only member has lapsed twice within a minute.
func steadyTable(t *testing.T) (table *leaseTable, now instant, nonce *uint64) {
	t.Helper()
	const length = 2 * time.Second
	now, nonce = instant(time.Hour), new(uint64)
	table = newLeaseTable(2, 5, now, length, length, nil)
	table.addMember("b", now)
	for range 2 {
		*nonce++
		if reason := table.admit(now, leaseAsk{server: "b", boot: "1", nonce: *nonce, applied: 10, adopted: 2}); reason != admitted {
			t.Fatalf("got %q, want it admitted", reason)
		}
		now = now.add(boundAfter(length) + time.Second) // and lapses
	}
	*nonce++
	if reason := table.admit(now, leaseAsk{server: "b", boot: "1", nonce: *nonce, applied: 10, adopted: 2}); reason != refusedLapsed {
		t.Fatalf("after two lapses: got %q, want %q", reason, refusedLapsed)
	}
	return table, now, nonce
}

// Design section 6, rule 8: a member that lapsed twice keeps up for ten seconds before it is admitted
// again. Under load its word is always a little behind what was acknowledged meanwhile; it keeps up
// all the same.
func TestMemberThatLapsedIsAdmittedAgainUnderLoad(t *testing.T) {
	table, now, nonce := steadyTable(t)
	began := now
	for index := uint64(11); ; index++ {
		now = now.add(20 * time.Millisecond)
		table.settle(now, index)             // acknowledged without the member,
		table.report(now, "b", "1", index-1) // whose report of it is still on its way
		if now.sub(began) > 15*time.Second { // a pause in the load
			table.report(now, "b", "1", index)
			*nonce++
			if reason := table.admit(now, leaseAsk{server: "b", boot: "1", nonce: *nonce, applied: index, adopted: 2}); reason != admitted {
				t.Fatalf("kept up for 15 s: got %q, want it admitted", reason)
			}
			return
		}
	}
}

// A member that stays behind is not admitted, however long it asks.
func TestMemberThatLapsedAndStaysBehindIsRefused(t *testing.T) {
	table, now, nonce := steadyTable(t)
	index := uint64(11)
	for range 300 {
		now = now.add(100 * time.Millisecond)
		index++
		table.settle(now, index)
		table.report(now, "b", "1", max(10, index-10)) // a second behind
	}
	table.report(now, "b", "1", index)
	*nonce++
	if reason := table.admit(now, leaseAsk{server: "b", boot: "1", nonce: *nonce, applied: index, adopted: 2}); reason != refusedLapsed {
		t.Errorf("got %q, want %q", reason, refusedLapsed)
	}
}
