// Package tokens has the endpoints that receive a presented token: revocation (RFC 7009),
// introspection (RFC 7662), forward authentication and explanations.
//
// The package guarantees:
//   - A revocation gets 200 only after the [Backend] reported that it is final, or that the token
//     cannot be valid.
//   - "active" is sent only for a token whose status the Backend has just proved, and only to a
//     caller that may see the token.
//   - Every caller gets the same answer for an unknown token as for a revoked one (RFC 7009 section
//     2.2, RFC 7662 section 2.2). Only administrators learn the difference.
//
// It never keeps, logs or returns a token. A handler digests the token that it reads; a JWT is
// copied for its verification, and the buffer of the request is cleared.
//
// Dangerous: the order of the checks is part of the contract. Bad credentials get 401 even without
// a token, and a malformed request gets 400 before authentication.
package tokens

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"revoked"
	"revoked/api/access"
	"revoked/api/clientauth"
	"revoked/api/request"
)

// A Backend is the node that decides about tokens. Methods must allow concurrent calls. Errors wrap
// the sentinels of package revoked.
type Backend interface {
	// Revoke revokes the grant of the token. It records a tombstone for an unknown token, and succeeds
	// for a revoked or expired one. It returns ErrForeignToken, ErrQuota or ErrActorChanged.
	Revoke(ctx context.Context, by revoked.Actor, d revoked.Digest) (revoked.RevokeResult, error)
	// RevokeToken is Revoke for a token that may be a JWT of a trusted issuer. It also revokes the
	// grant or the session of a JWT, as the record of the issuer requires. It returns ErrOverloaded if
	// its caller gets no turn to have a signature verified.
	RevokeToken(ctx context.Context, by revoked.Actor, p revoked.PresentedToken) (revoked.RevokeResult, error)

	// Status returns the status of the token at some moment after the call began. A verdict other than
	// Dead requires a lease or a read barrier; without either, Status returns ErrNotCurrent or
	// ErrNoLeader. It bounds its own wait by the request timeout. Lookups of unknown tokens may wait
	// for other lookups of the same caller.
	Status(ctx context.Context, d revoked.Digest, caller string) (revoked.TokenStatus, error)
	// StatusOf is Status for a token that may be a JWT of a trusted issuer. It returns ErrOverloaded
	// if its caller gets no turn to have a signature verified.
	StatusOf(ctx context.Context, p revoked.PresentedToken) (revoked.TokenStatus, error)
	// Explain returns the status of a token like StatusOf, and the reason. Given only the digest,
	// it finds a JWT only if a denial or a tombstone for this digest exists. It returns the errors
	// of StatusOf.
	Explain(ctx context.Context, p revoked.PresentedToken) (revoked.Explanation, error)
	// AsOf reports whether the token with digest d was active at a given time, 0 for now. It
	// returns ErrNotCurrent if this node cannot prove that its copy is current.
	AsOf(ctx context.Context, d revoked.Digest, at revoked.Time) (revoked.PastAnswer, error)
	// Peek returns this node's own copy of a token, which may be stale.
	Peek(d revoked.Digest) (revoked.Record, error)

	// Client returns this node's own copy of a client, so that authentication works without quorum.
	// The caller must not change the record.
	Client(id string) (*revoked.Client, bool)
	// Current blocks until this node's copy holds everything that was acknowledged before the call. It
	// returns immediately under a lease. It returns ErrNotCurrent or ErrNoLeader.
	Current(ctx context.Context) error
	// NodeStatus returns this node's own view. Unknown fields are zero.
	NodeStatus(ctx context.Context) revoked.NodeStatus
}

// Config configures the [Endpoints]. All fields but RequirePost and CheckNetworks are required.
type Config struct {
	Backend        Backend
	Access         *access.Control
	Registerer     prometheus.Registerer
	Throttled      *prometheus.CounterVec // label budget
	Now            func() time.Time
	RequestTimeout time.Duration

	RequirePost                bool // a GET request for a revocation or an introspection gets 405
	MissesPerSecond            int  // introspections of unknown tokens per caller
	PublicRevocationsPerMinute int  // revocations of unknown tokens, per public client and address
	// CheckNetworks are the networks of peers that may call Check without credentials, with the
	// audiences of each.
	CheckNetworks map[netip.Prefix][]string
}

// Endpoints are the handlers. Their methods may be called concurrently.
type Endpoints struct {
	cfg       Config
	metrics   *metrics
	misses    *clientauth.Limiter // introspections of unknown tokens, by caller
	anonymous *clientauth.Limiter // revocations of unknown tokens by public clients, by client and address
	forms     sync.Pool           // contains *oauthRequest
}

// New returns the endpoints and registers their metrics. It fails if cfg.Registerer already has
// them.
func New(cfg Config) (*Endpoints, error) {
	m, err := newMetrics(cfg.Registerer)
	if err != nil {
		return nil, err
	}
	return &Endpoints{
		cfg: cfg, metrics: m, misses: clientauth.NewLimiter(float64(cfg.MissesPerSecond), cfg.MissesPerSecond),
		anonymous: clientauth.NewLimiter(float64(cfg.PublicRevocationsPerMinute)/60, cfg.PublicRevocationsPerMinute),
	}, nil
}

// Methods returns the Allow header of Revoke and Introspect. These two check the method themselves,
// because the API contract requires that check before the check of the content type.
func (e *Endpoints) Methods() string {
	if e.cfg.RequirePost {
		return "POST"
	}
	return "GET, POST"
}

// withTimeout returns the request's context, limited to the configured request timeout.
func (e *Endpoints) withTimeout(r *request.Request) (context.Context, context.CancelFunc) {
	return context.WithTimeout(r.Request().Context(), e.cfg.RequestTimeout)
}

// metrics are the metrics of the endpoints. A label has few values; a client id is never a label.
type metrics struct {
	revocations    *prometheus.CounterVec        // label outcome
	introspections map[string]prometheus.Counter // by result: active, inactive, unknown, error
	checks         *prometheus.CounterVec        // label result, see docs/metrics.md
}

func newMetrics(r prometheus.Registerer) (*metrics, error) {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		opts := prometheus.CounterOpts{Namespace: "revoked", Subsystem: "api", Name: name, Help: help}
		return prometheus.NewCounterVec(opts, labels)
	}
	introspections := counter("introspections_total", "Introspections of authenticated callers, by result.", "result")
	m := &metrics{
		revocations:    counter("revocations_total", "Revocation requests of authenticated callers, by outcome.", "outcome"),
		introspections: map[string]prometheus.Counter{},
		checks:         counter("checks_total", "Forward authentications, by result.", "result"),
	}
	for _, result := range []string{"active", "inactive", "unknown", "error"} {
		m.introspections[result] = introspections.WithLabelValues(result)
	}
	for _, outcome := range []string{"revoked", "unknown"} { // alerts compare the rates of both
		m.revocations.WithLabelValues(outcome)
	}
	for _, c := range []prometheus.Collector{m.revocations, introspections, m.checks} {
		if err := r.Register(c); err != nil {
			return nil, fmt.Errorf("register metrics: %w", err)
		}
	}
	return m, nil
}
