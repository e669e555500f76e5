package node_test

import (
	"context"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"

	"revoked/node/nodetest"
)

// A tally counts the log lines that begin in some way.
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

// Raft waits up to ten seconds before it sends the next entry to a member after many errors in a row. It
// hears of one error in an outage, however long.
func TestAnOutageOfAMemberIsOneErrorToRaft(t *testing.T) {
	log := tally{new(atomic.Int64), new(atomic.Int64)}
	c := nodetest.Start(t, nodetest.Options{Log: log})
	gone := c.Follower()
	started := log.appends.Load()
	gone.Stop()
	before := log.heartbeats.Load()
	c.Until("many heartbeats have failed", func() bool { return log.heartbeats.Load() > before+20 })
	if got := log.appends.Load() - started; got > 3 { // one for the outage, and room for what stopping costs
		t.Errorf("Raft heard of %d failed calls, want one for the outage", got)
	}
	late, _ := register(t, c.Leader(), "late")
	gone.Start()
	c.WaitReady()
	if !isActive(t, gone, "resource_server", late) {
		t.Error("the member that is back lacks what it missed")
	}
}
