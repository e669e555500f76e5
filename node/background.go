package node

import (
	"cmp"
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"revoked"
	"revoked/fsm"
	"revoked/fsm/command"
	"revoked/internal/retry"
	"revoked/node/propose"
)

// background commits commands that expire or remove state. It leaves most of the capacity to
// callers. It is not safe for concurrent use.
//
// Expired and revoked tokens are inactive even before their rows are removed, so background only
// frees space. It yields whenever callers write, unless rows have been due for a long time.
type background struct {
	commit func(command.Command) (fsm.Outcome, error)
	keepUp func(index uint64) // waits until the members with a lease have applied index

	pace propose.Pace
	last uint64 // log index of the last command that run committed
}

// A backlog finds the rows of the state that are due to expire or to be removed.
type backlog interface {
	// Backlog returns the next command to commit, or nil if no row is due.
	Backlog(now revoked.Time, size func(limit int) int) fsm.Background
	// OldestDue returns a time before which none of these rows became due, or 0 if it is unknown.
	OldestDue() revoked.Time
}

var _ backlog = (*fsm.FSM)(nil)

const (
	backgroundTarget = 10 * time.Millisecond // target time for applying one command, which delays callers
	minRows          = 256                   // smallest limit of one command, in rows
	inARow           = 64                    // maximum number of commands without a pause
	idlePause        = time.Second
	// If callers wrote in the meantime, run pauses after a command. The pause is callersShare times as
	// long as the command took to apply, so it grows on a busy machine.
	callersShare = 9
	// Once a row has been due for this long, run does not pause, because the state would grow.
	longOverdue = 10 * time.Minute
)

// run commits at most inARow commands. It stops early if none is due or callers need the time, and
// returns how long to wait before the next call. After each command, it waits for the members with
// a lease to apply the command before that one. It also returns after a failed commit, because the
// leader may have changed.
func (b *background) run(ctx context.Context, state backlog, stamp func() revoked.Time) (pause time.Duration) {
	for range inARow {
		now := stamp()
		c := state.Backlog(now, func(limit int) int { return b.pace.Ops(backgroundTarget, minRows, limit) })
		if c == nil || ctx.Err() != nil {
			return idlePause
		}
		out, err := b.commit(c)
		if err != nil {
			return idlePause
		}
		b.pace.Observe(int(c.GetLimit()), out.Took)
		before := b.last
		b.last = out.Index
		b.keepUp(before)
		oldest := state.OldestDue()
		if overdue := oldest != 0 && now.Sub(oldest) > longOverdue; out.Index > before+1 && !overdue {
			return callersShare * out.Took
		}
	}
	return idlePause
}

// finalsEvery is the shortest time between two operations that record acknowledgements.
const finalsEvery = time.Second

// finals holds the times at which entries became final, until the leader has proposed them to the
// log. It is bounded, and a leader change empties it. A lost record only makes an answer about the
// past less exact. No caller waits for a record to be proposed.
type finals struct {
	mu   sync.Mutex
	list []revoked.Acknowledgement
	kick chan struct{} // has capacity one; signals that list is not empty
}

func newFinals() *finals { return &finals{kick: make(chan struct{}, 1)} }

// add adds a record, unless finals is full.
func (f *finals) add(v revoked.Acknowledgement) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.list) < command.MaxAcknowledged {
		f.list = append(f.list, v)
	}
	select {
	case f.kick <- struct{}{}:
	default:
	}
}

// take removes and returns the records in the order of their indexes, without duplicates.
func (f *finals) take() []revoked.Acknowledgement {
	f.mu.Lock()
	list := f.list
	f.list = nil
	f.mu.Unlock()
	slices.SortFunc(list, func(a, b revoked.Acknowledgement) int { return cmp.Compare(a.Index, b.Index) })
	return slices.CompactFunc(list, func(a, b revoked.Acknowledgement) bool { return a.Index == b.Index })
}

// run proposes the records of one term until ctx ends. It proposes at most one operation in each
// finalsEvery, and after the first operation none without records.
//
// The first operation begins the history that AsOf reads. Without records, run proposes this
// operation only once the log contains a command that older programs do not support. Until then, an
// idle cluster can still be downgraded.
func (f *finals) run(ctx context.Context, p *propose.Proposer, state *fsm.FSM, log *slog.Logger) {
	f.take() // records of an earlier term
	for {
		var poll <-chan time.Time
		if !state.KeepsHistory() {
			poll = time.After(finalsEvery)
		}
		select {
		case <-poll:
		case <-f.kick:
			_ = retry.Sleep(ctx, finalsEvery) // later records share the operation
		case <-ctx.Done():
		}
		if ctx.Err() != nil {
			return
		}
		list := f.take()
		if len(list) == 0 && (state.KeepsHistory() || state.Version() < command.Audit) {
			continue
		}
		if err := p.Record(ctx, command.AcknowledgeOp(list)); err != nil && ctx.Err() == nil {
			log.Debug("cannot record acknowledgements", "entries", len(list), "error", err)
		}
	}
}
