package api

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"revoked"
	"revoked/api/clientauth"
	"revoked/api/strictjson"
)

// Content types and header values of responses.
const (
	challenge   = `Basic realm="revoked"`
	typeProblem = "application/problem+json"
	typeText    = "text/plain; charset=utf-8"
	// retryAfter is the Retry-After of 429 and 503, in seconds, unless the failure sets one.
	retryAfter = "1"
)

// Header values shared by all responses. They must not be changed.
var (
	noStore  = []string{"no-store"}
	noCache  = []string{"no-cache"}
	noSniff  = []string{"nosniff"}
	jsonType = []string{typeJSON}
)

// write sends a whole response. net/http drops the body of a response to HEAD.
func (r *request) write(status int, contentType string, body []byte) error {
	value := jsonType
	if contentType != typeJSON {
		value = []string{contentType}
	}
	r.Response().Header()["Content-Type"] = value
	r.Response().WriteHeader(status)
	_, err := r.Response().Write(body)
	return err
}

// writeJSON sends v as a JSON document.
func (r *request) writeJSON(status int, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode response: %w", err)
	}
	return r.write(status, typeJSON, append(b, '\n'))
}

// indexView is the response to most writes.
type indexView struct {
	Index   uint64 `json:"index"`
	Matched *int   `json:"matched,omitempty"`
}

// writeIndex sends the log index of a write, unless err is set.
func (r *request) writeIndex(index uint64, err error) error {
	if err != nil {
		return err
	}
	return r.writeJSON(http.StatusOK, indexView{Index: index})
}

// problemBody is an RFC 9457 problem document.
type problemBody struct {
	Type    string `json:"type"`
	Title   string `json:"title"`
	Status  int    `json:"status"`
	Detail  string `json:"detail,omitempty"`
	Matched *int   `json:"matched,omitempty"`
}

// writeError sends the response to err in the shape of the request's path, and records its outcome.
// If a response has begun, it only records err. The text of a 5xx cause goes to the log alone.
func (a *API) writeError(r *request, err error) {
	if r.Response().Committed {
		r.err = err
		return
	}
	path := r.Request().URL.Path
	f := a.errors.failure(path, err)
	r.outcome, r.err = f.outcome, cmp.Or(f.cause, r.err)
	h := r.Response().Header()
	if f.allow != "" {
		h.Set("Allow", f.allow)
	}
	if f.challenge != "" {
		h.Set("WWW-Authenticate", f.challenge)
	}
	if f.retryAfter > 0 {
		h.Set("Retry-After", retrySeconds(f.retryAfter))
	}
	setStatusHeaders(h, f.status)
	if isOAuth(path) || f.unrouted && !strings.HasPrefix(path, "/v1/") {
		_ = r.write(f.status, typeJSON, appendOAuthError(make([]byte, 0, 96), cmp.Or(f.code, codeInvalidRequest), f.title))
		return
	}
	body, err := json.Marshal(problemBody{Type: "about:blank", Title: f.title, Status: f.status,
		Detail: strings.ToValidUTF8(f.detail, "?"), Matched: f.matched})
	if err != nil {
		return
	}
	_ = r.write(f.status, typeProblem, body)
}

// appendOAuthError appends the error object of RFC 6749 section 5.2. description is a constant of
// this package, in the characters that the section allows.
func appendOAuthError(b []byte, code, description string) []byte {
	b = append(b, `{"error":"`...)
	b = append(b, code...)
	b = append(b, `","error_description":"`...)
	b = append(b, description...)
	return append(b, `"}`...)
}

// setStatusHeaders sets the headers that a status requires, unless they are already set.
func setStatusHeaders(h http.Header, status int) {
	switch status {
	case http.StatusUnauthorized:
		if h.Get("WWW-Authenticate") == "" {
			h["Www-Authenticate"] = []string{challenge}
		}
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		if h.Get("Retry-After") == "" {
			h["Retry-After"] = []string{retryAfter}
		}
	}
}

// unixSeconds is a time of the server as JSON: whole Unix seconds, null for the zero time.
type unixSeconds revoked.Time

// MarshalJSON implements [json.Marshaler].
func (t unixSeconds) MarshalJSON() ([]byte, error) {
	if t == 0 {
		return []byte("null"), nil
	}
	return strconv.AppendInt(nil, revoked.Time(t).Unix(), 10), nil
}

// unixTime is a time as JSON: Unix seconds, null for the zero time.
type unixTime revoked.Time

// MarshalJSON implements [json.Marshaler].
func (t unixTime) MarshalJSON() ([]byte, error) {
	if t == 0 {
		return []byte("null"), nil
	}
	return strictjson.AppendTime(nil, revoked.Time(t)), nil
}

// Error codes of RFC 6749 sections 5.2 and 4.1.2.1. codeUnavailable is also the code of a 429.
const (
	codeInvalidRequest     = "invalid_request"
	codeInvalidClient      = "invalid_client"
	codeInvalidGrant       = "invalid_grant"
	codeUnauthorizedClient = "unauthorized_client"
	codeServerError        = "server_error"
	codeUnavailable        = "temporarily_unavailable"
)

// outcomeNoLeader is the outcome of requests that need a leader while none is known. Their log
// lines are limited to one a second.
const outcomeNoLeader = "no_leader"

// titleMalformed is the title of a 400 from a handler below /v1.
const titleMalformed = "malformed request"

// A failure is the response to an error, in two shapes. OAuth endpoints send code and title (RFC
// 6749 section 5.2), /v1 sends title and detail (RFC 9457). A handler returns a failure if the
// table of sentinels has no row for its answer.
type failure struct {
	status  int
	code    string // OAuth error code; default invalid_request
	title   string // characters of RFC 6749 section 5.2 only: %x20-21 %x23-5B %x5D-7E
	detail  string // problem documents only
	outcome string // one word for metrics and the log; default "refused"

	allow      string        // for Allow
	challenge  string        // for WWW-Authenticate; default Basic
	retryAfter time.Duration // for Retry-After; default 1 s
	matched    *int          // member of the problem document
	cause      error         // logged with a 5xx
	unrouted   bool          // found before routing: OAuth shape unless the path is below /v1
}

// Error implements error.
func (f *failure) Error() string { return strings.TrimPrefix(f.title+": "+f.detail, ": ") }

// malformed returns a 400 that no sentinel describes.
func malformed(detail string) error {
	return &failure{status: http.StatusBadRequest, title: titleMalformed, detail: detail}
}

// forbidden returns the answer to a caller without the right role.
func forbidden(detail string) error {
	return &failure{status: http.StatusForbidden, title: "forbidden", outcome: "forbidden", detail: detail}
}

// A mapping is a row of the table of sentinels.
type mapping struct {
	sentinel error
	status   int
	code     string
	title    string
	outcome  string
	opaque   bool // the error's own text stays in the log
}

// unavailable is the answer to every error without a row. A 503 is safe: callers may retry all
// requests, while a 200 or a 4xx would claim a known outcome.
var unavailable = mapping{
	status: http.StatusServiceUnavailable, code: codeUnavailable,
	title: "cannot be answered now, retry later", outcome: "unavailable", opaque: true,
}

// An errorTable maps sentinels to HTTP. The first row that matches counts.
type errorTable []mapping

// newErrorTable returns the only table of the package.
func newErrorTable() errorTable {
	const bad, denied, conflict, gone = http.StatusBadRequest, http.StatusForbidden, http.StatusConflict, http.StatusGone
	const many, cannot = http.StatusTooManyRequests, http.StatusUnprocessableEntity
	const down = http.StatusServiceUnavailable
	return errorTable{
		{clientauth.ErrUnauthenticated, http.StatusUnauthorized, codeInvalidClient,
			"client authentication failed", "unauthenticated", true},
		{revoked.ErrInvalid, bad, codeInvalidRequest, titleMalformed, "invalid", false},
		{revoked.ErrUnprocessable, cannot, codeInvalidRequest, "understood but impossible", "unprocessable", false},
		{revoked.ErrUnknownClient, cannot, codeInvalidRequest, "unknown client", "unknown_client", false},
		{revoked.ErrGrantFull, cannot, codeInvalidRequest, "grant is full", "grant_full", false},
		{revoked.ErrConflict, conflict, codeInvalidRequest, "conflict", "conflict", false},
		{revoked.ErrExpectation, conflict, codeInvalidRequest, "another number of grants matches", "expectation", false},
		{revoked.ErrAlreadyMember, conflict, codeInvalidRequest, "already a member of a cluster", "member", false},
		{revoked.ErrQuorumRisk, conflict, codeInvalidRequest, "would lose quorum", "quorum_risk", false},
		{revoked.ErrNotFound, http.StatusNotFound, codeInvalidRequest, "not found", "not_found", false},
		{revoked.ErrForbidden, denied, codeUnauthorizedClient, "forbidden", "forbidden", false},
		{revoked.ErrForeignToken, bad, codeInvalidGrant, "the token was issued to another client", "foreign_token", true},
		// A retry authenticates again, which decides whether the caller may still do this.
		{revoked.ErrActorChanged, down, codeUnavailable, "the caller has changed, retry", "actor_changed", true},
		{revoked.ErrQuota, many, codeUnavailable, "quota exceeded, retry later", "quota", true},
		{revoked.ErrGone, gone, codeInvalidRequest, "no longer held", "gone", false},
		{revoked.ErrNoLeader, down, codeUnavailable, "no leader, retry later", outcomeNoLeader, true},
		{revoked.ErrOutcomeUnknown, down, codeUnavailable, "outcome unknown, retry", "outcome_unknown", true},
		{revoked.ErrNotCurrent, down, codeUnavailable, "this node cannot prove that it is current", "not_current", true},
		{revoked.ErrOverloaded, down, codeUnavailable, "overloaded, retry later", "overloaded", true},
		{revoked.ErrNoCluster, down, codeUnavailable, "this node belongs to no cluster yet", "no_cluster", true},
		{revoked.ErrClosed, down, codeUnavailable, "shutting down", "closed", true},
		{context.DeadlineExceeded, down, codeUnavailable, "not finished in time, retry", "timeout", true},
		{context.Canceled, down, codeUnavailable, "request was given up", "canceled", true},
	}
}

// mapping returns the first row that err matches, else unavailable.
func (t errorTable) mapping(err error) mapping {
	for _, m := range t {
		if errors.Is(err, m.sentinel) {
			return m
		}
	}
	return unavailable
}

// failure returns the answer to an error that a handler or echo's router returned for path.
func (t errorTable) failure(path string, err error) *failure {
	var f *failure
	if errors.As(err, &f) {
		return f
	}
	var he *echo.HTTPError
	if errors.As(err, &he) {
		return routerFailure(path, he.Code)
	}
	var throttled *clientauth.ThrottledError
	if errors.As(err, &throttled) {
		return &failure{status: http.StatusTooManyRequests, code: codeUnavailable, title: "too many failures",
			outcome: "throttled", retryAfter: throttled.RetryAfter}
	}
	m := t.mapping(err)
	switch m.status {
	case http.StatusUnprocessableEntity, http.StatusConflict, http.StatusNotFound:
		// Revocations and introspections never return such an error, so the outcome is unknown.
		if isOAuth(path) {
			m = unavailable
		}
	}
	f = &failure{status: m.status, code: m.code, title: m.title, outcome: m.outcome, cause: err}
	if !m.opaque {
		f.detail = err.Error()
	}
	var outage *revoked.OutageError
	if errors.As(err, &outage) {
		f.title, f.detail, f.retryAfter = revoked.ErrNoLeader.Error(), revoked.Detail(outage), outage.RetryAfter
		if isOAuth(path) { // its callers need not know the nodes
			f.title = outage.Summary()
		}
	}
	return f
}

// routerFailure returns the answer to a request without a route, and to a status that echo sets
// itself.
func routerFailure(path string, status int) *failure {
	text := http.StatusText(status)
	f := &failure{status: status, title: text}
	f.outcome = strings.ReplaceAll(strings.ToLower(text), " ", "_")
	if isOAuth(path) {
		f.title = strings.ToLower(text)
	}
	if status >= http.StatusInternalServerError {
		f.code = codeServerError
	}
	return f
}

// isOAuth reports whether errors at path have the shape of RFC 6749 section 5.2.
func isOAuth(path string) bool {
	return slices.ContainsFunc([]string{"/oauth2/", "/invoke/", "/.well-known/"},
		func(prefix string) bool { return strings.HasPrefix(path, prefix) })
}

// retrySeconds returns a Retry-After value, at least 1.
func retrySeconds(d time.Duration) string {
	return strconv.FormatInt(max(1, int64((d+time.Second-1)/time.Second)), 10)
}

// appendLineError appends {"error","detail","line"}.
func appendLineError(out []byte, code, detail string, line int) []byte {
	out = append(out, `{"error":`...)
	out = strictjson.AppendString(out, code)
	out = append(out, `,"detail":`...)
	out = strictjson.AppendString(out, detail)
	out = append(out, `,"line":`...)
	out = strconv.AppendInt(out, int64(line), 10)
	return append(out, "}\n"...)
}

// bulkCounts is the summary line of ?results=errors.
type bulkCounts struct {
	registered, known, revoked, failed, lines int
}

func (n bulkCounts) append(out []byte) []byte {
	return fmt.Appendf(out, `{"registered":%d,"known":%d,"revoked":%d,"failed":%d,"lines":%d}`+"\n",
		n.registered, n.known, n.revoked, n.failed, n.lines)
}

// unreadable returns the error code and the detail of the last line of an answer whose body was not
// read to its end.
func unreadable(err error) (code, detail string) {
	var ended *clientauth.EndedError
	if errors.As(err, &ended) {
		return ended.Reason, "the credential that opened this request has ended; no line from here on was read"
	}
	return "body_unreadable", "the body ended early; no line from here on was read"
}

// describeLine returns the error code and the detail for a line.
func (a *API) describeLine(err error) (code, detail string) {
	var ended *clientauth.EndedError
	if errors.As(err, &ended) {
		return ended.Reason, "the credential that opened this request has ended"
	}
	m := a.errors.mapping(err)
	switch {
	case m.status == http.StatusServiceUnavailable:
		return codeUnavailable, m.title
	case m.opaque:
		return m.outcome, m.title
	}
	return m.outcome, err.Error()
}
