package fsm

import (
	"encoding/binary"
	"fmt"

	"revoked"
)

// The keyspace. Every key begins with one byte that names its family.
//
//	t digest                     token or stub
//	g grant-id                   grant, with its first inlineTokens digests
//	o len grant-id digest        further digests of a grant; value: when the token's own expiry is queued
//	d digest                     tombstone of an unknown token
//	c client-id                  client
//	D client-id                  memory of a deleted client
//	k index                      cut-off
//	r grant-id                   a revoked grant that still has rows beyond the inline ones; value: how far
//	e index seq                  event of the feed
//	s                            settings
//	i                            cluster id
//	a                            applied index, hashes, counts: bookkeeping
//	I property len value id      index from client, subject or session to grants
//	x time family key            queue: when a row next needs the attention of Expire
//
// The families from t to i are the state: they are in the state hash and in snapshots. I and x follow
// from them and are rebuilt by Restore; a is in the head of a snapshot.
const (
	famToken     = 't'
	famGrant     = 'g'
	famMember    = 'o'
	famTombstone = 'd'
	famClient    = 'c'
	famDeleted   = 'D'
	famCutoff    = 'k'
	famReap      = 'r'
	famEvent     = 'e'
	famSettings  = 's'
	famCluster   = 'i'
	famApplied   = 'a'
	famIndex     = 'I'
	famQueue     = 'x'
)

// The properties of famIndex.
const (
	byClient  = 'c'
	bySubject = 's'
	bySession = 'n'
)

// stateFamilies are the families of the state, in key order.
var stateFamilies = [...]byte{famDeleted, famClient, famTombstone, famEvent, famGrant, famCluster, famCutoff, famMember, famReap, famSettings, famToken}

func isState(fam byte) bool {
	for _, s := range stateFamilies {
		if s == fam {
			return true
		}
	}
	return false
}

func tokenKey(dst []byte, d revoked.Digest) []byte {
	return append(append(dst, famToken), d[:]...)
}

func grantKey(dst []byte, id string) []byte { return append(append(dst, famGrant), id...) }

func memberPrefix(dst []byte, id string) []byte {
	dst = append(dst, famMember)
	dst = binary.AppendUvarint(dst, uint64(len(id)))
	return append(dst, id...)
}

func memberKey(dst []byte, id string, d revoked.Digest) []byte {
	return append(memberPrefix(dst, id), d[:]...)
}

func tombstoneKey(dst []byte, d revoked.Digest) []byte {
	return append(append(dst, famTombstone), d[:]...)
}

func clientKey(dst []byte, id string) []byte  { return append(append(dst, famClient), id...) }
func deletedKey(dst []byte, id string) []byte { return append(append(dst, famDeleted), id...) }
func reapKey(dst []byte, id string) []byte    { return append(append(dst, famReap), id...) }

func cutoffKey(dst []byte, index uint64, seq uint32) []byte {
	return eventKeyOf(dst, famCutoff, index, seq)
}

func eventKey(dst []byte, index uint64, seq uint32) []byte {
	return eventKeyOf(dst, famEvent, index, seq)
}

func eventKeyOf(dst []byte, fam byte, index uint64, seq uint32) []byte {
	dst = append(dst, fam)
	dst = binary.BigEndian.AppendUint64(dst, index)
	return binary.BigEndian.AppendUint32(dst, seq)
}

func indexPrefix(dst []byte, property byte, value string) []byte {
	dst = append(dst, famIndex, property)
	dst = binary.AppendUvarint(dst, uint64(len(value)))
	return append(dst, value...)
}

func indexKey(dst []byte, property byte, value, id string) []byte {
	return append(indexPrefix(dst, property, value), id...)
}

func queuePrefix(dst []byte, due revoked.Time) []byte {
	dst = append(dst, famQueue)
	return binary.BigEndian.AppendUint64(dst, uint64(due))
}

// queueKey returns the key that has row (a key of the state) looked at when `before` of an Expire
// reaches due.
func queueKey(dst []byte, due revoked.Time, row []byte) []byte {
	return append(queuePrefix(dst, due), row...)
}

func parseQueueKey(k []byte) (due revoked.Time, row []byte, err error) {
	if len(k) < 10 || k[0] != famQueue {
		return 0, nil, fmt.Errorf("queue key of %d bytes", len(k))
	}
	return revoked.Time(binary.BigEndian.Uint64(k[1:])), k[9:], nil
}

// after returns the first key that does not begin with prefix.
func after(prefix []byte) []byte {
	end := append([]byte(nil), prefix...)
	for i := len(end) - 1; i >= 0; i-- {
		if end[i] < 0xff {
			end[i]++
			return end[:i+1]
		}
	}
	return nil
}
