package node

// HangDisk has every write of Raft's log and votes wait until release, as on a disk that hangs.
func (n *Node) HangDisk() (release func()) {
	n.stores.guard.mu.Lock()
	return n.stores.guard.mu.Unlock
}
