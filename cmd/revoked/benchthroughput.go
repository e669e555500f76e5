package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"time"
)

// register makes the live pairs: the measure of bulk registration.
func (r *benchRun) register(ctx context.Context) error {
	if empty, err := r.uses(); err == nil {
		r.empty = empty
	}
	few := min(fewPairs, r.flags.pairs/2)
	if _, err := r.cluster.register(ctx, r.tokens, 0, few); err != nil {
		return err
	}
	r.used = few
	var err error
	if r.early, err = r.loneIntrospection(ctx, few); err != nil {
		return err
	}
	took, err := r.cluster.register(ctx, r.tokens, few, r.flags.pairs)
	if err != nil {
		return err
	}
	r.used = r.flags.pairs
	rate := float64(r.flags.pairs-few) / took.Seconds()
	m := r.add(&benchMeasure{Name: "register", What: "bulk registration (NDJSON), a stream a node", Unit: "pairs/s", Value: rate})
	m.goal(">= 15000 on 2 CPUs", rate >= 15_000)
	m.detail("pairs", r.flags.pairs-few)
	r.say("register", "%.0f pairs/s", rate)
	return r.cluster.settle(ctx)
}

// introspect measures introspections of live tokens at one follower.
func (r *benchRun) introspect(ctx context.Context) error {
	return r.introspections(ctx, &benchMeasure{Name: "introspect", What: "introspections of live tokens, one follower", Unit: "1/s"}, nil)
}

// besideRate is how many revocations a second run beside introspections.
const besideRate = 500

// beside measures the same while pairs are revoked at a steady rate through all nodes, beside either
// side: so the baseline shares the machine with a cluster that does the same work.
func (r *benchRun) beside(ctx context.Context) error {
	seconds := r.flags.duration.Seconds() + 2 // what a run starts and ends with
	pool, err := r.fresh(ctx, uint64(2*besideRate*seconds*float64(r.flags.rounds)))
	if err != nil {
		return err
	}
	m := &benchMeasure{Name: "beside", What: fmt.Sprintf("the same beside %d revocations/s", besideRate), Unit: "1/s"}
	return r.introspections(ctx, m, &pacedLoad{
		targets: r.cluster.hosts(), tls: r.cluster.tls, connections: 63, perSecond: besideRate,
		next: numbered(r.revocation(r.cluster.host(0)), pool.each), good: isRevoked,
	})
}

// introspections measures introspections of live tokens at one follower, with what runs beside them.
func (r *benchRun) introspections(ctx context.Context, m *benchMeasure, beside *pacedLoad) error {
	if err := r.startBaseline(ctx); err != nil {
		return err
	}
	node, err := r.follower(ctx)
	if err != nil {
		return err
	}
	host := r.cluster.host(node)
	subject := load{
		targets: []string{host}, tls: r.cluster.tls, lean: r.flags.client == clientLean,
		connections: r.flags.connections, duration: r.flags.duration,
		template: r.introspection(host), next: anyOf(r.flags.pairs), good: isActive,
	}
	baseline := subject
	baseline.targets, baseline.tls = []string{r.baseline.addr}, r.baseline.tls
	if err := r.warmCache(ctx, subject); err != nil {
		return err
	}
	hits, _ := r.cluster.counter(ctx, node, "revoked_cache_hits_total")
	misses, _ := r.cluster.counter(ctx, node, "revoked_cache_misses_total")
	c := &comparison{subject: subject, baseline: baseline, beside: beside}
	if err := r.turns(ctx, m, c); err != nil {
		return err
	}
	hits2, okHits := r.cluster.counter(ctx, node, "revoked_cache_hits_total")
	misses2, okMisses := r.cluster.counter(ctx, node, "revoked_cache_misses_total")
	hitRatio := 0.0
	if asked := hits2 - hits + misses2 - misses; okHits && okMisses && asked > 0 {
		hitRatio = (hits2 - hits) / asked
		m.detail("cache_hit_ratio", hitRatio)
	}
	if beside != nil {
		m.Failures += c.besides.failures
		m.FirstFailure = first(m.FirstFailure, c.besides.firstBad)
		m.detail("revocations_per_second", c.besides.rate())
		m.detail("revocation_p99_ms", latencyOf(c.besides.latency).P99)
	}
	m.goal("ratio >= 0.85, hits >= 0.9", *m.Ratio >= 0.85 && hitRatio >= 0.9 && m.Failures == 0)
	r.add(m)
	return nil
}

// warmCache asks for every live pair once, as far as half a minute goes: a node that has been up for a
// while has seen its tokens.
func (r *benchRun) warmCache(ctx context.Context, l load) error {
	pairs := &tokenPool{high: r.flags.pairs}
	l.next = pairs.each
	return r.warmUp(ctx, 30*time.Second, l)
}

// revoke measures revocations of live pairs over connections spread over all nodes.
func (r *benchRun) revoke(ctx context.Context) error {
	if err := r.startBaseline(ctx); err != nil {
		return err
	}
	subject := load{
		targets: r.cluster.hosts(), tls: r.cluster.tls, lean: r.flags.client == clientLean,
		connections: r.flags.connections, duration: r.flags.duration,
		template: r.revocation(r.cluster.host(0)), good: isRevoked,
	}
	baseline := subject
	baseline.targets, baseline.tls, baseline.next = []string{r.baseline.addr}, r.baseline.tls, anyOf(r.flags.pairs)
	pool, err := r.revocationPool(ctx, subject)
	if err != nil {
		return err
	}
	m := &benchMeasure{Name: "revoke", What: "revocations of live pairs, all nodes", Unit: "1/s"}
	err = r.turns(ctx, m, &comparison{subject: subject, baseline: baseline, before: func(l *load) error {
		p, err := r.fresh(ctx, pool)
		if err != nil {
			return err
		}
		l.next = p.each
		return nil
	}})
	if err != nil {
		return err
	}
	m.goal("ratio >= 0.5", *m.Ratio >= 0.5 && m.Failures == 0)
	r.add(m)
	return nil
}

// revocationPool warms the nodes up and returns how many pairs a turn needs: more than it can revoke.
func (r *benchRun) revocationPool(ctx context.Context, subject load) (uint64, error) {
	const warm = 5000
	p, err := r.fresh(ctx, warm)
	if err != nil {
		return 0, err
	}
	subject.next, subject.duration = p.each, min(r.flags.duration, time.Second)
	got, err := subject.run(ctx)
	if err != nil {
		return 0, err
	}
	pool := uint64(2 * got.rate() * r.flags.duration.Seconds())
	return min(max(pool, warm), 1_000_000), nil
}

// fresh registers n more pairs and returns them.
func (r *benchRun) fresh(ctx context.Context, n uint64) (*tokenPool, error) {
	low := r.used
	if _, err := r.cluster.register(ctx, r.tokens, low, low+n); err != nil {
		return nil, err
	}
	r.used += n
	return &tokenPool{low: low, high: low + n}, r.cluster.settle(ctx)
}

// protocolName words what a connection agreed on.
func protocolName(version, suite uint16) string {
	return "HTTP/1.1, " + tls.VersionName(version) + ", " + tls.CipherSuiteName(suite)
}
