package node_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"revoked"
	"revoked/node"
	"revoked/node/nodetest"
)

// change retries a membership change until a leader accepts it.
func change(c *nodetest.Cluster, do func(context.Context) (uint64, error)) (err error) {
	c.T.Helper()
	unknown := false
	c.Until("a leader decides", func() bool {
		_, err = do(c.T.Context())
		unknown = unknown || errors.Is(err, revoked.ErrOutcomeUnknown)
		return !errors.Is(err, revoked.ErrNoLeader) && !errors.Is(err, revoked.ErrOutcomeUnknown)
	})
	if unknown && errors.Is(err, revoked.ErrNotFound) { // it was removed, but the answer was lost
		return nil
	}
	return err
}

// admin returns the cluster's administrator as an actor.
func admin(c *nodetest.Cluster) revoked.Actor {
	c.T.Helper()
	cl, ok := c.Leader().Node.Client("admin")
	if !ok {
		c.T.Fatal("client admin: got none, want one")
	}
	return revoked.ActorOf(cl)
}

func TestRemove_NodeAnswers_AdvisesLeave(t *testing.T) {
	t.Parallel()
	c := nodetest.Start(t, nodetest.Options{Nodes: 4, Node: func(_ int, conf *node.Config) { patient(conf) }})
	for name, m := range map[string]*nodetest.Member{"follower": c.Follower(), "leader": c.Leader()} {
		t.Run(name, func(t *testing.T) {
			err := change(c, func(ctx context.Context) (uint64, error) {
				return c.Members[0].Node.Remove(ctx, admin(c), m.ID, false, "")
			})
			if !errors.Is(err, revoked.ErrConflict) || !strings.Contains(err.Error(), "revoked leave") {
				t.Errorf("got %v, want %v that mentions leave", err, revoked.ErrConflict)
			}
		})
	}
	if got := len(members(t, c)); got != 4 {
		t.Fatalf("got %d members, want 4", got)
	}
	m, by := c.Follower(), c.Leader()
	if err := change(c, func(ctx context.Context) (uint64, error) {
		return by.Node.Remove(ctx, admin(c), m.ID, true, "test")
	}); err != nil {
		t.Errorf("forced: got %v, want nil", err)
	}
	wantEnd(t, m.Node, revoked.ErrForbidden, "node "+m.ID+" was removed from its cluster")
	silent := c.Follower()
	if silent == m {
		for _, o := range c.Members {
			if o != m && o != c.Leader() {
				silent = o
			}
		}
	}
	silent.Stop()
	c.Until(silent.ID+" is silent", func() bool { return !members(t, c)[silent.ID].Alive })
	if err := change(c, func(ctx context.Context) (uint64, error) {
		return c.Leader().Node.Remove(ctx, admin(c), silent.ID, false, "")
	}); err != nil {
		t.Errorf("silent node: got %v, want nil", err)
	}
}

func TestDemote_UntilPromoted_StaysNonVoter(t *testing.T) {
	t.Parallel()
	c := nodetest.Start(t, nodetest.Options{})
	for name, pick := range map[string]func() *nodetest.Member{"leader": c.Leader, "follower": c.Follower} {
		t.Run(name, func(t *testing.T) {
			m, by := pick(), c.Members[0]
			call := func(f func(context.Context, revoked.Actor, string) (uint64, error)) {
				t.Helper()
				if err := change(c, func(ctx context.Context) (uint64, error) { return f(ctx, admin(c), m.ID) }); err != nil {
					t.Fatal(err)
				}
			}
			call(by.Node.Demote)
			call(by.Node.Demote) // idempotent
			c.Until(m.ID+" is a non-voter", func() bool {
				ms := members(t, c)
				return !ms[m.ID].Voter && !ms[m.ID].Leader
			})
			call(by.Node.Promote)
			call(by.Node.Promote)
			c.Until(m.ID+" is a voter", func() bool { return members(t, c)[m.ID].Voter })
		})
	}
}

func TestDemote_Impossible_HasReason(t *testing.T) {
	t.Parallel()
	c := nodetest.Start(t, nodetest.Options{Nodes: 2})
	m := c.Follower()
	m.Stop()
	m.Start()
	c.WaitReady()
	n := c.Leader().Node
	for _, f := range []func(context.Context, revoked.Actor, string) (uint64, error){n.Demote, n.Promote} {
		err := change(c, func(ctx context.Context) (uint64, error) { return f(ctx, admin(c), "none") })
		if !errors.Is(err, revoked.ErrNotFound) {
			t.Errorf("unknown node: got %v, want %v", err, revoked.ErrNotFound)
		}
	}
	if err := change(c, func(ctx context.Context) (uint64, error) { return n.Demote(ctx, admin(c), m.ID) }); err != nil {
		t.Fatal(err)
	}
	lead := c.Leader()
	err := change(c, func(ctx context.Context) (uint64, error) { return lead.Node.Demote(ctx, admin(c), lead.ID) })
	if !errors.Is(err, revoked.ErrQuorumRisk) {
		t.Errorf("last voter: got %v, want %v", err, revoked.ErrQuorumRisk)
	}
	m.Stop()
	c.Until("the leader misses the node", func() bool { return !members(t, c)[m.ID].Alive })
	err = change(c, func(ctx context.Context) (uint64, error) { return lead.Node.Promote(ctx, admin(c), m.ID) })
	if !errors.Is(err, revoked.ErrUnprocessable) {
		t.Errorf("silent node: got %v, want %v", err, revoked.ErrUnprocessable)
	}
}

// A voter that is started with non_voter is demoted. It became a leader when the setting was
// ignored.
func TestNonVoter_SetOnVoter_IsDemoted(t *testing.T) {
	t.Parallel()
	var replica string
	c := nodetest.Start(t, nodetest.Options{Node: func(_ int, conf *node.Config) {
		conf.NonVoter = conf.NodeID == replica
	}})
	m := c.Leader()
	replica = m.ID
	m.Restart()
	c.Until(m.ID+" is demoted", func() bool { return !members(t, c)[m.ID].Voter })
	c.WaitReady()
	err := change(c, func(ctx context.Context) (uint64, error) { return c.Leader().Node.Promote(ctx, admin(c), m.ID) })
	if !errors.Is(err, revoked.ErrUnprocessable) || !strings.Contains(err.Error(), "non_voter") {
		t.Errorf("promote: got %v, want %v that mentions non_voter", err, revoked.ErrUnprocessable)
	}
}
