package cluster

import (
	"errors"
	"fmt"
	"strings"

	"revoked"
	"revoked/internal/textsafe"
)

// MaxMeta is the largest size of a node's metadata in bytes. The metadata is sent in UDP
// packets with other data.
const MaxMeta = 400

// metaVersion begins the bytes of a node's metadata:
//
//	+---------+-----+--------+-------+-----+--------+-------+
//	| version | tag | length | value | tag | length | value |  ...
//	+---------+-----+--------+-------+-----+--------+-------+
//	  1 byte    1     1        length
//
// Tags are in strictly increasing order. Unknown tags come from newer nodes and are skipped.
const metaVersion = 1

// The tags. A number never changes its meaning.
const (
	tagRegion  = 1
	tagAPI     = 2
	tagCluster = 3
	tagVersion = 4
)

// errMeta is returned for metadata that this package cannot have written.
var errMeta = errors.New("not node metadata")

// meta holds the values that a node announces in addition to its name and address. All of them are
// printable, so that a listing can show them unescaped.
type meta struct {
	region  string
	api     string // URL
	cluster string // host:port of the cluster port
	version string
}

// encode returns the bytes, or an error if they exceed MaxMeta. A value that is empty has no tag.
func (m meta) encode() ([]byte, error) {
	b := []byte{metaVersion}
	for tag, v := range []string{tagRegion: m.region, tagAPI: m.api, tagCluster: m.cluster, tagVersion: m.version} {
		if v == "" {
			continue
		}
		if len(v) > 255 || !textsafe.Printable(v) {
			return nil, fmt.Errorf("gossip metadata: invalid value (got %q, want 1 to 255 printable bytes)", v)
		}
		b = append(b, byte(tag), byte(len(v)))
		b = append(b, v...)
	}
	if len(b) > MaxMeta {
		return nil, fmt.Errorf("gossip metadata: too long (got %d bytes, want at most %d)", len(b), MaxMeta)
	}
	return b, nil
}

// decodeMeta reads bytes from another node. It accepts what a newer version may write: unknown
// tags, but no repeated or unordered ones.
func decodeMeta(b []byte) (m meta, err error) {
	if len(b) == 0 || len(b) > MaxMeta {
		return m, fmt.Errorf("%w: %d bytes", errMeta, len(b))
	}
	if b[0] != metaVersion {
		return m, fmt.Errorf("%w: unsupported version (got %d, want %d)", errMeta, b[0], metaVersion)
	}
	last := 0
	for b = b[1:]; len(b) > 0; {
		if len(b) < 2 || len(b) < 2+int(b[1]) {
			return meta{}, fmt.Errorf("%w: truncated", errMeta)
		}
		tag, v := int(b[0]), string(b[2:2+int(b[1])])
		b = b[2+len(v):]
		if tag <= last {
			return meta{}, fmt.Errorf("%w: tag %d after %d", errMeta, tag, last)
		}
		last = tag
		if tag <= tagVersion && (v == "" || !textsafe.Printable(v)) {
			return meta{}, fmt.Errorf("%w: tag %d", errMeta, tag)
		}
		switch tag {
		case tagRegion:
			m.region = v
		case tagAPI:
			m.api = v
		case tagCluster:
			m.cluster = v
		case tagVersion:
			m.version = v
		}
	}
	return m, nil
}

// nameSeparator separates node id and instance in a gossip name. Neither may contain it.
const nameSeparator = "~"

// gossipName returns a node's name in gossip. It contains the instance, because memberlist refuses
// a known name at a new address while it considers the old one alive. A node that lost its disk has
// a new instance and is accepted immediately.
func gossipName(nodeID, instance string) string { return nodeID + nameSeparator + instance }

// splitName splits a gossip name. The error quotes at most 80 bytes of the name, which another
// process chose.
func splitName(name string) (nodeID, instance string, err error) {
	nodeID, instance, ok := strings.Cut(name, nameSeparator)
	if !ok || revoked.CheckNodeID(nodeID) != nil || revoked.CheckNodeID(instance) != nil {
		return "", "", fmt.Errorf("%w: name %.80q", errMeta, name)
	}
	return nodeID, instance, nil
}
