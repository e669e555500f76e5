package cluster

import "log/slog"

// For the tests of the codec, which is nobody's business outside.

type Meta = meta

func NewMeta(region, api, cluster, version string) Meta {
	return meta{region: region, api: api, cluster: cluster, version: version}
}

func (m meta) Encode() ([]byte, error)  { return m.encode() }
func DecodeMeta(b []byte) (Meta, error) { return decodeMeta(b) }

var SplitName, GossipName = splitName, gossipName

// NewBook returns a book and the way to tell it of nodes.
func NewBook() *peerBook { return newPeerBook(nil) }

func (b *peerBook) Members() []Peer { return b.members() }
func (b *peerBook) Known() int      { b.mu.Lock(); defer b.mu.Unlock(); return len(b.known) }

const MaxPeers = maxPeers

// LogLine passes one line of memberlist through the bridge.
func LogLine(log *slog.Logger, lines ...string) {
	l := newLogBridge(log).logger()
	for _, line := range lines {
		l.Print(line)
	}
}
