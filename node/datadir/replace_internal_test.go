package datadir

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"revoked"
	"revoked/node/raftstore"
)

// fill writes the files of a member of a cluster to dir.
func fill(t *testing.T, dir, nodeID, cluster string) {
	t.Helper()
	id, err := Generate(dir, nodeID)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := id.Bind(cluster); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{raftstore.LogFile, filepath.Join(StateDir, "CURRENT"),
		filepath.Join(raftstore.SnapshotDir, "one")} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(cluster), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// stagedMember returns the directory of a member of the cluster "old", which contains a staged
// member of the cluster "new".
func stagedMember(t *testing.T) (dir string) {
	t.Helper()
	dir = t.TempDir()
	fill(t, dir, "node1", "old")
	staged, err := Stage(dir)
	if err != nil {
		t.Fatal(err)
	}
	fill(t, staged, "node1", "new")
	if err := os.WriteFile(filepath.Join(staged, RecordFile), []byte("new"), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

// wantMember fails the test unless the next start finds all files of a member of the named cluster,
// and no others.
func wantMember(t *testing.T, what, dir, cluster string) {
	t.Helper()
	id, err := Open(dir, "node1", false)
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	defer id.Close()
	if id.Cluster() != cluster {
		t.Errorf("%s: got a member of %s, want %s", what, id.Cluster(), cluster)
	}
	for _, name := range []string{raftstore.LogFile, filepath.Join(StateDir, "CURRENT"),
		filepath.Join(raftstore.SnapshotDir, "one")} {
		if b, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(b) != cluster {
			t.Errorf("%s: %s: got that of %q, %v, want %q", what, name, b, err, cluster)
		}
	}
	for _, name := range []string{stagedDir, readyDir} {
		if exists(filepath.Join(dir, name)) {
			t.Errorf("%s: got a leftover %s", what, name)
		}
	}
	if got := exists(filepath.Join(dir, RecordFile)); got != (cluster == "new") {
		t.Errorf("%s: got a record %t", what, got)
	}
}

// After a crash between any two steps, and after a second run of each step, dir contains one whole
// member.
func TestReplace_CrashAtAnyStep_OneWholeMember(t *testing.T) {
	dir := stagedMember(t)
	wantMember(t, "before Replace", dir, "old")

	dir = stagedMember(t)
	if err := Replace(dir); err != nil {
		t.Fatal(err)
	}
	wantMember(t, "after Replace", dir, "new")

	for k := range len(replaceSteps("")) + 1 {
		dir := stagedMember(t)
		ready := filepath.Join(dir, readyDir)
		if err := os.Rename(filepath.Join(dir, stagedDir), ready); err != nil {
			t.Fatal(err)
		}
		for _, step := range replaceSteps(dir)[:k] {
			if err := errors.Join(step(), step()); err != nil {
				t.Fatalf("step %d: %v", k, err)
			}
		}
		// Simulate a crash in the middle of the next step, which has removed a part of a directory.
		if exists(filepath.Join(ready, StateDir)) {
			if err := os.Remove(filepath.Join(dir, StateDir, "CURRENT")); err != nil {
				t.Fatal(err)
			}
		}
		if 0 < k && exists(filepath.Join(ready, identityFile)) && exists(filepath.Join(dir, identityFile)) {
			t.Errorf("after %d steps: got an identity in a directory of two members", k)
		}
		wantMember(t, "after some steps", dir, "new")
	}
}

func TestOpenMember_NotAMember_Refused(t *testing.T) {
	dir := t.TempDir()
	if _, _, err := OpenMember(dir); !errors.Is(err, revoked.ErrUnprocessable) {
		t.Errorf("empty directory: got %v, want %v", err, revoked.ErrUnprocessable)
	}
	fill(t, dir, "node1", "old")
	id, unlock, err := OpenMember(dir)
	if err != nil || id.ClusterID != "old" || id.Server == "" {
		t.Fatalf("member: got %v, %v", id, err)
	}
	if _, _, err := OpenMember(dir); !errors.Is(err, revoked.ErrConflict) {
		t.Errorf("in use: got %v, want %v", err, revoked.ErrConflict)
	}
	if err := unlock(); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, raftstore.LogFile)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := OpenMember(dir); !errors.Is(err, revoked.ErrDamaged) {
		t.Errorf("no log: got %v, want %v", err, revoked.ErrDamaged)
	}
}

func TestOpenMember_InterruptedReplace_IsReported(t *testing.T) {
	dir := stagedMember(t)
	if err := os.Rename(filepath.Join(dir, stagedDir), filepath.Join(dir, readyDir)); err != nil {
		t.Fatal(err)
	}
	id, unlock, err := OpenMember(dir)
	if err != nil || id != nil {
		t.Fatalf("got %v, %v, want neither", id, err)
	}
	if done, err := Complete(dir); err != nil || !done {
		t.Errorf("complete: got %t, %v, want true", done, err)
	}
	if err := unlock(); err != nil {
		t.Fatal(err)
	}
	wantMember(t, "completed", dir, "new")
}
