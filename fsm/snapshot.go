package fsm

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/hashicorp/raft"

	"revoked/fsm/snapshot"
	"revoked/fsm/store"
)

// freeze creates a checkpoint of the current state, after a flush. Apply continues during that
// time.
func (f *FSM) freeze() (*store.Checkpoint, snapshot.Header, error) {
	s, err := f.acquire()
	if err != nil {
		return nil, snapshot.Header{}, err
	}
	defer s.Release()
	if err := f.flush(s); err != nil {
		return nil, snapshot.Header{}, err
	}
	c, err := s.Checkpoint(store.CheckpointDir(f.cfg.Dir, f.checkpoints.Add(1)))
	if err != nil {
		return nil, snapshot.Header{}, err
	}
	h, err := snapshot.ReadHeader(c)
	if err != nil {
		return nil, h, errors.Join(err, c.Close())
	}
	return c, h, nil
}

// WriteSnapshot writes a portable backup of the current state. The header holds the index of that
// state. WriteSnapshot does not block Apply. After an error w holds part of the backup.
func (f *FSM) WriteSnapshot(ctx context.Context, w io.Writer) (snapshot.Header, error) {
	c, h, err := f.freeze()
	if err != nil {
		return snapshot.Header{}, err
	}
	h, err = snapshot.Write(ctx, c, h, w)
	return h, errors.Join(err, c.Close())
}

// Snapshot implements raft.FSM. It does no I/O: Persist of the result flushes the state, at least
// up to the index of this call, and then writes a marker.
func (f *FSM) Snapshot() (raft.FSMSnapshot, error) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	if f.store == nil || f.failed.bad.Load() {
		return nil, errClosed
	}
	a := &f.mem.Applied
	return &localSnapshot{f: f, m: snapshot.Marker{Index: a.Index, Term: a.Term, LogHash: a.LogHash}}, nil
}

// A localSnapshot persists the marker of the state at one index.
type localSnapshot struct {
	f *FSM
	m snapshot.Marker
}

var _ raft.FSMSnapshot = (*localSnapshot)(nil)

// Persist implements raft.FSMSnapshot. Raft truncates its log afterwards, so the flush comes first.
func (l *localSnapshot) Persist(sink raft.SnapshotSink) error {
	s, err := l.f.acquire()
	if err == nil {
		err = l.f.flush(s)
		s.Release()
	}
	if err == nil {
		_, err = sink.Write(l.m.Encode())
	}
	if err != nil {
		return errors.Join(err, sink.Cancel())
	}
	return sink.Close()
}

// Release implements raft.FSMSnapshot.
func (*localSnapshot) Release() {}

// A SnapshotStore wraps Raft's snapshot store for the state machine. The inner store holds markers
// for local snapshots and the full bytes of installed ones. Opening a marker streams the current
// state, whose index is at or above that of the marker. The follower then skips the entries that
// its state already includes.
type SnapshotStore struct {
	raft.SnapshotStore
	f *FSM
}

var _ raft.SnapshotStore = (*SnapshotStore)(nil)

// NewSnapshotStore wraps inner, for example a raft.FileSnapshotStore.
func NewSnapshotStore(inner raft.SnapshotStore, f *FSM) *SnapshotStore {
	return &SnapshotStore{SnapshotStore: inner, f: f}
}

// Open implements raft.SnapshotStore. For a marker it creates a checkpoint, reads it once to
// compute the size in the metadata, and streams it. Closing the reader removes the checkpoint.
func (s *SnapshotStore) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	meta, rc, err := s.SnapshotStore.Open(id)
	if err != nil {
		return nil, nil, err
	}
	r := bufio.NewReaderSize(rc, 1<<16)
	if !isMarker(r) {
		return meta, struct {
			io.Reader
			io.Closer
		}{r, rc}, nil
	}
	m, err := readMarker(r)
	if err = errors.Join(err, rc.Close()); err != nil {
		return nil, nil, fmt.Errorf("snapshot %s: %w", id, err)
	}
	c, h, err := s.f.freeze()
	if err != nil {
		return nil, nil, err
	}
	if h.Index < m.Index {
		err = fmt.Errorf("%w: marker %s: got the state at index %d, want at least %d",
			snapshot.ErrMalformed, id, h.Index, m.Index)
	}
	if err == nil {
		h, err = snapshot.Write(context.Background(), c, h, io.Discard)
	}
	if err != nil {
		return nil, nil, errors.Join(err, c.Close())
	}
	streamed := *meta
	streamed.Size = h.Bytes
	return &streamed, newStream(c, h), nil
}

// isMarker reports whether a snapshot is a marker. It does not consume any bytes of r.
func isMarker(r *bufio.Reader) bool {
	head, err := r.Peek(len(snapshot.MarkerMagic))
	return err == nil && string(head) == snapshot.MarkerMagic
}

// readMarker reads up to one byte more than a marker has, so that ParseMarker rejects a longer
// file.
func readMarker(r io.Reader) (snapshot.Marker, error) {
	b, err := io.ReadAll(io.LimitReader(r, snapshot.MarkerSize+1))
	if err != nil {
		return snapshot.Marker{}, fmt.Errorf("read marker: %w", err)
	}
	return snapshot.ParseMarker(b)
}

// A stream is the reader of a pipe into which a goroutine writes a checkpoint.
type stream struct {
	*io.PipeReader
	close func() error
}

func newStream(c *store.Checkpoint, h snapshot.Header) *stream {
	r, w := io.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := bufio.NewWriterSize(w, 1<<18)
		_, err := snapshot.Write(context.Background(), c, h, buf)
		w.CloseWithError(errors.Join(err, buf.Flush())) // a nil error ends the reader with EOF
	}()
	return &stream{PipeReader: r, close: sync.OnceValue(func() error {
		_ = r.Close()
		<-done
		return c.Close()
	})}
}

// Close stops the writer, waits for it and removes the checkpoint. It may be called more than once.
func (s *stream) Close() error { return s.close() }
