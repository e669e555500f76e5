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
	"revoked/fsm/command"
	"revoked/fsm/snapshot"
	"revoked/internal/await"
)

// lived returns a machine whose log has left a row of every family.
func lived(t testing.TB) *machine {
	t.Helper()
	m := newMachine(t)
	m.rules = 0 // the golden snapshot has a hash of this log
	for _, n := range []string{"1", "2", "3", "4"} {
		m.register(pair(n))
	}
	fill(m, "g-big", 0, 100)
	m.revoke("app", "a-1")
	m.revoke("app", "ghost")
	m.revoke("admin", "ghost")
	m.must(command.CutoffOp(m.by("admin"), revoked.Selector{Subject: "bob"}, 0, "left"))
	m.must(command.DeleteClientOp(m.by("admin"), "other"))
	r := pair("2")
	r.Tokens = []revoked.TokenRegistration{refresh("r-2b", start.Add(time.Second), time.Hour),
		access("short", start, time.Minute)}
	m.register(r)
	m.revoke("app", "big-99") // leaves a row for Compact
	m.now = m.now.Add(10 * time.Minute)
	m.apply(&command.Expire{Before: int64(m.now.Add(-5 * time.Second)), Limit: 1000})
	return m
}

func (m *machine) backup() []byte {
	m.t.Helper()
	var b bytes.Buffer
	h, err := m.f.WriteSnapshot(context.Background(), &b)
	if err != nil {
		m.t.Fatalf("write snapshot: %v", err)
	}
	got, err := snapshot.Read(bytes.NewReader(b.Bytes()), nil)
	if err != nil {
		m.t.Fatalf("read snapshot: %v", err)
	}
	index, log, state := m.f.Hashes()
	if got != h || got.Index != index || got.LogHash != log || got.State.Bytes() != state ||
		got.ClusterID != m.f.ClusterID() || got.Bytes != int64(b.Len()) {
		m.t.Errorf("read snapshot: got %+v, want %+v", got, h)
	}
	return b.Bytes()
}

func TestRestore_Backup_SameState(t *testing.T) {
	m := lived(t)
	r := empty(t)
	r.registerForgotten(t)
	if err := r.f.Restore(io.NopCloser(bytes.NewReader(m.backup()))); err != nil {
		t.Fatalf("restore: %v", err)
	}
	m.sameAs(r)
	if r.changes.all != 1 || r.f.Applied() != m.f.Applied() {
		t.Errorf("got %d calls to AllChanged and applied index %d, want 1 and %d", r.changes.all, r.f.Applied(),
			m.f.Applied())
	}
	if !bytes.Equal(m.backup(), r.backup()) {
		t.Error("backup of the restored state: got different bytes, want the same")
	}
	// Both machines must remain equal, even after background commands.
	r.log, r.now, r.rules = append([]*raft.Log(nil), m.log...), m.now, m.rules
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
		t.Errorf("durable index: got %d, %v, want at least 10", d, err)
	}
	entries, err := os.ReadDir(r.dir)
	if err != nil || len(entries) != 3 { // CURRENT, the generation, checkpoints
		t.Errorf("directory: got %v, %v, want 3 entries", entries, err)
	}
}

// registerForgotten adds rows that a restore must remove.
func (m *machine) registerForgotten(t *testing.T) {
	t.Helper()
	m.apply(&command.Bootstrap{ClusterId: "c-1", Clients: clientRecords()})
	m.register(pair("forgotten"))
}

func TestRestore_BadSnapshot_Refused(t *testing.T) {
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
		{"empty", nil},
		{"first half", good[:len(good)/2]},
		{"all but the last byte", good[:len(good)-1]},
		{"byte after the end", append(bytes.Clone(good), 0)},
		{"other magic", flip(0)},
		{"other version", flip(11)},
		{"flipped bit in the head", flip(20)},
		{"flipped bit in a row", flip(len(good) / 2)},
		{"flipped bit in the checksum", flip(len(good) - 3)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, _, before := m.f.Hashes()
			if err := m.f.Restore(io.NopCloser(bytes.NewReader(tt.data))); err == nil {
				t.Fatal("got success, want an error")
			}
			if _, err := snapshot.Read(bytes.NewReader(tt.data), nil); err == nil {
				t.Error("read: got success, want an error")
			}
			if _, _, after := m.f.Hashes(); after != before {
				t.Error("state hash after a refusal: got a different one, want the same")
			}
			m.want("a-3", revoked.Active)
		})
	}
	t.Run("other cluster", func(t *testing.T) {
		x := empty(t)
		x.apply(&command.Bootstrap{ClusterId: "c-2", Clients: clientRecords()})
		wantErr(t, x.f.Restore(io.NopCloser(bytes.NewReader(good))), revoked.ErrInvalid)
	})
	t.Run("older than the state", func(t *testing.T) {
		m.register(pair("9"))
		wantErr(t, m.f.Restore(io.NopCloser(bytes.NewReader(good))), revoked.ErrInvalid)
	})
}

func TestRestore_ConcurrentReads_Succeed(t *testing.T) {
	m := lived(t)
	backup := m.backup()
	stop, done := make(chan struct{}), make(chan error, 1)
	go func() {
		for {
			select {
			case <-stop:
				done <- nil
				return
			default:
			}
			if r, err := lookup(m.f, digest("a-3")); err != nil || !r.Found {
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
	if err := await.Receive(t, done, "the end of the reads"); err != nil {
		t.Fatal(err)
	}
}

// A node authenticates clients before it has replayed its log.
func TestApply_ClientChange_SurvivesCrash(t *testing.T) {
	m := newMachine(t)
	app, _ := m.f.Client("app")
	changed := *app
	changed.Disabled = true
	m.must(command.PutClientOp(m.by("admin"), &changed, changed.Version))
	crashed := m.crash()
	if got, ok := crashed.f.Client("app"); !ok || !got.Disabled {
		t.Errorf("client after a crash: got %+v, want it disabled", got)
	}
	m.must(command.DeleteClientOp(m.by("admin"), "app"))
	crashed = m.crash()
	if _, ok := crashed.f.Client("app"); ok {
		t.Error("deleted client after a crash: got a record, want none")
	}
	if crashed.f.ClusterID() == "" {
		t.Error("cluster id after a crash: got none, want one")
	}
}

func TestReplay_AfterCrash_SameState(t *testing.T) {
	m := lived(t)
	cold := m.crash() // without a flush
	if d, err := cold.f.DurableIndex(); err != nil || d >= m.f.Applied() {
		t.Fatalf("durable index without a flush: got %d, %v, want below %d", d, err, m.f.Applied())
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
		t.Fatalf("durable index: got %d, %v, want %d", d, err, at)
	}
	for _, l := range warm.log { // the state skips the entries that it already includes
		if _, ok := warm.f.Apply(l).(*fsm.Outcome); !ok {
			t.Fatal(warm.fatal)
		}
	}
	m.sameAs(warm)
	if err := m.f.Close(); err != nil {
		t.Fatal(err)
	}
	if err := m.f.Close(); err != nil {
		t.Errorf("second close: got %v, want success", err)
	}
	m.open()
	if d, _ := m.f.DurableIndex(); d != uint64(len(m.log)) {
		t.Errorf("durable index after Close: got %d, want %d", d, len(m.log))
	}
	m.sameAs(warm)
}

func TestApply_LaterTermBelowIndex_Fatal(t *testing.T) {
	m := lived(t)
	l := *m.log[3]
	l.Term = 9
	m.f.Apply(&l)
	if len(m.fatal) != 1 {
		t.Errorf("got %v, want one fatal error", m.fatal)
	}
}

func TestApply_UnknownCommand_Fatal(t *testing.T) {
	for _, tt := range []struct {
		name string
		data []byte
	}{
		{"unknown format", []byte{2, 3}},
		{"unknown type", []byte{1, 99}},
		{"unknown field", []byte{1, 3, 0xf8, 0x07, 1}},
		{"empty", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			m := newMachine(t)
			l := &raft.Log{Index: uint64(len(m.log) + 1), Term: 1, Data: tt.data}
			for range 2 {
				if _, isErr := m.f.Apply(l).(error); !isErr {
					t.Error("got success, want an error")
				}
			}
			if len(m.fatal) != 1 {
				t.Errorf("got %v, want one fatal error", m.fatal)
			}
			if m.f.Applied() != 1 {
				t.Errorf("applied index: got %d, want 1", m.f.Applied())
			}
		})
	}
}

// snapshotter returns a snapshot store as Raft uses it, and its inner store.
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

func TestSnapshotStore_Marker_StreamsState(t *testing.T) {
	m := lived(t)
	store, inner := snapshotter(t, m)
	take(t, m, store)
	at := m.f.Applied()
	if d, _ := m.f.DurableIndex(); d < at {
		t.Errorf("durable index after a snapshot: got %d, want %d", d, at)
	}
	list, err := store.List()
	if err != nil || len(list) != 1 || list[0].Size > 100 {
		t.Fatalf("list: got %+v, %v, want one marker", list, err)
	}
	m.register(pair("7")) // so the stream is at a later index
	meta, rc, err := store.Open(list[0].ID)
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(rc)
	if err != nil || int64(len(data)) != meta.Size {
		t.Fatalf("got %d bytes, %v, want %d", len(data), err, meta.Size)
	}
	for range 2 {
		if err := rc.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if left, err := filepath.Glob(filepath.Join(m.dir, "checkpoints", "*")); err != nil || len(left) != 0 {
		t.Errorf("checkpoints: got %v, %v, want none", left, err)
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
		t.Fatalf("open installed: got %+v, %v, want size %d", fmeta, err, meta.Size)
	}
	if err := follower.f.Restore(frc); err != nil {
		t.Fatal(err)
	}
	if err := frc.Close(); err != nil {
		t.Fatal(err)
	}
	for _, l := range m.log[meta.Index:] { // Raft replays them; the state skips them
		follower.f.Apply(l)
	}
	m.sameAs(follower)

	t.Run("restore of a marker", func(t *testing.T) {
		_, mrc, err := inner.Open(list[0].ID)
		if err != nil {
			t.Fatal(err)
		}
		if err := m.f.Restore(mrc); err != nil {
			t.Errorf("marker of this state: got %v, want success", err)
		}
		_, mrc, err = inner.Open(list[0].ID)
		if err != nil {
			t.Fatal(err)
		}
		wantErr(t, empty(t).f.Restore(mrc), revoked.ErrInvalid)
	})
	t.Run("reader that stops early", func(t *testing.T) {
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
			t.Errorf("checkpoints: got %v, want none", left)
		}
	})
}

func TestSeed_Backup_NewCluster(t *testing.T) {
	m := lived(t)
	backup := m.backup()
	t.Run("ends everything", func(t *testing.T) {
		s := &machine{t: t, dir: t.TempDir(), now: m.now.Add(time.Hour)}
		h, err := fsm.Seed(s.dir, bytes.NewReader(backup), fsm.SeedOptions{ClusterID: "c-new", Before: s.now})
		if err != nil || h.ClusterID != "c-new" || h.Index != m.f.Applied()+1 {
			t.Fatalf("seed: got %+v, %v, want cluster c-new at index %d", h, err, m.f.Applied()+1)
		}
		s.open()
		defer s.f.Close()
		if d, _ := s.f.DurableIndex(); d != h.Index || s.f.ClusterID() != "c-new" {
			t.Errorf("got durable index %d and cluster %q, want %d and c-new", d, s.f.ClusterID(), h.Index)
		}
		s.want("a-3", revoked.Dead)
		s.want("a-2", revoked.Dead)
		if _, err := fsm.Seed(s.dir, bytes.NewReader(backup),
			fsm.SeedOptions{ClusterID: "c-x", Before: s.now}); err == nil {
			t.Error("directory in use: got success, want an error")
		}
	})
	t.Run("refuses a clock behind the backup", func(t *testing.T) {
		skew := m.f.Settings().MaxClockSkew
		s := &machine{t: t, dir: t.TempDir(), now: m.now, rules: command.Rules}
		opts := fsm.SeedOptions{ClusterID: "c-new", Before: m.now.Add(-skew) - 1}
		_, err := fsm.Seed(s.dir, bytes.NewReader(backup), opts)
		wantErr(t, err, revoked.ErrUnprocessable)
		opts.Before = m.now.Add(-skew)
		h, err := fsm.Seed(s.dir, bytes.NewReader(backup), opts)
		if err != nil || h.Stamp != m.now {
			t.Fatalf("within max_clock_skew: got stamp %d, %v, want the backup's %d", h.Stamp, err, m.now)
		}
		s.open()
		defer s.f.Close()
		s.log = make([]*raft.Log, h.Index)
		r := pair("lost")
		r.Tokens = []revoked.TokenRegistration{access("lost", m.now, time.Hour)}
		if got := s.register(r); !got.Revoked {
			t.Errorf("token issued at the stamp of the backup: got %+v, want revoked", got)
		}
		r.Tokens[0] = access("undated", m.now.Add(time.Minute), time.Hour)
		r.Tokens[0].IssuedAt = 0
		wantErr(t, s.do(command.RegisterOp(s.by("issuer"), r))[0].Err, revoked.ErrUnprocessable)
		s.later(time.Second)
		r.Tokens[0] = access("new", s.now, time.Hour)
		if got := s.register(r); got.Revoked {
			t.Errorf("token issued after the restore: got %+v, want active", got)
		}
	})
	t.Run("accepts the loss", func(t *testing.T) {
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
	t.Run("damaged backup", func(t *testing.T) {
		dir := t.TempDir()
		_, err := fsm.Seed(dir, bytes.NewReader(backup[:len(backup)-5]), fsm.SeedOptions{ClusterID: "c", Before: m.now})
		wantErr(t, err, revoked.ErrInvalid)
		if left, _ := os.ReadDir(dir); len(left) != 0 {
			t.Errorf("directory: got %v, want it empty", left)
		}
	})
}
