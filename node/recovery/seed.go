package recovery

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/hashicorp/raft"

	"revoked"
	"revoked/fsm"
	"revoked/fsm/snapshot"
	"revoked/node/datadir"
	"revoked/node/raftstore"
	"revoked/transport"
	"revoked/transport/pki"
)

// SeedOptions configure Seed.
type SeedOptions struct {
	NodeID string
	// AcceptLoss keeps the tokens of the backup active, including those revoked after the backup. It
	// requires a Reason. Without AcceptLoss, every token issued before now is revoked.
	AcceptLoss bool
	Reason     string
	Log        *slog.Logger
}

// Seed fills dataDir with the state of the backup, for the first node of a new cluster. dataDir
// must be new or empty. Seed does not start the node. Start the node with the same node id, and
// then join the other nodes. After an error no node can start on dataDir.
func Seed(dataDir string, backup io.Reader, o SeedOptions) (h snapshot.Header, err error) {
	if err := pki.CheckNodeID(o.NodeID); err != nil {
		return h, fmt.Errorf("%w: node id: %w", revoked.ErrInvalid, err)
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if entries, err := os.ReadDir(dataDir); err == nil && len(entries) > 0 {
		return h, fmt.Errorf("%w: %s is not empty; a backup can only be restored into a new data directory",
			revoked.ErrConflict, dataDir)
	}
	if err := os.MkdirAll(dataDir, 0o700); err != nil {
		return h, fmt.Errorf("create data directory: %w", err)
	}
	lock, err := datadir.Lock(dataDir)
	if err != nil {
		return h, err
	}
	defer lock.Close()
	defer func() {
		if err != nil {
			err = errors.Join(err, datadir.Clear(dataDir))
		}
	}()
	h, _, err = found(dataDir, backup, o.NodeID, fsm.SeedOptions{AcceptLoss: o.AcceptLoss, Reason: o.Reason, Log: o.Log})
	return h, err
}

// found creates the first member of a new cluster in dir, which is empty and not in use. The member
// is durable on return. found chooses the id of the cluster and the time before which issued tokens
// are revoked.
func found(
	dir string, backup io.Reader, nodeID string, o fsm.SeedOptions,
) (h snapshot.Header, cluster string, err error) {
	b := make([]byte, 16)
	if _, err := rand.Read(b); err != nil {
		return h, "", err
	}
	o.ClusterID, o.Before = hex.EncodeToString(b), revoked.TimeOf(time.Now())
	if h, err = fsm.Seed(filepath.Join(dir, datadir.StateDir), backup, o); err != nil {
		return h, "", err
	}
	id, err := datadir.Generate(dir, nodeID)
	if err != nil {
		return h, "", err
	}
	if err := seedRaft(dir, id, h, o.Log); err != nil {
		return h, "", err
	}
	_, err = id.Bind(o.ClusterID)
	return h, o.ClusterID, err
}

// seedRaft creates Raft's store. The store contains a snapshot at the state's index, whose
// configuration contains only this node. The node announces its address when it starts
// (announceAddress). The configuration omits the other nodes of the old cluster: each must join the
// new one with an empty directory.
func seedRaft(dir string, self *datadir.Identity, h snapshot.Header, log *slog.Logger) (err error) {
	var failed error
	f, err := fsm.Open(fsm.Config{Dir: filepath.Join(dir, datadir.StateDir), Log: log,
		Fatal: func(err error) { failed = errors.Join(failed, err) }})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, failed, f.Close()) }()
	conf := raft.Configuration{Servers: []raft.Server{{Suffrage: raft.Voter, ID: self.Server,
		Address: transport.InstanceAddress(self.NodeID, "restored.invalid:1", self.Instance)}}}
	store := raftstore.Config{Dir: dir, FSM: f, Log: log}
	return raftstore.Seed(store, h.Index, max(h.Term, 1), conf)
}
