package roster

import (
	"fmt"

	"github.com/hashicorp/raft"

	"revoked"
)

// The functions of this file are the rules for a configuration. They are pure:
// TestRules_PermittedChange_KeepsInvariants tries every order of permitted changes.
//
// Invariants: at most one instance of a node votes. A node has at most two instances: the voter and
// the one that is to replace it. There are at most maxMembers nodes and maxVoters voters.

const (
	// maxMembers bounds the configuration, which is one entry of the log.
	maxMembers = 32
	// maxVoters bounds the quorum that every write waits for. Further members stay replicas until a
	// voter leaves.
	maxVoters = 7
)

// checkAdd returns an error unless server may be added to conf as a non-voter.
func checkAdd(conf raft.Configuration, server raft.ServerID) error {
	nodes, instances := map[string]bool{}, 0
	for _, s := range conf.Servers {
		nodes[nodeOf(s.ID)] = true
		if nodeOf(s.ID) == nodeOf(server) {
			instances++
		}
	}
	switch {
	case instances > 1:
		return fmt.Errorf("%w: %s already has an instance that is to replace another",
			revoked.ErrConflict, nodeOf(server))
	case instances == 0 && len(nodes) >= maxMembers:
		return fmt.Errorf("%w: the cluster has %d members already, which is the maximum",
			revoked.ErrUnprocessable, len(nodes))
	}
	return nil
}

// checkPromote returns an error unless the non-voter id in conf may become a voter.
func checkPromote(conf raft.Configuration, id raft.ServerID) error {
	if !inConfiguration(conf, id) {
		return fmt.Errorf("%w: %s is not a member", revoked.ErrNotFound, nodeOf(id))
	}
	voters := 0
	for _, s := range conf.Servers {
		if s.Suffrage != raft.Voter {
			continue
		}
		voters++
		if nodeOf(s.ID) == nodeOf(id) && s.ID != id {
			return fmt.Errorf("%w: another instance of %s still has a vote: remove that instance first",
				revoked.ErrUnprocessable, nodeOf(id))
		}
	}
	if voters >= maxVoters {
		return fmt.Errorf("%w: the cluster has %d voters already, which is the maximum: demote one first",
			revoked.ErrUnprocessable, voters)
	}
	return nil
}

// instanceOf returns the instance of node in conf, or "". Of two instances, it returns the voter.
func instanceOf(conf raft.Configuration, node string) (id raft.ServerID) {
	for _, s := range conf.Servers {
		if nodeOf(s.ID) == node && (id == "" || s.Suffrage == raft.Voter) {
			id = s.ID
		}
	}
	return id
}

// endOf describes why a former instance of node is not in conf.
func endOf(node string, conf raft.Configuration) string {
	if instanceOf(conf, node) != "" {
		return fmt.Sprintf("another data directory has replaced this one of node %s", node)
	}
	return fmt.Sprintf("node %s was removed from its cluster", node)
}
