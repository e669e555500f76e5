package bench

import (
	"context"
	"fmt"
	"net/http"
	"sync"
	"time"

	"revoked/cmd/revoked/internal/bench/host"
	"revoked/cmd/revoked/internal/bench/report"
	"revoked/internal/retry"
)

// importStep is the number of pairs that one call of the import registers, over all nodes.
const importStep = 6_000

// importing measures single revocations while one issuer registers pairs as fast as it can through
// every node. At the same time, active tokens are introspected at every node. No node may lose its
// lease or its readiness, and no introspection of an active token may be forwarded.
func (r *run) importing(ctx context.Context, m *report.Measure) error {
	n := uint64(r.opts.Lone) + uint64(len(r.cluster.nodes))
	ended, err := r.fresh(ctx, 2*n)
	if err != nil {
		return err
	}
	leader, err := r.cluster.leader(ctx)
	if err != nil {
		return err
	}
	idle, err := r.revokeSingly(ctx, &pool{low: ended.low, high: ended.low + n}, m)
	if err != nil {
		return err
	}
	reads, losses, err := r.forwardedReads(ctx)
	if err != nil {
		return err
	}

	inner, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	var imported uint64
	var took time.Duration
	var importErr error
	wg.Go(func() { imported, took, importErr = r.importUntil(inner) })
	var unready int
	wg.Go(func() { unready = r.countUnready(inner) })
	l := r.reads(r.cluster.targets(true)...)
	l.Connections, l.PerSecond = len(r.cluster.nodes), 100
	readRun, err := l.Start(inner)
	if err != nil {
		return err
	}
	if err := retry.Sleep(ctx, 2*time.Second); err != nil { // the import needs time to begin
		return err
	}
	busy, err := r.revokeSingly(ctx, &pool{low: ended.low + n, high: ended.high}, m)
	readResult := readRun.Stop()
	cancel()
	wg.Wait()
	if err != nil {
		return err
	}
	if importErr != nil {
		return fmt.Errorf("import: %w", importErr)
	}
	readsAfter, lossesAfter, err := r.forwardedReads(ctx)
	if err != nil {
		return err
	}
	m.Tally.Add(readResult.Tally)
	before, during := report.LatencyOf(&idle.all), report.LatencyOf(&busy.all)
	m.Value = during.P99
	m.Compare(before.P99, during.P99/before.P99)
	m.Rounds = []report.Round{{Subject: during.P50, Baseline: before.P50, Latency: during}}
	m.SetDetail("baseline", "idle cluster")
	m.SetDetail("at_leader_p50_ms", host.Millis(busy.byNode[leader].Quantile(0.5)))
	m.SetDetail("imported_pairs_per_second", float64(imported)/took.Seconds())
	m.SetDetail("introspection_p99_ms", report.LatencyOf(&readResult.Latency).P99)
	m.SetDetail("live_reads_that_left_their_node", readsAfter-reads)
	m.SetDetail("leases_lost", lossesAfter-losses)
	m.SetDetail("readyz_not_200", unready)
	m.SetDetail("promise_broken", m.Broken)
	m.SetGoal("ratio <= 3, no lease lost, ready everywhere, no read of an active token forwarded", *m.Ratio <= 3 &&
		m.Failures == 0 && m.Broken == 0 && unready == 0 && readsAfter == reads && lossesAfter == losses)
	return nil
}

// importUntil registers pairs until ctx ends. It returns their number and the time that they took.
func (r *run) importUntil(ctx context.Context) (pairs uint64, took time.Duration, err error) {
	for ctx.Err() == nil {
		low := r.used
		r.used += importStep // even if the call is interrupted: no pair is registered twice
		step, err := r.cluster.register(ctx, r.tokens, low, low+importStep)
		if ctx.Err() != nil {
			break
		}
		if err != nil {
			return pairs, took, err
		}
		pairs, took = pairs+importStep, took+step
	}
	if pairs == 0 {
		return 0, time.Second, nil
	}
	return pairs, took, nil
}

// countUnready reads /readyz of every node ten times a second until ctx ends, and counts
// the answers that are not 200.
func (r *run) countUnready(ctx context.Context) (unready int) {
	for retry.Sleep(ctx, 100*time.Millisecond) == nil {
		for i := range r.cluster.nodes {
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, r.cluster.nodes[i].API+"/readyz", nil)
			if err != nil {
				return unready
			}
			resp, err := r.cluster.HTTP.Do(req)
			if err == nil {
				_ = resp.Body.Close()
			}
			if ctx.Err() == nil && (err != nil || resp.StatusCode != http.StatusOK) {
				unready++
			}
		}
	}
	return unready
}
