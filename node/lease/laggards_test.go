package lease

import (
	"testing"
	"time"
)

// A laggard is a leader's table whose only member, b, has lapsed twice within a minute.
type laggard struct {
	*Table
	now   Instant
	nonce uint64
}

func newLaggard(t *testing.T) *laggard {
	t.Helper()
	l := &laggard{now: base, Table: NewTable(Term{Number: 2, First: 5, Since: base, Length: testLength,
		Longest: testLength})}
	l.addMember("b")
	for range 2 {
		l.wantAdmit(t, 10, Admitted)
		l.now = l.now.Add(ReservedFor(testLength) + time.Second) // the reservation lapses
	}
	l.wantAdmit(t, 10, RefusedLapsed)
	return l
}

func (l *laggard) wantAdmit(t *testing.T, applied uint64, want Refusal) {
	t.Helper()
	l.nonce++
	r := Request{Server: "b", Boot: "1", Nonce: l.nonce, Applied: applied, Adopted: 2}
	if _, got := l.Admit(l.now, r); got != want {
		t.Fatalf("request %d: got %q, want %q", l.nonce, got, want)
	}
}

func (l *laggard) applied(index uint64) {
	l.Report(l.now, Request{Server: "b", Boot: "1", Applied: index})
}

// Rule 8: a member that lapsed twice must keep up for ten seconds. Under load its reports are
// always a little behind the newest acknowledged index. Such a member still counts as keeping up.
func TestLaggard_KeepsUpUnderLoad_Admitted(t *testing.T) {
	l := newLaggard(t)
	began := l.now
	for index := uint64(11); ; index++ {
		l.now = l.now.Add(20 * time.Millisecond)
		l.tryAcknowledge(l.now, index) // without waiting for the member,
		l.applied(index - 1)           // whose report of index is still on its way
		if l.now.Sub(began) > 15*time.Second {
			l.applied(index)
			l.wantAdmit(t, index, Admitted)
			return
		}
	}
}

func TestLaggard_StaysBehind_Refused(t *testing.T) {
	l := newLaggard(t)
	index := uint64(11)
	for range 300 {
		l.now = l.now.Add(100 * time.Millisecond)
		index++
		l.tryAcknowledge(l.now, index)
		l.applied(max(10, index-10)) // a second behind
	}
	l.applied(index)
	l.wantAdmit(t, index, RefusedLapsed)
}
