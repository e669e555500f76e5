package rules

import "revoked"

// maxEventDigests is the largest number of digests in one event.
const maxEventDigests = 256

// deadTokens collects the dead tokens of one grant for the feed.
type deadTokens struct {
	a     *Applier
	event revoked.Event
}

// deadTokens returns an empty event for tokens of g. by is the actor that ended them.
func (a *Applier) deadTokens(g *revoked.Grant, by, reason string) *deadTokens {
	return &deadTokens{a, revoked.Event{
		Kind: revoked.EventGrant, Selector: revoked.Selector{GrantID: g.ID}, Actor: by, Reason: reason,
	}}
}

// add adds a token and sends the event if it is full.
func (d *deadTokens) add(digest revoked.Digest, audience []string) {
	d.event.Digests = append(d.event.Digests, digest)
	d.event.Audiences = append(d.event.Audiences, audience)
	if len(d.event.Digests) == maxEventDigests {
		d.send()
	}
}

// send appends the event to the feed unless it has no tokens.
func (d *deadTokens) send() {
	if len(d.event.Digests) > 0 {
		d.a.event(d.event)
		d.event.Digests, d.event.Audiences = nil, nil
	}
}

// issuerEvent adds an event: tokens of an issuer may have changed, so resource servers drop their
// cached answers.
func (a *Applier) issuerEvent(by string, i *revoked.Issuer, action, reason string) {
	a.event(revoked.Event{
		Kind: revoked.EventIssuer, Selector: revoked.Selector{Issuer: i.Issuer}, Action: action, Actor: by, Reason: reason,
	})
}
