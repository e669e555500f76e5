//go:build system

package systemtest

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"revoked/internal/durable"
)

// A rotation is a cluster whose nodes each have their own CA file, and the directory in which an
// operator runs `revoked cert rotate-ca`.
type rotation struct {
	c   *cluster
	dir string
	env []string
}

func startRotation(t *testing.T, n int) *rotation {
	c := newCluster(t, n)
	admin := c.Clients["admin"]
	r := &rotation{c: c, dir: t.TempDir(), env: []string{"REVOKED_ADDR=" + c.Nodes[0].API, "REVOKED_CACERT=" + c.CA,
		"REVOKED_CLIENT_ID=" + admin.ClientID, "REVOKED_CLIENT_SECRET=" + admin.ClientSecret}}
	for _, m := range c.Nodes {
		m.args = []string{"--cluster-ca", r.caOf(m)}
		r.copy(t, filepath.Join(c.dir, "ca.pem"), r.caOf(m))
	}
	r.copy(t, filepath.Join(c.dir, "ca.pem"), filepath.Join(r.dir, "ca.pem"))
	c.startAll(t)
	c.awaitReady(t, c.Nodes...)
	return r
}

func (r *rotation) caOf(m *member) string { return filepath.Join(r.c.dir, m.ID+"-trusts.pem") }

// copy replaces a file as an operator should: by a rename.
func (r *rotation) copy(t *testing.T, from, to string) {
	t.Helper()
	data, err := os.ReadFile(from)
	if err == nil {
		err = durable.Replace(to, data, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// run runs the command and returns all that it prints.
func (r *rotation) run(t *testing.T, args ...string) string {
	t.Helper()
	code, out, messages := runProgram(t, r.env, "", append([]string{"cert", "rotate-ca", "--dir", r.dir}, args...)...)
	if code != 0 {
		t.Fatalf("rotate-ca %s: got exit code %d: %s%s", args, code, out, messages)
	}
	return out + messages
}

// await runs the command until it prints all of want.
func (r *rotation) await(t *testing.T, want ...string) {
	t.Helper()
	await(t, strings.Join(want, ", "), func() error {
		code, out, messages := runProgram(t, r.env, "", "cert", "rotate-ca", "--dir", r.dir)
		for _, w := range want {
			if code != 0 || !strings.Contains(out+messages, w) {
				return fmt.Errorf("exit code %d: %s%s, want %q", code, out, messages, w)
			}
		}
		return nil
	})
}

// A cluster moves to another CA while it revokes. No caller loses its connection, every step shows
// the nodes that are left, and a node that restarts finds the others.
func TestRotateCA_UnderLoad_NodesStayConnected(t *testing.T) {
	r := startRotation(t, 3)
	c := r.c
	l := startLoad(t, c, 4, 40)
	next := func(name string) string { return filepath.Join(r.dir, "next-"+name) }

	if out := r.run(t); !strings.Contains(out, "would write") {
		t.Errorf("got %s, want the files that it would write", out)
	}
	if _, err := os.Stat(next("ca.pem")); err == nil {
		t.Error("got next-ca.pem without --write, want no file")
	}
	r.run(t, "--write")
	r.await(t, "Copy both-ca.pem over cluster_ca of node1, node2, node3.")
	for i, m := range c.Nodes {
		r.copy(t, filepath.Join(r.dir, "both-ca.pem"), r.caOf(m))
		if i == 0 {
			r.await(t, "Copy both-ca.pem over cluster_ca of node2, node3.")
		}
	}
	r.await(t, "would write "+next("node3.pem"))
	r.run(t, "--write")
	for _, m := range c.Nodes {
		r.copy(t, next(m.ID+"-key.pem"), filepath.Join(c.dir, m.ID+"-key.pem"))
		r.copy(t, next(m.ID+".pem"), filepath.Join(c.dir, m.ID+".pem"))
	}
	r.await(t, "Copy next-ca.pem over cluster_ca of node1, node2, node3.")
	for _, m := range c.Nodes {
		r.copy(t, next("ca.pem"), r.caOf(m))
	}
	r.await(t, "would write "+filepath.Join(r.dir, "ca.pem"))
	if out := r.run(t, "--write"); !strings.Contains(out, "The rotation is complete") {
		t.Errorf("got %s, want the end of the rotation", out)
	}
	if n := l.unanswered.Load(); n != 0 {
		t.Errorf("got %d requests without an answer, want none", n)
	}
	t.Logf("%d revocations, %d answers 503", l.revoked.Load(), l.unavailable.Load())
	c.Nodes[2].proc.Kill()
	c.start(t, c.Nodes[2])
	c.awaitReady(t, c.Nodes...)
	l.end(t, c.Nodes...)
	if out := r.run(t); strings.Contains(out, "would write") || !strings.Contains(out, "The rotation is complete") {
		t.Errorf("got %s, want nothing left to do", out)
	}
	r.isComplete(t)
}

// isComplete checks that the directory has the next CA in place of the old one, with a key for its
// owner only. The next run begins another rotation.
func (r *rotation) isComplete(t *testing.T) {
	t.Helper()
	now, err := os.ReadFile(filepath.Join(r.dir, "ca.pem"))
	if err != nil {
		t.Fatal(err)
	}
	if next, err := os.ReadFile(filepath.Join(r.dir, "next-ca.pem")); err != nil || string(next) != string(now) {
		t.Errorf("got another ca.pem than next-ca.pem, %v", err)
	}
	if st, err := os.Stat(filepath.Join(r.dir, "ca-key.pem")); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("ca-key.pem: got %v, %v, want mode 0600", st, err)
	}
	leftovers, err := filepath.Glob(filepath.Join(r.dir, "next-*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range leftovers {
		if err := os.Remove(name); err != nil {
			t.Fatal(err)
		}
	}
	if out := r.run(t); !strings.Contains(out, "make the next CA") {
		t.Errorf("got %s, want the first step of another rotation", out)
	}
}
