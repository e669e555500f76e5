package await

import (
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"
)

// A Log keeps the output of a logger or a process. A test may read it while it is written. The zero
// value is empty.
type Log struct {
	mu   sync.Mutex
	text strings.Builder
	more chan struct{} // closed by the next Write; nil: no test waits
}

// Write appends b. It never fails.
func (l *Log) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.more != nil {
		close(l.more)
		l.more = nil
	}
	return l.text.Write(b)
}

// String returns everything that was written.
func (l *Log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// Count returns the number of times that text was written.
func (l *Log) Count(text string) int { return strings.Count(l.String(), text) }

// Logger returns a logger of every level that writes to l.
func (l *Log) Logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// Wait blocks until each text has been written. After [Limit] it ends the test. Only the test's own
// goroutine may call it.
func (l *Log) Wait(t testing.TB, texts ...string) {
	t.Helper()
	stop := time.NewTimer(Limit)
	defer stop.Stop()
	for {
		all, more := l.next()
		missing := ""
		for _, want := range texts {
			if !strings.Contains(all, want) {
				missing = want
			}
		}
		if missing == "" {
			return
		}
		select {
		case <-more:
		case <-stop.C:
			t.Fatalf("got log:\n%s\nwant %q", all, missing)
		}
	}
}

// next returns everything that was written, and a channel that the next Write closes.
func (l *Log) next() (string, chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.more == nil {
		l.more = make(chan struct{})
	}
	return l.text.String(), l.more
}
