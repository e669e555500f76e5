package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/labstack/echo/v4"

	"revoked"
)

// inactive is the answer for every token that the caller may not use or not see (RFC 7662 section 2.2).
const inactive = `{"active":false}`

// A viewer is who asks about a token.
type viewer struct {
	client    *revoked.Client // as it authenticated; nil: a network
	name      string          // for the budget of misses
	clientID  string          // sees its own tokens; empty: none
	all       bool            // sees every token
	audiences []string        // a resource server's; nil: none
}

func viewerOf(c *revoked.Client) viewer {
	v := viewer{client: c, name: c.ID, clientID: c.ID, all: c.Has(revoked.RoleAdmin)}
	if c.Has(revoked.RoleResourceServer) {
		v.audiences = c.HasAudiences()
	}
	return v
}

// sees reports whether the viewer may know that the token is live. Owner and audience of a token never
// change, so the answer is final for any copy of the record.
func (v *viewer) sees(r *revoked.Record) bool {
	switch {
	case v.all, v.clientID != "" && v.clientID == r.Grant.ClientID:
		return true
	case r.Token.Kind != revoked.AccessToken || v.audiences == nil:
		return false
	}
	return r.Token.HasAudience(v.audiences)
}

// status returns what is true of the token, or ErrActorChanged where the viewer is a client that is not what it
// authenticated as any more: a node that was behind learns both at once. Unknown tokens cost the leader a call: a viewer who is
// over its budget of them gets an error that wraps [revoked.ErrQuota], for those only.
func (a *API) status(ctx context.Context, v *viewer, d revoked.Digest) (revoked.Status, error) {
	now := a.cfg.Now()
	if a.misses.exhausted(v.name, now) {
		if r, err := a.cfg.Backend.Peek(d); err != nil || !r.Found {
			a.metrics.throttled.WithLabelValues("misses").Inc()
			return revoked.Status{}, &throttledError{a.misses.spend(v.name, now)}
		}
	}
	s, err := a.cfg.Backend.Status(ctx, d)
	if err != nil {
		// What cannot be proven current need not be, where the viewer may not see it anyway.
		if r, peekErr := a.cfg.Backend.Peek(d); peekErr == nil && r.Found && !v.sees(&r) {
			return revoked.Status{Verdict: revoked.Dead, Record: r}, nil
		}
		return s, err
	}
	if s.Verdict == revoked.Unknown {
		a.misses.owe(v.name, a.cfg.Now())
	}
	// The copy is proven current now, and so is what it says of the caller.
	if v.client != nil {
		if now, ok := a.cfg.Backend.Client(v.client.ID); !ok || now.Version != v.client.Version {
			return revoked.Status{}, fmt.Errorf("%w: client %q", revoked.ErrActorChanged, v.client.ID)
		}
	}
	return s, nil
}

// introspect is the introspection endpoint (RFC 7662).
func (a *API) introspect(c echo.Context) error {
	q := a.acquire()
	defer a.release(q)
	if err := a.read(c, q); err != nil {
		return unlessAnswered(err)
	}
	if err := a.identify(c, q, false); err != nil {
		return unlessAnswered(err)
	}
	if !q.has(paramToken) {
		return a.refused(c, 400, "no_token", "the token is missing")
	}
	ctx, cancel := a.within(c)
	defer cancel()
	v := viewerOf(a.caller(c))
	d := revoked.DigestToken(string(q.values[paramToken]))
	s, err := a.status(ctx, &v, d)
	if errors.Is(err, revoked.ErrActorChanged) { // judged again, by the newer record
		if err := a.identify(c, q, false); err != nil {
			return unlessAnswered(err)
		}
		v = viewerOf(a.caller(c))
		s, err = a.status(ctx, &v, d)
	}
	if err != nil {
		a.metrics.introspections["error"].Inc()
		var t *throttledError
		if errors.As(err, &t) {
			c.Response().Header().Set("Retry-After", retrySeconds(t.after))
		}
		return a.oauthFail(c, err)
	}
	result := resultOf(&s, v.sees(&s.Record))
	body := append(q.out[:0], inactive...)
	if result == "active" {
		if body, err = appendActive(q.out[:0], &s.Record); err != nil {
			a.metrics.introspections["error"].Inc()
			return a.oauthFail(c, err)
		}
	}
	q.out = body
	a.metrics.introspections[result].Inc()
	ex := c.(*exchange)
	ex.outcome, ex.quiet = result, true
	return write(c, 200, typeJSON, body)
}

// resultOf returns the word for a proven status and whether the viewer sees the token.
func resultOf(s *revoked.Status, sees bool) string {
	switch {
	case s.Verdict == revoked.Unknown:
		return "unknown"
	case s.Verdict == revoked.Active && sees:
		return "active"
	}
	return "inactive"
}

// appendActive appends the members of RFC 7662 section 2.2 that the record holds, in a fixed order. One
// audience is a string, several are an array. A refresh token says no more than active, client_id, iat
// and exp. It fails rather than leave out a confirmation it cannot repeat.
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
			b = appendText(b, aud)
		}
		b = append(b, ']')
	}
	b = appendMember(b, "iss", g.Issuer)
	b = appendMember(b, "jti", t.JTI)
	if len(t.CNF) > 0 {
		if t.CNF[0] != '{' || bytes.ContainsAny(t.CNF, "\r\n") || !json.Valid(t.CNF) {
			return nil, fmt.Errorf("confirmation of token %s is no JSON object", t.Digest.Prefix())
		}
		b = append(append(b, `,"cnf":`...), t.CNF...)
	}
	return append(b, '}'), nil
}

func appendMember(b []byte, name, value string) []byte {
	if value == "" {
		return b
	}
	b = append(append(append(b, `,"`...), name...), `":`...)
	return appendText(b, value)
}

func appendMemberTime(b []byte, name string, t revoked.Time) []byte {
	if t == 0 {
		return b
	}
	b = append(append(append(b, `,"`...), name...), `":`...)
	return strconv.AppendInt(b, t.Unix(), 10)
}

// plain holds the bytes that stand for themselves in a JSON string, in HTML too.
var plain = func() (t [256]bool) {
	for c := 0x20; c < 0x7f; c++ {
		t[c] = !strings.ContainsRune(`"\<>&`, rune(c))
	}
	return t
}()

// appendText appends s as a JSON string.
func appendText(b []byte, s string) []byte {
	for i := 0; i < len(s); i++ {
		if !plain[s[i]] {
			quoted, err := json.Marshal(s)
			if err != nil { // strings always marshal
				return append(b, `""`...)
			}
			return append(b, quoted...)
		}
	}
	return append(append(append(b, '"'), s...), '"')
}
