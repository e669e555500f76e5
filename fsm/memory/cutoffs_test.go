package memory_test

import (
	"math/rand/v2"
	"slices"
	"testing"

	"revoked"
	"revoked/fsm/memory"
	"revoked/fsm/rows"
)

// randomText returns one of three values, among them the empty one.
func randomText(r *rand.Rand) string { return []string{"", "a", "b"}[r.IntN(3)] }

// The index must find exactly the cut-offs that a scan over all of them finds.
func TestCutoffs_RandomSelectors_MatchScan(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	const hour = revoked.Time(3600e6)
	for range 300 {
		m := memory.State{Cutoffs: memory.NewCutoffs(), Uncompacted: map[string]*rows.Cutoff{}}
		var all []*rows.Cutoff
		for i := range 12 {
			c := &rows.Cutoff{Whole: r.IntN(5) == 0, Compacted: r.IntN(2) == 0, Cutoff: revoked.Cutoff{
				Selector: revoked.Selector{ClientID: randomText(r), Subject: randomText(r), Session: randomText(r),
					GrantID: randomText(r), Issuer: randomText(r)},
				IssuedBefore: revoked.Time(r.IntN(8)) * hour, At: 8 * hour, Index: uint64(i + 1),
			}}
			m.SetCutoff(string(c.Key()), c)
			all = append(all, c)
		}
		for range 4 { // some are dropped again
			gone := r.IntN(len(all))
			m.SetCutoff(string(all[gone].Key()), nil)
			all = slices.Delete(all, gone, gone+1)
		}
		for range 20 {
			g := &revoked.Grant{ID: randomText(r), ClientID: randomText(r), Subject: randomText(r),
				Session: randomText(r), Issuer: randomText(r), CreatedAt: hour}
			tok := &revoked.Token{IssuedAt: revoked.Time(r.IntN(8)) * hour}
			var newest, furthest *rows.Cutoff
			for _, c := range all { // in the order of their indexes
				if !c.Covers(g, tok, 0) {
					continue
				}
				newest = c
				if furthest == nil || c.IssuedBefore > furthest.IssuedBefore {
					furthest = c
				}
			}
			if got := m.Cutoffs.Find(g, tok, 0); got != newest {
				t.Fatalf("newest cut-off of %+v: got %+v, want %+v", g, got, newest)
			}
			got := m.Cutoffs.Furthest(g, tok, 0)
			if (got == nil) != (furthest == nil) || got != nil && got.IssuedBefore != furthest.IssuedBefore {
				t.Fatalf("furthest cut-off of %+v: got %+v, want %+v", g, got, furthest)
			}
		}
		var same []*rows.Cutoff
		for _, c := range all {
			if c.Selector == all[0].Selector {
				same = append(same, c)
			}
		}
		if got := m.Cutoffs.SameSelector(&all[0].Selector); !slices.Equal(got, same) {
			t.Fatalf("same selector as %+v: got %d, want %d", all[0].Selector, len(got), len(same))
		}
		var unfinished []*rows.Cutoff
		for _, c := range all {
			if !c.Compacted {
				unfinished = append(unfinished, c)
			}
			if m.Cutoffs.ByKey(string(c.Key())) != c {
				t.Fatalf("cut-off %d is not found by its key", c.Index)
			}
		}
		if got := m.Unfinished(); !slices.Equal(got, unfinished) {
			t.Fatalf("unfinished: got %d, want %d, the oldest first", len(got), len(unfinished))
		}
	}
}
