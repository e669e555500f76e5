package serve

import (
	"errors"
	"os"
	"sync"
	"time"
)

// restTime is how far in the future the socket's deadline is set if the previous deadline was in
// the past.
const restTime = 5 * time.Second

// A deadline is the read or the write deadline of a socket. It moves the socket's own deadline
// rarely: net/http sets six deadlines for each request, and each move changes a timer of the
// runtime.
//
// A deadline later than the socket's is only recorded. When the socket's deadline passes, the call
// that fails moves it to the recorded deadline and continues (see early). So a call fails exactly
// when it would if the socket always had the recorded deadline. All methods may be called
// concurrently.
type deadline struct {
	mu     sync.Mutex
	wanted time.Time // recorded deadline; zero: none
	socket time.Time // deadline of the socket, never later than wanted; zero: none
	past   bool      // socket was in the past when it was set: net/http interrupts a read in this way
}

// set sets the deadline, zero for none. move sets the deadline of the socket.
func (d *deadline) set(t time.Time, move func(time.Time) error) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.wanted = t
	if t.Equal(d.socket) || isBefore(d.socket, t) && !d.past {
		return nil
	}
	now := time.Now()
	if rest := now.Add(restTime); d.past && isBefore(rest, t) { // the next request sets many later deadlines
		t = rest
	}
	d.socket, d.past = t, !t.IsZero() && !t.After(now)
	return move(t)
}

// early reports whether err means that the socket's deadline has passed, but the recorded deadline
// has not. It then sets the socket's deadline to the recorded one, and the caller must continue.
func (d *deadline) early(err error, move func(time.Time) error) bool {
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		return false
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if !isBefore(d.socket, d.wanted) {
		return false
	}
	d.socket, d.past = d.wanted, false
	return move(d.wanted) == nil
}

// isBefore reports whether deadline a is before b. Zero means no deadline, so it is after every
// other deadline.
func isBefore(a, b time.Time) bool { return !a.IsZero() && (b.IsZero() || a.Before(b)) }
