package store

import (
	"fmt"
	"testing"
)

func TestRecent_Update_KeepsNewestRow(t *testing.T) {
	row, longer := []byte("row"), []byte("longer")
	key := func(i int) []byte { return fmt.Appendf(nil, "%033d", i) }
	r := newRecent(2 * 10 * int64(33+len(row)+rowOverhead))
	update := func(i int, val []byte) {
		r.Update(1, func(int) (k, v []byte) { return key(i), val })
	}
	want := func(i int, row []byte) {
		t.Helper()
		got, ok := r.Get(key(i))
		if ok != (row != nil) || string(got) != string(row) {
			t.Errorf("row %d: got %q %v, want %q", i, got, ok, row)
		}
	}
	update(1, row)
	want(1, row)
	r.Update(2, func(i int) (k, v []byte) { return key(1), [][]byte{row, longer}[i] })
	want(1, longer)

	// Ten more rows move the row to the old generation. Get finds it there, and Update replaces and
	// removes it.
	for i := 10; i < 20; i++ {
		update(i, row)
	}
	want(1, longer)
	update(1, row)
	want(1, row)
	update(1, nil)
	want(1, nil)
	update(12, nil)
	want(12, nil)
	update(2, make([]byte, maxRecentRow))
	want(2, nil)

	// The oldest rows are dropped.
	for i := 100; i < 130; i++ {
		update(i, row)
	}
	want(10, nil)
	want(129, row)
}
