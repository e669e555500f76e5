// Package slots limits how many connections wait concurrently, fairly by source address.
//
// A full Set still admits connections: a newer connection displaces the oldest one of the source
// with the most slots. So idle connections, from one address or from many, do not keep others
// out. A connection that makes progress is displaced only if newer ones fill its share of the slots
// before it finishes.
package slots

import (
	"net"
	"net/netip"
	"sync"
)

// Limits are the limits of a Set. Each is at least 1.
type Limits struct {
	Total     int // all slots
	Strangers int // slots for sources that are not known; the others are reserved for known sources
	PerSource int // slots of one source
}

// Share returns the limits of n slots: half of them are reserved, and a source gets a quarter.
func Share(n int) Limits {
	return Limits{Total: max(n, 1), Strangers: max(n/2, 1), PerSource: max(n/4, 1)}
}

// Waiter is a connection that waits.
type Waiter struct {
	Source netip.Addr // address by which the connection is counted, see [Source]
	Known  bool       // may use the reserved slots
	Order  uint64     // order of arrival, the same in all sets; lower numbers are displaced first
	// Evict is called at most once, when the connection is displaced, perhaps before Take returns.
	// Another goroutine may call it.
	Evict func()
}

// Set is a set of slots. All methods may be called concurrently.
type Set struct {
	limits Limits

	mu   sync.Mutex
	held map[*Slot]struct{}
}

// New returns an empty set.
func New(limits Limits) *Set { return &Set{limits: limits, held: make(map[*Slot]struct{})} }

// Slot is the permission of one connection to wait.
type Slot struct {
	Waiter
	set *Set
}

// Take gives w a slot. If that exceeds a limit, Take evicts one connection, which may be w: the
// oldest of the source with the most slots.
func (s *Set) Take(w Waiter) *Slot {
	slot := &Slot{Waiter: w, set: s}
	s.mu.Lock()
	s.held[slot] = struct{}{}
	victim := s.victim(slot)
	delete(s.held, victim)
	s.mu.Unlock()
	if victim != nil {
		victim.Evict()
	}
	return slot
}

// Release frees the slot. It returns false if the connection was evicted or the slot was already
// freed.
func (s *Slot) Release() bool {
	s.set.mu.Lock()
	defer s.set.mu.Unlock()
	_, held := s.set.held[s]
	delete(s.set.held, s)
	return held
}

// Held returns the number of slots in use.
func (s *Set) Held() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.held)
}

// victim returns the slot that exceeds a limit after newest was added, or nil. The caller holds the
// lock.
func (s *Set) victim(newest *Slot) *Slot {
	counts := make(map[netip.Addr]int)
	strangers := 0
	for slot := range s.held {
		counts[slot.Source]++
		if !slot.Known {
			strangers++
		}
	}
	switch {
	case counts[newest.Source] > s.limits.PerSource:
		return s.oldest(counts, func(slot *Slot) bool { return slot.Source == newest.Source })
	case strangers > s.limits.Strangers:
		return s.oldest(counts, func(slot *Slot) bool { return !slot.Known })
	case len(s.held) > s.limits.Total:
		return s.oldest(counts, func(slot *Slot) bool { return slot.Known })
	}
	return nil
}

// oldest returns, of the slots for which pick returns true, the oldest one of the source with the
// most slots.
func (s *Set) oldest(counts map[netip.Addr]int, pick func(*Slot) bool) *Slot {
	var found *Slot
	for slot := range s.held {
		if !pick(slot) {
			continue
		}
		if found == nil || counts[slot.Source] > counts[found.Source] ||
			counts[slot.Source] == counts[found.Source] && slot.Order < found.Order {
			found = slot
		}
	}
	return found
}

// Source returns the address by which connections are counted: the IPv4 address, or the /64 network
// of an IPv6 address, which one host can fill. It returns the zero Addr if addr has no IP address.
func Source(addr net.Addr) netip.Addr {
	if addr == nil {
		return netip.Addr{}
	}
	ap, err := netip.ParseAddrPort(addr.String())
	if err != nil {
		return netip.Addr{}
	}
	return Network(ap.Addr())
}

// Network returns the address by which connections from ip are counted. See Source.
func Network(ip netip.Addr) netip.Addr {
	ip = ip.Unmap().WithZone("")
	if !ip.Is6() {
		return ip
	}
	p, err := ip.Prefix(64)
	if err != nil {
		return ip
	}
	return p.Addr()
}
