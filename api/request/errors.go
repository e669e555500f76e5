package request

import (
	"context"
	"errors"
	"net/http"
	"strconv"

	"github.com/labstack/echo/v4"

	"revoked"
	"revoked/api/clientauth"
	"revoked/api/strictjson"
)

// A mapping is a row of the table that maps sentinel errors to HTTP.
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
	status: http.StatusServiceUnavailable, code: CodeUnavailable, title: TitleUnavailable, outcome: "unavailable",
	opaque: true,
}

// table maps sentinels to HTTP. The first row that an error matches counts. It must not be changed.
var table = newTable()

func newTable() []mapping {
	const bad, denied, conflict, gone = http.StatusBadRequest, http.StatusForbidden, http.StatusConflict, http.StatusGone
	const many, cannot = http.StatusTooManyRequests, http.StatusUnprocessableEntity
	const down = http.StatusServiceUnavailable
	return []mapping{
		{clientauth.ErrUnauthenticated, http.StatusUnauthorized, CodeInvalidClient,
			"client authentication failed", "unauthenticated", true},
		{revoked.ErrReplayed, http.StatusUnauthorized, CodeInvalidClient, "client authentication failed", "replayed", true},
		{revoked.ErrInvalid, bad, CodeInvalidRequest, titleMalformed, "invalid", false},
		{revoked.ErrUnprocessable, cannot, CodeInvalidRequest, "cannot be processed", "unprocessable", false},
		{revoked.ErrUnknownClient, cannot, CodeInvalidRequest, "unknown client", "unknown_client", false},
		{revoked.ErrGrantFull, cannot, CodeInvalidRequest, "grant is full", "grant_full", false},
		{revoked.ErrConflict, conflict, CodeInvalidRequest, "conflict", "conflict", false},
		{revoked.ErrExpectation, conflict, CodeInvalidRequest, "a different number of grants matches", "expectation", false},
		{revoked.ErrAlreadyMember, conflict, CodeInvalidRequest, "already a member of a cluster", "member", false},
		{revoked.ErrQuorumRisk, conflict, CodeInvalidRequest, "would lose quorum", "quorum_risk", false},
		{revoked.ErrNotFound, http.StatusNotFound, CodeInvalidRequest, "not found", "not_found", false},
		{revoked.ErrForbidden, denied, CodeUnauthorizedClient, "forbidden", "forbidden", false},
		{revoked.ErrForeignToken, bad, CodeInvalidGrant, "the token was issued to another client", "foreign_token", true},
		// A retry authenticates again, which decides whether the caller may still do this.
		{revoked.ErrActorChanged, down, CodeUnavailable, "the caller has changed, retry", "actor_changed", true},
		{revoked.ErrQuota, many, CodeUnavailable, "quota exceeded, retry later", "quota", true},
		{revoked.ErrGone, gone, CodeInvalidRequest, "no longer retained", "gone", false},
		{revoked.ErrNoLeader, down, CodeUnavailable, "no leader, retry later", OutcomeNoLeader, true},
		{revoked.ErrOutcomeUnknown, down, CodeUnavailable, "outcome unknown, retry", "outcome_unknown", true},
		{revoked.ErrKeysNotFetched, down, CodeUnavailable, "the keys of the issuer cannot be fetched", "keys_not_fetched",
			true},
		{revoked.ErrNotCurrent, down, CodeUnavailable, "this node cannot prove that it is current", "not_current", true},
		{revoked.ErrOverloaded, down, CodeUnavailable, "overloaded, retry later", "overloaded", true},
		{revoked.ErrNoCluster, down, CodeUnavailable, "this node is not in a cluster yet", "no_cluster", true},
		{revoked.ErrClosed, down, CodeUnavailable, "shutting down", "closed", true},
		{context.DeadlineExceeded, down, CodeUnavailable, "not finished in time, retry", "timeout", true},
		{context.Canceled, down, CodeUnavailable, "request was canceled", "canceled", true},
	}
}

// rowOf returns the first row that err matches, else unavailable.
func rowOf(err error) mapping {
	for _, m := range table {
		if errors.Is(err, m.sentinel) {
			return m
		}
	}
	return unavailable
}

// OutcomeOf returns the word for err in metrics and the log. Use it for an error that cannot be
// sent, because the response has begun.
func OutcomeOf(err error) string { return rowOf(err).outcome }

// FailureOf returns the answer to an error that a handler or echo's router returned for path. A
// *Failure in the chain of err takes precedence over the table.
func FailureOf(path string, err error) *Failure {
	var f *Failure
	if errors.As(err, &f) {
		return f
	}
	var he *echo.HTTPError
	if errors.As(err, &he) {
		return StatusFailure(path, he.Code)
	}
	var throttled *clientauth.ThrottledError
	if errors.As(err, &throttled) {
		return &Failure{Status: http.StatusTooManyRequests, Code: CodeUnavailable, Title: "too many failures",
			Outcome: "throttled", RetryAfter: throttled.RetryAfter}
	}
	m := rowOf(err)
	switch m.status {
	case http.StatusUnprocessableEntity, http.StatusConflict, http.StatusNotFound:
		// Revocations and introspections never return such an error, so the outcome is unknown.
		if isOAuth(path) {
			m = unavailable
		}
	}
	f = &Failure{Status: m.status, Code: m.code, Title: m.title, Outcome: m.outcome, Cause: err}
	switch {
	case !m.opaque:
		f.Detail = err.Error()
	case showsKeys(path) && (m.sentinel == revoked.ErrKeysNotFetched || m.sentinel == revoked.ErrQuota):
		f.Detail = revoked.Detail(err)
	}
	if problem := assertionProblem(err); problem != "" {
		f.Detail = problem
		if isOAuth(path) {
			f.Title += ": " + problem
		}
	}
	var outage *revoked.OutageError
	if errors.As(err, &outage) {
		f.Title, f.Detail, f.RetryAfter = revoked.ErrNoLeader.Error(), revoked.Detail(outage), outage.RetryAfter
		if isOAuth(path) { // its callers need not know the nodes
			f.Title = outage.Summary()
		}
	}
	return f
}

// assertionProblem returns why an assertion is refused, if a key of the client has signed it, or
// "".
func assertionProblem(err error) string {
	var refused *clientauth.AssertionError
	switch {
	case errors.As(err, &refused):
		return refused.Problem
	case errors.Is(err, revoked.ErrReplayed):
		return clientauth.Replayed
	}
	return ""
}

// AppendLineError appends the line of an NDJSON answer that reports err for a line of the body. The
// detail of an opaque error is the title of its row.
func AppendLineError(out []byte, err error, line int) []byte {
	var ended *clientauth.EndedError
	if errors.As(err, &ended) {
		return appendLine(out, ended.Reason, "the credential that opened this request has ended", line)
	}
	m := rowOf(err)
	switch {
	case m.status == http.StatusServiceUnavailable:
		return appendLine(out, CodeUnavailable, m.title, line)
	case m.opaque:
		return appendLine(out, m.outcome, m.title, line)
	}
	return appendLine(out, m.outcome, err.Error(), line)
}

// AppendUnread appends the last line of an NDJSON answer whose body was not read to its end. The
// lines up to line have their results.
func AppendUnread(out []byte, err error, line int) []byte {
	var ended *clientauth.EndedError
	if errors.As(err, &ended) {
		return appendLine(out, ended.Reason,
			"the credential that opened this request has ended; no line from here on was read", line)
	}
	return appendLine(out, "body_unreadable", "the body ended early; no line from here on was read", line)
}

// appendLine appends {"error","detail","line"}.
func appendLine(out []byte, code, detail string, line int) []byte {
	out = append(out, `{"error":`...)
	out = strictjson.AppendString(out, code)
	out = append(out, `,"detail":`...)
	out = strictjson.AppendString(out, detail)
	out = append(out, `,"line":`...)
	out = strconv.AppendInt(out, int64(line), 10)
	return append(out, "}\n"...)
}
