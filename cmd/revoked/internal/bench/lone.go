package bench

import (
	"context"
	"fmt"
	"slices"
	"time"

	"revoked/client"
	"revoked/internal/retry"
)

// fewPairs is the number of pairs up to which the cluster counts as almost empty.
const fewPairs = 10_000

// loneGap is the pause between two requests to an idle cluster.
const loneGap = 15 * time.Millisecond

// expectInactive introspects a revoked token. It counts an active answer as a broken promise.
func (r *run) expectInactive(c *conn, n uint64, m *Measure) error {
	status, body, err := c.do(r.introspection(), form(r.tokens.access(), n))
	switch {
	case err != nil:
		return err
	case isActive(status, body):
		m.broken++
	case !isInactive(status, body):
		m.fail(describe(status, body))
	}
	return nil
}

// loneTimes are the times of revocations that were sent one after the other.
type loneTimes struct {
	all    histogram
	byNode []histogram
}

// followers returns the times at the nodes other than leader.
func (t *loneTimes) followers(leader int) *histogram {
	var h histogram
	for i := range t.byNode {
		if i != leader {
			h.merge(&t.byNode[i])
		}
	}
	return &h
}

// revokeSingly revokes the pairs one after the other, at each node in turn. After each it
// introspects the token at another node.
func (r *run) revokeSingly(ctx context.Context, pairs *pool, m *Measure) (*loneTimes, error) {
	conns, err := dialAll(ctx, r.cluster.targets(true), len(r.cluster.nodes))
	if err != nil {
		return nil, err
	}
	defer closeAll(conns)
	revocation := r.revocation()
	times := &loneTimes{byNode: make([]histogram, len(conns))}
	for i := 0; ; i++ {
		n, ok := pairs.take()
		if !ok {
			return times, nil
		}
		at := i % len(conns)
		body := form(r.tokens.refresh(), n)
		start := time.Now()
		status, answer, err := conns[at].do(revocation, body)
		took := time.Since(start)
		if err != nil {
			return nil, err
		}
		if !isRevoked(status, answer) {
			m.fail(describe(status, answer))
			continue
		}
		if i >= len(conns) { // the first request of a connection warms it up
			times.all.add(took)
			times.byNode[at].add(took)
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
func (r *run) lone(ctx context.Context, m *Measure) error {
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
	r.loneP50 = times.all.quantile(0.5)
	l := latencyOf(&times.all)
	m.Value = l.P50
	m.Rounds = []Round{{Subject: l.P50, Latency: l}}
	m.detail("at_leader_p50_ms", millis(times.byNode[leader].quantile(0.5)))
	m.detail("at_followers_p50_ms", millis(times.followers(leader).quantile(0.5)))
	m.detail("promise_broken", m.broken)
	m.goal("p50 <= 8 ms, p99 <= 25 ms", l.P50 <= 8 && l.P99 <= 25 && m.Failures == 0 && m.broken == 0)
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
	c, err := r.cluster.target(node, true).dial(ctx)
	if err != nil {
		return 0, err
	}
	defer c.close()
	const asks, warm = 4000, 500
	var h histogram
	request, next := r.introspection(), forms(r.tokens.access(), anyOf(pairs))(0)
	for i := range asks {
		body, _ := next()
		start := time.Now()
		status, answer, err := c.do(request, body)
		if err != nil {
			return 0, err
		}
		if !isActive(status, answer) {
			return 0, fmt.Errorf("introspection of a live token: %s", describe(status, answer))
		}
		if i >= warm {
			h.add(time.Since(start))
		}
		if ctx.Err() != nil {
			return 0, ctx.Err()
		}
	}
	return h.quantile(0.5), nil
}

// latency compares a lone introspection while the cluster holds all pairs with one while it held
// few.
func (r *run) latency(ctx context.Context, m *Measure) error {
	now, err := r.loneIntrospection(ctx, r.opts.Pairs)
	if err != nil {
		return err
	}
	m.Value = millis(now)
	m.compare(millis(r.early), float64(now)/float64(max(r.early, 1)))
	m.detail("few_pairs", min(fewPairs, r.opts.Pairs/2))
	m.goal("ratio <= 1.2", *m.Ratio <= 1.2)
	return nil
}

// cutoff measures cut-offs of subjects with many tokens. Each cut-off is one log entry.
func (r *run) cutoff(ctx context.Context, m *Measure) error {
	node, err := r.idleFollower(ctx)
	if err != nil {
		return err
	}
	if _, err := r.cluster.status(ctx, node); err != nil { // opens the connection
		return err
	}
	admin := r.cluster.Client("admin", node)
	other, err := r.cluster.target((node+1)%len(r.cluster.nodes), true).dial(ctx)
	if err != nil {
		return err
	}
	defer other.close()
	var took []float64
	for k := range uint64(bulkSubjects) {
		start := time.Now()
		if _, err := admin.RevokeAll(ctx, client.Cutoff{Subject: r.tokens.bulk(k), Reason: "bench"}); err != nil {
			return err
		}
		took = append(took, millis(time.Since(start)))
		if err := r.expectInactive(other, k, m); err != nil {
			return err
		}
		// The cluster replaces the rows of the ended tokens. Another cut-off would wait for that.
		if err := r.cluster.awaitIdle(ctx); err != nil {
			return err
		}
	}
	m.Value = median(took)
	m.detail("worst_ms", slices.Max(took))
	m.detail("tokens_of_a_subject", r.tokens.subjects/bulkSubjects*2)
	m.detail("promise_broken", m.broken)
	if r.loneP50 > 0 {
		m.compare(millis(r.loneP50), m.Value/millis(r.loneP50))
		m.detail("baseline", "a lone revocation")
		m.goal("ratio <= 2", *m.Ratio <= 2 && m.broken == 0)
	}
	return nil
}
