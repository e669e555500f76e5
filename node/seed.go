package node

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/hashicorp/raft"

	"revoked"
	"revoked/fsm"
	"revoked/transport"
)

// SeedOptions say what becomes of a backup.
type SeedOptions struct {
	NodeID string
	// AcceptLoss keeps the tokens of the backup alive, so that those revoked since come back to life.
	// It needs a Reason. Without it everything issued before now ends.
	AcceptLoss bool
	Reason     string
	Log        *slog.Logger
}

// Seed makes dataDir, which must be new or empty, the data directory of the first node of a new
// cluster whose state is the backup. The node is not running afterwards: start it with the same node
// id, and let others join it. Everything of the backup is checked before the directory is anything.
func Seed(_ context.Context, dataDir string, backup io.Reader, o SeedOptions) (h fsm.SnapshotHeader, err error) {
	if err := transport.CheckNodeID(o.NodeID); err != nil {
		return h, fmt.Errorf("%w: node id: %w", revoked.ErrInvalid, err)
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if entries, err := os.ReadDir(dataDir); err == nil && len(entries) > 0 {
		return h, fmt.Errorf("%w: %s is not empty: a backup seeds a new data directory; it cannot be restored into one that is in use", revoked.ErrConflict, dataDir)
	}
	if err := os.MkdirAll(dataDir, 0o700); err != nil {
		return h, fmt.Errorf("make data directory: %w", err)
	}
	lock, err := lockDir(dataDir)
	if err != nil {
		return h, err
	}
	defer lock.Close()
	defer func() {
		if err != nil { // nothing half made may be started
			for _, name := range []string{"identity.json", raftFile, "snapshots", "state", "LOCK"} {
				err = errors.Join(err, os.RemoveAll(filepath.Join(dataDir, name)))
			}
		}
	}()
	b := make([]byte, 16)
	if _, err := rand.Read(b); err != nil {
		return h, err
	}
	clusterID := hex.EncodeToString(b)
	h, err = fsm.Seed(filepath.Join(dataDir, "state"), backup, fsm.SeedOptions{
		ClusterID: clusterID, Before: revoked.TimeOf(time.Now()), AcceptLoss: o.AcceptLoss, Reason: o.Reason, Log: o.Log,
	})
	if err != nil {
		return h, err
	}
	id, err := drawIdentity(dataDir, o.NodeID)
	if err != nil {
		return h, err
	}
	if err := seedRaft(dataDir, id.serverID(), h, o); err != nil {
		return h, err
	}
	id.ClusterID = clusterID
	return h, id.save()
}

// seedRaft gives Raft a snapshot at the state's index, whose configuration is this node alone, and a
// log that begins behind it. The address is told when the node starts (announceAddress).
func seedRaft(dir string, self raft.ServerID, h fsm.SnapshotHeader, o SeedOptions) (err error) {
	var failed error
	fatal := func(err error) { failed = errors.Join(failed, err) }
	st, err := openStores(dir, fatal, o.Log)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, failed, st.Close()) }()
	term := max(h.Term, 1)
	if err := st.stable.SetUint64([]byte(keyTerm), term); err != nil {
		return fmt.Errorf("seed the term: %w", err)
	}
	f, err := fsm.Open(fsm.Config{Dir: filepath.Join(dir, "state"), Log: o.Log, Fatal: fatal})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	log := transport.RaftLog(o.Log, "raft")
	inner, err := raft.NewFileSnapshotStoreWithLogger(dir, 2, log)
	if err != nil {
		return fmt.Errorf("open snapshots: %w", err)
	}
	conf := raft.Configuration{Servers: []raft.Server{{Suffrage: raft.Voter, ID: self,
		Address: transport.InstanceAddress(o.NodeID, "restored.invalid:1", strings.TrimPrefix(string(self), o.NodeID+"/"))}}}
	_, trans := raft.NewInmemTransport("")
	sink, err := fsm.NewSnapshotStore(inner, f).Create(raft.SnapshotVersionMax, h.Index, term, conf, 1, trans)
	if err != nil {
		return fmt.Errorf("make the first snapshot: %w", err)
	}
	snap, err := f.Snapshot()
	if err != nil {
		return errors.Join(err, sink.Cancel())
	}
	defer snap.Release()
	if err := snap.Persist(sink); err != nil {
		return errors.Join(fmt.Errorf("write the first snapshot: %w", err), sink.Cancel())
	}
	return nil
}
