package clientauth

import (
	"container/list"
	"hash/maphash"
	"sync"
	"time"
)

// Bounds of the buckets that a [Limiter] keeps. Beyond maxBuckets it evicts the least recently used
// ones that have a unit left, and keeps only buckets without a unit. A caller must fail burst times
// to create such a bucket. Beyond hardBuckets, new callers share one bucket.
const (
	maxBuckets  = 16384
	hardBuckets = 16 * maxBuckets
	evictScan   = 8 // buckets that one addition examines
)

// A Limiter holds a token bucket for each caller. Methods may be called concurrently.
//
// The key of a caller is a hash with a per-process seed, so the limiter stores no name that an
// unauthenticated caller claims. Requests may end out of order, and an older time would credit an
// interval twice. So each bucket uses the newest time it has seen. An empty bucket is never
// evicted: a flood of made-up names does not reset a budget.
type Limiter struct {
	perSecond float64
	burst     float64
	seed      maphash.Seed

	mu      sync.Mutex
	recent  *list.List // elements are *bucket, the most recently used first
	buckets map[uint64]*list.Element
}

// A bucket has at most burst units. The number may be negative: the caller is then in debt.
type bucket struct {
	key    uint64
	units  float64
	newest time.Time
}

// NewLimiter returns a limiter that refills perSecond units a second, up to burst for each caller.
func NewLimiter(perSecond float64, burst int) *Limiter {
	return &Limiter{perSecond: perSecond, burst: float64(burst), seed: maphash.MakeSeed(),
		recent: list.New(), buckets: make(map[uint64]*list.Element)}
}

// refill credits b with the time since newest.
func (l *Limiter) refill(b *bucket, now time.Time) {
	if now.After(b.newest) {
		b.units = min(l.burst, b.units+now.Sub(b.newest).Seconds()*l.perSecond)
		b.newest = now
	}
}

// Empty reports whether the caller has no unit left. It neither takes a unit nor adds a bucket.
func (l *Limiter) Empty(caller string, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	e, ok := l.buckets[maphash.String(l.seed, caller)]
	if !ok {
		return false
	}
	b := e.Value.(*bucket)
	l.refill(b, now)
	return b.units < 1
}

// Failed reports whether the caller's bucket is more than one unit below burst.
func (l *Limiter) Failed(caller string, now time.Time) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.bucket(caller, now).units < l.burst-1
}

// Take takes one unit. It returns 0, or the time until a unit is available.
func (l *Limiter) Take(caller string, now time.Time) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.bucket(caller, now)
	if b.units >= 1 {
		b.units--
		return 0
	}
	return max(time.Duration((1-b.units)/l.perSecond*float64(time.Second)), time.Millisecond)
}

// Return gives a unit back that Take took.
func (l *Limiter) Return(caller string, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.bucket(caller, now)
	b.units = min(l.burst, b.units+1)
}

// Charge takes one unit even if the bucket is empty, so that each of several concurrent
// requests is charged.
func (l *Limiter) Charge(caller string, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.bucket(caller, now).units--
}

// Drain takes the fraction of a unit that an empty bucket has regained. A caller that continues at
// its limit then stays over it.
func (l *Limiter) Drain(caller string, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.bucket(caller, now)
	b.units = min(b.units, 0)
}

// bucket finds or adds the bucket of caller and marks it as recently used. The caller holds l.mu.
func (l *Limiter) bucket(caller string, now time.Time) *bucket {
	key := maphash.String(l.seed, caller)
	e, ok := l.buckets[key]
	if !ok && len(l.buckets) >= maxBuckets {
		l.evict(now)
	}
	if !ok && len(l.buckets) >= hardBuckets {
		key = 0
		e, ok = l.buckets[key]
	}
	if ok {
		l.recent.MoveToFront(e)
	} else {
		e = l.recent.PushFront(&bucket{key: key, units: l.burst, newest: now})
		l.buckets[key] = e
	}
	b := e.Value.(*bucket)
	l.refill(b, now)
	return b
}

// evict examines the least recently used buckets. It removes those that have a unit left, and marks
// the others as recently used.
func (l *Limiter) evict(now time.Time) {
	for range evictScan {
		e := l.recent.Back()
		b := e.Value.(*bucket)
		l.refill(b, now)
		if b.units < 1 {
			l.recent.MoveToFront(e)
			continue
		}
		l.recent.Remove(e)
		delete(l.buckets, b.key)
		if len(l.buckets) < maxBuckets {
			return
		}
	}
}
