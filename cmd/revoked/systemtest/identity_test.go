//go:build system

package systemtest

import (
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
)

// A member whose data directory was put back to an older image: it is found out, ends, and says what to do;
// as a new instance it comes back.
func TestRolledBackDisk(t *testing.T) {
	c := startCluster(t, 3)
	l := startLoad(t, c, 6, 40)
	m := c.without(c.leader(t))[0]
	awaitWrites(t, l, 20)
	m.proc.kill()
	image := m.Data + ".image"
	if err := os.CopyFS(image, os.DirFS(m.Data)); err != nil {
		t.Fatal(err)
	}
	c.start(t, m)
	c.awaitReady(t, m)
	awaitWrites(t, l, 40)
	l.rest(true) // no election must make the leader forget what it has heard
	c.awaitReady(t, c.Nodes...)
	m.proc.kill()
	for _, step := range []error{os.RemoveAll(m.Data), os.Rename(image, m.Data)} {
		if step != nil {
			t.Fatal(step)
		}
	}
	c.start(t, m)
	if code := m.proc.exit(t); code != 1 {
		t.Errorf("got exit code %d, want 1", code)
	}
	for _, want := range []string{"rolled back to an older image", "move it away"} {
		if last := tail(m.Log, 4); !strings.Contains(last, want) {
			t.Errorf("its last words are %q, want %q among them", last, want)
		}
	}
	l.rest(false)
	awaitWrites(t, l, 20)
	if err := os.RemoveAll(m.Data); err != nil {
		t.Fatal(err)
	}
	c.start(t, m)
	c.awaitReady(t, m)
	c.awaitVoters(t, 3, c.Nodes...)
	l.halt()
	c.checkAgreement(t, c.Nodes...)
	l.end(t, c.Nodes...)
}

// Two processes with one identity: a copy of a member's data directory, a machine's image say, is started
// elsewhere while the member runs. The copy ends and says why; the member goes on.
func TestOneIdentityTwice(t *testing.T) {
	c := startCluster(t, 3)
	l := startLoad(t, c, 6, 40)
	m := c.without(c.leader(t))[0]
	awaitWrites(t, l, 20)
	m.proc.kill()
	clone := *m
	clone.Data, clone.Log, clone.proc = m.Data+"-clone", m.Log+"-clone", nil
	if err := os.CopyFS(clone.Data, os.DirFS(m.Data)); err != nil {
		t.Fatal(err)
	}
	c.start(t, m)
	c.awaitReady(t, m)
	port := freePorts(t, 1)
	at := func(offset int) string { return net.JoinHostPort("127.0.0.1", fmt.Sprint(port+offset)) }
	clone.API = "https://" + at(0)
	clone.args = []string{"--data-dir", clone.Data, "--api-addr", at(0), "--api-advertise", at(0), "--cluster-addr", at(1000),
		"--cluster-advertise", at(1000), "--gossip-addr", at(2000), "--gossip-advertise", at(2000)}
	c.start(t, &clone)
	if code := clone.proc.exit(t); code != 1 {
		t.Errorf("the copy ends with %d, want 1", code)
	}
	last := tail(clone.Log, 4)
	if !strings.Contains(last, "another process runs as node "+m.ID) && !strings.Contains(last, "rolled back to an older image") {
		t.Errorf("its last words are %q, want them to say what it is", last)
	}
	if !m.proc.runs() {
		t.Errorf("the member ended too: %v", m.proc.err)
	}
	awaitWrites(t, l, 20)
	c.awaitReady(t, c.Nodes...)
	l.halt()
	c.checkAgreement(t, c.Nodes...)
	l.end(t, c.Nodes...)
}
