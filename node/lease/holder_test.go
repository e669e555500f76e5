package lease

import (
	"testing"
	"time"
)

// Each case checks one rule of "Read leases" (node/DESIGN.md) on a member's side. The holder has
// boot id 1, and made its request with nonce 1 at the instant base. The value good is the reply of
// term 5 to that request.
func TestHolder_EachRule_Holds(t *testing.T) {
	good := Reply{Term: 5, Nonce: 1, Boot: "1", Length: testLength}
	usable := testLength - Guard
	type holder = Holder
	take := func(t *testing.T, h *holder, now Instant, g Reply, want bool) {
		t.Helper()
		if got := h.Take(now, 0, g); got != want {
			t.Fatalf("take %+v: got %v, want %v", g, got, want)
		}
	}
	valid := func(t *testing.T, h *holder, now Instant, want bool) {
		t.Helper()
		if got := h.Valid(now, 0); got != want {
			t.Fatalf("valid %v after the request: got %v, want %v", now.Sub(base), got, want)
		}
	}
	for _, c := range []struct {
		name string
		do   func(t *testing.T, h *holder)
	}{
		{"a new holder has no lease", func(t *testing.T, h *holder) { valid(t, h, base, false) }},
		{"rule 4: a lease begins at its request, even if the reply is late", func(t *testing.T, h *holder) {
			take(t, h, base.Add(time.Second), good, true)
			valid(t, h, base.Add(usable-1), true)
			valid(t, h, base.Add(usable), false)
			if got := h.Remaining(base.Add(time.Second), 0); got != usable-time.Second {
				t.Fatalf("remaining: got %v, want %v", got, usable-time.Second)
			}
		}},
		{"rule 4: a reply after the end of the lease has no effect", func(t *testing.T, h *holder) {
			take(t, h, base.Add(time.Hour), good, true)
			valid(t, h, base.Add(time.Hour), false)
		}},
		{"rule 4: a reply to an older request is rejected", func(t *testing.T, h *holder) {
			h.Request(base.Add(1), 0)
			take(t, h, base.Add(2), good, false)
		}},
		{"rule 4: a reply is accepted once", func(t *testing.T, h *holder) {
			take(t, h, base, good, true)
			take(t, h, base, good, false)
		}},
		{"rule 4: a reply to another incarnation is rejected", func(t *testing.T, h *holder) {
			g := good
			g.Boot = "0"
			take(t, h, base, g, false)
		}},
		{"rule 4: a reply whose term is below the adopted term is rejected", func(t *testing.T, h *holder) {
			h.Adopt(6)
			h.Request(base, 0)
			g := good
			g.Nonce = 2
			take(t, h, base, g, false)
			g.Term = 6
			take(t, h, base, g, true)
		}},
		{"rule 4: a reply's term is adopted", func(t *testing.T, h *holder) {
			take(t, h, base, good, true)
			h.Request(base, 0)
			take(t, h, base, Reply{Term: 4, Nonce: 2, Boot: "1", Length: testLength}, false)
		}},
		{"rule 4: a reply without a length is rejected", func(t *testing.T, h *holder) {
			g := good
			g.Length = 0
			take(t, h, base, g, false)
		}},
		{"rule 4: a nonce is never used twice", func(t *testing.T, h *holder) {
			if got := h.Request(base, 0).Nonce; got != 2 {
				t.Fatalf("second request: got nonce %d, want 2", got)
			}
		}},
		{"rule 5: a wall clock that moved against the boot clock ends the lease", func(t *testing.T, h *holder) {
			take(t, h, base, good, true)
			for skew, want := range map[time.Duration]bool{Guard: true, -Guard: true, Guard + 1: false, -Guard - 1: false} {
				if got := h.Valid(base, skew); got != want {
					t.Fatalf("wall clock moved by %v: got valid %v, want %v", skew, got, want)
				}
			}
		}},
		{"rule 5: a lease that began after a read does not cover the read", func(t *testing.T, h *holder) {
			run := h.run
			take(t, h, base, good, true)
			if h.Covers(base, 0, run) {
				t.Fatal("read before the lease: got covered, want not")
			}
			if !h.Covers(base, 0, h.run) {
				t.Fatal("read under the lease: got not covered, want covered")
			}
		}},
		{"rule 5: a lease renewed in time covers an earlier read", func(t *testing.T, h *holder) {
			take(t, h, base, good, true)
			run := h.run
			h.Request(base.Add(usable-2), 0)
			take(t, h, base.Add(usable-1), Reply{Term: 5, Nonce: 2, Boot: "1", Length: testLength}, true)
			if !h.Covers(base.Add(usable), 0, run) {
				t.Fatal("without a break: got not covered, want covered")
			}
		}},
		{"rule 5: a lease renewed too late does not cover an earlier read", func(t *testing.T, h *holder) {
			take(t, h, base, good, true)
			run := h.run
			h.Request(base.Add(usable-2), 0)
			take(t, h, base.Add(usable), Reply{Term: 5, Nonce: 2, Boot: "1", Length: testLength}, true)
			if h.Covers(base.Add(usable), 0, run) {
				t.Fatal("after a break: got covered, want not")
			}
		}},
		{"rule 7: a newer term ends the lease and rejects outstanding replies", func(t *testing.T, h *holder) {
			take(t, h, base, good, true)
			h.Request(base, 0)
			h.Adopt(6)
			valid(t, h, base, false)
			take(t, h, base, Reply{Term: 6, Nonce: 2, Boot: "1", Length: testLength}, false)
			if h.adopted != 6 || h.dropped != 2 {
				t.Fatalf("got adopted %d and dropped %d, want 6 and 2", h.adopted, h.dropped)
			}
		}},
		{"rule 7: the adopted term, or an older one, changes nothing", func(t *testing.T, h *holder) {
			take(t, h, base, good, true)
			h.Adopt(5)
			h.Adopt(4)
			valid(t, h, base, true)
		}},
		{"rule 9: a dropped lease has ended, and outstanding replies are rejected", func(t *testing.T, h *holder) {
			take(t, h, base, good, true)
			h.Request(base, 0)
			h.Drop()
			valid(t, h, base, false)
			take(t, h, base, Reply{Term: 5, Nonce: 2, Boot: "1", Length: testLength}, false)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := NewHolder("b", "1")
			h.Request(base, 0)
			c.do(t, h)
		})
	}
}
