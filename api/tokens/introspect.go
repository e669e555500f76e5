package tokens

import (
	"bytes"
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

// Introspect is the introspection endpoint (RFC 7662).
func (e *Endpoints) Introspect(r *request.Request) error {
	q := e.acquire()
	defer e.release(q)
	if err := e.read(r.Request(), q); err != nil {
		return err
	}
	if err := e.identify(r, q, false); err != nil {
		return err
	}
	if !q.has(paramToken) {
		return errNoToken
	}
	ctx := r.Request().Context() // no timeout here: Status bounds its own wait
	v, p := viewerOf(r.Client), q.presented()
	s, err := e.status(ctx, &v, p)
	if errors.Is(err, revoked.ErrActorChanged) { // authenticate again with the newer record
		if err := e.identify(r, q, false); err != nil {
			return err
		}
		v = viewerOf(r.Client)
		s, err = e.status(ctx, &v, p)
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
		e.metrics.introspections["error"].Inc()
		return err
	}
	e.metrics.introspections[result].Inc()
	r.Outcome, r.Quiet = result, true
	return r.Send(http.StatusOK, request.TypeJSON, q.out)
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
