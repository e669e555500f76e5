package revoked

import "errors"

// The sentinels. Each is returned wrapped with the facts; compare with errors.Is. The one table from
// sentinel to HTTP answer is api/errors.go; a sentinel not listed there is an opaque 503.
var (
	// ErrInvalid is returned when a request is malformed whatever the state is (400).
	ErrInvalid = errors.New("invalid request")
	// ErrUnprocessable is returned when a well-formed request asks for what cannot be (422).
	ErrUnprocessable = errors.New("cannot be done")
	// ErrUnknownClient is returned when a registration names a client that does not exist (422).
	ErrUnknownClient = errors.New("unknown client")
	// ErrGrantFull is returned when a grant would hold more than MaxGrantTokens tokens (422).
	ErrGrantFull = errors.New("grant is full")
	// ErrConflict is returned when an id or a token belongs to something else already (409).
	ErrConflict = errors.New("conflict")
	// ErrExpectation is returned when a cut-off matches another number of grants than expected (409).
	ErrExpectation = errors.New("number of matching grants is not the expected one")
	// ErrNotFound is returned when an id names nothing (404).
	ErrNotFound = errors.New("not found")
	// ErrForbidden is returned when the caller may not do it (403).
	ErrForbidden = errors.New("forbidden")
	// ErrForeignToken is returned when a client revokes a live token of another (400 invalid_grant).
	ErrForeignToken = errors.New("token was issued to another client")
	// ErrActorChanged is returned when the caller was changed, disabled or deleted since it
	// authenticated (503: a retry authenticates anew, and is told).
	ErrActorChanged = errors.New("caller has changed since it authenticated")
	// ErrQuota is returned when a client has used up a budget (429).
	ErrQuota = errors.New("quota exceeded")
	// ErrGone is returned when the feed no longer holds the index asked for (410).
	ErrGone = errors.New("no longer held")

	// ErrNoLeader is returned when no leader could be found in time (503).
	ErrNoLeader = errors.New("no leader")
	// ErrOutcomeUnknown is returned when a change may or may not have been committed (503).
	// Every change may be retried safely.
	ErrOutcomeUnknown = errors.New("outcome unknown")
	// ErrNotCurrent is returned when a node cannot prove that its answer is current (503).
	ErrNotCurrent = errors.New("cannot prove that this node is current")
	// ErrOverloaded is returned when a bounded queue is full (503).
	ErrOverloaded = errors.New("overloaded")
	// ErrNoCluster is returned by a node that belongs to no cluster yet (503).
	ErrNoCluster = errors.New("node belongs to no cluster yet")
	// ErrClosed is returned after Close (503).
	ErrClosed = errors.New("closed")
	// ErrDamaged is returned when a file is not as it was written. The node that owns it ends.
	ErrDamaged = errors.New("damaged")

	// ErrMember is returned when a node that is in a cluster is asked to join another (409).
	ErrMember = errors.New("already a member of a cluster")
	// ErrQuorumRisk is returned when a membership change would lose quorum (409).
	ErrQuorumRisk = errors.New("would lose quorum")
)

// MaxGrantTokens is how many tokens a grant holds at most, dead ones included.
const MaxGrantTokens = 10_000

// codes gives every sentinel that crosses the wire between nodes, or leaves Apply, its number. The
// numbers are only added to.
var codes = map[uint32]error{
	1: ErrInvalid, 2: ErrUnprocessable, 3: ErrUnknownClient, 4: ErrGrantFull, 5: ErrConflict,
	6: ErrExpectation, 7: ErrNotFound, 8: ErrForbidden, 9: ErrForeignToken, 10: ErrActorChanged,
	11: ErrQuota, 12: ErrGone, 13: ErrNoLeader, 14: ErrOutcomeUnknown, 15: ErrNotCurrent,
	16: ErrOverloaded, 17: ErrNoCluster, 18: ErrClosed, 19: ErrMember, 20: ErrQuorumRisk,
}

// Code returns the number of the sentinel that err wraps: 0 for nil, and that of ErrOutcomeUnknown
// for an error that wraps none.
func Code(err error) uint32 {
	if err == nil {
		return 0
	}
	for n := uint32(1); n <= uint32(len(codes)); n++ {
		if errors.Is(err, codes[n]) {
			return n
		}
	}
	return 14
}

// FromCode returns the sentinel with number n, nil for 0, and ErrOutcomeUnknown for a number it does
// not know.
func FromCode(n uint32) error {
	if n == 0 {
		return nil
	}
	if err, ok := codes[n]; ok {
		return err
	}
	return ErrOutcomeUnknown
}
