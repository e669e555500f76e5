package fsm

import (
	"bytes"
	"cmp"
	"maps"
	"slices"
	"time"

	"revoked"
	"revoked/fsm/rows"
	"revoked/fsm/store"
)

// memory is the small part of the state that every request needs. A commit changes it under
// FSM.mu, after the rows. The values that it points to never change.
type memory struct {
	applied     rows.Applied
	clients     map[string]*revoked.Client
	sorted      []*revoked.Client // by id
	deleted     map[string]*rows.Deleted
	settings    rows.Settings
	clusterID   string
	cutoffs     cutoffIndex
	uncompacted map[string]*rows.Cutoff // cut-offs that Compact has not finished, by key
	compactions int                     // rows of FamilyCompact
	tombstones  map[string]int          // number of bindings by client, for the quota
	denials     map[string]uint64       // number of denials by client
	admissions  map[string]*revoked.Admission
	joinTokens  map[string]*revoked.JoinToken // by id
	issuers     map[string]*rows.Issuer       // by name
	issuersByID map[string]*rows.Issuer       // the same, by iss
	version     rows.Version                  // see FSM.Version
	queueFloor  revoked.Time                  // no queue entry is due earlier, so a scan may start here
}

// loadMemory reads the memory of a state from its rows.
func loadMemory(s *store.Store) (memory, error) {
	m := memory{
		clients: map[string]*revoked.Client{}, deleted: map[string]*rows.Deleted{},
		settings: rows.Settings{Settings: originalSettings()}, cutoffs: newCutoffIndex(),
		tombstones: map[string]int{}, denials: map[string]uint64{}, uncompacted: map[string]*rows.Cutoff{},
		admissions: map[string]*revoked.Admission{}, joinTokens: map[string]*revoked.JoinToken{},
		issuers: map[string]*rows.Issuer{}, issuersByID: map[string]*rows.Issuer{},
	}
	for _, family := range []byte{
		rows.FamilyApplied, rows.FamilyClient, rows.FamilyDeleted, rows.FamilyCutoff, rows.FamilyTombstone,
		rows.FamilyCompact, rows.FamilySettings, rows.FamilyCluster, rows.FamilyAdmission, rows.FamilyJoinToken,
		rows.FamilyDenials, rows.FamilyIssuer, rows.FamilyVersion,
	} {
		err := s.Scan([]byte{family}, nil, func(key, val []byte) (bool, error) { return true, m.load(key, val) })
		if err != nil {
			return m, err
		}
	}
	m.sortClients()
	return m, nil
}

// load adds one row to memory. Rows may be loaded in any order.
func (m *memory) load(key, val []byte) (err error) {
	switch id := string(key[1:]); key[0] {
	case rows.FamilyApplied:
		err = rows.Parse(key, val, &m.applied)
	case rows.FamilyClient:
		m.clients[id], err = rows.ParseClient(id, val)
	case rows.FamilyDeleted:
		var d rows.Deleted
		err = rows.Parse(key, val, &d)
		m.deleted[id] = &d
	case rows.FamilyCutoff:
		var c rows.Cutoff
		if err = rows.Parse(key, val, &c); err == nil {
			m.setCutoff(string(key), &c)
		}
	case rows.FamilyTombstone:
		var t rows.Tombstone
		err = rows.Parse(key, val, &t)
		for i := range t.Bindings {
			m.tombstones[t.Bindings[i].By]++
		}
	case rows.FamilyCompact:
		m.compactions++
	case rows.FamilySettings:
		m.settings, err = rows.ParseSettings(val)
	case rows.FamilyCluster:
		m.clusterID = string(val)
	case rows.FamilyAdmission:
		m.admissions[id], err = rows.ParseAdmission(key, val)
	case rows.FamilyJoinToken:
		m.joinTokens[id], err = rows.ParseJoinToken(key, val)
	case rows.FamilyDenials:
		var v rows.Denials
		err = rows.Parse(key, val, &v)
		m.denials[id] = v.Count
	case rows.FamilyIssuer:
		var v *rows.Issuer
		if v, err = rows.ParseIssuer(id, val); err == nil {
			m.issuers[id], m.issuersByID[v.Issuer.Issuer] = v, v
		}
	case rows.FamilyVersion:
		err = rows.Parse(key, val, &m.version)
	}
	return err
}

// sortClients builds a new slice, because callers of Clients may still read the old one.
func (m *memory) sortClients() {
	byID := func(a, b *revoked.Client) int { return cmp.Compare(a.ID, b.ID) }
	m.sorted = slices.SortedFunc(maps.Values(m.clients), byID)
}

// setCutoff replaces the cut-off with that key; nil removes it.
func (m *memory) setCutoff(key string, c *rows.Cutoff) {
	m.cutoffs.remove(key)
	delete(m.uncompacted, key)
	if c == nil {
		return
	}
	m.cutoffs.add(c)
	if !c.Compacted {
		m.uncompacted[key] = c
	}
}

// unfinished returns the cut-offs that Compact has not finished, the oldest first.
func (m *memory) unfinished() []*rows.Cutoff {
	return slices.SortedFunc(maps.Values(m.uncompacted), compareKeys)
}

// compareKeys orders cut-offs by age: their keys begin with the log index.
func compareKeys(a, b *rows.Cutoff) int { return bytes.Compare(a.Key(), b.Key()) }

// staged holds the changes of memory that a commit publishes after its rows. A nil map means no
// changes.
type staged struct {
	seq           uint32                        // number of events and cut-offs of the current entry
	lastEvent     uint64                        // index of the newest event or change of a client; 0: none
	clients       map[string]*revoked.Client    // nil: deleted
	deleted       map[string]*rows.Deleted      // nil: forgotten
	cutoffs       map[string]*rows.Cutoff       // by key; nil: dropped
	cutoffOrder   []string                      // the keys of cutoffs in the order of their first change
	tombstones    map[string]int                // changes of memory.tombstones
	denials       map[string]uint64             // new values of memory.denials; 0: none
	admissions    map[string]*revoked.Admission // by node; nil: forgotten
	joinTokens    map[string]*revoked.JoinToken // by id; nil: forgotten
	issuers       map[string]*rows.Issuer       // by name; nil: forgotten
	settings      *rows.Settings
	clusterID     string
	compactions   int          // change of memory.compactions
	version       rows.Version // zero: unchanged
	queueFloor    revoked.Time
	points        []hashPoint
	tokensChanged []revoked.Digest
	grantsChanged []string
}

// put stores a value in a map and creates the map on first use.
func put[K comparable, V any](m *map[K]V, key K, v V) {
	if *m == nil {
		*m = map[K]V{}
	}
	(*m)[key] = v
}

// A cutoffIndex finds the cut-offs that cover a token. It indexes each by its most selective
// property.
type cutoffIndex struct {
	grants, sessions, subjects, clients, issuers, all map[string][]*rows.Cutoff
	byKey                                             map[string]*rows.Cutoff
}

func newCutoffIndex() cutoffIndex {
	bucket := func() map[string][]*rows.Cutoff { return map[string][]*rows.Cutoff{} }
	return cutoffIndex{bucket(), bucket(), bucket(), bucket(), bucket(), bucket(), map[string]*rows.Cutoff{}}
}

// bucket returns the map and the key in it that index a selector. The zero selector, which only
// restore and recovery use, is in all.
func (x *cutoffIndex) bucket(s *revoked.Selector) (map[string][]*rows.Cutoff, string) {
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

func (x *cutoffIndex) add(c *rows.Cutoff) {
	x.byKey[string(c.Key())] = c
	m, v := x.bucket(&c.Selector)
	m[v] = append(m[v], c)
}

func (x *cutoffIndex) remove(key string) {
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

// find returns the newest cut-off that covers a token of g, or nil.
func (x *cutoffIndex) find(g *revoked.Grant, t *revoked.Token, skew time.Duration) *rows.Cutoff {
	return x.best(g, t, skew, func(a, b *rows.Cutoff) bool { return compareKeys(a, b) > 0 })
}

// furthest returns the cut-off with the latest IssuedBefore that covers a token of g, or nil.
func (x *cutoffIndex) furthest(g *revoked.Grant, t *revoked.Token, skew time.Duration) *rows.Cutoff {
	return x.best(g, t, skew, func(a, b *rows.Cutoff) bool { return a.IssuedBefore > b.IssuedBefore })
}

// best returns the first, by better, of the cut-offs that cover a token of g, or nil.
func (x *cutoffIndex) best(g *revoked.Grant, t *revoked.Token, skew time.Duration,
	better func(a, b *rows.Cutoff) bool) *rows.Cutoff {
	if len(x.byKey) == 0 {
		return nil
	}
	var best *rows.Cutoff
	// No cut-off is indexed by an empty property, so an empty property of g matches none.
	for _, l := range [...][]*rows.Cutoff{
		x.all[""], x.grants[g.ID], x.sessions[g.Session], x.subjects[g.Subject],
		x.clients[g.ClientID], x.issuers[g.Issuer],
	} {
		for _, c := range l {
			if c.Covers(g, t, skew) && (best == nil || better(c, best)) {
				best = c
			}
		}
	}
	return best
}

// sameSelector returns the cut-offs with exactly the selector s.
func (x *cutoffIndex) sameSelector(s *revoked.Selector) (same []*rows.Cutoff) {
	m, v := x.bucket(s)
	for _, c := range m[v] {
		if c.Selector == *s {
			same = append(same, c)
		}
	}
	return same
}

// hashHistory is the number of past indexes whose hashes are kept.
const hashHistory = 4096

type hashPoint struct {
	index      uint64
	log, state [32]byte
}

// A hashRing holds the hashes at the newest indexes, each at its index modulo hashHistory.
type hashRing [hashHistory]hashPoint

func (r *hashRing) push(p hashPoint) { r[p.index%hashHistory] = p }

func (r *hashRing) at(index uint64) (hashPoint, bool) {
	p := r[index%hashHistory]
	return p, p.index == index && index > 0
}
