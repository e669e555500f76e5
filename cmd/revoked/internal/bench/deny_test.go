package bench

import (
	"bufio"
	"encoding/json"
	"fmt"
	"sync/atomic"
	"testing"
	"testing/iotest"

	"revoked/client"
)

// The deny list has every entry once, also across reads that are smaller than a line.
func TestDenyReader_Entries_AreReturnedOnce(t *testing.T) {
	var sent atomic.Uint64
	list := &denyReader{issuer: "https://x.example", expires: 1_790_000_000, low: 7, high: 1007, sent: &sent}
	lines := bufio.NewScanner(iotest.HalfReader(list))
	next := uint64(7)
	for ; lines.Scan(); next++ {
		var got client.JTIRevocation
		if err := json.Unmarshal(lines.Bytes(), &got); err != nil {
			t.Fatalf("line %q: %v", lines.Text(), err)
		}
		if want := fmt.Sprint("denied-", next); got.JTI != want || got.Issuer != list.issuer {
			t.Fatalf("got %+v, want jti %s", got, want)
		}
	}
	if next != 1007 || sent.Load() != 1000 || lines.Err() != nil {
		t.Errorf("got entries up to %d, %d counted, %v; want 1007, 1000 and no error", next, sent.Load(), lines.Err())
	}
}
