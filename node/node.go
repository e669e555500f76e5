package node

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"revoked"
	"revoked/cluster"
	"revoked/fsm"
	"revoked/transport"
)

// A Node is one member. Its methods may be called at once; together they satisfy what package api
// asks of a backend. Each concern is a type of its own beside this one; Node only joins them.
type Node struct {
	cfg  Config
	log  *slog.Logger
	lock *os.File

	idMu sync.Mutex // guards ClusterID and Left of id
	id   *identity
	self raft.ServerID
	boot []byte // drawn at every start: reports of an earlier life do not count

	fsm     *fsm.FSM
	install *installs
	stores  *stores
	meter   *meteredLog
	raft    *raft.Raft
	trans   *transport.Transport
	cache   *cache
	metrics *metrics

	proposer atomic.Pointer[proposer] // nil unless this node leads and its term is open
	forward  *forwarder
	leases   *leases
	reporter *reporter
	peers    *peers
	stamps   *stampClock
	streams  atomic.Uint64
	herald   *herald
	sent     sentProof // of one mutant

	leaderChange broadcast
	expecting    atomic.Bool // founding or joining: strangers of the cluster's CA may speak Raft to it
	diverged     atomic.Bool
	membership   turn // one change of the configuration at a time
	wishes       wishes

	gossipMu   sync.Mutex
	gossip     *cluster.Gossip
	seeds      []string
	leaderInfo struct { // what the leader said of itself
		id  raft.ServerID
		api string
	}

	entering context.CancelFunc
	ctx      context.Context
	cancel   context.CancelFunc
	wg       sync.WaitGroup

	endOnce  sync.Once
	done     chan struct{}
	err      error
	closeOne sync.Once
	closed   error
}

// Open starts a node on its data directory. It returns as soon as the node runs; whether it is in a
// cluster and can answer, Readiness tells. On an error the listener is closed.
func Open(ctx context.Context, cfg Config) (n *Node, err error) {
	cfg, err = cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	n = &Node{cfg: cfg, log: cfg.Log.With("node", cfg.NodeID), membership: newTurn(), done: make(chan struct{}), herald: newHerald()}
	n.ctx, n.cancel = context.WithCancel(context.WithoutCancel(ctx))
	defer func() {
		if err != nil {
			n.release()
			cfg.Listener.Close()
			err = n.cause(err)
			n = nil
		}
	}()
	if err := n.openData(); err != nil {
		return n, err
	}
	if err := n.openRaft(); err != nil {
		return n, err
	}
	n.metrics = newMetrics(n, cfg.Registerer)
	n.forward = newForwarder(n)
	n.start()
	return n, nil
}

// openData takes the data directory: lock, identity, log, state, cache.
func (n *Node) openData() (err error) {
	if err := os.MkdirAll(n.cfg.DataDir, 0o700); err != nil {
		return fmt.Errorf("make data directory: %w", err)
	}
	if n.lock, err = lockDir(n.cfg.DataDir); err != nil {
		return err
	}
	if n.id, err = openIdentity(n.cfg.DataDir, n.cfg.NodeID, n.cfg.Rejoin); err != nil {
		return err
	}
	n.self = n.id.serverID()
	n.boot = make([]byte, 16)
	if _, err := rand.Read(n.boot); err != nil {
		return err
	}
	if n.stores, err = n.cfg.seams.stores(n.cfg.DataDir, n.fatal, n.log); err != nil {
		return err
	}
	if n.install, err = openInstalls(n.stores.stable); err != nil {
		return err
	}
	ep := newEpochs()
	n.fsm, err = fsm.Open(fsm.Config{Dir: filepath.Join(n.cfg.DataDir, "state"), FS: n.cfg.seams.fs, CacheBytes: n.cfg.StoreCacheSize, Log: n.log,
		Changes: ep, Installing: n.install.note, Fatal: n.stateFailed, Crash: n.cfg.Crash})
	if err != nil {
		return n.stateError(fmt.Errorf("open state: %w", err))
	}
	if n.cache, err = newCache(n.cfg.CacheSize, ep, n.fsm, n.cfg.Registerer); err != nil {
		return err
	}
	n.leases = newLeases(n)
	n.reporter = newReporter(n)
	n.peers = newPeers(n.self, 3*n.cfg.HeartbeatTimeout)
	n.stamps = newStampClock(n.cfg.Now, string(n.self))
	return nil
}

// openRaft starts the cluster port and Raft on it.
func (n *Node) openRaft() (err error) {
	n.trans, err = transport.New(transport.Config{
		NodeID: n.cfg.NodeID, Instance: n.id.Instance, Listener: n.cfg.Listener, Advertise: n.cfg.ClusterAdvertise, Certs: n.cfg.Certs,
		Handler: n.handler(), AllowRaft: n.allowRaft, Log: n.log, Registerer: n.cfg.Registerer,
		RaftTimeout: 10 * time.Second, Dial: n.cfg.seams.dial,
	})
	if err != nil {
		return err
	}
	log := transport.RaftLog(n.log, "raft")
	inner, err := n.cfg.seams.snapshots(n.cfg.DataDir, log)
	if err != nil {
		return fmt.Errorf("open snapshots: %w", err)
	}
	snaps, err := indexSnapshots(fsm.NewSnapshotStore(inner, n.fsm))
	if err != nil {
		return err
	}
	if err := n.stores.useSnapshots(snaps.newest); err != nil {
		return err
	}
	n.trans.ReviewAppends(anchorAppends(snaps.newest))
	n.meter = &meteredLog{LogStore: n.stores.log}
	durable, err := n.fsm.DurableIndex()
	if err != nil {
		return err
	}
	index, _ := snaps.newest()
	conf := raft.DefaultConfig()
	conf.LocalID = n.self
	conf.HeartbeatTimeout, conf.ElectionTimeout = n.cfg.HeartbeatTimeout, n.cfg.ElectionTimeout
	conf.LeaderLeaseTimeout = n.cfg.HeartbeatTimeout
	conf.CommitTimeout = n.cfg.seams.commitTimeout
	conf.MaxAppendEntries = 64
	conf.SnapshotThreshold = 1 << 40 // by bytes instead: see logKeeper
	conf.SnapshotInterval = time.Hour
	conf.TrailingLogs = maxTrailing
	conf.NoLegacyTelemetry = true
	conf.NotifyCh = n.herald.says
	conf.Logger = log
	// The state is durable by itself: a snapshot is restored at the start only where it is newer.
	conf.NoSnapshotRestoreOnStart = durable >= index
	n.raft, err = startRaft(n.cfg.DataDir, func() (*raft.Raft, error) {
		return raft.NewRaft(conf, countedFSM{n.fsm, snaps}, n.meter, termStore{n.stores.stable, n.crash}, snaps, n.cfg.seams.transport(n.trans.Raft()))
	})
	newest := err == nil && n.raft.Stats()["last_snapshot_index"] == strconv.FormatUint(index, 10)
	if err := snaps.startError(n.cfg.DataDir, newest, err); err != nil {
		return fmt.Errorf("start raft: %w", err)
	}
	n.trans.HoldOutages(n.replicatesTo)
	return nil
}

// start runs what a node does all the time.
func (n *Node) start() {
	observed := make(chan raft.Observation, 64)
	observer := raft.NewObserver(observed, false, func(o *raft.Observation) bool {
		_, ok := o.Data.(raft.LeaderObservation)
		return ok
	})
	n.raft.RegisterObserver(observer)
	n.wg.Go(func() {
		defer n.raft.DeregisterObserver(observer)
		for {
			select {
			case <-observed:
				n.leaderChange.announce()
			case <-n.ctx.Done():
				return
			}
		}
	})
	n.trans.Serve()
	entering, stop := context.WithCancel(n.ctx)
	n.entering = stop
	n.wg.Go(func() { n.enter(entering) })
	n.wg.Go(func() { n.herald.run(n.ctx, n.leases.end) })
	n.wg.Go(func() { n.watchLeadership(n.ctx) })
	n.wg.Go(func() { n.forward.run(n.ctx) })
	n.wg.Go(func() { n.reporter.run(n.ctx) })
	n.wg.Go(func() { n.keepLog(n.ctx) })
	n.wg.Go(func() { n.leases.watch(n.ctx) })
	n.wg.Go(func() { n.bindCluster(n.ctx) })
}

// stopEntering ends the attempts of the start: an operator has taken over.
func (n *Node) stopEntering() { n.entering() }

// bindCluster notes the cluster's id in the data directory once the state knows it, and starts gossip
// under that label.
func (n *Node) bindCluster(ctx context.Context) {
	for {
		advanced := n.fsm.AppliedChan()
		if id := n.fsm.ClusterID(); id != "" {
			if err := n.adoptCluster(id); err != nil {
				n.fatal(err)
				return
			}
			n.runGossip(ctx, id)
			return
		}
		select {
		case <-advanced:
		case <-ctx.Done():
			return
		}
	}
}

// leaderAddress is Raft's word, "node@host:port", or empty.
func (n *Node) leaderAddress() raft.ServerAddress {
	addr, _ := n.raft.LeaderWithID()
	return addr
}

func (n *Node) leaderID() raft.ServerID {
	_, id := n.raft.LeaderWithID()
	return id
}

// fatal ends the node: something that cannot be trusted any more, a disk or a state.
func (n *Node) fatal(err error) {
	n.log.Error("this node must end", "error", err)
	n.finish(err)
}

// crash ends the process at once where nothing can be stopped in order any more.
func (n *Node) crash(err error) {
	n.log.Error("this node must end", "error", err)
	if n.cfg.Crash != nil {
		n.cfg.Crash(err)
	}
	n.finish(err)
}

// stateFailed is fatal for the state machine.
func (n *Node) stateFailed(err error) { n.fatal(n.stateError(err)) }

// stateError adds to an error of damaged files what to do about it.
func (n *Node) stateError(err error) error {
	if errors.Is(err, revoked.ErrDamaged) {
		return damaged(filepath.Join(n.cfg.DataDir, "state"), err)
	}
	return err
}

// cause returns what a start failed of: where something was fatal, err is only what came of it.
func (n *Node) cause(err error) error {
	select {
	case <-n.done:
		if n.err != nil {
			return n.err
		}
	default:
	}
	return err
}

// finish closes Done, once.
func (n *Node) finish(err error) {
	n.endOnce.Do(func() {
		n.err = err
		close(n.done)
	})
}

// Done is closed when the node must end: it has left for good, was removed, or met an error that it
// must not outlive.
func (n *Node) Done() <-chan struct{} { return n.done }

// Err says why Done was closed; nil after an orderly leave. Call it only then.
func (n *Node) Err() error { return n.err }

// Close stops the node in order: leadership goes to another voter where one is reachable, nothing is
// accepted any more, stores are closed. Membership never changes. Safe to call twice.
func (n *Node) Close(ctx context.Context) error {
	n.closeOne.Do(func() {
		patience := n.cfg.HeartbeatTimeout
		if n.proposer.Load() != nil && !n.peers.alone() {
			if err := n.transferAway(); err != nil {
				n.log.Info("stopping as leader", "reason", err)
			} else { // it is a follower from here on, with a lease to give back to whoever opens its books next
				n.deposed(ctx, patience)
				patience *= 2
			}
		}
		if n.clusterID() != "" && n.proposer.Load() == nil {
			giving, cancel := context.WithTimeout(ctx, patience)
			n.reporter.giveBack(giving)
			cancel()
		}
		n.closed = n.release()
	})
	return n.closed
}

// deposed returns when this node proposes no more, or after d.
func (n *Node) deposed(ctx context.Context, d time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	for {
		changed := n.leaderChange.wait()
		if n.proposer.Load() == nil {
			return
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return
		}
	}
}

// release is the reverse of Open, from wherever it got to.
func (n *Node) release() error {
	var errs []error
	n.cancel()
	n.wishes.close()
	if n.raft != nil {
		var down raft.Future
		n.herald.hold(func() { down = n.raft.Shutdown() }) // Raft waits for no herald any more
		errs = append(errs, down.Error())
	}
	n.stopGossip()
	if n.trans != nil {
		errs = append(errs, n.trans.Close())
	}
	n.wg.Wait()
	if n.cache != nil {
		n.cache.Close()
	}
	if n.fsm != nil {
		errs = append(errs, n.fsm.Close())
	}
	if n.stores != nil {
		errs = append(errs, n.stores.Close())
	}
	if n.lock != nil {
		errs = append(errs, n.lock.Close())
	}
	return errors.Join(errs...)
}
