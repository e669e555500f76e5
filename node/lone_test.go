package node

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/raft"
	"github.com/prometheus/client_golang/prometheus"

	"revoked"
	"revoked/fsm"
	"revoked/transport"
)

// A lone node is a state, a cache and both sides of the leases, without a network and with a Raft that
// knows nobody: what it answers, it answers on its own. Time is what the test says.
type loneNode struct {
	*Node
	state *state
	boot  atomic.Int64 // the boot clock
	// between runs after a token's record was read, before its grant's is.
	between func()
}

const loneTerm = 5

func newLoneNode(t *testing.T) *loneNode {
	t.Helper()
	l := &loneNode{between: func() {}}
	l.boot.Store(int64(base))
	ep := newEpochs()
	l.state = openState(t, ep)
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	l.Node = &Node{
		log: quiet(), self: "self", fsm: l.state.FSM, raft: &raft.Raft{}, ctx: ctx, peers: newPeers("self", time.Second),
		cfg: Config{
			RequestTimeout: longStop, seams: seams{}.withDefaults(),
			BootClock: func() instant { return instant(l.boot.Load()) },
			Now: func() time.Time {
				return time.UnixMicro(int64(stateStart)).Add(time.Duration(l.boot.Load() - int64(base)))
			},
		},
	}
	var err error
	if l.cache, err = newCache(1<<20, ep, loneSource{l.state.FSM, l}, nil); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.cache.Close)
	l.Node.leases, l.Node.forward = newLeases(l.Node), newForwarder(l.Node)
	l.metrics = newMetrics(l.Node, prometheus.NewRegistry())
	return l
}

func (l *loneNode) pass(d time.Duration) { l.boot.Add(int64(d)) }

// lease gives the node a read lease of length testLength, as a leader would.
func (l *loneNode) lease(t *testing.T) {
	t.Helper()
	a := l.leases.ask()
	l.leases.take(leaseGrant{term: loneTerm, nonce: a.nonce, boot: a.boot, length: testLength})
	if !l.leases.valid() {
		t.Fatal("the grant was not taken")
	}
}

// open opens the books of a term, whose only member is this node, and returns a proposer that nobody
// runs: what comes to it is never proposed.
func (l *loneNode) open() *proposer {
	l.leases.begin(loneTerm, 1, []raft.ServerID{"self"})
	p := newProposer(l.Node, loneTerm)
	l.proposer.Store(p)
	return p
}

type loneSource struct {
	*fsm.FSM
	l *loneNode
}

func (s loneSource) LookupToken(d revoked.Digest) (revoked.Token, bool, error) {
	tok, ok, err := s.FSM.LookupToken(d)
	s.l.between()
	return tok, ok, err
}

// wantNoAnswer fails when the node answers from its own copy. Nothing else can it do: there is no
// leader, and the caller's time is up.
func (l *loneNode) wantNoAnswer(t *testing.T, d revoked.Digest, why string) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if st, err := l.Status(ctx, d); err == nil {
		t.Errorf("answered %v from its own copy, and %s", st.Verdict, why)
	}
}

func TestARecordReadUnderALeaseThatHasEndedIsNoAnswer(t *testing.T) {
	for name, during := range map[string]func(*loneNode){
		"while it was read":                   func(l *loneNode) { l.between = func() { l.pass(testLength) } },
		"while it was read, and another came": func(l *loneNode) { l.between = func() { l.pass(testLength); l.leases.take(l.grant()) } },
		"before it was read":                  func(l *loneNode) { l.pass(testLength) },
	} {
		t.Run(name, func(t *testing.T) {
			l := newLoneNode(t)
			d := l.state.register(0, 1)[0]
			l.lease(t)
			during(l)
			l.wantNoAnswer(t, d, "its lease ended "+name)
		})
	}
	t.Run("it is one under a lease that lasts", func(t *testing.T) {
		l := newLoneNode(t)
		d := l.state.register(0, 1)[0]
		l.lease(t)
		if st, err := l.Status(context.Background(), d); err != nil || st.Verdict != revoked.Active {
			t.Errorf("got %v, %v, want %v", st.Verdict, err, revoked.Active)
		}
	})
}

func (l *loneNode) grant() leaseGrant {
	a := l.leases.ask()
	return leaseGrant{term: loneTerm, nonce: a.nonce, boot: a.boot, length: testLength}
}

// A process that was stopped goes on where it was, with all its timers late. What they have set says
// nothing; only the clock does.
func TestAProcessThatWasStoppedLooksAtTheClockFirst(t *testing.T) {
	l := newLoneNode(t)
	d := l.state.register(0, 1)[0]
	l.lease(t)
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	var timers sync.WaitGroup
	timers.Go(func() { l.leases.watch(ctx) })
	await(t, "the timer has seen the lease", func() bool {
		l.leases.mu.Lock()
		defer l.leases.mu.Unlock()
		return !l.leases.lost
	})
	stop()
	timers.Wait()
	l.pass(testLength)
	l.wantNoAnswer(t, d, "its lease ended while the process stood still")
}

// await waits until ok, looking often.
func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	stop := time.After(longStop)
	look := time.NewTicker(time.Millisecond)
	defer look.Stop()
	for !ok() {
		select {
		case <-look.C:
		case <-stop:
			t.Fatalf("waited %v in vain until %s", longStop, what)
		}
	}
}

// The repeat of a revocation changes nothing, but the first may still wait for a holder that has not
// applied it: the repeat waits like the first.
func TestTheRepeatOfARevocationIsAnsweredOnlyByAnEntry(t *testing.T) {
	l := newLoneNode(t)
	d := l.state.register(0, 1)[0]
	op := fsm.RevokeOp(l.state.admin(), d, "")
	l.state.batch(op) // applied here, acknowledged to nobody
	synctest.Test(t, func(t *testing.T) {
		p := l.open()
		ctx, cancel := context.WithCancel(context.Background())
		s := newSubmission([]*fsm.Op{op}, true)
		var caller sync.WaitGroup
		caller.Go(func() {
			if err := p.submit(ctx, s); err == nil {
				t.Error("a repeated revocation was acknowledged although no entry has been committed since, and nobody was waited for")
			}
		})
		synctest.Wait()
		if len(p.queue) != 1 {
			t.Errorf("%d calls wait for an entry, want the repeat", len(p.queue))
		}
		cancel()
		caller.Wait()
	})
}

// A proof that was asked for before a question says nothing of what happened until the question.
func TestAQuestionJoinsNoProofThatWasSentBefore(t *testing.T) {
	l := newLoneNode(t)
	synctest.Test(t, func(t *testing.T) {
		p := l.open()
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		var callers sync.WaitGroup
		defer callers.Wait()
		var sent *submission
		ask := func() { callers.Go(func() { l.prove(ctx) }) }
		ask()
		synctest.Wait()
		sent = <-p.queue // its entry is on its way
		ask()
		synctest.Wait()
		if len(p.queue) != 1 {
			t.Errorf("%d proofs wait to be sent, want one: the second question waits for the answer to a proof sent before it", len(p.queue))
		}
		sent.finish(1, nil)
		for len(p.queue) > 0 {
			(<-p.queue).finish(1, nil)
		}
	})
}

// A lease rests on an entry that was proposed after the booking and committed. That Raft believes this
// node to lead, and even that a majority has answered it, may both be of the past.
func TestALeaseIsGrantedOnAnEntryAlone(t *testing.T) {
	l := newLoneNode(t)
	l.raft = singleRaft(t)
	p := l.open() // and proposes nothing
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	a := l.leases.ask()
	a.applied = l.fsm.Applied()
	if g, reason := l.leases.serve(ctx, p, a); reason != refusedSilent {
		t.Errorf("granted %+v (reason %q) although no entry has been committed since the ask, want it refused as %q", g, reason, refusedSilent)
	}
	if left := l.leases.leftOf("self"); left == 0 {
		t.Error("the ask was not booked: the test proves nothing")
	}
}

// A Raft that is shut down takes a wish for a transfer, half of the time, and nobody ever answers it: who
// waited for that kept the node from ending.
func TestAWishForATransferIsNotWaitedForAfterTheEnd(t *testing.T) {
	l := newLoneNode(t)
	r := startSingleRaft(t, nil)
	if err := r.Shutdown().Error(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	l.raft, l.ctx = r, ctx
	answers := make(chan error)
	ask := func() { answers <- l.wish(raft.Server{ID: "other", Address: "other"}) }
	for range 32 { // all but certainly one of them is taken
		go ask()
	}
	cancel()
	for range 32 {
		select {
		case err := <-answers:
			if err == nil {
				t.Error("a Raft that is shut down handed leadership over")
			}
		case <-time.After(longStop):
			t.Fatal("a transfer is waited for although the node has ended")
		}
	}
	if err := l.transferTo(raft.Server{ID: "other", Address: "other"}); !errors.Is(err, revoked.ErrClosed) {
		t.Errorf("after the end: got %v, want %v", err, revoked.ErrClosed)
	}
}

// singleRaft is a Raft that leads itself.
func singleRaft(t *testing.T) *raft.Raft {
	t.Helper()
	r := startSingleRaft(t, nil)
	await(t, "it leads", func() bool { return r.State() == raft.Leader })
	return r
}

func startSingleRaft(t *testing.T, notify chan<- bool) *raft.Raft {
	t.Helper()
	conf := raft.DefaultConfig()
	conf.LocalID, conf.Logger, conf.NotifyCh = "self", transport.RaftLog(quiet(), "raft"), notify
	addr, trans := raft.NewInmemTransport("")
	store := raft.NewInmemStore()
	r, err := raft.NewRaft(conf, newListFSM(), store, store, raft.NewInmemSnapshotStore(), trans)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Shutdown().Error() })
	servers := raft.Configuration{Servers: []raft.Server{{ID: "self", Address: addr}}}
	if err := r.BootstrapCluster(servers).Error(); err != nil {
		t.Fatal(err)
	}
	return r
}
