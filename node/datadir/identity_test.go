package datadir_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"revoked"
	"revoked/node/datadir"
	"revoked/node/raftstore"
)

// open opens dir as node1 and closes it again.
func open(t *testing.T, dir string, rejoin bool) *datadir.Identity {
	t.Helper()
	id, err := datadir.Open(dir, "node1", rejoin)
	if err != nil {
		t.Fatal(err)
	}
	if err := id.Close(); err != nil {
		t.Fatal(err)
	}
	return id
}

// member writes the files of a member of the cluster c1 to dir.
func member(t *testing.T, dir string) *datadir.Identity {
	t.Helper()
	id := open(t, dir, false)
	if fresh, err := id.Bind("c1"); err != nil || !fresh {
		t.Fatalf("first bind: got %v, %v, want true", fresh, err)
	}
	write(t, filepath.Join(dir, raftstore.LogFile), "log")
	if err := os.Mkdir(filepath.Join(dir, datadir.StateDir), 0o700); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, datadir.StateDir, "CURRENT"), "1")
	return id
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestOpen_SameDirectory_IsSameInstance(t *testing.T) {
	dir := t.TempDir()
	first := member(t, dir)
	again := open(t, dir, false)
	if again.Server != first.Server || again.Instance != first.Instance || again.Cluster() != "c1" {
		t.Errorf("got %s of cluster %q, want %s of c1", again.Server, again.Cluster(), first.Server)
	}
	if string(again.Boot) == string(first.Boot) {
		t.Error("got the same boot id for two starts, want another")
	}
	if got := datadir.NodeOf(again.Server); got != "node1" {
		t.Errorf("node of %s: got %q, want node1", again.Server, got)
	}
	if other := open(t, t.TempDir(), false); other.Server == first.Server {
		t.Errorf("another directory: got the same instance %s, want another", other.Server)
	}
}

// A node that started from one of these directories could vote twice, or serve from an incomplete
// state.
func TestOpen_UnsafeDirectory_Refused(t *testing.T) {
	remove := func(name string) func(*testing.T, string) {
		return func(t *testing.T, dir string) {
			member(t, dir)
			if err := os.Remove(filepath.Join(dir, name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, tt := range []struct {
		name    string
		prepare func(t *testing.T, dir string)
		want    string
		is      error
	}{
		{"data without an identity", remove("identity.json"), "has raft.db, state but no identity.json", nil},
		{"no log", remove(raftstore.LogFile), "file is missing", revoked.ErrDamaged},
		{"no state", remove(filepath.Join(datadir.StateDir, "CURRENT")), "file is missing", revoked.ErrDamaged},
		{"empty log", func(t *testing.T, dir string) {
			member(t, dir)
			write(t, filepath.Join(dir, raftstore.LogFile), "")
		}, "file is empty", revoked.ErrDamaged},
		{"not an identity", func(t *testing.T, dir string) {
			write(t, filepath.Join(dir, "identity.json"), `{"node_id":"node1"}`)
		}, "node id or instance is missing", revoked.ErrDamaged},
		{"another node", func(t *testing.T, dir string) {
			write(t, filepath.Join(dir, "identity.json"), `{"node_id":"node2","instance":"a"}`)
		}, `got "node2", want node_id "node1"`, nil},
		{"left its cluster", func(t *testing.T, dir string) {
			if err := member(t, dir).MarkLeft(); err != nil {
				t.Fatal(err)
			}
		}, "node has left cluster c1", nil},
		{"in use", func(t *testing.T, dir string) {
			id, err := datadir.Open(dir, "node1", false)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = id.Close() })
		}, "in use by another process", revoked.ErrConflict},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			tt.prepare(t, dir)
			id, err := datadir.Open(dir, "node1", false)
			if err == nil {
				_ = id.Close()
			}
			if got := datadir.Check(dir, "node1", false); tt.name != "in use" && fmt.Sprint(got) != fmt.Sprint(err) {
				t.Errorf("check: got %v, want %v", got, err) // the caller of Check holds the lock
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) || tt.is != nil && !errors.Is(err, tt.is) {
				t.Errorf("got %v, want an error with %q (%v)", err, tt.want, tt.is)
			}
		})
	}
}

func TestOpen_Rejoin_IsNewInstanceWithoutData(t *testing.T) {
	dir := t.TempDir()
	first := member(t, dir)
	if again := open(t, dir, true); again.Server != first.Server {
		t.Errorf("a member that rejoins: got instance %s, want %s", again.Server, first.Server)
	}
	if err := first.MarkLeft(); err != nil {
		t.Fatal(err)
	}
	if err := datadir.Check(dir, "node1", true); err != nil {
		t.Errorf("check: got %v, want nil", err)
	}
	if _, err := os.Stat(filepath.Join(dir, raftstore.LogFile)); err != nil {
		t.Errorf("check: got %v, want the old log kept", err)
	}
	again := open(t, dir, true)
	if again.Server == first.Server || again.Cluster() != "" {
		t.Errorf("got %s of cluster %q, want a new instance without one", again.Server, again.Cluster())
	}
	if _, err := os.Stat(filepath.Join(dir, raftstore.LogFile)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("log of the old instance: got %v, want it deleted", err)
	}
}

func TestBind_OtherCluster_Refused(t *testing.T) {
	id := member(t, t.TempDir())
	if fresh, err := id.Bind("c1"); err != nil || fresh {
		t.Errorf("the same cluster: got %v, %v, want false", fresh, err)
	}
	if _, err := id.Bind("c2"); !errors.Is(err, revoked.ErrUnprocessable) {
		t.Errorf("another cluster: got %v, want %v", err, revoked.ErrUnprocessable)
	}
	if got := id.Cluster(); got != "c1" {
		t.Errorf("cluster: got %q, want c1", got)
	}
}

func TestClear_LeavesNothingBehind(t *testing.T) {
	dir := t.TempDir()
	member(t, dir)
	if err := datadir.Clear(dir); err != nil {
		t.Fatal(err)
	}
	left, err := os.ReadDir(dir)
	if err != nil || len(left) > 0 {
		t.Errorf("got %v, %v, want an empty directory", left, err)
	}
}
