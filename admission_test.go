package revoked_test

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"revoked"
)

func TestListAdmitted_EachState_OmitsOnlyEnded(t *testing.T) {
	const now = revoked.Time(100e6)
	got := revoked.ListAdmitted([]string{"m2", "m1", "m3"}, []revoked.Admission{
		{Node: "m1", State: revoked.Joined, NonVoter: true, By: "admin"},
		{Node: "m3", State: revoked.Barred, By: "admin"}, // a removal that has not finished
		{Node: "open", State: revoked.Admitted, ExpiresAt: now + 1, By: "admin"},
		{Node: "over", State: revoked.Admitted, ExpiresAt: now, By: "admin"},
		{Node: "unfinished", State: revoked.Joined, By: "admin"},
		{Node: "left", State: revoked.Withdrawn},
		{Node: "gone", State: revoked.Barred, Reason: "stolen"},
	}, now)
	want := []revoked.AdmittedNode{
		{Node: "gone", State: "barred"},
		{Node: "m1", State: "member", NonVoter: true, By: "admin"},
		{Node: "m2", State: "member"},
		{Node: "m3", State: "member", By: "admin"},
		{Node: "open", State: "admitted", ExpiresAt: now + 1, By: "admin"},
		{Node: "unfinished", State: "admitted", By: "admin"},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestCheckNodeID_BadNames_AreInvalid(t *testing.T) {
	for _, id := range []string{"", ".", "..", "a/b", "a b", "n\x00", "\u00e9", strings.Repeat("n", 65)} {
		if err := revoked.CheckNodeID(id); !errors.Is(err, revoked.ErrInvalid) {
			t.Errorf("%q: got %v, want %v", id, err, revoked.ErrInvalid)
		}
	}
	if err := revoked.CheckNodeID("Node-4.example_1"); err != nil {
		t.Errorf("got %v, want success", err)
	}
}

func TestCheckAdmissionTTL_Bounds_AreInclusive(t *testing.T) {
	for d, want := range map[time.Duration]error{
		revoked.MinAdmissionTTL: nil, revoked.MaxAdmissionTTL: nil, revoked.DefaultAdmissionTTL: nil,
		revoked.MinAdmissionTTL - 1: revoked.ErrUnprocessable, revoked.MaxAdmissionTTL + 1: revoked.ErrUnprocessable,
		-time.Hour: revoked.ErrUnprocessable,
	} {
		if err := revoked.CheckAdmissionTTL(d); !errors.Is(err, want) {
			t.Errorf("%v: got %v, want %v", d, err, want)
		}
	}
}
