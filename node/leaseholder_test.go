package node

import (
	"testing"
	"time"
)

// The holder's side of the rules of "Read leases". Each case starts with a holder of boot "1" that
// asked at base, nonce 1; good is the grant that it waits for, of term 5.
func TestLeaseHolder(t *testing.T) {
	good := leaseGrant{term: 5, nonce: 1, boot: "1", length: testLength}
	usable := testLength - leaseGuard
	type holder = leaseHolder
	take := func(t *testing.T, h *holder, now instant, g leaseGrant, want bool) {
		t.Helper()
		if got := h.grant(now, 0, g); got != want {
			t.Fatalf("grant %+v: got %v, want %v", g, got, want)
		}
	}
	valid := func(t *testing.T, h *holder, now instant, want bool) {
		t.Helper()
		if got := h.valid(now, 0); got != want {
			t.Fatalf("valid %v after the ask: got %v, want %v", now.sub(base), got, want)
		}
	}
	for _, c := range []struct {
		name string
		do   func(t *testing.T, h *holder)
	}{
		{"a holder without a grant has no lease", func(t *testing.T, h *holder) { valid(t, h, base, false) }},
		{"rule 4: a lease ends a length after its ask, less the guard, however late the grant comes", func(t *testing.T, h *holder) {
			take(t, h, base.add(time.Second), good, true)
			valid(t, h, base.add(usable-1), true)
			valid(t, h, base.add(usable), false)
			if got := h.left(base.add(time.Second), 0); got != usable-time.Second {
				t.Fatalf("left: got %v, want %v", got, usable-time.Second)
			}
		}},
		{"rule 4: a grant that comes after the lease would have ended gives none", func(t *testing.T, h *holder) {
			take(t, h, base.add(time.Hour), good, true)
			valid(t, h, base.add(time.Hour), false)
		}},
		{"rule 4: a grant for an older ask is refused", func(t *testing.T, h *holder) {
			h.ask(base.add(1), 0)
			take(t, h, base.add(2), good, false)
		}},
		{"rule 4: a grant is taken once", func(t *testing.T, h *holder) {
			take(t, h, base, good, true)
			take(t, h, base, good, false)
		}},
		{"rule 4: a grant to another life is refused", func(t *testing.T, h *holder) {
			g := good
			g.boot = "0"
			take(t, h, base, g, false)
		}},
		{"rule 4: a grant of a term below the one followed is refused", func(t *testing.T, h *holder) {
			h.adopt(6)
			h.ask(base, 0)
			g := good
			g.nonce = 2
			take(t, h, base, g, false)
			g.term = 6
			take(t, h, base, g, true)
		}},
		{"rule 4: a grant's term is followed from then on", func(t *testing.T, h *holder) {
			take(t, h, base, good, true)
			h.ask(base, 0)
			take(t, h, base, leaseGrant{term: 4, nonce: 2, boot: "1", length: testLength}, false)
		}},
		{"rule 4: a grant of no length is refused", func(t *testing.T, h *holder) {
			g := good
			g.length = 0
			take(t, h, base, g, false)
		}},
		{"rule 4: a nonce is never used twice", func(t *testing.T, h *holder) {
			if got := h.ask(base, 0); got != 2 {
				t.Fatalf("second ask: got nonce %d, want 2", got)
			}
		}},
		{"rule 5: a wall clock that moved against the boot clock by more than the guard ends the lease", func(t *testing.T, h *holder) {
			take(t, h, base, good, true)
			for skew, want := range map[time.Duration]bool{leaseGuard: true, -leaseGuard: true, leaseGuard + 1: false, -leaseGuard - 1: false} {
				if got := h.valid(base, skew); got != want {
					t.Fatalf("moved by %v: got %v, want %v", skew, got, want)
				}
			}
		}},
		{"rule 5: a lease that began after the state was read does not cover it", func(t *testing.T, h *holder) {
			mark := h.run
			take(t, h, base, good, true)
			if h.covers(base, 0, mark) {
				t.Fatal("got covered, want not: the state is from before the lease")
			}
			if !h.covers(base, 0, h.run) {
				t.Fatal("got not covered, want covered: the state was read under the lease")
			}
		}},
		{"rule 5: a lease renewed in time covers what was read under the one before", func(t *testing.T, h *holder) {
			take(t, h, base, good, true)
			mark := h.run
			h.ask(base.add(usable-2), 0)
			take(t, h, base.add(usable-1), leaseGrant{term: 5, nonce: 2, boot: "1", length: testLength}, true)
			if !h.covers(base.add(usable), 0, mark) {
				t.Fatal("got not covered, want covered: there was no break")
			}
		}},
		{"rule 5: a lease renewed too late does not cover what was read under the one before", func(t *testing.T, h *holder) {
			take(t, h, base, good, true)
			mark := h.run
			h.ask(base.add(usable-2), 0)
			take(t, h, base.add(usable), leaseGrant{term: 5, nonce: 2, boot: "1", length: testLength}, true)
			if h.covers(base.add(usable), 0, mark) {
				t.Fatal("got covered, want not: there was a break")
			}
		}},
		{"rule 7: following a newer term ends the lease and refuses the grants under way", func(t *testing.T, h *holder) {
			take(t, h, base, good, true)
			h.ask(base, 0)
			h.adopt(6)
			valid(t, h, base, false)
			take(t, h, base, leaseGrant{term: 6, nonce: 2, boot: "1", length: testLength}, false)
			if h.adopted != 6 || h.dropped != 2 {
				t.Fatalf("says: adopted %d, dropped up to %d, want 6 and 2", h.adopted, h.dropped)
			}
		}},
		{"rule 7: hearing of the term followed, or an older one, changes nothing", func(t *testing.T, h *holder) {
			take(t, h, base, good, true)
			h.adopt(5)
			h.adopt(4)
			valid(t, h, base, true)
		}},
		{"rule 9: a lease given back is over, and grants under way are refused", func(t *testing.T, h *holder) {
			take(t, h, base, good, true)
			h.ask(base, 0)
			h.drop()
			valid(t, h, base, false)
			take(t, h, base, leaseGrant{term: 5, nonce: 2, boot: "1", length: testLength}, false)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := &leaseHolder{boot: "1"}
			h.ask(base, 0)
			c.do(t, h)
		})
	}
}
