package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"

	"revoked"
	"revoked/api/request"
	"revoked/api/strictjson"
)

// inactive is the answer for every token that the caller may not use or see (RFC 7662 section 2.2).
const inactive = `{"active":false}`

// A viewer is the caller that asks for the status of a token.
type viewer struct {
	client    *revoked.Client // as authenticated; nil: a network
	name      string          // key of the limiter of misses
	clientID  string          // sees the tokens of this client; empty: of no client
	audiences []string        // of a network, which sees tokens as a resource server does
	all       bool            // sees every token
}

// viewerOf returns an authenticated client as a viewer.
func viewerOf(c *revoked.Client) viewer {
	return viewer{client: c, name: c.ID, clientID: c.ID, all: c.Has(revoked.RoleAdmin)}
}

// sees reports whether the viewer may know that the token is live.
func (v *viewer) sees(r *revoked.Record, foreign bool) bool { return v.refusal(r, foreign) == "" }

// refusal returns why the viewer may not know that the token is live, or "" if it may. The owner
// and the audience of a token never change, so the result holds for any copy of the record. A
// client of another issuer is not the client of this cluster with the same id.
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
func (a *API) hidden(d revoked.Digest, v *viewer) (revoked.Record, revoked.Reason) {
	r, err := a.cfg.Backend.Peek(d)
	if err != nil || !r.Found {
		return revoked.Record{}, ""
	}
	return r, v.refusal(&r, false)
}

// status returns the status of the token. It returns [revoked.ErrActorChanged] if the viewer's
// record is no longer the one that authenticated. The lookup of an unknown token costs the leader a
// call. So a viewer over its limit gets a 429 for a token that this node does not have. A JWT that
// this node can verify is exempt.
func (a *API) status(ctx context.Context, v *viewer, p revoked.PresentedToken) (revoked.TokenStatus, error) {
	d, now := p.Digest, a.cfg.Now()
	if p.KnownOnly = a.misses.Empty(v.name, now); p.KnownOnly && p.JWT == "" {
		if r, err := a.cfg.Backend.Peek(d); err != nil || !r.Found {
			return revoked.TokenStatus{}, a.tooManyMisses(v)
		}
		p.KnownOnly = false
	}
	s, err := a.statusOf(ctx, v, p)
	if err != nil {
		// A viewer who may not see the token gets inactive, so no read barrier is needed.
		if r, why := a.hidden(d, v); why != "" {
			return revoked.TokenStatus{Decision: revoked.Decision{Verdict: revoked.Dead, Reason: why}, Record: r}, nil
		}
		return s, err
	}
	switch {
	case s.Verdict != revoked.Unknown:
	case p.KnownOnly:
		return revoked.TokenStatus{}, a.tooManyMisses(v)
	default:
		a.misses.Charge(v.name, a.cfg.Now())
	}
	// The node's copy is current as of this call, and so is its record of the viewer.
	if v.client != nil {
		if now, ok := a.cfg.Backend.Client(v.client.ID); !ok || now.Version != v.client.Version {
			return revoked.TokenStatus{}, fmt.Errorf("%w: client %q", revoked.ErrActorChanged, v.client.ID)
		}
	}
	return s, nil
}

// statusOf asks the backend about a token.
func (a *API) statusOf(ctx context.Context, v *viewer, p revoked.PresentedToken) (revoked.TokenStatus, error) {
	if p.JWT == "" {
		return a.cfg.Backend.Status(ctx, p.Digest)
	}
	p.Caller = v.name
	return a.cfg.Backend.StatusOf(ctx, p)
}

// tooManyMisses returns the answer to a viewer that has asked about too many unknown tokens.
func (a *API) tooManyMisses(v *viewer) error {
	a.metrics.throttled.WithLabelValues("misses").Inc()
	return &request.Failure{Status: http.StatusTooManyRequests, Code: request.CodeUnavailable,
		Title: "quota exceeded, retry later", Outcome: "quota", RetryAfter: a.misses.Take(v.name, a.cfg.Now())}
}

// introspect is the introspection endpoint (RFC 7662).
func (a *API) introspect(r *request.Request) error {
	q := a.acquire()
	defer a.release(q)
	if err := a.read(r.Request(), q); err != nil {
		return err
	}
	if err := a.identify(r, q, false); err != nil {
		return err
	}
	if !q.has(paramToken) {
		return errNoToken
	}
	ctx := r.Request().Context() // Status bounds its wait: most introspections need no timer
	v, p := viewerOf(r.Client), q.presented()
	s, err := a.status(ctx, &v, p)
	if errors.Is(err, revoked.ErrActorChanged) { // authenticate again with the newer record
		if err := a.identify(r, q, false); err != nil {
			return err
		}
		v = viewerOf(r.Client)
		s, err = a.status(ctx, &v, p)
	}
	result := "error"
	if err == nil {
		result = resultOf(&s, v.sees(&s.Record, s.Foreign))
	}
	q.out = append(q.out[:0], inactive...)
	if result == "active" {
		q.out, err = appendActive(q.out[:0], &s.Record)
	}
	if err != nil {
		a.metrics.introspections["error"].Inc()
		return err
	}
	a.metrics.introspections[result].Inc()
	r.Outcome, r.Quiet = result, true
	return r.Send(http.StatusOK, request.TypeJSON, q.out)
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

// appendActive appends the members of RFC 7662 section 2.2 that the record has, in a fixed order.
// One audience is a string, several are an array. A refresh token has active, client_id, iat and
// exp only. It fails if the confirmation (cnf) cannot be copied: without it a bound token would
// pass as a bearer token.
func appendActive(b []byte, r *revoked.Record) ([]byte, error) {
	t, g := &r.Token, &r.Grant
	b = append(b, `{"active":true`...)
	if t.Kind != revoked.AccessToken {
		b = appendMember(b, "client_id", g.ClientID)
		b = appendMemberTime(b, "exp", t.ExpiresAt)
		b = appendMemberTime(b, "iat", t.IssuedAt)
		return append(b, '}'), nil
	}
	b = appendMember(b, "scope", t.Scope)
	b = appendMember(b, "client_id", g.ClientID)
	b = appendMember(b, "username", t.Username)
	b = append(b, `,"token_type":"Bearer"`...)
	b = appendMemberTime(b, "exp", t.ExpiresAt)
	b = appendMemberTime(b, "iat", t.IssuedAt)
	b = appendMemberTime(b, "nbf", t.NotBefore)
	b = appendMember(b, "sub", g.Subject)
	switch len(t.Audience) {
	case 0:
	case 1:
		b = appendMember(b, "aud", t.Audience[0])
	default:
		b = append(b, `,"aud":[`...)
		for i, aud := range t.Audience {
			if i > 0 {
				b = append(b, ',')
			}
			b = strictjson.AppendString(b, aud)
		}
		b = append(b, ']')
	}
	b = appendMember(b, "iss", g.Issuer)
	b = appendMember(b, "jti", t.JTI)
	if len(t.CNF) > 0 {
		if t.CNF[0] != '{' || bytes.ContainsAny(t.CNF, "\r\n") || !json.Valid(t.CNF) {
			return nil, fmt.Errorf("confirmation of token %s: not a JSON object", t.Digest.Prefix())
		}
		b = append(append(b, `,"cnf":`...), t.CNF...)
	}
	return append(b, '}'), nil
}

// appendMember appends a member, unless its value is empty.
func appendMember(b []byte, name, value string) []byte {
	if value == "" {
		return b
	}
	b = append(append(append(b, `,"`...), name...), `":`...)
	return strictjson.AppendString(b, value)
}

// appendMemberTime appends a time in whole Unix seconds, unless it is zero.
func appendMemberTime(b []byte, name string, t revoked.Time) []byte {
	if t == 0 {
		return b
	}
	b = append(append(append(b, `,"`...), name...), `":`...)
	return strconv.AppendInt(b, t.Unix(), 10)
}
