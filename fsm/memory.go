package fsm

import (
	"bytes"
	"cmp"
	"slices"

	"revoked"
)

// memory is the part of the state that is small and asked for at every request. Apply changes it under
// FSM.mu, after the commit of the rows; what it points to never changes.
type memory struct {
	applied    applied
	clients    map[string]*revoked.Client
	sorted     []*revoked.Client // by id
	deleted    map[string]deletedRow
	settings   settingsRow
	clusterID  string
	cutoffs    cutoffIndex
	tombstones map[string]int        // live tombstones by who made them: the quota
	reaps      int                   // rows of famReap
	unreaped   map[string]*cutoffRow // cut-offs that Reap has not finished, by key
	queueFloor revoked.Time          // nothing in the queue is due earlier: where a scan may start
}

func newMemory() memory {
	return memory{
		clients: map[string]*revoked.Client{}, deleted: map[string]deletedRow{},
		settings: settingsRow{Settings: revoked.DefaultSettings()}, cutoffs: newCutoffIndex(), tombstones: map[string]int{},
		unreaped: map[string]*cutoffRow{},
	}
}

func (m *memory) sortClients() {
	m.sorted = make([]*revoked.Client, 0, len(m.clients))
	for _, c := range m.clients {
		m.sorted = append(m.sorted, c)
	}
	slices.SortFunc(m.sorted, func(a, b *revoked.Client) int { return cmp.Compare(a.ID, b.ID) })
}

// A cutoffIndex finds the cut-offs that cover a token. Each is filed under its most selective property.
type cutoffIndex struct {
	grants, sessions, subjects, clients, issuers map[string][]*cutoffRow
	all                                          []*cutoffRow // the zero selector: restore and recovery
	byKey                                        map[string]*cutoffRow
}

func newCutoffIndex() cutoffIndex {
	return cutoffIndex{
		grants: map[string][]*cutoffRow{}, sessions: map[string][]*cutoffRow{}, subjects: map[string][]*cutoffRow{},
		clients: map[string][]*cutoffRow{}, issuers: map[string][]*cutoffRow{}, byKey: map[string]*cutoffRow{},
	}
}

// bucket returns the map and the value under which a selector is filed; a nil map is x.all.
func (x *cutoffIndex) bucket(s *revoked.Selector) (map[string][]*cutoffRow, string) {
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
	return nil, ""
}

func (x *cutoffIndex) add(c *cutoffRow) {
	x.byKey[string(c.key())] = c
	if m, v := x.bucket(&c.Selector); m != nil {
		m[v] = append(m[v], c)
		return
	}
	x.all = append(x.all, c)
}

func (x *cutoffIndex) remove(key string) {
	c := x.byKey[key]
	if c == nil {
		return
	}
	delete(x.byKey, key)
	drop := func(l []*cutoffRow) []*cutoffRow {
		return slices.DeleteFunc(l, func(v *cutoffRow) bool { return v == c })
	}
	m, v := x.bucket(&c.Selector)
	if m == nil {
		x.all = drop(x.all)
		return
	}
	if m[v] = drop(m[v]); len(m[v]) == 0 {
		delete(m, v)
	}
}

// find returns the newest cut-off that covers a token of g, nil if none does.
func (x *cutoffIndex) find(g *revoked.Grant, tok *revoked.Token) *cutoffRow {
	if len(x.byKey) == 0 {
		return nil
	}
	var best *cutoffRow
	look := func(l []*cutoffRow) {
		for _, c := range l {
			if c.covers(g, tok) && (best == nil || bytes.Compare(c.key(), best.key()) > 0) {
				best = c
			}
		}
	}
	look(x.all)
	look(x.grants[g.ID])
	if g.Session != "" {
		look(x.sessions[g.Session])
	}
	if g.Subject != "" {
		look(x.subjects[g.Subject])
	}
	look(x.clients[g.ClientID])
	if g.Issuer != "" {
		look(x.issuers[g.Issuer])
	}
	return best
}

// sameSelector returns the cut-offs with exactly the selector s.
func (x *cutoffIndex) sameSelector(s *revoked.Selector) []*cutoffRow {
	l := x.all
	if m, v := x.bucket(s); m != nil {
		l = m[v]
	}
	var same []*cutoffRow
	for _, c := range l {
		if c.Selector == *s {
			same = append(same, c)
		}
	}
	return same
}

// unfinished returns the cut-offs that Reap has work with, the oldest first.
func (m *memory) unfinished() []*cutoffRow {
	l := make([]*cutoffRow, 0, len(m.unreaped))
	for _, c := range m.unreaped {
		l = append(l, c)
	}
	slices.SortFunc(l, func(a, b *cutoffRow) int { return bytes.Compare(a.key(), b.key()) })
	return l
}

// setCutoff files c in the place of what has its key; nil removes that.
func (m *memory) setCutoff(key string, c *cutoffRow) {
	m.cutoffs.remove(key)
	delete(m.unreaped, key)
	if c == nil {
		return
	}
	m.cutoffs.add(c)
	if !c.Reaped {
		m.unreaped[key] = c
	}
}
