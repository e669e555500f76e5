package node

import (
	"context"
	"sync"

	"github.com/hashicorp/raft"
	"google.golang.org/protobuf/proto"

	"revoked"
	"revoked/fsm/command"
	"revoked/node/nodepb"
)

// HangDisk makes every write of Raft's log wait for mu.
func (c *Config) HangDisk(mu *sync.Mutex) {
	c.hooks.store.Front = func(log raft.LogStore, stable raft.StableStore) (raft.LogStore, raft.StableStore) {
		return hangingLog{log, mu}, stable
	}
}

type hangingLog struct {
	raft.LogStore
	mu *sync.Mutex
}

func (l hangingLog) StoreLogs(entries []*raft.Log) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.LogStore.StoreLogs(entries)
}

// StallState makes every call of ApplyBatch wait for mu.
func (c *Config) StallState(mu *sync.Mutex) {
	c.hooks.store.State = func(f raft.BatchingFSM) raft.BatchingFSM { return stallingState{f, mu} }
}

type stallingState struct {
	raft.BatchingFSM
	mu *sync.Mutex
}

func (s stallingState) ApplyBatch(logs []*raft.Log) []any {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.BatchingFSM.ApplyBatch(logs)
}

// ApplyTick passes a tick to Raft and does not wait for the answer. This node must lead.
func (n *Node) ApplyTick() error {
	data, err := command.Encode(&command.Tick{Stamp: int64(n.roster.Clock.Stamp())})
	if err == nil {
		n.raft.Apply(data, 0)
	}
	return err
}

// MarkOf returns the progress of an instance that leaders have recorded in this node's log.
func (n *Node) MarkOf(server raft.ServerID) uint64 { return n.store.Mark(server).GetIndex() }

// Applied returns the applied index.
func (n *Node) Applied() uint64 { return n.fsm.Applied() }

// Server returns the id of this node's instance.
func (n *Node) Server() raft.ServerID { return n.id.Server }

// OfVersion makes the node treat every change of the settings as an operation of version.
func (c *Config) OfVersion(version uint32) {
	c.hooks.versionOf = func(op *command.Op) uint32 {
		if op.GetPutSettings() != nil {
			return version
		}
		return command.VersionOf(op)
	}
}

// RefuseMembers prevents the node, while it leads, from recording in the audit log a configuration
// for which refuse returns true.
func (c *Config) RefuseMembers(refuse func([]command.NotedMember) bool) {
	c.hooks.versionOf = func(op *command.Op) uint32 {
		if m := op.GetMembers(); m != nil && refuse(m.List()) {
			return command.Version + 1
		}
		return command.VersionOf(op)
	}
}

// Announce makes the node report to the others that it supports commands only up to version.
func (c *Config) Announce(version uint32) { c.hooks.commands = version }

// LogVersion returns the highest version of a command that the node has applied.
func (n *Node) LogVersion() uint32 { return n.fsm.Version() }

// ProposeHere proposes an operation that only a leader proposes. This node must lead.
func (n *Node) ProposeHere(ctx context.Context, op *command.Op) error {
	_, err := n.propose.CommitHere(ctx, op)
	return err
}

// Trust makes the cluster trust an issuer.
func (n *Node) Trust(ctx context.Context, by revoked.Actor, i *revoked.Issuer) error {
	_, err := n.propose.Commit(ctx, command.PutIssuerOp(by, i, 0))
	return err
}

// Hello returns the message in which the node describes itself to others.
func (n *Node) Hello() *nodepb.Hello { return n.roster.Hello() }

// CallLeader makes one call to the leader with the certificate of n, as a thief of its key would.
func (n *Node) CallLeader(ctx context.Context, path string, req, resp proto.Message) error {
	return caller{n.transport, n.raft}.callLeader(ctx, path, req, resp)
}

// CallHost makes one call to the node at host with the certificate of n.
func (n *Node) CallHost(ctx context.Context, host, path string, req, resp proto.Message) error {
	return caller{n.transport, n.raft}.call(ctx, host, "", path, req, resp)
}

// CallBound makes one call to the node at host, with a request for the binding of its connection.
func (n *Node) CallBound(
	ctx context.Context, host, path string, makeReq func(binding []byte) proto.Message, resp proto.Message,
) error {
	return caller{n.transport, n.raft}.callBound(ctx, host, "", path, makeReq, resp)
}
