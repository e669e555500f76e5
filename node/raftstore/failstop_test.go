package raftstore

import (
	"errors"
	"testing"
	"time"

	"github.com/hashicorp/raft"

	"revoked"
)

// writes lists every kind of write that Raft makes to the store.
var writes = []struct {
	name string
	do   func(*Store) error
}{
	{"store an entry", func(s *Store) error { return s.log.StoreLog(entries(1, 1, 1)[0]) }},
	{"store entries", func(s *Store) error { return s.log.StoreLogs(entries(1, 1, 3)) }},
	{"delete entries", func(s *Store) error { return s.log.DeleteRange(1, 2) }},
	{"set the term", func(s *Store) error { return s.stable.SetUint64([]byte(keyTerm), 3) }},
	{"set a value", func(s *Store) error { return s.stable.Set([]byte("k"), []byte("v")) }},
	{"vote", func(s *Store) error { return cast(s.stable, 3, "a") }},
}

func TestFailStop_FailedWrite_IsFatalOnce(t *testing.T) {
	for _, first := range writes {
		t.Run(first.name, func(t *testing.T) {
			disk := &failingStore{InmemStore: raft.NewInmemStore(), failAt: 1}
			var fatal []error
			s := newStack(func(err error) { fatal = append(fatal, err) })
			if err := s.stack(disk, boltErrors{disk}, noSnapshot); err != nil {
				t.Fatal(err)
			}
			if err := first.do(s); err == nil {
				t.Error("got nil, want the disk's error")
			}
			for _, later := range writes {
				if err := later.do(s); err == nil {
					t.Errorf("%s afterwards: got nil, want an error", later.name)
				}
			}
			if len(fatal) != 1 || !errors.Is(fatal[0], errDisk) {
				t.Errorf("got fatal %v, want %v once", fatal, errDisk)
			}
			if disk.writes != 1 {
				t.Errorf("got %d writes on the disk, want 1", disk.writes)
			}
			// The cache must not contain the entry either.
			if err := s.log.GetLog(1, new(raft.Log)); !errors.Is(err, raft.ErrLogNotFound) {
				t.Errorf("got %v for an entry that was not stored, want %v", err, raft.ErrLogNotFound)
			}
		})
	}
}

// Raft itself continues after a failed write: a leader steps down, a follower logs the error.
func TestFailStop_UnderRaft_IsFatalOnce(t *testing.T) {
	b := &bench{t: t, nodes: map[raft.ServerID]*benchNode{}}
	alone := raft.Configuration{Servers: []raft.Server{{ID: "a", Address: "a"}}}
	n := b.add("a", []*raft.Log{{Index: 1, Term: 1, Type: raft.LogConfiguration, Data: raft.EncodeConfiguration(alone)}})
	disk := &failingStore{InmemStore: n.disk}
	fatal := make(chan error, 100)
	s := newStack(func(err error) { fatal <- err })
	if err := s.stack(disk, boltErrors{disk}, noSnapshot); err != nil {
		t.Fatal(err)
	}
	b.startOn(n, s.log, s.stable, n.trans, 0)
	b.apply("stored", 1, n)
	wantVote(t, s.stable, 3, "a")
	disk.fail()
	if err := n.raft.Apply([]byte("lost"), longStop).Error(); err == nil {
		t.Error("got nil, want the disk's error")
	}
	select {
	case err := <-fatal:
		if !errors.Is(err, errDisk) {
			t.Errorf("got %v, want %v", err, errDisk)
		}
	case <-time.After(longStop):
		t.Fatal("got no call to Fatal, want one")
	}
	if err := s.log.StoreLogs(entries(3, 4, 4)); err == nil || len(fatal) != 0 {
		t.Errorf("got %v and %d more calls to Fatal, want an error and 0", err, len(fatal))
	}
}

func TestFailStopLog_ChangedEntry_IsFatal(t *testing.T) {
	disk := raft.NewInmemStore()
	var fatal []error
	f := &failStop{fatal: func(err error) { fatal = append(fatal, err) }}
	log := &failStopLog{store: disk, failStop: f, path: LogFile}
	stored := []*raft.Log{
		{Index: 1, Term: 1, Data: []byte("revoke"), Extensions: []byte("x")},
		{Index: 2, Term: 1, Data: []byte("revoke")},
	}
	if err := log.StoreLogs(stored); err != nil {
		t.Fatal(err)
	}
	var got raft.Log
	if err := log.GetLog(1, &got); err != nil || string(got.Data) != "revoke" || string(got.Extensions) != "x" {
		t.Fatalf("got %+v, %v, want entry 1 as it was stored", got, err)
	}
	if err := log.GetLog(3, &got); !errors.Is(err, raft.ErrLogNotFound) || len(fatal) != 0 {
		t.Fatalf("got %v, fatal %v, want %v, not fatal", err, fatal, raft.ErrLogNotFound)
	}
	var entry raft.Log
	if err := disk.GetLog(2, &entry); err != nil {
		t.Fatal(err)
	}
	entry.Data = []byte("revive")
	if err := disk.StoreLog(&entry); err != nil {
		t.Fatal(err)
	}
	if err := log.GetLog(2, &got); !errors.Is(err, revoked.ErrDamaged) || len(fatal) != 1 {
		t.Errorf("got %v, fatal %v, want %v, fatal once", err, fatal, revoked.ErrDamaged)
	}
	if err := log.StoreLog(&raft.Log{Index: 3}); err == nil {
		t.Error("got nil, want an error for an entry after the damage")
	}
}

func TestFailStopLog_Store_CountsBytes(t *testing.T) {
	disk := &failingStore{InmemStore: raft.NewInmemStore()}
	log := &failStopLog{store: disk, failStop: &failStop{fatal: func(error) {}}}
	if err := log.StoreLogs(entries(1, 1, 3)); err != nil {
		t.Fatal(err)
	}
	disk.fail()
	if err := log.StoreLogs(entries(1, 4, 4)); err == nil {
		t.Error("got nil, want the disk's error")
	}
	if b, n := log.bytes.Load(), log.entries.Load(); b != 3*(2+entryOverhead) || n != 3 {
		t.Errorf("got %d bytes in %d entries, want %d in 3", b, n, 3*(2+entryOverhead))
	}
}
