package node

import (
	"fmt"

	"github.com/hashicorp/raft"

	"revoked"
	"revoked/fsm"
)

// admitOp is the leader's check of an operation before it proposes it. Beside what fsm.Admit wants, every member
// must be able to apply it: an entry that one does not understand ends it.
func (n *Node) admitOp(op *fsm.Op) error {
	if err := n.fsm.Admit(op); err != nil {
		return err
	}
	if need := n.cfg.seams.versionOf(op); need > 1 {
		return canApply(need, n.views(), n.self)
	}
	return nil
}

// canApply returns ErrUnprocessable unless every member is known to apply operations of a version. This node is.
func canApply(need uint32, members []peerView, self raft.ServerID) error {
	for _, m := range members {
		switch {
		case m.server.ID == self:
		case m.who == nil:
			return fmt.Errorf("%w: %s has not told yet which operations it knows; bring it back or remove it, and try again",
				revoked.ErrUnprocessable, nodeOf(m.server.ID))
		case max(m.who.Commands, 1) < need:
			return fmt.Errorf("%w: %s runs version %s, which does not know this operation; upgrade every member first",
				revoked.ErrUnprocessable, nodeOf(m.server.ID), m.who.Version)
		}
	}
	return nil
}
