package fsm

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"

	"github.com/cockroachdb/pebble/v2"

	"revoked"
	"revoked/internal/mutant"
)

// Restore implements raft.FSM: it replaces the state by a snapshot. It checks all of it, builds the new
// state beside the old one, syncs, and swaps by one rename; until then, and after any error before it, the old
// state stands. An error of the swap itself is fatal: the next start reads what is on disk. Readers go on throughout.
//
// A marker holds no state: it is taken for restored when the state is at its index already, or newer.
func (f *FSM) Restore(rc io.ReadCloser) error {
	r := bufio.NewReaderSize(rc, 1<<20)
	if head, err := r.Peek(len(markerMagic)); err == nil && string(head) == markerMagic {
		return f.keep(r)
	}
	name := generationName(f.gen + 1)
	dir := filepath.Join(f.cfg.Dir, name)
	h, err := build(f.cfg.FS, dir, r, f.cfg.CacheBytes, f.log)
	if err != nil {
		return errors.Join(err, f.cfg.FS.RemoveAll(dir))
	}
	if err := f.mayReplace(&h); err != nil {
		return errors.Join(err, f.cfg.FS.RemoveAll(dir))
	}
	s, err := openStore(f.cfg.FS, dir, f.cfg.CacheBytes, f.log, f.failed.report, f.cfg.Crash)
	if err != nil {
		return errors.Join(err, f.cfg.FS.RemoveAll(dir))
	}
	if mutant.On(mutant.ServeDuringRestore) {
		f.progress.advance(h.Index)
	}
	mem, err := loadMemory(s)
	if err == nil && f.cfg.Installing != nil {
		err = f.cfg.Installing(h.Index)
	}
	swapping := err == nil
	if swapping {
		err = setCurrent(f.cfg.FS, f.cfg.Dir, name)
	}
	if err != nil {
		s.retired.Store(!swapping)
		s.release()
		if swapping { // either state may be the one on disk
			f.failed.report(err)
		}
		return err
	}
	f.gen++
	old := f.adopt(s, mem)
	f.durable.Store(h.Index)
	if old != nil {
		old.retired.Store(true)
		old.release()
	}
	if c := f.cfg.Changes; c != nil {
		c.AllChanged()
	}
	f.progress.advance(h.Index)
	f.log.Info("state restored", "index", h.Index, "term", h.Term, "tokens", h.Tokens, "grants", h.Grants)
	return nil
}

// mayReplace refuses what would take the state back, or to another cluster.
func (f *FSM) mayReplace(h *SnapshotHeader) error {
	f.mu.RLock()
	defer f.mu.RUnlock()
	if f.store == nil {
		return fmt.Errorf("%w: the state machine", revoked.ErrClosed)
	}
	if id := f.mem.clusterID; id != "" && h.ClusterID != id {
		return fmt.Errorf("%w: of cluster %q, not %q", errSnapshot, h.ClusterID, id)
	}
	if a := &f.mem.applied; h.Index < a.Index {
		return fmt.Errorf("%w: of index %d, but the state is at %d", errSnapshot, h.Index, a.Index)
	}
	return nil
}

// keep answers for a marker.
func (f *FSM) keep(r io.Reader) error {
	b, err := io.ReadAll(io.LimitReader(r, markerSize+1))
	if err != nil {
		return fmt.Errorf("read marker: %w", err)
	}
	m, err := parseMarker(b)
	if err != nil {
		return err
	}
	f.mu.RLock()
	a := f.mem.applied
	f.mu.RUnlock()
	if a.Index < m.index {
		return fmt.Errorf("%w: the marker is of index %d, but the state beside it is at %d: the data directory is not whole",
			errSnapshot, m.index, a.Index)
	}
	if a.Index == m.index && a.LogHash != m.logHash {
		return fmt.Errorf("%w: the marker and the state beside it are of different logs at index %d", errSnapshot, m.index)
	}
	return nil
}

// build makes a store in dir from a snapshot, checked and on disk.
func build(fs FS, dir string, r io.Reader, cacheBytes int64, log *slog.Logger) (SnapshotHeader, error) {
	if err := fs.RemoveAll(dir); err != nil {
		return SnapshotHeader{}, fmt.Errorf("make generation: %w", err)
	}
	if err := fs.MkdirAll(dir, 0o700); err != nil {
		return SnapshotHeader{}, fmt.Errorf("make generation: %w", err)
	}
	var background onceError
	s, err := openStore(fs, dir, cacheBytes, log, background.set, crash)
	if err != nil {
		return SnapshotHeader{}, err
	}
	b := &builder{s: s, batch: s.db.NewBatch()}
	h, err := readStream(r, b.row)
	if err == nil {
		a := h.applied()
		err = b.finish(&a)
	}
	err = errors.Join(err, background.get())
	s.release()
	if err = errors.Join(err, s.err); err != nil {
		return h, err
	}
	return h, syncDir(fs, dir)
}

// A builder writes rows, and those that follow from them, in batches.
type builder struct {
	s     *store
	batch *pebble.Batch
}

const buildBatch = 1 << 20

func (b *builder) row(key, val []byte) error {
	if err := b.batch.Set(key, val, nil); err != nil {
		return fmt.Errorf("write row: %w", err)
	}
	if err := derive(key, val, func(k []byte) error { return b.batch.Set(k, nil, nil) }); err != nil {
		return err
	}
	if b.batch.Len() < buildBatch {
		return nil
	}
	return b.commit()
}

func (b *builder) commit() error {
	if err := b.batch.Commit(pebble.NoSync); err != nil {
		return fmt.Errorf("write rows: %w", err)
	}
	b.batch = b.s.db.NewBatch()
	return nil
}

func (b *builder) finish(a *applied) error {
	if err := b.batch.Set([]byte{famApplied}, a.append(nil), nil); err != nil {
		return fmt.Errorf("write row: %w", err)
	}
	if err := b.commit(); err != nil {
		return err
	}
	return b.s.flush()
}

// derive calls put with the keys of the index and the queue that follow from a row of the state. It
// returns an error for a row that this version could not have written.
func derive(key, val []byte, put func(key []byte) error) error {
	queue := func(due revoked.Time, row []byte) error {
		if due == 0 {
			return nil
		}
		return put(queueKey(nil, due, row))
	}
	switch key[0] {
	case famGrant:
		g, err := parseGrant(string(key[1:]), val)
		if err != nil {
			return err
		}
		for _, p := range grantIndexes(&g.Grant) {
			if p.value == "" {
				continue
			}
			if err := put(indexKey(nil, p.property, p.value, g.ID)); err != nil {
				return err
			}
		}
		return queue(g.Due, key)
	case famMember:
		r := rowReader{b: val}
		due := r.time()
		if err := r.end(); err != nil || len(key) < 33 {
			return fmt.Errorf("member: %w", errRow)
		}
		return queue(due, tokenKey(nil, revoked.Digest(key[len(key)-32:])))
	case famTombstone:
		t, err := parseTombstone(val)
		if err != nil {
			return err
		}
		return queue(t.Due, key)
	case famCutoff:
		c, err := parseCutoff(key, val)
		if err != nil {
			return err
		}
		return queue(c.Due, key)
	case famDeleted:
		d, err := parseDeleted(val)
		if err != nil {
			return err
		}
		return queue(d.Due, key)
	}
	return nil
}

// A counter checks the form of every row and counts what the head of a snapshot tells.
type counter struct {
	rows, tokens, grants, clients, cutoffs, tombstones, events uint64
	cluster                                                    string
}

func (n *counter) count(key, val []byte) (err error) {
	n.rows++
	switch key[0] {
	case famToken:
		if len(key) != 33 {
			return fmt.Errorf("token: %w", errRow)
		}
		var t revoked.Token
		if t, err = parseToken(revoked.Digest(key[1:]), val); err == nil && t.State == revoked.Live {
			n.tokens++
		}
	case famGrant:
		var g grantRow
		if g, err = parseGrant(string(key[1:]), val); err == nil && g.Revoked == nil {
			n.grants++
		}
	case famClient:
		_, err = parseClient(string(key[1:]), val)
		n.clients++
	case famCutoff:
		_, err = parseCutoff(key, val)
		n.cutoffs++
	case famTombstone:
		if len(key) != 33 {
			return fmt.Errorf("tombstone: %w", errRow)
		}
		_, err = parseTombstone(val)
		n.tombstones++
	case famEvent:
		_, err = parseEvent(key, val)
		n.events++
	case famDeleted:
		_, err = parseDeleted(val)
	case famSettings:
		_, err = parseSettings(val)
	case famCluster:
		n.cluster = string(val)
	}
	return err
}
