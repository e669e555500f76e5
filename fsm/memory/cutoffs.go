package memory

import (
	"bytes"
	"slices"
	"time"

	"revoked"
	"revoked/fsm/rows"
)

// Cutoffs finds the cut-offs that cover a token. It indexes each cut-off by the most selective
// property of its selector. So a search takes six map lookups and examines only the cut-offs that
// share such a property with the grant.
type Cutoffs struct {
	grants, sessions, subjects, clients, issuers, all map[string][]*rows.Cutoff
	byKey                                             map[string]*rows.Cutoff
}

// NewCutoffs returns an index without cut-offs.
func NewCutoffs() Cutoffs {
	bucket := func() map[string][]*rows.Cutoff { return map[string][]*rows.Cutoff{} }
	return Cutoffs{bucket(), bucket(), bucket(), bucket(), bucket(), bucket(), map[string]*rows.Cutoff{}}
}

// bucket returns the map and the key in it that index a selector. The zero selector, which only a
// restore and a recovery use, is in the map all.
func (x *Cutoffs) bucket(s *revoked.Selector) (map[string][]*rows.Cutoff, string) {
	switch {
	case s.GrantID != "":
		return x.grants, s.GrantID
	case s.Session != "":
		return x.sessions, s.Session
	case s.Subject != "":
		return x.subjects, s.Subject
	case s.ClientID != "":
		return x.clients, s.ClientID
	case s.Issuer != "":
		return x.issuers, s.Issuer
	}
	return x.all, ""
}

func (x *Cutoffs) add(c *rows.Cutoff) {
	x.byKey[string(c.Key())] = c
	m, v := x.bucket(&c.Selector)
	m[v] = append(m[v], c)
}

func (x *Cutoffs) remove(key string) {
	c := x.byKey[key]
	if c == nil {
		return
	}
	delete(x.byKey, key)
	m, v := x.bucket(&c.Selector)
	if m[v] = slices.DeleteFunc(m[v], func(o *rows.Cutoff) bool { return o == c }); len(m[v]) == 0 {
		delete(m, v)
	}
}

// Find returns the newest cut-off that covers a token of g, or nil.
func (x *Cutoffs) Find(g *revoked.Grant, t *revoked.Token, skew time.Duration) *rows.Cutoff {
	return x.best(g, t, skew, func(a, b *rows.Cutoff) bool { return CompareAge(a, b) > 0 })
}

// Furthest returns the cut-off with the latest IssuedBefore that covers a token of g, or nil.
func (x *Cutoffs) Furthest(g *revoked.Grant, t *revoked.Token, skew time.Duration) *rows.Cutoff {
	return x.best(g, t, skew, func(a, b *rows.Cutoff) bool { return a.IssuedBefore > b.IssuedBefore })
}

// best returns the cut-off that comes first, in the order that better defines, among those that
// cover a token of g. It returns nil if no cut-off covers the token.
func (x *Cutoffs) best(g *revoked.Grant, t *revoked.Token, skew time.Duration,
	better func(a, b *rows.Cutoff) bool) *rows.Cutoff {
	var best *rows.Cutoff
	x.each(g, t, skew, func(c *rows.Cutoff) {
		if best == nil || better(c, best) {
			best = c
		}
	})
	return best
}

// each calls fn with the cut-offs that cover a token of g.
func (x *Cutoffs) each(g *revoked.Grant, t *revoked.Token, skew time.Duration, fn func(*rows.Cutoff)) {
	if len(x.byKey) == 0 {
		return
	}
	// No cut-off is indexed by an empty property, so an empty property of g matches none.
	for _, l := range [...][]*rows.Cutoff{
		x.all[""], x.grants[g.ID], x.sessions[g.Session], x.subjects[g.Subject],
		x.clients[g.ClientID], x.issuers[g.Issuer],
	} {
		for _, c := range l {
			if c.Covers(g, t, skew) {
				fn(c)
			}
		}
	}
}

// Covering returns all cut-offs that cover a registered token of g.
func (x *Cutoffs) Covering(g *revoked.Grant, t *revoked.Token) (all []*rows.Cutoff) {
	x.each(g, t, 0, func(c *rows.Cutoff) { all = append(all, c) })
	return all
}

// Latest returns the latest IssuedBefore of the cut-offs for which the function counts returns
// true, or 0 without such a cut-off. If counts is nil, Latest considers all cut-offs. Latest
// examines every cut-off.
func (x *Cutoffs) Latest(counts func(*revoked.Cutoff) bool) (latest revoked.Time) {
	for _, c := range x.byKey {
		if counts == nil || counts(&c.Cutoff) {
			latest = max(latest, c.IssuedBefore)
		}
	}
	return latest
}

// SameSelector returns the cut-offs with exactly the selector s.
func (x *Cutoffs) SameSelector(s *revoked.Selector) (same []*rows.Cutoff) {
	m, v := x.bucket(s)
	for _, c := range m[v] {
		if c.Selector == *s {
			same = append(same, c)
		}
	}
	return same
}

// CompareAge orders cut-offs by age: their keys begin with the log index.
func CompareAge(a, b *rows.Cutoff) int { return bytes.Compare(a.Key(), b.Key()) }

// ByKey returns the cut-off whose row has that key, or nil.
func (x *Cutoffs) ByKey(key string) *rows.Cutoff { return x.byKey[key] }
