package load

import (
	"cmp"
	"context"
	"sync"
	"time"

	"revoked/internal/retry"
)

// A Load sends one kind of request over several connections, at a fixed rate or as fast as answers
// arrive.
//
// At a fixed rate, each request is due at a time fixed in advance, and a late one is sent
// immediately. So slow answers do not reduce the rate.
type Load struct {
	Targets     []Target // connection i uses Targets[i % len]
	Connections int
	PerSecond   float64       // 0: as fast as answers arrive
	Duration    time.Duration // length of one run
	Request     *Request
	// Bodies returns a function for one connection. That function returns the next body, valid until
	// its next call, and false at the end.
	Bodies func(connection int) func() ([]byte, bool)
	// Good reports whether an answer is the expected one. The body is valid until it returns.
	Good func(status int, body []byte) bool
}

// A Result is the outcome of one run of a load.
type Result struct {
	Requests uint64 // requests that succeeded
	Tally
	CPU      float64 // microseconds per request, which the caller sets; 0 if it is not known
	Elapsed  time.Duration
	Latency  Histogram
	Protocol string
}

// Rate returns the successful requests per second.
func (r *Result) Rate() float64 {
	if r.Elapsed <= 0 {
		return 0
	}
	return float64(r.Requests) / r.Elapsed.Seconds()
}

// Add adds the result of another connection or another run.
func (r *Result) Add(o *Result) {
	r.Requests += o.Requests
	r.Tally.Add(o.Tally)
	r.Latency.Merge(&o.Latency)
	r.Elapsed += o.Elapsed
}

// A Running load has been started. Stop it exactly once.
type Running struct {
	Load
	cancel context.CancelFunc
	wg     sync.WaitGroup
	begun  time.Time

	mu    sync.Mutex
	total *Result
}

// Start opens all connections and then starts the load. The load ends with Stop, with ctx, or when
// no body is left.
func (l Load) Start(ctx context.Context) (*Running, error) {
	conns, err := DialAll(ctx, l.Targets, l.Connections)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	r := &Running{Load: l, cancel: cancel, begun: time.Now(), total: &Result{Protocol: conns[0].protocolName()}}
	for i, c := range conns {
		r.wg.Go(func() {
			part := r.drive(ctx, c, i)
			r.mu.Lock()
			defer r.mu.Unlock()
			r.total.Add(part)
		})
	}
	return r, nil
}

// DialAll opens n connections, to the targets in turn. After an error, none of them is open.
func DialAll(ctx context.Context, targets []Target, n int) (conns []*Conn, err error) {
	for i := range n {
		c, err := targets[i%len(targets)].Dial(ctx)
		if err != nil {
			CloseAll(conns)
			return nil, err
		}
		conns = append(conns, c)
	}
	return conns, nil
}

// CloseAll closes the connections.
func CloseAll(conns []*Conn) {
	for _, c := range conns {
		c.Close()
	}
}

// Wait blocks until the load has ended by itself or its context has ended.
func (r *Running) Wait() { r.wg.Wait() }

// Stop ends the load and returns its result.
func (r *Running) Stop() *Result {
	r.cancel()
	r.wg.Wait()
	r.total.Elapsed = time.Since(r.begun)
	return r.total
}

// Run runs the load for its duration, or until no body is left.
func (l Load) Run(ctx context.Context) (*Result, error) {
	timed, cancel := context.WithCancel(ctx)
	defer cancel()
	r, err := l.Start(timed)
	if err != nil {
		return nil, err
	}
	timer := time.AfterFunc(l.Duration, cancel)
	defer timer.Stop()
	r.Wait()
	return r.Stop(), ctx.Err()
}

// drive sends the requests of connection i. It replaces a broken connection; its request counts as
// a failure.
func (r *Running) drive(ctx context.Context, c *Conn, i int) *Result {
	result := &Result{}
	defer func() { c.Close() }()
	next := r.Bodies(i)
	for k := i; ctx.Err() == nil; k += r.Connections {
		if r.PerSecond > 0 {
			due := r.begun.Add(time.Duration(float64(k) / r.PerSecond * float64(time.Second)))
			if retry.Sleep(ctx, time.Until(due)) != nil {
				break
			}
		}
		body, ok := next()
		if !ok {
			break
		}
		start := time.Now()
		status, answer, err := c.Do(r.Request, body)
		took := time.Since(start)
		switch {
		case err != nil:
			result.Fail(err.Error())
		case !r.Good(status, answer):
			result.Fail(Describe(status, answer))
		default:
			result.Requests++
			result.Latency.Add(took)
		}
		if !c.spent(err) {
			continue
		}
		again, err := c.Dial(ctx)
		if err != nil {
			if ctx.Err() == nil {
				result.Fail(err.Error())
			}
			break
		}
		c.Close()
		c = again
	}
	return result
}

// A Tally counts wrong answers and errors.
type Tally struct {
	Failures     uint64 `json:"failures"`
	FirstFailure string `json:"first_failure,omitempty"`
}

// Add adds the counts of o. It keeps the text of the first failure.
func (f *Tally) Add(o Tally) {
	f.Failures += o.Failures
	f.FirstFailure = cmp.Or(f.FirstFailure, o.FirstFailure)
}

// Fail counts one failure.
func (f *Tally) Fail(text string) { f.Add(Tally{1, text}) }
