package simkit

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/raft"
)

// snapshots keeps the two newest snapshots. A snapshot counts once its sink is closed. Like files,
// they survive a crash; a sink that is open at the crash leaves nothing.
type snapshots struct {
	mu   sync.Mutex
	kept []storedSnapshot // newest first
	dead bool
}

// A storedSnapshot is a complete snapshot. It never changes.
type storedSnapshot struct {
	meta raft.SnapshotMeta
	b    []byte
}

// copy returns a store with the same snapshots.
func (s *snapshots) copy() *snapshots {
	s.mu.Lock()
	defer s.mu.Unlock()
	return &snapshots{kept: slices.Clone(s.kept)}
}

// sealedCopy returns a copy for the next process. From then on this store does not accept a
// snapshot.
func (s *snapshots) sealedCopy() *snapshots {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dead = true
	return &snapshots{kept: slices.Clone(s.kept)}
}

// Create implements raft.SnapshotStore. The id is the virtual time, which is unique because a
// snapshot takes time.
func (s *snapshots) Create(version raft.SnapshotVersion, index, term uint64, conf raft.Configuration,
	confIndex uint64, _ raft.Transport) (raft.SnapshotSink, error) {
	id := time.Now().Format("20060102150405.000000000")
	return &sink{s: s, meta: raft.SnapshotMeta{Version: version, ID: id, Index: index, Term: term, Configuration: conf,
		ConfigurationIndex: confIndex}}, nil
}

// List implements raft.SnapshotStore.
func (s *snapshots) List() ([]*raft.SnapshotMeta, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []*raft.SnapshotMeta
	for i := range s.kept {
		m := s.kept[i].meta
		out = append(out, &m)
	}
	return out, nil
}

// Open implements raft.SnapshotStore.
func (s *snapshots) Open(id string) (*raft.SnapshotMeta, io.ReadCloser, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range s.kept {
		if s.kept[i].meta.ID == id {
			m := s.kept[i].meta
			return &m, io.NopCloser(bytes.NewReader(s.kept[i].b)), nil
		}
	}
	return nil, nil, errors.New("simulated: snapshot does not exist")
}

// A sink receives one snapshot.
type sink struct {
	s    *snapshots
	meta raft.SnapshotMeta
	buf  bytes.Buffer
	done bool
}

func (k *sink) Write(b []byte) (int, error) { return k.buf.Write(b) }
func (k *sink) ID() string                  { return k.meta.ID }
func (k *sink) Cancel() error               { k.done = true; return nil }

// Close implements raft.SnapshotSink: from now on the snapshot is listed, in the order of term and
// index.
func (k *sink) Close() error {
	if k.done {
		return nil
	}
	k.done = true
	k.s.mu.Lock()
	defer k.s.mu.Unlock()
	if k.s.dead {
		return errCrashed
	}
	k.meta.Size = int64(k.buf.Len())
	k.s.kept = append([]storedSnapshot{{k.meta, k.buf.Bytes()}}, k.s.kept...)
	slices.SortStableFunc(k.s.kept, func(a, b storedSnapshot) int {
		if a.meta.Term != b.meta.Term {
			return int(b.meta.Term) - int(a.meta.Term)
		}
		return int(b.meta.Index) - int(a.meta.Index)
	})
	k.s.kept = k.s.kept[:min(2, len(k.s.kept))]
	return nil
}
