package api

import (
	"context"

	"revoked"
	"revoked/api/request"
)

// eventView is one event of the feed as JSON. Times are whole Unix seconds, which is also how a
// cut-off compares them.
type eventView struct {
	Index        uint64                `json:"index"`
	Time         request.UnixSeconds   `json:"time"`
	Kind         revoked.EventKind     `json:"kind"`
	Digests      []string              `json:"digests,omitempty"`
	Issuer       string                `json:"issuer,omitempty"` // issuer of a JWT, or name of a trusted issuer
	JTI          string                `json:"jti,omitempty"`
	Selector     *request.SelectorView `json:"selector,omitempty"`
	IssuedBefore *request.UnixSeconds  `json:"issued_before,omitempty"`
	Action       string                `json:"action,omitempty"`
	// Withheld is true if the selector has further conditions that this reader may not see. The shown
	// selector then matches more than was revoked.
	Withheld bool   `json:"withheld,omitempty"`
	Actor    string `json:"actor,omitempty"`
	Reason   string `json:"reason,omitempty"`
}

// A feedSource is a sequence of log entries that a reader follows: the feed or the audit log.
type feedSource struct {
	name  string
	roles []revoked.Role // a reader needs one of them
	// read returns at most limit entries with an index above after: all of those up to upTo. The error
	// wraps [revoked.ErrGone] if entries with an index above after have been deleted.
	read func(ctx context.Context, after uint64, limit int) (list feedEntries, upTo uint64, err error)
	// wait blocks until there may be an entry with an index above after, or ctx ends.
	wait func(ctx context.Context, after uint64) error
	// current makes the response begin with everything that was committed before the request, unless
	// the cluster has no quorum.
	current bool
	most    int // number of entries after which the response ends, with a whole index; 0: no limit
}

// feedEntries are entries of a feedSource in the order of the log.
type feedEntries interface {
	count() int
	index(i int) uint64
	// view returns the kind of an entry, and the part of the entry that the reader may see, or nil
	// if the reader may not see any of it. ended reports that the response ends before the entry.
	view(i int, reader *revoked.Client) (kind string, view any, ended bool)
}

// eventSource returns the feed.
func eventSource(b Backend) *feedSource {
	return &feedSource{
		name: "feed", roles: readers, wait: b.WaitEvent,
		read: func(ctx context.Context, after uint64, limit int) (feedEntries, uint64, error) {
			events, upTo, err := b.Events(ctx, after, limit)
			return feedEvents(events), upTo, err
		},
	}
}

// feedEvents implements [feedEntries] for the events of the feed.
type feedEvents []revoked.Event

func (l feedEvents) count() int { return len(l) }

func (l feedEvents) index(i int) uint64 { return l[i].Index }

func (l feedEvents) view(i int, reader *revoked.Client) (kind string, view any, ended bool) {
	if v, ok := viewEvent(&l[i], reader); ok {
		view = v
	}
	return string(l[i].Kind), view, false
}

// viewEvent returns the part of an event that the reader may see, and false if the reader may not
// see any of it. Administrators and auditors see the whole event. A resource server sees the
// digests of tokens with its audience, but no subject, session or reason.
func viewEvent(e *revoked.Event, reader *revoked.Client) (eventView, bool) {
	out := eventView{Index: e.Index, Time: request.UnixSeconds(e.Time), Kind: e.Kind, Action: e.Action, Actor: e.Actor}
	sel := e.Selector
	all := reader.HasAny(revoked.RoleAdmin, revoked.RoleAuditor)
	if all {
		out.Reason = e.Reason
	} else {
		out.Withheld = e.Kind == revoked.EventCutoff && (sel.Subject != "" || sel.Session != "")
		sel.Subject, sel.Session = "", ""
	}
	if e.Kind == revoked.EventJWT || e.Kind == revoked.EventIssuer {
		out.Issuer, out.JTI, sel.Issuer = sel.Issuer, e.JTI, ""
	}
	if !sel.IsZero() || e.Kind == revoked.EventCutoff {
		v := request.SelectorView(sel)
		out.Selector = &v
	}
	if e.Kind == revoked.EventCutoff {
		t := request.UnixSeconds(e.IssuedBefore)
		out.IssuedBefore = &t
	}
	audiences := reader.EffectiveAudiences()
	for i, d := range e.Digests {
		if !all && i < len(e.Audiences) {
			t := revoked.Token{Audience: e.Audiences[i]}
			if !t.IntendedFor(audiences) {
				continue
			}
		}
		out.Digests = append(out.Digests, d.String())
	}
	return out, all || len(e.Digests) == 0 || len(out.Digests) > 0
}
