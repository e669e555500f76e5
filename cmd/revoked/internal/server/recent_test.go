package server

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"revoked/cmd/revoked/internal/config"
)

// The log keeps the newest lines in their order. Lines of requests displace only lines of requests.
func TestRecentLog_ManyLines_NewestAreKept(t *testing.T) {
	var recent recentLog
	requests, others := recent.ofRequests(), recent.ofOthers()
	fmt.Fprint(requests, "first request\n")
	fmt.Fprint(others, "node is up\n")
	fmt.Fprint(requests, "second request\n")
	if got, want := string(recent.text()), "first request\nnode is up\nsecond request\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	line := strings.Repeat("x", 999) + "\n"
	for range maxRecent/len(line) + 10 {
		fmt.Fprint(requests, line)
	}
	fmt.Fprint(others, "leader lost\n")
	got := string(recent.text())
	if len(got) > maxRecent+100 || len(got) < maxRecent-len(line) {
		t.Errorf("got %d bytes, want about %d", len(got), maxRecent)
	}
	if !strings.HasPrefix(got, "node is up\nxxx") || !strings.HasSuffix(got, "xxx\nleader lost\n") {
		t.Errorf("got %.20q to %q, want the other lines first and last", got, got[len(got)-20:])
	}
	fmt.Fprint(others, strings.Repeat("y", maxRecent+1))
	if after := recent.text(); string(after) != got {
		t.Errorf("after a line beyond the limit: got %d bytes, want the same %d", len(after), len(got))
	}
}

// Writers may reuse their buffer, and lines of several goroutines stay whole.
func TestRecentLog_ManyGoroutines_LinesStayWhole(t *testing.T) {
	var recent recentLog
	var writing sync.WaitGroup
	for g := range 8 {
		writing.Go(func() {
			w := recent.ofRequests()
			if g%2 == 0 {
				w = recent.ofOthers()
			}
			var line []byte
			for i := range 500 {
				line = fmt.Appendf(line[:0], "%d %d end\n", g, i)
				w.Write(line)
				recent.text()
			}
		})
	}
	writing.Wait()
	var next [8]int
	for line := range bytes.Lines(recent.text()) {
		var g, i int
		if _, err := fmt.Sscanf(string(line), "%d %d end\n", &g, &i); err != nil || i != next[g] {
			t.Fatalf("got %q, %v, want line %d of the goroutine", line, err, next[g])
		}
		next[g]++
	}
	for g, n := range next {
		if n != 500 {
			t.Errorf("goroutine %d: got %d lines, want 500", g, n)
		}
	}
}

// Lines of requests, of any level and caller, displace only lines of requests. Those that must not
// be lost are written immediately.
func TestRecentLog_RequestsOfTheAPI_DisplaceNoOthers(t *testing.T) {
	var written bytes.Buffer
	recent, level := &recentLog{}, new(slog.LevelVar)
	cfg := config.Config{Settings: config.Settings{NodeID: "n1", LogFormat: "json"}}
	s := &server{cfg: &cfg, files: &config.Files{}, recent: recent, level: level,
		lines: &lineWriter{to: &written}}
	fmt.Fprint(recent.ofOthers(), "node is up\n")
	c := s.apiConfig(prometheus.NewRegistry())
	c.Log.Warn("request", "status", 503)
	if !strings.Contains(written.String(), `"status":503`) {
		t.Errorf("after an urgent line: got %q, want it", written.String())
	}
	for _, log := range []*slog.Logger{c.Log, c.RequestLog} {
		for range maxRecent / 50 {
			log.Warn("request", "outcome", "gateway")
		}
	}
	if got := string(recent.text()); !strings.HasPrefix(got, "node is up\n") || !strings.Contains(got, `"node":"n1"`) {
		t.Errorf("got %.40q first, want the line of the node", got)
	}
	s.lines.end()
}
