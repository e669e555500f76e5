package cluster

import (
	"cmp"
	"net"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"
)

// maxPeers limits the recorded instances, failed ones included.
const maxPeers = 1024

// forgetAfter is the time after which a new instance may replace a failed one. By then memberlist
// has forgotten the failed one too, so maxPeers also limits the list of memberlist.
const forgetAfter = 3 * time.Hour

// Peer is one node as gossip reports it. It is a hint, never evidence.
type Peer struct {
	NodeID   string
	Instance string
	Region   string
	API      string // URL
	Cluster  string // host:port of its cluster port
	Gossip   string // host:port
	Version  string
	Alive    bool
}

// peerBook records the known nodes. It is memberlist's delegate: its methods run on the
// goroutines that detect failures, so they must not block. Its methods may be called concurrently.
type peerBook struct {
	meta    []byte // metadata of this node
	metrics *Metrics

	mu    sync.Mutex
	turn  uint64            // number of recorded changes
	known map[string]*entry // entries by gossip name
}

type entry struct {
	peer Peer
	turn uint64 // value of peerBook.turn at the last change
	at   time.Time
}

var (
	_ memberlist.Delegate      = (*peerBook)(nil)
	_ memberlist.EventDelegate = (*peerBook)(nil)
	_ memberlist.AliveDelegate = (*peerBook)(nil)
)

func newPeerBook(meta []byte, m *Metrics) *peerBook {
	return &peerBook{meta: meta, metrics: m, known: make(map[string]*entry)}
}

// NodeMeta implements memberlist.Delegate. It returns nil if limit is too small, and other nodes
// then refuse this one. MaxMeta is below memberlist's limit, so this does not happen.
func (b *peerBook) NodeMeta(limit int) []byte {
	if len(b.meta) > limit {
		return nil
	}
	return b.meta
}

// NotifyMsg implements memberlist.Delegate. Our nodes send no user messages.
func (*peerBook) NotifyMsg([]byte) {}

// GetBroadcasts implements memberlist.Delegate.
func (*peerBook) GetBroadcasts(int, int) [][]byte { return nil }

// LocalState implements memberlist.Delegate.
func (*peerBook) LocalState(bool) []byte { return nil }

// MergeRemoteState implements memberlist.Delegate.
func (*peerBook) MergeRemoteState([]byte, bool) {}

// NotifyAlive implements memberlist.AliveDelegate. It refuses a node with an invalid name or
// metadata, and a new node beyond maxPeers.
func (b *peerBook) NotifyAlive(n *memberlist.Node) error {
	if _, err := peerOf(n); err != nil {
		return err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if _, ok := b.known[n.Name]; ok || len(b.known) < maxPeers {
		return nil
	}
	for _, e := range b.known {
		if !e.peer.Alive && time.Since(e.at) > forgetAfter {
			return nil
		}
	}
	b.metrics.refuse(reasonOf(errNodes))
	return errNodes
}

// NotifyJoin implements memberlist.EventDelegate.
func (b *peerBook) NotifyJoin(n *memberlist.Node) { b.record(n, true) }

// NotifyUpdate implements memberlist.EventDelegate.
func (b *peerBook) NotifyUpdate(n *memberlist.Node) { b.record(n, true) }

// NotifyLeave implements memberlist.EventDelegate. The node has left or is considered failed.
func (b *peerBook) NotifyLeave(n *memberlist.Node) { b.record(n, false) }

// record records a change of a node. turn orders the changes, including those within one tick of
// the clock.
func (b *peerBook) record(n *memberlist.Node, alive bool) {
	p, err := peerOf(n)
	if err != nil {
		return // NotifyAlive has refused it
	}
	p.Alive = alive
	b.mu.Lock()
	defer b.mu.Unlock()
	b.turn++
	if _, ok := b.known[n.Name]; !ok && len(b.known) >= maxPeers {
		b.evict()
	}
	b.known[n.Name] = &entry{p, b.turn, time.Now()}
}

// evict removes the instance whose last change is oldest, of the failed ones if there are any.
func (b *peerBook) evict() {
	var name string
	var worst *entry
	for k, e := range b.known {
		if worst == nil || worst.peer.Alive && !e.peer.Alive ||
			worst.peer.Alive == e.peer.Alive && e.turn < worst.turn {
			name, worst = k, e
		}
	}
	delete(b.known, name)
}

// members returns one peer for each node id, sorted: its instance that is alive, or else its
// newest.
func (b *peerBook) members() []Peer {
	b.mu.Lock()
	defer b.mu.Unlock()
	best := make(map[string]*entry, len(b.known))
	for _, e := range b.known {
		old := best[e.peer.NodeID]
		if old == nil || e.peer.Alive && !old.peer.Alive ||
			e.peer.Alive == old.peer.Alive && e.turn > old.turn {
			best[e.peer.NodeID] = e
		}
	}
	out := make([]Peer, 0, len(best))
	for _, e := range best {
		out = append(out, e.peer)
	}
	slices.SortFunc(out, func(a, b Peer) int { return cmp.Compare(a.NodeID, b.NodeID) })
	return out
}

// peerOf converts a node of memberlist. Its name and metadata come from another process.
func peerOf(n *memberlist.Node) (Peer, error) {
	nodeID, instance, err := splitName(n.Name)
	if err != nil {
		return Peer{}, err
	}
	m, err := decodeMeta(n.Meta)
	if err != nil {
		return Peer{}, err
	}
	return Peer{
		NodeID: nodeID, Instance: instance,
		Region: m.region, API: m.api, Cluster: m.cluster, Version: m.version,
		Gossip: net.JoinHostPort(n.Addr.String(), strconv.Itoa(int(n.Port))),
	}, nil
}
