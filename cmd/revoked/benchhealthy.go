package main

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// The steady load of a healthy cluster, requests per second over all nodes.
const (
	healthyReads         = 1200
	healthyRegistrations = 100
	healthyRevocations   = 100
)

// healthy puts a moderate mixed load on all nodes for a while. Nothing may be refused, and no read of a
// live token may leave its node: the nodes' own counters tell.
func (r *benchRun) healthy(ctx context.Context) error {
	seconds := r.flags.healthy.Seconds()
	ended, err := r.fresh(ctx, uint64(healthyRevocations*(seconds+1)))
	if err != nil {
		return err
	}
	made := &tokenPool{low: r.used, high: r.used + uint64(healthyRegistrations*(seconds+1))}
	r.used = made.high
	hosts := r.cluster.hosts()
	load := func(connections int, perSecond float64, next func(int) func() ([]byte, bool), good func(int, []byte) bool) pacedLoad {
		return pacedLoad{targets: hosts, tls: r.cluster.tls, connections: connections * len(hosts), perSecond: perSecond, next: next, good: good}
	}
	loads := []pacedLoad{
		load(8, healthyReads, numbered(r.introspection(hosts[0]), anyOf(r.flags.pairs)), isActive),
		load(4, healthyRegistrations, r.registrations(hosts[0], made), isRegistered),
		load(4, healthyRevocations, numbered(r.revocation(hosts[0]), ended.each), isRevoked),
	}
	before, err := r.readsThatLeft(ctx)
	if err != nil {
		return err
	}
	m := &benchMeasure{Name: "healthy", What: fmt.Sprintf("a healthy %v under mixed load, answers that were not right", r.flags.healthy), Unit: "answers"}
	results, err := r.together(ctx, loads, r.flags.healthy)
	if err != nil {
		return err
	}
	after, err := r.readsThatLeft(ctx)
	if err != nil {
		return err
	}
	for i, name := range []string{"introspection", "registration", "revocation"} {
		got := results[i]
		m.Failures += got.failures
		m.FirstFailure = first(m.FirstFailure, got.firstBad)
		m.detail(name+"s_per_second", got.rate())
		m.detail(name+"_p99_ms", latencyOf(got.latency).P99)
	}
	m.Value = float64(m.Failures)
	m.detail("live_reads_that_left_their_node", after.reads-before.reads)
	m.detail("leases_lost", after.losses-before.losses)
	m.goal("none, and no live read leaves its node", m.Failures == 0 && after.reads == before.reads)
	r.add(m)
	return nil
}

// together runs loads beside each other.
func (r *benchRun) together(ctx context.Context, loads []pacedLoad, d time.Duration) ([]loadResult, error) {
	var runs []*pacedRun
	var results []loadResult
	var err error
	for _, l := range loads {
		var run *pacedRun
		if run, err = l.start(ctx); err != nil {
			break
		}
		runs = append(runs, run)
	}
	if err == nil {
		err = pause(ctx, d)
	}
	for _, run := range runs {
		results = append(results, run.stop())
	}
	return results, err
}

// A leaving is what the nodes count of reads that their own copies could not answer.
type leaving struct {
	reads  float64
	losses float64 // of leases
}

// readsThatLeft sums over all nodes. Under a load that asks for known tokens only, every look-up that
// is answered by the leader is a read of a live token.
func (r *benchRun) readsThatLeft(ctx context.Context) (leaving, error) {
	var sum leaving
	for i, n := range r.cluster.dev.Nodes {
		losses, ok := r.cluster.counter(ctx, i, "revoked_lease_losses_total")
		if !ok {
			return sum, fmt.Errorf("%s does not show its metrics", n.ID)
		}
		unleased, _ := r.cluster.counter(ctx, i, `revoked_lookups_total{verdict="unleased"}`) // absent until one is counted
		unknown, _ := r.cluster.counter(ctx, i, `revoked_lookups_total{verdict="unknown"}`)
		sum.reads += unleased + unknown
		sum.losses += losses
	}
	return sum, nil
}

// registrations returns requests that register one pair each.
func (r *benchRun) registrations(host string, pool *tokenPool) func(int) func() ([]byte, bool) {
	basic := r.cluster.basic("issuer")
	return func(int) func() ([]byte, bool) {
		pairs := newPairReader(r.tokens, 0, 0)
		var request []byte
		return func() ([]byte, bool) {
			n, ok := pool.take()
			if !ok {
				return nil, false
			}
			pairs.buf = pairs.buf[:0]
			pairs.line(n)
			request = fmt.Appendf(request[:0], "POST /v1/grants HTTP/1.1\r\nHost: %s\r\nAuthorization: Basic %s\r\n"+
				"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", host, basic, len(pairs.buf), pairs.buf)
			return request, true
		}
	}
}

func isRegistered(status int, body []byte) bool {
	return status == http.StatusCreated && strings.Contains(string(body), `"state":"active"`)
}
