package propose_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
	"github.com/prometheus/client_golang/prometheus"

	"revoked"
	"revoked/fsm"
	"revoked/fsm/command"
	"revoked/node/nodepb"
	"revoked/node/propose"
)

const term = 5

// A fakeLog records entries and commits them when the test calls commit.
type fakeLog struct {
	mu       sync.Mutex
	pending  []*fakeFuture
	data     []byte // data of the newest entry
	proposed int
	later    uint64 // number of terms that have begun after the proposer's term
}

type fakeFuture struct {
	raft.ApplyFuture
	done chan struct{}
	out  *fsm.Outcome
}

func (f *fakeFuture) Error() error  { <-f.done; return nil }
func (f *fakeFuture) Response() any { return f.out }

func (l *fakeLog) CurrentTerm() uint64 { return term + l.later }

func (l *fakeLog) Apply(data []byte, _ time.Duration) raft.ApplyFuture {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.data = data
	l.proposed++
	f := &fakeFuture{done: make(chan struct{})}
	l.pending = append(l.pending, f)
	return f
}

// last returns the newest entry.
func (l *fakeLog) last(t *testing.T) command.Command {
	l.mu.Lock()
	defer l.mu.Unlock()
	c, err := command.Decode(l.data)
	if err != nil {
		t.Fatalf("entry: got %v, want a command", err)
	}
	return c
}

// commit commits the oldest entry. Each of its operations succeeds.
func (l *fakeLog) commit(index uint64) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.pending) == 0 {
		return false
	}
	l.pending[0].out = &fsm.Outcome{Index: index}
	if c, err := command.Decode(l.data); err == nil {
		if b, ok := c.(*command.Batch); ok {
			l.pending[0].out.Results = make([]fsm.Result, len(b.Ops))
		}
	}
	close(l.pending[0].done)
	l.pending = l.pending[1:]
	return true
}

// A fakeState has applied every index. Operations other than registrations do not change it. The
// newest rules refuse every registration.
type fakeState struct{}

func (fakeState) DryRun(op *command.Op) (fsm.Result, bool) {
	return fsm.Result{Index: 3}, op.GetRegister() == nil
}
func (fakeState) Version() uint32                          { return 1 }
func (fakeState) Review(*command.Op) error                 { return revoked.ErrConflict }
func (fakeState) Client(string) (*revoked.Client, bool)    { return nil, false }
func (fakeState) Wait(ctx context.Context, _ uint64) error { return ctx.Err() }

// newRouter returns the router of a leader, and the leader's log. The proposer runs until the test
// ends.
func newRouter(t *testing.T, change ...func(*propose.Config)) (*propose.Router, *fakeLog) {
	log := &fakeLog{}
	var proposer *propose.Proposer
	r := propose.NewRouter(routerConfig(log, change...), func() *propose.Proposer { return proposer })
	proposer = r.NewProposer(term)
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { proposer.Run(ctx) })
	t.Cleanup(func() {
		cancel()
		for synctest.Wait(); log.commit(99); synctest.Wait() {
		}
		running.Wait()
	})
	return r, log
}

func routerConfig(log propose.Log, change ...func(*propose.Config)) propose.Config {
	never := make(chan struct{})
	cfg := propose.Config{
		Log: log, State: fakeState{}, Stamps: propose.NewClock(time.Now, "self"), Timeout: time.Hour,
		Metrics:       propose.NewMetrics(prometheus.NewRegistry()),
		HasLeader:     func() bool { return true },
		NoLeader:      func() error { return nil },
		LeaderChanged: func() <-chan struct{} { return never },
		Forward: func(context.Context, *nodepb.SubmitRequest, *nodepb.SubmitResponse) error {
			return revoked.ErrNoLeader
		},
		LeaderKnows: func(context.Context, uint32) error { return nil },
		Admit:       func(*command.Op) error { return nil },
		Forwarded:   func(string, *command.Op, fsm.Result) {},
		Rules:       func() uint32 { return command.Rules },
		Audits:      func() bool { return false },
		Marks:       func() []*command.Mark { return nil },
		Acknowledge: func(context.Context, uint64, uint64) (propose.Wait, error) { return propose.Wait{}, nil },
		Final:       func(revoked.Acknowledgement) {},
		KeepUp:      func(context.Context, uint64, uint64) {},
		Announce:    func(uint64, uint64) {},
		Stopping:    never,
	}
	for _, f := range change {
		f(&cfg)
	}
	return cfg
}

// The state contains the revocation, but its first proposal may still wait for a lease. Only an
// entry that is proposed for the retry, and commits, proves that the retry may be acknowledged.
func TestPropose_RepeatedOperation_WaitsForEntry(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, log := newRouter(t)
		op := command.RevokeOp(revoked.Actor{ClientID: "app"}, revoked.DigestToken("a"), "")
		answered := make(chan error, 1)
		go func() {
			_, err := r.Commit(context.Background(), op)
			answered <- err
		}()
		synctest.Wait()
		select {
		case err := <-answered:
			t.Fatalf("got %v before an entry committed, want no answer: a retry was acknowledged too early", err)
		default:
		}
		if !log.commit(7) {
			t.Fatal("got no entry, want one for the retry")
		}
		if err := <-answered; err != nil {
			t.Errorf("got %v, want no error", err)
		}
	})
}

// While a member may not support the newest rules, entries have the old rules. In that case the
// leader itself refuses the registrations that the newest rules refuse.
func TestPropose_MemberTooOld_LeaderRefuses(t *testing.T) {
	for name, rules := range map[string]uint32{"old": 0, "newest": command.Rules} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, log := newRouter(t, func(c *propose.Config) { c.Rules = func() uint32 { return rules } })
				var out fsm.Outcome
				var err error
				var caller sync.WaitGroup
				op := command.RegisterOp(revoked.Actor{ClientID: "issuer"}, revoked.Registration{ClientID: "app"})
				caller.Go(func() { out, err = r.Propose(context.Background(), []*command.Op{op}, false) })
				synctest.Wait()
				batch, _ := log.last(t).(*command.Batch)
				if rules == command.Rules && (batch == nil || batch.Rules != command.Rules || len(batch.Ops) != 1) {
					t.Errorf("newest rules: got %v, want the registration with rules %d", batch, command.Rules)
				}
				if rules == 0 && batch != nil {
					t.Errorf("old rules: got %v, want a tick", batch)
				}
				log.commit(7)
				caller.Wait()
				if err != nil {
					t.Fatal(err)
				}
				if got := out.Results[0].Err; rules == 0 && !errors.Is(got, revoked.ErrConflict) || rules != 0 && got != nil {
					t.Errorf("rules %d: got %v", rules, got)
				}
			})
		})
	}
}

// If a new leader has no reports of the members' versions yet, the request waits.
func TestPropose_NewLeaderUndecided_Retries(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		tries := 0
		r, log := newRouter(t, func(c *propose.Config) {
			c.Admit = func(*command.Op) error {
				if tries++; tries < 3 {
					return revoked.ErrNoLeader
				}
				return nil
			}
		})
		answered := make(chan error, 1)
		go func() {
			op := command.RevokeOp(revoked.Actor{ClientID: "app"}, revoked.DigestToken("a"), "")
			_, err := r.Commit(context.Background(), op)
			answered <- err
		}()
		for {
			time.Sleep(propose.RetryPause) // virtual time
			log.commit(7)
			synctest.Wait()
			select {
			case err := <-answered:
				if err != nil || tries != 3 {
					t.Errorf("got %v after %d tries, want no error after 3", err, tries)
				}
				return
			default:
			}
		}
	})
}

// A repeated audited operation changes the audit log, so it enters the log with its origin. While a
// member does not support the audit log, the repeated operation stays out, and other operations
// have no origin.
func TestPropose_NoOp_ProposedIfAudited(t *testing.T) {
	for _, audits := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			r, log := newRouter(t, func(c *propose.Config) {
				c.NodeID, c.Audits = "node1", func() bool { return audits }
			})
			var caller sync.WaitGroup
			caller.Go(func() {
				by := revoked.Actor{ClientID: "app", RequestID: "r-1"}
				if _, err := r.Commit(context.Background(), command.RevokeOp(by, revoked.DigestToken("a"), "")); err != nil {
					t.Error(err)
				}
			})
			synctest.Wait()
			c, err := command.Decode(log.data)
			b, ok := c.(*command.Batch)
			if err != nil || ok != audits || ok && (!b.Audited || b.Ops[0].Origin.Node != "node1" ||
				b.Ops[0].Origin.RequestId != "r-1") {
				t.Errorf("audit %v: got %v, %v, want the operation with its origin only if audited", audits, c, err)
			}
			log.commit(7)
			caller.Wait()
		})
	}
}

// A barrier sent before a request does not cover changes between the barrier and the request.
func TestReadBarrier_EarlierBarrierSent_IsNotReused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, log := newRouter(t)
		var first, second error
		var callers sync.WaitGroup
		callers.Go(func() { first = r.ReadBarrier(context.Background()) })
		synctest.Wait()
		done := make(chan struct{})
		callers.Go(func() { second = r.ReadBarrier(context.Background()); close(done) })
		synctest.Wait()
		log.commit(7)
		synctest.Wait()
		select {
		case <-done:
			t.Fatal("got an answer from the earlier barrier, want the second to wait for its own entry")
		default:
		}
		if !log.commit(8) {
			t.Fatal("got no entry for the second barrier, want one")
		}
		callers.Wait()
		if first != nil || second != nil {
			t.Errorf("got %v and %v, want no errors", first, second)
		}
	})
}

func TestPropose_NotLeading_ForwardsOnce(t *testing.T) {
	for name, tc := range map[string]struct {
		resp *nodepb.SubmitResponse
		want error
	}{
		"result":        {&nodepb.SubmitResponse{Index: 9, Results: []*nodepb.OpResult{{}}}, nil},
		"unknown token": {&nodepb.SubmitResponse{Index: 9, Results: []*nodepb.OpResult{{Unknown: true}}}, nil},
		"refused operation": {
			&nodepb.SubmitResponse{Index: 9, Results: []*nodepb.OpResult{{Code: revoked.Code(revoked.ErrConflict)}}},
			revoked.ErrConflict,
		},
		"failed batch":    {&nodepb.SubmitResponse{Code: revoked.Code(revoked.ErrOverloaded)}, revoked.ErrOverloaded},
		"missing results": {&nodepb.SubmitResponse{Index: 9}, revoked.ErrOutcomeUnknown},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				calls := 0
				r := propose.NewRouter(propose.Config{
					Metrics: propose.NewMetrics(prometheus.NewRegistry()), Timeout: time.Hour,
					HasLeader:     func() bool { return true },
					NoLeader:      func() error { return nil },
					LeaderChanged: func() <-chan struct{} { return nil },
					Forward: func(_ context.Context, req *nodepb.SubmitRequest, resp *nodepb.SubmitResponse) error {
						calls++
						if len(req.Ops) != 1 || !req.Final {
							t.Errorf("got %d operations, final %t, want 1, true", len(req.Ops), req.Final)
						}
						resp.Index, resp.Results, resp.Code = tc.resp.Index, tc.resp.Results, tc.resp.Code
						return nil
					},
				}, func() *propose.Proposer { return nil })
				ctx, cancel := context.WithCancel(context.Background())
				var running sync.WaitGroup
				running.Go(func() { r.Run(ctx) })
				op := command.RevokeOp(revoked.Actor{ClientID: "app"}, revoked.DigestToken("a"), "")
				res, err := r.CommitResult(ctx, op)
				if !errors.Is(err, tc.want) || err == nil && res.Index != 9 || calls != 1 {
					t.Errorf("got index %d, error %v, %d calls, want error %v, 1 call", res.Index, err, calls, tc.want)
				}
				if want := err == nil && tc.resp.Results[0].Unknown; res.Unknown != want {
					t.Errorf("got Unknown %t, want %t", res.Unknown, want)
				}
				cancel()
				running.Wait()
			})
		})
	}
}

// A call ends with its timeout, or with its caller's context if that is earlier.
func TestPropose_NoCommit_EndsAtTheEarlierDeadline(t *testing.T) {
	const timeout = 5 * time.Second
	for name, tt := range map[string]struct{ caller, want time.Duration }{
		"no deadline of the caller": {0, timeout},
		"an earlier one":            {time.Second, time.Second},
		"the same one":              {timeout, timeout},
		"a later one":               {time.Minute, timeout},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, _ := newRouter(t, func(c *propose.Config) { c.Timeout = timeout })
				ctx, cancel := context.WithCancel(t.Context())
				if tt.caller > 0 {
					ctx, cancel = context.WithTimeout(t.Context(), tt.caller)
				}
				defer cancel()
				op := command.RevokeOp(revoked.Actor{ClientID: "app"}, revoked.DigestToken("a"), "")
				began := time.Now()
				_, err := r.Commit(ctx, op)
				if took := time.Since(began); !errors.Is(err, revoked.ErrOutcomeUnknown) || took != tt.want {
					t.Errorf("revocation: got %v after %v, want %v after %v", err, took, revoked.ErrOutcomeUnknown, tt.want)
				}
			})
		})
	}
}

// A request waits for an ordinary election. Once waiting is useless it is refused, and later
// requests are refused immediately.
func TestPropose_WithoutLeader_WaitsOrRefuses(t *testing.T) {
	outage := &revoked.OutageError{Voters: 3, Reachable: 1, RetryAfter: time.Second}
	for name, tt := range map[string]struct {
		elected, useless time.Duration // times at which a leader is known, and from which waiting is useless; 0: never
		want             error
		wait             time.Duration
	}{
		"ordinary election":        {900 * time.Millisecond, 0, nil, 900 * time.Millisecond},
		"long election":            {4 * time.Second, 0, nil, 4 * time.Second},
		"quorum lost":              {0, time.Second, outage, time.Second},
		"no election for too long": {0, 0, revoked.ErrNoLeader, 5 * time.Second},
		"quorum lost at the start": {0, time.Nanosecond, outage, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				passed := func(d time.Duration) bool { return d > 0 && time.Since(began) >= d }
				r := propose.NewRouter(propose.Config{
					Metrics: propose.NewMetrics(prometheus.NewRegistry()), Timeout: 5 * time.Second,
					HasLeader:     func() bool { return passed(tt.elected) },
					LeaderChanged: func() <-chan struct{} { return nil },
					NoLeader: func() error {
						if passed(tt.useless) {
							return outage
						}
						return nil
					},
					Forward: func(_ context.Context, req *nodepb.SubmitRequest, resp *nodepb.SubmitResponse) error {
						resp.Index, resp.Results = 9, make([]*nodepb.OpResult, len(req.Ops))
						for i := range resp.Results {
							resp.Results[i] = &nodepb.OpResult{}
						}
						return nil
					},
				}, func() *propose.Proposer { return nil })
				ctx, cancel := context.WithCancel(context.Background())
				var running sync.WaitGroup
				running.Go(func() { r.Run(ctx) })
				if tt.wait == 0 {
					time.Sleep(tt.useless) // virtual time
				}
				came := time.Now()
				op := command.RevokeOp(revoked.Actor{ClientID: "app"}, revoked.DigestToken("a"), "")
				_, err := r.Commit(ctx, op)
				if took := time.Since(came); !errors.Is(err, tt.want) || took < tt.wait || took > tt.wait+propose.RetryPause {
					t.Errorf("got %v after %v, want %v after %v", err, took, tt.want, tt.wait)
				}
				if tt.want == outage {
					came := time.Now()
					if err := r.ReadBarrier(ctx); err != outage || time.Since(came) != 0 {
						t.Errorf("read barrier: got %v after %v, want %v immediately", err, time.Since(came), outage)
					}
				}
				cancel()
				running.Wait()
			})
		})
	}
}

// A member cannot forward an operation that no client requested: only the leader proposes such
// operations.
func TestServe_InvalidOperation_IsRefused(t *testing.T) {
	var nobody revoked.Actor
	for name, op := range map[string]*command.Op{
		"empty":              {},
		"barring a node":     command.BarNodeOp(nobody, "node1", "forged"),
		"withdrawing a node": command.WithdrawNodeOp(nobody, "node1"),
		"using a join token": command.JoinNodeOp("node9", revoked.DigestToken("token")),
		"vote of a member":   command.SetVotingOp(nobody, "node1", true, 0),
		"kind without actor": {Kind: command.BarNodeOp(nobody, "node1", "forged").Kind},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r, log := newRouter(t)
				answered := make(chan *nodepb.SubmitResponse, 1)
				go func() {
					answered <- r.Serve(context.Background(), "node2", &nodepb.SubmitRequest{Ops: []*command.Op{op}})
				}()
				synctest.Wait()
				log.commit(9) // so that the call returns if the operation was proposed
				if got := revoked.FromCode((<-answered).Code); !errors.Is(got, revoked.ErrInvalid) {
					t.Errorf("got %v, want %v", got, revoked.ErrInvalid)
				}
			})
		})
	}
}
