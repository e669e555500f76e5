package node

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"revoked/transport"
)

const longStop = 30 * time.Second

// A listFSM holds all commands that it applied. changed is closed and made anew at every change.
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

// wait waits until ok says of the commands and the number of restores that it is over.
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
			t.Fatalf("waited %v for %s: %d commands, %d restores", longStop, what, n, restores)
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

// A bench is a set of Raft nodes that talk in memory.
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

// add makes the node id, whose log begins with the given entries, in term 2. It does not start it.
func (b *bench) add(id raft.ServerID, log []*raft.Log) *benchNode {
	_, trans := raft.NewInmemTransport(raft.ServerAddress(id))
	n := &benchNode{id: id, fsm: newListFSM(), disk: raft.NewInmemStore(), snapshots: raft.NewInmemSnapshotStore(), trans: trans}
	for _, e := range log { // as they are on a disk, with their checksums
		if err := n.disk.StoreLog(sealed(e)); err != nil {
			b.t.Fatal(err)
		}
	}
	if err := n.disk.SetUint64([]byte(keyTerm), 2); err != nil {
		b.t.Fatal(err)
	}
	b.nodes[id] = n
	return n
}

// A cure is what of anchor.go a node has.
type cure int

const (
	uncured     cure = iota // the library alone
	appendsOnly             // what follows the snapshot is taken
	cured                   // and the log is anchored, as it ships
)

// start starts n, keeping trailing entries below each snapshot, and connects it with the peers.
func (b *bench) start(n *benchNode, c cure, trailing uint64, peers ...*benchNode) {
	b.t.Helper()
	log, trans := raft.LogStore(n.disk), raft.Transport(n.trans)
	if c == cured {
		log = n.anchored(b.t)
	}
	if c != uncured {
		reviewed := &reviewedTransport{InmemTransport: n.trans, review: anchorAppends(n.newest), incoming: make(chan raft.RPC), done: make(chan struct{})}
		go reviewed.pass()
		b.t.Cleanup(func() { close(reviewed.done) })
		trans = reviewed
	}
	b.startOn(n, log, n.disk, trans, trailing, peers...)
}

// A reviewedTransport does what transport.ReviewAppends says.
type reviewedTransport struct {
	*raft.InmemTransport
	review   func(*raft.AppendEntriesRequest)
	incoming chan raft.RPC
	done     chan struct{}
}

func (t *reviewedTransport) Consumer() <-chan raft.RPC { return t.incoming }

func (t *reviewedTransport) pass() {
	for {
		select {
		case rpc := <-t.InmemTransport.Consumer():
			if req, ok := rpc.Command.(*raft.AppendEntriesRequest); ok {
				changed := *req // in memory, the leader's own
				t.review(&changed)
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

// startOn is start on the given stores and transport.
func (b *bench) startOn(n *benchNode, log raft.LogStore, stable raft.StableStore, trans raft.Transport, trailing uint64, peers ...*benchNode) {
	b.t.Helper()
	conf := raft.DefaultConfig()
	conf.LocalID = n.id
	conf.HeartbeatTimeout, conf.ElectionTimeout = 500*time.Millisecond, 500*time.Millisecond
	conf.LeaderLeaseTimeout, conf.CommitTimeout = 500*time.Millisecond, 5*time.Millisecond
	conf.TrailingLogs = trailing
	conf.Logger = transport.RaftLog(quiet(), string(n.id))
	var err error
	if n.raft, err = raft.NewRaft(conf, n.fsm, log, stable, n.snapshots, trans); err != nil {
		b.t.Fatal(err)
	}
	// Only now, or requests from before would be waiting for it.
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

// newest is what stores.useSnapshots asks for.
func (n *benchNode) newest() (index, term uint64) {
	metas, err := n.snapshots.List()
	if err != nil || len(metas) == 0 {
		return 0, 0
	}
	return metas[0].Index, metas[0].Term
}

// anchored returns the log store that ships, over n.disk.
func (n *benchNode) anchored(t *testing.T) raft.LogStore {
	t.Helper()
	s := &stores{guard: &guard{fatal: func(err error) { t.Errorf("fatal: %v", err) }}}
	if err := s.assemble(n.disk, missing{n.disk}); err != nil {
		t.Fatal(err)
	}
	if err := s.useSnapshots(n.newest); err != nil {
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
			b.t.Fatal("no leader")
		}
	}
}

// apply applies commands at the leader among the nodes and returns the leader.
func (b *bench) apply(prefix string, count int, of ...*benchNode) *benchNode {
	b.t.Helper()
	l := b.leader(of...)
	var last raft.ApplyFuture
	for i := range count {
		last = l.raft.Apply(fmt.Appendf(nil, "%s %d", prefix, i), longStop)
	}
	if err := last.Error(); err != nil {
		b.t.Fatal(err)
	}
	return l
}

// A healed bench has voters a and b, which committed 100 commands and then cut their logs behind a
// snapshot of them all, and c, which holds entries of an older term that nobody else has, up to as many
// as are beyond the index of the snapshot. d, if there is one, has nothing but the configuration, and is
// not started.
func healed(t *testing.T, withD bool, beyond uint64) (b *bench, leader, c, d *benchNode) {
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
	b.start(a, cured, 0)
	b.start(bb, cured, 0, a)
	leader = b.apply("committed", 100, a, bb)
	if err := leader.raft.Snapshot().Error(); err != nil {
		t.Fatal(err)
	}
	index, _ := leader.newest()
	for _, e := range entries(2, 2, index+beyond) {
		if err := c.disk.StoreLog(sealed(e)); err != nil {
			t.Fatal(err)
		}
	}
	return b, leader, c, d
}

// The library alone: a snapshot over a divergent tail is installed again and again, because the
// entry at its index, or the lack of one, refuses what follows (hashicorp/raft#697).
func TestASnapshotOverADivergentTailIsInstalledOnce(t *testing.T) {
	for _, test := range []struct {
		name     string
		trailing uint64
		beyond   uint64
	}{
		{"the divergent entry at its index was kept", 10_000, 100},
		{"the divergent entry at its index was compacted away", 0, 100},
		{"the divergent entry at its index is the last one", 10_000, 0},
		{"the divergent entry at its index was the last one", 0, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Run("without anchors it does not end", func(t *testing.T) {
				b, leader, c, _ := healed(t, false, test.beyond)
				b.start(c, uncured, test.trailing, b.nodes["a"], b.nodes["b"])
				b.apply("after", 1, leader)
				c.fsm.wait(t, "the livelock", func(_ []string, restores int) bool { return restores >= 200 })
			})
			t.Run("with them the node recovers", func(t *testing.T) {
				b, leader, c, _ := healed(t, false, test.beyond)
				b.start(c, cured, test.trailing, b.nodes["a"], b.nodes["b"])
				b.apply("after", 100, leader)
				c.fsm.wait(t, "recovery", func(commands []string, _ int) bool { return len(commands) == 200 })
				b.same(leader, c)
				if c.fsm.restores != 1 {
					t.Errorf("got %d restores, want 1", c.fsm.restores)
				}
			})
		})
	}
}

// A node that recovered from a divergent tail comes to lead, and a node lags behind its snapshot.
// What is left of the tail below the snapshot must not reach it: it was never committed.
func TestWhatASnapshotReplacedIsNeverSentOn(t *testing.T) {
	run := func(t *testing.T, has cure) (b *bench, c, d *benchNode) {
		b, leader, c, d := healed(t, true, 100)
		b.start(c, has, 10_000, b.nodes["a"], b.nodes["b"])
		b.apply("after", 1, leader)
		c.fsm.wait(t, "recovery", func(commands []string, _ int) bool { return len(commands) == 101 })
		for stop := time.Now().Add(longStop); c.raft.State() != raft.Leader; {
			if time.Now().After(stop) {
				t.Fatal("leadership did not move")
			}
			l := b.leader(b.nodes["a"], b.nodes["b"], c)
			if l != c {
				// It may fail and be tried again; the loop decides.
				_ = l.raft.LeadershipTransferToServer(c.id, c.trans.LocalAddr()).Error()
			}
		}
		b.start(d, cured, 10_000, c) // c alone: the leader before it may not have noticed yet
		b.apply("last", 1, c)
		d.fsm.wait(t, "the laggard", func(commands []string, _ int) bool {
			return slices.Contains(commands, "last 0")
		})
		return b, c, d
	}
	t.Run("with the log as it was they differ for good", func(t *testing.T) {
		_, c, d := run(t, appendsOnly)
		if slices.Equal(c.fsm.list(), d.fsm.list()) {
			t.Error("got the same commands on both: the test proves nothing")
		}
	})
	t.Run("with the anchored log they agree", func(t *testing.T) {
		b, c, d := run(t, cured)
		b.same(c, d)
	})
}

func (f *listFSM) list() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.commands)
}

// same compares what two nodes applied.
func (b *bench) same(x, y *benchNode) {
	b.t.Helper()
	if got, want := y.fsm.list(), x.fsm.list(); !slices.Equal(got, want) {
		b.t.Errorf("%s applied\n%q\nwant, as %s,\n%q", y.id, got, x.id, want)
	}
}
