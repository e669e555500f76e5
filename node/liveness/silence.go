package liveness

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/hashicorp/raft"

	"revoked/internal/retry"
)

// A SilenceWatch makes Raft notice in time that its leader is silent.
//
// Raft looks at the last contact only when a timer fires, one to two heartbeat timeouts after its
// start. If there was contact since then, Raft starts the timer again. So a follower notices after
// one to three timeouts. It refuses pre-votes until then, so an election waits for the slowest of a
// majority. A SilenceWatch makes Raft look again after one to one and a half timeouts. The random
// part keeps two followers from standing for election at the same time.
//
// It decides nothing: Raft compares the last contact with its own timeout.
type SilenceWatch struct {
	Raft                *raft.Raft
	Heartbeat, Election time.Duration // Raft's timeouts
}

// Run watches until ctx ends.
func (w *SilenceWatch) Run(ctx context.Context) {
	patience := w.patience()
	for ctx.Err() == nil {
		pause := patience - w.silent()
		if pause <= 0 {
			w.look()
			patience, pause = w.patience(), w.Heartbeat
		}
		began := time.Now()
		_ = retry.Sleep(ctx, pause)
		if late := time.Since(began) - pause; late > w.Heartbeat/4 {
			// This process was paused. The leader's messages may wait in its sockets.
			_ = retry.Sleep(ctx, w.Heartbeat/4)
		}
	}
}

// patience returns for how long a leader may be silent.
func (w *SilenceWatch) patience() time.Duration { return w.Heartbeat + rand.N(w.Heartbeat/2) }

// silent returns for how long the leader that this node follows has been silent. It returns 0 if
// this node follows none.
func (w *SilenceWatch) silent() time.Duration {
	if w.Raft.State() != raft.Follower || w.Raft.Leader() == "" {
		return 0
	}
	return time.Since(w.Raft.LastContact())
}

// look makes a follower check its last contact now: Raft does so when its heartbeat timeout becomes
// shorter.
func (w *SilenceWatch) look() {
	conf := w.Raft.ReloadableConfig()
	for _, longer := range []time.Duration{1, 0} {
		conf.HeartbeatTimeout, conf.ElectionTimeout = w.Heartbeat+longer, w.Election+longer
		if err := w.Raft.ReloadConfig(conf); err != nil {
			return // Raft's own timer fires later
		}
	}
}
