package server

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// A recordingWriter records writes. The writes in fail write only a part and return an error.
type recordingWriter struct {
	mu     sync.Mutex
	writes []string
	fail   map[int]int // bytes that a failing write stores, by the number of the write, from 0
}

func (w *recordingWriter) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	n, failed := w.fail[len(w.writes)]
	if !failed {
		n = len(b)
	}
	w.writes = append(w.writes, string(b[:n]))
	if failed {
		return n, errors.New("no space left")
	}
	return n, nil
}

func (w *recordingWriter) all() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.writes)
}

func (w *recordingWriter) text() string { return strings.Join(w.all(), "") }

func TestLineWriter_Lines_AreBufferedInOrder(t *testing.T) {
	long := strings.Repeat("x", bufferBytes-10) + "\n"
	type step struct {
		at    time.Duration // time since the start
		later bool
		line  string
	}
	for _, tt := range []struct {
		name  string
		steps []step
		at    time.Duration // time at which the writes are checked
		want  []string
	}{
		{"not written yet", []step{{0, true, "a\n"}, {0, true, "b\n"}}, bufferTime - 1, nil},
		{"written together", []step{{0, true, "a\n"}, {bufferTime / 2, true, "b\n"}}, bufferTime, []string{"a\nb\n"}},
		{"a second time", []step{{0, true, "a\n"}, {2 * bufferTime, true, "b\n"}}, 3 * bufferTime,
			[]string{"a\n", "b\n"}},
		{"a line that is written immediately comes after them", []step{{0, true, "a\n"}, {1, false, "warn\n"},
			{2, true, "b\n"}}, 3, []string{"a\nwarn\n"}},
		{"a full buffer is written", []step{{0, true, "a\n"}, {0, true, long}, {0, true, "0123456789\n"}}, 1,
			[]string{"a\n" + long}},
		{"a line longer than the buffer is written whole", []step{{0, true, "a\n"}, {0, false, long + long}}, 1,
			[]string{"a\n", long + long}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var to recordingWriter
				lines := &lineWriter{to: &to}
				began := time.Now()
				for _, s := range tt.steps {
					time.Sleep(s.at - time.Since(began)) // virtual time
					w := lines.later()
					if !s.later {
						w = lines
					}
					if n, err := w.Write([]byte(s.line)); n != len(s.line) || err != nil {
						t.Errorf("%q: got %d, %v, want the whole line", s.line, n, err)
					}
				}
				time.Sleep(tt.at - time.Since(began))
				synctest.Wait()
				if got := to.all(); !slices.Equal(got, tt.want) {
					t.Errorf("got writes %.60q, want %.60q", got, tt.want)
				}
				time.Sleep(bufferTime)
			})
		})
	}
}

// Once the process begins to exit, no line is delayed.
func TestLineWriter_AfterEnd_WritesImmediately(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var to recordingWriter
		lines := &lineWriter{to: &to}
		fmt.Fprintln(lines.later(), "before")
		lines.end()
		fmt.Fprintln(lines.later(), "after")
		lines.end()
		if got, want := to.all(), []string{"before\n", "after\n"}; !slices.Equal(got, want) {
			t.Errorf("got writes %q, want %q", got, want)
		}
		time.Sleep(bufferTime)
	})
}

// Lines of a write that failed are lost. Later ones are whole, and no caller waits.
func TestLineWriter_FailedWrites_LeaveLaterLinesWhole(t *testing.T) {
	for _, tt := range []struct {
		name string
		fail map[int]int
		want string
	}{
		{"nothing written", map[int]int{0: 0}, "b\nc\n"},
		{"a whole line written", map[int]int{0: 5}, "a123\nb\nc\n"},
		{"a part of a line written", map[int]int{0: 3}, "a12\nb\nc\n"},
		{"and its end fails too", map[int]int{0: 3, 1: 0}, "a12\nc\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			to := recordingWriter{fail: tt.fail}
			lines := &lineWriter{to: &to}
			fmt.Fprint(lines.later(), "a123\n")
			fmt.Fprint(lines.later(), "a456\n")
			lines.end()
			fmt.Fprint(lines, "b\n")
			fmt.Fprint(lines.later(), "c\n")
			if got := to.text(); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

// Lines of many goroutines stay whole, and each goroutine's lines stay in their order.
func TestLineWriter_ManyGoroutines_LinesStayWhole(t *testing.T) {
	const goroutines, each = 16, 300
	for name, fail := range map[string]map[int]int{"a writer": nil, "a writer that fails sometimes": {3: 0, 7: 0, 11: 0}} {
		t.Run(name, func(t *testing.T) {
			to := recordingWriter{fail: fail}
			lines := &lineWriter{to: &to}
			level := new(slog.LevelVar)
			now, later := newLogger(lines, "text", level), newLogger(lines.later(), "text", level)
			var writing sync.WaitGroup
			for g := range goroutines {
				writing.Go(func() {
					for i := range each {
						log := later
						if i%97 == g {
							log = now
						}
						log.Info("request", "g", g, "i", i, "pad", strings.Repeat("x", i%200), "end", true)
					}
				})
			}
			writing.Wait()
			lines.end()
			next, found := [goroutines]int{}, 0
			for line := range strings.Lines(to.text()) {
				var g, i int
				_, rest, _ := strings.Cut(line, " msg=request ")
				if _, err := fmt.Sscanf(rest, "g=%d i=%d", &g, &i); err != nil || !strings.HasSuffix(line, " end=true\n") {
					t.Fatalf("got %q, want a whole line", line)
				}
				if i < next[g] || fail == nil && i != next[g] {
					t.Fatalf("goroutine %d: got line %d, want %d", g, i, next[g])
				}
				next[g] = i + 1
				found++
			}
			if fail == nil && found != goroutines*each || found == 0 {
				t.Errorf("got %d lines, want %d", found, goroutines*each)
			}
		})
	}
}

// A process that exits, but is not killed, writes its buffered lines.
func TestLineWriter_ProcessExits_WritesAll(t *testing.T) {
	const variable = "LINES_TEST_END"
	if how := os.Getenv(variable); how != "" {
		lines := &lineWriter{to: os.Stderr}
		defer lines.end() // as Run does
		level := new(slog.LevelVar)
		newLogger(lines.later(), "text", level).Info("buffered")
		switch how {
		case "crash":
			(&server{lines: lines}).crash(errors.New("disk failed"))
		case "panic":
			panic("a bug")
		}
		return
	}
	for how, want := range map[string]string{
		"return": "",
		"crash":  "revoked: the node stopped: disk failed",
		"panic":  "panic: a bug",
	} {
		t.Run(how, func(t *testing.T) {
			cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestLineWriter_ProcessExits_WritesAll$")
			cmd.Env = append(os.Environ(), variable+"="+how)
			var out bytes.Buffer
			cmd.Stdout, cmd.Stderr = nil, &out
			err := cmd.Run()
			if ok := err == nil; ok != (how == "return") {
				t.Errorf("got %v, want a failure unless it returns", err)
			}
			first, rest, _ := strings.Cut(out.String(), "\n")
			if !strings.HasSuffix(first, "msg=buffered") || !strings.Contains(rest, want) {
				t.Errorf("got %q, want the buffered line, then %q", out.String(), want)
			}
		})
	}
}
