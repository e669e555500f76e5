package revoked_test

import (
	"errors"
	"fmt"
	"testing"

	"revoked"
)

func TestCode_EverySentinel_RoundTrips(t *testing.T) {
	for n := uint32(1); revoked.FromCode(n) != revoked.ErrOutcomeUnknown ||
		n == revoked.Code(revoked.ErrOutcomeUnknown); n++ {
		sentinel := revoked.FromCode(n)
		if got := revoked.Code(fmt.Errorf("%w: facts", sentinel)); got != n {
			t.Errorf("%v: got code %d, want %d", sentinel, got, n)
		}
	}
	if got := revoked.Code(errors.New("other")); got != revoked.Code(revoked.ErrOutcomeUnknown) {
		t.Errorf("unlisted error: got code %d, want that of ErrOutcomeUnknown", got)
	}
	if revoked.Code(nil) != 0 || revoked.FromCode(0) != nil {
		t.Errorf("nil: got code %d and error %v, want 0 and nil", revoked.Code(nil), revoked.FromCode(0))
	}
}

func TestDetail_SentinelPrefix_IsRemoved(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want string
	}{
		{nil, ""},
		{revoked.ErrConflict, ""},
		{fmt.Errorf("%w: client \"a\" exists", revoked.ErrConflict), "client \"a\" exists"},
		{fmt.Errorf("put client: %w", revoked.ErrConflict), "put client: conflict"},
		{errors.New("disk full"), "disk full"},
	} {
		if got := revoked.Detail(tt.err); got != tt.want {
			t.Errorf("%v: got %q, want %q", tt.err, got, tt.want)
		}
	}
}
