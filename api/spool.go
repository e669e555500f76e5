package api

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
)

// spoolMemory is how much of an answer waits in memory before a file takes the rest.
const spoolMemory = 256 << 10

var errSpoolClosed = errors.New("spool is closed")

// A spool carries an answer from those who make it to a client that may not read for a long time. Write
// never waits for the client; drain does. Memory is bounded: what does not fit goes to a temporary file
// that has no name. It holds results, never tokens.
//
// Invariant: the bytes in mem are older than those in file.
type spool struct {
	dir string // of the file; empty: the system's

	mu      sync.Mutex
	more    *sync.Cond // something to read, closed, or broken
	mem     []byte
	spare   []byte // for the next mem
	file    *os.File
	from    int64 // of file: read up to here
	to      int64 // of file: written up to here
	closed  bool
	broken  error
	spilled bool
}

func newSpool(dir string) *spool {
	s := &spool{dir: dir}
	s.more = sync.NewCond(&s.mu)
	return s
}

// Write takes p. It fails when the spool is closed, the file cannot be written, or the client is gone.
func (s *spool) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return 0, errSpoolClosed
	}
	if s.broken != nil {
		return 0, s.broken
	}
	if s.to == s.from && len(s.mem)+len(p) <= spoolMemory {
		s.mem = append(s.mem, p...)
		s.more.Signal()
		return len(p), nil
	}
	if err := s.spill(p); err != nil {
		s.broken = err
		s.more.Signal()
		return 0, err
	}
	s.more.Signal()
	return len(p), nil
}

func (s *spool) spill(p []byte) error {
	if s.file == nil {
		f, err := os.CreateTemp(s.dir, "results-*")
		if err != nil {
			return fmt.Errorf("spool results: %w", err)
		}
		s.file = f
		s.spilled = true
		if err := os.Remove(f.Name()); err != nil {
			return fmt.Errorf("spool results: %w", err)
		}
	}
	if _, err := s.file.WriteAt(p, s.to); err != nil {
		return fmt.Errorf("spool results: %w", err)
	}
	s.to += int64(len(p))
	return nil
}

// finish says that nothing more will be written.
func (s *spool) finish() {
	s.mu.Lock()
	s.closed = true
	s.more.Signal()
	s.mu.Unlock()
}

// drain writes everything to w, in order, until finish was called and nothing is left, or w fails.
// flush is called whenever w has all that there is for now. One goroutine may call drain, once; it
// releases the file.
func (s *spool) drain(w io.Writer, flush func() error) (err error) {
	defer func() {
		s.mu.Lock()
		if s.broken == nil {
			s.broken = err
		}
		if s.file != nil {
			s.file.Close() // has no name any more: nothing of it stays
			s.file = nil
		}
		s.mu.Unlock()
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
		if s.drained() {
			if err := flush(); err != nil {
				return err
			}
		}
		if last {
			return nil
		}
	}
}

// next waits for the oldest bytes. last is true when none will follow.
func (s *spool) next(chunk []byte) (part []byte, last bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.mem) == 0 && s.from == s.to && !s.closed && s.broken == nil {
		s.more.Wait()
	}
	switch {
	case s.broken != nil:
		return nil, true, s.broken
	case len(s.mem) > 0:
		part, s.mem, s.spare = s.mem, s.spare[:0], s.mem
	case s.from < s.to:
		n, err := s.file.ReadAt(chunk[:min(int64(len(chunk)), s.to-s.from)], s.from)
		if n == 0 {
			return nil, true, fmt.Errorf("read spooled results: %w", err)
		}
		part = chunk[:n]
		if s.from += int64(n); s.from == s.to {
			s.from, s.to = 0, 0
			if err := s.file.Truncate(0); err != nil {
				return nil, true, fmt.Errorf("read spooled results: %w", err)
			}
		}
	}
	return part, s.closed && len(s.mem) == 0 && s.from == s.to, nil
}

func (s *spool) drained() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.mem) == 0 && s.from == s.to
}
