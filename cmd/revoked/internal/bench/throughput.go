package bench

import (
	"context"
	"time"

	"revoked/cmd/revoked/internal/bench/load"
	"revoked/cmd/revoked/internal/bench/report"
)

func (r *run) introspect(ctx context.Context, m *report.Measure) error {
	return r.introspections(ctx, m, nil)
}

// besideRate is the number of revocations a second during introspections.
const besideRate = 500

// beside measures introspections while pairs are revoked at a steady rate through all nodes. The
// revocations run during the measurement of both sides, so that the baseline shares the machine
// with the same work.
func (r *run) beside(ctx context.Context, m *report.Measure) error {
	seconds := r.opts.Duration.Seconds() + 2 // start and end of a turn take time
	ended, err := r.fresh(ctx, uint64(2*besideRate*seconds*float64(r.opts.Rounds)))
	if err != nil {
		return err
	}
	revocations := r.revocations(ended.each, true)
	revocations.Connections, revocations.PerSecond = 63, besideRate
	return r.introspections(ctx, m, &revocations)
}

// introspections compares introspections of active tokens at one follower with the baseline. If
// beside is not nil, that load runs at the same time.
func (r *run) introspections(ctx context.Context, m *report.Measure, beside *load.Load) error {
	node, err := r.cluster.follower(ctx)
	if err != nil {
		return err
	}
	c, err := r.compare(ctx, r.reads(r.cluster.target(node, r.opts.lean())))
	if err != nil {
		return err
	}
	c.beside = beside
	if beside == nil {
		if err := r.againstPeer(ctx, c, (*etcd).reads); err != nil {
			return err
		}
	}
	// Fill the cache as on a node that has been up for a while: introspect each token once, for at
	// most half a minute.
	warm := c.subject
	warm.Bodies, warm.Duration = forms(r.tokens.access(), (&pool{high: r.opts.Pairs}).each), 30*time.Second
	if _, err := warm.Run(ctx); err != nil {
		return err
	}
	hits, lookups, _ := r.cacheUse(ctx, node)
	if err := r.turns(ctx, m, c); err != nil {
		return err
	}
	hits2, lookups2, ok := r.cacheUse(ctx, node)
	hitRatio := 0.0
	if ok && lookups2 > lookups {
		hitRatio = (hits2 - hits) / (lookups2 - lookups)
		m.SetDetail("cache_hit_ratio", hitRatio)
	}
	if beside != nil {
		m.Tally.Add(c.besides.Tally)
		m.SetDetail("revocations_per_second", c.besides.Rate())
		m.SetDetail("revocation_p99_ms", report.LatencyOf(&c.besides.Latency).P99)
	}
	m.SetGoal("ratio >= 0.85, hits >= 0.9", *m.Ratio >= 0.85 && hitRatio >= 0.9 && m.Failures == 0)
	return nil
}

// cacheUse returns the numbers of cache hits and of cache lookups of a node.
func (r *run) cacheUse(ctx context.Context, node int) (hits, lookups float64, ok bool) {
	hits, okHits := r.cluster.counter(ctx, node, "revoked_cache_hits_total")
	misses, okMisses := r.cluster.counter(ctx, node, "revoked_cache_misses_total")
	return hits, hits + misses, okHits && okMisses
}

func (r *run) revoke(ctx context.Context, m *report.Measure) error {
	c, err := r.compare(ctx, r.revocations(anyOf(r.opts.Pairs), r.opts.lean()))
	if err != nil {
		return err
	}
	perTurn, err := r.pairsPerTurn(ctx, c.subject)
	if err != nil {
		return err
	}
	c.before = func(subject *load.Load) error {
		p, err := r.fresh(ctx, perTurn)
		if err != nil {
			return err
		}
		subject.Bodies = forms(r.tokens.refresh(), p.each)
		return nil
	}
	deletions := func(e *etcd) load.Load { return e.deletions(anyOf(etcdLive)) }
	if err := r.againstPeer(ctx, c, deletions); err != nil {
		return err
	}
	c.beforePeer = func(peer *load.Load) error {
		p, err := r.peer.fresh(ctx, 3*perTurn)
		if err != nil {
			return err
		}
		*peer = r.peer.deletions(p.each)
		peer.Connections, peer.Duration = r.opts.Connections, r.opts.Duration
		return nil
	}
	if err := r.turns(ctx, m, c); err != nil {
		return err
	}
	m.SetGoal("ratio >= 0.5", *m.Ratio >= 0.5 && m.Failures == 0)
	return nil
}

// pairsPerTurn warms the nodes up and returns a number of pairs greater than a turn can revoke.
func (r *run) pairsPerTurn(ctx context.Context, subject load.Load) (uint64, error) {
	const warm = 5000
	p, err := r.fresh(ctx, warm)
	if err != nil {
		return 0, err
	}
	subject.Bodies, subject.Duration = forms(r.tokens.refresh(), p.each), min(r.opts.Duration, time.Second)
	got, err := subject.Run(ctx)
	if err != nil {
		return 0, err
	}
	return min(max(uint64(2*got.Rate()*r.opts.Duration.Seconds()), warm), 1_000_000), nil
}

// maxCurveTurn is the longest turn of a point.
const maxCurveTurn = 2 * time.Second

// curve measures introspections and revocations with 1 to 512 connections. The value is the highest
// rate of revocations.
func (r *run) curve(ctx context.Context, m *report.Measure) error {
	node, err := r.cluster.follower(ctx)
	if err != nil {
		return err
	}
	for connections := 1; connections <= 512; connections *= 2 {
		reads := r.reads(r.cluster.target(node, r.opts.lean()))
		if err := r.point(ctx, m, report.LoadIntrospect, reads, connections); err != nil {
			return err
		}
		revocations := r.revocations(anyOf(r.opts.Pairs), r.opts.lean())
		revocations.Connections = connections
		perTurn, err := r.pairsPerTurn(ctx, revocations)
		if err != nil {
			return err
		}
		p, err := r.fresh(ctx, perTurn)
		if err != nil {
			return err
		}
		revocations.Bodies = forms(r.tokens.refresh(), p.each)
		if err := r.point(ctx, m, report.LoadRevoke, revocations, connections); err != nil {
			return err
		}
		m.Value = max(m.Value, m.Points[len(m.Points)-1].Rate)
	}
	m.SetGoal("no failure", m.Failures == 0)
	return nil
}

// point runs one turn and adds it to m.
func (r *run) point(ctx context.Context, m *report.Measure, name string, l load.Load, connections int) error {
	l.Connections, l.Duration = connections, min(r.opts.Duration, maxCurveTurn)
	got, err := l.Run(ctx)
	if err != nil {
		return err
	}
	m.Tally.Add(got.Tally)
	p := report.Point{Load: name, Connections: connections, Rate: got.Rate(), Latency: report.LatencyOf(&got.Latency)}
	m.Points = append(m.Points, p)
	r.say(m.Name, "%s, %d connections: %.0f/s, p99 %.1f ms", name, connections, p.Rate, p.Latency.P99)
	return nil
}
