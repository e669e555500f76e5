package bench

import (
	"context"
	"fmt"
	"math/bits"
	"sync"
	"time"

	"revoked/cmd/revoked/internal/cli"
	"revoked/internal/retry"
)

// A load sends one kind of request over several connections, at a fixed rate or as fast as answers
// arrive.
//
// At a fixed rate, each request is due at a time fixed in advance, and a late one is sent at once.
// So slow answers do not reduce the rate.
type load struct {
	targets     []target // connection i uses targets[i % len]
	connections int
	perSecond   float64       // 0: as fast as answers arrive
	duration    time.Duration // length of one run
	request     *request
	// bodies returns a function for one connection. That function returns the next body, valid until
	// its next call, and false at the end.
	bodies func(connection int) func() ([]byte, bool)
	// good reports whether an answer is the expected one.
	good func(status int, body []byte) bool
}

// A loadResult is the outcome of one run of a load.
type loadResult struct {
	requests uint64 // with a good answer
	failures
	cpu      float64 // microseconds per request; 0 if the system does not report it
	elapsed  time.Duration
	latency  histogram
	protocol string
}

func (r *loadResult) rate() float64 {
	if r.elapsed <= 0 {
		return 0
	}
	return float64(r.requests) / r.elapsed.Seconds()
}

// add adds the result of another connection or another run.
func (r *loadResult) add(o *loadResult) {
	r.requests += o.requests
	r.failures.add(o.failures)
	r.latency.merge(&o.latency)
	r.elapsed += o.elapsed
}

type loadRun struct {
	load
	cancel context.CancelFunc
	wg     sync.WaitGroup
	begun  time.Time

	mu    sync.Mutex
	total *loadResult
}

// start opens all connections and then starts the load. The load ends with stop, with ctx, or when
// no body is left.
func (l load) start(ctx context.Context) (*loadRun, error) {
	conns, err := dialAll(ctx, l.targets, l.connections)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	r := &loadRun{load: l, cancel: cancel, begun: time.Now(), total: &loadResult{protocol: conns[0].protocol()}}
	for i, c := range conns {
		r.wg.Go(func() {
			part := r.drive(ctx, c, i)
			r.mu.Lock()
			defer r.mu.Unlock()
			r.total.add(part)
		})
	}
	return r, nil
}

func dialAll(ctx context.Context, targets []target, n int) (conns []*conn, err error) {
	for i := range n {
		c, err := targets[i%len(targets)].dial(ctx)
		if err != nil {
			closeAll(conns)
			return nil, err
		}
		conns = append(conns, c)
	}
	return conns, nil
}

func closeAll(conns []*conn) {
	for _, c := range conns {
		c.close()
	}
}

// stop ends the load and returns its result.
func (r *loadRun) stop() *loadResult {
	r.cancel()
	r.wg.Wait()
	r.total.elapsed = time.Since(r.begun)
	return r.total
}

// run runs the load for its duration, or until no body is left.
func (l load) run(ctx context.Context) (*loadResult, error) {
	timed, cancel := context.WithCancel(ctx)
	defer cancel()
	r, err := l.start(timed)
	if err != nil {
		return nil, err
	}
	timer := time.AfterFunc(l.duration, cancel)
	defer timer.Stop()
	r.wg.Wait()
	return r.stop(), ctx.Err()
}

// drive sends the requests of connection i. It replaces a broken connection; its request counts as
// a failure.
func (r *loadRun) drive(ctx context.Context, c *conn, i int) *loadResult {
	result := &loadResult{}
	defer func() { c.close() }()
	next := r.bodies(i)
	for k := i; ctx.Err() == nil; k += r.connections {
		if r.perSecond > 0 {
			due := r.begun.Add(time.Duration(float64(k) / r.perSecond * float64(time.Second)))
			if retry.Sleep(ctx, time.Until(due)) != nil {
				break
			}
		}
		body, ok := next()
		if !ok {
			break
		}
		start := time.Now()
		status, answer, err := c.do(r.request, body)
		took := time.Since(start)
		switch {
		case err != nil:
			result.fail(err.Error())
		case !r.good(status, answer):
			result.fail(describe(status, answer))
		default:
			result.requests++
			result.latency.add(took)
		}
		if !c.spent(err) {
			continue
		}
		again, err := c.dial(ctx)
		if err != nil {
			if ctx.Err() == nil {
				result.fail(err.Error())
			}
			break
		}
		c.close()
		c = again
	}
	return result
}

func describe(status int, body []byte) string {
	return fmt.Sprintf("status %d: %s", status, cli.Clean(string(body)))
}

// A histogram counts durations in buckets of one 64th of a power of two, in constant memory. The
// error of a percentile is less than 1.6 %. It is not safe for concurrent use.
type histogram struct {
	buckets [64 * 64]uint32
	count   uint64
	max     time.Duration
}

// Invariant: bucketOf is monotonic, and upperBound(bucketOf(d)) >= d.

func bucketOf(d time.Duration) int {
	n := uint64(max(d, 0))
	if n < 64 {
		return int(n)
	}
	shift := bits.Len64(n) - 7 // keep the leading bit and six more
	return (shift+1)*64 + int(n>>shift) - 64
}

func upperBound(bucket int) time.Duration {
	if bucket < 64 {
		return time.Duration(bucket)
	}
	shift := bucket/64 - 1
	return time.Duration((uint64(bucket%64+64)+1)<<shift - 1)
}

func (h *histogram) add(d time.Duration) {
	h.buckets[bucketOf(d)]++
	h.count++
	h.max = max(h.max, d)
}

func (h *histogram) merge(o *histogram) {
	for i, n := range o.buckets {
		h.buckets[i] += n
	}
	h.count += o.count
	h.max = max(h.max, o.max)
}

// quantile returns a duration that the share q of all does not exceed, 0 for an empty histogram.
func (h *histogram) quantile(q float64) time.Duration {
	rank := uint64(q*float64(h.count) + 0.999999)
	var seen uint64
	for i, n := range h.buckets {
		seen += uint64(n)
		if n > 0 && seen >= rank {
			return min(upperBound(i), h.max)
		}
	}
	return h.max
}
