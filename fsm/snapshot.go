package fsm

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"path/filepath"

	"github.com/cockroachdb/pebble/v2"
	"github.com/hashicorp/raft"

	"revoked"
)

// errSnapshot is wrapped by every complaint about the bytes of a snapshot.
var errSnapshot = fmt.Errorf("%w: snapshot", revoked.ErrInvalid)

// A SnapshotHeader tells what a snapshot holds.
type SnapshotHeader struct {
	Version      int
	ClusterID    string
	Index, Term  uint64
	ConfigIndex  uint64 // of the last configuration entry below Index that the state machine saw
	Tokens       uint64 // live
	Grants       uint64 // live
	Clients      uint64
	Cutoffs      uint64
	Tombstones   uint64
	Events       uint64
	Rows         uint64 // of the stream; InspectSnapshot and WriteSnapshot know it
	Bytes        int64  // of the stream
	LogHash      [32]byte
	StateHash    [32]byte
	CreatedStamp revoked.Time // the newest time in the log at Index
	eventsFloor  uint64
}

func headerOf(m *SnapshotHead) (SnapshotHeader, error) {
	h := SnapshotHeader{
		Version: snapshotVersion, ClusterID: m.ClusterId, Index: m.Index, Term: m.Term, ConfigIndex: m.ConfigIndex,
		Tokens: m.Tokens, Grants: m.Grants, Clients: m.Clients, Cutoffs: m.Cutoffs, Tombstones: m.Tombstones,
		Events: m.Events, CreatedStamp: revoked.Time(m.Stamp), eventsFloor: m.EventsFloor,
	}
	if len(m.LogHash) != 32 || len(m.StateHash) != 32 || m.Stamp < 0 {
		return h, fmt.Errorf("%w: the head is malformed", errSnapshot)
	}
	copy(h.LogHash[:], m.LogHash)
	copy(h.StateHash[:], m.StateHash)
	return h, nil
}

func (h *SnapshotHeader) message() *SnapshotHead {
	return &SnapshotHead{
		ClusterId: h.ClusterID, Index: h.Index, Term: h.Term, ConfigIndex: h.ConfigIndex, Stamp: int64(h.CreatedStamp),
		LogHash: h.LogHash[:], StateHash: h.StateHash[:], Tokens: h.Tokens, Grants: h.Grants, Clients: h.Clients,
		Cutoffs: h.Cutoffs, Tombstones: h.Tombstones, Events: h.Events, EventsFloor: h.eventsFloor,
	}
}

func (h *SnapshotHeader) applied() applied {
	return applied{
		Index: h.Index, Term: h.Term, ConfigIndex: h.ConfigIndex, Stamp: h.CreatedStamp, LogHash: h.LogHash,
		State: stateSumOf(h.StateHash), Tokens: h.Tokens, Grants: h.Grants, Tombstones: h.Tombstones,
		Events: h.Events, EventsFloor: h.eventsFloor,
	}
}

// A source is a frozen copy of the state: a checkpoint opened for reading only.
type source struct {
	db   *pebble.DB
	fs   FS
	dir  string
	head SnapshotHeader
}

// freeze takes a checkpoint of the present state: hard links, after a flush. Apply goes on meanwhile.
func (f *FSM) freeze() (*source, error) {
	s, err := f.acquire()
	if err != nil {
		return nil, err
	}
	defer s.release()
	if err := f.flush(s); err != nil {
		return nil, err
	}
	parent := filepath.Join(f.cfg.Dir, checkpointDir)
	tmp := filepath.Join(parent, fmt.Sprintf("cp-%d", f.frozen.Add(1)))
	if err := f.cfg.FS.MkdirAll(tmp, 0o700); err != nil {
		return nil, fmt.Errorf("make checkpoint: %w", err)
	}
	src, err := openSource(s, tmp)
	if err != nil {
		return nil, errors.Join(err, f.cfg.FS.RemoveAll(tmp))
	}
	return src, nil
}

func openSource(s *store, tmp string) (*source, error) {
	dir := filepath.Join(tmp, "db")
	if err := s.db.Checkpoint(dir); err != nil {
		return nil, fmt.Errorf("make checkpoint: %w", err)
	}
	db, err := pebble.Open(dir, &pebble.Options{FS: s.fs, ReadOnly: true, DisableWAL: true, Cache: s.cache, Logger: quietLogger{}})
	if err != nil {
		return nil, fmt.Errorf("open checkpoint: %w", err)
	}
	src := &source{db: db, fs: s.fs, dir: tmp}
	if src.head, err = readHead(db); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return src, nil
}

// A quietLogger is for databases that are opened to be read once.
type quietLogger struct{}

func (quietLogger) Infof(string, ...any)  {}
func (quietLogger) Errorf(string, ...any) {}
func (quietLogger) Fatalf(format string, args ...any) {
	panic(fmt.Sprintf(format, args...))
}

// Close removes the copy.
func (s *source) Close() error { return errors.Join(s.db.Close(), s.fs.RemoveAll(s.dir)) }

// readHead gathers the head of a snapshot from the rows.
func readHead(db pebble.Reader) (SnapshotHeader, error) {
	h := SnapshotHeader{Version: snapshotVersion}
	read := func(fam byte, fn func([]byte) error) error {
		v, closer, err := db.Get([]byte{fam})
		if errors.Is(err, pebble.ErrNotFound) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read snapshot head: %w", err)
		}
		return errors.Join(fn(v), closer.Close())
	}
	if err := read(famApplied, func(v []byte) error {
		a, err := parseApplied(v)
		h.Index, h.Term, h.ConfigIndex, h.CreatedStamp = a.Index, a.Term, a.ConfigIndex, a.Stamp
		h.LogHash, h.StateHash = a.LogHash, a.State.bytes()
		h.Tokens, h.Grants, h.Tombstones, h.Events, h.eventsFloor = a.Tokens, a.Grants, a.Tombstones, a.Events, a.EventsFloor
		return err
	}); err != nil {
		return h, err
	}
	if err := read(famCluster, func(v []byte) error { h.ClusterID = string(v); return nil }); err != nil {
		return h, err
	}
	for fam, n := range map[byte]*uint64{famClient: &h.Clients, famCutoff: &h.Cutoffs} {
		if err := scanReader(db, []byte{fam}, []byte{fam}, func(_, _ []byte) (bool, error) { *n++; return true, nil }); err != nil {
			return h, err
		}
	}
	return h, nil
}

// WriteSnapshot writes a portable backup of the state as it is about now: the header tells at which
// index. It comes from a checkpoint and does not hold up Apply. After an error w has got a part only.
func (f *FSM) WriteSnapshot(ctx context.Context, w io.Writer) (SnapshotHeader, error) {
	src, err := f.freeze()
	if err != nil {
		return SnapshotHeader{}, err
	}
	h, err := writeStream(ctx, src, w)
	return h, errors.Join(err, src.Close())
}

// InspectSnapshot reads all of a snapshot and checks it as Restore does.
func InspectSnapshot(r io.Reader) (SnapshotHeader, error) { return readStream(r, nil) }

// A marker stands in Raft's snapshot store for the state beside it.
//
//	8   magic "RVKDMARK"
//	8   index
//	8   term
//	32  log hash at index
//	4   CRC-32C of what is before it
type marker struct {
	index, term uint64
	logHash     [32]byte
}

const (
	markerMagic = "RVKDMARK"
	markerSize  = 8 + 8 + 8 + 32 + 4
)

func (m *marker) bytes() []byte {
	b := append(make([]byte, 0, markerSize), markerMagic...)
	b = binary.BigEndian.AppendUint64(b, m.index)
	b = binary.BigEndian.AppendUint64(b, m.term)
	b = append(b, m.logHash[:]...)
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

func parseMarker(b []byte) (m marker, err error) {
	if len(b) != markerSize || string(b[:8]) != markerMagic ||
		binary.BigEndian.Uint32(b[markerSize-4:]) != crc32.Checksum(b[:markerSize-4], castagnoli) {
		return m, fmt.Errorf("%w: the marker is malformed", errSnapshot)
	}
	m.index, m.term = binary.BigEndian.Uint64(b[8:]), binary.BigEndian.Uint64(b[16:])
	copy(m.logHash[:], b[24:])
	return m, nil
}

// Snapshot implements raft.FSM. It costs nothing: what it returns persists as a marker, once the state
// up to here is on disk.
func (f *FSM) Snapshot() (raft.FSMSnapshot, error) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	if f.store == nil || f.failed.bad.Load() {
		return nil, fmt.Errorf("%w: the state machine", revoked.ErrClosed)
	}
	a := &f.mem.applied
	return &localSnapshot{f: f, m: marker{index: a.Index, term: a.Term, logHash: a.LogHash}}, nil
}

type localSnapshot struct {
	f *FSM
	m marker
}

var _ raft.FSMSnapshot = (*localSnapshot)(nil)

// Persist implements raft.FSMSnapshot: Raft cuts its log after it, so the flush comes first.
func (l *localSnapshot) Persist(sink raft.SnapshotSink) error {
	s, err := l.f.acquire()
	if err == nil {
		err = l.f.flush(s)
		s.release()
	}
	if err == nil {
		_, err = sink.Write(l.m.bytes())
	}
	if err != nil {
		return errors.Join(err, sink.Cancel())
	}
	return sink.Close()
}

// Release implements raft.FSMSnapshot.
func (*localSnapshot) Release() {}

// flush brings the state on disk, at least as far as it is applied at the call.
func (f *FSM) flush(s *store) error {
	f.mu.RLock()
	index, current := f.mem.applied.Index, f.store == s
	f.mu.RUnlock()
	if err := s.flush(); err != nil {
		f.failed.report(err)
		return err
	}
	if current {
		f.raiseDurable(index)
	}
	return nil
}

func (f *FSM) raiseDurable(index uint64) {
	for {
		now := f.durable.Load()
		if index <= now || f.durable.CompareAndSwap(now, index) {
			return
		}
	}
}
