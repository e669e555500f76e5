package node

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/raft"

	"revoked"
	"revoked/transport"
)

// A log file that is not as it was written is never opened, and never crashes the program.
func TestADamagedLogFileIsRefused(t *testing.T) {
	good := t.TempDir()
	s := openTestStores(t, good)
	if err := s.log.StoreLogs(entries(1, 1, 600)); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(good, raftFile))
	if err != nil {
		t.Fatal(err)
	}
	used := len(data) / 2 // bbolt grows its file ahead
	for name, wreck := range map[string]func([]byte) []byte{
		"cut in half":     func(b []byte) []byte { return b[:used/4] },
		"another file":    func(b []byte) []byte { copy(b, strings.Repeat("#!/bin/sh\n", 2000)); return b },
		"flipped bytes":   func(b []byte) []byte { return flipped(b, 256) },
		"flipped pages":   func(b []byte) []byte { return flipped(b[:], 8192) },
		"zeroed in parts": func(b []byte) []byte { clear(b[8192:used]); return b },
	} {
		dir := t.TempDir()
		bad := wreck(append([]byte(nil), data...))
		if err := os.WriteFile(filepath.Join(dir, raftFile), bad, 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := openStores(dir, func(error) {}, quiet())
		if err == nil {
			s.Close()
		}
		if !errors.Is(err, revoked.ErrDamaged) || !strings.Contains(err.Error(), "move the data directory away") {
			t.Errorf("%s: got %v, want %v and what to do", name, err, revoked.ErrDamaged)
		}
	}
}

func flipped(b []byte, every int) []byte {
	for i := 97; i < len(b); i += every {
		b[i] ^= 0xff
	}
	return b
}

// An entry whose bytes have changed is fatal, and is not handed out.
func TestAChangedEntryIsFatal(t *testing.T) {
	inner := raft.NewInmemStore()
	var fatal []error
	log := &guardedLog{store: inner, guard: &guard{fatal: func(err error) { fatal = append(fatal, err) }}, path: "raft.db"}
	if err := log.StoreLogs([]*raft.Log{{Index: 1, Term: 1, Data: []byte("revoke"), Extensions: []byte("x")}, {Index: 2, Term: 1, Data: []byte("revoke")}}); err != nil {
		t.Fatal(err)
	}
	var got raft.Log
	if err := log.GetLog(1, &got); err != nil || string(got.Data) != "revoke" || string(got.Extensions) != "x" {
		t.Fatalf("got %+v, %v, want what was stored", got, err)
	}
	if err := log.GetLog(3, &got); !errors.Is(err, raft.ErrLogNotFound) || len(fatal) != 0 {
		t.Fatalf("got %v, fatal %v, want only %v", err, fatal, raft.ErrLogNotFound)
	}
	var stored raft.Log
	if err := inner.GetLog(2, &stored); err != nil {
		t.Fatal(err)
	}
	stored.Data = []byte("revive")
	if err := inner.StoreLog(&stored); err != nil {
		t.Fatal(err)
	}
	if err := log.GetLog(2, &got); !errors.Is(err, revoked.ErrDamaged) || len(fatal) != 1 {
		t.Errorf("got %v, fatal %v, want %v, fatal once", err, fatal, revoked.ErrDamaged)
	}
	if err := log.StoreLog(&raft.Log{Index: 3}); err == nil {
		t.Error("a damaged log still takes entries")
	}
}

// Raft panics at an entry that it does not get while it starts: that is an error, with the file and what to do.
func TestAStartWithoutAnEntryIsAnError(t *testing.T) {
	for name, tt := range map[string]struct {
		damage func(*raft.InmemStore) error
		names  string
	}{
		"a changed entry": {func(s *raft.InmemStore) error {
			var e raft.Log
			err := s.GetLog(2, &e)
			e.Data = []byte("x")
			return errors.Join(err, s.StoreLog(&e))
		}, "raft.db"},
		"a log that was cut for a snapshot that is gone": {func(s *raft.InmemStore) error { return s.DeleteRange(1, 2) }, "snapshots"},
	} {
		b := &bench{t: t, nodes: map[raft.ServerID]*benchNode{}}
		n := b.add("a", entries(1, 1, 4))
		if err := tt.damage(n.disk); err != nil {
			t.Fatal(err)
		}
		log := &guardedLog{store: n.disk, guard: &guard{fatal: func(error) {}}, path: "/data/raft.db"}
		conf := raft.DefaultConfig()
		conf.LocalID, conf.Logger = n.id, transport.RaftLog(quiet(), "raft")
		r, err := startRaft("/data", func() (*raft.Raft, error) { return raft.NewRaft(conf, n.fsm, log, n.disk, n.snapshots, n.trans) })
		if r != nil {
			t.Errorf("%s: Raft runs", name)
			r.Shutdown()
		}
		if !errors.Is(err, revoked.ErrDamaged) || !strings.Contains(err.Error(), "/data/"+tt.names+" (") || !strings.Contains(err.Error(), "move the data directory away") {
			t.Errorf("%s: got %v, want %v, %s and what to do", name, err, revoked.ErrDamaged, tt.names)
		}
	}
}

// What a node ends of is what was fatal, not what came of it.
func TestAFailedStartTellsWhatWasFatal(t *testing.T) {
	n := &Node{log: quiet(), done: make(chan struct{}), cfg: Config{DataDir: "/data"}}
	if err := n.cause(revoked.ErrClosed); !errors.Is(err, revoked.ErrClosed) {
		t.Errorf("got %v, want %v", err, revoked.ErrClosed)
	}
	n.stateFailed(fmt.Errorf("%w: store: a block", revoked.ErrDamaged))
	if err := n.cause(revoked.ErrClosed); err == nil || !strings.Contains(err.Error(), "/data/state (") {
		t.Errorf("got %v, want the state and what to do", err)
	}
}
