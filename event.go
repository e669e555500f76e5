package revoked

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"
)

// eraBytes is the size of an era before its encoding.
const eraBytes = 16

// EraOf returns the era of a cluster: the history to which its log indexes belong. It is derived
// from the cluster id, which every member has in its state and which only a restore and a recovery
// replace. So all members agree on the era, even if an older version wrote their state. It has 22
// characters of the URL-safe base64 alphabet, and is empty for an empty clusterID.
func EraOf(clusterID string) string {
	if clusterID == "" {
		return ""
	}
	sum := sha256.Sum256([]byte("revoked era\x00" + clusterID))
	return base64.RawURLEncoding.EncodeToString(sum[:eraBytes])
}

// IsEra reports whether s has the form of an era.
func IsEra(s string) bool {
	b, err := base64.RawURLEncoding.Strict().DecodeString(s)
	return err == nil && len(b) == eraBytes && len(s) == base64.RawURLEncoding.EncodedLen(eraBytes)
}

// A Position is a place in a stream that lists the log of the cluster. As text it is ERA.INDEX, the
// id of a server-sent event, which is safe in a URL.
//
// An index alone does not identify an entry. After a restore or a recovery the cluster continues at
// an index that the earlier cluster may have passed, with other entries.
type Position struct {
	Era   string // era of the cluster, see [EraOf]; empty: matches any era
	Index uint64
}

// ParsePosition parses ERA.INDEX, or an index alone, for which Era is empty. It returns
// [ErrInvalid] for any other text.
func ParsePosition(s string) (Position, error) {
	era, index, found := strings.Cut(s, ".")
	if !found {
		era, index = "", s
	}
	n, err := strconv.ParseUint(index, 10, 64)
	if err != nil || index[0] == '+' || found && !IsEra(era) {
		return Position{}, fmt.Errorf("%w: position: want ERA.INDEX or an index", ErrInvalid)
	}
	return Position{era, n}, nil
}

// String returns the text from which ParsePosition reads p.
func (p Position) String() string {
	if p.Era == "" {
		return strconv.FormatUint(p.Index, 10)
	}
	return p.Era + "." + strconv.FormatUint(p.Index, 10)
}

// IsOf reports whether p is a position in era. A position without an era belongs to every era.
func (p Position) IsOf(era string) bool { return p.Era == "" || p.Era == era }

// EventKind is the kind of object that a feed event is about.
type EventKind string

// The kinds.
const (
	EventGrant  EventKind = "grant"  // a grant was revoked; Digests lists its tokens
	EventToken  EventKind = "token"  // an unknown token was revoked; a tombstone keeps it inactive
	EventCutoff EventKind = "cutoff" // a cut-off was created; Selector is set
	EventClient EventKind = "client" // a client was deleted, disabled or enabled
	EventJWT    EventKind = "jwt"    // a JWT was revoked, with its grant or session if Selector names one
	EventIssuer EventKind = "issuer" // a trusted issuer or one of its keys changed
)

// An Event is one entry of the revocation feed, in log order. Several events may share an index.
type Event struct {
	Index        uint64
	Time         Time
	Kind         EventKind
	Digests      []Digest
	Audiences    [][]string // Audiences[i] belongs to Digests[i]
	Selector     Selector
	IssuedBefore Time   // set for a cut-off
	JTI          string // set for a JWT that has one
	Action       string // set for a client or an issuer: "deleted", "disabled", "enabled" and others
	Actor        string
	Reason       string
}
