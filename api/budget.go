package api

import (
	"container/list"
	"hash/maphash"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// maxBudgets bounds how many callers a budget remembers; the one not seen for longest goes first.
const maxBudgets = 16384

// A budget is a token bucket for each caller. Names are kept as hashes under a key of this process:
// what a stranger claims to be is not stored.
type budget struct {
	limit rate.Limit
	burst int
	seed  maphash.Seed

	mu      sync.Mutex
	recent  *list.List // of *bucket, the newest first
	buckets map[uint64]*list.Element
}

type bucket struct {
	key     uint64
	limiter *rate.Limiter
	newest  time.Time // moment it was asked about
}

// at returns now, or the newest moment if that is later: requests do not end in the order in which they
// began, and a limiter that is told an older time credits what follows it a second time.
func (b *bucket) at(now time.Time) time.Time {
	if now.After(b.newest) {
		b.newest = now
	}
	return b.newest
}

func newBudget(limit rate.Limit, burst int) *budget {
	return &budget{
		limit: limit, burst: burst, seed: maphash.MakeSeed(),
		recent: list.New(), buckets: make(map[uint64]*list.Element),
	}
}

// exhausted reports whether name has nothing left. It spends and remembers nothing.
func (b *budget) exhausted(name string, now time.Time) bool {
	key := maphash.String(b.seed, name)
	b.mu.Lock()
	defer b.mu.Unlock()
	e, ok := b.buckets[key]
	if !ok {
		return false
	}
	k := e.Value.(*bucket)
	return k.limiter.TokensAt(k.at(now)) < 1
}

// spend takes one unit from name's budget. It returns 0, or how long until there is one again.
func (b *budget) spend(name string, now time.Time) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	k := b.bucket(name)
	now = k.at(now)
	if k.limiter.AllowN(now, 1) {
		return 0
	}
	missing := 1 - k.limiter.TokensAt(now)
	return max(time.Duration(missing/float64(b.limit)*float64(time.Second)), time.Millisecond)
}

// owe takes one unit also where none is left. Who had many requests under way before the first of them
// turned out to cost something pays for all of them before the next.
func (b *budget) owe(name string, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	k := b.bucket(name)
	k.limiter.ReserveN(k.at(now), 1)
}

// bucket returns that of name, the newest now. The lock is held.
func (b *budget) bucket(name string) *bucket {
	key := maphash.String(b.seed, name)
	e, ok := b.buckets[key]
	if ok {
		b.recent.MoveToFront(e)
	} else {
		e = b.recent.PushFront(&bucket{key: key, limiter: rate.NewLimiter(b.limit, b.burst)})
		b.buckets[key] = e
		if b.recent.Len() > maxBudgets {
			last := b.recent.Back()
			b.recent.Remove(last)
			delete(b.buckets, last.Value.(*bucket).key)
		}
	}
	return e.Value.(*bucket)
}
