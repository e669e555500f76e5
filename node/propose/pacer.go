package propose

import (
	"sync"
	"time"

	"revoked"
)

// Limits of the paced read barriers of one caller at this node. DESIGN.md gives the reasons.
const (
	barrierPause = 50 * time.Millisecond // average time between two barriers of a caller
	barrierBurst = 10                    // number of barriers without a pause after an idle period
)

// minCleanup is the number of accounts from which on unused accounts are deleted.
const minCleanup = 1024

// A pacer delays the read barriers of callers that need many, so that each caller has on average at
// most one barrier per barrierPause. The waiting requests of one caller share its next barrier. All
// methods may be called concurrently. The zero value is ready.
type pacer struct {
	mu        sync.Mutex
	accounts  map[string]*barrierAccount // by caller
	cleanupAt int                        // number of accounts at which unused accounts are deleted next
	closed    bool
	wg        sync.WaitGroup // goroutines of the shared barriers
}

// A barrierAccount records the barriers of one caller.
type barrierAccount struct {
	paid time.Time      // when the charged barriers would be due without bursts; may be in the future
	next *sharedBarrier // barrier that the waiting requests share; nil: none waits
}

// wait returns how long the next barrier must wait.
func (a *barrierAccount) wait(now time.Time) time.Duration {
	return a.paid.Sub(now.Add((barrierBurst - 1) * barrierPause))
}

// charge counts a barrier that begins now.
func (a *barrierAccount) charge(now time.Time) {
	if a.paid.Before(now) {
		a.paid = now
	}
	a.paid = a.paid.Add(barrierPause)
}

// A sharedBarrier is a read barrier that several requests may join before it begins.
type sharedBarrier struct {
	done chan struct{} // closed after err is set
	err  error
}

// enter returns nil if the caller may run a barrier now, and charges that barrier. Otherwise it
// returns the next shared barrier of that caller, which begins after enter has returned. For each
// shared barrier, the pacer calls the function barrier once, unless stopping is closed first.
func (p *pacer) enter(caller string, stopping <-chan struct{}, barrier func() error) (*sharedBarrier, error) {
	now := time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, revoked.ErrClosed
	}
	a := p.account(caller, now)
	if a.next != nil {
		return a.next, nil
	}
	wait := a.wait(now)
	if wait <= 0 {
		a.charge(now)
		return nil, nil
	}
	b := &sharedBarrier{done: make(chan struct{})}
	a.next = b
	p.wg.Go(func() {
		defer close(b.done)
		timer := time.NewTimer(wait)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-stopping:
			b.err = revoked.ErrClosed
		}
		p.begin(a)
		if b.err == nil {
			b.err = barrier()
		}
	})
	return b, nil
}

// begin ends the time in which requests can join the next barrier of a, and charges that barrier.
func (p *pacer) begin(a *barrierAccount) {
	p.mu.Lock()
	defer p.mu.Unlock()
	a.next = nil
	a.charge(time.Now())
}

// account returns the account of a caller. The caller of account must hold mu.
func (p *pacer) account(caller string, now time.Time) *barrierAccount {
	if a := p.accounts[caller]; a != nil {
		return a
	}
	if p.accounts == nil {
		p.accounts, p.cleanupAt = make(map[string]*barrierAccount), minCleanup
	}
	if len(p.accounts) >= p.cleanupAt {
		for id, a := range p.accounts {
			if a.next == nil && !a.paid.After(now) {
				delete(p.accounts, id)
			}
		}
		p.cleanupAt = max(minCleanup, 2*len(p.accounts))
	}
	a := &barrierAccount{}
	p.accounts[caller] = a
	return a
}

// close makes enter refuse further barriers, and waits for the shared barriers to end.
func (p *pacer) close() {
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	p.wg.Wait()
}
