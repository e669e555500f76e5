package node

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/raft"
	"github.com/prometheus/client_golang/prometheus"

	"revoked"
	"revoked/fsm"
	"revoked/internal/hashilog"
	"revoked/node/bearer"
	"revoked/node/cache"
	"revoked/node/datadir"
	"revoked/node/lease"
	"revoked/node/liveness"
)

// A loneNode is a node without a network, and with a Raft that has no configuration. It answers
// from its own copy only. The test sets its clocks.
type loneNode struct {
	*Node
	state *state
	boot  atomic.Int64 // the boot clock
	// between runs after the cache read a token and before it reads the grant.
	between func()
}

const (
	loneTerm   = 5
	base       = lease.Instant(time.Hour)
	testLength = 2 * time.Second
)

func newLoneNode(t *testing.T) *loneNode {
	t.Helper()
	l := &loneNode{between: func() {}}
	l.boot.Store(int64(base))
	ep := cache.NewEpochs()
	l.state = openState(t, ep)
	life := newLife(context.Background(), quiet(), nil)
	t.Cleanup(life.cancel)
	l.Node = &Node{
		id: &datadir.Identity{Server: "self"}, life: life, metrics: newMetrics(prometheus.NewRegistry()),
		fsm: l.state.FSM, raft: &raft.Raft{},
		cfg: Config{
			Log: quiet(), RequestTimeout: longStop, Registerer: prometheus.NewRegistry(), hooks: hooks{}.withDefaults(),
			BootClock: func() lease.Instant { return lease.Instant(l.boot.Load()) },
			Now: func() time.Time {
				return time.UnixMicro(int64(stateStart)).Add(time.Duration(l.boot.Load() - int64(base)))
			},
		},
	}
	records, err := cache.New(1<<20, ep, loneSource{l.state.FSM, l}, prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(records.Close)
	l.tokens = bearer.New(records, l.state.FSM, l.cfg.Now, prometheus.NewRegistry())
	l.Node.leases = newLeases(l.cfg, l.id, l.Settings)
	l.leadership = newLeadership(l.Node.leases, life.ctx, liveness.NewOutage("self", time.Second, time.Minute))
	l.roster = l.newRoster()
	l.Node.propose = l.newRouter()
	return l
}

func (l *loneNode) pass(d time.Duration) { l.boot.Add(int64(d)) }

// lease gives the node a read lease of length testLength, as a leader would.
func (l *loneNode) lease(t *testing.T) {
	t.Helper()
	l.leases.take(l.reply(testLength))
	if !l.leases.valid() {
		t.Fatal("got no lease, want one")
	}
}

// reply makes a new request and returns the reply of a leader to it.
func (l *loneNode) reply(length time.Duration) lease.Reply {
	r := l.leases.request()
	return lease.Reply{Term: loneTerm, Nonce: r.Nonce, Boot: r.Boot, Length: length}
}

// open opens a term whose only member is this node. Its proposer does not run, so nothing is
// proposed.
func (l *loneNode) open() {
	p := l.Node.propose.NewProposer(loneTerm)
	l.leases.begin(lease.Term{Number: loneTerm, First: 1, Members: []string{"self"}}, p.Barrier)
	l.leadership.setProposer(p)
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

// await polls ok until it returns true, and fails the test after longStop.
func await(t *testing.T, what string, ok func() bool) {
	t.Helper()
	stop := time.After(longStop)
	look := time.NewTicker(time.Millisecond)
	defer look.Stop()
	for !ok() {
		select {
		case <-look.C:
		case <-stop:
			t.Fatalf("got no success after %v, want: %s", longStop, what)
		}
	}
}

// singleRaft returns a Raft that leads a cluster of one node.
func singleRaft(t *testing.T) *raft.Raft {
	t.Helper()
	r := startSingleRaft(t, nil)
	await(t, "the node leads", func() bool { return r.State() == raft.Leader })
	return r
}

func startSingleRaft(t *testing.T, notify chan<- bool) *raft.Raft {
	t.Helper()
	conf := raft.DefaultConfig()
	conf.LocalID, conf.Logger, conf.NotifyCh = "self", hashilog.New(quiet(), "raft"), notify
	addr, trans := raft.NewInmemTransport("")
	store := raft.NewInmemStore()
	r, err := raft.NewRaft(conf, &raft.MockFSM{}, store, store, raft.NewInmemSnapshotStore(), trans)
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
