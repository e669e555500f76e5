package node_test

import (
	"os"
	"path/filepath"
	"testing"

	"revoked"
	"revoked/node/nodetest"
)

// image stops a member, copies its data directory and starts it again. put replaces the directory
// of the stopped member with the copy.
func image(t *testing.T, m *nodetest.Member) (put func()) {
	t.Helper()
	data, copied := filepath.Join(m.Dir, "data"), filepath.Join(t.TempDir(), "image")
	m.Stop()
	if err := os.CopyFS(copied, os.DirFS(data)); err != nil {
		t.Fatal(err)
	}
	m.Start()
	return func() {
		m.Wipe()
		if err := os.CopyFS(data, os.DirFS(copied)); err != nil {
			t.Fatal(err)
		}
	}
}

// awaitMark waits until a member has stored that another one had applied an index above after.
func awaitMark(c *nodetest.Cluster, m, of *nodetest.Member, after uint64) {
	c.T.Helper()
	c.Until(m.ID+" has recorded the progress of "+of.ID, func() bool { return m.Node.MarkOf(of.Node.Server()) > after })
}

// A leader without any report of a voter, because it restarted after the voter stopped, notices
// that the voter's disk was rolled back.
func TestRolledBack_ChangeOfLeader_IsNoticed(t *testing.T) {
	t.Parallel()
	c := nodetest.Start(t, nodetest.Options{})
	v := c.Follower()
	register(t, v, "g") // marks begin with the first command of version 2
	put := image(t, v)
	c.WaitReady()
	at := c.Leader().Node.Applied()
	for _, m := range c.Members {
		awaitMark(c, m, v, at)
	}
	v.Stop()
	for _, m := range c.Members {
		if m != v {
			m.Restart()
			c.WaitReady()
		}
	}
	put()
	v.Start()
	wantEnd(t, v.Node, revoked.ErrConflict, "rolled back to an older image")
}

// A voter stored a revocation that the candidate lacks, and lost it: its disk was rolled back. It
// must not vote for that candidate, even though the only other copy is down.
func TestRolledBack_VoteForOlderLog_IsRefused(t *testing.T) {
	t.Parallel()
	c := nodetest.Start(t, nodetest.Options{})
	a, v := c.Leader(), c.Follower()
	var b *nodetest.Member
	for _, m := range c.Members {
		if m != a && m != v {
			b = m
		}
	}
	token, _ := register(t, a, "g")
	put := image(t, v)
	c.WaitReady()
	awaitMark(c, b, v, c.Leader().Node.Applied())
	b.Stop()
	c.Leader()
	revoke(t, v, token)
	a.Stop()
	v.Stop()
	put()
	b.Start()
	v.Start()
	wantEnd(t, v.Node, revoked.ErrConflict, "rolled back to an older image")
	v.Stop()
	a.Start()
	c.WaitReady()
	if isActive(t, b, "app", token) {
		t.Errorf("introspect the revoked token on %s: got active, want inactive", b.ID)
	}
}
