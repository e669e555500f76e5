package node

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/hashicorp/raft"

	"revoked/internal/retry"
)

// A silenceWatch makes Raft notice in time that its leader is silent.
//
// Raft looks at the last contact only when a timer fires, one to two heartbeat timeouts after its
// start. If the leader was heard of meanwhile, Raft starts the timer again. So a follower
// notices after one to three timeouts. It refuses pre-votes until then, so an election waits for
// the slowest of a majority. A silenceWatch makes Raft look again after one to one and a half
// timeouts. The random part keeps two followers from standing for election at once.
//
// It decides nothing: Raft compares the last contact with its own timeout.
type silenceWatch struct {
	raft                *raft.Raft
	heartbeat, election time.Duration // Raft's timeouts
}

// run watches until ctx ends.
func (w *silenceWatch) run(ctx context.Context) {
	patience := w.patience()
	for ctx.Err() == nil {
		pause := patience - w.silent()
		if pause <= 0 {
			w.look()
			patience, pause = w.patience(), w.heartbeat
		}
		began := time.Now()
		_ = retry.Sleep(ctx, pause)
		if late := time.Since(began) - pause; late > w.heartbeat/4 {
			// This process was paused. The leader's messages may wait in its sockets.
			_ = retry.Sleep(ctx, w.heartbeat/4)
		}
	}
}

// patience returns for how long a leader may be silent.
func (w *silenceWatch) patience() time.Duration { return w.heartbeat + rand.N(w.heartbeat/2) }

// silent returns for how long the leader that this node follows has been silent. It returns 0 if
// this node follows none.
func (w *silenceWatch) silent() time.Duration {
	if w.raft.State() != raft.Follower || w.raft.Leader() == "" {
		return 0
	}
	return time.Since(w.raft.LastContact())
}

// look makes a follower look at its last contact now: Raft does so when its heartbeat timeout
// becomes shorter.
func (w *silenceWatch) look() {
	conf := w.raft.ReloadableConfig()
	for _, longer := range []time.Duration{1, 0} {
		conf.HeartbeatTimeout, conf.ElectionTimeout = w.heartbeat+longer, w.election+longer
		if err := w.raft.ReloadConfig(conf); err != nil {
			return // Raft's own timer fires later
		}
	}
}
