package raftstore_test

import (
	"errors"
	"io"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hashicorp/raft"

	"revoked"
	"revoked/node/nodetest"
)

// The log is truncated at the newest snapshot. If Raft started from an older snapshot, the node
// would append after a gap.
func TestStart_NewestSnapshotInvalid_Fails(t *testing.T) {
	c := nodetest.Start(t, nodetest.Options{Nodes: 1})
	m := c.Members[0]
	m.Stop()
	snaps, err := raft.NewFileSnapshotStore(filepath.Join(m.Dir, "data"), 2, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	alone := raft.Configuration{Servers: []raft.Server{{ID: raft.ServerID(m.ID), Address: "x"}}}
	_, trans := raft.NewInmemTransport("x")
	sink, err := snaps.Create(1, 1_000_000, 9, alone, 1, trans)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(sink, "invalid"); err != nil {
		t.Fatal(err)
	}
	if err := sink.Close(); err != nil {
		t.Fatal(err)
	}
	err = m.TryStart()
	if !errors.Is(err, revoked.ErrDamaged) ||
		!strings.Contains(err.Error(), "snapshots (cannot restore the newest snapshot, at index 1000000") ||
		!strings.Contains(err.Error(), "move the data directory away") {
		t.Errorf("got %v, want %v, the snapshot and how to recover", err, revoked.ErrDamaged)
	}
}
