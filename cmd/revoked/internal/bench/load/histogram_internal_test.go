package load

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

func TestHistogram_Quantiles_AreWithinTwoPercent(t *testing.T) {
	h := &Histogram{}
	rng := rand.New(rand.NewPCG(1, 2))
	var all []time.Duration
	for range 20_000 {
		d := time.Duration(rng.ExpFloat64() * float64(3*time.Millisecond))
		all = append(all, d)
		h.Add(d)
	}
	slices.Sort(all)
	for _, q := range []float64{0, 0.5, 0.9, 0.99, 0.999, 1} {
		exact := all[min(int(q*float64(len(all))), len(all)-1)]
		got := h.Quantile(q)
		if off := float64(got-exact) / float64(max(exact, 1)); q > 0 && (off > 0.02 || off < -0.02) {
			t.Errorf("quantile %v: got %v, want %v within 2 %%", q, got, exact)
		}
	}
	if h.Quantile(1) != all[len(all)-1] {
		t.Errorf("the largest: got %v, want %v exactly", h.Quantile(1), all[len(all)-1])
	}
}

func TestHistogram_Buckets_AreMonotonic(t *testing.T) {
	last := -1
	for d := time.Duration(0); d < 1<<40; d += d/100 + 1 {
		b := bucketOf(d)
		if b < last {
			t.Fatalf("bucket of %d: got %d, want at least %d", d, b, last)
		}
		if up := upperBound(b); up < d {
			t.Fatalf("bucket of %d: got the upper bound %d, want no less", d, up)
		}
		last = b
	}
	if b := bucketOf(time.Duration(1<<63 - 1)); b >= len(Histogram{}.buckets) {
		t.Errorf("bucket of the longest duration: got %d, want one of the histogram", b)
	}
	if (&Histogram{}).Quantile(0.5) != 0 {
		t.Error("the median of an empty histogram: got more than 0")
	}
}
