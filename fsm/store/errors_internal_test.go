package store

import (
	"errors"
	"testing"
)

func TestPebbleError_ManyLines_OneLine(t *testing.T) {
	inner := errors.New("block 0/9: checksum mismatch")
	err := pebbleError("read", errors.Join(inner, errors.New("<corruption detail carrier>")))
	if got, want := err.Error(), "store: read: block 0/9: checksum mismatch"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if !errors.Is(err, inner) {
		t.Errorf("got %v, want it to wrap %v", err, inner)
	}
}
