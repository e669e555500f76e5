package bench

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"

	"revoked/cmd/revoked/internal/bench/load"
	"revoked/cmd/revoked/internal/bench/report"
)

// The load of a healthy cluster in requests a second over all nodes.
const (
	healthyReads         = 1200
	healthyRegistrations = 100
	healthyRevocations   = 100
)

// healthy puts a moderate mixed load on all nodes. No request may fail. No introspection of an
// active token may be forwarded, as the metrics of the nodes show.
func (r *run) healthy(ctx context.Context, m *report.Measure) error {
	seconds := r.opts.Healthy.Seconds()
	ended, err := r.fresh(ctx, uint64(healthyRevocations*(seconds+1)))
	if err != nil {
		return err
	}
	made := &pool{low: r.used, high: r.used + uint64(healthyRegistrations*(seconds+1))}
	r.used = made.high
	introspections, revocations := r.reads(), r.revocations(ended.each, true)
	registrations := load.Load{
		Request: r.cluster.request("issuer", "/v1/grants", "application/json"),
		Bodies:  r.tokens.registrations(made), Good: isRegistered,
	}
	introspections.Connections, introspections.PerSecond = 8, healthyReads
	registrations.Connections, registrations.PerSecond = 4, healthyRegistrations
	revocations.Connections, revocations.PerSecond = 4, healthyRevocations
	loads := []load.Load{introspections, registrations, revocations}
	for i := range loads {
		loads[i].Targets, loads[i].Duration = r.cluster.targets(true), r.opts.Healthy
		loads[i].Connections *= len(r.cluster.nodes)
	}
	reads, losses, err := r.forwardedReads(ctx)
	if err != nil {
		return err
	}
	results, err := together(ctx, loads)
	if err != nil {
		return err
	}
	readsAfter, lossesAfter, err := r.forwardedReads(ctx)
	if err != nil {
		return err
	}
	for i, name := range []string{"introspection", "registration", "revocation"} {
		m.Tally.Add(results[i].Tally)
		m.SetDetail(name+"s_per_second", results[i].Rate())
		m.SetDetail(name+"_p99_ms", report.LatencyOf(&results[i].Latency).P99)
	}
	m.What = fmt.Sprintf(m.What, r.opts.Healthy)
	m.Value = float64(m.Failures)
	m.SetDetail("live_reads_that_left_their_node", readsAfter-reads)
	m.SetDetail("leases_lost", lossesAfter-losses)
	m.SetGoal("none, and no read of an active token forwarded", m.Failures == 0 && readsAfter == reads)
	return nil
}

func together(ctx context.Context, loads []load.Load) ([]*load.Result, error) {
	results, errs := make([]*load.Result, len(loads)), make([]error, len(loads))
	var wg sync.WaitGroup
	for i, l := range loads {
		wg.Go(func() { results[i], errs[i] = l.Run(ctx) })
	}
	wg.Wait()
	return results, errors.Join(errs...)
}

// forwardedReads counts reads that a node could not answer from its own copy, and lost leases, over
// all nodes. Under a load of known tokens, every lookup that the leader answers is a read of an
// active token.
func (r *run) forwardedReads(ctx context.Context) (reads, losses float64, err error) {
	for i, n := range r.cluster.nodes {
		lost, ok := r.cluster.counter(ctx, i, "revoked_lease_losses_total")
		if !ok {
			return 0, 0, fmt.Errorf("%s does not show its metrics", n.ID)
		}
		unleased, _ := r.cluster.counter(ctx, i, `revoked_lookups_total{verdict="unleased"}`) // absent until one is counted
		unknown, _ := r.cluster.counter(ctx, i, `revoked_lookups_total{verdict="unknown"}`)
		reads, losses = reads+unleased+unknown, losses+lost
	}
	return reads, losses, nil
}

func isRegistered(status int, body []byte) bool {
	return status == http.StatusCreated && strings.Contains(string(body), `"state":"active"`)
}
