package serve

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// A timedCall is a Read or Write, and how it ended.
type timedCall struct{ end atomic.Pointer[timedEnd] }

type timedEnd struct {
	n    int
	late bool // it failed because of the deadline
	at   time.Duration
}

// state returns how the call ended, or the zero value.
func (c *timedCall) state() timedEnd {
	if c == nil || c.end.Load() == nil {
		return timedEnd{}
	}
	return *c.end.Load()
}

// pending reports whether the call was made and has not ended.
func (c *timedCall) pending() bool { return c != nil && c.end.Load() == nil }

// A conn and a bare pipe get the same deadlines at the same moments of virtual time. The same calls
// must fail at the same moments, and the same bytes must arrive.
func TestDeadline_RandomMoves_FailLikeTheSocket(t *testing.T) {
	for seed := range uint64(400) {
		synctest.Test(t, func(t *testing.T) {
			rng, began := rand.New(rand.NewPCG(seed, 1)), time.Now()
			var ends, peers [2]net.Conn
			for i := range ends {
				ends[i], peers[i] = net.Pipe()
			}
			below := ends[1]
			ends[1] = &conn{Conn: below}
			var reads, writes [2]*timedCall
			var arrived [2][]byte
			steps := ""
			call := func(do func([]byte) (int, error), b []byte) *timedCall {
				c := &timedCall{}
				go func() {
					n, err := do(b)
					c.end.Store(&timedEnd{n, errors.Is(err, os.ErrDeadlineExceeded), time.Since(began)})
				}()
				return c
			}
			at := func() time.Time {
				switch rng.IntN(5) {
				case 0:
					return time.Unix(1, 0)
				case 1:
					return time.Time{}
				}
				return time.Now().Add(time.Duration(rng.IntN(20)-1) * time.Second)
			}
			for range 60 {
				step := rng.IntN(7)
				steps += fmt.Sprintf("%v: %d\n", time.Since(began), step)
				when, pause := at(), time.Duration(rng.IntN(8000))*time.Millisecond
				for i := range ends {
					switch step {
					case 0, 1:
						_ = ends[i].SetReadDeadline(when)
					case 2:
						_ = ends[i].SetWriteDeadline(when)
					case 3:
						_ = ends[i].SetDeadline(when)
					case 4:
						if !reads[i].pending() {
							reads[i] = call(ends[i].Read, make([]byte, 1))
						}
					case 5:
						if !writes[i].pending() && !writes[i].state().late { // a conn fails after a failed write
							writes[i] = call(ends[i].Write, []byte("abcdef"))
						}
					case 6: // the peer reads a part of a write, and sends a byte to a read in progress
						if writes[i].pending() {
							b := make([]byte, 2)
							n, _ := peers[i].Read(b)
							arrived[i] = append(arrived[i], b[:n]...)
						}
						if reads[i].pending() && pause > 4*time.Second {
							_, _ = peers[i].Write([]byte("x"))
						}
					}
				}
				synctest.Wait()
				time.Sleep(pause)
				synctest.Wait()
				for _, calls := range [][2]*timedCall{reads, writes} {
					if want, got := calls[0].state(), calls[1].state(); got != want {
						t.Fatalf("seed %d: got %+v, want %+v, as with a bare pipe:\n%s", seed, got, want, steps)
					}
				}
				if !bytes.Equal(arrived[0], arrived[1]) {
					t.Fatalf("seed %d: the peer got %q, want %q:\n%s", seed, arrived[1], arrived[0], steps)
				}
			}
			for i := range ends {
				_ = peers[i].Close()
			}
			_, _ = ends[0].Close(), below.Close()
		})
	}
}

// A movedConn counts the moves of its read deadline.
type movedConn struct {
	net.Conn
	moves int
}

func (c *movedConn) SetReadDeadline(time.Time) error {
	c.moves++
	return nil
}

// net/http sets these deadlines for each request of a keep-alive connection. Only the deadline that
// interrupts a read, and the one after it, reach the socket.
func TestDeadline_EachRequest_MovesSocketDeadlineTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		below := &movedConn{}
		c := &conn{Conn: below}
		for range 100 {
			for _, at := range []time.Time{time.Now().Add(idleTimeout), {}, time.Now().Add(readHeaderTimeout),
				time.Now().Add(readTimeout), {}, time.Unix(1, 0), {}} {
				if err := c.SetReadDeadline(at); err != nil {
					t.Fatal(err)
				}
			}
			time.Sleep(10 * time.Millisecond)
		}
		if below.moves > 2*100+2 { // two more for the first request
			t.Errorf("got %d moves for 100 requests, want 2 each", below.moves)
		}
	})
}
