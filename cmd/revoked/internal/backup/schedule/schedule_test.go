package schedule_test

import (
	"strings"
	"testing"
	"time"

	"revoked/cmd/revoked/internal/backup/schedule"
)

func TestParse_Schedule_ReturnsNextTime(t *testing.T) {
	// 03:16 in UTC. Cron expressions do not depend on the location of a moment.
	after := time.Date(2026, 3, 29, 5, 16, 30, 0, time.FixedZone("CEST", 2*3600))
	for text, want := range map[string]string{
		"1h":           "2026-03-29T04:16:30Z",
		"90s":          "2026-03-29T03:18:00Z",
		"17 3 * * *":   "2026-03-29T03:17:00Z",
		"16 3 * * *":   "2026-03-30T03:16:00Z",
		"*/15 * * * *": "2026-03-29T03:30:00Z",
		"0 4 1 1 *":    "2027-01-01T04:00:00Z",
		"0 0 * * mon":  "2026-03-30T00:00:00Z",
		"0 0 29 2 *":   "2028-02-29T00:00:00Z",
	} {
		s, err := schedule.Parse(text)
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if got := s.Next(after).UTC().Format(time.RFC3339); got != want {
			t.Errorf("%s: got %s, want %s", text, got, want)
		}
	}
}

func TestParse_OtherText_IsRefused(t *testing.T) {
	for text, want := range map[string]string{
		"":                  "want an interval",
		"hourly":            "want an interval",
		"@daily":            "want an interval",
		"@every 1h x y z":   "want an interval",
		"500ms":             "want an interval of 1s",
		"-1h":               "want an interval of 1s",
		"9000h":             "want an interval of 1s",
		"0 3 * *":           "five fields",
		"0 0 3 * * *":       "five fields",
		"TZ=UTC 0 3 * *":    "five fields",
		"CRON_TZ=0 3 * * *": "five fields",
		"60 3 * * *":        "above maximum",
		"0 3 * * someday":   "failed to parse",
		"0 0 30 2 *":        "do not exist",
	} {
		if _, err := schedule.Parse(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want an error with %q", text, err, want)
		}
	}
}

// The parser refuses a text, or the next scheduled time is later. No text makes the parser panic.
func FuzzParse(f *testing.F) {
	for _, text := range []string{"1h", "17 3 * * *", "TZ=0 3 * * *", "*/0 * * * *", "1-0 * * * *", "@every 1h",
		"? ? ? ? ?"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, err := schedule.Parse(text)
		if err != nil {
			return
		}
		now := time.Unix(1_800_000_000, 0)
		if next := s.Next(now); !next.After(now) {
			t.Errorf("%q: got %v, want a time after %v", text, next, now)
		}
	})
}
