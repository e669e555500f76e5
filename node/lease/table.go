package lease

import (
	"slices"
	"time"
)

// A Table is the leader's side of the read leases in one term. It tracks which members may still
// answer from their own copy, and until when. These reservations determine which indexes may be
// acknowledged. The caller holds one lock around every method.
//
// Invariants: a reservation outlives every lease it may lead to, and ends early only if its holder
// returns the lease. acked never decreases. An index is acknowledged only if every member with an
// unexpired reservation has applied it.
type Table struct {
	term   uint64
	first  uint64 // index of the term's first command
	length time.Duration
	leader Leader // of this term

	acked        uint64 // highest index acknowledged in this term
	reservations map[string]*reservation
	waiters      []*Waiter
}

// A reservation holds the leader's assumptions about one member.
type reservation struct {
	boot      string  // incarnation that until and applied belong to; empty before the member's first report
	until     Instant // end of the reservation; 0: none
	applied   uint64
	inherited Instant   // latest end of a lease of an earlier term; 0: cleared
	earlier   []oldBoot // unexpired reservations of earlier incarnations
	blocked   bool      // no new lease: the member is being removed
	nonce     uint64    // highest nonce of the reserved requests of boot
	dropped   uint64    // boot rejects replies whose nonce is not above this one
	heldAt    uint64    // value of applied when a refused request last got a reservation

	lagging
}

// An oldBoot is the reservation of an earlier incarnation, whose applied index is ignored.
type oldBoot struct {
	boot  string
	until Instant
}

// A Waiter waits until its index may be acknowledged.
type Waiter struct {
	index uint64
	since Instant
	done  chan struct{}
}

// Done returns a channel that is closed once the index is acknowledged.
func (w *Waiter) Done() <-chan struct{} { return w.done }

// A Term describes a term to its leader.
type Term struct {
	Number  uint64
	First   uint64  // index of the term's first command, which this node has applied
	Since   Instant // no entry of an earlier term entered this node's log after Since, see Intake
	Length  time.Duration
	Longest time.Duration // longest lease that an earlier leader may have granted
	Members []string
	Leader  Leader
	// Previous is the leader of the newest earlier term whose first command is in the log. It is
	// zero if that leader is unknown, or if the command does not bound the leader's own lease.
	Previous Leader
}

// NewTable begins a term. For every member it reserves the longest lease that an earlier leader may
// have granted. The previous leader can hold only the lease that it granted itself. It dropped all
// earlier ones before it proposed the first command of its term, and no other node has led since.
func NewTable(n Term) *Table {
	t := &Table{term: n.Number, first: n.First, length: n.Length, leader: n.Leader,
		reservations: map[string]*reservation{}}
	for _, m := range n.Members {
		longest := n.Longest
		if m == n.Previous.Server && n.Previous.Own > 0 {
			longest = min(longest, n.Previous.Own)
		}
		t.reservations[m] = &reservation{inherited: n.Since.Add(ReservedFor(longest))}
	}
	return t
}

// lengthFor returns the length of a new lease of a server.
func (t *Table) lengthFor(server string) time.Duration {
	if server == t.leader.Server && t.leader.Own > 0 {
		return min(t.length, t.leader.Own)
	}
	return t.length
}

// Term returns the term of the table.
func (t *Table) Term() uint64 { return t.term }

// Update sets the newest configuration and lease length. It forgets servers that are no longer
// members, once IsFree returns true for them.
func (t *Table) Update(now Instant, members []string, length time.Duration) {
	t.length = length
	for _, id := range members {
		t.addMember(id)
	}
	for id := range t.reservations {
		if free, _ := t.IsFree(id, now); free && !slices.Contains(members, id) {
			t.forget(id)
		}
	}
	t.Release(now)
}

// addMember adds a server that joined during the term, and so has never held a lease.
func (t *Table) addMember(id string) {
	if t.reservations[id] == nil {
		t.reservations[id] = &reservation{}
	}
}

// forget deletes a server that left the configuration and for which IsFree returns true.
func (t *Table) forget(id string) { delete(t.reservations, id) }

// Admit records the report in r and decides whether r may lead to a lease. If it may, Admit
// reserves the lease before it returns, even if the reply is never sent.
func (t *Table) Admit(now Instant, r Request) (Admission, Refusal) {
	refusal := t.admit(now, r)
	t.Release(now)
	return Admission{r, t.lengthFor(r.Server)}, refusal
}

// Grant returns the reply to an admitted request. Call it only after the barrier: an entry that was
// proposed after Admit returned has been committed in the table's term. Only Grant may be called
// without the lock.
func (t *Table) Grant(a Admission) Reply {
	return Reply{Term: t.term, Nonce: a.Request.Nonce, Boot: a.Request.Boot, Length: a.Length}
}

func (t *Table) admit(now Instant, r Request) Refusal {
	m := t.reservations[r.Server]
	if m == nil {
		return RefusedNotMember
	}
	t.report(now, r)
	m.dropped = max(m.dropped, r.Dropped)
	if m.blocked || r.Nonce <= m.dropped { // the member is being removed, or would reject the reply
		return RefusedReturned
	}
	low := t.floor(now)
	if m.applied < low {
		t.hold(now, m, r, low)
		return RefusedBehind
	}
	if !m.allowRenewal(now, low) {
		return RefusedLapsed
	}
	t.reserve(now, m, r)
	return Admitted
}

// maxBehind is the number of entries that a member may be behind and still get a reservation.
const maxBehind = 64

// hold reserves a lease for a member that is slightly behind, as if it were admitted. From then on,
// acknowledgements wait for it. Otherwise a distant member would never be admitted under load: its
// reports are one network delay old, and newer indexes have been acknowledged since. A member that
// lapsed, or applied nothing since its last hold, gets no reservation.
func (t *Table) hold(now Instant, m *reservation, r Request, low uint64) {
	if m.until > now || low-m.applied > maxBehind || m.applied <= m.heldAt || !m.allowRenewal(now, low) {
		return
	}
	m.heldAt = m.applied
	t.reserve(now, m, r)
}

// allowRenewal reports whether a member that sends a request may get a lease. It records a lapse if
// the last reservation has expired. low is the floor at now.
func (m *reservation) allowRenewal(now Instant, low uint64) bool {
	if m.until != 0 && now > m.until {
		m.lapse(m.until)
		m.until = 0
	}
	return m.mayRenew(now, low)
}

// IsReserved reports whether a member has an unexpired reservation.
func (t *Table) IsReserved(id string, now Instant) bool {
	m := t.reservations[id]
	return m != nil && m.until > now
}

// reserve records that a member may obtain a lease for a request that it made before now.
func (t *Table) reserve(now Instant, m *reservation, r Request) {
	m.until = max(m.until, now.Add(ReservedFor(t.lengthFor(r.Server))))
	m.nonce = max(m.nonce, r.Nonce)
}

// floor returns the lowest applied index with which a member is admitted.
func (t *Table) floor(now Instant) uint64 {
	low := max(t.first, t.acked)
	for _, w := range t.waiters {
		if now.Sub(w.since) > t.length/4 {
			low = max(low, w.index)
		}
	}
	return low
}

// Report records a member's report: Server, Boot, Applied and Adopted of r.
func (t *Table) Report(now Instant, r Request) {
	t.report(now, r)
	t.Release(now)
}

func (t *Table) report(now Instant, r Request) {
	m := t.reservations[r.Server]
	if m == nil {
		return
	}
	t.clearInherited(m, r.Adopted)
	if m.boot != r.Boot {
		m.restart(now, r.Boot)
	}
	if r.Applied < m.applied { // a newer report came first
		return
	}
	m.applied = r.Applied
	if m.keepsUpSince != 0 {
		m.track(now, m.applied, t.floor(now), t.length/4)
	}
}

// clearInherited drops the reservation for leases of earlier terms, once the member has adopted
// this term. A member that adopts a term drops those leases. A reservation of this term stays.
func (t *Table) clearInherited(m *reservation, adopted uint64) {
	if adopted < t.term {
		return
	}
	m.inherited = 0
}

// restart begins another incarnation of the member. An unexpired reservation of the old one stays.
func (m *reservation) restart(now Instant, boot string) {
	m.earlier = slices.DeleteFunc(m.earlier, func(o oldBoot) bool { return o.until <= now })
	if m.until > now {
		m.earlier = append(m.earlier, oldBoot{m.boot, m.until})
	}
	m.boot, m.until, m.applied, m.nonce, m.dropped, m.heldAt = boot, 0, 0, 0, 0, 0
}

// Return ends a member's reservation. The member has stopped answering, and rejects every reply up
// to the nonce dropped. A reservation for a later nonce stays: a later request may arrive first.
func (t *Table) Return(now Instant, id, boot string, dropped uint64) {
	m := t.reservations[id]
	if m == nil || m.boot != boot {
		return
	}
	m.inherited, m.dropped = 0, max(m.dropped, dropped)
	if m.nonce <= dropped {
		m.until = 0
	}
	t.Release(now)
}

// Block forbids new leases for a member that is being removed, or allows them again.
func (t *Table) Block(id string, blocked bool) {
	if m := t.reservations[id]; m != nil {
		m.blocked = blocked
	}
}

// IsFree reports whether a member can no longer hold a lease. If free is false, the member's last
// lease may last until the returned instant.
func (t *Table) IsFree(id string, now Instant) (free bool, until Instant) {
	m := t.reservations[id]
	if m == nil {
		return true, 0
	}
	until = max(m.until, m.inherited)
	for _, o := range m.earlier {
		until = max(until, o.until)
	}
	return until <= now, until
}

// Remaining returns how long the leader must assume that a member answers from its own copy.
func (t *Table) Remaining(id string, now Instant) time.Duration {
	if free, until := t.IsFree(id, now); !free {
		return until.Sub(now)
	}
	return 0
}

// blocks reports whether the reservation forbids acknowledging index at now.
func (m *reservation) blocks(now Instant, index uint64) bool {
	if m.inherited > now {
		return true
	}
	if slices.ContainsFunc(m.earlier, func(o oldBoot) bool { return o.until > now }) {
		return true
	}
	return m.until > now && m.applied < index
}

// tryAcknowledge acknowledges index, which the leader has applied, unless a reservation blocks it.
// From then on no member behind index is admitted.
func (t *Table) tryAcknowledge(now Instant, index uint64) bool {
	if index <= t.acked {
		return true
	}
	for _, m := range t.reservations {
		if m.blocks(now, index) {
			return false
		}
	}
	t.acked = index
	return true
}

// Wait returns a waiter for index, which the leader has applied.
func (t *Table) Wait(now Instant, index uint64) *Waiter {
	w := &Waiter{index: index, since: now, done: make(chan struct{})}
	if t.tryAcknowledge(now, index) {
		close(w.done)
		return w
	}
	t.waiters = append(t.waiters, w)
	return w
}

// Cancel removes a waiter.
func (t *Table) Cancel(w *Waiter) {
	t.waiters = slices.DeleteFunc(t.waiters, func(o *Waiter) bool { return o == w })
}

// Release acknowledges the waiting indexes that no reservation blocks at now.
func (t *Table) Release(now Instant) {
	t.waiters = slices.DeleteFunc(t.waiters, func(w *Waiter) bool {
		if !t.tryAcknowledge(now, w.index) {
			return false
		}
		close(w.done)
		return true
	})
}

// IsBehind reports whether a member with a reservation, except self, has not yet reported index.
func (t *Table) IsBehind(now Instant, self string, index uint64) bool {
	for id, m := range t.reservations {
		if id != self && m.until > now && m.applied < index {
			return true
		}
	}
	return false
}

// BlockedBy returns the members that the newest waiter waits for, sorted by id.
func (t *Table) BlockedBy(now Instant) []string {
	var newest uint64
	for _, w := range t.waiters {
		newest = max(newest, w.index)
	}
	return t.Blockers(now, newest)
}

// Blockers returns the members whose reservations block acknowledging index at now, by id.
func (t *Table) Blockers(now Instant, index uint64) []string {
	if index <= t.acked {
		return nil
	}
	var ids []string
	for id, m := range t.reservations {
		if m.blocks(now, index) {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// NextExpiry returns the first instant after now at which a reservation expires, or 0 if there is
// none or no waiter.
func (t *Table) NextExpiry(now Instant) Instant {
	if len(t.waiters) == 0 {
		return 0
	}
	var next Instant
	consider := func(at Instant) {
		if at > now && (next == 0 || at < next) {
			next = at
		}
	}
	for _, m := range t.reservations {
		consider(m.until)
		consider(m.inherited)
		for _, o := range m.earlier {
			consider(o.until)
		}
	}
	return next
}
