package fsm_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"revoked"
	"revoked/fsm"
	"revoked/fsm/command"
	"revoked/fsm/snapshot"
	"revoked/internal/await"
)

// A member is a state machine under Raft.
type member struct {
	*machine
	id    raft.ServerID
	raft  *raft.Raft
	logs  *raft.InmemStore
	snaps *fsm.SnapshotStore
	files *raft.FileSnapshotStore
	trans *raft.InmemTransport
}

func newMember(t *testing.T, id string) *member {
	t.Helper()
	m := &member{machine: empty(t), id: raft.ServerID(id), logs: raft.NewInmemStore()}
	var err error
	if m.files, err = raft.NewFileSnapshotStoreWithLogger(t.TempDir(), 1, hclog.NewNullLogger()); err != nil {
		t.Fatal(err)
	}
	return m
}

// run starts Raft as a node does: it restores at start only a snapshot newer than the state on
// disk.
func (m *member) run() {
	m.t.Helper()
	m.snaps = fsm.NewSnapshotStore(m.files, m.f)
	_, m.trans = raft.NewInmemTransport(raft.ServerAddress(m.id))
	c := raft.DefaultConfig()
	c.LocalID, c.Logger = m.id, hclog.NewNullLogger()
	c.HeartbeatTimeout, c.ElectionTimeout, c.LeaderLeaseTimeout = 200*time.Millisecond, 200*time.Millisecond,
		200*time.Millisecond
	c.TrailingLogs, c.SnapshotThreshold, c.SnapshotInterval = 2, 1<<30, time.Hour
	list, err := m.snaps.List()
	if err != nil {
		m.t.Fatal(err)
	}
	durable, err := m.f.DurableIndex()
	if err != nil {
		m.t.Fatal(err)
	}
	c.NoSnapshotRestoreOnStart = len(list) > 0 && durable >= list[0].Index
	if m.raft, err = raft.NewRaft(c, m.f, m.logs, m.logs, m.snaps, m.trans); err != nil {
		m.t.Fatal(err)
	}
}

func (m *member) stop() {
	m.t.Helper()
	if err := m.raft.Shutdown().Error(); err != nil {
		m.t.Fatal(err)
	}
	if err := errors.Join(m.trans.Close(), m.f.Close()); err != nil {
		m.t.Fatal(err)
	}
}

// propose commits operations through Raft.
func (m *member) propose(ops ...*command.Op) {
	m.t.Helper()
	l := m.entry(&command.Batch{Ops: ops})
	fut := m.raft.Apply(l.Data, time.Minute)
	if err := fut.Error(); err != nil {
		m.t.Fatal(err)
	}
	for _, r := range fut.Response().(*fsm.Outcome).Results {
		if r.Err != nil {
			m.t.Fatal(r.Err)
		}
	}
}

func TestFSM_UnderRaft_MembersAgree(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	a := newMember(t, "a")
	a.run()
	defer func() { a.stop() }()
	boot := raft.Configuration{Servers: []raft.Server{{ID: "a", Address: "a"}}}
	if err := a.raft.BootstrapCluster(boot).Error(); err != nil {
		t.Fatal(err)
	}
	await.Receive(t, a.raft.LeaderCh(), "a leader")
	l := a.entry(&command.Bootstrap{ClusterId: "c-1", Clients: clientRecords()})
	if err := a.raft.Apply(l.Data, time.Minute).Error(); err != nil {
		t.Fatal(err)
	}
	for i := range 20 {
		a.propose(command.RegisterOp(a.by("issuer"), pair(fmt.Sprint(i))))
	}
	a.propose(command.RevokeOp(a.by("app"), digest("a-3"), ""))
	if err := a.raft.Snapshot().Error(); err != nil {
		t.Fatal(err)
	}
	if first, _ := a.logs.FirstIndex(); first < 10 {
		t.Fatalf("first index of the log: got %d, want at least 10", first)
	}
	a.propose(command.RevokeOp(a.by("app"), digest("a-4"), ""))

	// A member with an empty disk receives the state, although the leader has only a marker.
	b := newMember(t, "b")
	b.run()
	a.trans.Connect("b", b.trans)
	b.trans.Connect("a", a.trans)
	if err := a.raft.AddNonvoter("b", "b", 0, time.Minute).Error(); err != nil {
		t.Fatal(err)
	}
	if err := b.f.Wait(ctx, a.f.Applied()); err != nil {
		t.Fatal(err)
	}
	a.propose(command.RevokeOp(a.by("app"), digest("a-5"), ""))
	if err := b.f.Wait(ctx, a.f.Applied()); err != nil {
		t.Fatal(err)
	}
	a.sameAs(b.machine)
	b.want("a-3", revoked.Dead)
	b.want("a-5", revoked.Dead)
	b.want("a-6", revoked.Active)

	// The snapshot that b takes is a marker. After a restart b continues from its disk and the log.
	if err := b.raft.Snapshot().Error(); err != nil {
		t.Fatal(err)
	}
	a.propose(command.RevokeOp(a.by("app"), digest("a-6"), ""))
	if err := b.f.Wait(ctx, a.f.Applied()); err != nil {
		t.Fatal(err)
	}
	b.stop()
	b.open()
	defer func() { b.stop() }()
	b.run()
	a.trans.Connect("b", b.trans)
	b.trans.Connect("a", a.trans)
	a.propose(command.RevokeOp(a.by("app"), digest("a-7"), ""))
	if err := b.f.Wait(ctx, a.f.Applied()); err != nil {
		t.Fatal(err)
	}
	a.sameAs(b.machine)
	b.want("a-7", revoked.Dead)
	if len(a.fatal)+len(b.fatal) > 0 {
		t.Errorf("fatal: got %v and %v, want none", a.fatal, b.fatal)
	}
	_, rc, err := b.snaps.Open(mustList(t, b)[0].ID)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := snapshot.Read(rc, nil); err != nil {
		t.Error(err)
	}
	if _, err := io.Copy(io.Discard, rc); err != nil {
		t.Error(err)
	}
	if err := rc.Close(); err != nil {
		t.Error(err)
	}
}

func mustList(t *testing.T, m *member) []*raft.SnapshotMeta {
	t.Helper()
	l, err := m.snaps.List()
	if err != nil || len(l) == 0 {
		t.Fatalf("list: got %v, %v, want a snapshot", l, err)
	}
	return l
}
