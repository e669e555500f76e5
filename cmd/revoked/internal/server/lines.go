package server

import (
	"io"
	"sync"
	"time"
)

// Limits of the lines that a lineWriter gathers. Linux does not mix a write of at most 4096 bytes
// to a pipe with the writes of other processes (pipe(7)). So such a line stays whole.
const (
	gatherTime  = 100 * time.Millisecond
	gatherBytes = 4096
)

// A lineWriter writes whole log lines in their order. It gathers the lines of [lineWriter.later]
// and writes them together, because a system call for each request costs more than its line. All
// methods may be called concurrently. A failed write loses only its own lines.
type lineWriter struct {
	to io.Writer

	mu       sync.Mutex // also held during writes
	gathered []byte     // whole lines
	timed    bool       // a timer will flush
	through  bool       // gather no longer
	torn     bool       // the newest write ended within a line
}

// Write writes a line at once, after those that were gathered before it.
func (l *lineWriter) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.add(line)
	return len(line), l.flush()
}

// later returns a writer whose lines are written within gatherTime.
func (l *lineWriter) later() io.Writer { return gatherer{l} }

type gatherer struct{ *lineWriter }

func (g gatherer) Write(line []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.add(line)
	switch {
	case g.through:
		return len(line), g.flush()
	case !g.timed:
		g.timed = true
		time.AfterFunc(gatherTime, g.onTime)
	}
	return len(line), nil
}

func (l *lineWriter) onTime() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.timed = false
	_ = l.flush()
}

// end writes the gathered lines. From then on each line is written at once: the process may end at
// any moment.
func (l *lineWriter) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.through = true
	_ = l.flush()
}

// add must be called with mu held.
func (l *lineWriter) add(line []byte) {
	if len(l.gathered)+len(line) > gatherBytes {
		_ = l.flush()
	}
	l.gathered = append(l.gathered, line...)
}

// flush must be called with mu held.
func (l *lineWriter) flush() error {
	lines := l.gathered
	l.gathered = l.gathered[:0]
	if len(lines) == 0 {
		return nil
	}
	if l.torn {
		if _, err := l.to.Write([]byte{'\n'}); err != nil {
			return err
		}
		l.torn = false
	}
	n, err := l.to.Write(lines)
	l.torn = err != nil && n > 0 && n <= len(lines) && lines[n-1] != '\n'
	return err
}
