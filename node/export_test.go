package node

import "revoked/fsm"

// HangDisk has every write of Raft's log and votes wait until release, as on a disk that hangs.
func (n *Node) HangDisk() (release func()) {
	n.stores.guard.mu.Lock()
	return n.stores.guard.mu.Unlock
}

// OfVersion has the node take every change of the settings for an operation of a version.
func (c *Config) OfVersion(version uint32) {
	c.seams.versionOf = func(op *fsm.Op) uint32 {
		if op.GetPutSettings() != nil {
			return version
		}
		return fsm.VersionOf(op)
	}
}
