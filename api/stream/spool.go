package stream

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
)

// spoolMemory bounds the bytes of a spool in memory; a file holds the rest.
const spoolMemory = 256 << 10

var errSpoolClosed = errors.New("spool is closed")

// ErrSpool is returned when the temporary file of a spool fails, for instance because its file
// system is full.
var ErrSpool = errors.New("spool of results failed")

// SpoolConfig configures a [Spool]. Limit and Budget are required.
type SpoolConfig struct {
	Dir    string  // directory of the file; empty: the system's temporary directory
	Limit  int64   // maximum size of the file, in bytes
	Budget *Budget // limit for the files of all spools together
	// Full is called with true when a Write begins to wait for room, and with false when that Write
	// returns. It may be nil.
	Full func(full bool)
	// Failed is called when the file fails, so that the caller can end a Drain that waits for its
	// client. It must not block, and may be nil.
	Failed func()
}

// A Spool buffers an answer for a client that may not read for a long time. Memory and disk are
// bounded: memory by a constant, a temporary file without a name by the limit and the budget.
// Beyond them, Write waits until the client has read. Callers write results to a spool, never
// tokens.
//
// Write, Close and one Drain may run concurrently.
//
// Invariant: the bytes in mem are older than those in file.
type Spool struct {
	cfg     SpoolConfig
	writing sync.Mutex // held by Write, so that the bytes of a call stay together

	mu     sync.Mutex
	change *sync.Cond    // signals bytes to read, closed or err
	room   chan struct{} // closed when a waiting Write may continue; nil: no Write waits
	mem    []byte
	spare  []byte // memory for the next mem
	file   *os.File
	from   int64 // bytes read from file; the offset is from modulo the limit
	to     int64 // bytes written to file
	size   int64 // bytes of file, taken from the budget
	closed bool
	err    error // first error of the file or the client
}

// NewSpool returns an empty spool.
func NewSpool(cfg SpoolConfig) *Spool {
	if cfg.Full == nil {
		cfg.Full = func(bool) {}
	}
	if cfg.Failed == nil {
		cfg.Failed = func() {}
	}
	s := &Spool{cfg: cfg}
	s.change = sync.NewCond(&s.mu)
	return s
}

// Write appends p. While the spool is full, it blocks until Drain has written enough. It returns an
// error if the spool is closed, the file fails ([ErrSpool]) or Drain has failed.
func (s *Spool) Write(p []byte) (n int, err error) {
	s.writing.Lock()
	defer s.writing.Unlock()
	waited := false
	for {
		freed := s.cfg.Budget.next()
		took, room, err := s.accept(p[n:])
		n += took
		if err != nil || n == len(p) {
			return n, err
		}
		if took > 0 {
			continue
		}
		if !waited {
			waited = true
			s.cfg.Full(true)
			defer s.cfg.Full(false)
		}
		select {
		case <-room:
		case <-freed:
		}
	}
}

// accept appends as many bytes of p as fit. If none fits, room is closed once Drain has freed some
// space.
func (s *Spool) accept(p []byte) (n int, room <-chan struct{}, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closed:
		return 0, nil, errSpoolClosed
	case s.err != nil:
		return 0, nil, s.err
	case s.to == s.from && len(s.mem) < spoolMemory:
		n = min(len(p), spoolMemory-len(s.mem))
		s.mem = append(s.mem, p[:n]...)
	default:
		if n, err = s.spill(p); err != nil {
			s.fail(fmt.Errorf("%w: %w", ErrSpool, err))
			s.cfg.Failed()
			return n, nil, s.err
		}
	}
	if n == 0 && s.room == nil {
		s.room = make(chan struct{})
	}
	s.change.Signal()
	return n, s.room, nil
}

// spill writes as many bytes of p to the file as fit.
func (s *Spool) spill(p []byte) (n int, err error) {
	room := min(int64(len(p)), s.cfg.Limit-(s.to-s.from))
	s.size += s.cfg.Budget.take(min(s.to+room, s.cfg.Limit) - s.size)
	if s.size < s.cfg.Limit {
		room = min(room, s.size-s.to) // the file has not reached the limit, so writes have not wrapped around
	}
	if room > 0 && s.file == nil {
		if s.file, err = createUnnamed(s.cfg.Dir); err != nil {
			return 0, err
		}
	}
	for n < int(room) {
		at := s.to % s.cfg.Limit
		part := p[n:min(int64(n)+s.cfg.Limit-at, room)]
		if _, err := s.file.WriteAt(part, at); err != nil {
			return n, err
		}
		s.to += int64(len(part))
		n += len(part)
	}
	return n, nil
}

// createUnnamed creates a temporary file and removes its name.
func createUnnamed(dir string) (*os.File, error) {
	f, err := os.CreateTemp(dir, "results-*")
	if err != nil {
		return nil, err
	}
	if err := os.Remove(f.Name()); err != nil {
		f.Close()
		return nil, err
	}
	return f, nil
}

// fail keeps the first error and wakes all waiting calls. The caller must hold s.mu.
func (s *Spool) fail(err error) {
	if s.err == nil {
		s.err = err
	}
	s.change.Signal()
	s.wakeWriter()
}

// wakeWriter lets a waiting Write look for room again. The caller must hold s.mu.
func (s *Spool) wakeWriter() {
	if s.room != nil {
		close(s.room)
		s.room = nil
	}
}

// Close ends the answer: Drain returns when it has written everything. It may be called twice.
func (s *Spool) Close() {
	s.mu.Lock()
	s.closed = true
	s.change.Signal()
	s.wakeWriter()
	s.mu.Unlock()
}

// Drain writes everything to w, in order, until the spool is closed and empty, or w fails. It calls
// flush after it has written all buffered bytes. Drain removes the file. Call it only once.
func (s *Spool) Drain(w io.Writer, flush func() error) (err error) {
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if err != nil {
			s.fail(err)
			err = s.err // the first failure
		}
		if s.file != nil {
			s.file.Close() // also deletes it, since it has no name
			s.file = nil
		}
		s.cfg.Budget.release(s.size)
		s.size = 0
	}()
	chunk := make([]byte, 32<<10)
	for {
		part, last, err := s.next(chunk)
		if err != nil {
			return err
		}
		if len(part) > 0 {
			if _, err := w.Write(part); err != nil {
				return err
			}
		}
		if last || s.empty() {
			if err := flush(); err != nil || last {
				return err
			}
		}
	}
}

// next blocks until the spool has bytes or has ended, and returns the oldest bytes. last is true if
// no bytes follow.
func (s *Spool) next(chunk []byte) (part []byte, last bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.mem) == 0 && s.from == s.to && !s.closed && s.err == nil {
		s.change.Wait()
	}
	switch {
	case s.err != nil:
		return nil, true, s.err
	case len(s.mem) > 0:
		part, s.mem, s.spare = s.mem, s.spare[:0], s.mem
	case s.from < s.to:
		if part, err = s.readFile(chunk); err != nil {
			return nil, true, fmt.Errorf("%w: read: %w", ErrSpool, err)
		}
	}
	s.wakeWriter()
	return part, s.closed && len(s.mem) == 0 && s.from == s.to, nil
}

// readFile returns the oldest bytes of the file. When all bytes of the file have been read, it
// returns the size of the file to the budget.
func (s *Spool) readFile(chunk []byte) ([]byte, error) {
	at := s.from % s.cfg.Limit
	part := chunk[:min(int64(len(chunk)), s.to-s.from, s.cfg.Limit-at)]
	if n, err := s.file.ReadAt(part, at); n < len(part) {
		return nil, err
	}
	if s.from += int64(len(part)); s.from < s.to {
		return part, nil
	}
	if err := s.file.Truncate(0); err != nil {
		return nil, err
	}
	s.cfg.Budget.release(s.size)
	s.from, s.to, s.size = 0, 0, 0
	return part, nil
}

func (s *Spool) empty() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.mem) == 0 && s.from == s.to
}
