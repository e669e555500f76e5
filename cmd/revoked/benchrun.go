package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"time"
)

// A benchRun takes the measures one after the other.
type benchRun struct {
	flags    *benchFlags
	cluster  *benchCluster
	baseline *baselineServer // started when it is first needed
	report   *benchReport
	progress io.Writer
	started  time.Time
	tokens   benchTokens
	used     uint64 // pairs registered so far: those below flags.pairs stay live
	empty    []nodeUse
	loneP50  time.Duration // of a lone revocation
	early    time.Duration // p50 of a lone introspection when the cluster held few pairs
}

// fewPairs is how many pairs there are when the cluster counts as nearly empty.
const fewPairs = 10_000

// A measure is one thing that bench can measure.
type measure struct {
	name  string
	pairs bool // it needs the live pairs
	owned bool // it starts and kills nodes: only of a cluster of its own
	take  func(*benchRun, context.Context) error
}

// measures returns them in the order in which they are taken: what ends tokens in bulk comes last.
func measures() []measure {
	return []measure{
		{"idle", false, false, (*benchRun).idle},
		{"register", true, false, nil}, // taken while the pairs are made
		{"introspect", true, false, (*benchRun).introspect},
		{"beside", true, false, (*benchRun).beside},
		{"latency", true, false, (*benchRun).latency},
		{"revoke", true, false, (*benchRun).revoke},
		{"lone", true, false, (*benchRun).lone},
		{"size", true, false, (*benchRun).size},
		{"restart", true, true, (*benchRun).restart},
		{"healthy", true, false, (*benchRun).healthy},
		{"failover", true, true, (*benchRun).failover},
		{"comeback", true, true, (*benchRun).comeback},
		{"cutoff", true, false, (*benchRun).cutoff},
	}
}

func measureNames() []string {
	var names []string
	for _, m := range measures() {
		names = append(names, m.name)
	}
	return names
}

// all takes the measures that were asked for. One that fails does not stop the others.
func (r *benchRun) all(ctx context.Context) error {
	var failed []error
	registered := false
	for _, m := range measures() {
		if len(r.flags.only) > 0 && !slices.Contains(r.flags.only, m.name) {
			continue
		}
		if m.owned && r.cluster.children == nil {
			fmt.Fprintf(r.progress, "%s: left out, the cluster is not its own\n", m.name)
			continue
		}
		if m.pairs && !registered {
			r.say("register", "%d pairs", r.flags.pairs)
			if err := r.register(ctx); err != nil {
				return errors.Join(append(failed, err)...)
			}
			registered = true
		}
		if m.take == nil {
			continue
		}
		r.say(m.name, "starts")
		if err := m.take(r, ctx); err != nil {
			failed = append(failed, fmt.Errorf("%s: %w", m.name, err))
		}
		if ctx.Err() != nil {
			break
		}
	}
	return errors.Join(failed...)
}

func (r *benchRun) say(name, format string, args ...any) {
	fmt.Fprintf(r.progress, "%6.1f s  %s: %s\n", time.Since(r.started).Seconds(), name, fmt.Sprintf(format, args...))
}

func (r *benchRun) close() {
	if r.baseline != nil {
		r.baseline.stop()
	}
}

func (r *benchRun) add(m *benchMeasure) *benchMeasure {
	r.report.Measures = append(r.report.Measures, m)
	return m
}

// follower returns a node that does not lead; the only node where there is no other.
func (r *benchRun) follower(ctx context.Context) (int, error) {
	leader, err := r.cluster.leader(ctx)
	if err != nil {
		return 0, err
	}
	return (leader + 1) % len(r.cluster.dev.Nodes), nil
}

const (
	revokePath     = "/oauth2/revoke"
	introspectPath = "/oauth2/introspect"
)

// introspection returns the request of an introspection of an access token.
func (r *benchRun) introspection(host string) requestTemplate {
	return formTemplate(introspectPath, host, r.cluster.basic("resource_server"), r.tokens.access())
}

// revocation returns the request of a revocation, by its client, of a refresh token and so its pair.
func (r *benchRun) revocation(host string) requestTemplate {
	return formTemplate(revokePath, host, r.cluster.basic("app"), r.tokens.refresh())
}

func isActive(status int, body []byte) bool {
	return status == http.StatusOK && bytes.HasPrefix(body, []byte(`{"active":true`))
}

func isInactive(status int, body []byte) bool {
	return status == http.StatusOK && string(body) == `{"active":false}`
}

func isRevoked(status int, body []byte) bool {
	return status == http.StatusOK && string(body) == `{}`
}

// startBaseline starts the baseline with the bodies that the cluster answers with.
func (r *benchRun) startBaseline(ctx context.Context) error {
	if r.baseline != nil {
		return nil
	}
	c, err := dialRaw(ctx, r.cluster.host(0), r.cluster.tls)
	if err != nil {
		return err
	}
	defer c.close()
	status, body, err := c.do(r.introspection(r.cluster.host(0)).number(0))
	if err != nil {
		return err
	}
	if !isActive(status, body) {
		return fmt.Errorf("introspection of a live token: status %d: %s", status, printable(string(body)))
	}
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	r.baseline, err = startBaseline(exe, map[string]string{introspectPath: string(body), revokePath: `{}`})
	return err
}

// A comparison is what is measured in turns.
type comparison struct {
	subject, baseline load
	before            func(subject *load) error // ahead of each turn of the subject, not measured; nil: nothing
	beside            *pacedLoad                // runs beside both; nil: nothing does
	besides           loadResult                // what that came to in all
}

// timed runs one side, with what runs beside it.
func (c *comparison) timed(ctx context.Context, l load, pids []int) (got loadResult, cpu float64, err error) {
	if c.beside == nil {
		return timed(ctx, l, pids)
	}
	run, err := c.beside.start(ctx)
	if err != nil {
		return loadResult{}, 0, err
	}
	got, cpu, err = timed(ctx, l, pids)
	c.besides.add(run.stop())
	return got, cpu, err
}

// turns runs baseline and subject in turns and fills in the measure.
func (r *benchRun) turns(ctx context.Context, m *benchMeasure, c *comparison) error {
	warm := min(r.flags.duration, time.Second)
	var subjects, baselines, ratios []float64
	for round := range r.flags.rounds {
		if c.before != nil {
			if err := c.before(&c.subject); err != nil {
				return err
			}
		}
		if round == 0 {
			if err := r.warmUp(ctx, warm, c.baseline); err != nil {
				return err
			}
		}
		base, baseCPU, err := c.timed(ctx, c.baseline, []int{r.baseline.cmd.Process.Pid})
		if err != nil {
			return err
		}
		got, gotCPU, err := c.timed(ctx, c.subject, r.cluster.pids())
		if err != nil {
			return err
		}
		if base.suite != got.suite || base.version != got.version {
			return errors.New("baseline and subject agreed on different protocols or cipher suites")
		}
		if base.failures > 0 {
			return fmt.Errorf("the baseline failed: %s", base.firstBad)
		}
		m.Failures += got.failures
		m.FirstFailure = first(m.FirstFailure, got.firstBad)
		baseLatency := latencyOf(base.latency)
		m.Rounds = append(m.Rounds, benchRound{
			Subject: got.rate(), Baseline: base.rate(), Latency: latencyOf(got.latency), BaselineLatency: &baseLatency,
			SubjectCPUUS: gotCPU, BaselineCPUUS: baseCPU,
		})
		subjects, baselines = append(subjects, got.rate()), append(baselines, base.rate())
		ratios = append(ratios, got.rate()/max(base.rate(), 1))
		r.say(m.Name, "round %d: %.0f %s, baseline %.0f, ratio %.2f", round+1, got.rate(), m.Unit, base.rate(), got.rate()/max(base.rate(), 1))
		m.detail("protocol", protocolName(got.version, got.suite))
	}
	m.Value = median(subjects)
	b, ratio := median(baselines), median(ratios)
	m.Baseline, m.Ratio = &b, &ratio
	return nil
}

// timed runs l and returns as well how many microseconds of processor time a request took of the
// processes; 0 where that is not known.
func timed(ctx context.Context, l load, pids []int) (loadResult, float64, error) {
	before, err := processorTimes(pids)
	got, runErr := l.run(ctx)
	if runErr != nil || err != nil || got.requests == 0 {
		return got, 0, runErr
	}
	after, err := processorTimes(pids)
	if err != nil {
		return got, 0, nil
	}
	return got, micros(after-before) / float64(got.requests), nil
}

func processorTimes(pids []int) (time.Duration, error) {
	var sum time.Duration
	for _, pid := range pids {
		t, err := processorTime(pid)
		if err != nil {
			return 0, err
		}
		sum += t
	}
	return sum, nil
}

func (r *benchRun) warmUp(ctx context.Context, d time.Duration, loads ...load) error {
	for _, l := range loads {
		l.duration = d
		if _, err := l.run(ctx); err != nil {
			return err
		}
	}
	return nil
}
