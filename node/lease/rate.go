package lease

import "time"

// A RateWatch compares the rate of a member's boot clock with that of this node's clock. The leases
// assume that both are within RateBound of true time.
//
// It tracks the difference between the two clocks. A delayed report makes the difference look
// larger, never smaller, so only the smallest difference of each window is used. A longer network
// route or a stopped machine shifts the difference only once, so two consecutive windows must
// agree. The caller holds one lock around every method.
type RateWatch struct {
	boot  string
	began Instant // start of the current window
	count int
	least rateSample // sample with the smallest difference in the current window

	last  rateSample // value of least at the end of an earlier window
	known bool       // whether last is set
	drift float64
	in    int // consecutive windows within the limit
	out   int // consecutive windows beyond the limit, in the same direction
	wrong bool
}

type rateSample struct {
	at   Instant // on this node's clock
	diff time.Duration
}

const (
	rateWindow  = 10 * time.Second
	rateReports = 5 // minimum number of reports in a window
	// The rates of two clocks at opposite ends of the bound differ by 2.02 %. The rest allows for
	// varying delays.
	rateLimit = (1+RateBound)/(1-RateBound) - 1 + 0.005
)

// NewRateWatch returns a watch of one incarnation of a member. The argument wrong is the result for
// the member's previous incarnation: both use the clock of the same machine.
func NewRateWatch(boot string, wrong bool) *RateWatch { return &RateWatch{boot: boot, wrong: wrong} }

// Boot returns the boot id of the watched incarnation.
func (w *RateWatch) Boot() string { return w.boot }

// Wrong reports whether the rates differ by more than the leases allow.
func (w *RateWatch) Wrong() bool { return w.wrong }

// Drift returns the newest measurement of how much slower the member's clock is: 0.01 is 1 %.
func (w *RateWatch) Drift() float64 { return w.drift }

// Observe records a report. theirs is the member's boot clock when it sent the report. now is this
// node's boot clock when the report arrived.
func (w *RateWatch) Observe(now, theirs Instant) {
	s := rateSample{now, now.Sub(theirs)}
	if w.count == 0 || s.diff < w.least.diff {
		w.least = s
	}
	if w.count == 0 {
		w.began = now
	}
	w.count++
	if now.Sub(w.began) < rateWindow || w.count < rateReports {
		return
	}
	w.count = 0
	switch elapsed := w.least.at.Sub(w.last.at); {
	case !w.known:
		w.last, w.known = w.least, true
	case elapsed >= rateWindow/2:
		w.evaluate(float64(w.least.diff-w.last.diff) / float64(elapsed))
		w.last = w.least
	}
}

// evaluate updates the result with the drift of one window.
func (w *RateWatch) evaluate(drift float64) {
	same := drift*w.drift > 0
	w.drift = drift
	if max(drift, -drift) <= rateLimit {
		w.in, w.out = w.in+1, 0
	} else if w.in = 0; same {
		w.out++
	} else {
		w.out = 1
	}
	switch {
	case w.out >= 2:
		w.wrong = true
	case w.in >= 2:
		w.wrong = false
	}
}
