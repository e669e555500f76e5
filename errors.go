package revoked

import (
	"errors"
	"fmt"
	"strings"
)

// The sentinel errors. Errors wrap one of them and add the facts; compare with errors.Is.
// api/request maps each to an HTTP response. Every other error becomes 503.
var (
	// ErrInvalid is returned when a request is malformed regardless of the state (400).
	ErrInvalid = errors.New("invalid request")
	// ErrUnprocessable is returned when a well-formed request cannot be carried out (422).
	ErrUnprocessable = errors.New("unprocessable request")
	// ErrUnknownClient is returned when a registration names a client that does not exist (422).
	ErrUnknownClient = errors.New("unknown client")
	// ErrGrantFull is returned when a grant would have more than MaxGrantTokens tokens (422).
	ErrGrantFull = errors.New("grant is full")
	// ErrConflict is returned when an id or token already belongs to another object (409).
	ErrConflict = errors.New("conflict")
	// ErrExpectation is returned when a cut-off does not match the expected number of grants (409).
	ErrExpectation = errors.New("unexpected number of matching grants")
	// ErrNotFound is returned when an id does not exist (404).
	ErrNotFound = errors.New("not found")
	// ErrForbidden is returned when the caller lacks the permission (403).
	ErrForbidden = errors.New("forbidden")
	// ErrForeignToken is returned when a client revokes an active token of another client (400
	// invalid_grant).
	ErrForeignToken = errors.New("token was issued to another client")
	// ErrActorChanged is returned when the caller was changed, disabled or deleted after it
	// authenticated (503). A retry authenticates again and gets the final result.
	ErrActorChanged = errors.New("caller has changed since it authenticated")
	// ErrReplayed is returned when the assertion that authenticated the caller was used before (401).
	ErrReplayed = errors.New("assertion was used before")
	// ErrQuota is returned when a client has exhausted a quota (429).
	ErrQuota = errors.New("quota exceeded")
	// ErrGone is returned when the feed no longer contains the requested index (410).
	ErrGone = errors.New("no longer retained")

	// ErrNoLeader is returned when no leader was found in time (503).
	ErrNoLeader = errors.New("no leader")
	// ErrOutcomeUnknown is returned when a change may or may not have been committed (503).
	// Every change is idempotent and may be retried.
	ErrOutcomeUnknown = errors.New("outcome unknown")
	// ErrNotCurrent is returned when a node cannot prove that its copy is current (503).
	ErrNotCurrent = errors.New("cannot prove that this node is current")
	// ErrKeysNotFetched is returned when the keys of a trusted issuer cannot be fetched (503). It
	// wraps [ErrNotCurrent], and nodes send it to each other as [ErrNotCurrent].
	ErrKeysNotFetched = fmt.Errorf("%w: the keys of the issuer cannot be fetched", ErrNotCurrent)
	// ErrOverloaded is returned when a bounded queue is full (503).
	ErrOverloaded = errors.New("overloaded")
	// ErrNoCluster is returned by a node that is not in a cluster yet (503).
	ErrNoCluster = errors.New("node is not in a cluster yet")
	// ErrClosed is returned after Close (503).
	ErrClosed = errors.New("closed")
	// ErrDamaged is returned when a file fails verification. The node that owns the file stops.
	ErrDamaged = errors.New("damaged")

	// ErrAlreadyMember is returned when a member of a cluster is to join another (409).
	ErrAlreadyMember = errors.New("already a member of a cluster")
	// ErrQuorumRisk is returned when a membership change would lose quorum (409).
	ErrQuorumRisk = errors.New("would lose quorum")
)

// codes numbers the sentinels that cross the wire or leave Apply. A number never changes, and new
// ones are appended.
var codes = [...]error{
	1: ErrInvalid, 2: ErrUnprocessable, 3: ErrUnknownClient, 4: ErrGrantFull, 5: ErrConflict,
	6: ErrExpectation, 7: ErrNotFound, 8: ErrForbidden, 9: ErrForeignToken, 10: ErrActorChanged,
	11: ErrQuota, 12: ErrGone, 13: ErrNoLeader, 14: ErrOutcomeUnknown, 15: ErrNotCurrent,
	16: ErrOverloaded, 17: ErrNoCluster, 18: ErrClosed, 19: ErrAlreadyMember, 20: ErrQuorumRisk,
	21: ErrReplayed,
}

// codeOutcomeUnknown is the number of [ErrOutcomeUnknown].
const codeOutcomeUnknown = 14

// Code returns the number of the sentinel that err wraps. It returns 0 for nil and the number of
// [ErrOutcomeUnknown] for an error that wraps no sentinel.
func Code(err error) uint32 {
	if err == nil {
		return 0
	}
	for n, sentinel := range codes {
		if sentinel != nil && errors.Is(err, sentinel) {
			return uint32(n)
		}
	}
	return codeOutcomeUnknown
}

// FromCode returns the sentinel with number n, nil for 0, and [ErrOutcomeUnknown] for a number
// unknown to this version.
func FromCode(n uint32) error {
	if n == 0 {
		return nil
	}
	if n < uint32(len(codes)) {
		return codes[n]
	}
	return ErrOutcomeUnknown
}

// Detail returns the text of err without the text of the sentinel that it starts with. These facts
// cross the wire along with the sentinel's [Code]. It is empty if err is nil or a bare sentinel.
func Detail(err error) string {
	if err == nil {
		return ""
	}
	text, sentinel := err.Error(), FromCode(Code(err)).Error()
	if text == sentinel {
		return ""
	}
	return strings.TrimPrefix(text, sentinel+": ")
}
