package node

import (
	"errors"
	"testing"

	"revoked"
)

// A removal bars the name before it changes the configuration. If that change fails, the name stays
// barred until an admission.
func TestCheckAdmissible_BarredMember_Accepted(t *testing.T) {
	for _, tt := range []struct {
		name   string
		member bool
		a      revoked.Admission
		want   error
	}{
		{"new name", false, revoked.Admission{}, nil},
		{"barred name", false, revoked.Admission{State: revoked.Barred}, nil},
		{"initial member", true, revoked.Admission{}, revoked.ErrConflict},
		{"member", true, revoked.Admission{State: revoked.Joined}, revoked.ErrConflict},
		{"barred member", true, revoked.Admission{State: revoked.Barred}, nil},
	} {
		if err := checkAdmissible("n1", tt.member, tt.a); !errors.Is(err, tt.want) {
			t.Errorf("%s: got %v, want %v", tt.name, err, tt.want)
		}
	}
}
