package lease

// An Intake records when a node's log last received an entry of an earlier term. Every lease that
// an earlier leader granted was requested before that time: DESIGN.md of package node explains why.
// The caller holds one lock around every method.
//
// The instants come from a clock that may stop, but is never faster than true time by more than
// RateBound.
type Intake struct {
	term    uint64  // highest term of an entry so far
	latest  Instant // when the log last received an entry
	earlier Instant // when the log last received an entry of a term below term
}

// NewIntake returns the Intake of a process that starts at now. Earlier processes received all
// entries that the log contains at that time.
func NewIntake(now Instant) Intake { return Intake{latest: now, earlier: now} }

// Took records that the log receives entries of the terms from low to high at now. For a snapshot,
// low is 0. Call Took before the entries are stored, and in the order of the writes.
func (i *Intake) Took(low, high uint64, now Instant) {
	if high > i.term {
		i.earlier, i.term = i.latest, high
	}
	if low < i.term {
		i.earlier = now
	}
	i.latest = now
}

// Before returns an instant after which the log received no entry of a term below the given one.
func (i *Intake) Before(term uint64) Instant {
	if term > i.term {
		return i.latest
	}
	return i.earlier
}
