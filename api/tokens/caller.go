package tokens

import (
	"net/http"
	"slices"
	"strings"

	"revoked"
	"revoked/api/clientauth"
	"revoked/api/request"
)

// errTwoWays is returned for more than one way to authenticate, and for a header and a body that
// name different clients.
var errTwoWays = badForm(http.StatusBadRequest, "two_ways", "more than one way to authenticate")

// identify authenticates the caller of an OAuth endpoint. If public is set, a client_id alone
// identifies a public client that may revoke.
func (e *Endpoints) identify(r *request.Request, q *oauthRequest, public bool) error {
	values := r.Request().Header["Authorization"]
	if len(values) == 1 && (isScheme(values[0], "Bearer") || isScheme(values[0], "DPoP")) {
		values = nil // an access token authorizes, it does not authenticate a client
	}
	ways := len(values)
	if q.has(paramClientSecret) {
		ways++
	}
	if q.has(paramAssertion) || q.has(paramAssertionType) {
		ways++
	}
	if ways > 1 {
		return errTwoWays
	}
	client, err := e.callerOf(r, q, values, public)
	if err != nil {
		return err
	}
	return e.cfg.Access.Admit(r, client)
}

// isScheme reports whether the value of an Authorization header has the scheme.
func isScheme(value, scheme string) bool {
	name, _, _ := strings.Cut(value, " ")
	return strings.EqualFold(name, scheme)
}

// callerOf authenticates a request with at most one way to authenticate and returns the client.
func (e *Endpoints) callerOf(
	r *request.Request, q *oauthRequest, values []string, public bool,
) (*revoked.Client, error) {
	id := string(q.values[paramClientID])
	ctx := r.Request().Context()
	attempt := clientauth.Attempt{Method: revoked.AuthBasic, From: e.cfg.Access.Addr(r)}
	switch {
	case len(values) == 1:
		attempt.Candidates = clientauth.ParseBasic(values[0])
		if id != "" && !named(attempt.Candidates, id) {
			return nil, errTwoWays
		}
		return clientOf(e.cfg.Access.Authenticate(ctx, attempt))
	case q.has(paramClientSecret) && id != "":
		attempt.Candidates = []clientauth.Credential{{ID: id, Secret: string(q.values[paramClientSecret])}}
		attempt.Method = revoked.AuthPost
		return clientOf(e.cfg.Access.Authenticate(ctx, attempt))
	case public && id != "" && !q.has(paramClientSecret) && !q.has(paramAssertion):
		if client, err := e.cfg.Access.PublicClient(ctx, id); client != nil || err != nil {
			return client, err
		}
	}
	return nil, e.cfg.Access.Missing()
}

// clientOf returns the client of a caller that authenticated.
func clientOf(c *clientauth.Caller, err error) (*revoked.Client, error) {
	if err != nil {
		return nil, err
	}
	return c.Client, nil
}

// named reports whether one of the candidates is of client id. Malformed credentials have no
// candidates and name no client, so the body does not contradict them.
func named(candidates []clientauth.Credential, id string) bool {
	return len(candidates) == 0 ||
		slices.ContainsFunc(candidates, func(c clientauth.Credential) bool { return c.ID == id })
}
