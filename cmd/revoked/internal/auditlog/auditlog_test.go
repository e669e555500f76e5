package auditlog_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"revoked"
	"revoked/cmd/revoked/internal/auditlog"
)

// A history is a source with the entries of a cluster.
type history struct {
	mu      sync.Mutex
	cluster string
	floor   uint64
	entries []revoked.AuditEntry
	more    chan struct{} // closed by the next add; nil outside write
}

func newHistory(cluster string) *history { return &history{cluster: cluster} }

// add appends entries with the given indexes.
func (h *history) add(indexes ...uint64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, i := range indexes {
		h.entries = append(h.entries, revoked.AuditEntry{Index: i, Kind: revoked.AuditTokenRevoke, Actor: "app"})
	}
	if h.more != nil {
		close(h.more)
		h.more = make(chan struct{})
	}
}

func (h *history) Era() string { return revoked.EraOf(h.cluster) }

func (h *history) AuditBefore(revoked.Time) (uint64, error) { return h.floor, nil }

func (h *history) Audit(_ context.Context, after uint64, _ int) (list []revoked.AuditEntry, upTo uint64, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if after < h.floor {
		return nil, 0, revoked.ErrGone
	}
	upTo = after
	for _, e := range h.entries {
		if e.Index > after {
			list, upTo = append(list, e), e.Index
		}
	}
	return list, upTo, nil
}

func (h *history) WaitAudit(ctx context.Context, after uint64) error {
	for {
		h.mu.Lock()
		more := h.more
		newest := uint64(0)
		if n := len(h.entries); n > 0 {
			newest = h.entries[n-1].Index
		}
		h.mu.Unlock()
		if newest > after {
			return nil
		}
		select {
		case <-more:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func metrics(t *testing.T) *auditlog.Metrics {
	t.Helper()
	m, err := auditlog.NewMetrics(prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// write runs a log in virtual time until the log is idle, and then calls during.
func write(t *testing.T, path string, h *history, start uint64, during func(*auditlog.Log)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		h.more = make(chan struct{}) // created in this synctest bubble
		l, err := auditlog.New(path, io.Discard, h, slog.New(slog.DiscardHandler), metrics(t))
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			l.Run(ctx, start)
		}()
		synctest.Wait()
		if during != nil {
			during(l)
			synctest.Wait()
		}
		cancel()
		<-done
		h.more = nil
	})
}

// ids returns the indexes of the lines in a file, as text.
func ids(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for line := range strings.Lines(string(b)) {
		var e struct {
			ID    string `json:"id"`
			Index uint64 `json:"index"`
			Kind  string `json:"kind"`
		}
		if err := json.Unmarshal([]byte(line), &e); err != nil || e.Kind != "token.revoke" {
			out = append(out, "torn")
			continue
		}
		p, err := revoked.ParsePosition(e.ID)
		if err != nil || p.Index != e.Index {
			t.Errorf("id of %s: got %+v, %v", line, p, err)
		}
		out = append(out, fmt.Sprint(e.Index))
	}
	return strings.Join(out, " ")
}

func TestLog_FileAcrossStarts_EachEntryOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	h := newHistory("a")
	h.add(1, 2, 3)
	write(t, path, h, 2, func(*auditlog.Log) { h.add(5, 5, 9) }) // 1 and 2 were applied before
	if got := ids(t, path); got != "3 5 5 9" {
		t.Errorf("first start: got %s, want 3 5 5 9", got)
	}
	h.add(12)
	write(t, path, h, 12, nil) // 12 was applied by a process that crashed before it wrote it
	if got := ids(t, path); got != "3 5 5 9 12" {
		t.Errorf("second start: got %s, want 3 5 5 9 12", got)
	}
}

func TestLog_OtherCluster_StartsFromItsFirstEntry(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	h := newHistory("a")
	h.add(7, 8)
	write(t, path, h, 0, nil)
	restored := newHistory("b")
	restored.add(3, 8, 9)
	write(t, path, restored, 9, nil)
	if got := ids(t, path); got != "7 8 3 8 9" {
		t.Errorf("got %s, want 7 8 3 8 9", got)
	}
}

func TestLog_TornLine_IsTerminated(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	h := newHistory("a")
	h.add(1)
	write(t, path, h, 0, nil)
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(`{"id":"`); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	h.add(2)
	write(t, path, h, 2, nil)
	if got := ids(t, path); got != "1 torn 2" {
		t.Errorf("got %s, want 1 torn 2", got)
	}
}

func TestLog_Rotated_WritesToNewFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	h := newHistory("a")
	h.add(1)
	write(t, path, h, 0, func(l *auditlog.Log) {
		if err := os.Rename(path, path+".1"); err != nil {
			t.Fatal(err)
		}
		l.Reopen()
		h.add(2)
	})
	if old, now := ids(t, path+".1"), ids(t, path); old != "1" || now != "2" {
		t.Errorf("got %s and %s, want 1 and 2", old, now)
	}
}

// The log directory is missing for a while. Of the entries of that time, the log later writes those
// that the source still has.
func TestLog_WriteFails_RetriesWithoutLoss(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "logs")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "audit.log")
	h := newHistory("a")
	h.add(1)
	write(t, path, h, 0, func(l *auditlog.Log) {
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
		l.Reopen()
		h.add(2, 3, 4)
		time.Sleep(10 * time.Second)
		synctest.Wait() // an attempt may begin at this instant
		if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
			t.Fatalf("got %v, want no file", err)
		}
		h.mu.Lock()
		h.floor = 2
		h.mu.Unlock()
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second)
	})
	if got := ids(t, path); got != "3 4" {
		t.Errorf("got %s, want 3 4", got)
	}
}

func TestNew_FileCannotBeOpened_IsAnError(t *testing.T) {
	path := filepath.Join(t.TempDir(), "none", "audit.log")
	_, err := auditlog.New(path, io.Discard, newHistory("a"), slog.New(slog.DiscardHandler), metrics(t))
	if !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "audit_log") {
		t.Errorf("got %v, want audit_log in it", err)
	}
}

// A node that is not in a cluster writes the calls that it refused. Once the node is in a cluster,
// the log continues after the last entry of the cluster. The last line need not be such an entry.
func TestLocal_NoCluster_WritesLineWithoutID(t *testing.T) {
	path := filepath.Join(t.TempDir(), "audit.log")
	h := newHistory("a")
	h.add(7)
	write(t, path, h, 0, nil)
	none := newHistory("")
	write(t, path, none, 0, func(l *auditlog.Log) {
		l.Local(revoked.AuditEntry{Kind: revoked.AuditClusterJoin, Actor: "ops", Refused: true, Detail: "forbidden"})
	})
	h.add(8)
	write(t, path, h, 8, nil)
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	var local struct {
		ID                           *string
		Index                        uint64
		Kind, Actor, Outcome, Detail string
	}
	if len(lines) != 3 || json.Unmarshal([]byte(lines[1]), &local) != nil || local.ID != nil || local.Index != 0 ||
		local.Kind != "cluster.join" || local.Actor != "ops" || local.Outcome != "refused" || local.Detail != "forbidden" {
		t.Errorf("got %q, want the refused join without an id between 7 and 8", lines)
	}
	if got := ids(t, path); got != "7 torn 8" {
		t.Errorf("got %s, want 7, the entry from before the cluster, 8", got)
	}
}
