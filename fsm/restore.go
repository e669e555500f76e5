package fsm

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"

	"revoked"
	"revoked/fsm/command"
	"revoked/fsm/lookup"
	"revoked/fsm/memory"
	"revoked/fsm/rows"
	"revoked/fsm/snapshot"
	"revoked/fsm/store"
)

// Restore implements raft.FSM: it replaces the state with a snapshot. It builds and checks the new
// state next to the old one, syncs it, and swaps the two by one rename. After an error before the
// swap, the old state remains in use. An error of the swap is fatal, and the next start uses
// whichever state is on disk. Reads continue throughout.
//
// A marker contains no state: Restore accepts it if the state is already at or above its index.
func (f *FSM) Restore(rc io.ReadCloser) error {
	r := bufio.NewReaderSize(rc, 1<<20)
	if isMarker(r) {
		return f.acceptMarker(r)
	}
	next := f.generation + 1
	dir := store.GenerationDir(f.cfg.Dir, next)
	h, err := build(f.cfg.FS, dir, r, f.cfg.CacheBytes, f.log)
	if err == nil {
		err = f.mayReplace(&h)
	}
	var s *store.Store
	if err == nil {
		s, err = f.openGeneration(next)
	}
	if err != nil {
		return errors.Join(err, f.cfg.FS.RemoveAll(dir))
	}
	mem, err := memory.Load(s)
	if err == nil {
		err = filterKeys(s, &mem)
	}
	if err == nil && f.cfg.Installing != nil {
		err = f.cfg.Installing(h.Index)
	}
	if err != nil {
		s.Retire()
		s.Release()
		return err
	}
	if err := store.SetCurrent(f.cfg.FS, f.cfg.Dir, next); err != nil {
		s.Release() // and keep both generations: either may be the one on disk
		f.failed.report(err)
		return err
	}
	f.generation = next
	f.leaders.forget()
	old := f.adopt(s, mem)
	f.durable.Store(h.Index)
	if old != nil {
		old.Retire()
		old.Release()
	}
	if c := f.cfg.Changes; c != nil {
		c.AllChanged()
	}
	f.progress.Advance(h.Index)
	f.events.Advance(h.Index)
	f.audits.Advance(h.Index)
	f.log.Info("state restored", "index", h.Index, "term", h.Term, "tokens", h.Tokens, "grants", h.Grants)
	return nil
}

// mayReplace refuses a snapshot that is older than the state or belongs to another cluster.
func (f *FSM) mayReplace(h *snapshot.Header) error {
	f.mu.RLock()
	defer f.mu.RUnlock()
	if f.store == nil {
		return errClosed
	}
	if id := f.mem.ClusterID; id != "" && h.ClusterID != id {
		return fmt.Errorf("%w: cluster id: got %q, want %q", snapshot.ErrMalformed, h.ClusterID, id)
	}
	if a := &f.mem.Applied; h.Index < a.Index {
		return fmt.Errorf("%w: index: got %d, but the state is at %d", snapshot.ErrMalformed, h.Index, a.Index)
	}
	return nil
}

// acceptMarker returns an error if the state is behind the index of the marker, or if it has
// another log hash at that index. It changes nothing.
func (f *FSM) acceptMarker(r io.Reader) error {
	m, err := readMarker(r)
	if err != nil {
		return err
	}
	f.mu.RLock()
	a := f.mem.Applied
	f.mu.RUnlock()
	if a.Index < m.Index {
		return fmt.Errorf("%w: marker index: got %d, but the state is at %d: incomplete data directory",
			snapshot.ErrMalformed, m.Index, a.Index)
	}
	if a.Index == m.Index && a.LogHash != m.LogHash {
		return fmt.Errorf("%w: the marker and the state have different logs at index %d",
			snapshot.ErrMalformed, m.Index)
	}
	return nil
}

// build creates a store in dir from a snapshot. The store is checked and durable on return.
func build(fs FS, dir string, r io.Reader, cacheBytes int64, log *slog.Logger) (h snapshot.Header, err error) {
	if err := errors.Join(fs.RemoveAll(dir), fs.MkdirAll(dir, 0o700)); err != nil {
		return snapshot.Header{}, fmt.Errorf("create generation: %w", err)
	}
	background := newFirstError()
	s, err := store.Open(dir, store.Options{
		FS: fs, CacheBytes: cacheBytes, Log: log, Fatal: background.set, Crash: crash,
	})
	if err != nil {
		return snapshot.Header{}, err
	}
	h, err = load(s, r)
	s.Release()
	if err = errors.Join(err, background.get(), s.Wait()); err != nil {
		return h, err
	}
	return h, store.SyncDir(fs, dir)
}

// maxLoadBatch is the approximate size of a batch that load commits.
const maxLoadBatch = 1 << 20

// load fills s with the rows of a snapshot and the rows derived from them, and flushes s. In a
// snapshot, grants come before tokens, so setJTI can read the grant of a token.
func load(s *store.Store, r io.Reader) (snapshot.Header, error) {
	b := s.NewBatch()
	commit := func() error {
		err := b.Commit()
		b = s.NewBatch()
		return err
	}
	family := byte(0)
	h, err := snapshot.Read(r, func(key, val []byte) error {
		if key[0] != family && key[0] == rows.FamilyToken {
			if err := commit(); err != nil {
				return err
			}
		}
		family = key[0]
		err := b.Set(key, val)
		if err == nil {
			err = rows.Derive(key, val, func(k []byte) error { return b.Set(k, nil) })
		}
		if err == nil && family == rows.FamilyToken {
			err = setJTI(b, s.Get, key, val)
		}
		if err != nil || b.Len() < maxLoadBatch {
			return err
		}
		return commit()
	})
	if err != nil {
		return h, err
	}
	if err := b.Set([]byte{rows.FamilyApplied}, rows.Append(nil, &h.Applied)); err != nil {
		return h, err
	}
	if h.Commands >= command.JTIRules { // an older program can no longer open the store
		if err := b.Set(rows.JTIsIndexedKey(), []byte{1}); err != nil {
			return h, err
		}
	}
	if err := b.Commit(); err != nil {
		return h, err
	}
	return h, s.Flush()
}

// setJTI writes the index key of the jti of a token, if the token has a jti. val is the row of the
// token. get reads the row of its grant.
func setJTI(b *store.Batch, get lookup.Get, key, val []byte) error {
	if len(key) != 1+len(revoked.Digest{}) {
		return fmt.Errorf("token: %w", rows.ErrRow)
	}
	t, err := rows.ParseToken(revoked.Digest(key[1:]), val)
	if err != nil || t.JTI == "" {
		return err
	}
	row, err := get(rows.Key(nil, rows.FamilyGrant, t.GrantID))
	if err != nil || row == nil {
		return err
	}
	g, err := rows.ParseGrant(t.GrantID, row)
	if err != nil {
		return err
	}
	if k := rows.JTIKey(nil, g.Issuer, &t); k != nil {
		err = b.Set(k, nil)
	}
	return err
}

// indexChunk is the number of tokens that indexJTIs reads through one iterator.
const indexChunk = 16 << 10

// indexJTIs completes the index of the jtis of tokens, which older programs do not write. Older
// programs can open the store until the log has a command of version command.JTIRules. Only from
// then on is the index marked as complete: by the entry of that command, or here.
func indexJTIs(s *store.Store, mem *memory.State) error {
	if done, err := s.Get(rows.JTIsIndexedKey()); err != nil || done != nil {
		return err
	}
	for start := []byte(nil); ; {
		b, n := s.NewBatch(), 0
		err := s.Scan([]byte{rows.FamilyToken}, start, func(key, val []byte) (bool, error) {
			if n++; n > indexChunk {
				start = bytes.Clone(key)
				return false, nil
			}
			return true, setJTI(b, s.Get, key, val)
		})
		last := n <= indexChunk
		if err == nil && last && mem.Version.Commands >= command.JTIRules {
			err = b.Set(rows.JTIsIndexedKey(), []byte{1})
		}
		if err == nil {
			err = b.Commit()
		}
		if err != nil || last {
			return err
		}
	}
}

// firstError keeps the first error that set receives. It is safe for concurrent use.
type firstError chan error

func newFirstError() firstError { return make(firstError, 1) }

func (e firstError) set(err error) {
	select {
	case e <- err:
	default:
	}
}

func (e firstError) get() error {
	select {
	case err := <-e:
		return err
	default:
		return nil
	}
}
