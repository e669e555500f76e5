package revoked

// EventKind says what a feed event ended.
type EventKind string

// The kinds.
const (
	EventGrant  EventKind = "grant"  // one grant: its digests are listed
	EventToken  EventKind = "token"  // an unknown token was revoked: a tombstone
	EventCutoff EventKind = "cutoff" // a cut-off: its selector is given
	EventClient EventKind = "client" // a client was deleted, disabled or enabled
)

// An Event is one entry of the revocation feed, in log order. Several events may share an index.
type Event struct {
	Index        uint64
	Time         Time
	Kind         EventKind
	Digests      []Digest
	Audiences    [][]string // of each digest, aligned with Digests
	Selector     Selector
	IssuedBefore Time   // of a cut-off
	Action       string // of a client: "deleted", "disabled", "enabled"
	Actor        string
	Reason       string
}
