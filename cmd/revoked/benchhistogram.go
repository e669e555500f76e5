package main

import (
	"math/bits"
	"time"
)

// A histogram counts durations in buckets of one 64th of a power of two: a percentile is off by less
// than 1.6 %, in constant memory. It is not safe for concurrent use: every connection has its own.
type histogram struct {
	buckets [64 * 64]uint32
	count   uint64
	max     time.Duration
}

// Invariant: bucketOf is monotonic, and upperBound(bucketOf(d)) >= d.

func bucketOf(d time.Duration) int {
	n := uint64(max(d, 0))
	if n < 64 {
		return int(n)
	}
	shift := bits.Len64(n) - 7 // keeps the leading bit and six more
	return (shift+1)*64 + int(n>>shift) - 64
}

func upperBound(bucket int) time.Duration {
	if bucket < 64 {
		return time.Duration(bucket)
	}
	shift := bucket/64 - 1
	return time.Duration((uint64(bucket%64+64)+1)<<shift - 1)
}

func (h *histogram) add(d time.Duration) {
	h.buckets[bucketOf(d)]++
	h.count++
	h.max = max(h.max, d)
}

func (h *histogram) merge(o *histogram) {
	for i, n := range o.buckets {
		h.buckets[i] += n
	}
	h.count += o.count
	h.max = max(h.max, o.max)
}

// quantile returns a duration that the share q of all does not exceed; 0 when there is none.
func (h *histogram) quantile(q float64) time.Duration {
	rank := uint64(q*float64(h.count) + 0.999999)
	var seen uint64
	for i, n := range h.buckets {
		seen += uint64(n)
		if n > 0 && seen >= rank {
			return min(upperBound(i), h.max)
		}
	}
	return h.max
}
