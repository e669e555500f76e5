package simkit

import (
	"errors"
	"math/rand/v2"
	"path/filepath"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/hashicorp/raft"

	"revoked/node/raftstore"
)

// A Disk holds the log, the votes, the state and the snapshots of one instance of a node. A crash
// copies the synced bytes and a random part of the rest. The next process gets the copy. Later
// writes of the old process are lost.
//
// A Disk belongs to one process at a time. The log and the votes lose no write, as with bbolt. The
// state loses its unsynced writes, as Pebble without a WAL.
type Disk struct {
	State *vfs.MemFS // disk of the state machine

	log   *memLog
	snaps *snapshots
}

// NewDisk returns an empty disk.
func NewDisk() *Disk {
	return &Disk{log: newMemLog(), State: vfs.NewCrashableMem(), snaps: &snapshots{}}
}

// Mkdir creates a directory durably, with its parents. Without the syncs a crash could remove the
// directory.
func (d *Disk) Mkdir(path string) error {
	if err := d.State.MkdirAll(path, 0o700); err != nil {
		return err
	}
	for ; path != "/"; path = filepath.Dir(path) {
		f, err := d.State.OpenDir(path)
		if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
			return err
		}
	}
	f, err := d.State.OpenDir("/")
	return errors.Join(err, f.Sync(), f.Close())
}

// Crash returns the disk of the next process and closes gate. The old process's goroutines continue
// for an instant, so the order matters. The copy must not have a snapshot without the state that
// belongs to it, or a state without its log entries. So Crash copies the snapshots first, then the
// state, and the log last. Deletions from the log fail from the start.
func (d *Disk) Crash(g *Gate, rng *rand.Rand) *Disk {
	d.log.freeze()
	next := &Disk{snaps: d.snaps.sealedCopy()}
	next.State = d.State.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: rng.IntN(101),
		RNG: rand.New(rand.NewPCG(rng.Uint64(), 1))})
	g.crash()
	next.log = d.log.copy()
	return next
}

// Image returns a copy of a disk that no process uses. The simulation uses the copy later, like an
// operator who restores an old disk.
func (d *Disk) Image() *Disk {
	return &Disk{log: d.log.copy(), snaps: d.snaps.copy(), State: d.State.CrashClone(vfs.CrashCloneCfg{})}
}

// An FS delays the rename that makes a restored state current. It does not delay Pebble, which
// holds locks while it writes. In a synctest bubble no goroutine may sleep with a lock that others
// wait for.
type FS struct {
	vfs.FS
	Current string               // file that names the current state
	Delay   func() time.Duration // delay of one rename
}

// Rename implements vfs.FS.
func (f FS) Rename(from, to string) error {
	if to == f.Current {
		time.Sleep(f.Delay())
	}
	return f.FS.Rename(from, to)
}

// Unwrap implements vfs.FS.
func (f FS) Unwrap() vfs.FS { return f.FS }

// HasConfiguration reports whether the log has a configuration at or after an index.
func (d *Disk) HasConfiguration(first uint64) bool {
	last, err := d.log.LastIndex()
	for i := first; err == nil && i <= last; i++ {
		var e raft.Log
		if err = d.log.GetLog(i, &e); err == nil && e.Type == raft.LogConfiguration {
			return true
		}
	}
	return false
}

// Hooks returns hooks that replace a node's stores with d. g wraps the outermost log and stable
// stores. If it wrapped d directly, it would sleep while one of the node's store layers holds a
// lock. One Disk serves one node.
func (d *Disk) Hooks(g *Gate) raftstore.Hooks {
	return raftstore.Hooks{Log: d.log, Stable: d.log, Snapshots: d.snaps,
		Front: func(log raft.LogStore, stable raft.StableStore) (raft.LogStore, raft.StableStore) {
			return &gatedLog{LogStore: log, g: g, lost: map[uint64]*raft.Log{}}, &gatedStable{stable, g}
		}}
}
