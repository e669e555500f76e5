package datadir

import (
	"cmp"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"github.com/hashicorp/raft"

	"revoked"
	"revoked/internal/durable"
	"revoked/node/raftstore"
)

// An Identity identifies a data directory and holds its lock. The instance is generated once, when
// the directory is created. A node that starts with an empty disk is a new instance of the same
// node id. So a voter that lost its record of votes cannot act as its old instance. NodeID,
// Instance, Server and Boot never change after Open. Methods may be called concurrently.
type Identity struct {
	NodeID    string `json:"node_id"`
	Instance  string `json:"instance"`
	ClusterID string `json:"cluster_id"` // empty until the node joined or bootstrapped a cluster
	Left      bool   `json:"left"`       // the node left or was removed; it starts again only as a new instance

	Server raft.ServerID `json:"-"` // server id of this instance in Raft
	Boot   []byte        `json:"-"` // random for each process start; distinguishes its reports from older ones

	dir  string
	lock *os.File
	mu   sync.Mutex // guards ClusterID and Left
}

// raftID returns the server id of an instance in Raft.
func raftID(nodeID, instance string) raft.ServerID { return raft.ServerID(nodeID + "/" + instance) }

// NodeOf returns the node id in a server id.
func NodeOf(id raft.ServerID) string {
	name, _, _ := strings.Cut(string(id), "/")
	return name
}

// Open creates dir if it does not exist, locks it and completes an interrupted [Replace]. It reads
// the identity of dir, or generates one if dir is new. Close releases the lock.
func Open(dir, nodeID string, rejoin bool) (*Identity, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("create data directory: %w", err)
	}
	lock, err := Lock(dir)
	if err != nil {
		return nil, err
	}
	var id *Identity
	if _, err = Complete(dir); err == nil {
		id, err = readIdentity(dir, nodeID, rejoin)
	}
	if err == nil {
		id.lock, id.Server, id.Boot = lock, raftID(id.NodeID, id.Instance), make([]byte, 16)
		_, err = rand.Read(id.Boot)
	}
	if err != nil {
		return nil, errors.Join(err, lock.Close())
	}
	return id, nil
}

// Close releases the lock on the data directory.
func (id *Identity) Close() error { return id.lock.Close() }

// Cluster returns the cluster that the data directory belongs to, or "" before it joined one.
func (id *Identity) Cluster() string {
	id.mu.Lock()
	defer id.mu.Unlock()
	return id.ClusterID
}

// Bind records the cluster that the data directory belongs to; the record is durable on return. The
// result fresh reports whether the directory was unbound before. It returns ErrUnprocessable if the
// directory belongs to another cluster.
func (id *Identity) Bind(cluster string) (fresh bool, err error) {
	id.mu.Lock()
	defer id.mu.Unlock()
	switch id.ClusterID {
	case cluster:
		return false, nil
	case "":
		id.ClusterID = cluster
		if err := id.save(); err != nil {
			id.ClusterID = ""
			return false, err
		}
		return true, nil
	}
	return false, fmt.Errorf("%w: data directory: wrong cluster (got %s, want %s)",
		revoked.ErrUnprocessable, id.ClusterID, cluster)
}

// MarkLeft records that the node left its cluster. From then on, a node can start from the
// directory only as a new instance.
func (id *Identity) MarkLeft() error {
	id.mu.Lock()
	defer id.mu.Unlock()
	id.Left = true
	return id.save()
}

// Check completes an interrupted [Replace] in dir, and returns the error that Open would return
// afterwards. The caller holds the lock.
func Check(dir, nodeID string, rejoin bool) error {
	_, err := Complete(dir)
	if err == nil {
		_, err = findIdentity(dir, nodeID, rejoin)
	}
	return err
}

// readIdentity reads the identity of dir, or generates one if dir is new or rejoins.
func readIdentity(dir, nodeID string, rejoin bool) (*Identity, error) {
	id, err := findIdentity(dir, nodeID, rejoin)
	switch {
	case err != nil:
		return nil, err
	case id == nil:
		return Generate(dir, nodeID)
	case !id.Left:
		return id, nil
	}
	for _, name := range dataFiles {
		if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
			return nil, fmt.Errorf("empty data directory for rejoin: %w", err)
		}
	}
	return Generate(dir, nodeID)
}

// findIdentity returns the identity of dir, or nil if dir is new. It returns an error if the node
// must not start from dir. If the result has Left set, the node rejoins as a new instance.
func findIdentity(dir, nodeID string, rejoin bool) (*Identity, error) {
	b, err := os.ReadFile(filepath.Join(dir, identityFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, checkEmpty(dir)
	}
	if err != nil {
		return nil, fmt.Errorf("read identity: %w", err)
	}
	id, err := parseIdentity(dir, b)
	if err != nil {
		return nil, err
	}
	if id.NodeID != nodeID {
		return nil, fmt.Errorf("data directory %s: wrong node (got %q, want node_id %q)", dir, id.NodeID, nodeID)
	}
	if !id.Left {
		return id, id.checkComplete()
	}
	if !rejoin {
		return nil, fmt.Errorf("data directory %s: node has left cluster %s; use --rejoin or an empty directory",
			dir, id.ClusterID)
	}
	return id, nil
}

func parseIdentity(dir string, b []byte) (*Identity, error) {
	id := &Identity{dir: dir}
	if err := json.Unmarshal(b, id); err != nil || id.NodeID == "" || id.Instance == "" {
		return nil, raftstore.Damaged(filepath.Join(dir, identityFile),
			cmp.Or(err, errors.New("node id or instance is missing")))
	}
	id.Server = raftID(id.NodeID, id.Instance)
	return id, nil
}

// StateDir is the name of the state's directory inside the data directory.
const StateDir = "state"

const (
	identityFile = "identity.json"
	lockFile     = "LOCK"
)

// dataFiles are the files and directories that must not exist without an identity in the same
// directory.
var dataFiles = []string{raftstore.LogFile, raftstore.SnapshotDir, StateDir}

// checkComplete returns ErrDamaged if the log or the state of a member is missing. Without its log
// the node could vote twice. An empty state would lack the entries that the log no longer contains.
func (id *Identity) checkComplete() error {
	if id.ClusterID == "" {
		return nil
	}
	path := filepath.Join(id.dir, raftstore.LogFile)
	switch info, err := os.Stat(path); {
	case errors.Is(err, fs.ErrNotExist):
		return raftstore.Damaged(path, errors.New("file is missing"))
	case err != nil:
		return err
	case info.Size() == 0:
		return raftstore.Damaged(path, errors.New("file is empty"))
	}
	current := filepath.Join(id.dir, StateDir, "CURRENT")
	if _, err := os.Stat(current); errors.Is(err, fs.ErrNotExist) {
		return raftstore.Damaged(current, errors.New("file is missing"))
	}
	return nil
}

// checkEmpty returns an error if dir contains data but no identity. A node that started on that
// data with a new identity could vote twice.
func checkEmpty(dir string) error {
	var found []string
	for _, name := range dataFiles {
		switch _, err := os.Stat(filepath.Join(dir, name)); {
		case err == nil:
			found = append(found, name)
		case !errors.Is(err, fs.ErrNotExist):
			return err
		}
	}
	if len(found) == 0 {
		return nil
	}
	return fmt.Errorf("data directory %s has %s but no %s: move it away and let the node join as a new instance",
		dir, strings.Join(found, ", "), identityFile)
}

// Generate generates a new instance. Its identity is durable on return.
func Generate(dir, nodeID string) (*Identity, error) {
	b := make([]byte, 8)
	if _, err := rand.Read(b); err != nil {
		return nil, err
	}
	id := &Identity{NodeID: nodeID, Instance: hex.EncodeToString(b), dir: dir}
	id.Server = raftID(id.NodeID, id.Instance)
	return id, id.save()
}

// save writes the identity, which is durable on return. The caller holds mu, or is the only user.
func (id *Identity) save() error {
	b, err := json.MarshalIndent(id, "", "  ")
	if err == nil {
		err = durable.Replace(filepath.Join(id.dir, identityFile), append(b, '\n'), 0o600)
	}
	if err == nil {
		err = durable.SyncDir(id.dir)
	}
	if err != nil {
		return fmt.Errorf("save identity: %w", err)
	}
	return nil
}

// Lock locks dir for this process. The kernel releases the lock when the process exits.
func Lock(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock data directory: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("%w: data directory %s is in use by another process: "+
			"stop that process, or set another data_dir for this node", revoked.ErrConflict, dir)
	}
	return f, nil
}

// Clear deletes everything in dir that a node may have written there, including the lock file and
// the identity. Only a process that holds the lock, or has just failed to fill dir, may call it.
func Clear(dir string) error {
	var errs []error
	for _, name := range append([]string{identityFile, lockFile, stagedDir, readyDir, RecordFile}, dataFiles...) {
		errs = append(errs, os.RemoveAll(filepath.Join(dir, name)))
	}
	return errors.Join(errs...)
}
