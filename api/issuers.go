package api

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"

	"revoked"
	"revoked/api/request"
)

// issuerView is an issuer record as JSON. Lists are never null.
type issuerView struct {
	Name            string              `json:"name"`
	Issuer          string              `json:"issuer"`
	JWKSURI         string              `json:"jwks_uri,omitempty"`
	JWKS            json.RawMessage     `json:"jwks,omitempty"`
	Algorithms      []string            `json:"algorithms"`
	TokenTypes      []string            `json:"token_types"`
	RequiredClaims  map[string]string   `json:"required_claims"`
	ForbiddenClaims []string            `json:"forbidden_claims"`
	ClientClaim     string              `json:"client_claim"`
	SessionClaim    string              `json:"session_claim"`
	GrantClaim      string              `json:"grant_claim"`
	RevokeSession   bool                `json:"revoke_session"`
	OwnClients      bool                `json:"own_clients"`
	UnknownClients  string              `json:"unknown_clients"`
	RequireAudience bool                `json:"require_audience"`
	JTI             bool                `json:"jti"`
	MaxLifetime     string              `json:"max_lifetime"`
	ClockSkew       string              `json:"clock_skew"`
	Disabled        bool                `json:"disabled"`
	CreatedAt       request.UnixSeconds `json:"created_at"`
	Keys            []issuerKeyView     `json:"keys"`
	Fetch           *keyFetchView       `json:"fetch,omitempty"` // absent if the leader did not answer
}

// keyFetchView is the last fetch of a key set, as the leader reports it. Error is empty after a
// success.
type keyFetchView struct {
	At     request.UnixSeconds `json:"at"` // null: not fetched yet
	OK     bool                `json:"ok"`
	Error  string              `json:"error,omitempty"`
	NextAt request.UnixSeconds `json:"next_at"`
}

// issuerKeyView is a key without its material. State is active, retired or banned.
type issuerKeyView struct {
	KeyID      string `json:"kid,omitempty"`
	Thumbprint string `json:"thumbprint"`
	Algorithm  string `json:"alg,omitempty"`
	State      string `json:"state"`
}

// viewIssuer returns the JSON form. It fails if the stored keys cannot be written as a JWK set.
func (a *API) viewIssuer(i *revoked.Issuer, fetches map[string]revoked.KeyFetch) (issuerView, error) {
	v := issuerView{
		Name: i.Name, Issuer: i.Issuer, JWKSURI: i.JWKSURI, Algorithms: append([]string{}, i.Algorithms...),
		TokenTypes: append([]string{}, i.TokenTypes...), RequiredClaims: map[string]string{},
		ForbiddenClaims: append([]string{}, i.ForbiddenClaims...), ClientClaim: i.ClientClaim,
		SessionClaim: i.SessionClaim, GrantClaim: i.GrantClaim, RevokeSession: i.RevokeSession,
		OwnClients: i.OwnClients, UnknownClients: allowClients, RequireAudience: i.RequireAudience, JTI: i.JTI,
		MaxLifetime: revoked.FormatDuration(i.MaxLifetime), ClockSkew: revoked.FormatDuration(i.ClockSkew),
		Disabled: i.Disabled, CreatedAt: request.UnixSeconds(i.CreatedAt), Keys: []issuerKeyView{},
	}
	maps.Copy(v.RequiredClaims, i.RequiredClaims)
	if i.RefuseUnknownClients {
		v.UnknownClients = refuseClients
	}
	for n := range i.Keys {
		k := &i.Keys[n]
		v.Keys = append(v.Keys, issuerKeyView{k.KeyID, k.Thumbprint, i.AlgorithmOf(k), k.State.String()})
	}
	if i.JWKSURI != "" {
		if fetches != nil { // the leader answered, even if it has not begun to fetch
			f := fetches[i.Name]
			v.Fetch = &keyFetchView{request.UnixSeconds(f.At), f.At != 0 && f.Error == "", f.Error,
				request.UnixSeconds(f.NextAt)}
		}
		return v, nil
	}
	var err error
	v.JWKS, err = a.cfg.Backend.FormatKeys(givenKeys(i))
	return v, err
}

// getIssuers serves GET /v1/issuers.
func (a *API) getIssuers(r *request.Request) error {
	ctx, cancel := a.withTimeout(r)
	defer cancel()
	if err := a.cfg.Backend.Current(ctx); err != nil {
		return err
	}
	out, list := []issuerView{}, a.cfg.Backend.Issuers()
	fetches := a.keyFetches(ctx, list...)
	for _, i := range list {
		v, err := a.viewIssuer(i, fetches)
		if err != nil {
			return err
		}
		out = append(out, v)
	}
	return r.SendJSON(http.StatusOK, map[string][]issuerView{"issuers": out})
}

// getIssuer serves GET /v1/issuers/{name}. The record is current; the fetches are those of the
// leader, or absent if the leader does not answer.
func (a *API) getIssuer(r *request.Request) error {
	ctx, cancel := a.withTimeout(r)
	defer cancel()
	if err := a.cfg.Backend.Current(ctx); err != nil {
		return err
	}
	i, err := a.pathIssuer(r)
	if err != nil {
		return err
	}
	return a.writeIssuer(ctx, r, http.StatusOK, i)
}

// keyFetches requests the leader's key fetches if one of the issuers has a JWKSURI. It returns
// nil if the leader does not answer, and the records are then shown without fetches.
func (a *API) keyFetches(ctx context.Context, issuers ...*revoked.Issuer) map[string]revoked.KeyFetch {
	if !slices.ContainsFunc(issuers, func(i *revoked.Issuer) bool { return i.JWKSURI != "" }) {
		return nil
	}
	fetches, err := a.cfg.Backend.KeyFetches(ctx)
	if err != nil {
		a.cfg.Log.Info("leader did not report its key fetches", "error", err)
	}
	return fetches
}

// writeIssuer sends one issuer with its fetches.
func (a *API) writeIssuer(ctx context.Context, r *request.Request, status int, i *revoked.Issuer) error {
	v, err := a.viewIssuer(i, a.keyFetches(ctx, i))
	if err != nil {
		return err
	}
	return r.SendJSON(status, v)
}

// pathIssuer returns this node's copy of the issuer in the path.
func (a *API) pathIssuer(r *request.Request) (*revoked.Issuer, error) {
	name, err := r.PathID()
	if err != nil {
		return nil, err
	}
	for _, i := range a.cfg.Backend.Issuers() {
		if i.Name == name {
			return i, nil
		}
	}
	return nil, fmt.Errorf("%w: issuer %q", revoked.ErrNotFound, name)
}

// postIssuers serves POST /v1/issuers.
func (a *API) postIssuers(r *request.Request) error {
	p, err := a.decodeIssuer(r, request.TypesJSON)
	if err != nil {
		return err
	}
	i, err := p.create()
	if err != nil {
		return err
	}
	ctx, cancel := a.withTimeout(r)
	defer cancel()
	r.Object.Name, r.Object.Issuer = i.Name, i.Issuer
	made, _, err := a.cfg.Backend.CreateIssuer(ctx, r.Actor(), i)
	if err != nil {
		return err
	}
	return a.writeIssuer(ctx, r, http.StatusCreated, made)
}

// patchIssuer serves PATCH /v1/issuers/{name}: a merge patch (RFC 7396). Each attempt reads the
// record again, so a concurrent change of another field is kept.
func (a *API) patchIssuer(r *request.Request) error {
	p, err := a.decodeIssuer(r, request.TypesPatch)
	if err != nil {
		return err
	}
	ctx, cancel := a.withTimeout(r)
	defer cancel()
	var made *revoked.Issuer
	err = request.RetryConflict(ctx, func() error {
		stored, err := a.pathIssuer(r)
		if err != nil {
			return err
		}
		next, err := p.change(stored)
		if err != nil {
			return err
		}
		made, _, err = a.cfg.Backend.UpdateIssuer(ctx, r.Actor(), next)
		return err
	})
	if err != nil {
		return err
	}
	return a.writeIssuer(ctx, r, http.StatusOK, made)
}

// deleteIssuer serves DELETE /v1/issuers/{name}. It revokes all tokens of the issuer. The
// name stays taken until the last of them would have expired.
func (a *API) deleteIssuer(r *request.Request) error {
	name, err := r.PathID()
	if err != nil {
		return err
	}
	ctx, cancel := a.withTimeout(r)
	defer cancel()
	return r.SendIndex(a.cfg.Backend.DeleteIssuer(ctx, r.Actor(), name))
}

// deleteIssuerKey serves DELETE /v1/issuers/{name}/keys/{thumbprint}: it bans the key permanently,
// even if the issuer publishes it again.
func (a *API) deleteIssuerKey(r *request.Request) error {
	name, err := r.PathID()
	if err != nil {
		return err
	}
	ctx, cancel := a.withTimeout(r)
	defer cancel()
	return r.SendIndex(a.cfg.Backend.BanIssuerKey(ctx, r.Actor(), name, r.Param("thumbprint")))
}

// postIssuerRefresh serves POST /v1/issuers/{name}/refresh: the leader fetches the keys now.
func (a *API) postIssuerRefresh(r *request.Request) error {
	if err := r.DecodeOptional(); err != nil {
		return err
	}
	name, err := r.PathID()
	if err != nil {
		return err
	}
	ctx, cancel := r.WithSlowTimeout()
	defer cancel()
	index, changed, err := a.cfg.Backend.RefreshIssuer(ctx, r.Actor(), name)
	if err != nil {
		return err
	}
	return r.SendJSON(http.StatusOK, struct {
		Index   uint64 `json:"index"`
		Changed bool   `json:"changed"`
	}{index, changed})
}

// tokenCheckView is the response to POST /v1/issuers/{name}/check. The members after reason are
// absent unless the issuer signed the token.
type tokenCheckView struct {
	Verified   bool                `json:"verified"`
	Reason     string              `json:"reason,omitempty"`
	Claim      string              `json:"claim,omitempty"`
	KeyID      string              `json:"kid,omitempty"`
	Thumbprint string              `json:"thumbprint,omitempty"`
	ClientID   string              `json:"client_id,omitempty"`
	Subject    string              `json:"sub,omitempty"`
	Session    string              `json:"session,omitempty"`
	Grant      string              `json:"grant,omitempty"`
	JTI        string              `json:"jti,omitempty"`
	IssuedAt   request.UnixSeconds `json:"iat,omitempty"`
	ExpiresAt  request.UnixSeconds `json:"exp,omitempty"`
}

// postIssuerCheck serves POST /v1/issuers/{name}/check: it reports why a token of the issuer cannot
// be active. It does not read revocations.
func (a *API) postIssuerCheck(r *request.Request) error {
	var token string
	// Accept any token that fits into the body: a long one gets the reason format, not an error.
	text := request.Into("token", &token, request.Name(maxIssuerBody))
	if err := r.DecodeLimited(request.TypesJSON, maxIssuerBody, text); err != nil {
		return err
	}
	if token == "" {
		return fmt.Errorf("%w: token is missing", revoked.ErrInvalid)
	}
	id, err := r.PathID()
	if err != nil {
		return err
	}
	ctx, cancel := a.withTimeout(r)
	defer cancel()
	c, err := a.cfg.Backend.CheckToken(ctx, id, token)
	if err != nil {
		return err
	}
	return r.SendJSON(http.StatusOK, tokenCheckView{
		Verified: c.Reason == "", Reason: string(c.Reason), Claim: c.Claim, KeyID: c.KeyID, Thumbprint: c.JWT.Thumbprint,
		ClientID: c.JWT.ClientID, Subject: c.JWT.Subject, Session: c.JWT.Session, Grant: c.JWT.GrantID, JTI: c.JWT.JTI,
		IssuedAt: request.UnixSeconds(c.JWT.IssuedAt), ExpiresAt: request.UnixSeconds(c.JWT.ExpiresAt),
	})
}
