package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
)

// A sender is one connection of a load, or what stands for one. It is used by one goroutine.
type sender interface {
	// do sends a request made of the template and returns the answer; its body is good until the
	// next call.
	do(request []byte) (status int, body []byte, err error)
	// spent reports whether a new sender is needed after a call that returned err.
	spent(err error) bool
	// agreed returns what the TLS handshake agreed on.
	agreed() (version, suite uint16)
	close()
}

var (
	_ sender = (*rawConn)(nil)
	_ sender = (*httpSender)(nil)
)

// A load is one kind of request, sent as fast as it is answered over a number of connections.
type load struct {
	targets     []string // host:port; connection i talks to targets[i % len]
	tls         *tls.Config
	lean        bool // hand-written HTTP/1.1 instead of net/http's client
	connections int
	duration    time.Duration
	template    requestTemplate
	// next returns the number of the next token; false ends the connection's part. Every connection
	// gets a function of its own.
	next func(connection int) func() (uint64, bool)
	// good reports whether an answer is the one that is measured.
	good func(status int, body []byte) bool
}

// A loadResult is what one run of a load came to.
type loadResult struct {
	requests uint64 // with the right answer
	failures uint64
	firstBad string // the first wrong answer or error, for the report
	elapsed  time.Duration
	latency  *histogram
	suite    uint16
	version  uint16
}

func (r loadResult) rate() float64 {
	if r.elapsed <= 0 {
		return 0
	}
	return float64(r.requests) / r.elapsed.Seconds()
}

// add adds what another part, or another run, came to.
func (r *loadResult) add(o loadResult) {
	if r.latency == nil {
		r.latency = &histogram{}
	}
	r.requests += o.requests
	r.failures += o.failures
	r.firstBad = first(r.firstBad, o.firstBad)
	r.latency.merge(o.latency)
	r.elapsed += o.elapsed
}

// run opens all connections first and then measures. It ends after the duration, or when there are no
// tokens left.
func (l load) run(ctx context.Context) (loadResult, error) {
	conns := make([]sender, l.connections)
	defer func() {
		for _, c := range conns {
			if c != nil {
				c.close()
			}
		}
	}()
	for i := range conns {
		c, err := l.dial(ctx, i)
		if err != nil {
			return loadResult{}, fmt.Errorf("connect to %s: %w", l.targets[i%len(l.targets)], err)
		}
		conns[i] = c
	}
	total := loadResult{latency: &histogram{}}
	total.version, total.suite = conns[0].agreed()
	var stop atomic.Bool
	timer := time.AfterFunc(l.duration, func() { stop.Store(true) })
	defer timer.Stop()
	release := context.AfterFunc(ctx, func() { stop.Store(true) })
	defer release()

	var wg sync.WaitGroup
	var mu sync.Mutex
	start := time.Now()
	for i := range conns {
		wg.Go(func() {
			r := l.drive(ctx, &conns[i], i, &stop)
			mu.Lock()
			defer mu.Unlock()
			total.add(r)
		})
	}
	wg.Wait()
	total.elapsed = time.Since(start)
	return total, ctx.Err()
}

// dial opens connection i.
func (l load) dial(ctx context.Context, i int) (sender, error) {
	target := l.targets[i%len(l.targets)]
	if l.lean {
		return dialRaw(ctx, target, l.tls)
	}
	return dialHTTP(ctx, target, l.tls, l.template)
}

// drive sends requests over one connection. A broken connection is opened anew; its request counts as
// a failure.
func (l load) drive(ctx context.Context, conn *sender, i int, stop *atomic.Bool) loadResult {
	r := loadResult{latency: &histogram{}}
	template := l.template.copy()
	next := l.next(i)
	for !stop.Load() {
		n, ok := next()
		if !ok {
			break
		}
		request := template.number(n)
		start := time.Now()
		status, body, err := (*conn).do(request)
		took := time.Since(start)
		switch {
		case err != nil:
			r.fail(err.Error())
		case !l.good(status, body):
			r.fail(fmt.Sprintf("status %d: %s", status, printable(string(body))))
		default:
			r.requests++
			r.latency.add(took)
		}
		if !(*conn).spent(err) {
			continue
		}
		(*conn).close()
		c, err := l.dial(ctx, i)
		if err != nil {
			r.fail(err.Error())
			break
		}
		*conn = c
	}
	return r
}

func (r *loadResult) fail(what string) {
	r.failures++
	r.firstBad = first(r.firstBad, what)
}

// anyOf returns numbers below n at random, for ever; the same ones at every run.
func anyOf(n uint64) func(int) func() (uint64, bool) {
	return func(connection int) func() (uint64, bool) {
		rng := rand.New(rand.NewPCG(uint64(connection), 1))
		return func() (uint64, bool) { return rng.Uint64N(n), true }
	}
}

// A tokenPool hands out every number from low up to high once.
type tokenPool struct {
	low, high uint64
	taken     atomic.Uint64
}

func (p *tokenPool) take() (uint64, bool) {
	n := p.low + p.taken.Add(1) - 1
	return n, n < p.high
}

func (p *tokenPool) each(int) func() (uint64, bool) { return p.take }
