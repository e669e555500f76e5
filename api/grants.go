package api

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"revoked"
	"revoked/api/clientauth"
	"revoked/api/registration"
	"revoked/api/request"
	"revoked/api/stream"
	"revoked/internal/textsafe"
)

// postGrants serves POST /v1/grants: one registration, or one per line. The status is 200, not 201,
// if every token was already registered, so a retry shows that an earlier attempt succeeded.
func (a *API) postGrants(r *request.Request) error {
	t, err := request.MediaType(r.Request(), request.TypeJSON, stream.TypeNDJSON)
	if err != nil {
		return err
	}
	if t == stream.TypeNDJSON {
		return a.registerLines(r)
	}
	body, err := request.ReadBody(r.Request(), registration.MaxBody)
	if err != nil {
		return err
	}
	var d registration.Decoder
	reg, err := d.Decode(body, revoked.TimeOf(a.cfg.Now()))
	clear(body)
	d.Wipe()
	if err != nil {
		return err
	}
	results, err := a.registerAs(r.Actor())(r.Request().Context(), []revoked.Registration{reg})
	switch {
	case err != nil:
		return err
	case len(results) != 1:
		return fmt.Errorf("%w: number of results (got %d, want 1)", revoked.ErrOutcomeUnknown, len(results))
	case results[0].Err != nil:
		return results[0].Err
	}
	res := results[0]
	res.GrantID = cmp.Or(res.GrantID, reg.GrantID)
	status := http.StatusCreated
	if !res.Created {
		status = http.StatusOK
	}
	return r.Send(status, request.TypeJSON, append(registration.AppendResult(make([]byte, 0, 128), &res), '\n'))
}

// registerLines serves POST /v1/grants with an NDJSON body.
func (a *API) registerLines(r *request.Request) error {
	return a.streamLines(r, registration.MaxBody, func(l *lineStream) error {
		p := registration.NewPipeline(l.ctx, registration.PipelineConfig{
			Register: registration.WithRetry(a.registerWhile(l.session)), Out: l.out, Now: a.cfg.Now,
			AppendError: request.AppendLineError, ErrorsOnly: l.errorsOnly,
		})
		l.summary = func() []byte { return p.AppendSummary(nil) }
		return p.Run(l.lines)
	})
}

// registerAs returns a function that calls Backend.Register as the actor, with the request timeout.
// It is for a single registration: a bulk registration gives way to others and uses registerWhile.
func (a *API) registerAs(actor revoked.Actor) registration.Func {
	return func(ctx context.Context, regs []revoked.Registration) ([]revoked.RegisterResult, error) {
		ctx, cancel := context.WithTimeout(ctx, a.cfg.RequestTimeout)
		defer cancel()
		return a.cfg.Backend.Register(ctx, actor, regs)
	}
}

// registerWhile returns a function that calls Backend.RegisterBulk with the rights that the caller
// has at the time of each call. After session has ended, the function returns a
// [clientauth.EndedError]. If this node's record of the caller is behind, it returns
// ErrActorChanged for all registrations.
func (a *API) registerWhile(session *clientauth.Session) registration.Func {
	return func(ctx context.Context, regs []revoked.Registration) ([]revoked.RegisterResult, error) {
		client, err := session.Client()
		if err != nil {
			return nil, err
		}
		results, err := a.cfg.Backend.RegisterBulk(ctx, session.Actor(client), regs)
		for i := range results {
			if errors.Is(results[i].Err, revoked.ErrActorChanged) {
				return nil, results[i].Err
			}
		}
		return results, err
	}
}

// grantView is the response to GET /v1/grants/{id}. Times are Unix seconds.
type grantView struct {
	GrantID      string                  `json:"grant_id"`
	State        string                  `json:"state"`
	ClientID     string                  `json:"client_id"`
	Subject      string                  `json:"subject,omitempty"`
	Session      string                  `json:"session,omitempty"`
	Issuer       string                  `json:"issuer,omitempty"`
	Scope        string                  `json:"scope,omitempty"` // union of the scopes of the active tokens
	RegisteredBy string                  `json:"registered_by,omitempty"`
	CreatedAt    request.UnixSeconds     `json:"created_at"`
	CreatedIndex uint64                  `json:"created_index"`
	ExpiresAt    request.UnixTime        `json:"expires_at"` // latest expiry of the tokens; null: never
	TokenCount   int                     `json:"token_count"`
	Tokens       []tokenView             `json:"tokens,omitzero"` // nil in a list
	Revoked      *request.RevocationView `json:"revoked,omitempty"`
}

// tokenView is one token of a grant. It shows a prefix of the digest only.
type tokenView struct {
	Kind         string           `json:"kind"`
	DigestPrefix string           `json:"digest_prefix"`
	State        string           `json:"state"`
	IssuedAt     request.UnixTime `json:"issued_at"` // null for a stub
	ExpiresAt    request.UnixTime `json:"expires_at"`
	NotBefore    request.UnixTime `json:"not_before"`
	Scope        string           `json:"scope,omitempty"`
	Audience     []string         `json:"audience,omitempty"`
}

// getGrant serves GET /v1/grants/{id}.
func (a *API) getGrant(r *request.Request) error {
	id, err := r.PathID()
	if err != nil {
		return err
	}
	ctx, cancel := a.withTimeout(r)
	defer cancel()
	view, err := a.cfg.Backend.Grant(ctx, id)
	if err != nil {
		return err
	}
	if !r.Client.Has(revoked.RoleAdmin) && view.Grant.RegisteredBy != r.Client.ID {
		return errNoGrant // issuers must not learn which grants of others exist
	}
	return r.SendJSON(http.StatusOK, viewGrant(&view))
}

// errNoGrant is returned for an unknown grant, and also for a grant of another issuer.
var errNoGrant = fmt.Errorf("%w: no such grant", revoked.ErrNotFound)

// viewGrant returns the JSON form of a grant. Its scope is the union of the scopes of its active
// tokens.
func viewGrant(v *revoked.GrantView) grantView {
	g := &v.Grant
	out := grantView{
		GrantID: g.ID, State: v.State.String(), ClientID: g.ClientID, Subject: g.Subject, Session: g.Session,
		Issuer: g.Issuer, RegisteredBy: g.RegisteredBy, CreatedAt: request.UnixSeconds(g.CreatedAt),
		CreatedIndex: g.CreatedIndex, TokenCount: g.TokenCount, Tokens: make([]tokenView, 0, len(v.Tokens)),
	}
	if g.LatestExpiry != revoked.MaxTime {
		out.ExpiresAt = request.UnixTime(g.LatestExpiry)
	}
	var scopes []string
	seen := make(map[string]bool)
	for i := range v.Tokens {
		t := &v.Tokens[i].Token
		state := v.Tokens[i].State
		if state == revoked.Live {
			for word := range strings.FieldsSeq(t.Scope) {
				if !seen[word] {
					seen[word] = true
					scopes = append(scopes, word)
				}
			}
		}
		out.Tokens = append(out.Tokens, tokenView{
			Kind: t.Kind.String(), DigestPrefix: t.Digest.Prefix(), State: state.String(),
			IssuedAt: request.UnixTime(t.IssuedAt), ExpiresAt: request.UnixTime(t.ExpiresAt),
			NotBefore: request.UnixTime(t.NotBefore), Scope: t.Scope, Audience: t.Audience,
		})
	}
	out.Scope = strings.Join(scopes, " ")
	switch {
	case g.Revoked != nil:
		e := g.Revoked
		out.Revoked = &request.RevocationView{At: request.UnixSeconds(e.At), By: e.By, Reason: e.Reason, Index: e.Index}
	case v.ByCutoff != nil:
		e := v.ByCutoff
		out.Revoked = &request.RevocationView{At: request.UnixSeconds(e.At), By: e.By, Reason: e.Reason, Index: e.Index,
			Cutoff: true}
	}
	return out
}

// Bounds of the query parameter "limit", the maximum number of grants in a page.
const (
	defaultGrants = 100
	maxGrants     = 1000
)

// grantsView is the response to GET /v1/grants.
type grantsView struct {
	Grants []grantView `json:"grants"`
	Next   string      `json:"next,omitempty"`
}

// getGrants serves GET /v1/grants: a page of the grants that match every selector of the query. A
// page does not show tokens: a grant may have many, and the size of the page would be unbounded.
func (a *API) getGrants(r *request.Request) error {
	q, err := readGrantQuery(r)
	if err != nil {
		return err
	}
	ctx, cancel := a.withTimeout(r)
	defer cancel()
	page, err := a.cfg.Backend.Grants(ctx, q)
	if err != nil {
		return err
	}
	out := grantsView{Grants: make([]grantView, 0, len(page.Grants)), Next: page.Next}
	for i := range page.Grants {
		v := viewGrant(&page.Grants[i])
		v.Tokens = nil
		out.Grants = append(out.Grants, v)
	}
	return r.SendJSON(http.StatusOK, out)
}

// readGrantQuery reads and bounds the query. At least one selector is required: without one, a page
// could require a scan of all grants.
func readGrantQuery(r *request.Request) (revoked.GrantQuery, error) {
	q := revoked.GrantQuery{Limit: defaultGrants}
	bad := func(name, want string) (revoked.GrantQuery, error) {
		return q, fmt.Errorf("%w: query parameter %s: want %s", revoked.ErrInvalid, name, want)
	}
	for _, p := range [...]struct {
		name  string
		to    *string
		limit int
	}{
		{"client_id", &q.ClientID, request.MaxID}, {"subject", &q.Subject, request.MaxID},
		{"session", &q.Session, request.MaxID}, {"issuer", &q.Issuer, request.MaxURI}, {"after", &q.After, request.MaxID},
	} {
		if *p.to = r.QueryParam(p.name); len(*p.to) > p.limit {
			return bad(p.name, fmt.Sprintf("at most %d bytes", p.limit))
		}
	}
	if q.Selector.IsZero() {
		return q, fmt.Errorf("%w: query: want at least one of client_id, subject, session and issuer", revoked.ErrInvalid)
	}
	switch state := r.QueryParam("state"); state {
	case "":
	case revoked.Live.String():
		q.State = revoked.Live
	case revoked.Revoked.String():
		q.State = revoked.Revoked
	case revoked.Expired.String():
		q.State = revoked.Expired
	default:
		return bad("state", "active, revoked or expired")
	}
	if text := r.QueryParam("limit"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > maxGrants {
			return bad("limit", fmt.Sprintf("1 to %d", maxGrants))
		}
		q.Limit = n
	}
	return q, nil
}

// deleteGrant serves DELETE /v1/grants/{id}[?reason=]. The backend checks that the caller owns the
// grant.
func (a *API) deleteGrant(r *request.Request) error {
	id, err := r.PathID()
	if err != nil {
		return err
	}
	reason := r.QueryParam("reason")
	if len(reason) > request.MaxReason || !textsafe.Printable(strings.ToValidUTF8(reason, "\x00")) {
		return fmt.Errorf("%w: reason: at most %d bytes without control characters", revoked.ErrInvalid, request.MaxReason)
	}
	ctx, cancel := a.withTimeout(r)
	defer cancel()
	index, err := a.cfg.Backend.DeleteGrant(ctx, r.Actor(), id, reason)
	if errors.Is(err, revoked.ErrForbidden) && !r.Client.Has(revoked.RoleAdmin) {
		err = errNoGrant
	}
	return r.SendIndex(index, err)
}
