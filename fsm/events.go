package fsm

import (
	"encoding/binary"
	"fmt"

	"revoked"
)

// Events returns, in log order, events with an index above after, at most about limit of them (all of
// one index are given together), and upTo: no event with an index in (after, upTo] is missing, so
// upTo is the next after. ErrGone when events above after were dropped already.
func (f *FSM) Events(after uint64, limit int) (events []revoked.Event, upTo uint64, err error) {
	s, err := f.acquire()
	if err != nil {
		return nil, 0, err
	}
	defer s.release()
	f.mu.RLock()
	floor, upTo := f.mem.applied.EventsFloor, f.mem.applied.Index
	f.mu.RUnlock()
	if after < floor {
		return nil, 0, fmt.Errorf("%w: the feed begins after index %d", revoked.ErrGone, floor)
	}
	if after >= upTo {
		return nil, after, nil
	}
	limit = max(limit, 1)
	err = s.scanFrom([]byte{famEvent}, eventKey(nil, after+1, 0), func(key, val []byte) (bool, error) {
		index := binary.BigEndian.Uint64(key[1:])
		if index > upTo { // committed after the look at memory
			return false, nil
		}
		if n := len(events); n >= limit && events[n-1].Index != index {
			upTo = events[n-1].Index
			return false, nil
		}
		e, err := parseEvent(key, val)
		if err != nil {
			return false, err
		}
		events = append(events, e)
		return true, nil
	})
	if err != nil {
		return nil, 0, err
	}
	// What was dropped meanwhile may have been asked for.
	f.mu.RLock()
	floor = f.mem.applied.EventsFloor
	f.mu.RUnlock()
	if after < floor {
		return nil, 0, fmt.Errorf("%w: the feed begins after index %d", revoked.ErrGone, floor)
	}
	return events, upTo, nil
}
