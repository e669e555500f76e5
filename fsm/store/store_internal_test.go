package store

import (
	"fmt"
	"testing"

	"github.com/cockroachdb/pebble/v2"
)

// If the tables of level 0 overlap only at their ends, each has a sublevel of its own. But no key
// is in more than two of them, and Pebble neither compacts them nor stops writes.
func TestWriteLoad_ChainOfTables_IsLow(t *testing.T) {
	s := openFiltered(t, t.TempDir())
	defer closeStore(t, s)
	for i := range stopSublevels {
		b := s.NewBatch()
		for k := range 2 { // the last key of a table is the first one of the next
			if err := b.Set(fmt.Appendf(nil, "g%03d", i+k), fmt.Append(nil, i)); err != nil {
				t.Fatal(err)
			}
		}
		if err := b.Commit(); err != nil {
			t.Fatal(err)
		}
		if err := s.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	if got := s.db.Metrics().Levels[0].Sublevels; got != stopSublevels {
		t.Errorf("got %d sublevels, want %d", got, stopSublevels)
	}
	if got := s.WriteLoad(); got > 10 {
		t.Errorf("got a write load of %d %%, want at most 10 %%", got)
	}
}

func TestOverlap(t *testing.T) {
	for _, c := range []struct {
		tables string // the first and the last key of each table
		want   int
	}{
		{"", 0}, {"ab", 1}, {"ab cd", 1}, {"cd ab", 1}, {"ab bc", 2}, {"bc ab", 2}, {"ab bc cd", 2}, {"ad bc", 2},
		{"ad bb cc", 2}, {"ad bb bc", 3}, {"ad ad ad", 3}, {"ab cd ef af", 2}, {"ae bd cc", 3},
	} {
		var tables []pebble.SSTableInfo
		for i := 0; i < len(c.tables); i += 3 {
			var table pebble.SSTableInfo
			table.Smallest.UserKey, table.Largest.UserKey = []byte{c.tables[i]}, []byte{c.tables[i+1]}
			tables = append(tables, table)
		}
		if got := overlap(tables); got != c.want {
			t.Errorf("overlap(%q): got %d, want %d", c.tables, got, c.want)
		}
	}
}
