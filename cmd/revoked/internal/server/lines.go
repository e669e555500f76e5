package server

import (
	"io"
	"sync"
	"time"
)

// Limits of the lines that a lineWriter buffers. Linux does not mix a write of at most 4096 bytes
// to a pipe with the writes of other processes (pipe(7)). So such a line stays whole.
const (
	bufferTime  = 100 * time.Millisecond
	bufferBytes = 4096
)

// A lineWriter writes whole log lines in their order. It buffers the lines of [lineWriter.later]
// and writes them together, because a system call for each request costs more than its line. All
// methods may be called concurrently. A failed write loses only its own lines.
type lineWriter struct {
	to io.Writer

	mu       sync.Mutex // also held during writes
	buffered []byte     // whole lines
	timed    bool       // a timer will flush
	through  bool       // write without buffering
	torn     bool       // the newest write stopped within a line
}

// Write writes a line immediately, after the buffered ones.
func (l *lineWriter) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.add(line)
	return len(line), l.flush()
}

// later returns a writer whose lines are written within bufferTime.
func (l *lineWriter) later() io.Writer { return laterWriter{l} }

type laterWriter struct{ *lineWriter }

func (g laterWriter) Write(line []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.add(line)
	switch {
	case g.through:
		return len(line), g.flush()
	case !g.timed:
		g.timed = true
		time.AfterFunc(bufferTime, g.onTime)
	}
	return len(line), nil
}

func (l *lineWriter) onTime() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.timed = false
	_ = l.flush()
}

// end writes the buffered lines. From then on each line is written immediately, because the process
// may exit at any moment.
func (l *lineWriter) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.through = true
	_ = l.flush()
}

// add appends a line to the buffer, and first flushes a buffer without enough space. The caller
// must hold mu.
func (l *lineWriter) add(line []byte) {
	if len(l.buffered)+len(line) > bufferBytes {
		_ = l.flush()
	}
	l.buffered = append(l.buffered, line...)
}

// flush writes the buffered lines, and first ends a line that was written only in part. The caller
// must hold mu.
func (l *lineWriter) flush() error {
	lines := l.buffered
	l.buffered = l.buffered[:0]
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
