package load

import (
	"math/bits"
	"time"
)

// A Histogram counts durations in buckets of one 64th of a power of two, in constant memory. The
// error of a percentile is less than 1.6 %. It is not safe for concurrent use.
type Histogram struct {
	buckets [64 * 64]uint32
	Count   uint64
	Max     time.Duration // exact longest duration
}

// Invariant: bucketOf is monotonic, and upperBound(bucketOf(d)) >= d.

func bucketOf(d time.Duration) int {
	n := uint64(max(d, 0))
	if n < 64 {
		return int(n)
	}
	shift := bits.Len64(n) - 7 // keep the leading bit and six more
	return (shift+1)*64 + int(n>>shift) - 64
}

func upperBound(bucket int) time.Duration {
	if bucket < 64 {
		return time.Duration(bucket)
	}
	shift := bucket/64 - 1
	return time.Duration((uint64(bucket%64+64)+1)<<shift - 1)
}

// Add counts a duration; a negative one is counted as 0.
func (h *Histogram) Add(d time.Duration) {
	h.buckets[bucketOf(d)]++
	h.Count++
	h.Max = max(h.Max, d)
}

// Merge adds the counts of o.
func (h *Histogram) Merge(o *Histogram) {
	for i, n := range o.buckets {
		h.buckets[i] += n
	}
	h.Count += o.Count
	h.Max = max(h.Max, o.Max)
}

// Quantile returns an upper bound of the q-quantile, or 0 if the histogram is empty.
func (h *Histogram) Quantile(q float64) time.Duration {
	rank := uint64(q*float64(h.Count) + 0.999999)
	var seen uint64
	for i, n := range h.buckets {
		seen += uint64(n)
		if n > 0 && seen >= rank {
			return min(upperBound(i), h.Max)
		}
	}
	return h.Max
}
