package tokens

import (
	"context"
	"fmt"
	"net/http"

	"revoked"
	"revoked/api/request"
)

// A viewer is the caller that requests the status of a token.
type viewer struct {
	client    *revoked.Client // record with which the viewer authenticated; nil: a network
	name      string          // key of the viewer in the limiter of misses
	clientID  string          // client whose tokens the viewer sees as their owner; may be empty
	audiences []string        // audiences of a network, which sees tokens as a resource server does
	all       bool            // whether the viewer sees every token
}

// viewerOf returns an authenticated client as a viewer.
func viewerOf(c *revoked.Client) viewer {
	return viewer{client: c, name: c.ID, clientID: c.ID, all: c.Has(revoked.RoleAdmin)}
}

// sees reports whether the viewer may learn that the token is active.
func (v *viewer) sees(r *revoked.Record, foreign bool) bool { return v.refusal(r, foreign) == "" }

// refusal returns why the viewer may not learn that the token is active, or "" if it may. The owner
// and the audience of a token never change, so the result applies to any copy of the record. A
// client of another issuer may have the id of a client of this cluster, but is a different client.
func (v *viewer) refusal(r *revoked.Record, foreign bool) revoked.Reason {
	audiences := v.audiences
	switch {
	case v.all, v.clientID != "" && v.clientID == r.Grant.ClientID && !foreign:
		return ""
	case r.Token.Kind != revoked.AccessToken:
		return revoked.ReasonRefreshToken
	case v.client == nil:
	case !v.client.Has(revoked.RoleResourceServer):
		return revoked.ReasonAudience
	default:
		audiences = v.client.EffectiveAudiences()
	}
	if r.Token.IntendedFor(audiences) {
		return ""
	}
	return revoked.ReasonAudience
}

// hidden returns this node's copy of a token that the viewer may not see, and why it may not. The
// reason is "" if the viewer may see the token, or if this node does not have it.
func (e *Endpoints) hidden(d revoked.Digest, v *viewer) (revoked.Record, revoked.Reason) {
	r, err := e.cfg.Backend.Peek(d)
	if err != nil || !r.Found {
		return revoked.Record{}, ""
	}
	return r, v.refusal(&r, false)
}

// status returns the status of the token. It returns [revoked.ErrActorChanged] if the viewer's
// client record has changed since the viewer authenticated. The lookup of an unknown token costs
// the leader a call. So a viewer over its limit gets a 429 for a token that this node does not
// have. A JWT that this node can verify is exempt.
func (e *Endpoints) status(ctx context.Context, v *viewer, p revoked.PresentedToken) (revoked.TokenStatus, error) {
	d, now := p.Digest, e.cfg.Now()
	if p.KnownOnly = e.misses.Empty(v.name, now); p.KnownOnly && p.JWT == nil {
		if r, err := e.cfg.Backend.Peek(d); err != nil || !r.Found {
			return revoked.TokenStatus{}, e.tooManyMisses(v)
		}
		p.KnownOnly = false
	}
	s, err := e.statusOf(ctx, v, p)
	if err != nil {
		// A viewer who may not see the token gets "active":false, so no read barrier is needed.
		if r, why := e.hidden(d, v); why != "" {
			return revoked.TokenStatus{Decision: revoked.Decision{Verdict: revoked.Dead, Reason: why}, Record: r}, nil
		}
		return s, err
	}
	switch {
	case s.Verdict != revoked.Unknown:
	case p.KnownOnly:
		return revoked.TokenStatus{}, e.tooManyMisses(v)
	default:
		e.misses.Charge(v.name, e.cfg.Now())
	}
	// The node's copy is current as of this call, and so is its record of the viewer.
	if v.client != nil {
		if now, ok := e.cfg.Backend.Client(v.client.ID); !ok || now.Version != v.client.Version {
			return revoked.TokenStatus{}, fmt.Errorf("%w: client %q", revoked.ErrActorChanged, v.client.ID)
		}
	}
	return s, nil
}

// statusOf gets the status of a token from the backend.
func (e *Endpoints) statusOf(ctx context.Context, v *viewer, p revoked.PresentedToken) (revoked.TokenStatus, error) {
	if p.JWT == nil {
		return e.cfg.Backend.Status(ctx, p.Digest, v.name)
	}
	p.Caller = v.name
	return e.cfg.Backend.StatusOf(ctx, p)
}

// tooManyMisses returns the answer to a viewer that has introspected too many unknown tokens.
func (e *Endpoints) tooManyMisses(v *viewer) error {
	e.cfg.Throttled.WithLabelValues("misses").Inc()
	return &request.Failure{Status: http.StatusTooManyRequests, Code: request.CodeUnavailable,
		Title: "quota exceeded, retry later", Outcome: "quota", RetryAfter: e.misses.Take(v.name, e.cfg.Now())}
}

// resultOf names the result for a viewer: active, inactive or unknown.
func resultOf(s *revoked.TokenStatus, sees bool) string {
	switch {
	case s.Verdict == revoked.Unknown:
		return "unknown"
	case s.Verdict == revoked.Active && sees:
		return "active"
	}
	return "inactive"
}
