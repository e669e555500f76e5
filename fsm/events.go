package fsm

import (
	"fmt"

	"revoked"
	"revoked/fsm/rows"
)

// Events returns events with an index above after, in log order. It returns about limit events and
// never splits those of one index. The result has every event with an index in (after, upTo], so
// pass upTo as the next after. It returns ErrGone if events above after were dropped.
func (f *FSM) Events(after uint64, limit int) (events []revoked.Event, upTo uint64, err error) {
	s, err := f.acquire()
	if err != nil {
		return nil, 0, err
	}
	defer s.Release()
	if upTo, err = f.feedEnd(after); err != nil || after >= upTo {
		return nil, after, err
	}
	start := rows.SeqKey(nil, rows.FamilyEvent, after+1, 0)
	err = s.Scan([]byte{rows.FamilyEvent}, start, func(key, val []byte) (bool, error) {
		index := rows.KeyIndex(key)
		if index > upTo { // committed since
			return false, nil
		}
		if n := len(events); n >= max(limit, 1) && events[n-1].Index != index {
			upTo = events[n-1].Index
			return false, nil
		}
		var e rows.Event
		err := rows.Parse(key, val, &e)
		events = append(events, e.Event)
		return true, err
	})
	if err == nil {
		_, err = f.feedEnd(after) // events may have been dropped meanwhile
	}
	if err != nil {
		return nil, 0, err
	}
	return events, upTo, nil
}

// feedEnd returns the applied index, or ErrGone if events above after were dropped.
func (f *FSM) feedEnd(after uint64) (uint64, error) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	a := &f.mem.Applied
	if after < a.EventsFloor {
		return 0, fmt.Errorf("%w: the feed begins after index %d", revoked.ErrGone, a.EventsFloor)
	}
	return a.Index, nil
}
