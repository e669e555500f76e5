package liveness

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/hashicorp/raft"

	"revoked/internal/retry"
)

// A SilenceWatch makes Raft notice a silent leader sooner than its own timer does.
//
// Raft checks the last contact only when a timer fires, one to two heartbeat timeouts after its
// start. If the leader made contact since that start, Raft starts the timer again. So a follower
// notices a silent leader only after one to three timeouts. It refuses pre-votes until then, so an
// election waits for the slowest of a majority. A SilenceWatch makes Raft check after 1 to 1.5
// timeouts without contact. The random part keeps two followers from becoming candidates at the
// same time.
//
// A SilenceWatch makes no decision: Raft compares the last contact with its own timeout.
type SilenceWatch struct {
	Raft                *raft.Raft
	Heartbeat, Election time.Duration // Raft's timeouts
}

// Run watches until ctx ends.
func (w *SilenceWatch) Run(ctx context.Context) {
	limit := w.limit()
	for ctx.Err() == nil {
		pause := limit - w.silent()
		if pause <= 0 {
			w.look()
			limit, pause = w.limit(), w.Heartbeat
		}
		began := time.Now()
		_ = retry.Sleep(ctx, pause)
		if late := time.Since(began) - pause; late > w.Heartbeat/4 {
			// This process was paused. The leader's messages may wait in its sockets.
			_ = retry.Sleep(ctx, w.Heartbeat/4)
		}
	}
}

// limit returns how long the leader may be silent before look is called. It varies at random.
func (w *SilenceWatch) limit() time.Duration { return w.Heartbeat + rand.N(w.Heartbeat/2) }

// silent returns how long the leader that this node follows has been silent. It returns 0 if this
// node follows no leader.
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
