package fsm_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"testing"
	"time"

	"revoked"
	"revoked/fsm/command"
	"revoked/internal/await"
)

func TestEvents_Operations_Listed(t *testing.T) {
	m := newMachine(t)
	m.register(pair("1"))    // 2
	m.revoke("app", "a-1")   // 3
	m.revoke("app", "ghost") // 4
	m.must(command.CutoffOp(m.by("admin"), revoked.Selector{Subject: "bob"}, 0, "left"))
	c, _ := m.f.Client("other")
	off := *c
	off.Disabled = true
	m.must(command.PutClientOp(m.by("admin"), &off, c.Version))
	m.must(command.DeleteClientOp(m.by("admin"), "other"))
	got, upTo, err := m.f.Events(0, 100)
	if err != nil || upTo != 7 {
		t.Fatalf("got up to %d, %v, want 7", upTo, err)
	}
	var lines []string
	for _, e := range got {
		lines = append(lines, fmt.Sprintf("%d %s %s/%s %d %s by %s: %s", e.Index, e.Kind, e.Selector.ClientID,
			e.Selector.Subject, len(e.Digests), e.Action, e.Actor, e.Reason))
	}
	want := []string{
		"3 grant / 2  by app: test",
		"4 token app/ 1  by app: test",
		"5 cutoff /bob 0  by admin: left",
		"6 client other/ 0 disabled by admin: ",
		"7 cutoff other/ 0  by admin: client deleted",
		"7 client other/ 0 deleted by admin: ",
	}
	if fmt.Sprint(lines) != fmt.Sprint(want) {
		t.Errorf("got\n%q\nwant\n%q", lines, want)
	}
	if got[0].Digests[0] != digest("a-1") || fmt.Sprint(got[0].Audiences) != "[[rs] [rs]]" || got[0].Time != m.now {
		t.Errorf("first event: got %+v, want the tokens of grant 1", got[0])
	}
	t.Run("pages", func(t *testing.T) {
		var n int
		for after := uint64(0); ; {
			ev, upTo, err := m.f.Events(after, 1)
			if err != nil {
				t.Fatal(err)
			}
			n += len(ev)
			if upTo == after {
				break
			}
			after = upTo
		}
		if n != len(want) {
			t.Errorf("events of all pages: got %d, want %d", n, len(want))
		}
	})
	t.Run("after the newest", func(t *testing.T) {
		if ev, upTo, err := m.f.Events(7, 10); len(ev) != 0 || upTo != 7 || err != nil {
			t.Errorf("got %v, %d, %v, want none up to 7", ev, upTo, err)
		}
	})
	t.Run("dropped events", func(t *testing.T) {
		m.drain()
		m.later(9700 * time.Hour)
		m.drain()
		_, _, err := m.f.Events(3, 10)
		wantErr(t, err, revoked.ErrGone)
		if ev, _, err := m.f.Events(7, 10); len(ev) != 0 || err != nil {
			t.Errorf("got %v, %v, want none", ev, err)
		}
	})
	m.sameAs(m.replayed(4))
}

// WaitEvent returns at the next event, or after a restore. Other entries do not wake it.
func TestWaitEvent_OtherEntries_DoNotWake(t *testing.T) {
	m := newMachine(t)
	ended, cancel := context.WithCancel(context.Background())
	cancel() // WaitEvent then reports whether it would block
	check := func(what string, after uint64, want error) {
		t.Helper()
		if err := m.f.WaitEvent(ended, after); !errors.Is(err, want) {
			t.Errorf("%s: got %v, want %v", what, err, want)
		}
	}
	m.register(pair("1"))
	m.apply(&command.Tick{Stamp: int64(m.now)})
	at := m.f.Applied()
	check("a tick", at-1, context.Canceled)
	m.revoke("app", "a-1")
	check("a revocation", at, nil)
	check("a revocation that was read", at+1, context.Canceled)
	check("the end of all indexes", math.MaxUint64, context.Canceled)

	at = m.f.Applied()
	c, _ := m.f.Client("other")
	less := *c
	less.Audiences = []string{"elsewhere"}
	m.must(command.PutClientOp(m.by("admin"), &less, c.Version)) // no event
	check("a client without an audience", at, nil)
	at = m.f.Applied() - 1

	woken := make(chan error, 1)
	go func() { woken <- m.f.WaitEvent(context.Background(), at+1) }()
	m.must(command.CutoffOp(m.by("admin"), revoked.Selector{Subject: "bob"}, 0, "left"))
	if err := await.Receive(t, woken, "the end of WaitEvent"); err != nil {
		t.Errorf("a cut-off: got %v, want nil", err)
	}
	go func() { woken <- m.f.WaitEvent(context.Background(), m.f.Applied()) }()
	if err := m.f.Close(); err != nil {
		t.Fatal(err)
	}
	if err := await.Receive(t, woken, "the end of WaitEvent"); !errors.Is(err, revoked.ErrClosed) {
		t.Errorf("closed: got %v, want %v", err, revoked.ErrClosed)
	}
}
