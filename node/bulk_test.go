package node_test

import (
	"errors"
	"fmt"
	"sync"
	"testing"

	"revoked"
	"revoked/node"
	"revoked/node/nodetest"
)

// Imports run through all nodes concurrently, together with revocations. Every registration
// succeeds, and its result has the index of its own entry.
func TestRegisterBulk_ThroughEveryNode_RegistersAll(t *testing.T) {
	t.Parallel()
	c := nodetest.Start(t, nodetest.Options{Node: func(_ int, conf *node.Config) { patient(conf) }})
	issuer, ok := c.Leader().Node.Client("issuer")
	if !ok {
		t.Fatal("got no client issuer")
	}
	const each = 700
	var callers sync.WaitGroup
	for n, m := range c.Members {
		callers.Go(func() {
			regs := make([]revoked.Registration, each)
			for i := range regs {
				name := fmt.Sprintf("%d-%d", n, i)
				regs[i] = revoked.Registration{ClientID: "app", GrantID: "g-" + name, Tokens: []revoked.TokenRegistration{{
					Digest: revoked.DigestToken("bulk-" + name), Kind: revoked.AccessToken,
				}}}
			}
			var results []revoked.RegisterResult
			var err error
			attempts := 0
			c.Await("the import", func() bool {
				attempts++
				results, err = m.Node.RegisterBulk(t.Context(), revoked.ActorOf(issuer), regs)
				return !errors.Is(err, revoked.ErrNoLeader) && !errors.Is(err, revoked.ErrOutcomeUnknown)
			})
			if err != nil || len(results) != each {
				t.Errorf("node %d: got %d results, %v, want %d", n, len(results), err, each)
				return
			}
			for i, r := range results {
				first := r.Created && (i == 0 || r.Index >= results[i-1].Index)
				if r.Err != nil || r.GrantID != regs[i].GrantID || !first && attempts == 1 {
					t.Errorf("node %d, result %d: got %+v, want it created, in the order of the log", n, i, r)
					return
				}
			}
		})
	}
	access, refresh := register(t, c.Follower(), "single")
	revoke(t, c.Leader(), refresh)
	callers.Wait()
	for _, m := range c.Members {
		if isActive(t, m, "resource_server", access) {
			t.Errorf("%s: got the revoked token active", m.ID)
		}
		for n := range c.Members {
			if name := fmt.Sprintf("bulk-%d-%d", n, each-1); !isActive(t, m, "resource_server", name) {
				t.Errorf("%s: %s: got inactive, want it active", m.ID, name)
			}
		}
	}
}
