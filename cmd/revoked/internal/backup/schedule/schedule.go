// Package schedule parses the schedules of backups: an interval, or a cron expression.
package schedule

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/robfig/cron/v3"
)

// The bounds of an interval.
const (
	minInterval = time.Second
	maxInterval = 366 * 24 * time.Hour
)

// A Schedule computes when the next backup is due.
type Schedule struct {
	interval time.Duration
	cron     cron.Schedule // nil if the schedule is an interval
}

// Parse parses an interval such as "1h", or a cron expression in UTC. The five fields of an
// expression are minute, hour, day of the month, month, and day of the week.
func Parse(text string) (Schedule, error) {
	if d, err := time.ParseDuration(text); err == nil {
		if d < minInterval || d > maxInterval {
			return Schedule{}, fmt.Errorf("got %v, want an interval of %v to %v", d, minInterval, maxInterval)
		}
		return Schedule{interval: d}, nil
	}
	// The library would also accept TZ=, @every and @daily, and panics on some texts with TZ=.
	if len(strings.Fields(text)) != 5 || strings.ContainsAny(text, "=@") {
		return Schedule{}, fmt.Errorf(
			"got %q, want an interval such as 1h or the five fields of a cron expression such as 17 3 * * *", text)
	}
	c, err := cron.ParseStandard(text)
	if err != nil {
		return Schedule{}, err
	}
	s := Schedule{cron: c}
	if s.Next(time.Unix(0, 0)).IsZero() {
		return Schedule{}, errors.New("the cron expression matches only days that do not exist")
	}
	return s, nil
}

// Next returns the first scheduled time after the given time.
func (s Schedule) Next(after time.Time) time.Time {
	if s.cron == nil {
		return after.Add(s.interval)
	}
	return s.cron.Next(after.UTC())
}
