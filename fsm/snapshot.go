package fsm

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"

	"github.com/cockroachdb/pebble/v2"
	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/proto"

	"revoked"
)

// The stream of a snapshot. All numbers are big-endian.
//
//	8      magic "RVKDSNAP"
//	4      version, 1
//	4      length of the head, at most maxHead
//	...    head: a SnapshotHead
//	blocks, each:
//	  4    length, 1 to maxBlock
//	  ...  rows: uvarint key length, key, uvarint value length, value; keys rise through all blocks
//	  4    CRC-32C of the rows
//	4      0: the end of the blocks
//	8      number of rows
//	32     SHA-256 of everything before it
//
// The rows are those of the state families (keys.go). The head's state_hash is the sum over them.
const (
	snapshotMagic   = "RVKDSNAP"
	snapshotVersion = 1
	maxHead         = 64 << 10
	maxBlock        = 4 << 20
	blockTarget     = 256 << 10 // a block is closed beyond it
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

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
	if err := os.MkdirAll(parent, 0o700); err != nil {
		return nil, fmt.Errorf("make checkpoint: %w", err)
	}
	tmp, err := os.MkdirTemp(parent, "cp-")
	if err != nil {
		return nil, fmt.Errorf("make checkpoint: %w", err)
	}
	src, err := openSource(s, tmp)
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(tmp))
	}
	return src, nil
}

func openSource(s *store, tmp string) (*source, error) {
	dir := filepath.Join(tmp, "db")
	if err := s.db.Checkpoint(dir); err != nil {
		return nil, fmt.Errorf("make checkpoint: %w", err)
	}
	db, err := pebble.Open(dir, &pebble.Options{ReadOnly: true, DisableWAL: true, Cache: s.cache, Logger: quietLogger{}})
	if err != nil {
		return nil, fmt.Errorf("open checkpoint: %w", err)
	}
	src := &source{db: db, dir: tmp}
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
func (s *source) Close() error { return errors.Join(s.db.Close(), os.RemoveAll(s.dir)) }

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

// writeStream writes src as a snapshot. The same source always gives the same bytes.
func writeStream(ctx context.Context, src *source, w io.Writer) (SnapshotHeader, error) {
	h := src.head
	head, err := proto.MarshalOptions{Deterministic: true}.Marshal(h.message())
	if err != nil {
		return h, fmt.Errorf("encode snapshot head: %w", err)
	}
	sw := &streamWriter{w: w, sum: sha256.New()}
	sw.write([]byte(snapshotMagic))
	sw.write(binary.BigEndian.AppendUint32(nil, snapshotVersion))
	sw.write(binary.BigEndian.AppendUint32(nil, uint32(len(head))))
	sw.write(head)
	for _, fam := range stateFamilies {
		err := scanReader(src.db, []byte{fam}, []byte{fam}, func(key, val []byte) (bool, error) {
			sw.row(key, val)
			if sw.rows%1024 == 0 && ctx.Err() != nil {
				return false, context.Cause(ctx)
			}
			return sw.err == nil, sw.err
		})
		if err != nil {
			return h, fmt.Errorf("write snapshot: %w", err)
		}
	}
	sw.endBlock()
	sw.write(make([]byte, 4))
	sw.write(binary.BigEndian.AppendUint64(nil, sw.rows))
	sw.write(sw.sum.Sum(nil))
	h.Rows, h.Bytes = sw.rows, sw.n
	if sw.err != nil {
		return h, fmt.Errorf("write snapshot: %w", sw.err)
	}
	return h, nil
}

type streamWriter struct {
	w     io.Writer
	sum   hash.Hash
	block []byte
	rows  uint64
	n     int64
	err   error
}

func (s *streamWriter) write(b []byte) {
	if s.err != nil {
		return
	}
	s.sum.Write(b)
	n, err := s.w.Write(b)
	s.n += int64(n)
	s.err = err
}

func (s *streamWriter) row(key, val []byte) {
	s.block = appendBytes(appendBytes(s.block, key), val)
	s.rows++
	if len(s.block) >= blockTarget {
		s.endBlock()
	}
}

func (s *streamWriter) endBlock() {
	if len(s.block) == 0 {
		return
	}
	if len(s.block) > maxBlock && s.err == nil {
		s.err = fmt.Errorf("a block of %d bytes", len(s.block))
	}
	s.write(binary.BigEndian.AppendUint32(nil, uint32(len(s.block))))
	s.write(s.block)
	s.write(binary.BigEndian.AppendUint32(nil, crc32.Checksum(s.block, castagnoli)))
	s.block = s.block[:0]
}

// A streamReader reads and checks a snapshot. It takes no length on trust: memory grows with what has
// arrived.
type streamReader struct {
	r       io.Reader
	sum     hash.Hash
	n       int64
	block   bytes.Buffer
	lastKey []byte
}

func (s *streamReader) fixed(n int) ([]byte, error) {
	var b [16]byte
	m, err := io.ReadFull(s.r, b[:n])
	s.n += int64(m)
	if err != nil {
		return nil, fmt.Errorf("%w: it ends after %d bytes: %w", errSnapshot, s.n, err)
	}
	s.sum.Write(b[:n])
	return append([]byte(nil), b[:n]...), nil
}

func (s *streamReader) bytes(n uint32) ([]byte, error) {
	s.block.Reset()
	m, err := io.CopyN(&s.block, s.r, int64(n))
	s.n += m
	if err != nil {
		return nil, fmt.Errorf("%w: it ends after %d bytes: %w", errSnapshot, s.n, err)
	}
	s.sum.Write(s.block.Bytes())
	return s.block.Bytes(), nil
}

func (s *streamReader) uint32() (uint32, error) {
	b, err := s.fixed(4)
	if err != nil {
		return 0, err
	}
	return binary.BigEndian.Uint32(b), nil
}

// readStream checks all of a snapshot: bounds, checksums, order and form of every row, the state hash
// and the counts of the head. fn (nil: nobody) gets every row before the end is known to be good: what
// it does with them must not be used unless readStream returns without an error.
func readStream(r io.Reader, fn func(key, val []byte) error) (SnapshotHeader, error) {
	s := &streamReader{r: r, sum: sha256.New()}
	h, err := s.head()
	if err != nil {
		return h, err
	}
	var sum stateSum
	var n counter
	for {
		size, err := s.uint32()
		if err != nil {
			return h, err
		}
		if size == 0 {
			break
		}
		if size > maxBlock {
			return h, fmt.Errorf("%w: a block of %d bytes", errSnapshot, size)
		}
		block, err := s.bytes(size)
		if err != nil {
			return h, err
		}
		want := crc32.Checksum(block, castagnoli)
		if err := s.rowsOf(block, func(key, val []byte) error {
			sum.add(key, val)
			if err := n.count(key, val); err != nil {
				return err
			}
			if fn == nil {
				return nil
			}
			return fn(key, val)
		}, func() error {
			got, err := s.uint32()
			if err == nil && got != want {
				err = fmt.Errorf("%w: the checksum of a block before byte %d is wrong", errSnapshot, s.n)
			}
			return err
		}); err != nil {
			return h, err
		}
	}
	return s.end(h, sum, &n)
}

func (s *streamReader) head() (SnapshotHeader, error) {
	magic, err := s.fixed(len(snapshotMagic))
	if err != nil {
		return SnapshotHeader{}, err
	}
	if string(magic) != snapshotMagic {
		return SnapshotHeader{}, fmt.Errorf("%w: it does not begin as one", errSnapshot)
	}
	version, err := s.uint32()
	if err != nil {
		return SnapshotHeader{}, err
	}
	if version != snapshotVersion {
		return SnapshotHeader{}, fmt.Errorf("%w: version %d is not known", errSnapshot, version)
	}
	size, err := s.uint32()
	if err != nil {
		return SnapshotHeader{}, err
	}
	if size > maxHead {
		return SnapshotHeader{}, fmt.Errorf("%w: a head of %d bytes", errSnapshot, size)
	}
	b, err := s.bytes(size)
	if err != nil {
		return SnapshotHeader{}, err
	}
	var m SnapshotHead
	if err := proto.Unmarshal(b, &m); err != nil {
		return SnapshotHeader{}, fmt.Errorf("%w: the head is malformed: %w", errSnapshot, err)
	}
	if err := known(&m); err != nil {
		return SnapshotHeader{}, err
	}
	return headerOf(&m)
}

// rowsOf checks a block's checksum first, then walks its rows.
func (s *streamReader) rowsOf(block []byte, fn func(key, val []byte) error, checksum func() error) error {
	if err := checksum(); err != nil {
		return err
	}
	r := rowReader{b: block}
	for len(r.b) > 0 {
		key, val := r.bytes(), r.bytes()
		if r.bad || len(key) == 0 || !isState(key[0]) {
			return fmt.Errorf("%w: a row before byte %d is malformed", errSnapshot, s.n)
		}
		if bytes.Compare(key, s.lastKey) <= 0 {
			return fmt.Errorf("%w: rows before byte %d are out of order", errSnapshot, s.n)
		}
		s.lastKey = append(s.lastKey[:0], key...)
		if err := fn(key, val); err != nil {
			return err
		}
	}
	return nil
}

func (s *streamReader) end(h SnapshotHeader, sum stateSum, n *counter) (SnapshotHeader, error) {
	b, err := s.fixed(8)
	if err != nil {
		return h, err
	}
	rows := binary.BigEndian.Uint64(b)
	want := s.sum.Sum(nil)
	var got [32]byte
	m, err := io.ReadFull(s.r, got[:])
	s.n += int64(m)
	switch {
	case err != nil:
		return h, fmt.Errorf("%w: it ends after %d bytes: %w", errSnapshot, s.n, err)
	case !bytes.Equal(got[:], want):
		return h, fmt.Errorf("%w: the checksum is wrong", errSnapshot)
	case rows != n.rows:
		return h, fmt.Errorf("%w: %d rows of %d", errSnapshot, n.rows, rows)
	case sum.bytes() != h.StateHash:
		return h, fmt.Errorf("%w: the state hash is wrong", errSnapshot)
	case n.tokens != h.Tokens || n.grants != h.Grants || n.clients != h.Clients || n.cutoffs != h.Cutoffs ||
		n.tombstones != h.Tombstones || n.events != h.Events || n.cluster != h.ClusterID:
		return h, fmt.Errorf("%w: the head does not tell what the rows hold", errSnapshot)
	}
	if k, err := s.r.Read(make([]byte, 1)); k != 0 {
		return h, fmt.Errorf("%w: something follows its end", errSnapshot)
	} else if err != nil && !errors.Is(err, io.EOF) {
		return h, fmt.Errorf("%w: %w", errSnapshot, err)
	}
	h.Rows, h.Bytes = rows, s.n
	return h, nil
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
	if err := s.db.Flush(); err != nil {
		err = fmt.Errorf("flush store: %w", err)
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
