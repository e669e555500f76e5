package fsm

import (
	"fmt"

	"github.com/cockroachdb/pebble/v2"
	"google.golang.org/protobuf/proto"

	"revoked"
)

// scan calls fn for every row whose key begins with prefix, in order, until it returns false. Key and
// value are valid during the call.
func (s *store) scan(prefix []byte, fn func(key, val []byte) (bool, error)) error {
	return s.scanFrom(prefix, prefix, fn)
}

// scanFrom is scan from the first key that is not below start.
func (s *store) scanFrom(prefix, start []byte, fn func(key, val []byte) (bool, error)) error {
	return scanReader(s.db, prefix, start, fn)
}

// scanReader is scanFrom over a database or a snapshot of it.
func scanReader(db pebble.Reader, prefix, start []byte, fn func(key, val []byte) (bool, error)) (err error) {
	it, err := db.NewIter(&pebble.IterOptions{LowerBound: prefix, UpperBound: after(prefix)})
	if err != nil {
		return fmt.Errorf("scan rows: %w", err)
	}
	defer func() {
		if e := it.Close(); e != nil && err == nil {
			err = fmt.Errorf("scan rows: %w", e)
		}
	}()
	for ok := it.SeekGE(start); ok; ok = it.Next() {
		v, err := it.ValueAndErr()
		if err != nil {
			return fmt.Errorf("scan rows: %w", err)
		}
		more, err := fn(it.Key(), v)
		if err != nil || !more {
			return err
		}
	}
	return nil
}

// loadMemory reads what is kept in memory.
func loadMemory(s *store) (memory, error) {
	m := newMemory()
	row, err := s.get([]byte{famApplied})
	if err != nil {
		return m, err
	}
	if row != nil {
		if m.applied, err = parseApplied(row); err != nil {
			return m, err
		}
	}
	for _, fam := range [...]byte{famClient, famDeleted, famCutoff, famTombstone, famReap, famSettings, famCluster} {
		if err := s.scan([]byte{fam}, m.load); err != nil {
			return m, err
		}
	}
	m.sortClients()
	return m, nil
}

func (m *memory) load(key, val []byte) (bool, error) {
	switch id := string(key[1:]); key[0] {
	case famClient:
		c, err := parseClient(id, val)
		if err != nil {
			return false, err
		}
		m.clients[id] = c
	case famDeleted:
		d, err := parseDeleted(val)
		if err != nil {
			return false, err
		}
		m.deleted[id] = d
	case famCutoff:
		c, err := parseCutoff(key, val)
		if err != nil {
			return false, err
		}
		m.setCutoff(string(key), &c)
	case famTombstone:
		t, err := parseTombstone(val)
		if err != nil {
			return false, err
		}
		for i := range t.Bindings {
			m.tombstones[t.Bindings[i].By]++
		}
	case famReap:
		m.reaps++
	case famSettings:
		s, err := parseSettings(val)
		if err != nil {
			return false, err
		}
		m.settings = s
	case famCluster:
		m.clusterID = string(val)
	}
	return true, nil
}

func parseClient(id string, row []byte) (*revoked.Client, error) {
	var rec ClientRecord
	if err := proto.Unmarshal(row, &rec); err != nil {
		return nil, fmt.Errorf("client %q: %w: %w", id, errRow, err)
	}
	if err := checkClientKnown(&rec); err != nil {
		return nil, fmt.Errorf("client %q: %w", id, err)
	}
	if rec.Id != id {
		return nil, fmt.Errorf("client %q: %w", id, errRow)
	}
	return clientOf(&rec), nil
}

func parseSettings(row []byte) (settingsRow, error) {
	var rec SettingsRecord
	if err := proto.Unmarshal(row, &rec); err != nil {
		return settingsRow{}, fmt.Errorf("settings: %w: %w", errRow, err)
	}
	if err := known(&rec); err != nil {
		return settingsRow{}, err
	}
	return settingsRow{Settings: settingsOf(&rec), CeilingUntil: revoked.Time(rec.CeilingUntil)}, nil
}
