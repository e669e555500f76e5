//go:build system

package systemtest

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// A node whose disk is full, as follower and as leader, exits with the cause. The others continue.
// Once there is free space, the node restarts with all data.
func TestFullDisk_NodeExits(t *testing.T) {
	needRoot(t, "the test's own file systems")
	need(t, "mkfs.ext4")
	need(t, "mount")
	c := newCluster(t, 3)
	small := c.Nodes[1]
	newDisk(t, small.Data, 96, "")
	c.startAll(t)
	c.awaitReady(t, c.Nodes...)
	l := startLoad(t, c, 4, 50)
	for _, role := range []string{"a follower", "the leader"} {
		t.Run(role, func(t *testing.T) {
			if role == "the leader" {
				lead(t, c, small)
			} else {
				lead(t, c, c.Nodes[0])
			}
			ballast := filepath.Join(small.Data, "ballast")
			fill(t, ballast)
			awaitFullDiskExit(t, small) // the load fills it
			c.awaitReady(t, c.Nodes[0], c.Nodes[2])
			c.mustRevoke(t, c.Nodes[0], "revoked-while-a-disk-is-full")

			c.start(t, small) // still full: it exits again
			awaitFullDiskExit(t, small)
			if err := os.Remove(ballast); err != nil {
				t.Fatal(err)
			}
			c.start(t, small)
			c.awaitReady(t, small)
			l.check(t)
		})
	}
	l.halt()
	c.awaitReady(t, c.Nodes...)
	c.checkAgreement(t, c.Nodes...)
	l.end(t, c.Nodes...)
}

// awaitFullDiskExit waits until a node exits and fails the test unless its log has cause and
// remedy.
func awaitFullDiskExit(t testing.TB, m *member) {
	t.Helper()
	if code := m.proc.exit(t); code != 1 {
		t.Errorf("got exit code %d, want 1", code)
	}
	last := tail(m.Log, 4) // errors of the shutdown may follow
	for _, want := range []string{"revoked: the node stopped: ", "no space left on device",
		"free some space and start it again"} {
		if !strings.Contains(last, want) {
			t.Errorf("got log %q, want %q in it", last, want)
		}
	}
}

// fill writes a file until the disk is full.
func fill(t testing.TB, name string) {
	t.Helper()
	f, err := os.OpenFile(name, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for block := make([]byte, 1<<20); len(block) > 0; {
		_, err := f.Write(block)
		switch {
		case errors.Is(err, syscall.ENOSPC):
			block = block[:len(block)/2]
		case err != nil && !errors.Is(err, io.ErrShortWrite):
			t.Fatal(err)
		}
	}
}

// lead makes a node the leader.
func lead(t testing.TB, c *cluster, m *member) {
	t.Helper()
	await(t, m.ID+" to lead", func() error {
		if c.leader(t) == m {
			return nil
		}
		code, _, messages := runProgram(t, c.tool("admin", c.Nodes...), "", "transfer-leader", m.ID)
		return fmt.Errorf("transfer-leader: got exit code %d: %s", code, messages)
	})
}
