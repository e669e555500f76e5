package node_test

import (
	"bytes"
	"fmt"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"revoked/node"
	"revoked/node/nodetest"
	"revoked/node/recovery"
)

// feedAfter reads the feed of a member after a position.
func feedAfter(m *nodetest.Member, after string) nodetest.Reply {
	return m.Decided(func() nodetest.Reply { return m.JSON(http.MethodGet, "/v1/revocations?after="+after, "admin", "") })
}

// feedID returns the id at the end of the feed, and fails the test unless all members return the
// same era.
func feedID(t *testing.T, c *nodetest.Cluster) (era string, index uint64) {
	t.Helper()
	for _, m := range c.Members {
		r := feedAfter(m, "0")
		at, err := strconv.ParseUint(r.Header.Get("Revoked-Index"), 10, 64)
		if r.Status != http.StatusOK || err != nil {
			t.Fatalf("feed of %s: got %d %s %v", m.ID, r.Status, r.Header, err)
		}
		got := r.Header.Get("Revoked-Era")
		if era == "" {
			era, index = got, at
		}
		if got == "" || got != era {
			t.Errorf("era of %s: got %q, want %q", m.ID, got, era)
		}
	}
	return era, index
}

// A reader of the feed that resumes after a restore is refused, because its id belongs to another
// history. With the index alone it would continue after the cut-off of the restore, and miss it.
func TestFeed_ReaderResumesAfterRestore_IsRefused(t *testing.T) {
	t.Parallel()
	var restored atomic.Bool
	c := nodetest.Start(t, nodetest.Options{Node: func(_ int, conf *node.Config) {
		if restored.Load() {
			conf.BootstrapExpect = 0
		}
	}})
	m := c.Members[0]
	token, _ := register(t, m, "a")
	revoke(t, m, token)
	era, _ := feedID(t, c)

	for _, m := range c.Members {
		m.Restart()
	}
	lost := c.Follower()
	lost.Stop()
	lost.Wipe()
	lost.Start()
	c.WaitReady()
	if got, _ := feedID(t, c); got != era {
		t.Errorf("after restarts and the loss of a disk: got era %q, want %q", got, era)
	}

	var backup bytes.Buffer
	if err := c.Leader().Node.Snapshot(t.Context(), &backup); err != nil {
		t.Fatal(err)
	}
	for i := range 50 { // so that the reader is ahead of the restore's cut-off
		revoke(t, m, fmt.Sprint("unknown-", i))
	}
	_, index := feedID(t, c)
	for _, m := range c.Members {
		m.Stop()
		m.Wipe()
	}
	h, err := recovery.Seed(filepath.Join(m.Dir, "data"), &backup, recovery.SeedOptions{NodeID: m.ID})
	if err != nil {
		t.Fatal(err)
	}
	if h.Index >= index {
		t.Fatalf("cut-off of the restore: got index %d, want one below the reader's %d", h.Index, index)
	}
	restored.Store(true)
	m.Start()
	for _, m := range c.Members[1:] {
		m.Start()
		c.Admit(m)
		mustJoin(t, m, c.Members[0])
	}
	c.WaitReady()

	renewed, _ := feedID(t, c)
	if renewed == era {
		t.Fatalf("after the restore: got era %q, want another", renewed)
	}
	for _, m := range c.Members {
		old := fmt.Sprintf("%s.%d", era, index)
		if r := feedAfter(m, old); r.Status != http.StatusGone || !strings.Contains(r.Body, "start again from after=0") {
			t.Errorf("%s, after %s: got %d %s, want 410", m.ID, old, r.Status, r.Body)
		}
		for _, after := range []string{fmt.Sprint(h.Index - 1), fmt.Sprintf("%s.%d", renewed, h.Index-1), "0"} {
			if r := feedAfter(m, after); r.Status != http.StatusOK || !strings.Contains(r.Body, `"kind":"cutoff"`) {
				t.Errorf("%s, after %s: got %d %s, want the cut-off of the restore", m.ID, after, r.Status, r.Body)
			}
		}
		if r := feedAfter(m, fmt.Sprint(h.Index)); r.Status != http.StatusOK || strings.Contains(r.Body, `"cutoff"`) {
			t.Errorf("%s, after the index alone: got %d %s, want the events after it", m.ID, r.Status, r.Body)
		}
	}
}
