package fsm_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"revoked"
	"revoked/fsm"
)

// lived returns a machine whose state has a row of every family.
func lived(t testing.TB) *machine {
	t.Helper()
	m := newMachine(t)
	for _, n := range []string{"1", "2", "3", "4"} {
		m.register(pair(n))
	}
	fill(m, "g-big", 0, 100)
	m.revoke("app", "a-1")
	m.revoke("app", "ghost")
	m.revoke("admin", "ghost")
	m.must(fsm.CutoffOp(m.by("admin"), revoked.Selector{Subject: "bob"}, 0, "left"))
	m.must(fsm.DeleteClientOp(m.by("admin"), "other"))
	r := pair("2")
	r.Tokens = []revoked.TokenRegistration{refresh("r-2b", start.Add(time.Second), time.Hour), access("short", start, time.Minute)}
	m.register(r)
	m.revoke("app", "big-99") // leaves a row for Reap
	m.now = m.now.Add(10 * time.Minute)
	m.apply(fsm.TypeExpire, &fsm.Expire{Before: int64(m.now.Add(-5 * time.Second)), Limit: 1000})
	return m
}

func (m *machine) backup() []byte {
	m.t.Helper()
	var b bytes.Buffer
	h, err := m.f.WriteSnapshot(context.Background(), &b)
	if err != nil {
		m.t.Fatalf("write snapshot: %v", err)
	}
	got, err := fsm.InspectSnapshot(bytes.NewReader(b.Bytes()))
	if err != nil {
		m.t.Fatalf("inspect: %v", err)
	}
	index, log, state := m.f.Hashes()
	if got != h || got.Index != index || got.LogHash != log || got.StateHash != state || got.ClusterID != m.f.ClusterID() || got.Bytes != int64(b.Len()) {
		m.t.Errorf("inspect: got %+v, want %+v", got, h)
	}
	return b.Bytes()
}

func TestRestoreGivesTheSameState(t *testing.T) {
	m := lived(t)
	r := empty(t)
	r.register2(t)
	if err := r.f.Restore(io.NopCloser(bytes.NewReader(m.backup()))); err != nil {
		t.Fatalf("restore: %v", err)
	}
	m.sameAs(r)
	if r.changes.all != 1 || r.f.Applied() != m.f.Applied() {
		t.Errorf("got AllChanged %d times, applied %d", r.changes.all, r.f.Applied())
	}
	if !bytes.Equal(m.backup(), r.backup()) {
		t.Error("the backups differ")
	}
	// From here on both go the same way, background commands included.
	r.log, r.now = append([]*raft.Log(nil), m.log...), m.now
	for _, v := range []*machine{m, r} {
		v.register(pair("5"))
		v.revoke("app", "a-3")
		v.drain()
		for range 8 {
			v.later(7 * time.Hour)
			v.drain()
		}
	}
	m.sameAs(r)
	if d, err := r.f.DurableIndex(); err != nil || d < uint64(10) {
		t.Errorf("durable index %d, %v", d, err)
	}
	entries, err := os.ReadDir(r.dir)
	if err != nil || len(entries) != 3 { // CURRENT, the generation, checkpoints
		t.Errorf("the directory holds %v, %v", entries, err)
	}
}

// register2 gives the state that a restore replaces something to forget.
func (m *machine) register2(t *testing.T) {
	t.Helper()
	m.apply(fsm.TypeBootstrap, &fsm.Bootstrap{ClusterId: "c-1", Clients: clientRecords()})
	m.register(pair("forgotten"))
}

func TestRestoreRefuses(t *testing.T) {
	m := lived(t)
	good := m.backup()
	flip := func(i int) []byte {
		b := bytes.Clone(good)
		b[i] ^= 0x40
		return b
	}
	tests := []struct {
		name string
		data []byte
	}{
		{"nothing", nil},
		{"half of it", good[:len(good)/2]},
		{"all but the last byte", good[:len(good)-1]},
		{"something after its end", append(bytes.Clone(good), 0)},
		{"another magic", flip(0)},
		{"another version", flip(11)},
		{"a flipped bit in the head", flip(20)},
		{"a flipped bit in a row", flip(len(good) / 2)},
		{"a flipped bit in the checksum", flip(len(good) - 3)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, _, before := m.f.Hashes()
			if err := m.f.Restore(io.NopCloser(bytes.NewReader(tt.data))); err == nil {
				t.Fatal("got no error")
			}
			if _, err := fsm.InspectSnapshot(bytes.NewReader(tt.data)); err == nil {
				t.Error("inspect: got no error")
			}
			if _, _, after := m.f.Hashes(); after != before {
				t.Error("the old state did not stand")
			}
			m.want("a-3", revoked.Active)
		})
	}
	t.Run("of another cluster", func(t *testing.T) {
		x := empty(t)
		x.apply(fsm.TypeBootstrap, &fsm.Bootstrap{ClusterId: "c-2", Clients: clientRecords()})
		wantErr(t, x.f.Restore(io.NopCloser(bytes.NewReader(good))), revoked.ErrInvalid)
	})
	t.Run("older than the state", func(t *testing.T) {
		m.register(pair("9"))
		wantErr(t, m.f.Restore(io.NopCloser(bytes.NewReader(good))), revoked.ErrInvalid)
	})
}

func TestReadsGoOnDuringRestore(t *testing.T) {
	m := lived(t)
	backup := m.backup()
	stop, done := make(chan struct{}), make(chan error)
	go func() {
		for {
			select {
			case <-stop:
				done <- nil
				return
			default:
			}
			if r, err := m.f.Lookup(digest("a-3")); err != nil || !r.Found {
				done <- errors.Join(errors.New("lookup failed"), err)
				return
			}
		}
	}()
	for range 3 {
		if err := m.f.Restore(io.NopCloser(bytes.NewReader(backup))); err != nil {
			t.Fatal(err)
		}
	}
	close(stop)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// Authentication does not wait for the replay of the log.
func TestACrashForgetsNoChangeOfAClient(t *testing.T) {
	m := newMachine(t)
	app, _ := m.f.Client("app")
	changed := *app
	changed.Disabled = true
	m.must(fsm.PutClientOp(m.by("admin"), &changed, changed.Version))
	crashed := m.crash()
	if got, ok := crashed.f.Client("app"); !ok || !got.Disabled {
		t.Errorf("after a crash: got %+v, want the client, disabled", got)
	}
	m.must(fsm.DeleteClientOp(m.by("admin"), "app"))
	crashed = m.crash()
	if _, ok := crashed.f.Client("app"); ok {
		t.Error("after a crash the deleted client is there")
	}
	if crashed.f.ClusterID() == "" {
		t.Error("after a crash the cluster has no id")
	}
}

func TestCrashIsRepairedByReplay(t *testing.T) {
	m := lived(t)
	cold := m.crash() // nothing was flushed
	if d, err := cold.f.DurableIndex(); err != nil || d >= m.f.Applied() {
		t.Fatalf("durable index %d, %v, applied %d", d, err, m.f.Applied())
	}
	for i := 0; i < len(cold.log); i += 3 {
		cold.f.ApplyBatch(cold.log[i:min(i+3, len(cold.log))])
	}
	m.sameAs(cold)

	if _, err := m.f.WriteSnapshot(context.Background(), io.Discard); err != nil { // flushes
		t.Fatal(err)
	}
	at := m.f.Applied()
	m.register(pair("6"))
	m.revoke("app", "a-2")
	warm := m.crash()
	if d, err := warm.f.DurableIndex(); err != nil || d != at {
		t.Fatalf("durable index %d, %v, want %d", d, err, at)
	}
	for _, l := range warm.log { // the prefix is skipped
		if _, ok := warm.f.Apply(l).(*fsm.Outcome); !ok {
			t.Fatal(warm.fatal)
		}
	}
	m.sameAs(warm)
	if err := m.f.Close(); err != nil {
		t.Fatal(err)
	}
	if err := m.f.Close(); err != nil {
		t.Errorf("close again: %v", err)
	}
	m.open()
	if d, _ := m.f.DurableIndex(); d != uint64(len(m.log)) {
		t.Errorf("after Close: durable index %d, want %d", d, len(m.log))
	}
	m.sameAs(warm)
}

func TestALogOfALaterTermThatIsNotApplied(t *testing.T) {
	m := lived(t)
	l := *m.log[3]
	l.Term = 9
	m.f.Apply(&l)
	if len(m.fatal) != 1 {
		t.Errorf("got %v, want one fatal error", m.fatal)
	}
}

func TestFatal(t *testing.T) {
	for _, tt := range []struct {
		name string
		data []byte
	}{
		{"an unknown format", []byte{2, 3}},
		{"an unknown type", []byte{1, 99}},
		{"an unknown field", []byte{1, 3, 0xf8, 0x07, 1}},
		{"nothing", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := newMachine(t)
			l := &raft.Log{Index: uint64(len(m.log) + 1), Term: 1, Data: tt.data}
			for range 2 {
				if _, isErr := m.f.Apply(l).(error); !isErr {
					t.Error("got no error")
				}
			}
			if len(m.fatal) != 1 {
				t.Errorf("got %v, want one fatal error", m.fatal)
			}
			if m.f.Applied() != 1 {
				t.Errorf("applied moved to %d", m.f.Applied())
			}
		})
	}
}

// snapshotter is what Raft does around a snapshot.
func snapshotter(t *testing.T, m *machine) (*fsm.SnapshotStore, *raft.FileSnapshotStore) {
	t.Helper()
	inner, err := raft.NewFileSnapshotStore(t.TempDir(), 2, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	return fsm.NewSnapshotStore(inner, m.f), inner
}

func take(t *testing.T, m *machine, s raft.SnapshotStore) {
	t.Helper()
	snap, err := m.f.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	defer snap.Release()
	_, trans := raft.NewInmemTransport("a")
	sink, err := s.Create(1, m.f.Applied(), 1, raft.Configuration{}, 1, trans)
	if err != nil {
		t.Fatal(err)
	}
	if err := snap.Persist(sink); err != nil {
		t.Fatal(err)
	}
}

func TestSnapshotStoreStreamsTheStateOfAMarker(t *testing.T) {
	m := lived(t)
	store, inner := snapshotter(t, m)
	take(t, m, store)
	at := m.f.Applied()
	if d, _ := m.f.DurableIndex(); d < at {
		t.Errorf("durable index %d after a snapshot at %d", d, at)
	}
	list, err := store.List()
	if err != nil || len(list) != 1 || list[0].Size > 100 {
		t.Fatalf("list: got %+v, %v", list, err)
	}
	m.register(pair("7")) // the stream may be of a later index
	meta, rc, err := store.Open(list[0].ID)
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(rc)
	if err != nil || int64(len(data)) != meta.Size {
		t.Fatalf("got %d bytes, %v, meta says %d", len(data), err, meta.Size)
	}
	for range 2 {
		if err := rc.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if left, err := filepath.Glob(filepath.Join(m.dir, "checkpoints", "*")); err != nil || len(left) != 0 {
		t.Errorf("checkpoints left: %v %v", left, err)
	}

	follower := empty(t)
	fstore, _ := snapshotter(t, follower)
	_, trans := raft.NewInmemTransport("b")
	sink, err := fstore.Create(1, meta.Index, meta.Term, raft.Configuration{}, 1, trans)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := sink.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := sink.Close(); err != nil {
		t.Fatal(err)
	}
	fmeta, frc, err := fstore.Open(sink.ID())
	if err != nil || fmeta.Size != meta.Size {
		t.Fatalf("open installed: %+v, %v", fmeta, err)
	}
	if err := follower.f.Restore(frc); err != nil {
		t.Fatal(err)
	}
	if err := frc.Close(); err != nil {
		t.Fatal(err)
	}
	for _, l := range m.log[meta.Index:] { // replayed from the snapshot's index; skipped
		follower.f.Apply(l)
	}
	m.sameAs(follower)

	t.Run("the marker itself is restored only where the state is", func(t *testing.T) {
		_, mrc, err := inner.Open(list[0].ID)
		if err != nil {
			t.Fatal(err)
		}
		if err := m.f.Restore(mrc); err != nil {
			t.Errorf("beside its state: got %v", err)
		}
		_, mrc, err = inner.Open(list[0].ID)
		if err != nil {
			t.Fatal(err)
		}
		wantErr(t, empty(t).f.Restore(mrc), revoked.ErrInvalid)
	})
	t.Run("a reader that stops early leaves nothing behind", func(t *testing.T) {
		_, rc, err := store.Open(list[0].ID)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := rc.Read(make([]byte, 10)); err != nil {
			t.Fatal(err)
		}
		if err := rc.Close(); err != nil {
			t.Fatal(err)
		}
		if left, _ := filepath.Glob(filepath.Join(m.dir, "checkpoints", "*")); len(left) != 0 {
			t.Errorf("checkpoints left: %v", left)
		}
	})
}

func TestSeed(t *testing.T) {
	m := lived(t)
	backup := m.backup()
	t.Run("everything in the backup is over", func(t *testing.T) {
		s := &machine{t: t, dir: t.TempDir(), now: m.now.Add(time.Hour)}
		h, err := fsm.Seed(s.dir, bytes.NewReader(backup), fsm.SeedOptions{ClusterID: "c-new", Before: s.now})
		if err != nil || h.ClusterID != "c-new" || h.Index != m.f.Applied()+1 {
			t.Fatalf("seed: got %+v, %v", h, err)
		}
		s.open()
		defer s.f.Close()
		if d, _ := s.f.DurableIndex(); d != h.Index || s.f.ClusterID() != "c-new" {
			t.Errorf("got durable index %d, cluster %q", d, s.f.ClusterID())
		}
		s.want("a-3", revoked.Dead)
		s.want("a-2", revoked.Dead)
		if _, err := fsm.Seed(s.dir, bytes.NewReader(backup), fsm.SeedOptions{ClusterID: "c-x", Before: s.now}); err == nil {
			t.Error("a directory in use was seeded")
		}
	})
	t.Run("unless the loss is accepted", func(t *testing.T) {
		s := &machine{t: t, dir: t.TempDir(), now: m.now}
		opts := fsm.SeedOptions{ClusterID: "c-new", AcceptLoss: true}
		_, err := fsm.Seed(s.dir, bytes.NewReader(backup), opts)
		wantErr(t, err, revoked.ErrInvalid)
		opts.Reason = "a drill"
		if _, err := fsm.Seed(s.dir, bytes.NewReader(backup), opts); err != nil {
			t.Fatal(err)
		}
		s.open()
		defer s.f.Close()
		s.want("a-3", revoked.Active)
		s.want("a-1", revoked.Dead)
	})
	t.Run("a damaged backup leaves nothing", func(t *testing.T) {
		dir := t.TempDir()
		_, err := fsm.Seed(dir, bytes.NewReader(backup[:len(backup)-5]), fsm.SeedOptions{ClusterID: "c", Before: m.now})
		wantErr(t, err, revoked.ErrInvalid)
		if left, _ := os.ReadDir(dir); len(left) != 0 {
			t.Errorf("left: %v", left)
		}
	})
}
