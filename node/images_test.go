package node

import (
	"time"

	"github.com/hashicorp/raft"

	"revoked/internal/retry"
	"revoked/node/internal/simkit"
)

// A simImage is an older copy of a node's disk.
type simImage struct {
	disk *simkit.Disk
	at   time.Time
	self raft.ServerID
	end  uint64 // the index at which its log ends

	// voters is the number of voters in the newest configuration of its log. A single voter leads
	// without a vote of another member, so no member could notice its image: see docs/guarantees.md.
	voters int
}

// imageAge is how long a node keeps an image before it takes another.
const imageAge = 10 * time.Second

// takeImage keeps a copy of the disk with which a process is about to start, if the last one is
// old.
func (m *simNode) takeImage(fresh bool) *simImage {
	m.mu.Lock()
	defer m.mu.Unlock()
	if fresh || m.image != nil && time.Since(m.image.at) < imageAge {
		return nil
	}
	m.image = &simImage{disk: m.disk.Image(), at: time.Now()}
	return m.image
}

// rollBack gives a voter an older image of its disk. The members that did not store the last
// changes then try to elect a leader with it. All others are down. It waits until the nodes are up
// and each has recorded that the voter was ahead of its image.
func (m *simNemesis) rollBack() {
	m.s.wg.Go(func() {
		for end := time.Now().Add(20 * time.Second); m.ctx.Err() == nil && time.Now().Before(end); {
			n, lead := m.node(), m.leader()
			if n != lead && lead != nil {
				if image := m.mayRollBack(n); image != nil {
					m.rollBackWith(n, lead, image)
					return
				}
			}
			retry.Sleep(m.ctx, 500*time.Millisecond)
		}
	})
}

// mayRollBack returns the image to which n may be rolled back, or nil.
func (m *simNemesis) mayRollBack(n *simNode) *simImage {
	l := n.now()
	if l == nil || l.frozen.Load() != nil || !m.isWhole() {
		return nil
	}
	n.mu.Lock()
	image := n.image
	n.mu.Unlock()
	if image == nil || image.self != l.self || image.voters < 2 {
		return nil
	}
	for _, o := range m.s.nodes {
		if by := o.now(); o != n && (by == nil || by.n.store.Mark(l.self).GetIndex() <= image.end) {
			return nil
		}
	}
	if !m.lose(l.self) {
		return nil
	}
	return image
}

// rollBackWith rolls n back to image, which differs from its disk in a way that the others notice.
// Since then, the node may have been restarted and have a newer image, which they cannot notice. If
// another instance has replaced it, its disk is kept: an image has the identity of its instance.
func (m *simNemesis) rollBackWith(n, lead *simNode, image *simImage) {
	var behind, ahead []*simNode
	for _, o := range m.s.nodes {
		switch {
		case o == n:
		case o != lead && len(behind) < (len(m.s.nodes)-1)/2:
			behind = append(behind, o)
		default:
			ahead = append(ahead, o)
		}
	}
	for _, o := range behind {
		o.crash(false)
	}
	retry.Sleep(m.ctx, m.span(200*time.Millisecond, 3*time.Second)) // the others commit changes
	for _, o := range ahead {
		o.crash(false)
	}
	n.crash(false)
	if n.instance() == image.self {
		n.mu.Lock()
		n.rolled, n.disk = image.self, image.disk.Image()
		n.mu.Unlock()
		m.note("%s is rolled back to %d", n.id, image.end)
		m.count("rolled-back disks")
	}
	m.revive(n)
	for _, o := range behind {
		m.revive(o)
	}
	retry.Sleep(m.ctx, m.span(2*time.Second, 6*time.Second))
	for _, o := range ahead {
		m.revive(o)
	}
	m.replaceRolledBack(n)
}

// replaceRolledBack replaces a node that runs on an older image by a new instance. It waits until
// the node has exited, or until a while has passed without any member noticing.
func (m *simNemesis) replaceRolledBack(n *simNode) {
	ended := func() bool {
		n.mu.Lock()
		defer n.mu.Unlock()
		return n.gone
	}
	for end := time.Now().Add(20 * time.Second); !ended() && time.Now().Before(end) && !m.s.o.failed(); {
		time.Sleep(100 * time.Millisecond)
	}
	if l := n.now(); l == nil || l.rolled {
		n.crashForGood()
		m.revive(n)
	}
}
