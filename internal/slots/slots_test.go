package slots_test

import (
	"net"
	"net/netip"
	"slices"
	"testing"

	"revoked/internal/slots"
)

// kit names the slots of a set and records which were evicted.
type kit struct {
	set     *slots.Set
	order   uint64
	evicted []string
}

func (k *kit) take(name, source string, known bool) *slots.Slot {
	k.order++
	return k.takeAt(k.order, name, source, known)
}

func (k *kit) takeAt(order uint64, name, source string, known bool) *slots.Slot {
	return k.set.Take(slots.Waiter{Source: netip.MustParseAddr(source), Known: known, Order: order,
		Evict: func() { k.evicted = append(k.evicted, name) }})
}

func TestTake_FullSource_DisplacesItsOldest(t *testing.T) {
	k := &kit{set: slots.New(slots.Limits{Total: 8, Strangers: 4, PerSource: 2})}
	other := k.take("other", "10.0.0.9", false)
	first := k.take("a1", "10.0.0.1", false)
	k.take("a2", "10.0.0.1", false)
	k.take("a3", "10.0.0.1", false)
	if want := []string{"a1"}; !slices.Equal(k.evicted, want) {
		t.Errorf("got %v, want %v", k.evicted, want)
	}
	if first.Release() {
		t.Error("evicted slot: got true, want false")
	}
	if !other.Release() || other.Release() {
		t.Error("Release twice: got other than true, false")
	}
	if got := k.set.Held(); got != 2 {
		t.Errorf("got %d slots in use, want 2", got)
	}
}

// One source gets a quarter of the slots, and all unknown sources together half of them.
func TestShare_EachTotal_ReservesHalf(t *testing.T) {
	for n, want := range map[int]slots.Limits{
		64: {Total: 64, Strangers: 32, PerSource: 16}, 4: {Total: 4, Strangers: 2, PerSource: 1},
		1: {Total: 1, Strangers: 1, PerSource: 1}, 0: {Total: 1, Strangers: 1, PerSource: 1},
	} {
		if got := slots.Share(n); got != want {
			t.Errorf("%d slots: got %+v, want %+v", n, got, want)
		}
	}
}

func TestTake_ManyUnknownSources_KeepReservedSlotsFree(t *testing.T) {
	k := &kit{set: slots.New(slots.Limits{Total: 4, Strangers: 2, PerSource: 2})}
	k.take("member", "10.0.0.1", true)
	k.take("b1", "10.0.0.2", false)
	k.take("b2", "10.0.0.2", false)
	k.take("c1", "10.0.0.3", false) // displaces the oldest of the source with the most slots
	k.take("d1", "10.0.0.4", false) // all have one slot: displaces the oldest of an unknown source
	k.take("member2", "10.0.0.5", true)
	k.take("member3", "10.0.0.6", true) // full: displaces a member
	if want := []string{"b1", "b2", "member"}; !slices.Equal(k.evicted, want) {
		t.Errorf("got %v, want %v", k.evicted, want)
	}
}

// A connection that arrived before another must not displace it, even if it calls Take later.
func TestTake_LateOldConnection_IsEvicted(t *testing.T) {
	k := &kit{set: slots.New(slots.Limits{Total: 8, Strangers: 4, PerSource: 2})}
	k.takeAt(8, "new", "10.0.0.1", false)
	k.takeAt(9, "newer", "10.0.0.1", false)
	if k.takeAt(7, "old", "10.0.0.1", false).Release() {
		t.Error("slot of the older connection: got it held, want it evicted")
	}
	if want := []string{"old"}; !slices.Equal(k.evicted, want) {
		t.Errorf("got %v, want %v", k.evicted, want)
	}
}

// Members may use all slots, but an unknown source still gets its share.
func TestTake_FullOfMembers_UnknownSourceGetsASlot(t *testing.T) {
	k := &kit{set: slots.New(slots.Limits{Total: 2, Strangers: 1, PerSource: 1})}
	k.take("member", "10.0.0.1", true)
	k.take("member2", "10.0.0.2", true)
	k.take("a", "10.0.0.3", false)
	if want := []string{"member"}; !slices.Equal(k.evicted, want) {
		t.Errorf("got %v, want %v", k.evicted, want)
	}
}

func TestTake_OneSlot_GoesToTheNewest(t *testing.T) {
	k := &kit{set: slots.New(slots.Share(1))}
	k.take("a", "10.0.0.1", false)
	k.take("b", "10.0.0.2", false)
	if want := []string{"a"}; !slices.Equal(k.evicted, want) || k.set.Held() != 1 {
		t.Errorf("got %v and %d in use, want %v and 1", k.evicted, k.set.Held(), want)
	}
}

func TestSource_CountsOneHostOnce(t *testing.T) {
	for text, want := range map[string]string{
		"10.1.2.3:5":            "10.1.2.3",
		"[::ffff:10.1.2.3]:5":   "10.1.2.3",
		"[2001:db8:1:2::1]:5":   "2001:db8:1:2::",
		"[2001:db8:1:2:9::7]:5": "2001:db8:1:2::",
		"[fe80::1%eth0]:5":      "fe80::",
		"somewhere":             "invalid IP",
	} {
		if got := slots.Source(textAddr(text)).String(); got != want {
			t.Errorf("%s: got %s, want %s", text, got, want)
		}
	}
	if got := slots.Source(nil); got.IsValid() {
		t.Errorf("no address: got %s, want none", got)
	}
}

type textAddr string

func (textAddr) Network() string  { return "tcp" }
func (a textAddr) String() string { return string(a) }

var _ net.Addr = textAddr("")
