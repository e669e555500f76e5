package node

import "time"

// A rateWatch compares the rate of a member's boot clock with that of this node's, by how the difference
// between the two moves: the leases assume that both are within rateBound of true. A report that was
// delayed makes the difference look greater, never smaller, so of each window the smallest counts. A route
// that becomes longer, or a machine that stands still, moves it once; so two windows in a row have to agree.
type rateWatch struct {
	boot  string // the life that is watched: another one may be on another clock
	began instant
	count int
	least rateSample // of this window

	last  rateSample // the least of an earlier window
	known bool       // last is one
	drift float64    // newest figure: how much slower the member's clock is than this node's, 0.01 is 1 %
	in    int        // windows in a row within the bound
	out   int        // and beyond it, to the same side
	wrong bool
}

type rateSample struct {
	at   instant // on this node's clock
	diff time.Duration
}

const (
	rateWindow  = 10 * time.Second
	rateReports = 5 // at least, in a window
	// Two clocks at opposite ends of the bound are 2.02 % apart; the rest is for delays that change.
	rateLimit = (1+rateBound)/(1-rateBound) - 1 + 0.005
)

// observe takes the member's boot clock as it was sent, and this node's as it came in.
func (w *rateWatch) observe(now, theirs instant) {
	s := rateSample{now, now.sub(theirs)}
	if w.count == 0 || s.diff < w.least.diff {
		w.least = s
	}
	if w.count == 0 {
		w.began = now
	}
	w.count++
	if now.sub(w.began) < rateWindow || w.count < rateReports {
		return
	}
	w.count = 0
	switch apart := w.least.at.sub(w.last.at); {
	case !w.known:
		w.last, w.known = w.least, true
	case apart >= rateWindow/2:
		w.judge(float64(w.least.diff-w.last.diff) / float64(apart))
		w.last = w.least
	}
}

func (w *rateWatch) judge(drift float64) {
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
