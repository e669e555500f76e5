package fsm_test

import (
	"fmt"
	"testing"
	"time"

	"revoked"
	"revoked/fsm"
)

func TestFeed(t *testing.T) {
	m := newMachine(t)
	m.register(pair("1"))    // 2
	m.revoke("app", "a-1")   // 3
	m.revoke("app", "ghost") // 4
	m.must(fsm.CutoffOp(m.by("admin"), revoked.Selector{Subject: "bob"}, 0, "left"))
	c, _ := m.f.Client("other")
	off := *c
	off.Disabled = true
	m.must(fsm.PutClientOp(m.by("admin"), &off, c.Version))
	m.must(fsm.DeleteClientOp(m.by("admin"), "other"))
	got, upTo, err := m.f.Events(0, 100)
	if err != nil || upTo != 7 {
		t.Fatalf("got upTo %d, error %v", upTo, err)
	}
	var lines []string
	for _, e := range got {
		lines = append(lines, fmt.Sprintf("%d %s %s/%s %d %s by %s: %s", e.Index, e.Kind, e.Selector.ClientID, e.Selector.Subject, len(e.Digests), e.Action, e.Actor, e.Reason))
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
		t.Errorf("first event: got %+v", got[0])
	}
	t.Run("pages join without a gap, and never split an index", func(t *testing.T) {
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
			t.Errorf("got %d events over all pages, want %d", n, len(want))
		}
	})
	t.Run("after the newest there is nothing", func(t *testing.T) {
		if ev, upTo, err := m.f.Events(7, 10); len(ev) != 0 || upTo != 7 || err != nil {
			t.Errorf("got %v, %d, %v", ev, upTo, err)
		}
	})
	t.Run("what was dropped is gone", func(t *testing.T) {
		m.drain()
		m.later(9700 * time.Hour)
		m.drain()
		if _, _, err := m.f.Events(3, 10); err == nil {
			t.Error("got no error")
		} else {
			wantErr(t, err, revoked.ErrGone)
		}
		if ev, _, err := m.f.Events(7, 10); len(ev) != 0 || err != nil {
			t.Errorf("got %v, %v", ev, err)
		}
	})
	m.sameAs(m.replayed(4))
}
