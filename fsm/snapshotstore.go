package fsm

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/hashicorp/raft"
)

// A SnapshotStore is Raft's snapshot store over the state machine: what lies in the inner store is a
// marker for snapshots taken here, and the real bytes for those that were installed. Opening a marker
// streams the state itself.
//
// The streamed state is the present one, at an index at or above the snapshot's. The follower that
// gets it skips the entries it holds already; its Raft replays from the snapshot's index as always.
type SnapshotStore struct {
	inner raft.SnapshotStore
	f     *FSM
}

var _ raft.SnapshotStore = (*SnapshotStore)(nil)

// NewSnapshotStore wraps inner, usually a raft.FileSnapshotStore.
func NewSnapshotStore(inner raft.SnapshotStore, f *FSM) *SnapshotStore {
	return &SnapshotStore{inner: inner, f: f}
}

// Create implements raft.SnapshotStore.
func (s *SnapshotStore) Create(version raft.SnapshotVersion, index, term uint64, configuration raft.Configuration,
	configurationIndex uint64, trans raft.Transport) (raft.SnapshotSink, error) {
	return s.inner.Create(version, index, term, configuration, configurationIndex, trans)
}

// List implements raft.SnapshotStore. The size of a marker is its own.
func (s *SnapshotStore) List() ([]*raft.SnapshotMeta, error) { return s.inner.List() }

// Open implements raft.SnapshotStore. For a marker it takes a checkpoint, reads it once to learn the
// size that goes into the meta, and streams it; Close of the reader removes the checkpoint.
func (s *SnapshotStore) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	meta, rc, err := s.inner.Open(id)
	if err != nil {
		return nil, nil, err
	}
	r := bufio.NewReaderSize(rc, 1<<16)
	if head, err := r.Peek(len(markerMagic)); err != nil || string(head) != markerMagic {
		return meta, &readCloser{Reader: r, Closer: rc}, nil
	}
	b, err := io.ReadAll(io.LimitReader(r, markerSize+1))
	if err = errors.Join(err, rc.Close()); err != nil {
		return nil, nil, fmt.Errorf("read marker %s: %w", id, err)
	}
	m, err := parseMarker(b)
	if err != nil {
		return nil, nil, fmt.Errorf("marker %s: %w", id, err)
	}
	src, err := s.f.freeze()
	if err != nil {
		return nil, nil, err
	}
	if src.head.Index < m.index {
		err := fmt.Errorf("%w: marker %s is of index %d, but the state beside it is at %d", errSnapshot, id, m.index, src.head.Index)
		return nil, nil, errors.Join(err, src.Close())
	}
	h, err := writeStream(context.Background(), src, io.Discard)
	if err != nil {
		return nil, nil, errors.Join(err, src.Close())
	}
	streamed := *meta
	streamed.Size = h.Bytes
	return &streamed, newStream(src), nil
}

type readCloser struct {
	io.Reader
	io.Closer
}

// A stream writes a source into a pipe for as long as it is read.
type stream struct {
	*io.PipeReader
	src  *source
	done chan struct{}
	once sync.Once
	err  error
}

func newStream(src *source) *stream {
	r, w := io.Pipe()
	s := &stream{PipeReader: r, src: src, done: make(chan struct{})}
	go func() {
		defer close(s.done)
		buf := bufio.NewWriterSize(w, 1<<18)
		_, err := writeStream(context.Background(), src, buf)
		w.CloseWithError(errors.Join(err, buf.Flush())) // nil: EOF
	}()
	return s
}

// Close ends the writer, waits for it and removes the source. It is safe twice.
func (s *stream) Close() error {
	s.once.Do(func() {
		_ = s.PipeReader.Close()
		<-s.done
		s.err = s.src.Close()
	})
	return s.err
}
