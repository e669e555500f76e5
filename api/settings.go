package api

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"revoked"
)

// A setting is one of the replicated settings: its name and its bounds.
type setting struct {
	name     string
	of       func(*revoked.Settings) *time.Duration
	low, top time.Duration
}

// settings returns the replicated settings in the order in which they are shown.
func settings() []setting {
	const hour, year = time.Hour, 8760 * time.Hour
	return []setting{
		{"lease_duration", func(s *revoked.Settings) *time.Duration { return &s.LeaseDuration }, 500 * time.Millisecond, time.Minute},
		{"late_registration_window", func(s *revoked.Settings) *time.Duration { return &s.LateRegistrationWindow }, time.Second, 90 * 24 * hour},
		{"cutoff_retention", func(s *revoked.Settings) *time.Duration { return &s.CutoffRetention }, hour, 10 * year},
		{"max_clock_skew", func(s *revoked.Settings) *time.Duration { return &s.MaxClockSkew }, 100 * time.Millisecond, 5 * time.Minute},
		{"secret_grace", func(s *revoked.Settings) *time.Duration { return &s.SecretGrace }, 0, year},
	}
}

// viewSettings returns the settings as JSON: durations as Go writes them, without zero parts.
func viewSettings(s revoked.Settings) []byte {
	out := []byte{'{'}
	for i, x := range settings() {
		if i > 0 {
			out = append(out, ',')
		}
		out = append(appendString(out, x.name), ':')
		out = appendString(out, shortDuration(*x.of(&s)))
	}
	return append(out, "}\n"...)
}

// shortDuration writes 9600h where time.Duration writes 9600h0m0s.
func shortDuration(d time.Duration) string {
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return s
}

func (a *API) getSettings(c echo.Context) error {
	return write(c, http.StatusOK, typeJSON, viewSettings(a.cfg.Backend.Settings()))
}

// patchSettings is PATCH /v1/settings: a merge patch; null puts a setting back to its default.
func (a *API) patchSettings(c echo.Context) error {
	change, err := decodeSettings(c)
	if err != nil {
		return a.refuse(c, err)
	}
	ctx, cancel := a.within(c)
	defer cancel()
	actor := revoked.ActorOf(a.caller(c))
	var last error
	for try := range clientRetries {
		if try > 0 && !pause(ctx, time.Duration(try)*20*time.Millisecond) {
			break
		}
		next := a.cfg.Backend.Settings()
		for _, x := range settings() {
			if d, ok := change[x.name]; ok {
				*x.of(&next) = d
			}
		}
		made, _, err := a.cfg.Backend.UpdateSettings(ctx, actor, next)
		if err == nil {
			return write(c, http.StatusOK, typeJSON, viewSettings(made))
		}
		if last = err; !errors.Is(err, revoked.ErrConflict) {
			break
		}
	}
	return a.problem(c, last)
}

// decodeSettings returns the settings that the body changes, by name.
func decodeSettings(c echo.Context) (map[string]time.Duration, error) {
	table := settings()
	names := make([]string, len(table))
	for i, x := range table {
		names[i] = x.name
	}
	change := make(map[string]time.Duration)
	var impossible error
	err := decodeBody(c, false, []string{typeMergePatch, typeJSON}, names, func(r *jsonReader, k int) error {
		x := table[k]
		if r.null() {
			defaults := revoked.DefaultSettings()
			change[x.name] = *x.of(&defaults)
			return nil
		}
		text, err := r.words(maxID)
		if err != nil {
			return err
		}
		d, err := time.ParseDuration(text)
		if err != nil {
			return r.fail(`want a duration, such as "2s" or "1h30m"`)
		}
		if (d < x.low || d > x.top) && impossible == nil {
			impossible = fmt.Errorf("%w: %s must be from %s to %s", revoked.ErrUnprocessable, x.name, shortDuration(x.low), shortDuration(x.top))
		}
		change[x.name] = d
		return nil
	})
	if err == nil {
		err = impossible
	}
	return change, err
}
