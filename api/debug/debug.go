// Package debug serves what explains a node that is sick, to administrators: `revoked debug bundle`
// collects it.
//
// It promises that every page is answered from this process alone, without a leader, a lease or the
// disk, and that a page is bounded. A page has no token, secret or key: the log has none, the
// program leaves them out of the configuration, and profiles have names of functions and counts,
// but no arguments and no content of the memory. Lines of the log name clients and addresses.
package debug

import (
	"bytes"
	"fmt"
	"net/http"
	"runtime/pprof"
	"sync"

	"revoked"
	"revoked/api/request"
)

// Pages are the pages of one node. A nil function is a page that the node does not have.
type Pages struct {
	Log      func() []byte // the newest lines of the log, whole
	Config   func() any    // the configuration in effect, as JSON, without secrets
	Profiles bool          // also serve the heap

	profiling sync.Mutex // one profile at once
}

// GetLog is GET /v1/debug/log.
func (p *Pages) GetLog(r *request.Request) error {
	if p.Log == nil {
		return fmt.Errorf("%w: this program keeps no lines of its log", revoked.ErrNotFound)
	}
	return r.Send(http.StatusOK, request.TypeText, p.Log())
}

// GetConfig is GET /v1/debug/config.
func (p *Pages) GetConfig(r *request.Request) error {
	if p.Config == nil {
		return fmt.Errorf("%w: this program does not show its configuration", revoked.ErrNotFound)
	}
	return r.SendJSON(http.StatusOK, p.Config())
}

// GetGoroutines is GET /v1/debug/goroutines: the stacks as text, equal ones together. Unlike the
// stacks of a crash, they have no arguments, and the node hardly pauses for them.
func (p *Pages) GetGoroutines(r *request.Request) error {
	return p.profile(r, "goroutine", 1, request.TypeText)
}

// GetHeap is GET /v1/debug/heap, in the form of `go tool pprof`.
func (p *Pages) GetHeap(r *request.Request) error {
	if !p.Profiles {
		return fmt.Errorf("%w: profiles are off: set pprof to true and restart the node", revoked.ErrNotFound)
	}
	return p.profile(r, "heap", 0, "application/octet-stream")
}

func (p *Pages) profile(r *request.Request, name string, form int, contentType string) error {
	p.profiling.Lock()
	defer p.profiling.Unlock()
	var b bytes.Buffer
	if err := pprof.Lookup(name).WriteTo(&b, form); err != nil {
		return err
	}
	return r.Send(http.StatusOK, contentType, b.Bytes())
}
