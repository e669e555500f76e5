package revoked

import (
	"fmt"
	"strconv"
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
	AuditRetention         time.Duration
	AuditMaxEntries        int
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
		AuditRetention:         9600 * time.Hour,
		AuditMaxEntries:        1_000_000,
	}
}

// A SettingRule has the name of one setting and its inclusive bounds. Values of durations are in
// nanoseconds, values of counts are plain numbers.
type SettingRule struct {
	Name     string // name in the API and in configuration files
	Min, Max int64
	duration func(*Settings) *time.Duration
	count    func(*Settings) *int // nil unless the setting is a count
}

const (
	day  = 24 * time.Hour
	year = 365 * day
)

// settingRules is the only table of settings and their bounds, in display order.
var settingRules = [...]SettingRule{
	durationRule("lease_duration", 500*time.Millisecond, time.Minute,
		func(s *Settings) *time.Duration { return &s.LeaseDuration }),
	durationRule("late_registration_window", time.Second, 90*day,
		func(s *Settings) *time.Duration { return &s.LateRegistrationWindow }),
	durationRule("cutoff_retention", time.Hour, 10*year,
		func(s *Settings) *time.Duration { return &s.CutoffRetention }),
	durationRule("max_clock_skew", 100*time.Millisecond, 5*time.Minute,
		func(s *Settings) *time.Duration { return &s.MaxClockSkew }),
	durationRule("secret_grace", 0, year,
		func(s *Settings) *time.Duration { return &s.SecretGrace }),
	durationRule("audit_retention", time.Hour, 10*year,
		func(s *Settings) *time.Duration { return &s.AuditRetention }),
	{Name: "audit_max_entries", Min: 1000, Max: 100_000_000,
		count: func(s *Settings) *int { return &s.AuditMaxEntries }},
}

func durationRule(name string, low, high time.Duration, field func(*Settings) *time.Duration) SettingRule {
	return SettingRule{Name: name, Min: int64(low), Max: int64(high), duration: field}
}

// SettingRules returns the rules of all settings in display order.
func SettingRules() []SettingRule { return settingRules[:] }

// IsCount reports whether the setting is a count and not a duration.
func (r SettingRule) IsCount() bool { return r.count != nil }

// Field returns a pointer to the setting's field in s: *time.Duration or, for a count, *int.
func (r SettingRule) Field(s *Settings) any {
	if r.count != nil {
		return r.count(s)
	}
	return r.duration(s)
}

// Value returns the setting's value in s.
func (r SettingRule) Value(s *Settings) int64 {
	if r.count != nil {
		return int64(*r.count(s))
	}
	return int64(*r.duration(s))
}

// Set sets the setting's value in s.
func (r SettingRule) Set(s *Settings, v int64) {
	if r.count != nil {
		*r.count(s) = int(v)
		return
	}
	*r.duration(s) = time.Duration(v)
}

// Format returns a value as text, such as "2s" or "1000".
func (r SettingRule) Format(v int64) string {
	if r.count != nil {
		return strconv.FormatInt(v, 10)
	}
	return FormatDuration(time.Duration(v))
}

// Validate returns an error that wraps [ErrUnprocessable] if v is out of bounds.
func (r SettingRule) Validate(v int64) error {
	if v < r.Min || v > r.Max {
		return fmt.Errorf("%w: %s must be from %s to %s", ErrUnprocessable, r.Name, r.Format(r.Min), r.Format(r.Max))
	}
	return nil
}

// ValidateSettings returns an error that wraps [ErrUnprocessable] if a setting is out of bounds or
// if two settings contradict each other.
func ValidateSettings(s *Settings) error {
	for _, r := range settingRules {
		if err := r.Validate(r.Value(s)); err != nil {
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
