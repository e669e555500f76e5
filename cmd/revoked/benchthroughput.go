package main

import (
	"context"
	"crypto/tls"
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
	if err := r.warmUp(ctx, min(r.flags.duration, 2*time.Second), subject); err != nil {
		return err
	}
	hits, _ := r.cluster.counter(ctx, node, "revoked_cache_hits_total")
	misses, _ := r.cluster.counter(ctx, node, "revoked_cache_misses_total")
	m := &benchMeasure{Name: "introspect", What: "introspections of live tokens, one follower", Unit: "1/s"}
	if err := r.turns(ctx, m, subject, baseline, func(*load) error { return nil }); err != nil {
		return err
	}
	hits2, okHits := r.cluster.counter(ctx, node, "revoked_cache_hits_total")
	misses2, okMisses := r.cluster.counter(ctx, node, "revoked_cache_misses_total")
	if asked := hits2 - hits + misses2 - misses; okHits && okMisses && asked > 0 {
		m.detail("cache_hit_ratio", (hits2-hits)/asked)
	}
	m.goal("ratio >= 0.85", *m.Ratio >= 0.85 && m.Failures == 0)
	r.add(m)
	return nil
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
	err = r.turns(ctx, m, subject, baseline, func(l *load) error {
		p, err := r.fresh(ctx, pool)
		if err != nil {
			return err
		}
		l.next = p.each
		return nil
	})
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
