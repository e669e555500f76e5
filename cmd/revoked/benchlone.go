package main

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"syscall"
	"time"
)

// loneGap is the pause between two requests of an idle cluster.
const loneGap = 15 * time.Millisecond

// pause waits for d or the end of ctx.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// dialAll opens one connection to every node.
func (r *benchRun) dialAll(ctx context.Context) (conns []*rawConn, closeAll func(), err error) {
	closeAll = func() {
		for _, c := range conns {
			c.close()
		}
	}
	for _, host := range r.cluster.hosts() {
		c, err := dialRaw(ctx, host, r.cluster.tls)
		if err != nil {
			closeAll()
			return nil, nil, err
		}
		conns = append(conns, c)
	}
	return conns, closeAll, nil
}

// lone measures single revocations on an idle cluster, asked of every node in turn. After each, it
// asks another node, which must not call the token active: the promise, checked on the way.
func (r *benchRun) lone(ctx context.Context) error {
	pool, err := r.fresh(ctx, uint64(r.flags.lone)+uint64(len(r.cluster.dev.Nodes)))
	if err != nil {
		return err
	}
	leader, err := r.cluster.leader(ctx)
	if err != nil {
		return err
	}
	conns, closeAll, err := r.dialAll(ctx)
	if err != nil {
		return err
	}
	defer closeAll()
	revoke, ask := r.revocation(r.cluster.host(0)), r.introspection(r.cluster.host(0))
	all, atLeader, atFollowers := &histogram{}, &histogram{}, &histogram{}
	m := &benchMeasure{Name: "lone", What: "one lone revocation, idle cluster, p50", Unit: "ms"}
	broken := 0
	for i := range r.flags.lone + len(conns) {
		n, _ := pool.take()
		at := i % len(conns)
		start := time.Now()
		status, body, err := conns[at].do(revoke.number(n))
		took := time.Since(start)
		if err != nil {
			return err
		}
		if !isRevoked(status, body) {
			m.fail(status, body)
			continue
		}
		if i >= len(conns) { // the first of each node warms its connection
			all.add(took)
			if at == leader {
				atLeader.add(took)
			} else {
				atFollowers.add(took)
			}
		}
		status, body, err = conns[(at+1)%len(conns)].do(ask.number(n))
		if err != nil {
			return err
		}
		if isActive(status, body) {
			broken++
		} else if !isInactive(status, body) {
			m.fail(status, body)
		}
		if err := pause(ctx, loneGap); err != nil {
			return err
		}
	}
	r.loneP50 = all.quantile(0.5)
	l := latencyOf(all)
	m.Value = l.P50
	m.Rounds = []benchRound{{Subject: l.P50, Latency: l}}
	m.detail("at_leader_p50_ms", millisOf(atLeader.quantile(0.5)))
	m.detail("at_followers_p50_ms", millisOf(atFollowers.quantile(0.5)))
	m.detail("promise_broken", broken)
	m.goal("p50 <= 8 ms, p99 <= 25 ms", l.P50 <= 8 && l.P99 <= 25 && m.Failures == 0 && broken == 0)
	r.add(m)
	return nil
}

// loneIntrospection returns the p50 of introspections of one connection to a follower.
func (r *benchRun) loneIntrospection(ctx context.Context, pairs uint64) (time.Duration, error) {
	node, err := r.follower(ctx)
	if err != nil {
		return 0, err
	}
	if err := r.cluster.settle(ctx); err != nil {
		return 0, err
	}
	c, err := dialRaw(ctx, r.cluster.host(node), r.cluster.tls)
	if err != nil {
		return 0, err
	}
	defer c.close()
	const asks, warm = 4000, 500
	h := &histogram{}
	template, next := r.introspection(r.cluster.host(node)), anyOf(pairs)(0)
	for i := range asks {
		n, _ := next()
		start := time.Now()
		status, body, err := c.do(template.number(n))
		if err != nil {
			return 0, err
		}
		if !isActive(status, body) {
			return 0, fmt.Errorf("introspection of a live token: status %d: %s", status, printable(string(body)))
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

// latency compares a lone introspection with many pairs to one with few.
func (r *benchRun) latency(ctx context.Context) error {
	now, err := r.loneIntrospection(ctx, r.flags.pairs)
	if err != nil {
		return err
	}
	early, ratio := millisOf(r.early), float64(now)/float64(max(r.early, 1))
	m := r.add(&benchMeasure{
		Name: "latency", What: "one lone introspection with all pairs, p50 (baseline: with few)", Unit: "ms",
		Value: millisOf(now), Baseline: &early, Ratio: &ratio,
	})
	m.detail("few_pairs", min(fewPairs, r.flags.pairs/2))
	m.goal("ratio <= 1.2", ratio <= 1.2)
	return nil
}

// restart kills a follower and measures how long its process takes to be ready again.
func (r *benchRun) restart(ctx context.Context) error {
	m := &benchMeasure{Name: "restart", What: "restart of a follower until ready, after kill -9", Unit: "s"}
	var took []float64
	for range min(r.flags.rounds, 3) {
		node, err := r.follower(ctx)
		if err != nil {
			return err
		}
		if err := r.cluster.kill(node, syscall.SIGKILL); err != nil {
			return err
		}
		t, err := r.startAgain(ctx, node)
		if err != nil {
			return err
		}
		took = append(took, t.Seconds())
	}
	node, err := r.follower(ctx)
	if err != nil {
		return err
	}
	if err := r.cluster.kill(node, syscall.SIGTERM); err != nil {
		return err
	}
	orderly, err := r.startAgain(ctx, node)
	if err != nil {
		return err
	}
	m.Value = median(took)
	m.detail("after_orderly_stop_s", orderly.Seconds())
	m.detail("worst_s", slices.Max(took))
	m.goal("<= 5 s", m.Value <= 5)
	r.add(m)
	return nil
}

func (r *benchRun) startAgain(ctx context.Context, node int) (time.Duration, error) {
	start := time.Now()
	if err := r.cluster.start(node); err != nil {
		return 0, err
	}
	if _, err := r.cluster.awaitReady(ctx, node, 2*time.Minute); err != nil {
		return 0, err
	}
	return time.Since(start), nil
}

// cutoff ends all tokens of subjects that hold many, one entry each.
func (r *benchRun) cutoff(ctx context.Context) error {
	node, err := r.follower(ctx)
	if err != nil {
		return err
	}
	if err := r.cluster.settle(ctx); err != nil {
		return err
	}
	admin := r.cluster.client("admin", node)
	if _, err := r.cluster.status(ctx, node); err != nil { // opens the connection
		return err
	}
	m := &benchMeasure{Name: "cutoff", What: "revoke all tokens of a subject, p50", Unit: "ms"}
	ask := r.introspection(r.cluster.host(0))
	var took []float64
	broken := 0
	for k := range uint64(bulkSubjects) {
		c, err := jsonCall("revoke a subject", http.MethodPost, "/v1/revocations", map[string]any{"subject": r.tokens.bulk(k), "reason": "bench"})
		if err != nil {
			return err
		}
		start := time.Now()
		if _, err := admin.do(ctx, c); err != nil {
			return err
		}
		took = append(took, millisOf(time.Since(start)))
		other, err := dialRaw(ctx, r.cluster.host((node+1)%len(r.cluster.dev.Nodes)), r.cluster.tls)
		if err != nil {
			return err
		}
		status, body, err := other.do(ask.number(k))
		other.close()
		if err != nil {
			return err
		}
		if isActive(status, body) {
			broken++
		} else if !isInactive(status, body) {
			m.fail(status, body)
		}
		if err := pause(ctx, 100*time.Millisecond); err != nil {
			return err
		}
	}
	m.Value = median(took)
	m.detail("tokens_of_a_subject", r.tokens.subjects/bulkSubjects*2)
	m.detail("promise_broken", broken)
	if r.loneP50 > 0 {
		base := millisOf(r.loneP50)
		ratio := m.Value / base
		m.Baseline, m.Ratio = &base, &ratio
		m.detail("baseline", "a lone revocation")
		m.goal("ratio <= 2", ratio <= 2 && broken == 0)
	}
	r.add(m)
	return nil
}
