package node

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/hashicorp/raft"

	"revoked"
)

// An identity says who a data directory is. It is drawn once, with the directory: the same node id
// with an empty disk is another instance, so a voter that forgot its votes can never pass for itself.
type identity struct {
	NodeID    string `json:"node_id"`
	Instance  string `json:"instance"`
	ClusterID string `json:"cluster_id"` // empty until the node has joined or founded a cluster
	Left      bool   `json:"left"`       // left, or was removed: starts again only as a new instance

	dir string
}

// serverID is Raft's name for an instance: node id, slash, instance.
func (id identity) serverID() raft.ServerID { return raft.ServerID(id.NodeID + "/" + id.Instance) }

func nodeOf(id raft.ServerID) string {
	name, _, _ := strings.Cut(string(id), "/")
	return name
}

// openIdentity reads the identity of dir, or draws one when the directory is new.
func openIdentity(dir, nodeID string, rejoin bool) (*identity, error) {
	path := filepath.Join(dir, "identity.json")
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		if left, err := leftovers(dir); err != nil || len(left) > 0 {
			return nil, errors.Join(err, leftoverError(dir, left))
		}
		return drawIdentity(dir, nodeID)
	}
	if err != nil {
		return nil, fmt.Errorf("read identity: %w", err)
	}
	id := &identity{dir: dir}
	if err := json.Unmarshal(b, id); err != nil || id.NodeID == "" || id.Instance == "" {
		if err == nil {
			err = errors.New("it names no node")
		}
		return nil, damaged(path, err)
	}
	if id.NodeID != nodeID {
		return nil, fmt.Errorf("data directory %s belongs to node %q, but node_id is %q", dir, id.NodeID, nodeID)
	}
	if id.Left {
		if !rejoin {
			return nil, fmt.Errorf("data directory %s has left its cluster (%s): start with --rejoin to join anew as a new instance, or with an empty directory", dir, id.ClusterID)
		}
		for _, name := range []string{"raft.db", "snapshots", "state"} {
			if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
				return nil, fmt.Errorf("empty data directory for rejoin: %w", err)
			}
		}
		return drawIdentity(dir, nodeID)
	}
	return id, checkComplete(dir, id)
}

// leftovers lists data that has lost its identity: starting over it could vote twice.
func leftovers(dir string) ([]string, error) {
	var found []string
	for _, name := range []string{"raft.db", "state", "snapshots"} {
		switch _, err := os.Stat(filepath.Join(dir, name)); {
		case err == nil:
			found = append(found, name)
		case !errors.Is(err, fs.ErrNotExist):
			return nil, err
		}
	}
	return found, nil
}

func leftoverError(dir string, left []string) error {
	if len(left) == 0 {
		return nil
	}
	return fmt.Errorf("data directory %s holds %s but no identity.json: move it away and let the node join as a new instance",
		dir, strings.Join(left, ", "))
}

func drawIdentity(dir, nodeID string) (*identity, error) {
	b := make([]byte, 8)
	if _, err := rand.Read(b); err != nil {
		return nil, err
	}
	id := &identity{NodeID: nodeID, Instance: hex.EncodeToString(b), dir: dir}
	return id, id.save()
}

// save is durable on return.
func (id *identity) save() error {
	b, err := json.MarshalIndent(id, "", "  ")
	if err != nil {
		return err
	}
	tmp := filepath.Join(id.dir, "identity.json.tmp")
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fmt.Errorf("save identity: %w", err)
	}
	_, err = f.Write(append(b, '\n'))
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("save identity: %w", err)
	}
	if err := os.Rename(tmp, filepath.Join(id.dir, "identity.json")); err != nil {
		return fmt.Errorf("save identity: %w", err)
	}
	return syncDir(id.dir)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// lockDir takes the directory for this process. The lock ends with the process, however it ends.
func lockDir(dir string) (*os.File, error) {
	f, err := os.OpenFile(filepath.Join(dir, "LOCK"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock data directory: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("%w: data directory %s is in use by another process: stop that one, or give this node its own data_dir",
			revoked.ErrConflict, dir)
	}
	return f, nil
}
