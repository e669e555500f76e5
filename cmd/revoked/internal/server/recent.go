package server

import (
	"io"
	"sync"
)

// maxRecent bounds the lines of each kind that a recentLog keeps, in bytes.
const maxRecent = 512 << 10

// A recentLog keeps the newest log lines in memory. Lines of requests do not displace the others.
// All methods may be called concurrently.
type recentLog struct {
	mu       sync.Mutex
	written  uint64 // number of lines written
	others   lineQueue
	requests lineQueue
}

// A lineQueue holds the newest lines, in the order in which they were written.
//
// Invariant: bytes is the length of all lines, at most maxRecent.
type lineQueue struct {
	lines []keptLine
	bytes int
}

type keptLine struct {
	number uint64 // place of the line among all lines
	text   []byte
}

// ofRequests returns a writer for the lines of requests. others returns a writer for all other
// lines. Each write must be one line.
func (l *recentLog) ofRequests() io.Writer { return recentWriter{l, &l.requests} }
func (l *recentLog) ofOthers() io.Writer   { return recentWriter{l, &l.others} }

type recentWriter struct {
	log *recentLog
	to  *lineQueue
}

func (w recentWriter) Write(line []byte) (int, error) {
	w.log.mu.Lock()
	defer w.log.mu.Unlock()
	w.log.written++
	w.to.add(keptLine{w.log.written, append([]byte(nil), line...)})
	return len(line), nil
}

func (q *lineQueue) add(line keptLine) {
	if len(line.text) > maxRecent {
		return
	}
	q.lines = append(q.lines, line)
	q.bytes += len(line.text)
	for q.bytes > maxRecent {
		q.bytes -= len(q.lines[0].text)
		q.lines[0] = keptLine{}
		q.lines = q.lines[1:]
	}
}

// text returns the lines in the order in which they were written.
func (l *recentLog) text() []byte {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := make([]byte, 0, l.others.bytes+l.requests.bytes)
	a, b := l.others.lines, l.requests.lines
	for len(a) > 0 || len(b) > 0 {
		from := &a
		if len(a) == 0 || len(b) > 0 && b[0].number < a[0].number {
			from = &b
		}
		out = append(out, (*from)[0].text...)
		*from = (*from)[1:]
	}
	return out
}
