package node_test

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"testing"

	"revoked"
	"revoked/node"
	"revoked/node/nodetest"
)

// backUp makes a cluster with one live and one revoked pair, and returns a backup of it that is older
// than a second revocation.
func backUp(t *testing.T) (backup []byte) {
	t.Helper()
	c := nodetest.Start(t, nodetest.Options{Nodes: 1})
	m := c.Members[0]
	register(t, m, "live")
	dead, _ := register(t, m, "dead")
	late, _ := register(t, m, "late")
	for i, token := range []string{dead, late} {
		if i == 1 {
			var b bytes.Buffer
			if err := m.Node.Snapshot(context.Background(), &b); err != nil {
				t.Fatal(err)
			}
			backup = b.Bytes()
		}
		if r := m.Form("/oauth2/revoke", "app", url.Values{"token": {token}}); r.Status != 200 {
			t.Fatalf("revoke: got %d %s", r.Status, r.Body)
		}
	}
	return backup
}

func TestABackupSeedsANewClusterThatOthersJoin(t *testing.T) {
	backup := backUp(t)
	for _, tc := range []struct {
		name   string
		accept bool
		live   bool
	}{
		{"without a statement of loss everything issued before the restore is dead", false, false},
		{"with one, what was revoked after the backup is back", true, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			c := nodetest.Start(t, nodetest.Options{Nodes: 1, NoWait: true})
			m := c.Members[0]
			m.Stop()
			m.Wipe()
			h, err := node.Seed(context.Background(), filepath.Join(m.Dir, "data"), bytes.NewReader(backup),
				node.SeedOptions{NodeID: m.ID, AcceptLoss: tc.accept, Reason: "a drill"})
			if err != nil {
				t.Fatal(err)
			}
			if h.Grants != 3 && h.Grants != 2 {
				t.Errorf("header: got %d grants", h.Grants)
			}
			m.Start()
			c.WaitReady()
			second := c.Add()
			second.Start()
			if r := second.JSON(http.MethodPost, "/v1/cluster/join", "admin", fmt.Sprintf(`{"addresses":[%q]}`, m.ClusterAddr())); r.Status != 200 {
				t.Fatalf("join: got %d %s", r.Status, r.Body)
			}
			c.WaitReady()
			for _, m := range c.Members {
				if isActive(t, m, "resource_server", "at-dead") {
					t.Errorf("%s: a token that was revoked before the backup is active", m.ID)
				}
				for _, token := range []string{"at-live", "at-late"} {
					if got := isActive(t, m, "resource_server", token); got != tc.live {
						t.Errorf("%s: %s: got active %v, want %v", m.ID, token, got, tc.live)
					}
				}
			}
			fresh, _ := register(t, second, "fresh-"+fmt.Sprint(tc.accept))
			_ = fresh
		})
	}
}

func TestASeedNeedsANewDirectoryAndAWholeBackup(t *testing.T) {
	backup := backUp(t)
	dir := t.TempDir()
	cut := filepath.Join(dir, "cut")
	if _, err := node.Seed(context.Background(), cut, bytes.NewReader(backup[:len(backup)-1]), node.SeedOptions{NodeID: "n"}); err == nil {
		t.Error("a backup that was cut off: got nil, want an error")
	}
	if _, err := node.Seed(context.Background(), cut, bytes.NewReader(backup), node.SeedOptions{NodeID: "n"}); err != nil {
		t.Errorf("after a failed attempt: got %v, want nil", err)
	}
	if _, err := node.Seed(context.Background(), cut, bytes.NewReader(backup), node.SeedOptions{NodeID: "n"}); err == nil || !strings.Contains(err.Error(), revoked.ErrConflict.Error()) {
		t.Errorf("into a directory in use: got %v, want a refusal", err)
	}
}
