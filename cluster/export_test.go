package cluster

import "log/slog"

// Exports for the tests of the codec.

type Meta = meta

func NewMeta(region, api, cluster, version string) Meta {
	return meta{region: region, api: api, cluster: cluster, version: version}
}

func (m meta) Encode() ([]byte, error)  { return m.encode() }
func DecodeMeta(b []byte) (Meta, error) { return decodeMeta(b) }

var SplitName, GossipName = splitName, gossipName

// NewBook returns an empty book.
func NewBook() *peerBook { return newPeerBook(nil, nil) }

func (b *peerBook) Members() []Peer { return b.members() }
func (b *peerBook) Known() int      { b.mu.Lock(); defer b.mu.Unlock(); return len(b.known) }

const MaxPeers = maxPeers

// MaxWaiting limits the waiting connections of all sources.
const MaxWaiting = maxWaiting

// Known returns how many nodes memberlist lists.
func (g *Gossip) Known() int { return len(g.list.Members()) }

// InspectPacket and InspectRequest check decrypted messages.
func InspectPacket(b []byte) error { _, err := inspectPacket(b); return err }

var InspectRequest = inspectRequest

// LogLine passes lines of memberlist to the log.
func LogLine(log *slog.Logger, lines ...string) {
	l := newLogger(log)
	for _, line := range lines {
		l.Print(line)
	}
}

// Health returns 0 if other nodes answer the probes of this node, and up to 7 if they do not.
func (g *Gossip) Health() int { return g.list.GetHealthScore() }
