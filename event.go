package revoked

// EventKind is the kind of object that a feed event is about.
type EventKind string

// The kinds.
const (
	EventGrant  EventKind = "grant"  // a grant ended; Digests lists its tokens
	EventToken  EventKind = "token"  // an unknown token was revoked; a tombstone keeps it dead
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
