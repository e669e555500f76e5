package api

import (
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"revoked/api/request"
	"revoked/api/stream"
)

// slotsRetry is the Retry-After in the response to a request that found no free slot.
const slotsRetry = 5 * time.Second

// slots bounds the open requests of one kind, by client and in total. Each such request uses
// memory, disk or a goroutine for as long as its caller keeps it open. Methods may be called
// concurrently.
type slots struct {
	kind             string // name of the kind in the plural, for messages
	perClient, total int
	advice           string // advice to the caller; no full stop
	throttled        prometheus.Counter

	mu   sync.Mutex
	open map[string]int // number of open requests by client id; never 0
	all  int
}

// take takes a slot. The caller must call release once, when the request has ended. The error is a
// 429.
func (s *slots) take(client string) (release func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.open[client] >= s.perClient:
		return nil, s.full(fmt.Sprintf("the client has %d open %s at this node: %s", s.perClient, s.kind, s.advice))
	case s.all >= s.total:
		return nil, s.full(fmt.Sprintf("this node has %d open %s of all clients: use another node", s.total, s.kind))
	}
	s.open[client]++
	s.all++
	return sync.OnceFunc(func() { s.release(client) }), nil
}

// full counts a refusal and returns its 429. detail states the limit and the remedy.
func (s *slots) full(detail string) error {
	s.throttled.Inc()
	return &request.Failure{Status: http.StatusTooManyRequests, Code: request.CodeUnavailable,
		Title: "too many open " + s.kind, Detail: detail, Outcome: "throttled", RetryAfter: slotsRetry}
}

// release returns a slot. take wraps it so that a second call does nothing.
func (s *slots) release(client string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all--
	if s.open[client]--; s.open[client] == 0 {
		delete(s.open, client)
	}
}

// count returns the number of open requests. It is only for a gauge, because the number may have
// changed on return.
func (s *slots) count() float64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return float64(s.all)
}

// streams holds the slots of requests of unbounded length, and the disk space that they share.
// Other requests do not need a slot: the request timeout bounds them.
type streams struct {
	feeds, bulks, snapshots *slots
	spools                  *stream.Budget
}

// register registers gauges that show the open requests and the size of the spool.
func (s *streams) register(r prometheus.Registerer) error {
	gauge := func(name, help string, labels prometheus.Labels, value func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Namespace: "revoked", Subsystem: "api", Name: name, Help: help, ConstLabels: labels}, value)
	}
	open := func(kind string, s *slots) prometheus.Collector {
		return gauge("open_streams", "Feeds, bulk registrations and snapshots that are open now, by kind.",
			prometheus.Labels{"kind": kind}, s.count)
	}
	for _, c := range []prometheus.Collector{
		open("feeds", s.feeds), open("bulk_registrations", s.bulks), open("snapshots", s.snapshots),
		gauge("spool_bytes", "Results of bulk registrations in temporary files, not yet read by the callers.", nil,
			func() float64 { return float64(s.spools.Used()) }),
	} {
		if err := r.Register(c); err != nil {
			return fmt.Errorf("register metrics: %w", err)
		}
	}
	return nil
}
