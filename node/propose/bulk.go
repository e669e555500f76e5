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

// Bulk proposals use the capacity that other work leaves. DESIGN.md has the reasons for these
// limits.
const (
	bulkCalls = 4   // concurrent bulk proposals of a node; further ones wait for their turn
	maxBulk   = 256 // bulk proposals that the leader queues

	// Limits while there are other callers, and without them. The first is the target time for
	// applying a bulk entry. The second is the number of bulk entries that a member with a lease may
	// be behind.
	applyTarget, applyTargetAlone = 2500 * time.Microsecond, 40 * time.Millisecond
	maxLag, maxLagAlone           = 0, 8
	aloneAfter                    = 10 * time.Second // without another caller
	minBulkOps                    = 32

	// While there are a few other callers, bulk entries take one part in pauseParts of the time.
	// The pause after one depends on how long applying it took.
	pauseParts = 20
	maxPaused  = 100 * time.Millisecond
	fewWithin  = 2 * time.Second // since the last of the other callers

	linger     = 1500 * time.Microsecond // wait for other callers before a bulk entry
	lingerTime = 50 * time.Millisecond   // how long after the last entry of other callers
	maxSkips   = 8                       // entries of other callers in a row while a bulk proposal waits
)

// A share is a part of a proposal: ops[from:to].
type share struct {
	*proposal
	from, to int
}

func (s share) last() bool { return s.to == len(s.ops) }

// wholes returns the proposals of a batch as shares.
func wholes(b *batch) []share {
	out := make([]share, len(b.proposals))
	for i, p := range b.proposals {
		out[i] = share{p, 0, len(p.ops)}
	}
	return out
}

// A bulkQueue holds the bulk proposals of one term. An entry takes a share of them when its turn
// comes. The queue opens again for the next entry once the members have caught up.
type bulkQueue struct {
	ready chan struct{} // capacity one: wakes the proposer when an entry may take a share

	mu      sync.Mutex
	waiting fair.Queue[*share] // by client; from is where the next share begins
	count   int
	open    bool
	closed  bool
	recent  [maxLagAlone + 1]uint64 // indexes of the newest bulk entries, newest first; 0: none
}

func newBulkQueue() *bulkQueue { return &bulkQueue{ready: make(chan struct{}, 1), open: true} }

// push queues p, or returns ErrOverloaded or the error of a queue that is closed.
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

// signal must be called with mu held.
func (q *bulkQueue) signal() {
	if !q.open || q.waiting.Empty() {
		return
	}
	select {
	case q.ready <- struct{}{}:
	default:
	}
}

// isReady reports whether an entry may take a share now. If so, ready fires again.
func (q *bulkQueue) isReady() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.signal()
	return q.open && !q.waiting.Empty()
}

// take returns the shares of one entry with at most ops operations: each client has the same part
// of it, unless it has less. The queue stays closed until reopen.
func (q *bulkQueue) take(ops int) (out []share) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if !q.open { // ready fired for an earlier entry
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

// reopenAfter is like reopen, after a pause that ends early with ctx.
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

// reopen allows the next entry.
func (q *bulkQueue) reopen() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.open = true
	q.signal()
}

// committed records the index of a bulk entry. It returns the index of the entry that many before
// it, or 0.
func (q *bulkQueue) committed(index uint64, before int) uint64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	copy(q.recent[1:], q.recent[:])
	q.recent[0] = index
	return q.recent[before]
}

// drop removes the rest of the proposals of shares after their entry failed.
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

// close refuses further proposals and returns the waiting ones.
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

// clientOf returns the client that ops belong to.
func clientOf(ops []*command.Op) string {
	if len(ops) == 0 {
		return ""
	}
	return ops[0].GetActor().GetClientId()
}

// Record proposes an operation of the cluster itself, in the class of bulk work. It blocks until
// the operation is committed or refused.
func (p *Proposer) Record(ctx context.Context, op *command.Op) error {
	s := newProposal([]*command.Op{op}, false)
	s.bulk, s.record = true, true
	if err := p.propose(ctx, s); err != nil {
		return err
	}
	return s.results[0].Err
}

// Commit proposes an operation of the cluster itself, and blocks until it is committed or refused.
// It goes into the log of this proposer's term or not at all.
func (p *Proposer) Commit(ctx context.Context, op *command.Op) error {
	s := newProposal([]*command.Op{op}, false)
	if err := p.propose(ctx, s); err != nil {
		return err
	}
	return s.results[0].Err
}

// isRecord reports whether an entry has only an operation of Record. The cost of such an entry does
// not show the cost of a registration.
func isRecord(shares []share) bool {
	return !slices.ContainsFunc(shares, func(s share) bool { return !s.record })
}
