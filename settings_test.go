package revoked_test

import (
	"errors"
	"testing"
	"time"

	"revoked"
)

func TestValidateSettings_Defaults_AreValid(t *testing.T) {
	s := revoked.DefaultSettings()
	if err := revoked.ValidateSettings(&s); err != nil {
		t.Fatal(err)
	}
}

func TestValidateSettings_EachBound_IsInclusive(t *testing.T) {
	for _, r := range revoked.SettingRules() {
		for _, tt := range []struct {
			d    int64
			want error
		}{
			{r.Min, nil}, {r.Min - 1, revoked.ErrUnprocessable},
			{r.Max, nil}, {r.Max + 1, revoked.ErrUnprocessable},
		} {
			s := revoked.DefaultSettings()
			s.CutoffRetention, s.LateRegistrationWindow = 3650*24*time.Hour, time.Second
			r.Set(&s, tt.d)
			if r.Name == "cutoff_retention" {
				s.LateRegistrationWindow = time.Second
			}
			if err := revoked.ValidateSettings(&s); !errors.Is(err, tt.want) {
				t.Errorf("%s = %s: got %v, want %v", r.Name, r.Format(tt.d), err, tt.want)
			}
		}
	}
}

func TestValidateSettings_ShortRetention_IsRejected(t *testing.T) {
	s := revoked.DefaultSettings()
	s.CutoffRetention, s.LateRegistrationWindow = 2*time.Hour, 3*time.Hour
	if err := revoked.ValidateSettings(&s); !errors.Is(err, revoked.ErrUnprocessable) {
		t.Errorf("got %v, want %v", err, revoked.ErrUnprocessable)
	}
}

func TestFormatDuration_ZeroUnits_AreOmitted(t *testing.T) {
	for _, tt := range []struct {
		d    time.Duration
		want string
	}{
		{0, "0s"}, {500 * time.Millisecond, "500ms"}, {30 * time.Second, "30s"}, {time.Minute, "1m"},
		{90 * time.Second, "1m30s"}, {time.Hour, "1h"}, {90 * time.Minute, "1h30m"}, {9600 * time.Hour, "9600h"},
		{time.Hour + time.Second, "1h0m1s"},
	} {
		if got := revoked.FormatDuration(tt.d); got != tt.want {
			t.Errorf("%d ns: got %q, want %q", tt.d, got, tt.want)
		}
	}
}
