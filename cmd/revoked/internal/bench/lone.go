package bench

import (
	"context"
	"fmt"
	"slices"
	"time"

	"revoked/client"
	"revoked/cmd/revoked/internal/bench/host"
	"revoked/cmd/revoked/internal/bench/load"
	"revoked/cmd/revoked/internal/bench/report"
	"revoked/internal/retry"
)

// fewPairs is the number of pairs up to which the cluster counts as almost empty.
const fewPairs = 10_000

// loneGap is the pause between two requests to an idle cluster.
const loneGap = 15 * time.Millisecond

// expectInactive introspects a revoked token. It counts an active answer as a violation.
func (r *run) expectInactive(c *load.Conn, n uint64, m *report.Measure) error {
	status, body, err := c.Do(r.introspection(), form(r.tokens.access(), n))
	switch {
	case err != nil:
		return err
	case isActive(status, body):
		m.Broken++
	case !isInactive(status, body):
		m.Fail(load.Describe(status, body))
	}
	return nil
}

// loneTimes are the times of revocations that were sent one after the other.
type loneTimes struct {
	all    load.Histogram
	byNode []load.Histogram
}

// followers returns the times at the nodes other than leader.
func (t *loneTimes) followers(leader int) *load.Histogram {
	var h load.Histogram
	for i := range t.byNode {
		if i != leader {
			h.Merge(&t.byNode[i])
		}
	}
	return &h
}

// revokeSingly revokes the pairs one after the other, at each node in turn. After each it
// introspects the token at another node.
func (r *run) revokeSingly(ctx context.Context, pairs *pool, m *report.Measure) (*loneTimes, error) {
	conns, err := load.DialAll(ctx, r.cluster.targets(true), len(r.cluster.nodes))
	if err != nil {
		return nil, err
	}
	defer load.CloseAll(conns)
	revocation := r.revocation()
	times := &loneTimes{byNode: make([]load.Histogram, len(conns))}
	for i := 0; ; i++ {
		n, ok := pairs.take()
		if !ok {
			return times, nil
		}
		at := i % len(conns)
		body := form(r.tokens.refresh(), n)
		start := time.Now()
		status, answer, err := conns[at].Do(revocation, body)
		took := time.Since(start)
		if err != nil {
			return nil, err
		}
		if !isRevoked(status, answer) {
			m.Fail(load.Describe(status, answer))
			continue
		}
		if i >= len(conns) { // the first request of a connection warms it up
			times.all.Add(took)
			times.byNode[at].Add(took)
		}
		if err := r.expectInactive(conns[(at+1)%len(conns)], n, m); err != nil {
			return nil, err
		}
		if err := retry.Sleep(ctx, loneGap); err != nil {
			return nil, err
		}
	}
}

// lone measures single revocations on an idle cluster.
func (r *run) lone(ctx context.Context, m *report.Measure) error {
	revoked, err := r.fresh(ctx, uint64(r.opts.Lone)+uint64(len(r.cluster.nodes)))
	if err != nil {
		return err
	}
	leader, err := r.cluster.leader(ctx)
	if err != nil {
		return err
	}
	times, err := r.revokeSingly(ctx, revoked, m)
	if err != nil {
		return err
	}
	r.loneP50 = times.all.Quantile(0.5)
	l := report.LatencyOf(&times.all)
	m.Value = l.P50
	m.Rounds = []report.Round{{Subject: l.P50, Latency: l}}
	m.SetDetail("at_leader_p50_ms", host.Millis(times.byNode[leader].Quantile(0.5)))
	m.SetDetail("at_followers_p50_ms", host.Millis(times.followers(leader).Quantile(0.5)))
	m.SetDetail("promise_broken", m.Broken)
	m.SetGoal("p50 <= 8 ms, p99 <= 25 ms", l.P50 <= 8 && l.P99 <= 25 && m.Failures == 0 && m.Broken == 0)
	return nil
}

func (r *run) idleFollower(ctx context.Context) (int, error) {
	node, err := r.cluster.follower(ctx)
	if err == nil {
		err = r.cluster.awaitIdle(ctx)
	}
	return node, err
}

// loneIntrospection returns the p50 of introspections over one connection to a follower.
func (r *run) loneIntrospection(ctx context.Context, pairs uint64) (time.Duration, error) {
	node, err := r.idleFollower(ctx)
	if err != nil {
		return 0, err
	}
	c, err := r.cluster.target(node, true).Dial(ctx)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	const asks, warm = 4000, 500
	var h load.Histogram
	request, next := r.introspection(), forms(r.tokens.access(), anyOf(pairs))(0)
	for i := range asks {
		body, _ := next()
		start := time.Now()
		status, answer, err := c.Do(request, body)
		if err != nil {
			return 0, err
		}
		if !isActive(status, answer) {
			return 0, fmt.Errorf("introspection of an active token: %s", load.Describe(status, answer))
		}
		if i >= warm {
			h.Add(time.Since(start))
		}
		if ctx.Err() != nil {
			return 0, ctx.Err()
		}
	}
	return h.Quantile(0.5), nil
}

// latency compares a single introspection while the cluster holds all pairs with one while it held
// few.
func (r *run) latency(ctx context.Context, m *report.Measure) error {
	now, err := r.loneIntrospection(ctx, r.opts.Pairs)
	if err != nil {
		return err
	}
	m.Value = host.Millis(now)
	m.Compare(host.Millis(r.early), float64(now)/float64(max(r.early, 1)))
	m.SetDetail("few_pairs", min(fewPairs, r.opts.Pairs/2))
	m.SetGoal("ratio <= 1.2", *m.Ratio <= 1.2)
	return nil
}

// cutoffTime is the time after which cutoff begins no further cut-off.
const cutoffTime = 5 * time.Minute

// cutoff measures cut-offs of subjects with many tokens. Each cut-off is one log entry.
func (r *run) cutoff(ctx context.Context, m *report.Measure) error {
	node, err := r.idleFollower(ctx)
	if err != nil {
		return err
	}
	if _, err := r.cluster.status(ctx, node); err != nil { // opens the connection
		return err
	}
	admin := r.cluster.Client("admin", node)
	other, err := r.cluster.target((node+1)%len(r.cluster.nodes), true).Dial(ctx)
	if err != nil {
		return err
	}
	defer other.Close()
	var took []float64
	for k, begin := uint64(0), time.Now(); k < bulkSubjects && time.Since(begin) < cutoffTime; k++ {
		start := time.Now()
		if _, err := admin.RevokeAll(ctx, client.Cutoff{Subject: r.tokens.bulk(k), Reason: "bench"}); err != nil {
			return err
		}
		took = append(took, host.Millis(time.Since(start)))
		if err := r.expectInactive(other, k, m); err != nil {
			return err
		}
		// While the cluster replaces the rows of the revoked tokens, another cut-off takes longer.
		if err := r.awaitStubs(ctx); err != nil {
			return err
		}
	}
	m.Value = report.Median(took)
	m.SetDetail("worst_ms", slices.Max(took))
	m.SetDetail("cut_offs", len(took))
	m.SetDetail("tokens_of_a_subject", r.tokens.subjects/bulkSubjects*2)
	m.SetDetail("promise_broken", m.Broken)
	if r.loneP50 > 0 {
		m.Compare(host.Millis(r.loneP50), m.Value/host.Millis(r.loneP50))
		m.SetDetail("baseline", "a single revocation")
		m.SetGoal("ratio <= 2", *m.Ratio <= 2 && m.Broken == 0)
	}
	return nil
}
