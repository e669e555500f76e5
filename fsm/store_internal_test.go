package fsm

import (
	"errors"
	"testing"
)

// The error of a store is one line, without Pebble's placeholder.
func TestAStoreErrorIsOneLine(t *testing.T) {
	inner := errors.New("block 0/9: checksum mismatch")
	err := storeError("read", errors.Join(inner, errors.New("<corruption detail carrier>")))
	if got, want := err.Error(), "store: read: block 0/9: checksum mismatch"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if !errors.Is(err, inner) {
		t.Errorf("%v has lost its cause", err)
	}
}
