package rules

import (
	"fmt"
	"time"

	"revoked"
	"revoked/fsm/memory"
	"revoked/fsm/rows"
)

// staged holds the changes of memory that a commit publishes after its rows. A nil map means no
// changes.
type staged struct {
	seq           uint32                        // number of events and cut-offs of the current entry
	lastEvent     uint64                        // index of the newest feed event or client change; 0: none
	auditSeq      uint32                        // number of audit entries of the current entry
	lastAudit     uint64                        // index of the newest audit entry; 0: none
	endedGrant    string                        // id of the grant that the current operation ended
	usedToken     string                        // id of the join token with a key that the operation used
	withdrawn     string                        // the node whose admission ended with a join token
	clients       map[string]*revoked.Client    // by id; nil: deleted
	deleted       map[string]*rows.Deleted      // by id; nil: dropped
	cutoffs       map[string]*rows.Cutoff       // by key; nil: dropped
	cutoffOrder   []string                      // the keys of cutoffs in the order of their first change
	tombstones    map[string]int                // changes of State.Tombstones
	assertions    map[string]int                // changes of State.Assertions
	denials       map[string]uint64             // new values of State.Denials; 0: none
	admissions    map[string]*revoked.Admission // by node; nil: dropped
	joinTokens    map[string]*revoked.JoinToken // by id; nil: dropped
	issuers       map[string]*rows.Issuer       // by name; nil: dropped
	settings      *rows.Settings
	clusterID     string
	compactions   int          // change of State.Compactions
	version       rows.Version // zero: unchanged
	history       *rows.History
	finals        int // change of State.Finals
	members       *rows.Members
	queueFloor    revoked.Time
	jtis          map[revoked.Digest][]revoked.Digest // tokens that the unit added to the index of jtis
	points        []HashPoint
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

// client returns a client, or nil if it does not exist. The caller must not change it.
func (a *access) client(id string) *revoked.Client {
	if c, ok := a.clients[id]; ok {
		return c
	}
	return a.mem.Clients[id]
}

// putClient writes c, which must not change afterwards: memory will point to it. The commit wakes
// the readers of the feed, because their right to read it may have ended.
func (a *access) putClient(c *revoked.Client) {
	row, err := rows.AppendClient(nil, c)
	if err != nil {
		a.fail(fmt.Errorf("encode client: %w", err))
		return
	}
	a.recordClient(c.ID, c)
	key := rows.Key(nil, rows.FamilyClient, c.ID)
	a.put(key, a.get(key), row)
	put(&a.clients, c.ID, c)
	a.lastEvent = a.Index
}

// dropClient deletes a client. This does not revoke its tokens: see deleteClient.
func (a *access) dropClient(id string) {
	a.recordClient(id, nil)
	key := rows.Key(nil, rows.FamilyClient, id)
	a.del(key, a.get(key))
	put(&a.clients, id, nil)
	a.lastEvent = a.Index
}

// deletedClient returns the record of a deleted client, or nil.
func (a *access) deletedClient(id string) *rows.Deleted {
	if d, ok := a.deleted[id]; ok {
		return d
	}
	return a.mem.Deleted[id]
}

// putDeleted records that a client was deleted. If d is nil, it removes the record.
func (a *access) putDeleted(id string, d *rows.Deleted) {
	key := rows.Key(nil, rows.FamilyDeleted, id)
	var was revoked.Time
	if old := a.deletedClient(id); old != nil {
		was = old.Due
	}
	row := a.get(key)
	put(&a.deleted, id, d)
	if d == nil {
		a.requeue(key, was, 0)
		a.del(key, row)
		return
	}
	a.requeue(key, was, d.Due)
	a.put(key, row, rows.Append(nil, d))
}

// currentSettings returns the settings as of the stamp.
func (a *access) currentSettings() revoked.Settings {
	if a.settings != nil {
		return a.settings.At(a.Stamp)
	}
	return a.mem.Settings.At(a.Stamp)
}

// putSettings writes s, which takes effect for the rest of the entry.
func (a *access) putSettings(s *rows.Settings) {
	row, err := rows.AppendSettings(nil, s)
	if err != nil {
		a.fail(fmt.Errorf("encode settings: %w", err))
		return
	}
	key := []byte{rows.FamilySettings}
	a.put(key, a.get(key), row)
	a.settings = s
}

// currentCluster returns the id of the cluster, or "" before Bootstrap.
func (a *access) currentCluster() string {
	if a.clusterID != "" {
		return a.clusterID
	}
	return a.mem.ClusterID
}

// putClusterID writes the id of the cluster. Only Bootstrap and Seed call it.
func (a *access) putClusterID(id string) {
	key := []byte{rows.FamilyCluster}
	a.put(key, a.get(key), []byte(id))
	a.clusterID = id
}

// findCutoff returns a cut-off that covers a token of g, or nil.
func (a *access) findCutoff(g *revoked.Grant, t *revoked.Token, skew time.Duration) *rows.Cutoff {
	for _, k := range a.cutoffOrder {
		if c := a.cutoffs[k]; c != nil && c.Covers(g, t, skew) {
			return c
		}
	}
	// A cut-off in memory that this unit drops is either covered by its replacement or past its
	// retention.
	return a.mem.Cutoffs.Find(g, t, skew)
}

// cutoffsOf returns the cut-offs whose selector equals s.
func (a *access) cutoffsOf(s *revoked.Selector) []*rows.Cutoff {
	var out []*rows.Cutoff
	for _, c := range a.mem.Cutoffs.SameSelector(s) {
		if _, changed := a.cutoffs[string(c.Key())]; !changed {
			out = append(out, c)
		}
	}
	for _, k := range a.cutoffOrder {
		if c := a.cutoffs[k]; c != nil && c.Selector == *s {
			out = append(out, c)
		}
	}
	return out
}

// wholeCutoff returns the newest cut-off without a selector, or nil. A restore or a recovery
// creates such a cut-off.
func (a *access) wholeCutoff() (newest *rows.Cutoff) {
	for _, c := range a.cutoffsOf(&revoked.Selector{}) {
		if newest == nil || memory.CompareAge(c, newest) > 0 {
			newest = c
		}
	}
	return newest
}

// putCutoff writes c in place of the cut-off with the same key, if there was one.
func (a *access) putCutoff(c *rows.Cutoff) { a.changeCutoff(c.Key(), c) }

func (a *access) dropCutoff(c *rows.Cutoff) { a.changeCutoff(c.Key(), nil) }

// changeCutoff writes c and moves its queue entry. If c is nil, it deletes both. It finds the old
// queue entry through the old row, not through memory, because an earlier operation of the entry
// may have changed the row.
func (a *access) changeCutoff(key []byte, c *rows.Cutoff) {
	old := a.get(key)
	var was revoked.Time
	if old != nil {
		var v rows.Cutoff
		if err := rows.Parse(key, old, &v); err != nil {
			a.fail(err)
		}
		was = v.Due
	}
	if _, ok := a.cutoffs[string(key)]; !ok {
		a.cutoffOrder = append(a.cutoffOrder, string(key))
	}
	put(&a.cutoffs, string(key), c)
	if c == nil {
		a.requeue(key, was, 0)
		a.del(key, old)
		return
	}
	a.requeue(key, was, c.Due)
	a.put(key, old, rows.Append(nil, c))
}

// tombstone returns the tombstone of d. If d has none, row is nil and t binds no client.
func (a *access) tombstone(d revoked.Digest) (t rows.Tombstone, row []byte) {
	key := rows.DigestKey(nil, rows.FamilyTombstone, d)
	if row = a.get(key); row != nil {
		if err := rows.Parse(key, row, &t); err != nil {
			a.fail(err)
		}
	}
	return t, row
}

// putTombstone writes t and moves its queue entry to due.
func (a *access) putTombstone(d revoked.Digest, old []byte, t *rows.Tombstone, due revoked.Time) {
	key := rows.DigestKey(nil, rows.FamilyTombstone, d)
	a.requeue(key, t.Due, due)
	t.Due = due
	if old == nil {
		a.Tombstones++
	}
	a.put(key, old, rows.Append(nil, t))
	a.tokensChanged = append(a.tokensChanged, d)
}

// deleteTombstone deletes t and releases its share of the quotas.
func (a *access) deleteTombstone(d revoked.Digest, old []byte, t *rows.Tombstone) {
	for i := range t.Bindings {
		a.countTombstone(t.Bindings[i].By, -1)
	}
	key := rows.DigestKey(nil, rows.FamilyTombstone, d)
	a.requeue(key, t.Due, 0)
	a.del(key, old)
	a.Tombstones--
}

// tombstonesOf returns the number of bindings that count against the quota of a client.
func (a *access) tombstonesOf(client string) int {
	return a.mem.Tombstones[client] + a.tombstones[client]
}

// countTombstone adds n to the number of bindings that count against the quota of client.
func (a *access) countTombstone(client string, n int) {
	put(&a.tombstones, client, a.tombstones[client]+n)
}

// Publish applies the staged changes to memory, after Commit. The caller must hold the lock of the
// memory for writing.
func (a *access) Publish() {
	m := a.mem
	m.Applied = a.Applied
	publishMap(m.Clients, a.clients)
	if a.clients != nil {
		m.SortClients()
	}
	publishMap(m.Deleted, a.deleted)
	for _, key := range a.cutoffOrder {
		m.SetCutoff(key, a.cutoffs[key])
	}
	publishMap(m.Admissions, a.admissions)
	publishMap(m.JoinTokens, a.joinTokens)
	publishIssuers(m, a.issuers)
	for client, n := range a.tombstones {
		if m.Tombstones[client] += n; m.Tombstones[client] <= 0 {
			delete(m.Tombstones, client)
		}
	}
	for client, n := range a.assertions {
		if m.Assertions[client] += n; m.Assertions[client] <= 0 {
			delete(m.Assertions, client)
		}
	}
	for client, n := range a.denials {
		if m.Denials[client] = n; n == 0 {
			delete(m.Denials, client)
		}
	}
	if a.settings != nil {
		m.Settings = *a.settings
	}
	if a.clusterID != "" {
		m.ClusterID = a.clusterID
	}
	if a.version.Commands != 0 {
		m.Version = a.version
	}
	if a.history != nil {
		m.History = *a.history
	}
	if a.members != nil {
		m.Members = *a.members
	}
	m.Finals += a.finals
	m.Compactions += a.compactions
	m.QueueFloor = a.queueFloor
}

// publishMap moves staged values into memory. A nil value deletes its key.
func publishMap[V any](into, staged map[string]*V) {
	for key, v := range staged {
		if into[key] = v; v == nil {
			delete(into, key)
		}
	}
}

// publishIssuers moves staged issuers into memory.
func publishIssuers(m *memory.State, staged map[string]*rows.Issuer) {
	for name := range staged {
		if old := m.Issuers[name]; old != nil {
			delete(m.IssuersByID, old.Issuer.Issuer)
		}
	}
	for _, v := range staged { // another name may have the iss of a deleted issuer
		if v != nil {
			m.IssuersByID[v.Issuer.Issuer] = v
		}
	}
	publishMap(m.Issuers, staged)
}
