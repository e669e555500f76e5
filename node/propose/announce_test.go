package propose_test

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"revoked"
	"revoked/fsm/command"
	"revoked/node/propose"
)

// An announcement is a call to Config.Announce.
type announcement struct{ term, index uint64 }

// A notedLog is a log that records the announcements of its commits.
type notedLog struct {
	*fakeLog
	lock      sync.Mutex
	announced []announcement
}

func (l *notedLog) announce(term, index uint64) {
	l.lock.Lock()
	defer l.lock.Unlock()
	l.announced = append(l.announced, announcement{term, index})
}

func (l *notedLog) want(t *testing.T, what string, want ...announcement) {
	t.Helper()
	synctest.Wait()
	l.lock.Lock()
	defer l.lock.Unlock()
	if !slices.Equal(l.announced, want) {
		t.Errorf("%s: got announcements %v, want %v", what, l.announced, want)
	}
	l.announced = nil
}

func newNotedRouter(t *testing.T) (*propose.Router, *notedLog) {
	l := &notedLog{}
	var r *propose.Router
	r, l.fakeLog = newRouter(t, func(c *propose.Config) { c.Announce = l.announce })
	return r, l
}

func revocation() *command.Op {
	return command.RevokeOp(revoked.Actor{ClientID: "app"}, revoked.DigestToken("a"), "")
}

// The members learn of a commit from the next entry, or else from an announcement.
func TestAnnounce_Commit_IsSentUnlessEntryFollows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, log := newNotedRouter(t)
		var callers sync.WaitGroup
		revoke := func() {
			callers.Go(func() {
				if _, err := r.Commit(context.Background(), revocation()); err != nil {
					t.Error(err)
				}
			})
			synctest.Wait()
		}
		revoke()
		log.commit(7)
		log.want(t, "a single revocation", announcement{term, 7})

		callers.Go(func() {
			if err := r.ReadBarrier(context.Background()); err != nil {
				t.Error(err)
			}
		})
		synctest.Wait()
		log.commit(8)
		log.want(t, "a single read barrier", announcement{term, 8})

		revoke()
		revoke() // while the first entry is in flight
		log.commit(9)
		log.want(t, "another revocation is queued")
		log.commit(10)
		log.want(t, "the last of two", announcement{term, 10})

		synctest.Wait()
		if log.commit(11) {
			t.Error("got an entry without a proposal, want none")
		}
		callers.Wait()
	})
}

// A proposer does not announce an entry that may belong to a later term: the leader of that term
// announces it.
func TestAnnounce_LaterTerm_IsNotAnnounced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, log := newNotedRouter(t)
		var err error
		var caller sync.WaitGroup
		caller.Go(func() { _, err = r.Commit(context.Background(), revocation()) })
		synctest.Wait()
		log.later = 1
		log.commit(7)
		log.want(t, "an entry of a later term")
		caller.Wait()
		if !errors.Is(err, revoked.ErrOutcomeUnknown) {
			t.Errorf("got %v, want %v", err, revoked.ErrOutcomeUnknown)
		}
	})
}

// No caller waits until the members apply a barrier of leases.
func TestAnnounce_BarrierOfLease_IsNotAnnounced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &notedLog{fakeLog: &fakeLog{}}
		router := propose.NewRouter(routerConfig(log, func(c *propose.Config) { c.Announce = log.announce }),
			func() *propose.Proposer { return nil })
		p := router.NewProposer(term)
		ctx, cancel := context.WithCancel(context.Background())
		var running sync.WaitGroup
		running.Go(func() { p.Run(ctx) })
		var ok bool
		running.Go(func() { ok = p.Barrier(ctx) })
		synctest.Wait()
		log.commit(7)
		log.want(t, "the barrier of a lease")
		cancel()
		running.Wait()
		if !ok {
			t.Error("got a barrier that failed, want it passed")
		}
	})
}

// Each revocation of a single caller is one entry, and its answer needs no second entry.
func TestAnnounce_SingleCaller_OneEntryEach(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &slowLog{}
		applied := make(chan struct{}, 1) // receives after an announcement and a network delay
		const delay = time.Millisecond
		var members sync.WaitGroup
		r, stop := newSlowRouter(t, log, func(c *propose.Config) {
			c.Announce = func(uint64, uint64) {
				members.Go(func() { time.Sleep(delay); applied <- struct{}{} })
			}
			c.Acknowledge = func(ctx context.Context, _, _ uint64) (propose.Wait, error) {
				select {
				case <-applied:
					return propose.Wait{}, nil
				case <-ctx.Done():
					return propose.Wait{}, ctx.Err()
				}
			}
		})
		const calls = 10
		for range calls {
			came := time.Now()
			if _, err := r.Commit(t.Context(), revocation()); err != nil {
				t.Fatal(err)
			}
			if took := time.Since(came); took != commitTime+delay {
				t.Errorf("got the answer after %v, want it after %v", took, commitTime+delay)
			}
		}
		time.Sleep(time.Second)
		if n := log.count(); n != calls {
			t.Errorf("got %d entries for %d revocations, want one each", n, calls)
		}
		stop()
		members.Wait()
	})
}
