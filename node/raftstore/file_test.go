package raftstore

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"
	bolterrors "go.etcd.io/bbolt/errors"

	"revoked"
)

func TestOpen_DirectoryInUse_NamesTheCause(t *testing.T) {
	dir := t.TempDir()
	openStack(t, dir, noSnapshot)
	_, err := Open(Config{Dir: dir, FSM: openFSM(t, nil), Fatal: func(error) {}})
	if !errors.Is(err, bolterrors.ErrTimeout) {
		t.Fatalf("got %v, want %v", err, bolterrors.ErrTimeout)
	}
	for _, word := range []string{dir, "another process", "stop"} {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("got %q, want it to contain %q", err, word)
		}
	}
}

// A damaged log file is never opened and never crashes the program.
func TestOpen_DamagedLogFile_IsAnError(t *testing.T) {
	good := t.TempDir()
	s := openStack(t, good, noSnapshot)
	if err := s.log.StoreLogs(entries(1, 1, 600)); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(filepath.Join(good, LogFile))
	if err != nil {
		t.Fatal(err)
	}
	used := len(data) / 2 // bbolt grows its file in advance, so the end is unused
	for name, damage := range map[string]func([]byte) []byte{
		"cut in half":     func(b []byte) []byte { return b[:used/4] },
		"another file":    func(b []byte) []byte { copy(b, strings.Repeat("#!/bin/sh\n", 2000)); return b },
		"flipped bytes":   func(b []byte) []byte { return flipped(b, 256) },
		"flipped pages":   func(b []byte) []byte { return flipped(b, 8192) },
		"zeroed in parts": func(b []byte) []byte { clear(b[8192:used]); return b },
	} {
		dir := t.TempDir()
		bad := damage(append([]byte(nil), data...))
		if err := os.WriteFile(filepath.Join(dir, LogFile), bad, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := openLogFile(dir, slog.New(slog.DiscardHandler))
		if !errors.Is(err, revoked.ErrDamaged) || !strings.Contains(err.Error(), "move the data directory away") {
			t.Errorf("%s: got %v, want %v and how to recover", name, err, revoked.ErrDamaged)
		}
	}
}

func flipped(b []byte, every int) []byte {
	for i := 97; i < len(b); i += every {
		b[i] ^= 0xff
	}
	return b
}

// Raft panics if it cannot read an entry while it starts.
func TestStartRaft_UnreadableEntry_IsAnError(t *testing.T) {
	for name, tt := range map[string]struct {
		damage func(*raft.InmemStore) error
		file   string
	}{
		"changed entry": {func(s *raft.InmemStore) error {
			var e raft.Log
			err := s.GetLog(2, &e)
			e.Data = []byte("x")
			return errors.Join(err, s.StoreLog(&e))
		}, LogFile},
		"log cut for a missing snapshot": {func(s *raft.InmemStore) error { return s.DeleteRange(1, 2) }, SnapshotDir},
	} {
		b := &bench{t: t, nodes: map[raft.ServerID]*benchNode{}}
		n := b.add("a", entries(1, 1, 4))
		if err := tt.damage(n.disk); err != nil {
			t.Fatal(err)
		}
		log := &failStopLog{store: n.disk, failStop: &failStop{fatal: func(error) {}}, path: "/data/raft.db"}
		conf := raft.DefaultConfig()
		conf.LocalID, conf.Logger = n.id, hclog.NewNullLogger()
		r, err := startRaft("/data", func() (*raft.Raft,
			error) {
			return raft.NewRaft(conf, n.fsm, log, n.disk, n.snapshots, n.trans)
		})
		if r != nil {
			t.Errorf("%s: got a running Raft, want none", name)
			r.Shutdown()
		}
		if !errors.Is(err, revoked.ErrDamaged) || !strings.Contains(err.Error(), "/data/"+tt.file+" (") ||
			!strings.Contains(err.Error(), "move the data directory away") {
			t.Errorf("%s: got %v, want %v, %s and how to recover", name, err, revoked.ErrDamaged, tt.file)
		}
	}
}
