package node

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"revoked"
	"revoked/node/lease"
)

// wantNoAnswer fails if the node answers from its own copy. It cannot call a leader: none is known,
// and the caller's context has ended.
func (l *loneNode) wantNoAnswer(t *testing.T, d revoked.Digest, when string) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if st, err := l.Status(ctx, d, "rs"); err == nil {
		t.Errorf("lease ended %s: got %v, want an error", when, st.Verdict)
	}
}

func TestStatus_LeaseEndsDuringRead_NoAnswer(t *testing.T) {
	for when, during := range map[string]func(*loneNode){
		"during the read": func(l *loneNode) { l.between = func() { l.pass(testLength) } },
		"during the read, and a new one began": func(l *loneNode) {
			l.between = func() { l.pass(testLength); l.leases.take(l.reply(testLength)) }
		},
		"before the read": func(l *loneNode) { l.pass(testLength) },
	} {
		t.Run(when, func(t *testing.T) {
			l := newLoneNode(t)
			d := l.state.register(0, 1)[0]
			l.lease(t)
			during(l)
			l.wantNoAnswer(t, d, when)
		})
	}
	t.Run("never", func(t *testing.T) {
		l := newLoneNode(t)
		d := l.state.register(0, 1)[0]
		l.lease(t)
		if st, err := l.Status(context.Background(), d, "rs"); err != nil || st.Verdict != revoked.Active {
			t.Errorf("got %v, %v, want %v", st.Verdict, err, revoked.Active)
		}
	})
}

// A process that was stopped resumes with all its timers late, so only the clock counts.
func TestStatus_ProcessStopped_ReadsClock(t *testing.T) {
	l := newLoneNode(t)
	d := l.state.register(0, 1)[0]
	l.lease(t)
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	var timers sync.WaitGroup
	timers.Go(func() { l.leases.watch(ctx, l.cfg.Log, l.metrics.leaseLosses) })
	await(t, "the timer has seen the lease", func() bool {
		l.leases.mu.Lock()
		defer l.leases.mu.Unlock()
		return l.leases.held
	})
	stop()
	timers.Wait()
	l.pass(testLength)
	l.wantNoAnswer(t, d, "while the process was stopped")
}

// The wait for the leases of earlier terms begins when the log last received an entry of such a
// term, or when the process started.
func TestBegin_OlderLeases_WaitFromLastEarlierEntry(t *testing.T) {
	const age = 1500 * time.Millisecond
	entry := func(l *leases) { l.took(loneTerm-1, loneTerm-1) }
	for name, c := range map[string]struct {
		took    func(*leases) // an hour after the start, age before the term opens
		elapsed time.Duration // between the two, on the clock of the intake
		counts  time.Duration
	}{
		"an entry of an earlier term": {entry, age, age},
		"an entry that it proposed as an earlier leader": {func(l *leases) {
			l.begin(lease.Term{Number: loneTerm - 1, First: 1, Members: []string{"self", "other"}}, nil)
			entry(l)
			l.end()
		}, age, age},
		"an entry of its own term":  {func(l *leases) { l.took(loneTerm, loneTerm) }, age, time.Hour + age},
		"a snapshot":                {func(l *leases) { l.took(0, loneTerm) }, age, age},
		"nothing since the start":   {func(*leases) {}, age, time.Hour + age},
		"it has just started":       {func(l *leases) { l.intake = lease.NewIntake(l.steady()) }, age, age},
		"the machine was suspended": {entry, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLoneNode(t)
			steady := lease.Instant(time.Hour)
			l.leases.steady = func() lease.Instant { return steady }
			c.took(l.leases)
			steady = steady.Add(c.elapsed)
			l.pass(age)
			l.leases.begin(lease.Term{Number: loneTerm, First: 1, Members: []string{"self", "other"}}, nil)
			want := max(0, lease.ReservedFor(l.Settings().LeaseDuration)-c.counts)
			if got := l.leases.remainingOf("other"); got != want {
				t.Errorf("reserved: got %v, want %v", got, want)
			}
		})
	}
}

// The leader grants a lease only after an entry has committed that was proposed after the
// reservation. Raft's leader state, and even responses from a majority, may be outdated.
func TestGrant_NoEntryCommitted_Refused(t *testing.T) {
	l := newLoneNode(t)
	l.raft, l.cfg.Registerer = singleRaft(t), prometheus.NewRegistry()
	l.Node.propose = l.newRouter()
	l.open()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	r := l.leases.request()
	r.Applied = l.fsm.Applied()
	if g, refusal := l.leases.grant(ctx, loneTerm, r); refusal != lease.RefusedSilent {
		t.Errorf("no entry committed since the request: got %+v (refusal %q), want %q", g, refusal, lease.RefusedSilent)
	}
	if l.leases.remainingOf("self") == 0 {
		t.Error("got no reservation, want one")
	}
}
