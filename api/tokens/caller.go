package tokens

import (
	"net/http"
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
		values = nil // an access token does not authenticate a client
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
	caller, err := e.cfg.Access.Traced(r, func() (*clientauth.Caller, error) {
		return e.callerOf(r, q, values, public)
	})
	if err != nil {
		return err
	}
	r.Caller = caller
	return e.cfg.Access.Admit(r, caller.Client)
}

// isScheme reports whether the value of an Authorization header has the scheme.
func isScheme(value, scheme string) bool {
	name, _, _ := strings.Cut(value, " ")
	return strings.EqualFold(name, scheme)
}

// assertionType is the client_assertion_type of a JWT (RFC 7523 section 2.2).
const assertionType = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"

// callerOf authenticates a request, which may use only one method. It uses the certificate of the
// connection only if the request names the client and has no other credentials. A connection may
// have a certificate for another purpose.
func (e *Endpoints) callerOf(
	r *request.Request, q *oauthRequest, values []string, public bool,
) (*clientauth.Caller, error) {
	id := string(q.values[paramClientID])
	ctx, control := r.Request().Context(), e.cfg.Access
	if caller, err := control.SignedIn(ctx); caller != nil || err != nil {
		return caller, err
	}
	attempt := clientauth.Attempt{Method: revoked.AuthBasic, From: control.Addr(r)}
	switch {
	case len(values) == 1:
		attempt.Candidates = clientauth.ParseBasic(values[0])
		if id != "" && !clientauth.Names(attempt.Candidates, id) {
			return nil, errTwoWays
		}
		return control.Authenticate(ctx, attempt)
	case q.has(paramAssertion) && string(q.values[paramAssertionType]) == assertionType:
		return control.Assertion(r, string(q.values[paramAssertion]), id)
	case q.has(paramAssertion) || q.has(paramAssertionType) || id == "":
		return nil, control.Missing()
	case q.has(paramClientSecret):
		attempt.Candidates = []clientauth.Credential{{ID: id, Secret: string(q.values[paramClientSecret])}}
		attempt.Method = revoked.AuthPost
		return control.Authenticate(ctx, attempt)
	}
	certs := control.Certificates(r)
	known, _ := e.cfg.Backend.Client(id)
	if public && (len(certs) == 0 || known == nil || known.Type == revoked.Public) {
		if client, err := control.PublicClient(ctx, id); client != nil || err != nil {
			return &clientauth.Caller{Client: client}, err
		}
	}
	if len(certs) > 0 {
		return control.AuthenticateCertificate(ctx, id, certs, attempt.From)
	}
	return nil, control.Missing()
}
