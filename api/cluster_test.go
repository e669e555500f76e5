package api_test

import (
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"revoked"
	"revoked/api"
)

func TestCluster_Calls_ReachBackend(t *testing.T) {
	b := newAdminBench(t)
	b.node.nodes = []revoked.Member{{NodeID: "n2", Leader: true}} // an answer does not wait for the id of a leader
	for _, tt := range []struct{ path, body, call string }{
		{"join", `{"addresses":["10.0.0.1:7443","[::1]:7443"]}`, "join [10.0.0.1:7443 [::1]:7443]"},
		{"leave", `{}`, "leave"}, {"leave", ``, "leave"},
		{"remove", `{"node":"n3"}`, `remove n3 false ""`},
		{"remove", `{"node":"n3","force":true,"reason":"burnt"}`, `remove n3 true "burnt"`},
		{"transfer-leader", `{"node":"n2"}`, `transfer-leader "n2"`}, {"transfer-leader", ``, `transfer-leader ""`},
		{"transfer-leader", "\ufeff", `transfer-leader ""`},
	} {
		got := b.do(t, "admin", "POST", "/v1/cluster/"+tt.path, "", tt.body)
		if got.status != 200 || got.field(t, "index").(float64) == 0 {
			t.Errorf("%s %s: got %d %s, want 200 {index}", tt.path, tt.body, got.status, got.body)
			continue
		}
		if call := b.node.calls[len(b.node.calls)-1]; call != tt.call {
			t.Errorf("got %s, want %s", call, tt.call)
		}
	}
	for _, tt := range []struct {
		path, body string
		want       int
	}{
		{"join", `{}`, 400}, {"join", `{"addresses":[]}`, 400}, {"join", `{"addresses":["nowhere"]}`, 400},
		{"join", `{"addresses":["h:99999"]}`, 400},
		{"leave", `{"now":true}`, 400}, {"remove", `{}`, 400}, {"remove", `{"node":"n","force":true}`, 422},
		{"transfer-leader", `{"node":""}`, 400},
	} {
		if got := b.do(t, "admin", "POST", "/v1/cluster/"+tt.path, "", tt.body); got.status != tt.want {
			t.Errorf("%s %s: got %d %s, want %d", tt.path, tt.body, got.status, got.body, tt.want)
		}
	}
	b.node.mu.Lock()
	b.node.fail = func(string) error { return fmt.Errorf("%w: two of three would be left", revoked.ErrQuorumRisk) }
	b.node.mu.Unlock()
	if got := b.do(t, "admin", "POST", "/v1/cluster/leave", "", ""); got.status != 409 {
		t.Errorf("got %d, want 409", got.status)
	}
}

func TestCluster_StatusAndMembers_AreShown(t *testing.T) {
	b := newAdminBench(t)
	b.node.nodes = []revoked.Member{{NodeID: "n1", Region: "eu", Voter: true, LastContact: -1}}
	got := b.do(t, "admin", "GET", "/v1/members", "", "")
	want := `{"members":[{"node_id":"n1","region":"eu","api":"","cluster":"","voter":true,"leader":false,"alive":false,"applied_index":0,"behind":0,"last_contact_ms":-1,"lease_left_ms":0,"version":""}],"voting":{"voters":1,"voters_up":0,"quorum":1,"failure_tolerance":0,"region_failure_tolerance":0,"regions":[{"region":"eu","voters":1,"voters_up":0,"survivable":false}]}}`
	if got.status != 200 || strings.TrimSpace(got.body) != want {
		t.Errorf("got %d %s, want %s", got.status, got.body, want)
	}
	got = b.do(t, "admin", "GET", "/v1/status", "", "")
	for _, name := range []string{"node_id", "cluster_id", "version", "healthy", "leader", "term", "state",
		"commit_index", "applied_index", "voters", "quorum", "lease", "log_hash", "state_hash", "hash_index", "tokens",
		"grants", "voting"} {
		if got.field(t, name) == nil {
			t.Errorf("got status %s, want the member %s", got.body, name)
		}
	}
	b.node.ready.Reasons = []string{"no leader: 1 of 3 voters reachable, 2 needed"}
	got = b.do(t, "admin", "GET", "/v1/status", "", "")
	if want := `"reasons":["no leader: 1 of 3 voters reachable, 2 needed"]`; !strings.Contains(got.body, want) {
		t.Errorf("unhealthy: got status %s, want %s", got.body, want)
	}
	if strings.Contains(got.body, "backups") {
		t.Errorf("got status %s, want no backups without a schedule", got.body)
	}
	b.node.backups = []revoked.BackupStatus{{Target: "dir", Age: 90 * time.Second}, {Target: "s3", Age: -1}}
	got = b.do(t, "admin", "GET", "/v1/status", "", "")
	if want := `"backups":[{"target":"dir","age_ms":90000},{"target":"s3","age_ms":-1}]`; !strings.Contains(got.body, want) {
		t.Errorf("with backups: got status %s, want %s", got.body, want)
	}
}

// A node that is not in a cluster has only the clients of its own bootstrap file. It does not
// reject any other secret as wrong, because the node's future cluster may accept this secret.
func TestCluster_NoCluster_NamesTheAcceptedSecret(t *testing.T) {
	b := newAdminBench(t)
	b.node.mu.Lock()
	b.node.behind = true
	b.node.mu.Unlock()
	got := b.do(t, "unknown", "POST", "/v1/cluster/join", "", `{"addresses":["10.0.0.1:7443"]}`)
	if got.status != 503 || got.header.Get("Retry-After") == "" ||
		!strings.Contains(got.body, "only the secret of its own bootstrap file is accepted") {
		t.Errorf("got %d %s, want 503 with the reason", got.status, got.body)
	}
}

func TestSnapshot_ErrorMidway_ClosesConnection(t *testing.T) {
	b := newAdminBench(t)
	b.node.snapshot = func(w io.Writer) error {
		_, err := io.WriteString(w, "the state")
		return err
	}
	got := b.do(t, "admin", "GET", "/v1/snapshot", "", "")
	if got.status != 200 || got.body != "the state" || got.header.Get("Content-Type") != "application/octet-stream" {
		t.Errorf("got %d %q %q, want 200 and the state", got.status, got.body, got.header.Get("Content-Type"))
	}
	b.node.snapshot = func(w io.Writer) error {
		if _, err := io.WriteString(w, strings.Repeat("x", 100000)); err != nil {
			return err
		}
		return fmt.Errorf("disk is gone")
	}
	req := b.request(t, "admin", "GET", "/v1/snapshot", nil)
	res, err := b.http.Do(req)
	if err == nil {
		_, err = io.ReadAll(res.Body)
		res.Body.Close()
	}
	if err == nil {
		t.Error("partial snapshot: got no error, want one")
	}
}

func TestTransferLeader_Answer_NamesTheNewLeader(t *testing.T) {
	b := newAdminBench(t)
	b.node.nodes = []revoked.Member{{NodeID: "n1"}, {NodeID: "n2", Leader: true}}
	if r := b.do(t, "admin", "POST", "/v1/cluster/transfer-leader", "", `{}`); r.status != 200 ||
		r.header.Get("Revoked-Leader") != "n2" || strings.Contains(r.body, "n2") {
		t.Errorf("got %d %v %s, want 200 and n2 in the header", r.status, r.header, r.body)
	}
	b.node.nodes = nil
	asked := 0
	b.node.mu.Lock()
	b.node.fail = func(method string) error { // the node learns of the leader a moment later
		if method == "Members" {
			if asked++; asked == 2 {
				b.node.nodes = []revoked.Member{{NodeID: "n3", Leader: true}}
			}
		}
		return nil
	}
	b.node.mu.Unlock()
	if r := b.do(t, "admin", "POST", "/v1/cluster/transfer-leader", "", `{}`); r.status != 200 ||
		r.header.Get("Revoked-Leader") != "n3" {
		t.Errorf("got %d %v %s, want 200 and n3 in the header", r.status, r.header, r.body)
	}
	b = newAdminBench(t, func(c *api.Config) { c.RequestTimeout = 100 * time.Millisecond })
	if r := b.do(t, "admin", "POST", "/v1/cluster/transfer-leader", "", `{}`); r.status != 200 ||
		r.header.Get("Revoked-Leader") != "" {
		t.Errorf("no leader known: got %d %v, want 200 without the header", r.status, r.header)
	}
}
