// Package debug serves pages that show administrators why a node does not work.
// `revoked debug bundle` collects them.
//
// Every page comes from this process alone, without a leader, a lease or the disk. The size of a
// page is bounded. A page does not contain tokens, secrets or keys: log lines do not contain them,
// and the program omits them from the configuration. Profiles have names of functions and counts,
// but no arguments and no content of the memory. Log lines contain client ids and addresses.
package debug

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"runtime/pprof"

	"revoked"
	"revoked/api/request"
)

// Config configures [Pages]. A nil function means that the node does not have the page.
type Config struct {
	Log      func() []byte // the newest log lines, each of them complete
	Config   func() any    // the configuration in effect, as JSON, without secrets
	Profiles bool          // whether to serve the heap profile too
}

// Pages are the pages of one node. Methods may be called concurrently.
type Pages struct {
	cfg       Config
	profiling chan struct{} // holds a value while a profile is made, so only one is made at a time
}

// New returns the pages of a node.
func New(cfg Config) *Pages { return &Pages{cfg, make(chan struct{}, 1)} }

// GetLog serves GET /v1/debug/log.
func (p *Pages) GetLog(r *request.Request) error {
	if p.cfg.Log == nil {
		return fmt.Errorf("%w: this program does not keep its log lines", revoked.ErrNotFound)
	}
	return r.Send(http.StatusOK, request.TypeText, p.cfg.Log())
}

// GetConfig serves GET /v1/debug/config.
func (p *Pages) GetConfig(r *request.Request) error {
	if p.cfg.Config == nil {
		return fmt.Errorf("%w: this program does not show its configuration", revoked.ErrNotFound)
	}
	return r.SendJSON(http.StatusOK, p.cfg.Config())
}

// GetGoroutines serves GET /v1/debug/goroutines: the stacks as text, with equal stacks combined.
// Unlike the stacks of a crash, they have no arguments, and the node hardly pauses to write them.
func (p *Pages) GetGoroutines(r *request.Request) error {
	return p.profile(r, "goroutine", 1, request.TypeText)
}

// GetHeap serves GET /v1/debug/heap, in the format that `go tool pprof` reads.
func (p *Pages) GetHeap(r *request.Request) error {
	if !p.cfg.Profiles {
		return fmt.Errorf("%w: profiles are off: set pprof to true and restart the node", revoked.ErrNotFound)
	}
	return p.profile(r, "heap", 0, "application/octet-stream")
}

func (p *Pages) profile(r *request.Request, name string, form int, contentType string) error {
	b, err := p.makeProfile(r.Request().Context(), name, form)
	if err != nil {
		return err
	}
	return r.Send(http.StatusOK, contentType, b)
}

// makeProfile returns a profile. It first waits until no other profile is being made; it fails if
// ctx ends before that.
func (p *Pages) makeProfile(ctx context.Context, name string, form int) ([]byte, error) {
	select {
	case p.profiling <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { <-p.profiling }()
	var b bytes.Buffer
	err := pprof.Lookup(name).WriteTo(&b, form)
	return b.Bytes(), err
}
