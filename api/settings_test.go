package api_test

import (
	"testing"
)

func TestSettings_Patch_ChangesAll(t *testing.T) {
	b := newAdminBench(t)
	want := `{"lease_duration":"2s","late_registration_window":"1h","cutoff_retention":"9600h","max_clock_skew":"5s","secret_grace":"24h","audit_retention":"9600h","audit_max_entries":1000000}` + "\n"
	if got := b.do(t, "admin", "GET", "/v1/settings", "", ""); got.status != 200 || got.body != want {
		t.Errorf("got %d %s, want %s", got.status, got.body, want)
	}
	got := b.do(t, "admin", "PATCH", "/v1/settings", "application/merge-patch+json",
		`{"lease_duration":"1500ms","secret_grace":"1h30m"}`)
	if got.status != 200 || got.field(t, "lease_duration") != "1.5s" || got.field(t, "secret_grace") != "1h30m" ||
		got.field(t, "max_clock_skew") != "5s" {
		t.Errorf("got %d %s, want 200 and the settings", got.status, got.body)
	}
	if got := b.do(t, "admin", "PATCH", "/v1/settings", "", `{"lease_duration":null}`); got.field(t,
		"lease_duration") != "2s" {
		t.Errorf("null: got %s, want the default", got.body)
	}
	for body, want := range map[string]int{
		`{"lease_duration":2}`: 400, `{"lease_duration":"fast"}`: 400, `{"lease":"2s"}`: 400, `{"lease_duration":"1ms"}`: 422,
		`{"lease_duration":"2h"}`: 422, `{"max_clock_skew":"-1s"}`: 422, `{"cutoff_retention":"1s"}`: 422, `nonsense`: 400,
	} {
		if got := b.do(t, "admin", "PATCH", "/v1/settings", "", body); got.status != want {
			t.Errorf("%s: got %d %s, want %d", body, got.status, got.body, want)
		}
	}
}
