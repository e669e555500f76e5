package enroll

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"revoked"
	"revoked/internal/retry"
	"revoked/internal/slots"
)

// Limits of a server.
const (
	maxConnections = 64 // concurrent connections from all sources; one source may have a quarter of them
	maxIssues      = 4  // number of concurrent calls of issue
	readTimeout    = 5 * time.Second
	issueTimeout   = 15 * time.Second
	refusalPause   = time.Second // before a refusal, so that guesses are slow
)

// bindingLabel is the exporter label of a binding (RFC 8446 section 7.5).
const bindingLabel = "EXPORTER-revoked-enrollment"

// A Server serves the requests of nodes that have no certificate. Serve may be called concurrently.
type Server struct {
	// issue checks the proof of a request and returns a certificate in DER. The context ends when the
	// node closes the connection.
	issue  func(context.Context, *Request) ([]byte, error)
	open   *slots.Set
	issues chan struct{}
	order  atomic.Uint64
}

// NewServer returns a server that passes requests to issue.
func NewServer(issue func(context.Context, *Request) ([]byte, error)) *Server {
	// No source is known, so none has reserved slots.
	limits := slots.Limits{Total: maxConnections, Strangers: maxConnections, PerSource: maxConnections / 4}
	return &Server{issue: issue, open: slots.New(limits), issues: make(chan struct{}, maxIssues)}
}

// Serve reads a request from a connection after its handshake, and answers it. The caller closes
// the connection.
func (s *Server) Serve(ctx context.Context, c *tls.Conn) {
	ctx, cancel := context.WithTimeout(ctx, issueTimeout)
	defer cancel()
	slot := s.open.Take(slots.Waiter{Source: slots.Source(c.RemoteAddr()), Order: s.order.Add(1),
		Evict: func() { _ = c.NetConn().Close() }})
	defer slot.Release()
	_ = c.SetDeadline(time.Now().Add(readTimeout))
	req, err := receive(c)
	if err != nil {
		return
	}
	_ = c.SetDeadline(time.Now().Add(issueTimeout + readTimeout))
	gone := make(chan struct{})
	defer func() { _ = c.NetConn().Close(); <-gone }()
	go func() { // the node sends nothing after the request, so Copy returns when the connection ends
		_, _ = io.Copy(io.Discard, io.LimitReader(c, 1))
		cancel()
		close(gone)
	}()
	a := s.decide(ctx, req)
	if a.code != 0 {
		_ = retry.Sleep(ctx, refusalPause)
	}
	if b, err := a.encode(); err == nil {
		_, _ = c.Write(b)
	}
}

// receive reads a request and adds the binding of the connection.
func receive(c *tls.Conn) (*Request, error) {
	b, err := read(c)
	if err != nil {
		return nil, err
	}
	req, err := decodeRequest(b)
	if err != nil {
		return nil, err
	}
	req.Binding, err = binding(c)
	return req, err
}

func binding(c *tls.Conn) ([]byte, error) {
	state := c.ConnectionState()
	return state.ExportKeyingMaterial(bindingLabel, nil, 32)
}

// decide returns the answer to a request. It waits while maxIssues other requests are in progress.
func (s *Server) decide(ctx context.Context, req *Request) *answer {
	select {
	case s.issues <- struct{}{}:
		defer func() { <-s.issues }()
	case <-ctx.Done():
		return refusal(fmt.Errorf("%w: too many concurrent requests for certificates", revoked.ErrOverloaded))
	}
	der, err := s.issue(ctx, req)
	if err != nil {
		return refusal(err)
	}
	return &answer{certificate: der}
}

func refusal(err error) *answer { return &answer{code: revoked.Code(err), detail: revoked.Detail(err)} }

// A Refusal is the answer of a member that refuses to issue a certificate. It unwraps to the
// sentinel error of its code.
type Refusal struct {
	code   uint32
	detail string
}

func (r *Refusal) Error() string { return r.detail }

// Unwrap returns the sentinel error, or nil.
func (r *Refusal) Unwrap() error { return revoked.FromCode(r.code) }

// ErrNotOffered is returned for a member without a CA key, or of an older version.
var ErrNotOffered = errors.New("member issues no certificates: it has no cluster_ca_key, or runs an older version")
