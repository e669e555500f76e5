package node

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/raft"

	"revoked"
)

// A herald takes Raft's word about this node's leadership, numbers it and passes it on.
//
// Raft waits until its word is taken: it begins no term of leadership, and takes no proposal in one,
// before it has said that the last one is over and then that this one has begun. The herald ends what
// rested on a word before it takes the next. So who holds the herald knows: while the last word was that
// this node leads, whatever Raft takes, it takes in that term or refuses.
type herald struct {
	says   chan bool // from Raft; without a buffer
	news   chan word
	turn   turn
	number uint64 // of the last word; changes under turn
}

type word struct {
	leads  bool
	number uint64
}

func newHerald() *herald {
	return &herald{says: make(chan bool), news: make(chan word, 64), turn: newTurn()}
}

// run takes Raft's words until ctx ends. end ends what rested on the one before.
func (h *herald) run(ctx context.Context, end func()) {
	for {
		var w word
		select {
		case w.leads = <-h.says:
		case <-ctx.Done():
			return
		}
		h.hold(func() {
			h.number++
			w.number = h.number
			end()
		})
		select {
		case h.news <- w:
		case <-ctx.Done():
			return
		}
	}
}

// hold runs f while no word is taken. Raft may wait meanwhile: f must be short, and must not wait for Raft
// without a limit.
func (h *herald) hold(f func()) {
	h.turn.take()
	defer h.turn.give()
	f()
}

// handOverWait is how long Raft may take to take a change: it may itself be waiting for the herald.
const handOverWait = 100 * time.Millisecond

// change hands a change of the configuration to Raft, which takes it in the given term, whose books are
// open, or not at all.
func (n *Node) change(ctx context.Context, term uint64, hand func(wait time.Duration) raft.IndexFuture) (uint64, error) {
	for {
		var f raft.IndexFuture
		n.herald.hold(func() {
			if n.ctx.Err() == nil && n.leases.isOpen(term) {
				f = hand(handOverWait)
			}
		})
		if f == nil {
			return 0, fmt.Errorf("%w: leadership ended", revoked.ErrNoLeader)
		}
		if !errors.Is(f.Error(), raft.ErrEnqueueTimeout) || ctx.Err() != nil {
			return n.changed(f)
		}
	}
}
