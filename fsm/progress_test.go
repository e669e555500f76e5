package fsm_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"revoked"
	"revoked/fsm"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestWaiters(t *testing.T) {
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
		m.apply(fsm.TypeTick, &fsm.Tick{})
	}
	wg.Wait()
	<-moved
	close(errs)
	for err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
	cause := errors.New("enough")
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(cause)
	wantErr(t, m.f.Wait(ctx, 1000), cause)
	wg.Go(func() { wantErr(t, m.f.Wait(context.Background(), 1000), revoked.ErrClosed) })
	last := m.f.AppliedChan()
	if err := m.f.Close(); err != nil {
		t.Fatal(err)
	}
	<-last
	wg.Wait()
	wantErr(t, m.f.Wait(context.Background(), 1000), revoked.ErrClosed)
	_, err := m.f.Lookup(digest("a"))
	wantErr(t, err, revoked.ErrClosed)
}

// order fails when a reader that has seen the applied index, or was told of a change, does not see the
// change itself.
type order struct {
	m    *machine
	told map[string]bool
}

func (o *order) TokenChanged(revoked.Digest) {}
func (o *order) AllChanged()                 {}
func (o *order) GrantChanged(id string) {
	g, ok, err := o.m.f.LookupGrant(id)
	if err != nil || !ok {
		o.m.t.Errorf("told of grant %s before it was there: %v", id, err)
	}
	if ok && o.m.f.Applied() >= g.CreatedIndex && !o.told[id] {
		o.m.t.Errorf("the applied index was published before grant %s was told of", id)
	}
	o.told[id] = true
}

func TestTheAppliedIndexIsPublishedLast(t *testing.T) {
	m := &machine{t: t, dir: t.TempDir(), now: start}
	o := &order{m: m, told: map[string]bool{}}
	f, err := fsm.Open(fsm.Config{Dir: m.dir, Changes: o, Fatal: m.onFatal})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	m.f = f
	m.apply(fsm.TypeBootstrap, &fsm.Bootstrap{ClusterId: "c", Clients: clientRecords()})
	var wg sync.WaitGroup
	wg.Go(func() {
		for i := range 50 {
			index := uint64(2 + 2*i + 1)
			if err := f.Wait(context.Background(), index); err != nil {
				t.Error(err)
				return
			}
			r, err := f.Lookup(digest(fmt.Sprintf("a-%d", i)))
			if err != nil || revoked.Decide(&r, f.Circumstances("app", start)) != revoked.Dead {
				t.Errorf("index %d is applied, and the token it ended is not dead: %v", index, err)
			}
			_, _ = f.Counts()
			_ = f.Clients()
			if _, err := f.View(fmt.Sprintf("g-%d", i), start); err != nil {
				t.Error(err)
			}
			if _, _, err := f.Events(0, 10); err != nil {
				t.Error(err)
			}
			f.Settled(fsm.RevokeOp(revoked.Actor{ClientID: "app", Version: 1}, digest("x"), ""))
			f.Backlog(start)
		}
	})
	for i := range 50 {
		m.register(pair(fmt.Sprint(i)))
		m.revoke("app", fmt.Sprintf("r-%d", i))
	}
	wg.Wait()
}

// replaced looks at the state at the moment in which it is told that all of it was replaced.
type replaced struct {
	order
	at func()
}

func (r *replaced) AllChanged() { r.at() }

// A snapshot that is installed may end tokens that this node called active until then. Its index says
// that it does so no more: whoever waits for that must not be told before the new state answers.
func TestTheIndexOfARestoredStateIsPublishedLast(t *testing.T) {
	ahead := newMachine(t)
	ahead.register(pair("1"))
	m := &machine{t: t, dir: t.TempDir(), now: start}
	told := 0
	changes := &replaced{order: order{m: m, told: map[string]bool{}}}
	f, err := fsm.Open(fsm.Config{Dir: m.dir, Changes: changes, Fatal: m.onFatal})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	m.f = f
	m.apply(fsm.TypeBootstrap, &fsm.Bootstrap{ClusterId: ahead.f.ClusterID(), Clients: clientRecords()})
	m.register(pair("1"))
	ahead.revoke("app", "r-1")
	was, index := f.Applied(), ahead.f.Applied()
	changes.at = func() {
		told++
		if got := f.Applied(); got != was {
			t.Errorf("index %d is published before readers are told of the state that it stands for, want %d", got, was)
		}
		m.want("a-1", revoked.Dead)
	}
	if err := f.Restore(io.NopCloser(bytes.NewReader(ahead.backup()))); err != nil {
		t.Fatal(err)
	}
	if got := f.Applied(); told != 1 || got != index {
		t.Errorf("told %d times, applied index %d, want once, %d", told, got, index)
	}
}

func TestHashesAtPastIndexes(t *testing.T) {
	m := newMachine(t)
	for i := range 5000 {
		m.apply(fsm.TypeTick, &fsm.Tick{Stamp: int64(i)})
	}
	index, log, state := m.f.Hashes()
	if l, s, ok := m.f.LogHashAt(index); !ok || l != log || s != state {
		t.Errorf("at the newest index: got %x %x %v", l, s, ok)
	}
	if _, _, ok := m.f.LogHashAt(index - 4000); !ok {
		t.Error("4000 back is not known")
	}
	for _, i := range []uint64{index + 1, 1, 0} {
		if _, _, ok := m.f.LogHashAt(i); ok {
			t.Errorf("index %d is known", i)
		}
	}
	l1, _, _ := m.f.LogHashAt(index - 1)
	if l1 == log {
		t.Error("a tick did not move the log hash")
	}
	r := m.replayed(64)
	if l, s, ok := r.f.LogHashAt(index - 100); !ok {
		t.Error("not known after replay")
	} else if wl, ws, _ := m.f.LogHashAt(index - 100); l != wl || s != ws {
		t.Error("hashes at a past index depend on the batches of Apply")
	}
}
