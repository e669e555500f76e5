package hashilog_test

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"revoked/internal/hashilog"
)

// Ten minutes without a quorum: Raft's lines of each election, twice a second.
func TestElections_QuorumLost_LimitsRepeatedLines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b bytes.Buffer
		log := hashilog.NewFor(hashilog.NewElections(hashilog.Sink{Log: slog.New(slog.NewTextHandler(&b, nil))}), "raft")
		var peers []raft.Server
		for i := range 6 {
			peers = append(peers, raft.Server{ID: raft.ServerID(fmt.Sprint("node", i+2))})
		}
		election := func(term int) {
			log.Info("entering candidate state", "node", "n", "term", term)
			for _, p := range peers {
				log.Error("failed to make requestVote RPC", "target", p, "error", errors.New("refused"), "term", term)
			}
			log.Info("pre-vote campaign failed, waiting for election timeout", "term", term)
			log.Warn("Election timeout reached, restarting election")
			log.Debug("pre-vote denied", "from", "node2")
		}
		log.Warn("heartbeat timeout reached, starting election")
		election(1)
		first := strings.Count(b.String(), "\n")
		if want := 4 + len(peers); first != want {
			t.Errorf("first election: got %d lines, want all %d:\n%s", first, want, &b)
		}
		for term := range 2 * 600 {
			time.Sleep(500 * time.Millisecond) // virtual time
			election(term + 2)
		}
		later := strings.Count(b.String(), "\n") - first
		if later > 300 || later < 60 { // half of one line per second; the other half is for requests
			t.Errorf("ten minutes: got %d lines, want 60 to 300", later)
		}
		last := b.String()[strings.LastIndex(strings.TrimSpace(b.String()), "\n")+1:]
		if !strings.Contains(last, "suppressed=") {
			t.Errorf("last line: got %q, want the number of suppressed lines", last)
		}
		for _, p := range peers {
			if n := strings.Count(b.String(), string(p.ID)); n < 2 {
				t.Errorf("lines about %s: got %d, want repeated ones too", p.ID, n)
			}
		}
	})
}

func TestElections_OtherLines_AllPass(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b bytes.Buffer
		opts := &slog.HandlerOptions{Level: slog.LevelDebug}
		log := hashilog.NewFor(hashilog.NewElections(hashilog.Sink{Log: slog.New(slog.NewTextHandler(&b, opts))}), "raft")
		for range 10 {
			log.Error("failed to heartbeat to", "peer", "node2")
			log.Debug("pre-vote denied", "from", "node2")
			log.Log(hclog.NoLevel, "election won", "term", 2)
		}
		if n := strings.Count(b.String(), "\n"); n != 30 {
			t.Errorf("got %d lines, want 30", n)
		}
		log.Info("entering candidate state", "term", 5)
		time.Sleep(20 * time.Second) // virtual time
		log.Info("entering candidate state", "term", 6)
		if n := strings.Count(b.String(), "entering candidate state"); n != 2 || strings.Contains(b.String(), "suppressed") {
			t.Errorf("a later election: got %d lines, want 2 without suppressed ones:\n%s", n, &b)
		}
	})
}
