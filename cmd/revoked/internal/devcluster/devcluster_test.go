package devcluster_test

import (
	"context"
	"errors"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"revoked/cmd/revoked/internal/devcluster"
)

func TestStart_Child_RunsUntilKilled(t *testing.T) {
	p, err := devcluster.Start(exec.Command("sleep", "60"))
	if err != nil {
		t.Skip(err)
	}
	if !p.Running() {
		t.Error("got an exited process, want it running")
	}
	if group, err := syscall.Getpgid(p.PID()); err != nil || group != p.PID() {
		t.Errorf("got process group %d, %v, want its own", group, err)
	}
	p.Kill()
	if p.Running() || devcluster.ExitReason(p.Err()) != "signal: killed" {
		t.Errorf("got %s after Kill, want signal: killed", devcluster.ExitReason(p.Err()))
	}
}

func TestStart_MissingProgram_IsAnError(t *testing.T) {
	if _, err := devcluster.Start(exec.Command("/does/not/exist")); err == nil {
		t.Error("got no error")
	}
}

func TestPoll_EndOfContext_NamesCauseAndLastError(t *testing.T) {
	cause, last := errors.New("took too long"), errors.New("not yet")
	for range 50 { // a tick is due each time that ctx ends: neither may win by chance
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithCancelCause(t.Context())
			calls := 0
			err := devcluster.Poll(ctx, time.Second, func(context.Context) error {
				time.Sleep(2 * time.Second)
				if calls++; calls == 3 {
					cancel(cause)
				}
				return last
			})
			if !errors.Is(err, cause) || !errors.Is(err, last) || calls != 3 {
				t.Errorf("got %v after %d calls, want both errors after 3", err, calls)
			}
		})
	}
	if err := devcluster.Poll(t.Context(), time.Millisecond, func(context.Context) error { return nil }); err != nil {
		t.Errorf("got %v, want nil", err)
	}
}

func TestWrite_ThenRead_ReturnsTheCluster(t *testing.T) {
	name := filepath.Join(t.TempDir(), "dev.json")
	c := &devcluster.Cluster{ClusterID: "c", Nodes: []devcluster.Node{{ID: "node1", PID: 7}}}
	if err := c.Write(name); err != nil {
		t.Fatal(err)
	}
	got, err := devcluster.Read(name)
	if err != nil || got.ClusterID != "c" || len(got.Nodes) != 1 || got.Nodes[0] != c.Nodes[0] {
		t.Errorf("got %+v, %v, want %+v", got, err, c)
	}
	if _, err := c.TLS(); err == nil || strings.Contains(err.Error(), "panic") {
		t.Errorf("without a CA: got %v, want an error", err)
	}
}
