package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"syscall"
	"time"
)

// failover kills the leader of an idle cluster, again and again, asks the others all the while, and
// measures how long no revocation succeeds. The killed node stays down until then: its lease has to
// be waited for.
func (r *benchRun) failover(ctx context.Context) error {
	m := &benchMeasure{Name: "failover", What: "kill -9 of the leader until a revocation succeeds, median", Unit: "s"}
	var took, slowest []float64
	refused := 0
	for range r.flags.kills {
		k, err := r.killLeader(ctx, func(leader, survivor int, pool *tokenPool) error {
			n, err := r.revokeUntil(ctx, pool, survivor, time.Minute)
			refused += n
			return err
		})
		if err != nil {
			return err
		}
		if _, err := r.startAgain(ctx, k.leader); err != nil {
			return err
		}
		took, slowest = append(took, k.took.Seconds()), append(slowest, millisOf(k.slowest))
		k.count(m)
		r.say(m.Name, "%.2f s, slowest read at a survivor %.0f ms", k.took.Seconds(), millisOf(k.slowest))
	}
	m.Value = median(took)
	m.detail("kills", len(took))
	m.detail("worst_s", slices.Max(took))
	m.detail("revocations_refused", refused)
	m.detail("slowest_read_at_a_survivor_ms", slices.Max(slowest))
	m.goal("no 503 to a read at the survivors", m.Failures == 0)
	r.add(m)
	return nil
}

// comeback kills the leader and starts it again at once, as a service manager does, and measures how
// long it takes until every node answers reads, and until a revocation succeeds.
func (r *benchRun) comeback(ctx context.Context) error {
	m := &benchMeasure{Name: "comeback", What: "kill -9 of the leader until every node answers reads, median", Unit: "s"}
	var reads, revocations []float64
	for range r.flags.kills {
		var back time.Duration
		k, err := r.killLeader(ctx, func(leader, survivor int, pool *tokenPool) error {
			began := time.Now()
			if err := r.cluster.start(leader); err != nil {
				return err
			}
			answering := make(chan error, 1)
			go func() {
				err := r.readUntil(ctx, leader, time.Minute)
				back = time.Since(began)
				answering <- err
			}()
			_, err := r.revokeUntil(ctx, pool, survivor, time.Minute)
			revocations = append(revocations, time.Since(began).Seconds())
			return errors.Join(err, <-answering)
		})
		if err != nil {
			return err
		}
		if _, err := r.cluster.awaitReady(ctx, k.leader, time.Minute); err != nil {
			return err
		}
		reads = append(reads, back.Seconds())
		k.count(m)
		r.say(m.Name, "reads after %.2f s, a revocation after %.2f s", back.Seconds(), revocations[len(revocations)-1])
	}
	m.Value = median(reads)
	m.detail("kills", len(reads))
	m.detail("worst_s", slices.Max(reads))
	m.detail("revocation_median_s", median(revocations))
	m.detail("revocation_worst_s", slices.Max(revocations))
	m.goal("no 503 to a read at the survivors", m.Failures == 0)
	r.add(m)
	return nil
}

// A leaderKill is one kill of the leader and what the survivors made of it.
type leaderKill struct {
	leader  int
	took    time.Duration // from the kill to the end of what was waited for
	slowest time.Duration // read at a survivor
	watches []readWatch
}

func (k *leaderKill) count(m *benchMeasure) {
	for _, w := range k.watches {
		m.Failures += w.bad
		m.FirstFailure = first(m.FirstFailure, w.firstBad)
	}
}

// killLeader kills the leader of a settled cluster and calls meanwhile, while the survivors are read.
// The reads go on for a while afterwards: a lease that ran out would show.
func (r *benchRun) killLeader(ctx context.Context, meanwhile func(leader, survivor int, pool *tokenPool) error) (*leaderKill, error) {
	nodes := len(r.cluster.dev.Nodes)
	if nodes < 3 {
		return nil, errors.New("it takes three nodes to lose one")
	}
	pool, err := r.fresh(ctx, 1)
	if err != nil {
		return nil, err
	}
	leader, err := r.cluster.leader(ctx)
	if err != nil {
		return nil, err
	}
	k := &leaderKill{leader: leader}
	watching, stopWatch := context.WithCancel(ctx)
	defer stopWatch()
	reads := make(chan readWatch, nodes)
	for i := 1; i < nodes; i++ {
		node := (leader + i) % nodes
		c, err := dialRaw(ctx, r.cluster.host(node), r.cluster.tls)
		if err != nil {
			return nil, err
		}
		go func() { reads <- r.watchReads(watching, node, c) }()
	}
	killed := time.Now()
	err = r.cluster.kill(leader, syscall.SIGKILL)
	if err == nil {
		err = meanwhile(leader, (leader+1)%nodes, pool)
	}
	k.took = time.Since(killed)
	if err == nil {
		err = pause(ctx, time.Second)
	}
	stopWatch()
	for i := 1; i < nodes; i++ {
		w := <-reads
		k.watches = append(k.watches, w)
		k.slowest = max(k.slowest, w.slowest)
	}
	return k, err
}

// A readWatch is what one survivor answered meanwhile.
type readWatch struct {
	node      string
	good, bad uint64
	slowest   time.Duration
	firstBad  string
}

// watchReads introspects live tokens at one node, one every few milliseconds, until ctx ends. It owns
// the connection.
func (r *benchRun) watchReads(ctx context.Context, node int, c *rawConn) readWatch {
	defer c.close()
	w := readWatch{node: r.cluster.dev.Nodes[node].ID}
	template, next := r.introspection(r.cluster.host(node)), anyOf(r.flags.pairs)(node)
	for pause(ctx, 4*time.Millisecond) == nil {
		n, _ := next()
		start := time.Now()
		status, body, err := c.do(template.number(n))
		w.slowest = max(w.slowest, time.Since(start))
		switch {
		case err != nil:
			w.bad++
			w.firstBad = first(w.firstBad, err.Error())
			return w
		case isActive(status, body):
			w.good++
		default:
			w.bad++
			w.firstBad = first(w.firstBad, fmt.Sprintf("%s: status %d: %s", w.node, status, printable(string(body))))
		}
	}
	return w
}

// readUntil introspects a live token at one node until it is called active.
func (r *benchRun) readUntil(ctx context.Context, node int, atMost time.Duration) error {
	template := r.introspection(r.cluster.host(node))
	_, err := r.askUntil(ctx, node, template.number(0), isActive, atMost)
	return err
}

// revokeUntil revokes at one node until it succeeds, and returns how often it was refused.
func (r *benchRun) revokeUntil(ctx context.Context, pool *tokenPool, node int, atMost time.Duration) (refused int, err error) {
	n, _ := pool.take()
	template := r.revocation(r.cluster.host(node))
	return r.askUntil(ctx, node, template.number(n), isRevoked, atMost)
}

// askUntil repeats a request until it is answered as wanted, each time over a new connection.
func (r *benchRun) askUntil(ctx context.Context, node int, request []byte, good func(int, []byte) bool, atMost time.Duration) (refused int, err error) {
	ctx, cancel := context.WithTimeout(ctx, atMost)
	defer cancel()
	for {
		c, err := dialRaw(ctx, r.cluster.host(node), r.cluster.tls)
		if err == nil {
			var status int
			var body []byte
			status, body, err = c.do(request)
			c.close()
			if err == nil && good(status, body) {
				return refused, nil
			}
			refused++
		}
		if err := pause(ctx, 10*time.Millisecond); err != nil {
			return refused, fmt.Errorf("%s did not answer as wanted within %v", r.cluster.dev.Nodes[node].ID, atMost)
		}
	}
}
