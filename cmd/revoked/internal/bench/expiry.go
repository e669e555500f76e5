package bench

import (
	"context"
	"fmt"
	"time"

	"revoked/cmd/revoked/internal/bench/report"
	"revoked/internal/retry"
)

const (
	expiryTime  = time.Minute // the tokens of the measure expiry expire within this time
	expiryPairs = 500_000     // maximum number of pairs
)

// expiry compares the rate of revocations while tokens expire with the rate before. It registers as
// many pairs as the cluster holds, at most expiryPairs, and they expire within expiryTime.
func (r *run) expiry(ctx context.Context, m *report.Measure) error {
	n := min(expiryPairs, r.opts.Pairs)
	const slowest = 5000 // pairs registered in a second
	ends := time.Now().Add(time.Duration(n/slowest)*time.Second + 5*r.opts.Duration + 30*time.Second)
	t, low := r.tokens, r.used
	t.ends = ends.Unix()
	r.used += n
	if _, err := r.registerPairs(ctx, t, low, low+n); err != nil {
		return err
	}
	if err := r.cluster.awaitIdle(ctx); err != nil {
		return err
	}
	before, err := r.revocationPace(ctx)
	if err != nil {
		return err
	}
	revoked, err := r.fresh(ctx, uint64(paceFastest*r.opts.Duration.Seconds()))
	if err != nil {
		return err
	}
	if left := time.Until(ends); left < 0 {
		return fmt.Errorf("registering the expiring pairs took %v too long", -left.Round(time.Second))
	}
	live, err := r.liveTokens(ctx)
	if err != nil {
		return err
	}
	r.say(m.Name, "waits for %s", ends.Format(time.TimeOnly))
	if err := retry.Sleep(ctx, time.Until(ends.Add(expiryTime/4))); err != nil {
		return err
	}
	during, err := r.paceOf(ctx, revoked)
	if err != nil {
		return err
	}
	atEnd, err := r.liveTokens(ctx)
	if err != nil {
		return err
	}
	m.Tally.Add(before.Tally)
	m.Tally.Add(during.Tally)
	m.Value = during.Rate()
	m.Compare(before.Rate(), during.Rate()/max(before.Rate(), 1))
	m.Rounds = []report.Round{{Subject: during.Rate(), Baseline: before.Rate(),
		Latency: report.LatencyOf(&during.Latency), SubjectCPUUS: during.CPU, BaselineCPUUS: before.CPU}}
	m.SetDetail("tokens_that_expire_in_a_minute", 2*n)
	m.SetDetail("tokens_gone_at_the_end_of_the_turn", live-min(live, atEnd+2*during.Requests))
	m.SetGoal("ratio >= 0.8", *m.Ratio >= 0.8 && m.Failures == 0)
	return nil
}

// awaitStubs waits until the cluster no longer replaces rows of revoked or expired tokens. It
// pauses for a second at a time while it does so.
func (r *run) awaitStubs(ctx context.Context) error {
	const interval, stable = time.Second, 4 // the number of tokens must stay the same that often
	for same, last := 0, uint64(0); same < stable; {
		n, err := r.liveTokens(ctx)
		if err != nil {
			return err
		}
		if same++; n != last {
			same, last = 0, n
		}
		if err := retry.Sleep(ctx, interval); err != nil {
			return err
		}
	}
	return r.cluster.awaitIdle(ctx)
}

// liveTokens returns the number of tokens in the state, as the leader reports it.
func (r *run) liveTokens(ctx context.Context) (uint64, error) {
	leader, err := r.cluster.leader(ctx)
	if err != nil {
		return 0, err
	}
	s, err := r.cluster.status(ctx, leader)
	return s.Tokens, err
}
