package fsm_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"

	"revoked"
	"revoked/fsm"
	"revoked/fsm/command"
	"revoked/internal/await"
)

func TestWait_ManyWaiters_WokenOrClosed(t *testing.T) {
	m := newMachine(t)
	const each = 50
	var wg sync.WaitGroup
	errs := make(chan error, 20*each)
	for i := range 20 {
		for range each {
			wg.Go(func() { errs <- m.f.Wait(context.Background(), uint64(2+i)) })
		}
	}
	moved := m.f.AppliedChan()
	for range 20 {
		m.apply(&command.Tick{})
	}
	wg.Wait()
	await.Receive(t, moved, "a moved index")
	close(errs)
	for err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
	cause := errors.New("canceled by the test")
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(cause)
	wantErr(t, m.f.Wait(ctx, 1000), cause)
	wg.Go(func() { wantErr(t, m.f.Wait(context.Background(), 1000), revoked.ErrClosed) })
	last := m.f.AppliedChan()
	if err := m.f.Close(); err != nil {
		t.Fatal(err)
	}
	await.Receive(t, last, "the end of the machine")
	wg.Wait()
	wantErr(t, m.f.Wait(context.Background(), 1000), revoked.ErrClosed)
	_, err := lookup(m.f, digest("a"))
	wantErr(t, err, revoked.ErrClosed)
}

// order fails the test if Changes receives a change before readers see it, or after its index is
// published.
type order struct {
	m         *machine
	announced map[string]bool
}

func (o *order) TokenChanged(revoked.Digest) {}
func (o *order) AllChanged()                 {}
func (o *order) GrantChanged(id string) {
	g, ok, err := o.m.f.LookupGrant(id)
	if err != nil || !ok {
		o.m.t.Errorf("grant %s when it is announced: got %t, %v, want it", id, ok, err)
	}
	if ok && o.m.f.Applied() >= g.CreatedIndex && !o.announced[id] {
		o.m.t.Errorf("grant %s: got its index published before it was announced", id)
	}
	o.announced[id] = true
}

func TestApplied_Commit_PublishedLast(t *testing.T) {
	m := &machine{t: t, dir: t.TempDir(), now: start}
	o := &order{m: m, announced: map[string]bool{}}
	f, err := fsm.Open(fsm.Config{Dir: m.dir, Changes: o, Fatal: m.onFatal})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	m.f = f
	m.apply(&command.Bootstrap{ClusterId: "c", Clients: clientRecords()})
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := range 50 {
			index := uint64(2 + 2*i + 1)
			if err := f.Wait(context.Background(), index); err != nil {
				t.Error(err)
				return
			}
			r, err := lookup(f, digest(fmt.Sprintf("a-%d", i)))
			v, decided := f.Decide(&r, start)
			if err != nil || decided != nil || v.Verdict != revoked.Dead {
				t.Errorf("token at index %d: got active, %v, want inactive", index, err)
			}
			_, _ = f.Counts()
			_ = f.Clients()
			if _, err := f.View(fmt.Sprintf("g-%d", i), start); err != nil {
				t.Error(err)
			}
			if _, _, err := f.Events(0, 10); err != nil {
				t.Error(err)
			}
			f.DryRun(command.RevokeOp(revoked.Actor{ClientID: "app", Version: 1}, digest("x"), ""))
			f.Backlog(start, atMost)
		}
	})
	for i := range 50 {
		m.register(pair(fmt.Sprint(i)))
		m.revoke("app", fmt.Sprintf("r-%d", i))
	}
	wg.Wait()
}

// A replaced calls its function at when a restore has replaced the state.
type replaced struct {
	order
	at func()
}

func (r *replaced) AllChanged() { r.at() }

// A restore may end tokens that this node reported as active. A revocation waits for the index of
// the new state, so the node must not publish the index before it serves the new state.
func TestApplied_Restore_PublishedLast(t *testing.T) {
	ahead := newMachine(t)
	ahead.register(pair("1"))
	m := &machine{t: t, dir: t.TempDir(), now: start}
	announced := 0
	changes := &replaced{order: order{m: m, announced: map[string]bool{}}}
	f, err := fsm.Open(fsm.Config{Dir: m.dir, Changes: changes, Fatal: m.onFatal})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	m.f = f
	m.apply(&command.Bootstrap{ClusterId: ahead.f.ClusterID(), Clients: clientRecords()})
	m.register(pair("1"))
	ahead.revoke("app", "r-1")
	was, index := f.Applied(), ahead.f.Applied()
	changes.at = func() {
		announced++
		if got := f.Applied(); got != was {
			t.Errorf("applied index when the restore is announced: got %d, want %d", got, was)
		}
		m.want("a-1", revoked.Dead)
	}
	if err := f.Restore(io.NopCloser(bytes.NewReader(ahead.backup()))); err != nil {
		t.Fatal(err)
	}
	if got := f.Applied(); announced != 1 || got != index {
		t.Errorf("got %d announcements and applied index %d, want 1 and %d", announced, got, index)
	}
}

func TestHashesAt_PastIndexes_Known(t *testing.T) {
	m := newMachine(t)
	for i := range 5000 {
		m.apply(&command.Tick{Stamp: int64(i)})
	}
	index, log, state := m.f.Hashes()
	if l, s, ok := m.f.HashesAt(index); !ok || l != log || s != state {
		t.Errorf("newest index: got %x, %x, %t, want %x, %x", l, s, ok, log, state)
	}
	if _, _, ok := m.f.HashesAt(index - 4000); !ok {
		t.Error("index 4000 back: got unknown, want known")
	}
	for _, i := range []uint64{index + 1, 1, 0} {
		if _, _, ok := m.f.HashesAt(i); ok {
			t.Errorf("index %d: got known, want unknown", i)
		}
	}
	l1, _, _ := m.f.HashesAt(index - 1)
	if l1 == log {
		t.Error("log hash after a tick: got the same, want a different one")
	}
	r := m.replayed(64)
	if l, s, ok := r.f.HashesAt(index - 100); !ok {
		t.Error("index after replay: got unknown, want known")
	} else if wl, ws, _ := m.f.HashesAt(index - 100); l != wl || s != ws {
		t.Error("hashes at a past index after a replay in batches: got different ones, want the same")
	}
}
