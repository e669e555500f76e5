package bench

import (
	"context"
	"time"

	"revoked/cmd/revoked/internal/bench/host"
	"revoked/cmd/revoked/internal/bench/load"
	"revoked/cmd/revoked/internal/bench/report"
)

// growthPairs is the number of pairs whose registration is compared at the start and at the end.
const growthPairs = 100_000

// A registered holds the cost of one bulk registration.
type registered struct {
	pairs uint64
	took  time.Duration
	cpu   time.Duration // processor time of all nodes; 0 if the system does not report it
}

func (g *registered) rate() float64 { return float64(g.pairs) / max(g.took, 1).Seconds() }

func (g *registered) add(o registered) {
	g.pairs, g.took, g.cpu = g.pairs+o.pairs, g.took+o.took, g.cpu+o.cpu
}

// registerLive registers the pairs from low up to high, which stay active.
func (r *run) registerLive(ctx context.Context, low, high uint64) (registered, error) {
	before, errBefore := host.ProcessorTimes(r.cluster.pids())
	took, err := r.registerPairs(ctx, r.tokens, low, high)
	if err != nil {
		return registered{}, err
	}
	g := registered{pairs: high - low, took: took}
	after, errAfter := host.ProcessorTimes(r.cluster.pids())
	if errBefore == nil && errAfter == nil {
		g.cpu = after - before
	}
	return g, nil
}

// register registers the active pairs and measures the rate. While the cluster holds few pairs, it
// measures the baselines of latency and pace. With many pairs, it compares the first ones with the
// last ones.
func (r *run) register(ctx context.Context) error {
	r.empty, _ = r.uses() // nil if the system does not report it
	r.used = r.opts.Pairs // the pairs of other measures have higher numbers
	few := min(fewPairs, r.opts.Pairs/2)
	if _, err := r.registerLive(ctx, 0, few); err != nil {
		return err
	}
	var err error
	if r.early, err = r.loneIntrospection(ctx, few); err != nil {
		return err
	}
	if r.wants("pace") {
		if r.earlyPace, err = r.revocationPace(ctx); err != nil {
			return err
		}
	}
	edges := []uint64{few, r.opts.Pairs}
	if r.opts.Pairs >= 3*growthPairs {
		edges = []uint64{few, few + growthPairs, r.opts.Pairs - growthPairs, r.opts.Pairs}
	}
	var all registered
	var parts []registered
	for i := range len(edges) - 1 {
		part, err := r.registerLive(ctx, edges[i], edges[i+1])
		if err != nil {
			return err
		}
		all.add(part)
		parts = append(parts, part)
	}
	m := &report.Measure{Name: "register", What: "bulk registration (NDJSON), one stream per node", Unit: "pairs/s"}
	m.Value = all.rate()
	m.SetGoal(">= 15000 on 2 CPUs", m.Value >= 15_000)
	m.SetDetail("pairs", all.pairs)
	if all.cpu > 0 {
		m.SetDetail("processor_us_per_pair_of_all_nodes", host.Micros(all.cpu)/float64(all.pairs))
	}
	r.report.Measures = append(r.report.Measures, m)
	if len(parts) > 1 {
		r.report.Measures = append(r.report.Measures, growth(parts[0], parts[len(parts)-1]))
	}
	r.say("register", "%.0f pairs/s", m.Value)
	return r.cluster.awaitIdle(ctx)
}

// growth compares the registration of the last pairs with that of the first ones.
func growth(first, last registered) *report.Measure {
	m := &report.Measure{
		Name: "growth", What: "registration of the last 100,000 pairs (baseline: of the first)", Unit: "pairs/s",
		Value: last.rate(),
	}
	m.Compare(first.rate(), first.rate()/max(last.rate(), 1))
	if first.cpu > 0 && last.cpu > 0 {
		m.SetDetail("processor_us_per_pair_first", host.Micros(first.cpu)/float64(first.pairs))
		m.SetDetail("processor_us_per_pair_last", host.Micros(last.cpu)/float64(last.pairs))
	}
	m.SetGoal("at most 1.5 times slower", *m.Ratio <= 1.5)
	return m
}

// paceFastest is greater than the number of pairs that the cluster can revoke in a second.
const paceFastest = 8000

// revocationPace revokes fresh pairs at all nodes for one turn.
func (r *run) revocationPace(ctx context.Context) (*load.Result, error) {
	p, err := r.fresh(ctx, uint64(paceFastest*r.opts.Duration.Seconds()))
	if err != nil {
		return nil, err
	}
	return r.paceOf(ctx, p)
}

// paceOf revokes the pairs of p at all nodes for one turn.
func (r *run) paceOf(ctx context.Context, p *pool) (*load.Result, error) {
	l := r.revocations(p.each, r.opts.lean())
	l.Connections, l.Duration = r.opts.Connections, r.opts.Duration
	return (&comparison{}).turn(ctx, l, r.cluster.pids())
}

// pace compares revocations while the cluster holds all pairs with revocations while it held few.
func (r *run) pace(ctx context.Context, m *report.Measure) error {
	now, err := r.revocationPace(ctx)
	if err != nil {
		return err
	}
	m.Tally.Add(now.Tally)
	m.Tally.Add(r.earlyPace.Tally)
	m.Value = now.Rate()
	m.Compare(r.earlyPace.Rate(), r.earlyPace.Rate()/max(now.Rate(), 1))
	m.Rounds = []report.Round{{Subject: now.Rate(), Baseline: r.earlyPace.Rate(), Latency: report.LatencyOf(&now.Latency),
		SubjectCPUUS: now.CPU, BaselineCPUUS: r.earlyPace.CPU}}
	m.SetGoal("at most 1.2 times slower", *m.Ratio <= 1.2 && m.Failures == 0)
	return nil
}
