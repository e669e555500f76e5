package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"revoked/cmd/revoked/internal/bench/host"
	"revoked/cmd/revoked/internal/bench/load"
	"revoked/cmd/revoked/internal/bench/report"
)

const (
	revokePath     = "/oauth2/revoke"
	introspectPath = "/oauth2/introspect"
	formType       = "application/x-www-form-urlencoded"
)

func (r *run) introspection() *load.Request {
	return r.cluster.request("resource_server", introspectPath, formType)
}

func (r *run) revocation() *load.Request { return r.cluster.request("app", revokePath, formType) }

func isActive(status int, body []byte) bool {
	return status == http.StatusOK && bytes.HasPrefix(body, []byte(`{"active":true`))
}

func isInactive(status int, body []byte) bool {
	return status == http.StatusOK && string(body) == `{"active":false}`
}

func isRevoked(status int, body []byte) bool { return status == http.StatusOK && string(body) == `{}` }

// reads returns a load of introspections of active tokens.
func (r *run) reads(targets ...load.Target) load.Load {
	return load.Load{
		Targets: targets, Request: r.introspection(),
		Bodies: forms(r.tokens.access(), anyOf(r.opts.Pairs)), Good: isActive,
	}
}

// revocations returns a load that revokes pairs at all nodes.
func (r *run) revocations(pairs numbers, lean bool) load.Load {
	return load.Load{
		Targets: r.cluster.targets(lean), Request: r.revocation(),
		Bodies: forms(r.tokens.refresh(), pairs), Good: isRevoked,
	}
}

// startBaseline starts the baseline with the bodies of the cluster's answers, unless it already
// runs.
func (r *run) startBaseline(ctx context.Context) error {
	if r.baseline != nil {
		return nil
	}
	c, err := r.cluster.target(0, true).Dial(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	status, body, err := c.Do(r.introspection(), form(r.tokens.access(), 0))
	if err != nil {
		return err
	}
	if !isActive(status, body) {
		return fmt.Errorf("introspection of an active token: %s", load.Describe(status, body))
	}
	r.baseline, err = startBaseline(map[string]string{introspectPath: string(body), revokePath: `{}`})
	return err
}

// A comparison is one load that runs alternately against the subject and the baseline.
type comparison struct {
	subject, baseline load.Load
	before            func(subject *load.Load) error // runs before each turn of the subject, unmeasured; may be nil
	peer              *load.Load                     // load on the peer, see Options.Against; may be nil
	beforePeer        func(peer *load.Load) error    // runs before each turn of the peer, unmeasured; may be nil
	beside            *load.Load                     // load that runs at the same time as each side; may be nil
	besides           load.Result                    // sum of all runs of beside
}

// compare starts the baseline and returns the comparison of a load with the same load on the
// baseline.
func (r *run) compare(ctx context.Context, subject load.Load) (*comparison, error) {
	if err := r.startBaseline(ctx); err != nil {
		return nil, err
	}
	subject.Connections, subject.Duration = r.opts.Connections, r.opts.Duration
	c := &comparison{subject: subject, baseline: subject}
	t := r.baseline.Target
	t.Lean = r.opts.lean()
	c.baseline.Targets = []load.Target{t}
	return c, nil
}

// turn runs l, and c.beside at the same time. It sets the processor time per request if the system
// reports that of pids.
func (c *comparison) turn(ctx context.Context, l load.Load, pids []int) (got *load.Result, err error) {
	if c.beside != nil {
		beside, err := c.beside.Start(ctx)
		if err != nil {
			return nil, err
		}
		defer func() { c.besides.Add(beside.Stop()) }()
	}
	before, errBefore := host.ProcessorTimes(pids)
	if got, err = l.Run(ctx); err != nil {
		return nil, err
	}
	after, errAfter := host.ProcessorTimes(pids)
	if errBefore == nil && errAfter == nil && got.Requests > 0 {
		got.CPU = host.Micros(after-before) / float64(got.Requests)
	}
	return got, nil
}

// againstPeer adds the load on the peer to c, if the options require one.
func (r *run) againstPeer(ctx context.Context, c *comparison, l func(*etcd) load.Load) error {
	if r.opts.Against == "" {
		return nil
	}
	if r.peer == nil {
		r.say(r.opts.Against, "starting %d nodes", len(r.cluster.nodes))
		var err error
		if r.peer, err = startEtcd(ctx, r.opts.EtcdBinary, r.dir, len(r.cluster.nodes),
			r.opts.APIPort+etcdPortOffset); err != nil {
			return err
		}
	}
	peer := l(r.peer)
	peer.Connections, peer.Duration = r.opts.Connections, r.opts.Duration
	c.peer = &peer
	return nil
}

// peerTurn runs the peer's turn of a round, if there is a peer.
func (r *run) peerTurn(ctx context.Context, m *report.Measure, c *comparison, round *report.Round) error {
	if c.peer == nil {
		return nil
	}
	if c.beforePeer != nil {
		if err := c.beforePeer(c.peer); err != nil {
			return err
		}
	}
	got, err := c.turn(ctx, *c.peer, r.peer.pids())
	if err != nil {
		return err
	}
	if got.Failures > 0 {
		if got.Requests == 0 {
			return fmt.Errorf("%s failed: %s", r.opts.Against, got.FirstFailure)
		}
		r.say(m.Name, "%s: %d failures, the first: %s", r.opts.Against, got.Failures, got.FirstFailure)
	}
	round.PeerFailures = got.Failures
	latency := report.LatencyOf(&got.Latency)
	round.Peer, round.PeerCPUUS, round.PeerLatency = got.Rate(), got.CPU, &latency
	r.say(m.Name, "%s: %.0f %s, ratio to it %.2f", r.opts.Against, got.Rate(), m.Unit, round.Subject/max(got.Rate(), 1))
	return nil
}

// turns runs baseline, subject and peer alternately and fills in m.
func (r *run) turns(ctx context.Context, m *report.Measure, c *comparison) error {
	warm := c.baseline
	warm.Duration = min(r.opts.Duration, time.Second)
	if _, err := warm.Run(ctx); err != nil {
		return err
	}
	var ratios []float64
	for round := range r.opts.Rounds {
		if c.before != nil {
			if err := c.before(&c.subject); err != nil {
				return err
			}
		}
		base, err := c.turn(ctx, c.baseline, []int{r.baseline.cmd.Process.Pid})
		if err != nil {
			return err
		}
		got, err := c.turn(ctx, c.subject, r.cluster.pids())
		if err != nil {
			return err
		}
		if base.Protocol != got.Protocol {
			return errors.New("baseline and subject negotiated different protocols or cipher suites")
		}
		if base.Failures > 0 {
			return fmt.Errorf("the baseline failed: %s", base.FirstFailure)
		}
		m.Tally.Add(got.Tally)
		baseLatency := report.LatencyOf(&base.Latency)
		this := report.Round{
			Subject: got.Rate(), Baseline: base.Rate(), Latency: report.LatencyOf(&got.Latency), BaselineLatency: &baseLatency,
			SubjectCPUUS: got.CPU, BaselineCPUUS: base.CPU,
		}
		ratio := got.Rate() / max(base.Rate(), 1)
		ratios = append(ratios, ratio)
		r.say(m.Name, "round %d: %.0f %s, baseline %.0f, ratio %.2f", round+1, got.Rate(), m.Unit, base.Rate(), ratio)
		m.SetDetail("protocol", got.Protocol)
		if err := r.peerTurn(ctx, m, c, &this); err != nil {
			return err
		}
		m.Rounds = append(m.Rounds, this)
	}
	if c.peer != nil {
		m.ComparePeer()
	}
	m.Value = m.Median(func(r report.Round) float64 { return r.Subject })
	m.Compare(m.Median(func(r report.Round) float64 { return r.Baseline }), report.Median(ratios))
	return nil
}
