package fsm

import (
	"fmt"
	"testing"
)

func TestRecentRowsAreWhatTheNewestCommitWrote(t *testing.T) {
	live, stub := []byte{1 | 1<<4, 0}, []byte{3 | 1<<4, 0}
	key := func(i int) []byte { return append([]byte{famToken}, fmt.Sprintf("%032d", i)...) }
	r := newRecentRows(2 * 10 * (33 + 2 + rowOverhead))
	want := func(i int, row []byte) {
		t.Helper()
		got, ok := r.get(key(i))
		if ok != (row != nil) || string(got) != string(row) {
			t.Errorf("row %d: got %v %v, want %v", i, got, ok, row)
		}
	}
	r.commit([]write{{key: key(1), val: live}, {key: []byte{famEvent, 1}, val: live}})
	want(1, live)
	if _, ok := r.get([]byte{famEvent, 1}); ok {
		t.Error("a row of a family that is not remembered was remembered")
	}
	longer := append(live[:2:2], 7)
	r.commit([]write{{key: key(1), val: live}, {key: key(1), val: longer, n: 1}})
	want(1, longer)

	// Rows move to the old generation and are found there, then replaced, then forgotten.
	for i := 10; i < 20; i++ {
		r.commit([]write{{key: key(i), val: live}})
	}
	want(1, longer)
	r.commit([]write{{key: key(1), val: live}})
	want(1, live)
	r.commit([]write{{key: key(1), val: stub}})
	want(1, nil)
	r.commit([]write{{key: key(12), gone: true}})
	want(12, nil)

	// And the oldest go in the end.
	for i := 100; i < 130; i++ {
		r.commit([]write{{key: key(i), val: live}})
	}
	want(10, nil)
	want(129, live)
}
