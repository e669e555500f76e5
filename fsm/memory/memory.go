package memory

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"revoked"
	"revoked/fsm/rows"
	"revoked/fsm/store"
)

// A State is the part of the state that is in memory. Readers must hold the lock of its owner for
// reading. Only a commit changes a State, with that lock held for writing.
type State struct {
	Applied     rows.Applied
	Clients     map[string]*revoked.Client
	Sorted      []*revoked.Client // the same clients, sorted by id
	Deleted     map[string]*rows.Deleted
	Settings    rows.Settings
	ClusterID   string
	Cutoffs     Cutoffs
	Uncompacted map[string]*rows.Cutoff // cut-offs that Compact has not finished, by key
	Compactions int                     // number of rows of FamilyCompact
	Tombstones  map[string]int          // number of tombstone bindings of each client, for the quota
	Denials     map[string]uint64       // number of denials of each client
	Assertions  map[string]int          // number of used assertions of each client, for the quota
	Admissions  map[string]*revoked.Admission
	JoinTokens  map[string]*revoked.JoinToken // by id
	Issuers     map[string]*rows.Issuer       // by name
	IssuersByID map[string]*rows.Issuer       // the same issuers, by iss
	Version     rows.Version                  // see FSM.Version
	History     rows.History                  // zero: the state keeps no history
	Finals      int                           // number of rows of FamilyFinal
	Members     rows.Members                  // its slices are never changed
	QueueFloor  revoked.Time                  // no queue entry is due earlier, so a scan may start here
}

// Load builds a State from the rows of s. It scans each family that is kept in memory once. It also
// scans all tombstones, to compute the quotas. It returns the first error of the store or of a row.
func Load(s *store.Store) (State, error) {
	m := State{
		Clients: map[string]*revoked.Client{}, Deleted: map[string]*rows.Deleted{},
		Settings: rows.Settings{Settings: OriginalSettings()}, Cutoffs: NewCutoffs(),
		Tombstones: map[string]int{}, Denials: map[string]uint64{}, Uncompacted: map[string]*rows.Cutoff{},
		Assertions: map[string]int{},
		Admissions: map[string]*revoked.Admission{}, JoinTokens: map[string]*revoked.JoinToken{},
		Issuers: map[string]*rows.Issuer{}, IssuersByID: map[string]*rows.Issuer{},
	}
	for _, family := range []byte{
		rows.FamilyApplied, rows.FamilyClient, rows.FamilyDeleted, rows.FamilyCutoff, rows.FamilyTombstone,
		rows.FamilyCompact, rows.FamilySettings, rows.FamilyCluster, rows.FamilyAdmission, rows.FamilyJoinToken,
		rows.FamilyDenials, rows.FamilyAssertion, rows.FamilyIssuer, rows.FamilyVersion, rows.FamilyFinal,
		rows.FamilyMembers,
	} {
		err := s.Scan([]byte{family}, nil, func(key, val []byte) (bool, error) { return true, m.load(key, val) })
		if err != nil {
			return m, err
		}
	}
	m.SortClients()
	return m, m.loadHistory(s)
}

// loadHistory reads the head row of the history. Its other rows are not in memory.
func (m *State) loadHistory(s *store.Store) error {
	key := rows.HistoryKey()
	row, err := s.Get(key)
	if err == nil && row != nil {
		err = rows.Parse(key, row, &m.History)
	}
	return err
}

// load adds one row to memory. Rows may be loaded in any order. The caller calls SortClients after
// the last one.
func (m *State) load(key, val []byte) (err error) {
	switch id := string(key[1:]); key[0] {
	case rows.FamilyApplied:
		err = rows.Parse(key, val, &m.Applied)
	case rows.FamilyClient:
		m.Clients[id], err = rows.ParseClient(id, val)
	case rows.FamilyDeleted:
		var d rows.Deleted
		err = rows.Parse(key, val, &d)
		m.Deleted[id] = &d
	case rows.FamilyCutoff:
		var c rows.Cutoff
		if err = rows.Parse(key, val, &c); err == nil {
			m.SetCutoff(string(key), &c)
		}
	case rows.FamilyTombstone:
		var t rows.Tombstone
		err = rows.Parse(key, val, &t)
		for i := range t.Bindings {
			m.Tombstones[t.Bindings[i].By]++
		}
	case rows.FamilyCompact:
		m.Compactions++
	case rows.FamilySettings:
		m.Settings, err = rows.ParseSettings(val)
	case rows.FamilyCluster:
		m.ClusterID = string(val)
	case rows.FamilyAdmission:
		m.Admissions[id], err = rows.ParseAdmission(key, val)
	case rows.FamilyJoinToken:
		m.JoinTokens[id], err = rows.ParseJoinToken(key, val)
	case rows.FamilyAssertion:
		var v rows.Assertion
		err = rows.Parse(key, val, &v)
		m.Assertions[v.ClientID]++
	case rows.FamilyDenials:
		var v rows.Denials
		err = rows.Parse(key, val, &v)
		m.Denials[id] = v.Count
	case rows.FamilyIssuer:
		var v *rows.Issuer
		if v, err = rows.ParseIssuer(id, val); err == nil {
			m.Issuers[id], m.IssuersByID[v.Issuer.Issuer] = v, v
		}
	case rows.FamilyFinal:
		m.Finals++
	case rows.FamilyMembers:
		err = rows.Parse(key, val, &m.Members)
	case rows.FamilyVersion:
		err = rows.Parse(key, val, &m.Version)
	}
	return err
}

// SortClients updates Sorted after a change of Clients. It builds a new slice, because callers of
// FSM.Clients may still read the old one.
func (m *State) SortClients() {
	byID := func(a, b *revoked.Client) int { return cmp.Compare(a.ID, b.ID) }
	m.Sorted = slices.SortedFunc(maps.Values(m.Clients), byID)
}

// SetCutoff replaces the cut-off with that key by c, or removes it if c is nil.
func (m *State) SetCutoff(key string, c *rows.Cutoff) {
	m.Cutoffs.remove(key)
	delete(m.Uncompacted, key)
	if c == nil {
		return
	}
	m.Cutoffs.add(c)
	if !c.Compacted {
		m.Uncompacted[key] = c
	}
}

// Unfinished returns the cut-offs that Compact has not finished, the oldest first.
func (m *State) Unfinished() []*rows.Cutoff {
	return slices.SortedFunc(maps.Values(m.Uncompacted), CompareAge)
}

// JoinTokenByHash returns the join token with that digest, or nil. It scans all join tokens; at
// most MaxJoinTokens exist.
func (m *State) JoinTokenByHash(hash revoked.Digest) *revoked.JoinToken {
	for _, v := range m.JoinTokens {
		if v.Hash == hash {
			return v
		}
	}
	return nil
}

// OriginalSettings returns the default settings of version 0.1. Apply uses them if the log has no
// settings, because members of different versions must apply an entry in the same way. Never change
// them.
func OriginalSettings() revoked.Settings {
	return revoked.Settings{
		LeaseDuration: 2 * time.Second, LateRegistrationWindow: time.Hour, CutoffRetention: 9600 * time.Hour,
		MaxClockSkew: 5 * time.Second, SecretGrace: 24 * time.Hour,
		AuditRetention: 9600 * time.Hour, AuditMaxEntries: 1_000_000,
	}
}
