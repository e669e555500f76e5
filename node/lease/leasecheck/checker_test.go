package leasecheck_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"revoked/node/lease/leasecheck"
)

// A leader that was frozen opens its term late. Its log need not contain an index that a later term
// has already acknowledged. It must contain every index that an earlier term has acknowledged.
func TestChecker_TermOpensLate_NeedsEarlierIndexes(t *testing.T) {
	for name, tt := range map[string]struct {
		terms []uint64 // in the order of opening; the first one acknowledges index 15
		fails bool
	}{
		"after a later term":       {[]uint64{9, 8}, false},
		"without an earlier index": {[]uint64{8, 9}, true},
	} {
		var broken string
		c := leasecheck.New()
		c.Fail = func(rule, format string, args ...any) { broken += rule + ": " + fmt.Sprintf(format, args...) }
		c.Count, c.Time = func(string) {}, time.Now
		c.Entry = func(uint64, uint64) bool { return true }
		for i, term := range tt.terms {
			zero := func() int64 { return 0 }
			l := &leasecheck.Life{Server: fmt.Sprint("leads ", term), Clock: zero, Wall: zero,
				Applied: func() uint64 { return 20 }}
			c.Lives[l] = true
			c.Take(l, leasecheck.Event{Kind: leasecheck.Adopted, Term: term})
			c.Take(l, leasecheck.Event{Kind: leasecheck.Opened, Term: term, Index: 10})
			if i == 0 {
				c.Take(l, leasecheck.Event{Kind: leasecheck.Acknowledged, Term: term, Index: 15})
			}
		}
		if got := strings.Contains(broken, "I3"); got != tt.fails {
			t.Errorf("%s: got %q, want I3 broken: %v", name, broken, tt.fails)
		}
	}
}
