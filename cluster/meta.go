package cluster

import (
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// MaxMeta is how many bytes a node may say of itself: it rides in UDP packets with everything else.
const MaxMeta = 400

// metaVersion begins the bytes of a node's metadata:
//
//	+---------+-----+--------+-------+-----+--------+-------+
//	| version | tag | length | value | tag | length | value |  ...
//	+---------+-----+--------+-------+-----+--------+-------+
//	  1 byte    1     1        length
//
// Tags rise strictly. A tag that is not known is skipped: it is a newer node's.
const metaVersion = 1

// The tags. Numbers are only added to.
const (
	tagRegion  = 1
	tagAPI     = 2
	tagCluster = 3
	tagVersion = 4
)

// errMeta is returned for metadata that this package has not written.
var errMeta = errors.New("not metadata of a node")

// meta is what a node says of itself beside its name and address.
type meta struct {
	region  string
	api     string // URL
	cluster string // host:port of the cluster port
	version string
}

// encode returns the bytes, or an error when they would exceed MaxMeta.
func (m meta) encode() ([]byte, error) {
	b := []byte{metaVersion}
	for tag, v := range []string{tagRegion: m.region, tagAPI: m.api, tagCluster: m.cluster, tagVersion: m.version} {
		if v == "" {
			continue
		}
		if len(v) > 255 || !printable(v) {
			return nil, fmt.Errorf("gossip metadata: %q is not 1 to 255 printable bytes", v)
		}
		b = append(b, byte(tag), byte(len(v)))
		b = append(b, v...)
	}
	if len(b) > MaxMeta {
		return nil, fmt.Errorf("gossip metadata of %d bytes, at most %d: shorten region, addresses or version", len(b), MaxMeta)
	}
	return b, nil
}

// decodeMeta reads foreign bytes.
func decodeMeta(b []byte) (m meta, err error) {
	if len(b) == 0 || len(b) > MaxMeta {
		return m, fmt.Errorf("%w: %d bytes", errMeta, len(b))
	}
	if b[0] != metaVersion {
		return m, fmt.Errorf("%w: version %d", errMeta, b[0])
	}
	last := 0
	for b = b[1:]; len(b) > 0; {
		if len(b) < 2 || len(b) < 2+int(b[1]) {
			return meta{}, fmt.Errorf("%w: cut short", errMeta)
		}
		tag, v := int(b[0]), string(b[2:2+int(b[1])])
		b = b[2+len(v):]
		if tag <= last {
			return meta{}, fmt.Errorf("%w: tag %d after %d", errMeta, tag, last)
		}
		last = tag
		if tag <= tagVersion && (v == "" || !printable(v)) {
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

// printable keeps out what would garble a log or a table.
func printable(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool {
		return r < ' ' || r == 0x7f || 0x80 <= r && r <= 0x9f || r == 0x2028 || r == 0x2029
	})
}

// nameSeparator stands between node id and instance in a gossip name. Neither may hold it.
const nameSeparator = "~"

// gossipName is the name under which a node is known in gossip. It holds the instance, because a
// name may not move to another address while its old bearer is thought alive, and a node that lost
// its disk is another bearer.
func gossipName(nodeID, instance string) string { return nodeID + nameSeparator + instance }

// splitName takes a gossip name apart.
func splitName(name string) (nodeID, instance string, err error) {
	nodeID, instance, ok := strings.Cut(name, nameSeparator)
	if !ok || !plain(nodeID) || !plain(instance) {
		return "", "", fmt.Errorf("%w: name %.80q", errMeta, name)
	}
	return nodeID, instance, nil
}

// plain reports whether s is 1 to 64 of A-Z a-z 0-9 . _ -
func plain(s string) bool {
	for i := range len(s) {
		c := s[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '.', c == '_', c == '-':
		default:
			return false
		}
	}
	return s != "" && len(s) <= 64
}
