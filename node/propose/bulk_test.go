package propose_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"

	"revoked"
	"revoked/fsm"
	"revoked/fsm/command"
	"revoked/node/propose"
)

// A slowLog commits each entry in virtual time. The commit takes commitTime, plus opTime for each
// operation.
type slowLog struct {
	opTime time.Duration
	fail   func(entry int) error // may be nil

	mu      sync.Mutex
	index   uint64
	entries []slowEntry
}

type slowEntry struct {
	ops   []*command.Op
	began time.Time
	took  time.Duration // time to apply the entry
}

const commitTime = 4 * time.Millisecond

type slowFuture struct {
	fakeFuture
	err error
}

func (f *slowFuture) Error() error { <-f.done; return f.err }

func (l *slowLog) CurrentTerm() uint64 { return term }

func (l *slowLog) Apply(data []byte, _ time.Duration) raft.ApplyFuture {
	f := &slowFuture{fakeFuture: fakeFuture{done: make(chan struct{})}}
	c, err := command.Decode(data)
	if err != nil {
		panic(err)
	}
	e := slowEntry{began: time.Now()}
	if b, ok := c.(*command.Batch); ok {
		e.ops = b.Ops
	}
	e.took = time.Duration(len(e.ops)) * l.opTime
	l.mu.Lock()
	l.entries = append(l.entries, e)
	n := len(l.entries)
	l.mu.Unlock()
	go func() {
		time.Sleep(commitTime + e.took)
		if l.fail != nil {
			f.err = l.fail(n)
		}
		l.mu.Lock()
		l.index++
		f.out = &fsm.Outcome{Index: l.index, Results: make([]fsm.Result, len(e.ops)), Took: e.took}
		for i := range f.out.Results {
			f.out.Results[i].Index = l.index
		}
		l.mu.Unlock()
		close(f.done)
	}()
	return f
}

// count returns the number of entries so far.
func (l *slowLog) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.entries)
}

func (l *slowLog) all() []slowEntry {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.entries)
}

// newSlowRouter returns a router of a leader with the given log. Its proposer runs until stop is
// called.
func newSlowRouter(t *testing.T, log *slowLog, change ...func(*propose.Config)) (r *propose.Router, stop func()) {
	var proposer *propose.Proposer
	change = append([]func(*propose.Config){func(c *propose.Config) {
		c.Log, c.State = log, newState{}
	}}, change...)
	cfg := routerConfig(&fakeLog{}, change...)
	r = propose.NewRouter(cfg, func() *propose.Proposer { return proposer })
	proposer = r.NewProposer(term)
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { proposer.Run(ctx) })
	return r, func() { cancel(); running.Wait() }
}

// A newState is a state without rows, so every operation changes it.
type newState struct{ fakeState }

func (newState) DryRun(*command.Op) (fsm.Result, bool) { return fsm.Result{}, false }

func registrations(client string, n int) []*command.Op {
	ops := make([]*command.Op, n)
	for i := range ops {
		ops[i] = command.RegisterOp(revoked.Actor{ClientID: client}, revoked.Registration{
			ClientID: "app", GrantID: fmt.Sprintf("%s-%d", client, i),
		})
	}
	return ops
}

// stream registers batches of a client, several concurrently, until ctx ends.
func stream(ctx context.Context, t *testing.T, r *propose.Router, client string, done *sync.WaitGroup) {
	ops := registrations(client, 512)
	for range 4 {
		done.Go(func() {
			for ctx.Err() == nil {
				if _, err := r.ProposeBulk(ctx, ops); err != nil && ctx.Err() == nil {
					t.Error(err)
				}
			}
		})
	}
}

// While an import runs, a single revocation waits for one short entry at most.
func TestProposeBulk_SingleRevocation_GoesNext(t *testing.T) {
	for _, opTime := range []time.Duration{20 * time.Microsecond, 100 * time.Microsecond, 400 * time.Microsecond} {
		t.Run(opTime.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				log := &slowLog{opTime: opTime}
				r, stop := newSlowRouter(t, log)
				ctx, cancel := context.WithCancel(t.Context())
				var streams sync.WaitGroup
				stream(ctx, t, r, "issuer", &streams)
				time.Sleep(2 * time.Second) // the pace is known
				for i := range 20 {
					time.Sleep(17 * time.Millisecond)
					came := time.Now()
					op := command.RevokeOp(revoked.Actor{ClientID: "app"}, revoked.DigestToken("a"), "")
					if _, err := r.Commit(ctx, op); err != nil {
						t.Fatal(err)
					}
					most := 10*time.Millisecond + 2*commitTime + opTime
					if i == 0 { // the entry before the revocation was proposed while the import was alone
						most += 30 * time.Millisecond
					}
					if took := time.Since(came); took > most {
						t.Errorf("revocation %d: got the answer after %v, want at most %v", i, took, most)
					}
				}
				cancel()
				streams.Wait()
				stop()
				registered := 0
				for i, e := range log.entries {
					if registered += len(e.ops); e.took > 40*time.Millisecond && i > 5 {
						t.Errorf("entry %d: got %d operations, which take %v, want at most 40ms", i, len(e.ops), e.took)
					}
				}
				// The import gets most of the remaining time.
				if least := int(2 * time.Second / opTime / 2); registered < least {
					t.Errorf("got %d registrations, want at least %d", registered, least)
				}
			})
		})
	}
}

// While a single caller sends one request after the other, an import uses only a small part of the
// time. Afterwards the import uses the rest again.
func TestProposeBulk_SingleCallers_PauseImport(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &slowLog{opTime: 20 * time.Microsecond}
		r, stop := newSlowRouter(t, log)
		ctx, cancel := context.WithCancel(t.Context())
		var streams sync.WaitGroup
		stream(ctx, t, r, "issuer", &streams)
		time.Sleep(time.Second) // the pace is known
		busy := func() (applied time.Duration) {
			for _, e := range log.all() {
				applied += e.took
			}
			return applied
		}
		const length = 3 * time.Second
		began, before := time.Now(), busy()
		for time.Since(began) < length {
			time.Sleep(40 * time.Millisecond)
			op := command.RevokeOp(revoked.Actor{ClientID: "app"}, revoked.DigestToken("a"), "")
			if _, err := r.Commit(ctx, op); err != nil {
				t.Fatal(err)
			}
		}
		if got := busy() - before; got > length/8 || got < length/20 {
			t.Errorf("with a single caller: got %v of applying in %v, want about a tenth", got, length)
		}
		time.Sleep(2 * time.Second) // without another caller
		before = busy()
		time.Sleep(length)
		if got := busy() - before; got < length/4 {
			t.Errorf("alone: got %v of applying in %v, want at least a quarter", got, length)
		}
		cancel()
		streams.Wait()
		stop()
	})
}

// Under a steady load of other callers, an import continues more slowly.
func TestProposeBulk_SteadyLoad_IsNotStarved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &slowLog{opTime: 20 * time.Microsecond}
		r, stop := newSlowRouter(t, log)
		ctx, cancel := context.WithCancel(t.Context())
		var callers sync.WaitGroup
		stream(ctx, t, r, "issuer", &callers)
		for range 64 {
			callers.Go(func() {
				for ctx.Err() == nil {
					op := command.RevokeOp(revoked.Actor{ClientID: "app"}, revoked.DigestToken("a"), "")
					if _, err := r.Commit(ctx, op); err != nil && ctx.Err() == nil {
						t.Error(err)
					}
				}
			})
		}
		time.Sleep(time.Second)
		cancel()
		callers.Wait()
		stop()
		skipped, most, bulk, others := 0, 0, 0, 0
		for _, e := range log.entries[:len(log.entries)-1] {
			switch {
			case len(e.ops) == 0:
			case e.ops[0].GetRegister() == nil:
				skipped++
				others++
			default:
				most, skipped = max(most, skipped), 0
				bulk++
			}
		}
		if most > 8+1 || // the queue may open during the first of these entries
			bulk == 0 || others < 2*bulk {
			t.Errorf("got %d bulk entries, %d others, %d of them in a row, want others mostly, at most 8 in a row",
				bulk, others, most)
		}
	})
}

// A large import of one client does not delay a small import of another.
func TestProposeBulk_TwoClients_TakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &slowLog{opTime: 100 * time.Microsecond}
		r, stop := newSlowRouter(t, log)
		ctx, cancel := context.WithCancel(t.Context())
		var streams sync.WaitGroup
		for range 8 { // 32 batches concurrently
			stream(ctx, t, r, "large", &streams)
		}
		time.Sleep(2 * time.Second)
		came := time.Now()
		if _, err := r.ProposeBulk(ctx, registrations("small", 64)); err != nil {
			t.Error(err)
		}
		// Four batches of the large import are in flight, and take 51 ms each. 28 more wait.
		if took := time.Since(came); took > 8*51*time.Millisecond {
			t.Errorf("got the answer after %v, want it after the batches in flight", took)
		}
		cancel()
		streams.Wait()
		stop()
	})
}

// The operations of one proposal commit in their order. After an entry has failed, the remaining
// operations are not proposed, and the caller learns that some operations may have committed.
func TestProposeBulk_EntryFails_DropsTheRest(t *testing.T) {
	for name, tt := range map[string]struct {
		failing int
		err     error
		want    error
	}{
		"first entry, not proposed":   {1, raft.ErrNotLeader, revoked.ErrNoLeader},
		"second entry, not proposed":  {2, raft.ErrNotLeader, revoked.ErrOutcomeUnknown},
		"second entry, outcome known": {0, nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				log := &slowLog{opTime: 100 * time.Microsecond}
				useless := errors.New("no second attempt")
				failed := false
				log.fail = func(entry int) error {
					if entry == tt.failing {
						failed = true
						return tt.err
					}
					return nil
				}
				r, stop := newSlowRouter(t, log, func(c *propose.Config) {
					c.NoLeader = func() error {
						if failed {
							return fmt.Errorf("%w: %w", revoked.ErrNoLeader, useless)
						}
						return nil
					}
				})
				ops := registrations("issuer", 700)
				out, err := r.ProposeBulk(t.Context(), ops)
				if !errors.Is(err, tt.want) {
					t.Errorf("got %v, want %v", err, tt.want)
				}
				stop()
				next := 0
				for _, e := range log.entries {
					for _, op := range e.ops {
						if got := op.GetRegister().GrantId; got != ops[next].GetRegister().GrantId {
							t.Fatalf("operation %d: got %s, want the order of the proposal", next, got)
						}
						next++
					}
				}
				if err == nil && (next != len(ops) || out.Results[0].Index >= out.Results[699].Index) {
					t.Errorf("got %d operations, first at %d and last at %d, want all, over several entries", next,
						out.Results[0].Index, out.Results[699].Index)
				}
				if err != nil && len(log.entries) != tt.failing {
					t.Errorf("got %d entries, want none after the one that failed", len(log.entries))
				}
			})
		})
	}
}

// Members that are two or three bulk entries behind delay bulk work, and nothing else.
func TestProposeBulk_MembersBehind_Waits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &slowLog{opTime: 10 * time.Microsecond}
		behind := make(chan struct{})
		r, stop := newSlowRouter(t, log, func(c *propose.Config) {
			c.KeepUp = func(ctx context.Context, _, index uint64) {
				if index == 0 {
					return
				}
				select {
				case <-behind:
				case <-ctx.Done():
				}
			}
		})
		ctx, cancel := context.WithCancel(t.Context())
		var streams sync.WaitGroup
		stream(ctx, t, r, "issuer", &streams)
		time.Sleep(time.Second)
		if n := log.count(); n > 10 { // without other callers, members may be eight entries behind
			t.Errorf("got %d bulk entries, want at most 10", n)
		}
		op := command.RevokeOp(revoked.Actor{ClientID: "app"}, revoked.DigestToken("a"), "")
		if _, err := r.Commit(ctx, op); err != nil {
			t.Errorf("revocation: %v", err)
		}
		before := log.count()
		time.Sleep(time.Second)
		if n := log.count(); n > before {
			t.Errorf("got %d more entries while members are behind, want none", n-before)
		}
		close(behind)
		time.Sleep(time.Second)
		if n := log.count(); n < before+10 {
			t.Errorf("got %d more entries after the members caught up, want the import to continue", n-before)
		}
		cancel()
		streams.Wait()
		stop()
	})
}

// A caller that gives up while it waits for its turn does not keep its place in the queue.
func TestProposeBulk_CallerGivesUp_LeavesQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		log := &slowLog{opTime: 100 * time.Microsecond}
		r, stop := newSlowRouter(t, log)
		var callers sync.WaitGroup
		for i := range 20 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i)*3*time.Millisecond)
			defer cancel()
			callers.Go(func() { _, _ = r.ProposeBulk(ctx, registrations(fmt.Sprint("c", i%3), 512)) })
		}
		callers.Wait()
		if _, err := r.ProposeBulk(t.Context(), registrations("last", 10)); err != nil {
			t.Errorf("got %v, want success: callers that gave up use no turn", err)
		}
		stop()
	})
}
