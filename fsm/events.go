package fsm

import (
	"fmt"

	"revoked"
	"revoked/fsm/rows"
)

// Events returns events whose index is greater than the argument after, in log order. It returns
// about limit events and never splits the events of one index. The result has every event with an
// index in (after, upTo], so pass upTo as the next after. It returns ErrGone if some of these
// events were dropped.
func (f *FSM) Events(after uint64, limit int) (events []revoked.Event, upTo uint64, err error) {
	return page(f, feed, after, limit, func(key, val []byte) (revoked.Event, error) {
		var e rows.Event
		err := rows.Parse(key, val, &e)
		return e.Event, err
	})
}

// A sequence is a family of rows to which Apply appends and which Expire trims.
type sequence struct {
	family byte
	name   string
	floor  func(*rows.Applied) uint64 // highest index dropped
}

var (
	feed  = sequence{rows.FamilyEvent, "feed", func(a *rows.Applied) uint64 { return a.EventsFloor }}
	audit = sequence{rows.FamilyAudit, "audit", func(a *rows.Applied) uint64 { return a.AuditsFloor }}
)

// page returns rows of the sequence q as Events returns events.
func page[T any](
	f *FSM, q sequence, after uint64, limit int, parse func(key, val []byte) (T, error),
) (list []T, upTo uint64, err error) {
	s, err := f.acquire()
	if err != nil {
		return nil, 0, err
	}
	defer s.Release()
	if upTo, err = f.endOf(q, after); err != nil || after >= upTo {
		return nil, after, err
	}
	last := uint64(0)
	start := rows.SeqKey(nil, q.family, after+1, 0)
	err = s.Scan([]byte{q.family}, start, func(key, val []byte) (bool, error) {
		index := rows.KeyIndex(key)
		if index > upTo { // committed after the call of endOf
			return false, nil
		}
		if len(list) >= max(limit, 1) && last != index {
			upTo = last
			return false, nil
		}
		last = index
		v, err := parse(key, val)
		list = append(list, v)
		return true, err
	})
	if err == nil {
		_, err = f.endOf(q, after) // rows may have been dropped during the scan
	}
	if err != nil {
		return nil, 0, err
	}
	return list, upTo, nil
}

// endOf returns the applied index, or ErrGone if rows of q with an index greater than the argument
// after were dropped.
func (f *FSM) endOf(q sequence, after uint64) (uint64, error) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	a := &f.mem.Applied
	if floor := q.floor(a); after < floor {
		return 0, fmt.Errorf("%w: the %s begins after index %d", revoked.ErrGone, q.name, floor)
	}
	return a.Index, nil
}
