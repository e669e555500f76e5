package revoked

import (
	"fmt"
	"strings"
	"time"
)

// Settings are replicated: they are the same on every node at the same log index.
type Settings struct {
	LeaseDuration          time.Duration
	LateRegistrationWindow time.Duration
	CutoffRetention        time.Duration
	MaxClockSkew           time.Duration
	SecretGrace            time.Duration
	// LeaseCeiling is the longest lease that may still be in force after LeaseDuration was lowered.
	// It is 0 if no lease can be longer than LeaseDuration. Only Apply sets it.
	LeaseCeiling time.Duration
	Version      uint64 // log index of the last change
}

// DefaultSettings returns the settings of a new cluster.
func DefaultSettings() Settings {
	return Settings{
		LeaseDuration:          2 * time.Second,
		LateRegistrationWindow: time.Hour,
		CutoffRetention:        9600 * time.Hour,
		MaxClockSkew:           5 * time.Second,
		SecretGrace:            24 * time.Hour,
	}
}

// A SettingRule is the name of one setting and its bounds, both inclusive.
type SettingRule struct {
	Name     string // in the API and in configuration files
	Min, Max time.Duration
	field    func(*Settings) *time.Duration
}

const (
	day  = 24 * time.Hour
	year = 365 * day
)

// settingRules is the only table of settings and their bounds, in display order.
var settingRules = [...]SettingRule{
	{"lease_duration", 500 * time.Millisecond, time.Minute,
		func(s *Settings) *time.Duration { return &s.LeaseDuration }},
	{"late_registration_window", time.Second, 90 * day,
		func(s *Settings) *time.Duration { return &s.LateRegistrationWindow }},
	{"cutoff_retention", time.Hour, 10 * year,
		func(s *Settings) *time.Duration { return &s.CutoffRetention }},
	{"max_clock_skew", 100 * time.Millisecond, 5 * time.Minute,
		func(s *Settings) *time.Duration { return &s.MaxClockSkew }},
	{"secret_grace", 0, year,
		func(s *Settings) *time.Duration { return &s.SecretGrace }},
}

// SettingRules returns the rules of all settings in display order.
func SettingRules() []SettingRule { return settingRules[:] }

// Field returns the setting's field in s.
func (r SettingRule) Field(s *Settings) *time.Duration { return r.field(s) }

// Validate returns an error that wraps [ErrUnprocessable] if d is out of bounds.
func (r SettingRule) Validate(d time.Duration) error {
	if d < r.Min || d > r.Max {
		return fmt.Errorf("%w: %s must be from %s to %s",
			ErrUnprocessable, r.Name, FormatDuration(r.Min), FormatDuration(r.Max))
	}
	return nil
}

// ValidateSettings returns an error that wraps [ErrUnprocessable] if a setting is out of bounds or
// if two settings contradict each other.
func ValidateSettings(s *Settings) error {
	for _, r := range settingRules {
		if err := r.Validate(*r.Field(s)); err != nil {
			return err
		}
	}
	if s.CutoffRetention < s.LateRegistrationWindow {
		return fmt.Errorf("%w: cutoff_retention must not be shorter than late_registration_window",
			ErrUnprocessable)
	}
	return nil
}

// FormatDuration formats d like [time.Duration.String] without trailing zero units: "9600h" instead
// of "9600h0m0s".
func FormatDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}
