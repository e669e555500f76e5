package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"sync"
	"time"
)

// A pacedLoad is one kind of request at a steady rate: each is due at a time that was fixed in
// advance, and one that is late is sent at once. So a slow answer does not thin the load out.
type pacedLoad struct {
	targets     []string // host:port; connection i talks to targets[i % len]
	tls         *tls.Config
	connections int
	perSecond   float64
	// next returns the bytes of the next request, good until the next call; false ends the connection's
	// part. Every connection gets a function of its own.
	next func(connection int) func() ([]byte, bool)
	good func(status int, body []byte) bool
}

// A pacedRun is a paced load under way.
type pacedRun struct {
	cancel context.CancelFunc
	wg     sync.WaitGroup
	begun  time.Time

	mu    sync.Mutex
	total loadResult
}

// start begins the load; it lasts until stop or the end of ctx.
func (p pacedLoad) start(ctx context.Context) (*pacedRun, error) {
	ctx, cancel := context.WithCancel(ctx)
	run := &pacedRun{cancel: cancel, total: loadResult{latency: &histogram{}}}
	conns := make([]*rawConn, p.connections)
	for i := range conns {
		c, err := dialRaw(ctx, p.targets[i%len(p.targets)], p.tls)
		if err != nil {
			for _, open := range conns[:i] {
				open.close()
			}
			cancel()
			return nil, fmt.Errorf("connect to %s: %w", p.targets[i%len(p.targets)], err)
		}
		conns[i] = c
	}
	run.begun = time.Now()
	for i, c := range conns {
		run.wg.Go(func() {
			part := p.drive(ctx, c, i, run.begun)
			run.mu.Lock()
			defer run.mu.Unlock()
			run.total.add(part)
		})
	}
	return run, nil
}

// stop ends the load and returns what it came to.
func (r *pacedRun) stop() loadResult {
	r.cancel()
	r.wg.Wait()
	r.total.elapsed = time.Since(r.begun)
	return r.total
}

// drive sends the requests of connection i, whose turn is every connections-th of the load.
func (p pacedLoad) drive(ctx context.Context, c *rawConn, i int, begun time.Time) loadResult {
	r := loadResult{latency: &histogram{}}
	defer func() { c.close() }()
	next := p.next(i)
	for k := i; ; k += p.connections {
		due := begun.Add(time.Duration(float64(k) / p.perSecond * float64(time.Second)))
		if pause(ctx, time.Until(due)) != nil {
			return r
		}
		request, ok := next()
		if !ok {
			return r
		}
		start := time.Now()
		status, body, err := c.do(request)
		switch {
		case err != nil:
			r.fail(err.Error())
		case !p.good(status, body):
			r.fail(fmt.Sprintf("status %d: %s", status, printable(string(body))))
		default:
			r.requests++
			r.latency.add(time.Since(start))
		}
		if !c.spent(err) {
			continue
		}
		c.close()
		again, err := dialRaw(ctx, p.targets[i%len(p.targets)], p.tls)
		if err != nil {
			if ctx.Err() == nil {
				r.fail(err.Error())
			}
			return r
		}
		c = again
	}
}

// numbered returns requests made of a template with the numbers that take hands out.
func numbered(t requestTemplate, take func(int) func() (uint64, bool)) func(int) func() ([]byte, bool) {
	return func(connection int) func() ([]byte, bool) {
		t, take := t.copy(), take(connection)
		return func() ([]byte, bool) {
			n, ok := take()
			if !ok {
				return nil, false
			}
			return t.number(n), true
		}
	}
}
