package tokens

import (
	"bytes"
	"context"
	"fmt"
	"net/http"

	"revoked"
	"revoked/api/registration"
	"revoked/api/request"
	"revoked/api/strictjson"
)

// An explainBody is the body of POST /v1/explain. It has a token or a digest.
type explainBody struct {
	revoked.PresentedToken
	hasToken, hasDigest bool
	as                  string // client id of the viewer; empty: a viewer that may see every token
}

// decodeExplain reads the body and clears the raw token. Exactly one of token and digest is
// required. With both, it would be unclear which of the two the answer describes.
func decodeExplain(r *request.Request) (b explainBody, err error) {
	err = r.DecodeLimited(request.TypesJSON, request.MaxBody,
		request.Into("token", &b.PresentedToken, func(j *strictjson.Reader) (revoked.PresentedToken, error) {
			b.hasToken = true
			text, err := j.Text(maxForm)
			if err == nil && len(text) == 0 {
				err = j.Fail("empty")
			}
			if err != nil {
				return revoked.PresentedToken{}, err
			}
			defer clear(text)
			return presented(bytes.Clone(text)), nil
		}),
		request.Into("digest", &b.Digest, func(j *strictjson.Reader) (revoked.Digest, error) {
			b.hasDigest = true
			return registration.ReadDigest(j)
		}),
		request.Into("as", &b.as, request.Name(request.MaxID)))
	if err == nil && b.hasToken == b.hasDigest {
		err = fmt.Errorf("%w: want exactly one of token and digest", revoked.ErrInvalid)
	}
	return b, err
}

// explainView is the response to POST /v1/explain. Members that do not apply are absent.
type explainView struct {
	Active       bool                    `json:"active"`
	Reason       revoked.Reason          `json:"reason"`
	Kind         string                  `json:"kind"`
	GrantID      string                  `json:"grant_id,omitempty"`
	ClientID     string                  `json:"client_id,omitempty"`
	Subject      string                  `json:"subject,omitempty"`
	Session      string                  `json:"session,omitempty"`
	Issuer       string                  `json:"issuer,omitempty"`
	JTI          string                  `json:"jti,omitempty"`
	IssuedAt     request.UnixTime        `json:"issued_at,omitempty"`
	ExpiresAt    request.UnixTime        `json:"expires_at,omitempty"`
	Audience     []string                `json:"audience,omitempty"`
	Scope        string                  `json:"scope,omitempty"`
	Revoked      *request.RevocationView `json:"revoked,omitempty"`
	Cutoff       *cutoffView             `json:"cutoff,omitempty"`
	IssuerReason revoked.IssuerReason    `json:"issuer_reason,omitempty"`
	Node         string                  `json:"node,omitempty"`
	AppliedIndex uint64                  `json:"applied_index"`
	LeaseLeftMS  int64                   `json:"lease_left_ms,omitempty"` // absent: the node has no lease
}

// cutoffView is a cut-off that covers a token.
type cutoffView struct {
	Selector     request.SelectorView `json:"selector"`
	Withheld     bool                 `json:"withheld,omitempty"` // the selector has conditions that are not shown
	IssuedBefore request.UnixSeconds  `json:"issued_before"`
	Index        uint64               `json:"index"`
	By           string               `json:"by"`
	At           request.UnixSeconds  `json:"at"`
	Reason       string               `json:"reason"`
}

// Values of kind.
const (
	kindRegistered = "registered"
	kindJWT        = "jwt"
	kindUnknown    = "unknown"
)

// Explain serves POST /v1/explain: it reports why a token is active or not, for the viewer that the
// request names. Only an administrator learns the subject, the session and the address of an
// issuer's keys.
func (e *Endpoints) Explain(r *request.Request) error {
	b, err := decodeExplain(r)
	if err != nil {
		return err
	}
	ctx, cancel := e.withTimeout(r)
	defer cancel()
	asker := viewerOf(r.Client)
	asker.all = true // the route requires a role that may see every token
	if e.misses.Empty(asker.name, e.cfg.Now()) {
		return e.tooManyMisses(&asker)
	}
	b.Caller = asker.name
	x, failure := e.cfg.Backend.Explain(ctx, b.PresentedToken)
	v, err := e.viewerAs(ctx, &asker, b.as)
	if err != nil {
		return err
	}
	if failure != nil {
		// A caller that may not see the token gets "active":false without a read barrier.
		rec, why := e.hidden(b.Digest, v)
		if why == "" {
			return failureFor(r, failure)
		}
		x.Decision, x.Record = revoked.Decision{Verdict: revoked.Dead, Reason: why}, rec
		status := e.cfg.Backend.NodeStatus(ctx)
		x.NodeID, x.AppliedIndex = status.NodeID, status.AppliedIndex
	} else if x.Verdict == revoked.Unknown {
		e.misses.Charge(asker.name, e.cfg.Now())
	}
	view := viewExplanation(&x, v)
	if !r.Client.Has(revoked.RoleAdmin) {
		view.hideUser()
	}
	return r.SendJSON(http.StatusOK, view)
}

// failureFor returns the answer to a failed explanation. The texts for administrators name the
// address of an issuer's keys, which others may not read.
func failureFor(r *request.Request, err error) error {
	if r.Client.Has(revoked.RoleAdmin) {
		return err
	}
	return request.FailureOf("", err)
}

// hideUser removes the user of the token, for callers other than administrators.
func (v *explainView) hideUser() {
	v.Subject, v.Session = "", ""
	if v.Cutoff != nil {
		v.Cutoff.Withheld = v.Cutoff.Selector.Subject != "" || v.Cutoff.Selector.Session != ""
		v.Cutoff.Selector.Subject, v.Cutoff.Selector.Session = "", ""
	}
}

// viewerAs returns the client with that id as a viewer, or asker for an empty id. The client is
// read after the token, so it is as current as the token.
func (e *Endpoints) viewerAs(ctx context.Context, asker *viewer, id string) (*viewer, error) {
	if id == "" {
		return asker, nil
	}
	client, ok := e.cfg.Backend.Client(id)
	if !ok {
		if err := e.cfg.Backend.Current(ctx); err != nil {
			return nil, err
		}
		client, ok = e.cfg.Backend.Client(id)
	}
	switch {
	case !ok:
		return nil, fmt.Errorf("%w: as: no such client", revoked.ErrUnknownClient)
	case client.Disabled:
		return nil, fmt.Errorf("%w: as: the client is disabled, so it cannot introspect", revoked.ErrUnprocessable)
	case client.Type == revoked.Public:
		return nil, fmt.Errorf("%w: as: a public client cannot introspect", revoked.ErrUnprocessable)
	}
	v := viewerOf(client)
	return &v, nil
}

// viewExplanation returns the JSON form. A token that is active, but not for the viewer, has the
// reason why the viewer may not see it.
func viewExplanation(x *revoked.Explanation, v *viewer) explainView {
	t, g := &x.Record.Token, &x.Record.Grant
	out := explainView{
		Reason: x.Reason, Kind: kindUnknown, GrantID: g.ID, ClientID: g.ClientID, Subject: g.Subject, Session: g.Session,
		Issuer: g.Issuer, JTI: t.JTI, IssuedAt: request.UnixTime(t.IssuedAt), ExpiresAt: request.UnixTime(t.ExpiresAt),
		Audience: t.Audience, Scope: t.Scope, IssuerReason: x.IssuerReason, Node: x.NodeID,
		AppliedIndex: x.AppliedIndex, LeaseLeftMS: x.LeaseLeft.Milliseconds(),
	}
	switch {
	case x.IsJWT:
		out.Kind = kindJWT
	case x.Record.Found:
		out.Kind = kindRegistered
	}
	if why := v.refusal(&x.Record, x.Foreign); x.Verdict == revoked.Active && why != "" {
		out.Reason = why
	}
	out.Active = out.Reason == revoked.ReasonActive
	if e := x.Revoked; e != nil {
		out.Revoked = &request.RevocationView{At: request.UnixSeconds(e.At), By: e.By, Reason: e.Reason, Index: e.Index}
	}
	if c := x.Cutoff; c != nil {
		out.Cutoff = &cutoffView{
			Selector: request.SelectorView(c.Selector), IssuedBefore: request.UnixSeconds(c.IssuedBefore), Index: c.Index,
			By: c.By,
			At: request.UnixSeconds(c.At), Reason: c.Reason,
		}
	}
	return out
}
