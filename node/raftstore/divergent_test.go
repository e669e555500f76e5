package raftstore

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
)

const longStop = time.Minute

// listFSM keeps all applied commands. Every change closes changed and replaces it.
type listFSM struct {
	mu       sync.Mutex
	commands []string
	restores int
	changed  chan struct{}
}

func newListFSM() *listFSM { return &listFSM{changed: make(chan struct{})} }

func (f *listFSM) Apply(l *raft.Log) any {
	f.change(func() { f.commands = append(f.commands, string(l.Data)) })
	return nil
}

func (f *listFSM) change(do func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	do()
	close(f.changed)
	f.changed = make(chan struct{})
}

func (f *listFSM) Snapshot() (raft.FSMSnapshot, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return listSnapshot(slices.Clone(f.commands)), nil
}

func (f *listFSM) Restore(r io.ReadCloser) error {
	var commands []string
	if err := json.NewDecoder(r).Decode(&commands); err != nil {
		return err
	}
	f.change(func() { f.commands, f.restores = commands, f.restores+1 })
	return nil
}

// wait waits until ok returns true.
func (f *listFSM) wait(t *testing.T, what string, ok func(commands []string, restores int) bool) {
	t.Helper()
	stop := time.After(longStop)
	for {
		f.mu.Lock()
		done, changed, n, restores := ok(f.commands, f.restores), f.changed, len(f.commands), f.restores
		f.mu.Unlock()
		if done {
			return
		}
		select {
		case <-changed:
		case <-stop:
			t.Fatalf("got %d commands, %d restores after %v, want %s", n, restores, longStop, what)
		}
	}
}

type listSnapshot []string

func (s listSnapshot) Persist(sink raft.SnapshotSink) error {
	if err := json.NewEncoder(sink).Encode([]string(s)); err != nil {
		return err
	}
	return sink.Close()
}

func (s listSnapshot) Release() {}

// bench is a set of Raft nodes that communicate in memory.
type bench struct {
	t     *testing.T
	nodes map[raft.ServerID]*benchNode
}

type benchNode struct {
	id        raft.ServerID
	fsm       *listFSM
	disk      *raft.InmemStore
	snapshots *raft.InmemSnapshotStore
	trans     *raft.InmemTransport
	raft      *raft.Raft
}

// add creates a node with the given id and log, in term 2. The node is not started.
func (b *bench) add(id raft.ServerID, log []*raft.Log) *benchNode {
	_, trans := raft.NewInmemTransport(raft.ServerAddress(id))
	n := &benchNode{id: id, fsm: newListFSM(), disk: raft.NewInmemStore(), snapshots: raft.NewInmemSnapshotStore(),
		trans: trans}
	for _, e := range log {
		if err := n.disk.StoreLog(withChecksum(e)); err != nil {
			b.t.Fatal(err)
		}
	}
	if err := n.disk.SetUint64([]byte(keyTerm), 2); err != nil {
		b.t.Fatal(err)
	}
	b.nodes[id] = n
	return n
}

// layers selects the protections of a node: snapshotCheckedLog and ReviewAppend.
type layers int

const (
	noLayer    layers = iota // hashicorp/raft without protection
	reviewOnly               // ReviewAppend alone
	bothLayers               // both protections
)

// start starts n and connects it with the peers. trailing is the number of entries that n keeps
// below each snapshot.
func (b *bench) start(n *benchNode, c layers, trailing uint64, peers ...*benchNode) {
	b.t.Helper()
	log, trans := raft.LogStore(n.disk), raft.Transport(n.trans)
	if c == bothLayers {
		log = n.checkedLog(b.t)
	}
	if c != noLayer {
		reviewed := &reviewedTransport{InmemTransport: n.trans, newest: n.newest, incoming: make(chan raft.RPC),
			done: make(chan struct{})}
		go reviewed.pass()
		b.t.Cleanup(func() { close(reviewed.done) })
		trans = reviewed
	}
	b.startOn(n, log, n.disk, trans, trailing, peers...)
}

// reviewedTransport reviews requests as transport.ReviewAppends does.
type reviewedTransport struct {
	*raft.InmemTransport
	newest   func() (index, term uint64)
	incoming chan raft.RPC
	done     chan struct{}
}

func (t *reviewedTransport) Consumer() <-chan raft.RPC { return t.incoming }

func (t *reviewedTransport) pass() {
	for {
		select {
		case rpc := <-t.InmemTransport.Consumer():
			if req, ok := rpc.Command.(*raft.AppendEntriesRequest); ok {
				changed := *req // copied, because the leader uses req too
				index, term := t.newest()
				reviewAppend(&changed, index, term)
				rpc.Command = &changed
			}
			select {
			case t.incoming <- rpc:
			case <-t.done:
				return
			}
		case <-t.done:
			return
		}
	}
}

// startOn is like start, but with the given stores and transport.
func (b *bench) startOn(n *benchNode, log raft.LogStore, stable raft.StableStore, trans raft.Transport,
	trailing uint64, peers ...*benchNode) {
	b.t.Helper()
	conf := raft.DefaultConfig()
	conf.LocalID = n.id
	conf.HeartbeatTimeout, conf.ElectionTimeout = 500*time.Millisecond, 500*time.Millisecond
	conf.LeaderLeaseTimeout, conf.CommitTimeout = 500*time.Millisecond, 5*time.Millisecond
	conf.TrailingLogs = trailing
	conf.Logger = hclog.NewNullLogger()
	var err error
	if n.raft, err = raft.NewRaft(conf, n.fsm, log, stable, n.snapshots, trans); err != nil {
		b.t.Fatal(err)
	}
	// If the peers connected earlier, requests would queue up before Raft runs.
	for _, peer := range peers {
		peer.trans.Connect(n.trans.LocalAddr(), n.trans)
		n.trans.Connect(peer.trans.LocalAddr(), peer.trans)
	}
	b.t.Cleanup(func() {
		if err := n.raft.Shutdown().Error(); err != nil {
			b.t.Error(err)
		}
	})
}

// newest returns the index and the term of the newest snapshot of n.
func (n *benchNode) newest() (index, term uint64) {
	metas, err := n.snapshots.List()
	if err != nil || len(metas) == 0 {
		return 0, 0
	}
	return metas[0].Index, metas[0].Term
}

// checkedLog returns the log of the product with n.disk below it.
func (n *benchNode) checkedLog(t *testing.T) raft.LogStore {
	t.Helper()
	s := newStack(func(err error) { t.Errorf("fatal: %v", err) })
	if err := s.stack(n.disk, boltErrors{n.disk}, n.newest); err != nil {
		t.Fatal(err)
	}
	return s.log
}

// leader waits until one of the nodes leads and returns it.
func (b *bench) leader(of ...*benchNode) *benchNode {
	b.t.Helper()
	stop := time.After(longStop)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		for _, n := range of {
			if n.raft.State() == raft.Leader {
				return n
			}
		}
		select {
		case <-tick.C:
		case <-stop:
			b.t.Fatalf("got no leader after %v, want one", longStop)
		}
	}
}

// apply applies commands at the node that leads and returns that node. If the node loses leadership
// in the meantime, all commands are applied again.
func (b *bench) apply(prefix string, count int, of ...*benchNode) *benchNode {
	b.t.Helper()
	for stop := time.Now().Add(longStop); ; {
		l := b.leader(of...)
		var last raft.ApplyFuture
		for i := range count {
			last = l.raft.Apply(fmt.Appendf(nil, "%s %d", prefix, i), longStop)
		}
		err := last.Error()
		if err == nil {
			return l
		}
		if time.Now().After(stop) {
			b.t.Fatal(err)
		}
	}
}

// healed returns a bench whose voters a and b have committed 100 commands. Each has a snapshot of
// all commands and has truncated its log up to the snapshot. The log of c has entries of an older
// term that no other log has, and beyond is the number of these after the snapshot. If withD is
// set, there is a node d whose log has only the configuration. c and d are not started.
func healed(t *testing.T, withD bool, beyond uint64) (b *bench, c, d *benchNode) {
	t.Helper()
	b = &bench{t: t, nodes: map[raft.ServerID]*benchNode{}}
	servers := raft.Configuration{}
	names := []raft.ServerID{"a", "b", "c"}
	if withD {
		names = append(names, "d")
	}
	for _, id := range names {
		s := raft.Server{ID: id, Address: raft.ServerAddress(id)}
		if id == "d" {
			s.Suffrage = raft.Nonvoter
		}
		servers.Servers = append(servers.Servers, s)
	}
	first := []*raft.Log{{Index: 1, Term: 1, Type: raft.LogConfiguration, Data: raft.EncodeConfiguration(servers)}}
	a, bb := b.add("a", first), b.add("b", first)
	c = b.add("c", first)
	if withD {
		d = b.add("d", first)
	}
	b.start(a, bothLayers, 0)
	b.start(bb, bothLayers, 0, a)
	leader := b.apply("committed", 100, a, bb)
	if err := leader.raft.Snapshot().Error(); err != nil {
		t.Fatal(err)
	}
	other := a
	if leader == a {
		other = bb
	}
	other.fsm.wait(t, "the commands", func(commands []string, _ int) bool {
		return slices.Contains(commands, "committed 99")
	})
	if err := other.raft.Snapshot().Error(); err != nil { // other may lead later
		t.Fatal(err)
	}
	index, _ := leader.newest()
	for _, e := range entries(2, 2, index+beyond) {
		if err := c.disk.StoreLog(withChecksum(e)); err != nil {
			t.Fatal(err)
		}
	}
	return b, c, d
}

// Without protection, hashicorp/raft installs a snapshot over a divergent tail again and again.
// Raft refuses later entries while the entry at the snapshot's index differs or is missing
// (hashicorp/raft#697).
func TestDivergentTail_SnapshotIsInstalledOnce(t *testing.T) {
	for _, test := range []struct {
		name     string
		trailing uint64
		beyond   uint64
	}{
		{"entry at the snapshot's index is kept", 10_000, 100},
		{"entry at the snapshot's index is compacted", 0, 100},
		{"last entry is at the snapshot's index and is kept", 10_000, 0},
		{"last entry is at the snapshot's index and is compacted", 0, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Run("Raft without protection livelocks", func(t *testing.T) {
				b, c, _ := healed(t, false, test.beyond)
				b.start(c, noLayer, test.trailing, b.nodes["a"], b.nodes["b"])
				b.apply("after", 1, b.nodes["a"], b.nodes["b"])
				c.fsm.wait(t, "the livelock", func(_ []string, restores int) bool { return restores >= 50 })
			})
			t.Run("node recovers", func(t *testing.T) {
				b, c, _ := healed(t, false, test.beyond)
				b.start(c, bothLayers, test.trailing, b.nodes["a"], b.nodes["b"])
				leader := b.apply("after", 100, b.nodes["a"], b.nodes["b"])
				b.same(leader, c)
				if c.fsm.restores != 1 {
					t.Errorf("got %d restores, want 1", c.fsm.restores)
				}
			})
		})
	}
}

// A node that recovered from a divergent tail becomes leader, and another node lags behind the
// leader's snapshot. The entries of the tail below the snapshot were never committed, so the leader
// must not send them.
func TestDivergentTail_IsNeverSent(t *testing.T) {
	run := func(t *testing.T, has layers) (b *bench, c, d *benchNode) {
		b, c, d = healed(t, true, 100)
		b.start(c, has, 10_000, b.nodes["a"], b.nodes["b"])
		b.apply("after", 1, b.nodes["a"], b.nodes["b"])
		c.fsm.wait(t, "recovery", func(commands []string, _ int) bool { return slices.Contains(commands, "after 0") })
		for stop := time.Now().Add(longStop); c.raft.State() != raft.Leader; {
			if time.Now().After(stop) {
				t.Fatalf("got no transfer after %v, want leader %s", longStop, c.id)
			}
			l := b.leader(b.nodes["a"], b.nodes["b"], c)
			if l != c {
				// The loop retries.
				_ = l.raft.LeadershipTransferToServer(c.id, c.trans.LocalAddr()).Error()
			}
		}
		b.start(d, bothLayers, 10_000, c) // only with c: the previous leader may not have stepped down yet
		b.apply("last", 1, c)
		d.fsm.wait(t, "the laggard", func(commands []string, _ int) bool {
			return slices.Contains(commands, "last 0")
		})
		return b, c, d
	}
	t.Run("with ReviewAppend alone the nodes differ", func(t *testing.T) {
		_, c, d := run(t, reviewOnly)
		if slices.Equal(c.fsm.list(), d.fsm.list()) {
			t.Error("got the same commands on both, want different")
		}
	})
	t.Run("nodes agree", func(t *testing.T) {
		b, c, d := run(t, bothLayers)
		b.same(c, d)
	})
}

func (f *listFSM) list() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.commands)
}

// same waits until y has applied what x has applied.
func (b *bench) same(x, y *benchNode) {
	b.t.Helper()
	y.fsm.wait(b.t, fmt.Sprintf("those of %s at %s", x.id, y.id), func(commands []string, _ int) bool {
		return slices.Equal(commands, x.fsm.list())
	})
}
