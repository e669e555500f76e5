package cluster

import (
	"cmp"
	"net"
	"slices"
	"strconv"
	"sync"

	"github.com/hashicorp/memberlist"
)

// maxPeers is how many instances are remembered, dead ones included.
const maxPeers = 1024

// A Peer is one node as gossip knows it: a hint, never evidence.
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

// A peerBook remembers who was heard of. It is memberlist's delegate: its methods are called on the
// goroutines that detect failures, so they only touch the map.
type peerBook struct {
	meta []byte // what this node says of itself

	mu    sync.Mutex
	turn  uint64
	known map[string]*entry // by gossip name
}

type entry struct {
	peer Peer
	turn uint64 // when it changed, in changes of the book
}

var (
	_ memberlist.Delegate      = (*peerBook)(nil)
	_ memberlist.EventDelegate = (*peerBook)(nil)
	_ memberlist.AliveDelegate = (*peerBook)(nil)
)

func newPeerBook(meta []byte) *peerBook {
	return &peerBook{meta: meta, known: make(map[string]*entry)}
}

// NodeMeta returns what this node says of itself.
func (b *peerBook) NodeMeta(limit int) []byte {
	if len(b.meta) > limit {
		return nil
	}
	return b.meta
}

// NotifyMsg drops user messages: there are none.
func (*peerBook) NotifyMsg([]byte) {}

// GetBroadcasts has none.
func (*peerBook) GetBroadcasts(int, int) [][]byte { return nil }

// LocalState has none.
func (*peerBook) LocalState(bool) []byte { return nil }

// MergeRemoteState ignores what it gets.
func (*peerBook) MergeRemoteState([]byte, bool) {}

// NotifyAlive refuses a node whose name or metadata no node of ours would send.
func (b *peerBook) NotifyAlive(n *memberlist.Node) error {
	_, err := peerOf(n)
	return err
}

// NotifyJoin notes a node that came.
func (b *peerBook) NotifyJoin(n *memberlist.Node) { b.note(n, true) }

// NotifyUpdate notes new metadata.
func (b *peerBook) NotifyUpdate(n *memberlist.Node) { b.note(n, true) }

// NotifyLeave notes a node that left or is thought dead.
func (b *peerBook) NotifyLeave(n *memberlist.Node) { b.note(n, false) }

func (b *peerBook) note(n *memberlist.Node, alive bool) {
	p, err := peerOf(n)
	if err != nil {
		return // NotifyAlive has refused it before
	}
	p.Alive = alive
	b.mu.Lock()
	defer b.mu.Unlock()
	b.turn++
	if _, ok := b.known[n.Name]; !ok && len(b.known) >= maxPeers {
		b.evict()
	}
	b.known[n.Name] = &entry{p, b.turn}
}

// evict forgets the instance that changed longest ago, a dead one if there is any.
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

// members returns one peer for each node id, sorted: its living instance, else its newest.
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
