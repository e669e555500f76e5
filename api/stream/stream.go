package stream

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"sync/atomic"
	"time"
)

// Idle is how long a bulk stream may be idle in both directions.
const Idle = time.Minute

// ErrIdle is returned when the client has read nothing for the idle time of a [Stream].
var ErrIdle = errors.New("client did not read in time")

// A Stream reads the body and writes the answer of one request. One goroutine may read while
// another writes. It moves the deadlines while bytes flow; these are deadlines of the socket and
// follow the system clock.
type Stream struct {
	w    http.ResponseWriter
	r    *http.Request
	rc   *http.ResponseController
	idle time.Duration
	gate *flowGate    // nil: parts of the answer are sent immediately
	end  atomic.Int64 // the write deadline, Unix nanoseconds
	over atomic.Bool  // Abort was called
	deaf atomic.Bool  // StopReading was called
}

// New returns the stream of a request. The stream ends if no byte flows for the duration idle.
func New(w http.ResponseWriter, r *http.Request, idle time.Duration) *Stream {
	return &Stream{w: w, r: r, rc: http.NewResponseController(w), idle: idle}
}

// EnableFullDuplex lets the answer begin before the body has ended.
func (s *Stream) EnableFullDuplex() error {
	if s.r.ProtoMajor >= 2 {
		s.gate = newFlowGate()
	}
	if err := s.rc.EnableFullDuplex(); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	return nil
}

// Read reads the body. It also moves the write deadline: a client that sends need not read yet.
func (s *Stream) Read(p []byte) (int, error) {
	if err := s.rc.SetReadDeadline(time.Now().Add(s.idle)); err != nil {
		return 0, err
	}
	if s.over.Load() {
		s.Abort() // Abort may have set its deadline just before this one
	}
	if s.deaf.Load() {
		s.StopReading()
	}
	s.gate.readBegins()
	n, err := s.r.Body.Read(p)
	s.gate.readEnds(err)
	if n > 0 {
		if derr := s.ExtendWrite(s.idle); derr != nil {
			return n, derr
		}
	}
	return n, err
}

// Stall records whether the body is not read until the client has read results. It may be called
// concurrently with Write.
func (s *Stream) Stall(stalled bool) { s.gate.setStalled(stalled) }

// Write writes a part of the answer. It may block until the client is ready, see [flowGate]. It
// returns [ErrIdle] if the client reads nothing for too long.
func (s *Stream) Write(p []byte) (int, error) {
	s.gate.wait(len(p))
	if err := s.ExtendWrite(s.idle); err != nil {
		return 0, err
	}
	n, err := s.w.Write(p)
	return n, s.idleError(err)
}

// idleError adds ErrIdle to a write error that occurs after the write deadline. Read may have moved
// the deadline since, so os.ErrDeadlineExceeded counts too, unless Abort caused it.
func (s *Stream) idleError(err error) error {
	late := errors.Is(err, os.ErrDeadlineExceeded) && !s.over.Load()
	if err != nil && (late || time.Now().UnixNano() >= s.end.Load()) {
		return fmt.Errorf("%w: %w", ErrIdle, err)
	}
	return err
}

// ExtendWrite moves the write deadline to d from now. The next Write moves it again.
func (s *Stream) ExtendWrite(d time.Duration) error {
	at := time.Now().Add(d)
	s.end.Store(at.UnixNano())
	err := s.rc.SetWriteDeadline(at)
	if s.over.Load() {
		s.Abort() // Abort may have set its deadline just before this one
	}
	return err
}

// Abort makes blocked and later calls to Read and Write return an error. It does not block and may
// be called concurrently.
func (s *Stream) Abort() {
	s.over.Store(true)
	past := time.Now().Add(-time.Second)
	_ = s.rc.SetWriteDeadline(past)
	_ = s.rc.SetReadDeadline(past)
}

// Flush sends the bytes that Write buffered.
func (s *Stream) Flush() error { return s.idleError(s.rc.Flush()) }

// StopReading makes blocked and later calls to Read return an error. It does not block and may be
// called concurrently.
func (s *Stream) StopReading() {
	s.deaf.Store(true)
	_ = s.rc.SetReadDeadline(time.Now().Add(-time.Second))
}
