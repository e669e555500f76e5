package api

import (
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/labstack/echo/v4"

	"revoked"
)

// postGrants is POST /v1/grants: one registration, or many with one a line.
func (a *API) postGrants(c echo.Context) error {
	t, err := mediaType(c.Request(), typeJSON, typeNDJSON)
	if err != nil {
		return a.refuse(c, err)
	}
	if t == typeNDJSON {
		return a.registerLines(c)
	}
	body, err := readBody(c.Request(), maxRegistration)
	if err != nil {
		return a.refuse(c, err)
	}
	var d registrationDecoder
	reg, err := d.decode(body, revoked.TimeOf(a.cfg.Now()))
	clear(body)
	d.r.wipe()
	if err != nil {
		return a.problem(c, err)
	}
	results, err := a.registerFor(a.caller(c))(c.Request().Context(), []revoked.Registration{reg})
	switch {
	case err != nil:
		return a.problem(c, err)
	case len(results) != 1:
		return a.problem(c, fmt.Errorf("%w: got %d results for one registration", revoked.ErrOutcomeUnknown, len(results)))
	case results[0].Err != nil:
		return a.problem(c, results[0].Err)
	}
	res := results[0]
	if res.GrantID == "" {
		res.GrantID = reg.GrantID
	}
	status := http.StatusCreated
	if !res.Created {
		status = http.StatusOK
	}
	return write(c, status, typeJSON, append(appendRegistered(make([]byte, 0, 128), &res), '\n'))
}

// grantAnswer is the answer of GET /v1/grants/{id}. Times are Unix seconds.
type grantAnswer struct {
	GrantID      string        `json:"grant_id"`
	State        string        `json:"state"`
	ClientID     string        `json:"client_id"`
	Subject      string        `json:"subject,omitempty"`
	Session      string        `json:"session,omitempty"`
	Issuer       string        `json:"issuer,omitempty"`
	Scope        string        `json:"scope,omitempty"` // of the tokens that are active, each word once
	RegisteredBy string        `json:"registered_by,omitempty"`
	CreatedAt    unixTime      `json:"created_at"`
	CreatedIndex uint64        `json:"created_index"`
	ExpiresAt    unixTime      `json:"expires_at"` // of the last token to expire; null: never
	TokenCount   int           `json:"token_count"`
	Tokens       []tokenAnswer `json:"tokens"`
	Revoked      *endAnswer    `json:"revoked,omitempty"`
}

type tokenAnswer struct {
	Kind         string   `json:"kind"`
	DigestPrefix string   `json:"digest_prefix"`
	State        string   `json:"state"`
	IssuedAt     unixTime `json:"issued_at"` // null where only a stub is left
	ExpiresAt    unixTime `json:"expires_at"`
	NotBefore    unixTime `json:"not_before"`
	Scope        string   `json:"scope,omitempty"`
	Audience     []string `json:"audience,omitempty"`
}

// endAnswer says how a grant ended.
type endAnswer struct {
	At     unixTime `json:"at"`
	By     string   `json:"by"`
	Reason string   `json:"reason"`
	Index  uint64   `json:"index"`
	Cutoff bool     `json:"cutoff,omitempty"` // by a cut-off, not by name
}

func (a *API) getGrant(c echo.Context) error {
	id, err := pathID(c)
	if err != nil {
		return a.problem(c, err)
	}
	ctx, cancel := a.within(c)
	defer cancel()
	view, err := a.cfg.Backend.Grant(ctx, id)
	if err != nil {
		return a.problem(c, err)
	}
	if by := a.caller(c); !by.Has(revoked.RoleAdmin) && view.Grant.RegisteredBy != by.ID {
		// An issuer learns nothing of the grants of others, not even that they are there.
		return a.problem(c, fmt.Errorf("%w: no such grant", revoked.ErrNotFound))
	}
	return a.reply(c, http.StatusOK, viewGrant(&view))
}

func viewGrant(v *revoked.GrantView) grantAnswer {
	g := &v.Grant
	out := grantAnswer{
		GrantID: g.ID, State: v.State.String(), ClientID: g.ClientID, Subject: g.Subject, Session: g.Session,
		Issuer: g.Issuer, RegisteredBy: g.RegisteredBy, CreatedAt: unixTime(g.CreatedAt), CreatedIndex: g.CreatedIndex,
		TokenCount: g.TokenCount, Tokens: make([]tokenAnswer, 0, len(v.Tokens)),
	}
	if g.LatestExpiry != revoked.MaxTime {
		out.ExpiresAt = unixTime(g.LatestExpiry)
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
		out.Tokens = append(out.Tokens, tokenAnswer{
			Kind: t.Kind.String(), DigestPrefix: t.Digest.Prefix(), State: state.String(), IssuedAt: unixTime(t.IssuedAt),
			ExpiresAt: unixTime(t.ExpiresAt), NotBefore: unixTime(t.NotBefore), Scope: t.Scope, Audience: t.Audience,
		})
	}
	out.Scope = strings.Join(scopes, " ")
	switch {
	case g.Revoked != nil:
		out.Revoked = &endAnswer{At: unixTime(g.Revoked.At), By: g.Revoked.By, Reason: g.Revoked.Reason, Index: g.Revoked.Index}
	case v.ByCutoff != nil:
		out.Revoked = &endAnswer{At: unixTime(v.ByCutoff.At), By: v.ByCutoff.By, Reason: v.ByCutoff.Reason, Index: v.ByCutoff.Index, Cutoff: true}
	}
	return out
}

// deleteGrant is DELETE /v1/grants/{id}[?reason=]. Whose grant it is, is decided where the grant ends.
func (a *API) deleteGrant(c echo.Context) error {
	id, err := pathID(c)
	if err != nil {
		return a.problem(c, err)
	}
	reason := c.QueryParam("reason")
	if len(reason) > maxReason || !printable(strings.ToValidUTF8(reason, "\x00")) {
		return a.problem(c, fmt.Errorf("%w: reason: at most %d bytes without control characters", revoked.ErrInvalid, maxReason))
	}
	ctx, cancel := a.within(c)
	defer cancel()
	by := a.caller(c)
	index, err := a.cfg.Backend.DeleteGrant(ctx, revoked.ActorOf(by), id, reason)
	if errors.Is(err, revoked.ErrForbidden) && !by.Has(revoked.RoleAdmin) {
		err = fmt.Errorf("%w: no such grant", revoked.ErrNotFound)
	}
	if err != nil {
		return a.problem(c, err)
	}
	return a.reply(c, http.StatusOK, indexAnswer{Index: index})
}
