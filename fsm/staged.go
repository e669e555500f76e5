package fsm

import (
	"fmt"

	"google.golang.org/protobuf/proto"

	"revoked"
)

// What a tx stages of memory: clients, settings, cut-offs and the like are read through the tx, written
// as rows, and moved into memory when the rows are there.

func (t *tx) client(id string) *revoked.Client {
	if c, ok := t.clients[id]; ok {
		return c
	}
	return t.mem.clients[id]
}

func (t *tx) putClient(c *revoked.Client) {
	key := clientKey(nil, c.ID)
	row, err := proto.MarshalOptions{Deterministic: true}.Marshal(ClientMessage(c))
	if err != nil {
		t.fail(fmt.Errorf("encode client: %w", err))
		return
	}
	t.put(key, t.get(key), row)
	if t.clients == nil {
		t.clients = map[string]*revoked.Client{}
	}
	t.clients[c.ID] = c
}

func (t *tx) dropClient(id string) {
	key := clientKey(nil, id)
	t.del(key, t.get(key))
	if t.clients == nil {
		t.clients = map[string]*revoked.Client{}
	}
	t.clients[id] = nil
}

func (t *tx) deletedClient(id string) (deletedRow, bool) {
	if d, ok := t.deleted[id]; ok {
		if d == nil {
			return deletedRow{}, false
		}
		return *d, true
	}
	d, ok := t.mem.deleted[id]
	return d, ok
}

// putDeleted remembers, or with d nil forgets, that a client was deleted.
func (t *tx) putDeleted(id string, d *deletedRow) {
	key := deletedKey(nil, id)
	old, _ := t.deletedClient(id)
	row := t.get(key)
	if t.deleted == nil {
		t.deleted = map[string]*deletedRow{}
	}
	t.deleted[id] = d
	if d == nil {
		t.requeue(key, old.Due, 0)
		t.del(key, row)
		return
	}
	t.requeue(key, old.Due, d.Due)
	t.put(key, row, appendDeleted(nil, d))
}

func (t *tx) config() revoked.Settings {
	if t.settings != nil {
		return t.settings.at(t.Stamp)
	}
	return t.mem.settings.at(t.Stamp)
}

func (t *tx) putSettings(s settingsRow) {
	m := SettingsMessage(s.Settings)
	m.CeilingUntil = int64(s.CeilingUntil)
	row, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		t.fail(fmt.Errorf("encode settings: %w", err))
		return
	}
	key := []byte{famSettings}
	t.put(key, t.get(key), row)
	t.settings = &s
}

func (t *tx) clusterID() string {
	if t.cluster != "" {
		return t.cluster
	}
	return t.mem.clusterID
}

func (t *tx) putClusterID(id string) {
	key := []byte{famCluster}
	t.put(key, t.get(key), []byte(id))
	t.cluster = id
}

// cutoff finds a cut-off that covers a token of g.
func (t *tx) cutoff(g *revoked.Grant, tok *revoked.Token) *cutoffRow {
	for _, k := range t.order {
		if c := t.cutoffs[k]; c != nil && c.covers(g, tok) {
			return c
		}
	}
	// One that this tx drops is covered by the one that supersedes it, or is past its retention.
	return t.mem.cutoffs.find(g, tok)
}

// putCutoff writes c; with drop it removes it.
func (t *tx) putCutoff(c *cutoffRow, drop bool) {
	key := c.key()
	old := t.get(key)
	var due revoked.Time
	if old != nil {
		was, err := parseCutoff(key, old)
		if err != nil {
			t.fail(err)
		}
		due = was.Due
	}
	if t.cutoffs == nil {
		t.cutoffs = map[string]*cutoffRow{}
	}
	if _, ok := t.cutoffs[string(key)]; !ok {
		t.order = append(t.order, string(key))
	}
	if drop {
		t.cutoffs[string(key)] = nil
		t.requeue(key, due, 0)
		t.del(key, old)
		return
	}
	t.cutoffs[string(key)] = c
	t.requeue(key, due, c.Due)
	t.put(key, old, appendCutoff(nil, c))
}

func (t *tx) event(e revoked.Event) {
	e.Index, e.Time = t.Index, t.Stamp
	t.keyBuf = eventKey(t.keyBuf[:0], t.Index, t.seq)
	t.rowBuf = appendEvent(t.rowBuf[:0], &e)
	t.put(t.keyBuf, nil, t.keep(t.rowBuf))
	t.seq++
	t.Events++
}

// publish moves the staged changes into memory. FSM.mu is held.
func (t *tx) publish() {
	m := t.mem
	m.applied = t.applied
	for id, c := range t.clients {
		if c == nil {
			delete(m.clients, id)
		} else {
			m.clients[id] = c
		}
	}
	if t.clients != nil {
		m.sortClients()
	}
	for id, d := range t.deleted {
		if d == nil {
			delete(m.deleted, id)
		} else {
			m.deleted[id] = *d
		}
	}
	for _, key := range t.order {
		m.setCutoff(key, t.cutoffs[key])
	}
	for who, n := range t.tombs {
		if m.tombstones[who] += n; m.tombstones[who] <= 0 {
			delete(m.tombstones, who)
		}
	}
	if t.settings != nil {
		m.settings = *t.settings
	}
	if t.cluster != "" {
		m.clusterID = t.cluster
	}
	m.reaps += t.reaps
	m.queueFloor = t.queueLow
	for _, p := range t.points {
		t.f.ring.push(p)
	}
}
