package api

import (
	"context"
	"errors"
	"net/http"

	"revoked"
)

// Error codes of RFC 6749 sections 5.2 and 4.1.2.1. The last one also goes with 429.
const (
	codeInvalidRequest     = "invalid_request"
	codeInvalidClient      = "invalid_client"
	codeInvalidGrant       = "invalid_grant"
	codeUnauthorizedClient = "unauthorized_client"
	codeServerError        = "server_error"
	codeUnavailable        = "temporarily_unavailable"
)

// An answer is what the outside is told of an error.
type answer struct {
	sentinel error
	status   int
	code     string // OAuth endpoints
	title    string // problem+json, and error_description: allowed characters of RFC 6749 section 5.2 only
	outcome  string // metrics and log
	opaque   bool   // the error's own text stays in the log
}

// unavailable is the answer to every error that the table does not list. It is a 503 because a
// caller may retry everything here safely, and because a 200 or 4xx would claim to know the outcome.
var unavailable = answer{
	status: http.StatusServiceUnavailable, code: codeUnavailable,
	title: "cannot be answered now, retry later", outcome: "unavailable", opaque: true,
}

// answers returns the one table from sentinel to HTTP answer. The first match counts.
func answers() []answer {
	const bad, denied, conflict, gone = http.StatusBadRequest, http.StatusForbidden, http.StatusConflict, http.StatusGone
	const many, cannot = http.StatusTooManyRequests, http.StatusUnprocessableEntity
	const down = http.StatusServiceUnavailable
	return []answer{
		{revoked.ErrInvalid, bad, codeInvalidRequest, "malformed request", "invalid", false},
		{revoked.ErrUnprocessable, cannot, codeInvalidRequest, "understood but impossible", "unprocessable", false},
		{revoked.ErrUnknownClient, cannot, codeInvalidRequest, "unknown client", "unknown_client", false},
		{revoked.ErrGrantFull, cannot, codeInvalidRequest, "grant is full", "grant_full", false},
		{revoked.ErrConflict, conflict, codeInvalidRequest, "conflict", "conflict", false},
		{revoked.ErrExpectation, conflict, codeInvalidRequest, "another number of grants matches", "expectation", false},
		{revoked.ErrMember, conflict, codeInvalidRequest, "already a member of a cluster", "member", false},
		{revoked.ErrQuorumRisk, conflict, codeInvalidRequest, "would lose quorum", "quorum_risk", false},
		{revoked.ErrNotFound, http.StatusNotFound, codeInvalidRequest, "not found", "not_found", false},
		{revoked.ErrForbidden, denied, codeUnauthorizedClient, "forbidden", "forbidden", false},
		{revoked.ErrForeignToken, bad, codeInvalidGrant, "the token was issued to another client", "foreign_token", true},
		{revoked.ErrActorChanged, down, codeUnavailable, "the caller has changed, retry", "actor_changed", true}, // whoever may no longer, authentication tells
		{revoked.ErrQuota, many, codeUnavailable, "quota exceeded, retry later", "quota", true},
		{revoked.ErrGone, gone, codeInvalidRequest, "no longer held", "gone", false},
		{revoked.ErrNoLeader, down, codeUnavailable, "no leader, retry later", "no_leader", true},
		{revoked.ErrOutcomeUnknown, down, codeUnavailable, "outcome unknown, retry", "outcome_unknown", true},
		{revoked.ErrNotCurrent, down, codeUnavailable, "this node cannot prove that it is current", "not_current", true},
		{revoked.ErrOverloaded, down, codeUnavailable, "overloaded, retry later", "overloaded", true},
		{revoked.ErrNoCluster, down, codeUnavailable, "this node belongs to no cluster yet", "no_cluster", true},
		{revoked.ErrClosed, down, codeUnavailable, "shutting down", "closed", true},
		{context.DeadlineExceeded, down, codeUnavailable, "not finished in time, retry", "timeout", true},
		{context.Canceled, down, codeUnavailable, "request was given up", "canceled", true},
	}
}

// answerFor returns the answer to err.
func (a *API) answerFor(err error) answer {
	for _, x := range a.table {
		if errors.Is(err, x.sentinel) {
			return x
		}
	}
	return unavailable
}
