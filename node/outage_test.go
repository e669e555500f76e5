package node_test

import (
	"context"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"

	"revoked/node/nodetest"
)

// A tally counts two of Raft's log lines.
type tally struct {
	appends, heartbeats *atomic.Int64
}

func (c tally) Enabled(context.Context, slog.Level) bool { return true }
func (c tally) WithAttrs([]slog.Attr) slog.Handler       { return c }
func (c tally) WithGroup(string) slog.Handler            { return c }
func (c tally) Handle(_ context.Context, r slog.Record) error {
	switch {
	case strings.HasPrefix(r.Message, "failed to appendEntries"):
		c.appends.Add(1)
	case strings.HasPrefix(r.Message, "failed to heartbeat"):
		c.heartbeats.Add(1)
	}
	return nil
}

// After many errors in a row Raft waits up to ten seconds before it sends the next entry to a
// member.
func TestOutage_ManyFailures_OneRaftError(t *testing.T) {
	t.Parallel()
	log := tally{new(atomic.Int64), new(atomic.Int64)}
	c := nodetest.Start(t, nodetest.Options{Log: log})
	var gone *nodetest.Member
	term := func() uint64 { return c.Leader().Node.NodeStatus(t.Context()).Term }
	c.Until("an outage under one leader", func() bool {
		gone = c.Follower()
		led, started := term(), log.appends.Load()
		gone.Stop()
		before := log.heartbeats.Load()
		c.Until("20 heartbeats failed", func() bool { return log.heartbeats.Load() > before+20 })
		got := log.appends.Load() - started
		if term() != led { // each leader has its own errors
			gone.Start()
			c.WaitReady()
			return false
		}
		if got > 3 { // one for the outage and a few from the shutdown
			t.Errorf("got %d failed calls, want 3 at most", got)
		}
		return true
	})
	late, _ := register(t, c.Leader(), "late")
	gone.Start()
	c.WaitReady()
	if !isActive(t, gone, "resource_server", late) {
		t.Error("token registered during the outage: got inactive, want active")
	}
}
