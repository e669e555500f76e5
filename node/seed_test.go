package node_test

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"revoked"
	"revoked/node/nodetest"
	"revoked/node/recovery"
)

// backUp returns a backup of a cluster with a valid pair, a revoked pair, and a pair that is
// revoked after the backup.
func backUp(t *testing.T) (backup []byte) {
	t.Helper()
	c := nodetest.Start(t, nodetest.Options{Nodes: 1})
	m := c.Members[0]
	register(t, m, "valid")
	ended, _ := register(t, m, "ended")
	late, _ := register(t, m, "late")
	for i, token := range []string{ended, late} {
		if i == 1 {
			var b bytes.Buffer
			if err := m.Node.Snapshot(context.Background(), &b); err != nil {
				t.Fatal(err)
			}
			backup = b.Bytes()
		}
		revoke(t, m, token)
	}
	return backup
}

func TestSeed_NewCluster_AcceptsJoins(t *testing.T) {
	t.Parallel()
	backup := backUp(t)
	for _, tc := range []struct {
		name   string
		accept bool
		active bool
	}{
		{"without accept_loss", false, false},
		{"with accept_loss", true, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := nodetest.Start(t, nodetest.Options{Nodes: 1, NoWait: true})
			m := c.Members[0]
			m.Stop()
			m.Wipe()
			h, err := recovery.Seed(filepath.Join(m.Dir, "data"), bytes.NewReader(backup),
				recovery.SeedOptions{NodeID: m.ID, AcceptLoss: tc.accept, Reason: "test"})
			if err != nil {
				t.Fatal(err)
			}
			if h.Grants != 3 && h.Grants != 2 {
				t.Errorf("header: got %d grants, want 2 or 3", h.Grants)
			}
			m.Start()
			c.WaitReady()
			second := joinNew(t, c)
			c.WaitReady()
			for _, m := range c.Members {
				if isActive(t, m, "resource_server", "at-ended") {
					t.Errorf("token revoked before the backup on %s: got active, want inactive", m.ID)
				}
				for _, token := range []string{"at-valid", "at-late"} {
					if got := isActive(t, m, "resource_server", token); got != tc.active {
						t.Errorf("%s on %s: got active %t, want %t", token, m.ID, got, tc.active)
					}
				}
			}
			undated := `{"client_id":"app","access_token":{"token":"at-undated"}}`
			want := http.StatusUnprocessableEntity // it may have been revoked after the backup
			if tc.accept {
				want = http.StatusCreated
			}
			registration := func(body string) nodetest.Reply {
				return second.Decided(func() nodetest.Reply { return second.JSON(http.MethodPost, "/v1/grants", "issuer", body) })
			}
			if r := registration(undated); r.Status != want && (!tc.accept || r.Status != http.StatusOK) {
				t.Errorf("token without issued_at: got %d %s, want %d", r.Status, r.Body, want)
			}
			dated := fmt.Sprintf(`{"client_id":"app","access_token":{"token":"at-new","issued_at":%d}}`,
				h.Stamp.Unix()+1)
			if r := registration(dated); r.Status != http.StatusCreated && r.Status != http.StatusOK {
				t.Errorf("token issued after the restore: got %d %s, want 201", r.Status, r.Body)
			}
			if !isActive(t, second, "resource_server", "at-new") {
				t.Error("token issued after the restore: got inactive, want active")
			}
		})
	}
}

func TestSeed_BadBackupOrDirectory_Fails(t *testing.T) {
	backup := backUp(t)
	dir := t.TempDir()
	cut := filepath.Join(dir, "cut")
	if _, err := recovery.Seed(cut, bytes.NewReader(backup[:len(backup)-1]),
		recovery.SeedOptions{NodeID: "n"}); err == nil {
		t.Error("truncated backup: got nil, want an error")
	}
	if _, err := recovery.Seed(cut, bytes.NewReader(backup),
		recovery.SeedOptions{NodeID: "n"}); err != nil {
		t.Errorf("after a failed attempt: got %v, want nil", err)
	}
	if _, err := recovery.Seed(cut, bytes.NewReader(backup),
		recovery.SeedOptions{NodeID: "n"}); err == nil || !strings.Contains(err.Error(), revoked.ErrConflict.Error()) {
		t.Errorf("used directory: got %v, want a conflict", err)
	}
}
