package tokens

import (
	"errors"
	"net/http"
	"net/netip"
	"slices"
	"strings"

	"revoked"
	"revoked/api/clientauth"
	"revoked/api/request"
)

// Limits of forward authentication.
const (
	// maxBearer limits a bearer token, maxCheckHeader a header of the response, in bytes.
	maxBearer      = 16 << 10
	maxCheckHeader = 4 << 10
)

// Check is forward authentication: it decides whether the bearer token of a user's request may be
// used, with 200, 401 or 503. A gateway without valid credentials gets 403. The request has the
// method of the user's request, so every method is served, and the body is ignored. The caller is a
// resource server with Basic credentials in Revoked-Authorization, or is in a configured network,
// which has audiences like a resource server. Only access tokens pass, except those bound to a key
// (cnf), because possession of the key cannot be verified here.
func (e *Endpoints) Check(r *request.Request) error {
	v, err := e.gateway(r)
	var f *request.Failure
	if errors.As(err, &f) && f.Outcome == OutcomeGateway {
		return e.countCheck(f)
	}
	if err != nil {
		return err
	}
	token, found, ok := bearer(r.Request().Header["Authorization"])
	if !found {
		return e.countCheck(&request.Failure{Status: http.StatusUnauthorized, Title: "a bearer token is required",
			Outcome: "none", Challenge: "Bearer"})
	}
	if !ok {
		return e.countCheck(inactiveBearer("malformed"))
	}
	s, err := e.status(r.Request().Context(), &v, presented([]byte(token)))
	if err != nil {
		// Gateways turn statuses other than 2xx, 401 and 403 into their own error, so 503 replaces 429.
		return e.countCheck(&request.Failure{Status: http.StatusServiceUnavailable, Title: request.TitleUnavailable,
			Outcome: "error", Cause: err})
	}
	rec := &s.Record
	sees := v.sees(rec, s.Foreign) && rec.Token.Kind == revoked.AccessToken && len(rec.Token.CNF) == 0
	r.Outcome = resultOf(&s, sees)
	if r.Outcome != "active" {
		return e.countCheck(inactiveBearer(r.Outcome))
	}
	e.metrics.checks.WithLabelValues(r.Outcome).Inc()
	r.Quiet = true
	h := r.Response().Header()
	setSafe(h, headerSubject, rec.Grant.Subject)
	setSafe(h, headerClientID, rec.Grant.ClientID)
	setSafe(h, headerScope, rec.Token.Scope)
	r.Response().WriteHeader(http.StatusOK)
	return nil
}

// inactiveBearer returns the 401 of RFC 6750 section 3.1 for a token that was presented.
func inactiveBearer(result string) *request.Failure {
	return &request.Failure{Status: http.StatusUnauthorized, Title: "the token is not active", Outcome: result,
		Challenge: `Bearer error="invalid_token"`}
}

// countCheck counts a check that failed and returns f.
func (e *Endpoints) countCheck(f *request.Failure) error {
	e.metrics.checks.WithLabelValues(f.Outcome).Inc()
	return f
}

// OutcomeGateway is the outcome of a check whose gateway does not identify itself. It is worth a
// warning in the log: every request of the gateway's users fails.
const OutcomeGateway = "gateway"

// unknownGateway returns the answer to a gateway without valid credentials. It has no challenge: a
// gateway would relay a 401 to its user, whose browser would prompt for a password.
func unknownGateway(detail string) *request.Failure {
	return &request.Failure{Status: http.StatusForbidden, Title: "the gateway is not authenticated",
		Outcome: OutcomeGateway, Detail: detail}
}

// gateway identifies the gateway that sent the check. It returns the failure of unknownGateway if
// the credentials are missing or wrong.
func (e *Endpoints) gateway(r *request.Request) (viewer, error) {
	values := r.Request().Header["Revoked-Authorization"]
	if len(values) == 0 {
		from := request.Peer(r.Request())
		if audiences, ok := audiencesOf(e.cfg.CheckNetworks, from); ok {
			return viewer{name: "network " + from.String(), audiences: audiences,
				all: slices.Contains(audiences, anyAudience)}, nil
		}
	}
	if len(values) > 1 {
		return viewer{}, unknownGateway("more than one Revoked-Authorization: replace the user's header")
	}
	caller, err := e.cfg.Access.Identify(r, values)
	var throttled *clientauth.ThrottledError
	switch {
	case err != nil && len(values) == 0:
		return viewer{}, unknownGateway("Revoked-Authorization is missing, and this address is not in check_networks")
	case errors.Is(err, clientauth.ErrUnauthenticated), errors.As(err, &throttled) && throttled.Verified:
		return viewer{}, unknownGateway("Revoked-Authorization has no valid credentials")
	case throttled != nil: // gateways turn 429 into their own error
		return viewer{}, &request.Failure{Status: http.StatusServiceUnavailable, Title: request.TitleUnavailable,
			Outcome: "throttled", RetryAfter: throttled.RetryAfter, Cause: err}
	case err != nil:
		return viewer{}, err
	}
	client := caller.Client
	if err := e.cfg.Access.Admit(r, client); err != nil {
		// Gateways turn statuses other than 2xx, 401 and 403 into their own error, so 503 replaces 429.
		return viewer{}, &request.Failure{Status: http.StatusServiceUnavailable, Code: request.CodeUnavailable,
			Title: "too many requests of this client in progress", Outcome: "limit_client"}
	}
	if err := client.Require(revoked.RoleResourceServer); err != nil {
		return viewer{}, unknownGateway(err.Error())
	}
	v := viewerOf(client)
	v.clientID = "" // a gateway sees tokens as their audience, not as their owner
	return v, nil
}

// anyAudience in the audiences of a network stands for every audience.
const anyAudience = "*"

// audiencesOf returns the audiences of the network with the longest prefix that contains the
// address. ok is false if no network contains it.
func audiencesOf(networks map[netip.Prefix][]string, addr netip.Addr) (audiences []string, ok bool) {
	longest := -1
	for n, of := range networks {
		if n.Bits() > longest && n.Contains(addr) {
			longest, audiences = n.Bits(), of
		}
	}
	return audiences, longest >= 0
}

// bearer returns the token of an Authorization header with these values (RFC 6750 section 2.1).
// found is false without the scheme Bearer. ok is false if the token is malformed or the header is
// repeated.
func bearer(values []string) (token string, found, ok bool) {
	if len(values) == 0 {
		return "", false, false
	}
	if len(values) > 1 {
		return "", true, false
	}
	scheme, token, _ := strings.Cut(values[0], " ")
	if !strings.EqualFold(scheme, "Bearer") {
		return "", false, false
	}
	token = strings.Trim(token, " \t")
	if token == "" || len(token) > maxBearer {
		return "", true, false
	}
	for i := 0; i < len(token); i++ {
		if token[i] <= 0x20 || token[i] >= 0x7f {
			return "", true, false
		}
	}
	return token, true, true
}

// Headers of an answer that a gateway may pass on.
const (
	headerSubject  = "Revoked-Subject"
	headerClientID = "Revoked-Client-Id"
	headerScope    = "Revoked-Scope"
)

// ClearIdentity gives an empty value to each header that a gateway may pass on. Some gateways keep
// the user's own header of that name if the answer lacks the header (GHSA-7r4p-vjf4-gxv4).
func ClearIdentity(h http.Header) {
	h[headerSubject], h[headerClientID], h[headerScope] = noValue, noValue, noValue
}

// noValue is the empty value of a header. It must not be changed.
var noValue = []string{""}

// setSafe sets a header that a gateway may pass on. The header keeps its empty value if the new
// value is too long, is not printable ASCII, or begins or ends with a space. A recipient would drop
// that space, and a shortened name could be another user's name.
func setSafe(h http.Header, name, value string) {
	if len(value) > maxCheckHeader || value != strings.Trim(value, " ") {
		return
	}
	for i := 0; i < len(value); i++ {
		if value[i] < 0x20 || value[i] >= 0x7f {
			return
		}
	}
	h.Set(name, value)
}
