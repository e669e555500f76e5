// Package access decides who may call: it authenticates requests, requires roles, and limits how
// many requests of a client are in progress.
//
// A caller authenticates by a secret, an assertion or the certificate of its connection.
//
// A client counts once per request, however often the request authenticates. The package checks
// credentials before roles, so a caller with a wrong secret learns nothing about roles. It never
// logs a credential.
//
// The package does not depend on the endpoints. It uses package clientauth for secrets and
// throttling, and package request for responses.
package access

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"revoked"
	"revoked/api/clientauth"
	"revoked/api/request"
	"revoked/api/serve"
	"revoked/internal/tracing"
)

// A Backend is the node that stores the clients. Its methods may be called concurrently.
type Backend interface {
	clientauth.Clients
	clientauth.Assertions
	// NodeStatus returns the node's own view. Only ClusterID is read: it is empty while the node is
	// not in a cluster.
	NodeStatus(ctx context.Context) revoked.NodeStatus
}

// Config configures a [Control]. All fields but TrustedProxies, ClientCAs and Tracer are required.
type Config struct {
	Audience          string                // the only audience that an assertion may name
	ClientCAs         func() *x509.CertPool // see [clientauth.Config]
	Backend           Backend
	Now               func() time.Time
	FailuresPerMinute int           // failures per client id
	MaxWait           time.Duration // longest wait of one authentication for its turn to compute a hash
	MaxRequests       int           // requests in progress per client id
	TrustedProxies    []netip.Prefix
	Failures          *prometheus.CounterVec // label kind: none, failed
	Throttled         *prometheus.CounterVec // label budget
	Tracer            *tracing.Tracer        // nil: no tracing
}

// A Control authenticates callers. Its methods may be called concurrently.
type Control struct {
	*clientauth.Authenticator
	cfg      Config
	requests prometheus.Counter // requests refused because too many were in progress

	mu         sync.Mutex
	inProgress map[string]int // number of requests by client id; never 0
}

// New returns a control without requests in progress.
func New(cfg Config) *Control {
	return &Control{
		cfg: cfg, inProgress: make(map[string]int), requests: cfg.Throttled.WithLabelValues("requests"),
		Authenticator: clientauth.New(clientauth.Config{
			Clients: cfg.Backend, Assertions: cfg.Backend, Audience: cfg.Audience, ClientCAs: cfg.ClientCAs,
			Now: cfg.Now, FailuresPerMinute: cfg.FailuresPerMinute, MaxWait: cfg.MaxWait,
			Failed: cfg.Failures.WithLabelValues("failed"), Throttled: cfg.Throttled.WithLabelValues("authentication"),
		}),
	}
}

// Require returns a handler that calls h for a caller with one of the roles. The caller must
// authenticate (see [Control.Identify]) or be signed in (see [Control.SignedIn]). Other callers get
// 401, 429, 503, or a 403 that names the roles. A malformed query gets 400.
func (c *Control) Require(h request.Handler, roles ...revoked.Role) request.Handler {
	return func(r *request.Request) error {
		values := r.Request().Header["Authorization"]
		if len(values) > 1 {
			return request.Malformed("more than one Authorization header")
		}
		// The handlers show clients and settings from this node's copy, so bring it up to date. Without a
		// leader, they show the copy as it is. A handler that needs a current state runs its own read
		// barrier.
		current := c.CatchUp(r.Request().Context()) == nil || c.cfg.Backend.ClientsCurrent()
		caller, err := c.SignedIn(r.Request().Context())
		if caller == nil && err == nil {
			caller, err = c.Identify(r, values)
		}
		if err != nil {
			return err
		}
		r.Caller = caller
		if err := c.Admit(r, caller.Client); err != nil {
			return err
		}
		switch refused := r.Client.Require(roles...); {
		case refused != nil && !current: // the client may have got the role in the meantime
			return fmt.Errorf("%w: this node may not know the roles of the client yet", revoked.ErrNotCurrent)
		case refused != nil:
			return refused
		}
		if err := request.CheckQuery(r.Request().URL.RawQuery); err != nil {
			return err
		}
		return h(r)
	}
}

// headerClientID names the client of a caller below /v1 that authenticates by a certificate.
const headerClientID = "Revoked-Client-Id"

// errTwoWays is returned for a request that authenticates twice, or names two clients.
var errTwoWays = request.Malformed("more than one way to authenticate")

// Identify returns the caller that the values of an Authorization header identify: by HTTP Basic
// (RFC 7617), or by an assertion after "Bearer". Without a value, the caller is identified by the
// certificate of its connection, and the header Revoked-Client-Id must name the client. values has
// at most one element. Identify waits at most MaxWait for its turn to compute a hash.
func (c *Control) Identify(r *request.Request, values []string) (*clientauth.Caller, error) {
	return c.Traced(r, func() (*clientauth.Caller, error) { return c.identify(r, values) })
}

// Traced authenticates the caller of r inside a tracing span. The span does not name the caller.
func (c *Control) Traced(r *request.Request, authenticate func() (*clientauth.Caller, error)) (
	*clientauth.Caller, error) {
	_, span := c.cfg.Tracer.Start(r.Request().Context(), "authenticate")
	caller, err := authenticate()
	kind := ""
	if err != nil {
		kind = "refused"
	}
	span.End(kind)
	return caller, err
}

func (c *Control) identify(r *request.Request, values []string) (*clientauth.Caller, error) {
	id := ""
	switch named := r.Request().Header[headerClientID]; len(named) {
	case 0:
	case 1:
		id = named[0]
	default:
		return nil, request.Malformed("more than one " + headerClientID)
	}
	var caller *clientauth.Caller
	var err error
	if len(values) == 0 {
		certs := c.Certificates(r)
		if id == "" || len(certs) == 0 {
			return nil, c.Missing()
		}
		caller, err = c.AuthenticateCertificate(r.Request().Context(), id, certs, c.Addr(r))
	} else if scheme, assertion, _ := strings.Cut(values[0], " "); strings.EqualFold(scheme, "Bearer") {
		caller, err = c.Assertion(r, strings.Trim(assertion, " "), id)
	} else {
		candidates := clientauth.ParseBasic(values[0])
		if id != "" && !clientauth.Names(candidates, id) {
			return nil, errTwoWays
		}
		caller, err = c.Authenticate(r.Request().Context(), clientauth.Attempt{
			Candidates: candidates, Method: revoked.AuthBasic, From: c.Addr(r)})
	}
	if errors.Is(err, revoked.ErrNotCurrent) && c.cfg.Backend.NodeStatus(r.Request().Context()).ClusterID == "" {
		return nil, errNoRecords
	}
	return caller, err
}

// Assertion returns the caller that an assertion authenticates. id is the client id that the
// request contains next to the assertion, or "".
func (c *Control) Assertion(r *request.Request, assertion, id string) (*clientauth.Caller, error) {
	if r.Presented == nil {
		r.Presented = clientauth.NewPresented()
	}
	return c.AuthenticateAssertion(r.Request().Context(), assertion, id, r.Presented, c.Addr(r))
}

// Certificates returns the certificates that the caller has sent, its own first. It returns none
// for plain HTTP, and none for a trusted proxy, whose certificate is not the caller's. It ignores
// headers.
func (c *Control) Certificates(r *request.Request) []*x509.Certificate {
	state := r.Request().TLS
	if state == nil || len(state.PeerCertificates) == 0 {
		return nil
	}
	peer := request.Peer(r.Request())
	isProxy := func(n netip.Prefix) bool { return n.Contains(peer) }
	if !peer.IsValid() || slices.ContainsFunc(c.cfg.TrustedProxies, isProxy) {
		return nil
	}
	return state.PeerCertificates
}

// Finish releases the slots of a request after the response with the given status. After a 5xx or a
// 429 a client may present its assertion again.
func (c *Control) Finish(r *request.Request, status int) {
	c.Leave(r)
	c.End(r.Presented, status >= http.StatusInternalServerError || status == http.StatusTooManyRequests)
}

// errNoRecords is returned for credentials that a node outside a cluster cannot verify.
var errNoRecords = &request.Failure{Status: http.StatusServiceUnavailable, Code: request.CodeUnavailable,
	Outcome:    "no_cluster",
	Title:      "this node is not in a cluster yet: only the secret of its own bootstrap file is accepted",
	RetryAfter: time.Second}

// Missing counts a caller without credentials and returns [clientauth.ErrUnauthenticated].
func (c *Control) Missing() error {
	c.cfg.Failures.WithLabelValues("none").Inc()
	return clientauth.ErrUnauthenticated
}

// Addr returns the address of the caller, or the zero address if it is unknown. It uses
// X-Forwarded-For only from a trusted proxy.
func (c *Control) Addr(r *request.Request) netip.Addr {
	return serve.CallerAddr(r.Request(), c.cfg.TrustedProxies)
}

// Admit makes client the caller of r and counts the request toward the client's limit until Leave.
// Beyond the limit it returns 429, but still sets the caller, so that the log names the client. A
// request that authenticates again still counts once.
func (c *Control) Admit(r *request.Request, client *revoked.Client) error {
	c.Leave(r)
	r.Client = client
	if !c.enter(client.ID) {
		c.requests.Inc()
		r.Flood = true
		return &request.Failure{Status: http.StatusTooManyRequests, Code: request.CodeUnavailable,
			Title: "too many requests of this client in progress", Outcome: "limit_client"}
	}
	r.Counted = true
	return nil
}

// Leave stops counting a request that Admit has counted. Call it at the end of every request;
// further calls have no effect.
func (c *Control) Leave(r *request.Request) {
	if !r.Counted {
		return
	}
	r.Counted = false
	c.mu.Lock()
	defer c.mu.Unlock()
	id := r.Client.ID
	if c.inProgress[id]--; c.inProgress[id] == 0 {
		delete(c.inProgress, id) // the map contains only clients with requests in progress
	}
}

func (c *Control) enter(id string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.inProgress[id] >= c.cfg.MaxRequests {
		return false
	}
	c.inProgress[id]++
	return true
}
