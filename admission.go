package revoked

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"
)

// An Admission is the decision about one node name. A node without one is rejected unless it is
// already a member of the cluster, as the initial members are.
type Admission struct {
	Node      string
	State     AdmissionState
	NonVoter  bool // an administrator decided that the node must not vote
	ExpiresAt Time // an Admitted node must join before this time
	By        string
	Reason    string // reason for the state Barred
	At        Time   // time of the last change of State
	Index     uint64 // log index of the last change of State
	JoinToken string // id of the token that created it; empty: none, or a token without a key
	Key       Digest // digest of the public key of the certificate issued for the token; zero: any key
	KeyUntil  Time   // expiry of the last certificate issued for a token with this key
}

// An AdmissionState is the state of an [Admission].
type AdmissionState uint8

// The states of an admission.
const (
	// Admitted means that the node may join until ExpiresAt.
	Admitted AdmissionState = iota + 1
	// Joined means that the node has used its admission. It may retry an unfinished join.
	Joined
	// Withdrawn means that the node left, or that its admission was deleted. It is
	// treated as absent, and is deleted after [AdmissionMemory].
	Withdrawn
	// Barred means that the node was removed. It may join again only after a new admission.
	Barred
)

// Open reports whether the node may join at now.
func (a *Admission) Open(now Time) bool {
	return a.State == Joined || a.State == Admitted && now < a.ExpiresAt
}

// The states of an [AdmittedNode].
const (
	NodeAdmitted = "admitted"
	NodeMember   = "member"
	NodeBarred   = "barred"
)

// An AdmittedNode is a node that may join, that is a member, or that is barred.
type AdmittedNode struct {
	Node      string
	NonVoter  bool // an administrator decided that the node must not vote
	State     string
	ExpiresAt Time   // expiry of the admission; 0: it does not expire
	By        string // empty: bootstrap, or the cluster itself
}

// ListAdmitted merges the members of the Raft configuration with the admissions at now, sorted by
// name. Every member is listed as a member, even without an admission.
func ListAdmitted(members []string, admissions []Admission, now Time) []AdmittedNode {
	nodes := map[string]AdmittedNode{}
	for _, m := range members {
		nodes[m] = AdmittedNode{Node: m, State: NodeMember}
	}
	for _, a := range admissions {
		n := AdmittedNode{Node: a.Node, NonVoter: a.NonVoter, By: a.By}
		_, member := nodes[a.Node]
		switch {
		case member:
			n.State = NodeMember
		case a.State == Barred:
			n.State = NodeBarred
		case a.Open(now):
			n.State = NodeAdmitted
			if a.State == Admitted {
				n.ExpiresAt = a.ExpiresAt
			}
		default:
			continue
		}
		nodes[a.Node] = n
	}
	byName := func(a, b AdmittedNode) int { return cmp.Compare(a.Node, b.Node) }
	return slices.SortedFunc(maps.Values(nodes), byName)
}

// A JoinToken admits the first node that proves possession of it. Only a digest is stored. A token
// of an older version has no key, so a node sends the token itself.
type JoinToken struct {
	ID        string
	Hash      Digest // hash of the public key, or of the token itself
	HasKey    bool   // Hash is the hash of the public key: nodes prove possession of the token
	Node      string // the only node that may use it; empty: any
	NonVoter  bool   // the node does not vote until it is promoted
	CreatedAt Time
	ExpiresAt Time
	By        string
	Index     uint64 // log index of its creation
	UsedBy    string // node that used the token; empty: not used
	UsedAt    Time
	DeletedAt Time // not 0: the token admits no node and is not listed
}

// A JoinTokenState is the state of a [JoinToken].
type JoinTokenState string

// The states of a join token.
const (
	JoinTokenOpen    JoinTokenState = "open"
	JoinTokenUsed    JoinTokenState = "used"
	JoinTokenExpired JoinTokenState = "expired"
)

// State returns the state of a token that is not deleted.
func (t *JoinToken) State(now Time) JoinTokenState {
	switch {
	case t.UsedBy != "":
		return JoinTokenUsed
	case now >= t.ExpiresAt:
		return JoinTokenExpired
	}
	return JoinTokenOpen
}

// Admits reports whether node may use the token at now.
func (t *JoinToken) Admits(node string, now Time) bool {
	return t.DeletedAt == 0 && t.State(now) == JoinTokenOpen && (t.Node == "" || t.Node == node)
}

// Limits of admissions and join tokens. AdmissionMemory is how long the state keeps a withdrawn
// admission, and a used, expired or deleted token.
const (
	MinAdmissionTTL     = time.Second
	MaxAdmissionTTL     = 30 * 24 * time.Hour
	DefaultAdmissionTTL = time.Hour
	AdmissionMemory     = 24 * time.Hour
	MaxAdmissions       = 1024
	MaxBars             = 10_000
	MaxJoinTokens       = 1024
)

// CheckAdmissionTTL returns an error that wraps [ErrUnprocessable] if d is out of bounds.
func CheckAdmissionTTL(d time.Duration) error {
	if d < MinAdmissionTTL || d > MaxAdmissionTTL {
		return fmt.Errorf("%w: ttl must be from %s to %s", ErrUnprocessable,
			FormatDuration(MinAdmissionTTL), FormatDuration(MaxAdmissionTTL))
	}
	return nil
}

// maxNodeID is the maximum length of a node id.
const maxNodeID = 64

// CheckNodeID returns an error that wraps [ErrInvalid] unless id is 1 to 64 characters of
// A-Z a-z 0-9 . _ -. It rejects "." and "..", which are not valid file names.
func CheckNodeID(id string) error {
	if id == "" || len(id) > maxNodeID || id == "." || id == ".." {
		return fmt.Errorf("%w: node: want 1 to %d characters and not \".\" or \"..\" (got %d)",
			ErrInvalid, maxNodeID, len(id))
	}
	for i := range len(id) {
		switch c := id[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '.', c == '_', c == '-':
		default:
			return fmt.Errorf("%w: node: want only A-Z a-z 0-9 . _ -", ErrInvalid)
		}
	}
	return nil
}

// ErrTokenEnded is returned for a join token that is unknown, deleted or expired.
var ErrTokenEnded = fmt.Errorf("%w: join token: unknown, deleted or expired: create another", ErrForbidden)

// ErrTokenUsed is returned for a join token that another node or another key has used.
var ErrTokenUsed = fmt.Errorf("%w: join token: another node or another key has used it", ErrForbidden)

// NotAdmittedError returns the error for a node without an open admission. The error wraps
// [ErrForbidden]. A barred node needs a token that was created for it.
func NotAdmittedError(node string, barred bool) error {
	named := ""
	if barred {
		named = " created for it"
	}
	return fmt.Errorf("%w: %s is not admitted: admit it with `revoked admit %s`, or give it a join token%s",
		ErrForbidden, node, node, named)
}
