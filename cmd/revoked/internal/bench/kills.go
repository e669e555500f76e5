package bench

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"syscall"
	"time"

	"revoked/cmd/revoked/internal/bench/host"
	"revoked/cmd/revoked/internal/bench/load"
	"revoked/cmd/revoked/internal/bench/report"
	"revoked/internal/retry"
)

func (r *run) restart(ctx context.Context, m *report.Measure) error {
	restart := func(s syscall.Signal) (time.Duration, error) {
		node, err := r.cluster.follower(ctx)
		if err != nil {
			return 0, err
		}
		if err := r.cluster.Kill(node, s); err != nil {
			return 0, err
		}
		return r.startAgain(ctx, node)
	}
	var took []float64
	for range min(r.opts.Rounds, 3) {
		t, err := restart(syscall.SIGKILL)
		if err != nil {
			return err
		}
		took = append(took, t.Seconds())
	}
	orderly, err := restart(syscall.SIGTERM)
	if err != nil {
		return err
	}
	m.Value = report.Median(took)
	m.SetDetail("after_orderly_stop_s", orderly.Seconds())
	m.SetDetail("worst_s", slices.Max(took))
	m.SetGoal("<= 5 s", m.Value <= 5)
	return nil
}

func (r *run) startAgain(ctx context.Context, node int) (time.Duration, error) {
	start := time.Now()
	if err := r.cluster.Start(node); err != nil {
		return 0, err
	}
	err := r.cluster.awaitReady(ctx, node, 2*time.Minute)
	return time.Since(start), err
}

// failover kills the leader of an idle cluster repeatedly, and measures the time until a revocation
// succeeds at a survivor. The killed node stays down until then, so the survivors must wait until
// its lease expires.
func (r *run) failover(ctx context.Context, m *report.Measure) error {
	var slowest []float64
	refused := 0
	took, err := r.kills(ctx, m, func(k *leaderKill) error {
		n, err := r.revokeUntil(ctx, k)
		refused += n
		return err
	}, func(k *leaderKill) error {
		slowest = append(slowest, host.Millis(k.slowest))
		r.say(m.Name, "%.2f s, slowest read at a survivor %.0f ms", k.took.Seconds(), host.Millis(k.slowest))
		_, err := r.startAgain(ctx, k.leader)
		return err
	})
	if err != nil {
		return err
	}
	m.SetDetail("revocations_refused", refused)
	m.SetDetail("slowest_read_at_a_survivor_ms", slices.Max(slowest))
	m.SetGoal("<= 1.3 s, worst <= 2 s, no 503 to a read at the survivors",
		m.Value <= 1.3 && slices.Max(took) <= 2 && m.Failures == 0)
	return nil
}

// comeback kills the leader and starts it again immediately, as a service manager does. It measures
// the time until every node answers reads, and until a revocation succeeds.
func (r *run) comeback(ctx context.Context, m *report.Measure) error {
	var revocations []float64
	_, err := r.kills(ctx, m, func(k *leaderKill) error {
		began := time.Now()
		if err := r.cluster.Start(k.leader); err != nil {
			return err
		}
		answering := make(chan error, 1)
		go func() {
			_, err := r.askUntil(ctx, k.leader, r.introspection(), form(r.tokens.access(), 0), isActive)
			k.took = time.Since(began)
			answering <- err
		}()
		_, err := r.revokeUntil(ctx, k)
		revocations = append(revocations, time.Since(began).Seconds())
		return errors.Join(err, <-answering)
	}, func(k *leaderKill) error {
		r.say(m.Name, "reads after %.2f s, a revocation after %.2f s", k.took.Seconds(), revocations[len(revocations)-1])
		return r.cluster.awaitReady(ctx, k.leader, time.Minute)
	})
	if err != nil {
		return err
	}
	m.SetDetail("revocation_median_s", report.Median(revocations))
	m.SetDetail("revocation_worst_s", slices.Max(revocations))
	m.SetGoal("no 503 to a read at the survivors", m.Failures == 0)
	return nil
}

type leaderKill struct {
	leader, survivor int
	revoked          *pool         // one pair to revoke
	took             time.Duration // time until the cluster recovered; set by meanwhile, otherwise by killLeader
	slowest          time.Duration // the slowest read at a survivor
}

// kills calls killLeader with meanwhile repeatedly and sets m to the median time. After each kill,
// afterwards brings the leader back. kills returns the times, in seconds.
func (r *run) kills(ctx context.Context, m *report.Measure, meanwhile, afterwards func(*leaderKill) error) (
	took []float64, err error) {
	for range r.opts.Kills {
		k, err := r.killLeader(ctx, m, meanwhile)
		if err == nil {
			err = afterwards(k)
		}
		if err != nil {
			return nil, err
		}
		took = append(took, k.took.Seconds())
	}
	m.Value, m.Samples = report.Median(took), took
	m.SetDetail("kills", len(took))
	m.SetDetail("worst_s", slices.Max(took))
	m.SetDetail("tenths_of_a_second", tenths(took))
	return took, nil
}

// tenths counts seconds by the tenth that they fall into: "1.1: 12, 1.2: 30".
func tenths(seconds []float64) string {
	count := map[int]int{}
	for _, s := range seconds {
		count[int(10*s)]++
	}
	var parts []string
	for _, t := range slices.Sorted(maps.Keys(count)) {
		parts = append(parts, fmt.Sprintf("%.1f: %d", float64(t)/10, count[t]))
	}
	return strings.Join(parts, ", ")
}

// killLeader kills the leader of an idle cluster and calls meanwhile while it reads at the
// survivors. It counts failed reads in m. The reads continue for a second after meanwhile returns,
// because a read that fails when a lease expires must count.
func (r *run) killLeader(
	ctx context.Context, m *report.Measure, meanwhile func(*leaderKill) error,
) (*leaderKill, error) {
	nodes := len(r.cluster.nodes)
	if nodes < 3 {
		return nil, fmt.Errorf("too few nodes (got %d, want 3 or more)", nodes)
	}
	revoked, err := r.fresh(ctx, 1)
	if err != nil {
		return nil, err
	}
	leader, err := r.cluster.leader(ctx)
	if err != nil {
		return nil, err
	}
	k := &leaderKill{leader: leader, survivor: (leader + 1) % nodes, revoked: revoked}
	reads := r.reads()
	reads.Connections, reads.PerSecond = nodes-1, float64(nodes-1)*readRate
	for i := 1; i < nodes; i++ {
		reads.Targets = append(reads.Targets, r.cluster.target((leader+i)%nodes, true))
	}
	watch, err := reads.Start(ctx)
	if err != nil {
		return nil, err
	}
	killed := time.Now()
	if err = r.cluster.Kill(leader, syscall.SIGKILL); err == nil {
		err = meanwhile(k)
	}
	k.took = cmp.Or(k.took, time.Since(killed))
	if err == nil {
		err = retry.Sleep(ctx, time.Second)
	}
	seen := watch.Stop()
	k.slowest = seen.Latency.Max
	m.Tally.Add(seen.Tally)
	return k, err
}

// readRate is the number of reads a second at each survivor.
const readRate = 200

// revokeUntil revokes a fresh pair at a survivor until that succeeds, and returns how often it
// failed.
func (r *run) revokeUntil(ctx context.Context, k *leaderKill) (refused int, err error) {
	n, _ := k.revoked.take()
	return r.askUntil(ctx, k.survivor, r.revocation(), form(r.tokens.refresh(), n), isRevoked)
}

// askUntil retries a request until it succeeds, each time over a new connection.
func (r *run) askUntil(
	ctx context.Context, node int, request *load.Request, body []byte, good func(int, []byte) bool,
) (refused int, err error) {
	const atMost = time.Minute
	ctx, cancel := context.WithTimeout(ctx, atMost)
	defer cancel()
	for {
		c, err := r.cluster.target(node, true).Dial(ctx)
		if err == nil {
			status, answer, err := c.Do(request, body)
			ok := err == nil && good(status, answer)
			c.Close()
			if ok {
				return refused, nil
			}
			refused++
		}
		if err := retry.Sleep(ctx, 10*time.Millisecond); err != nil {
			return refused, fmt.Errorf("%s did not return the expected answer within %v", r.cluster.nodes[node].ID, atMost)
		}
	}
}
