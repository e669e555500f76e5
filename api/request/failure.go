package request

import (
	"net/http"
	"slices"
	"strings"
	"time"
)

// Error codes of RFC 6749 sections 5.2 and 4.1.2.1. CodeUnavailable is also the code of a 429.
const (
	CodeInvalidRequest     = "invalid_request"
	CodeInvalidClient      = "invalid_client"
	CodeInvalidGrant       = "invalid_grant"
	CodeUnauthorizedClient = "unauthorized_client"
	CodeServerError        = "server_error"
	CodeUnavailable        = "temporarily_unavailable"
)

// OutcomeNoLeader is the outcome of requests that need a leader while none is known. Their log
// lines are limited to one a second.
const OutcomeNoLeader = "no_leader"

// Titles that several failures share.
const (
	titleMalformed   = "malformed request" // title of a 400 from a handler below /v1
	TitleUnavailable = "cannot be answered now, retry later"
)

// A Failure is the response to an error, in two shapes. OAuth endpoints send code and title (RFC
// 6749 section 5.2), /v1 sends title and detail (RFC 9457). A handler returns a failure if the
// table of sentinels has no row for its answer.
type Failure struct {
	Status  int
	Code    string // OAuth error code; default invalid_request
	Title   string // characters of RFC 6749 section 5.2 only: %x20-21 %x23-5B %x5D-7E
	Detail  string // for problem documents only
	Outcome string // one word for metrics and the log; default "refused"

	Allow      string        // value of the header Allow
	Challenge  string        // value of the header WWW-Authenticate; default Basic
	RetryAfter time.Duration // value of the header Retry-After; default 1 s
	Matched    *int          // the member matched of the problem document
	Cause      error         // logged with a 5xx
	Unrouted   bool          // the error occurred before routing: OAuth shape unless the path is below /v1
}

// Error implements error.
func (f *Failure) Error() string { return strings.TrimPrefix(f.Title+": "+f.Detail, ": ") }

// Malformed returns a 400 that no sentinel describes.
func Malformed(detail string) error {
	return &Failure{Status: http.StatusBadRequest, Title: titleMalformed, Detail: detail}
}

// StatusFailure returns the answer to a request without a route, and to a status that echo sets
// itself.
func StatusFailure(path string, status int) *Failure {
	text := http.StatusText(status)
	f := &Failure{Status: status, Title: text}
	f.Outcome = strings.ReplaceAll(strings.ToLower(text), " ", "_")
	if isOAuth(path) {
		f.Title = strings.ToLower(text)
	}
	if status >= http.StatusInternalServerError {
		f.Code = CodeServerError
	}
	return f
}

// showsKeys reports whether administrators call path to learn about the keys of an issuer. They may
// read why a fetch failed; the error names the address of the keys. The handler of /v1/explain
// answers other callers itself.
func showsKeys(path string) bool {
	return strings.HasPrefix(path, "/v1/issuers/") || path == "/v1/explain"
}

// isOAuth reports whether errors at path have the shape of RFC 6749 section 5.2.
func isOAuth(path string) bool {
	return slices.ContainsFunc([]string{"/oauth2/", "/invoke/", "/.well-known/"},
		func(prefix string) bool { return strings.HasPrefix(path, prefix) })
}
