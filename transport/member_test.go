package transport_test

import (
	"io"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"revoked/internal/await"
	"revoked/internal/hashilog"
)

// recorder is a state machine that keeps the applied data by index.
type recorder struct {
	mu      sync.Mutex
	applied map[uint64]string
	more    chan struct{}
}

func newRecorder() *recorder {
	return &recorder{applied: map[uint64]string{}, more: make(chan struct{})}
}

func (r *recorder) Apply(l *raft.Log) any {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.applied[l.Index] = string(l.Data)
	close(r.more)
	r.more = make(chan struct{})
	return nil
}

func (r *recorder) Snapshot() (raft.FSMSnapshot, error) { return nothing{}, nil }
func (r *recorder) Restore(rc io.ReadCloser) error      { return rc.Close() }

func (r *recorder) all() map[uint64]string {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make(map[uint64]string, len(r.applied))
	for k, v := range r.applied {
		out[k] = v
	}
	return out
}

// await returns the index of applied data.
func (r *recorder) await(t testing.TB, data string) uint64 {
	t.Helper()
	stop := time.After(longStop)
	for {
		r.mu.Lock()
		more := r.more
		for i, v := range r.applied {
			if v == data {
				r.mu.Unlock()
				return i
			}
		}
		r.mu.Unlock()
		select {
		case <-more:
		case <-stop:
			t.Fatalf("got %q not applied, want it applied", data)
		}
	}
}

type nothing struct{}

func (nothing) Persist(s raft.SnapshotSink) error { return s.Close() }
func (nothing) Release()                          {}

type memberConfig struct {
	id      string
	trans   raft.Transport
	servers []raft.Server
	timeout time.Duration
	preVote bool
	log     *await.Log
}

// member is one Raft node of a test.
type member struct {
	id    string
	raft  *raft.Raft
	trans raft.Transport
	fsm   *recorder
	obs   chan raft.Observation
}

func newMember(t testing.TB, c memberConfig) *member {
	t.Helper()
	if c.log == nil {
		c.log = &await.Log{}
	}
	cfg := raft.DefaultConfig()
	cfg.LocalID = raft.ServerID(c.id)
	cfg.HeartbeatTimeout, cfg.ElectionTimeout, cfg.LeaderLeaseTimeout = c.timeout, c.timeout, c.timeout
	cfg.CommitTimeout = 10 * time.Millisecond
	cfg.PreVoteDisabled = !c.preVote
	cfg.Logger = hashilog.New(c.log.Logger().With("member", c.id), "")
	m := &member{id: c.id, trans: c.trans, fsm: newRecorder(), obs: make(chan raft.Observation, 256)}
	store, snaps := raft.NewInmemStore(), raft.NewInmemSnapshotStore()
	if err := raft.BootstrapCluster(cfg, store, store, snaps, c.trans,
		raft.Configuration{Servers: c.servers}); err != nil {
		t.Fatal(err)
	}
	var err error
	if m.raft, err = raft.NewRaft(cfg, m.fsm, store, store, snaps, c.trans); err != nil {
		t.Fatal(err)
	}
	m.raft.RegisterObserver(raft.NewObserver(m.obs, false, func(o *raft.Observation) bool {
		_, ok := o.Data.(raft.RaftState)
		return ok
	}))
	t.Cleanup(func() { _ = m.raft.Shutdown().Error() })
	return m
}

// await blocks until the member is in the state want.
func (m *member) await(t testing.TB, want raft.RaftState) {
	t.Helper()
	stop := time.After(longStop)
	for m.raft.State() != want {
		select {
		case <-m.obs:
		case <-stop:
			t.Fatalf("%s: got %v, want %v", m.id, m.raft.State(), want)
		}
	}
}

// awaitLeader returns a member that leads and has committed a barrier.
func awaitLeader(t testing.TB, members []*member) *member {
	t.Helper()
	elected := make(chan raft.Observation, 256)
	for _, m := range members {
		o := raft.NewObserver(elected, false, func(o *raft.Observation) bool {
			s, ok := o.Data.(raft.RaftState)
			return ok && s == raft.Leader
		})
		m.raft.RegisterObserver(o)
		defer m.raft.DeregisterObserver(o)
	}
	stop := time.After(longStop)
	for {
		for _, m := range members {
			if m.raft.State() == raft.Leader && m.raft.Barrier(longStop).Error() == nil {
				return m
			}
		}
		select {
		case <-elected:
		case <-stop:
			t.Fatal("got no leader, want one")
		}
	}
}
