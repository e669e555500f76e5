package propose

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"revoked"
	"revoked/fsm/command"
	"revoked/internal/fair"
)

// Bulk proposals use the capacity that other work leaves. DESIGN.md gives the reasons for these
// limits.
const (
	bulkCalls = 4   // maximum number of concurrent bulk proposals of a node; further ones wait for their turn
	maxBulk   = 256 // maximum number of bulk proposals that the leader queues

	// Each of these two limits has one value while there are other callers, and another without them.
	// The limit applyTarget is the target time for applying a bulk entry. The limit maxLag is the
	// number of bulk entries that a member with a lease may be behind.
	applyTarget, applyTargetAlone = 2500 * time.Microsecond, 40 * time.Millisecond
	maxLag, maxLagAlone           = 0, 8
	aloneAfter                    = 10 * time.Second // other callers count as gone this long after their last entry
	minBulkOps                    = 32

	// While there are a few other callers, applying bulk entries takes one part in pauseParts of the
	// time. The pause after an entry is a multiple of the time that applying it took.
	pauseParts = 20
	maxPaused  = 100 * time.Millisecond
	fewWithin  = 2 * time.Second // pauses end this long after the last entry of other callers

	gatherWait   = 1500 * time.Microsecond // time to wait for other callers before a bulk entry
	gatherWindow = 50 * time.Millisecond   // gatherWait applies this long after the last entry of other callers
	maxSkips     = 8                       // maximum number of entries of others in a row while a bulk proposal waits
)

// A share is a part of a proposal: ops[from:to].
type share struct {
	*proposal
	from, to int
}

func (s share) last() bool { return s.to == len(s.ops) }

// wholes returns each proposal of a batch as one share.
func wholes(b *batch) []share {
	out := make([]share, len(b.proposals))
	for i, p := range b.proposals {
		out[i] = share{p, 0, len(p.ops)}
	}
	return out
}

// A bulkQueue holds the bulk proposals of one term. The proposer takes shares of them for each bulk
// entry, which closes the queue. The queue opens for the next bulk entry once the members have
// caught up.
type bulkQueue struct {
	ready chan struct{} // has capacity one; wakes the proposer when it may take shares

	mu      sync.Mutex
	waiting fair.Queue[*share] // by client; share.from is where the next share of a proposal begins
	count   int
	open    bool
	closed  bool
	recent  [maxLagAlone + 1]uint64 // indexes of the newest bulk entries, newest first; 0: none
}

func newBulkQueue() *bulkQueue { return &bulkQueue{ready: make(chan struct{}, 1), open: true} }

// push queues p. It returns ErrOverloaded if the queue is full, and errLeadershipEnded if it is
// closed.
func (q *bulkQueue) push(p *proposal) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	switch {
	case q.closed:
		return errLeadershipEnded
	case q.count >= maxBulk:
		return fmt.Errorf("%w: %d bulk proposals are queued", revoked.ErrOverloaded, q.count)
	}
	q.count++
	q.waiting.Push(clientOf(p.ops), &share{p, 0, 0})
	q.signal()
	return nil
}

// signal wakes the proposer if it may take shares. The caller must hold mu.
func (q *bulkQueue) signal() {
	if !q.open || q.waiting.Empty() {
		return
	}
	select {
	case q.ready <- struct{}{}:
	default:
	}
}

// isReady reports whether the proposer may take shares now. If so, it also sends to ready.
func (q *bulkQueue) isReady() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.signal()
	return q.open && !q.waiting.Empty()
}

// take returns the shares for one entry with at most ops operations. Each client gets an equal
// part, unless it has fewer operations. The queue then stays closed until reopen is called.
func (q *bulkQueue) take(ops int) (out []share) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.open { // the value in ready was for an earlier entry
		return nil
	}
	bytes := 0
	for clients := q.waiting.Keys(); clients > 0; clients-- {
		for part, more := (ops+clients-1)/clients, true; more; {
			if part == 0 || bytes >= maxEntryBytes {
				q.waiting.Rotate()
				break
			}
			s := q.waiting.First()
			taken := share{s.proposal, s.from, min(s.from+part, len(s.ops))}
			n := taken.to - taken.from
			s.from, part, ops = taken.to, part-n, ops-n
			bytes += s.bytes * n / len(s.ops)
			out = append(out, taken)
			if taken.last() {
				q.count--
				more = q.waiting.Pop()
			}
		}
	}
	q.open = len(out) == 0
	return out
}

// reopenAfter calls reopen after a pause. The pause ends early if ctx ends.
func (q *bulkQueue) reopenAfter(ctx context.Context, pause time.Duration) {
	if pause > 0 {
		timer := time.NewTimer(pause)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
		}
	}
	q.reopen()
}

// reopen opens the queue for the next entry.
func (q *bulkQueue) reopen() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.open = true
	q.signal()
}

// committed records the index of the newest bulk entry. It returns the index of the bulk entry that
// came the given number of bulk entries before it, or 0.
func (q *bulkQueue) committed(index uint64, before int) uint64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	copy(q.recent[1:], q.recent[:])
	q.recent[0] = index
	return q.recent[before]
}

// drop removes the remaining operations of the proposals that had shares in an entry that failed.
func (q *bulkQueue) drop(shares []share) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, s := range shares {
		if !s.last() {
			q.waiting.Remove(clientOf(s.ops), func(o *share) bool { return o.proposal == s.proposal })
			q.count--
		}
	}
}

// close makes push refuse further proposals, and returns the waiting ones.
func (q *bulkQueue) close() (rest []*share) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	for !q.waiting.Empty() {
		rest = append(rest, q.waiting.First())
		if q.waiting.Pop() {
			q.waiting.Rotate()
		}
	}
	return rest
}

// clientOf returns the id of the client that requested ops, or "".
func clientOf(ops []*command.Op) string {
	if len(ops) == 0 {
		return ""
	}
	return ops[0].GetActor().GetClientId()
}

// Record proposes an operation that no client requested, as bulk work. It blocks until the
// operation is committed or refused.
func (p *Proposer) Record(ctx context.Context, op *command.Op) error {
	s := newProposal([]*command.Op{op}, false)
	s.bulk, s.record = true, true
	if err := p.propose(ctx, s); err != nil {
		return err
	}
	return s.results[0].Err
}

// Commit proposes an operation that no client requested, and blocks until it is committed or
// refused. The operation enters the log in this proposer's term or not at all.
func (p *Proposer) Commit(ctx context.Context, op *command.Op) error {
	s := newProposal([]*command.Op{op}, false)
	if err := p.propose(ctx, s); err != nil {
		return err
	}
	return s.results[0].Err
}

// isRecord reports whether all operations of an entry come from Record. Such an entry is not a
// measure of the cost of registrations.
func isRecord(shares []share) bool {
	return !slices.ContainsFunc(shares, func(s share) bool { return !s.record })
}
