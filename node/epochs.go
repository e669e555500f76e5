package node

import (
	"encoding/binary"
	"hash/maphash"
	"sync/atomic"

	"revoked"
)

// epochShards is how many shards there are of each kind: at 500 revocations a second a record is read anew every
// two minutes and a half, and all of them take 4 MiB.
const epochShards = 1 << 18

// epochs tell the cache what has changed since it read. The state machine moves them after it
// committed a change and before it publishes the applied index; the cache reads them before it reads
// the state. So whoever finds an epoch where it was holds what the state held at that moment.
//
// Tokens and grants share a shard with others of their kind; a move there costs a read of the
// store and nothing else. All methods may be called at once; none of them waits.
type epochs struct {
	seed       maphash.Seed
	generation atomic.Uint64
	tokens     [epochShards]atomic.Uint64
	grants     [epochShards]atomic.Uint64
}

func newEpochs() *epochs { return &epochs{seed: maphash.MakeSeed()} }

// TokenChanged says that the record of a token was made, changed or removed.
func (e *epochs) TokenChanged(d revoked.Digest) { e.token(d).Add(1) }

// GrantChanged says that a grant was made, changed or removed.
func (e *epochs) GrantChanged(id string) { e.grant(id).Add(1) }

// AllChanged says that the state was replaced by another.
func (e *epochs) AllChanged() { e.generation.Add(1) }

func (e *epochs) token(d revoked.Digest) *atomic.Uint64 {
	return &e.tokens[binary.LittleEndian.Uint32(d[:])%epochShards]
}

func (e *epochs) grant(id string) *atomic.Uint64 {
	return &e.grants[maphash.String(e.seed, id)%epochShards]
}
