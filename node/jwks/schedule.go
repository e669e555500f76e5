package jwks

import "time"

// Intervals of a schedule.
const (
	// MinInterval is the shortest time between two fetches of one issuer, for any reason.
	MinInterval = 30 * time.Second
	minAge      = 5 * time.Minute
	maxAgeLimit = 24 * time.Hour
	defaultAge  = 15 * time.Minute // age limit of a response without max-age
	maxBackOff  = 15 * time.Minute
)

// A Schedule decides when the keys of one issuer are fetched. The caller must serialize the calls.
// In the zero value, a fetch is due immediately.
type Schedule struct {
	begun    time.Time // start of the last fetch
	next     time.Time // time at which the next fetch is due
	failures int       // number of consecutive failures
}

// Next returns the time at which the next fetch is due. The zero time means immediately.
func (s *Schedule) Next() time.Time { return s.next }

// Begin records the start of a fetch. MinInterval is measured from this start, not from the end of
// the fetch, which may be slow.
func (s *Schedule) Begin(now time.Time) { s.begun = now }

// Wait returns how long a requested fetch must still wait, so that two fetches begin at least
// MinInterval apart.
func (s *Schedule) Wait(now time.Time) time.Duration {
	if s.begun.IsZero() {
		return 0
	}
	return max(0, MinInterval-now.Sub(s.begun))
}

// Succeeded records a successful fetch. The set may be cached for maxAge; 0: the response had no
// max-age. If missing is true, the set lacked a known key, and a second fetch soon decides whether
// that key is retired. The number random, in [0, 1), spreads the fetches of several issuers.
func (s *Schedule) Succeeded(now time.Time, maxAge time.Duration, missing bool, random float64) {
	s.failures = 0
	if maxAge == 0 {
		maxAge = defaultAge
	}
	age := min(max(maxAge, minAge), maxAgeLimit)
	delay := max(minAge, age-time.Duration(random*float64(age)/10))
	if missing {
		delay = MinInterval + time.Duration(random*float64(MinInterval)/10)
	}
	s.next = now.Add(delay)
}

// Failed records a failed fetch. The delay doubles with each consecutive failure. The number random
// is as for Succeeded. The delay never exceeds 19 minutes, so keys are current soon after the
// server is reachable again.
func (s *Schedule) Failed(now time.Time, random float64) {
	delay := MinInterval << min(s.failures, 10)
	s.failures++
	delay = min(delay, maxBackOff)
	s.next = now.Add(delay + time.Duration(random*float64(delay)/4))
}
