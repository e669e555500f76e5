package lease

// An Intake records when a node's log last received an entry of an earlier term. No lease of an
// earlier leader was requested after that: DESIGN.md of package node has the argument. The caller
// holds one lock around every method.
//
// The instants belong to a clock that may stop, but runs at most RateBound fast.
type Intake struct {
	term    uint64  // highest term of an entry so far
	latest  Instant // when the log last received an entry
	earlier Instant // when the log last received an entry of a term below term
}

// NewIntake returns the Intake of a process that starts at now. Earlier processes received
// everything that the log has by then.
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
