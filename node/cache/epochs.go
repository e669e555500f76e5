package cache

import (
	"encoding/binary"
	"hash/maphash"
	"sync/atomic"

	"revoked"
)

// epochShards is the number of token shards, and also of grant shards: 4 MiB in total. At 500
// revocations a second, a cached record is read again every 2.5 minutes on average.
const epochShards = 1 << 18

// Epochs count the changes of the state for the cache. The state machine advances them after it
// commits a change and before it publishes the applied index. The cache reads an epoch before the
// rows that the epoch covers. Invariant: while an epoch is unchanged, the rows read after it are
// still current.
//
// A token shares its shard with other tokens, and a grant with other grants. A change of another
// row in the shard only causes one more read of the store. All methods may be called concurrently
// and never block.
type Epochs struct {
	seed maphash.Seed
	// all counts every change. A change advances all after the epoch of the changed row. Invariant: a
	// row read after a value of all is current while all has that value.
	all        atomic.Uint64
	generation atomic.Uint64
	tokens     [epochShards]atomic.Uint64
	grants     [epochShards]atomic.Uint64
}

// NewEpochs returns epochs at zero.
func NewEpochs() *Epochs { return &Epochs{seed: maphash.MakeSeed()} }

// TokenChanged implements fsm.Changes: a token record was created, changed or removed.
func (e *Epochs) TokenChanged(d revoked.Digest) { e.advance(e.token(d)) }

// GrantChanged implements fsm.Changes: a grant was created, changed or removed.
func (e *Epochs) GrantChanged(id string) { e.advance(e.grant(id)) }

// AllChanged implements fsm.Changes: a snapshot replaced the state.
func (e *Epochs) AllChanged() { e.advance(&e.generation) }

// advance counts a change of the rows of one epoch.
func (e *Epochs) advance(epoch *atomic.Uint64) {
	epoch.Add(1)
	e.all.Add(1)
}

func (e *Epochs) token(d revoked.Digest) *atomic.Uint64 {
	return &e.tokens[binary.LittleEndian.Uint32(d[:])%epochShards]
}

func (e *Epochs) grant(id string) *atomic.Uint64 {
	return &e.grants[maphash.String(e.seed, id)%epochShards]
}
