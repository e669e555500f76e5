package lease

import "time"

// An Instant is a time on one machine's CLOCK_BOOTTIME, in nanoseconds. It advances while the
// machine is suspended and means nothing on another machine.
type Instant int64

// Add returns t+d.
func (t Instant) Add(d time.Duration) Instant { return t + Instant(d) }

// Sub returns t-u.
func (t Instant) Sub(u Instant) time.Duration { return time.Duration(t - u) }

// The constants of the safety argument, which are equal on all nodes of one version.
const (
	RateBound = 0.01                  // e in DESIGN.md: largest deviation of a clock's rate from 1
	Guard     = 50 * time.Millisecond // d in DESIGN.md: a holder stops using its lease this long before the end
)

// ReservedFor returns how long a reservation lasts on the leader's clock. A lease of the given
// length, measured on its holder's clock, has ended by then.
func ReservedFor(length time.Duration) time.Duration {
	return time.Duration(float64(length)*(1+RateBound)/(1-RateBound)) + Guard
}

// OwnLength returns the length of the lease that a leader grants itself, if members get leases of
// the given length. A new leader waits only for the lease of its predecessor, because the other
// members drop their leases when they report to the new leader. So a shorter own lease shortens the
// failover.
func OwnLength(length time.Duration) time.Duration {
	return max(length*3/5, min(length, time.Second))
}

// A Leader is the leader of a term, according to the first command of the term.
type Leader struct {
	Server string        // empty: unknown
	Own    time.Duration // longest lease that the leader grants itself in the term; 0: unknown
}

// A Request requests a lease from the leader. Its fields other than Nonce also serve as a report.
type Request struct {
	Server  string
	Boot    string // random for each process start: identifies one incarnation of the server
	Nonce   uint64
	Applied uint64
	Adopted uint64 // highest term adopted: the holder has dropped older leases
	Dropped uint64 // the holder rejects replies whose nonce is not above this one
}

// An Admission is a request that was admitted: its lease is reserved. Table.Grant returns the
// reply.
type Admission struct {
	Request Request
	Length  time.Duration // length of the reserved lease
}

// A Reply grants the lease that was requested with its nonce.
type Reply struct {
	Term   uint64
	Nonce  uint64
	Boot   string
	Length time.Duration
}

// A Refusal is the reason why a request is not admitted, as a metric label.
type Refusal string

// The refusals. Admitted, the zero value, means that there was no reason to refuse.
const (
	Admitted         Refusal = ""
	RefusedNotMember Refusal = "not_member"
	RefusedBehind    Refusal = "behind"
	RefusedDiverged  Refusal = "diverged"
	RefusedLapsed    Refusal = "lapsed"
	RefusedClock     Refusal = "clock"
	RefusedRate      Refusal = "clock_rate"
	RefusedReturned  Refusal = "returned"
	RefusedSilent    Refusal = "no_report"
)
