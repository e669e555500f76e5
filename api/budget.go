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
	return ok && e.Value.(*bucket).limiter.TokensAt(now) < 1
}

// spend takes one unit from name's budget. It returns 0, or how long until there is one again.
func (b *budget) spend(name string, now time.Time) time.Duration {
	key := maphash.String(b.seed, name)
	b.mu.Lock()
	defer b.mu.Unlock()
	e, ok := b.buckets[key]
	if ok {
		b.recent.MoveToFront(e)
	} else {
		e = b.recent.PushFront(&bucket{key, rate.NewLimiter(b.limit, b.burst)})
		b.buckets[key] = e
		if b.recent.Len() > maxBudgets {
			last := b.recent.Back()
			b.recent.Remove(last)
			delete(b.buckets, last.Value.(*bucket).key)
		}
	}
	l := e.Value.(*bucket).limiter
	if l.AllowN(now, 1) {
		return 0
	}
	missing := 1 - l.TokensAt(now)
	return max(time.Duration(missing/float64(b.limit)*float64(time.Second)), time.Millisecond)
}
