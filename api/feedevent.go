package api

import (
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
	Issuer       string                `json:"issuer,omitempty"` // of a JWT, or a trusted issuer
	JTI          string                `json:"jti,omitempty"`
	Selector     *request.SelectorView `json:"selector,omitempty"`
	IssuedBefore *request.UnixSeconds  `json:"issued_before,omitempty"`
	Action       string                `json:"action,omitempty"`
	// Withheld is true if the selector has more conditions, which this reader may not see. The shown
	// selector then matches more than was revoked.
	Withheld bool   `json:"withheld,omitempty"`
	Actor    string `json:"actor,omitempty"`
	Reason   string `json:"reason,omitempty"`
}

// view returns the part of an event that the reader may see, and false if the reader may see none.
// Administrators and auditors see all of it. A resource server sees the digests of tokens with its
// audience, but no subject, session or reason.
func (f *feedReader) view(e *revoked.Event) (eventView, bool) {
	out := eventView{Index: e.Index, Time: request.UnixSeconds(e.Time), Kind: e.Kind, Action: e.Action, Actor: e.Actor}
	sel := e.Selector
	all := f.client.HasAny(revoked.RoleAdmin, revoked.RoleAuditor)
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
	audiences := f.client.EffectiveAudiences()
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
