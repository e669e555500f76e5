package api_test

import (
	"fmt"
	"io"
	"log/slog"
	"strings"
	"testing"

	"revoked"
)

func jsonLog(w io.Writer) *slog.Logger {
	return slog.New(slog.NewJSONHandler(w, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

func TestCutoff(t *testing.T) {
	b := newAdminBench(t)
	for i := range 3 {
		if got := b.do(t, "issuer", "POST", "/v1/grants", "", pairBody(fmt.Sprint("g", i), "app", fmt.Sprint("a", i), fmt.Sprint("r", i))); got.status != 201 {
			t.Fatal(got)
		}
	}
	post := func(body string) reply { return b.do(t, "admin", "POST", "/v1/revocations", "", body) }
	dry := post(`{"subject":"alice","client_id":"app","dry_run":true}`)
	if dry.status != 200 || dry.field(t, "matched") != 3.0 {
		t.Errorf("dry run: got %d %s, want 200 and 3 matched", dry.status, dry.body)
	}
	off := post(`{"subject":"alice","expect":2}`)
	if off.status != 409 || off.field(t, "matched") != 3.0 {
		t.Errorf("expect 2: got %d %s, want 409 and 3 matched", off.status, off.body)
	}
	checkProblem(t, "expect", off)
	if s, _ := b.node.Status(t.Context(), revoked.DigestToken("a0")); s.Verdict != revoked.Active {
		t.Errorf("after a dry run and a refused cut-off: got verdict %d, want active", s.Verdict)
	}
	got := post(`{"subject":"alice","expect":3,"reason":"stolen laptop"}`)
	if got.status != 200 || got.field(t, "matched") != 3.0 || got.field(t, "index").(float64) == 0 {
		t.Errorf("got %d %s, want 200", got.status, got.body)
	}
	if s, _ := b.node.Status(t.Context(), revoked.DigestToken("a0")); s.Verdict != revoked.Dead {
		t.Errorf("got verdict %d, want dead", s.Verdict)
	}
	if got := post(`{"subject":"nobody"}`); got.status != 200 || strings.Contains(got.body, "matched") {
		t.Errorf("got %d %s, want 200 without matched", got.status, got.body)
	}
	view := b.do(t, "admin", "GET", "/v1/grants/g0", "", "")
	if end, _ := view.field(t, "revoked").(map[string]any); end["reason"] != "stolen laptop" || end["cutoff"] != true {
		t.Errorf("got %s, want the cut-off shown", view.body)
	}
	for body, want := range map[string]int{
		`{}`: 400, `{"dry_run":true}`: 400, `{"subject":""}`: 400, `{"subject":"a","client_id":""}`: 400, `{"subject":"a","issued_before":"now"}`: 400,
		`{"subject":"a","reason":"` + strings.Repeat("x", 257) + `"}`: 400, `{"subject":"a","expect":-1}`: 400, `{"subject":"a","expect":1.5}`: 400,
		`{"user":"a"}`: 400, `{"subject":"a","issued_before":250000000000}`: 422, `{"subject":"a","dry_run":"yes"}`: 400, ``: 415,
	} {
		if got := post(body); got.status != want {
			t.Errorf("%s: got %d %s, want %d", body, got.status, got.body, want)
		}
	}
}

func TestClients(t *testing.T) {
	b := newAdminBench(t)
	got := b.do(t, "admin", "POST", "/v1/clients", "", `{"client_id":"new","roles":["resource_server"],"audiences":["a","a","b"]}`)
	secret, _ := got.field(t, "client_secret").(string)
	if got.status != 201 || len(secret) != 43 || strings.Trim(secret, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
		t.Fatalf("got %d %s, want 201 and a secret", got.status, got.body)
	}
	get := b.do(t, "admin", "GET", "/v1/clients/new", "", "")
	want := `{"client_id":"new","type":"confidential","roles":["resource_server"],"audiences":["a","b"],"issuers":[],"auth_methods":["client_secret_basic","client_secret_post"],"allow_public_revocation":false,"disabled":false,"created_at":`
	if get.status != 200 || !strings.HasPrefix(get.body, want) || strings.Contains(get.body, "secret\":") || get.field(t, "created_at").(float64) == 0 {
		t.Errorf("got %d %s, want %s...", get.status, get.body, want)
	}
	if list := b.do(t, "admin", "GET", "/v1/clients", "", ""); list.status != 200 || !strings.Contains(list.body, want) || !strings.HasPrefix(list.body, `{"clients":[`) {
		t.Errorf("got %s, want the new client listed", list.body)
	}
	if again := b.do(t, "admin", "POST", "/v1/clients", "", `{"client_id":"new"}`); again.status != 409 {
		t.Errorf("the same id: got %d, want 409", again.status)
	}
	for body, status := range map[string]int{
		`{}`: 400, `{"client_id":""}`: 400, `{"client_id":"ä"}`: 400, `{"client_id":".."}`: 400, `{"client_id":"` + strings.Repeat("x", 129) + `"}`: 400,
		`{"client_id":"x","type":"secret"}`: 400, `{"client_id":"x","roles":["root"]}`: 400, `{"client_id":"x","roles":"admin"}`: 400,
		`{"client_id":"x","auth_methods":["private_key_jwt"]}`: 400, `{"client_id":"x","auth_methods":[]}`: 422,
		`{"client_id":"x","type":"public","roles":["admin"]}`: 422, `{"client_id":"x","type":"public","client_secret":"0123456789012345678901234567890123456789"}`: 422,
		`{"client_id":"x","client_secret":"short"}`: 422, `{"client_id":"x","created_at":1}`: 422, `{"client_id":"x","allow_public_revocation":true}`: 422,
		`{"client_id":"x","issuers":["https://a"]}`: 422, `{"client_id":"x","color":1}`: 400,
	} {
		if got := b.do(t, "admin", "POST", "/v1/clients", "", body); got.status != status {
			t.Errorf("%s: got %d %s, want %d", body, got.status, got.body, status)
		}
	}
	if got := b.do(t, "admin", "POST", "/v1/clients", "", `{"client_id":"pub2","type":"public","allow_public_revocation":true}`); got.status != 201 || strings.Contains(got.body, "client_secret") || got.field(t, "auth_methods") == nil {
		t.Errorf("public: got %d %s, want 201 without a secret", got.status, got.body)
	}
	imported := b.do(t, "admin", "POST", "/v1/clients", "", `{"client_id":"old","client_secret":"hunter2","imported":true}`)
	if imported.status != 201 || imported.field(t, "client_secret") != "hunter2" {
		t.Errorf("imported: got %d %s, want 201", imported.status, imported.body)
	}
	if c, _ := b.node.Client("old"); c.Secrets[0].Kind != revoked.HashArgon2id {
		t.Error("an imported secret is not hashed with argon2id")
	}
	if strings.Contains(b.log.String(), "hunter2") || strings.Contains(b.log.String(), secret) {
		t.Error("a secret is in the log")
	}
}

func TestPatchClient(t *testing.T) {
	b := newAdminBench(t)
	const merge = "application/merge-patch+json"
	patch := func(body string) reply { return b.do(t, "admin", "PATCH", "/v1/clients/rs2", merge, body) }
	for range 2 {
		if got := patch(`{"disabled":true}`); got.status != 200 || got.field(t, "disabled") != true {
			t.Errorf("disable: got %d %s, want 200", got.status, got.body)
		}
	}
	if got := patch(`{"disabled":null,"audiences":null,"client_id":"rs2","type":"confidential"}`); got.status != 200 || got.field(t, "disabled") != false || len(got.field(t, "audiences").([]any)) != 0 {
		t.Errorf("null: got %d %s, want the defaults", got.status, got.body)
	}
	for body, want := range map[string]int{
		`{"client_id":"x"}`: 422, `{"type":"public"}`: 422, `{"created_at":1}`: 422, `{"client_secret":"x"}`: 422, `{"secrets":[]}`: 400, `[]`: 400, `{"roles":[1]}`: 400,
	} {
		if got := patch(body); got.status != want {
			t.Errorf("%s: got %d %s, want %d", body, got.status, got.body, want)
		}
	}
	if got := b.do(t, "admin", "PATCH", "/v1/clients/none", merge, `{}`); got.status != 404 {
		t.Errorf("unknown: got %d, want 404", got.status)
	}
	conflicts := 2
	b.node.mu.Lock()
	b.node.fail = func(m string) error {
		if m == "UpdateClient" && conflicts > 0 {
			conflicts--
			return fmt.Errorf("%w: changed meanwhile", revoked.ErrConflict)
		}
		return nil
	}
	b.node.mu.Unlock()
	if got := patch(`{"audiences":["z"]}`); got.status != 200 {
		t.Errorf("two conflicts: got %d %s, want 200", got.status, got.body)
	}
	b.node.mu.Lock()
	conflicts = 1000
	b.node.mu.Unlock()
	if got := patch(`{"audiences":["y"]}`); got.status != 409 {
		t.Errorf("conflicts without end: got %d %s, want 409", got.status, got.body)
	}
}

func TestRotateAndDeleteClient(t *testing.T) {
	b := newAdminBench(t)
	got := b.do(t, "admin", "POST", "/v1/clients/app/secret", "", "")
	fresh, _ := got.field(t, "client_secret").(string)
	if got.status != 200 || len(fresh) != 43 || got.field(t, "client_id") != "app" || got.field(t, "index").(float64) == 0 {
		t.Fatalf("got %d %s, want a new secret", got.status, got.body)
	}
	c, _ := b.node.Client("app")
	if len(c.Secrets) != 2 || c.Secrets[0].ExpiresAt != 0 || c.Secrets[1].ExpiresAt == 0 {
		t.Errorf("got secrets %+v, want the new one for good and the old one with an end", c.Secrets)
	}
	for range 6 {
		b.do(t, "admin", "POST", "/v1/clients/app/secret", "", "{}")
	}
	if c, _ := b.node.Client("app"); len(c.Secrets) > 4 {
		t.Errorf("got %d secrets, want a bounded number", len(c.Secrets))
	}
	if got := b.do(t, "admin", "PATCH", "/v1/settings", "", `{"secret_grace":"0s"}`); got.status != 200 {
		t.Fatal(got)
	}
	b.do(t, "admin", "POST", "/v1/clients/app/secret", "", "")
	if c, _ := b.node.Client("app"); len(c.Secrets) != 1 {
		t.Errorf("without grace: got %d secrets, want 1", len(c.Secrets))
	}
	if got := b.do(t, "admin", "POST", "/v1/clients/pub/secret", "", ""); got.status != 422 {
		t.Errorf("public: got %d, want 422", got.status)
	}
	for range 2 {
		if got := b.do(t, "admin", "DELETE", "/v1/clients/app", "", ""); got.status != 200 || got.field(t, "index").(float64) == 0 {
			t.Errorf("DELETE: got %d %s, want 200", got.status, got.body)
		}
	}
	if got := b.do(t, "admin", "DELETE", "/v1/clients/none", "", ""); got.status != 404 {
		t.Errorf("DELETE unknown: got %d, want 404", got.status)
	}
}

func TestSettings(t *testing.T) {
	b := newAdminBench(t)
	want := `{"lease_duration":"2s","late_registration_window":"1h","cutoff_retention":"9600h","max_clock_skew":"5s","secret_grace":"24h"}` + "\n"
	if got := b.do(t, "admin", "GET", "/v1/settings", "", ""); got.status != 200 || got.body != want {
		t.Errorf("got %d %s, want %s", got.status, got.body, want)
	}
	got := b.do(t, "admin", "PATCH", "/v1/settings", "application/merge-patch+json", `{"lease_duration":"1500ms","secret_grace":"1h30m"}`)
	if got.status != 200 || got.field(t, "lease_duration") != "1.5s" || got.field(t, "secret_grace") != "1h30m" || got.field(t, "max_clock_skew") != "5s" {
		t.Errorf("got %d %s", got.status, got.body)
	}
	if got := b.do(t, "admin", "PATCH", "/v1/settings", "", `{"lease_duration":null}`); got.field(t, "lease_duration") != "2s" {
		t.Errorf("null: got %s, want the default", got.body)
	}
	for body, want := range map[string]int{
		`{"lease_duration":2}`: 400, `{"lease_duration":"fast"}`: 400, `{"lease":"2s"}`: 400, `{"lease_duration":"1ms"}`: 422,
		`{"lease_duration":"2h"}`: 422, `{"max_clock_skew":"-1s"}`: 422, `{"cutoff_retention":"1s"}`: 422, `nonsense`: 400,
	} {
		if got := b.do(t, "admin", "PATCH", "/v1/settings", "", body); got.status != want {
			t.Errorf("%s: got %d %s, want %d", body, got.status, got.body, want)
		}
	}
}

func TestClusterCalls(t *testing.T) {
	b := newAdminBench(t)
	for _, tt := range []struct{ path, body, call string }{
		{"join", `{"addresses":["10.0.0.1:7443","[::1]:7443"]}`, "join [10.0.0.1:7443 [::1]:7443]"},
		{"leave", `{}`, "leave"}, {"leave", ``, "leave"},
		{"remove", `{"node":"n3"}`, `remove n3 false ""`},
		{"remove", `{"node":"n3","force":true,"reason":"burnt"}`, `remove n3 true "burnt"`},
		{"transfer-leader", `{"node":"n2"}`, `transfer-leader "n2"`}, {"transfer-leader", ``, `transfer-leader ""`},
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
		{"join", `{}`, 400}, {"join", `{"addresses":[]}`, 400}, {"join", `{"addresses":["nowhere"]}`, 400}, {"join", `{"addresses":["h:99999"]}`, 400},
		{"leave", `{"now":true}`, 400}, {"remove", `{}`, 400}, {"remove", `{"node":"n","force":true}`, 422}, {"transfer-leader", `{"node":""}`, 400},
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

func TestStatusAndMembers(t *testing.T) {
	b := newAdminBench(t)
	b.node.nodes = []revoked.Member{{NodeID: "n1", Region: "eu", Voter: true, LastContactMS: -1}}
	got := b.do(t, "admin", "GET", "/v1/members", "", "")
	want := `{"members":[{"node_id":"n1","region":"eu","api":"","cluster":"","voter":true,"leader":false,"alive":false,"applied_index":0,"behind":0,"last_contact_ms":-1,"lease_left_ms":0,"version":""}]}`
	if got.status != 200 || strings.TrimSpace(got.body) != want {
		t.Errorf("got %d %s, want %s", got.status, got.body, want)
	}
	got = b.do(t, "admin", "GET", "/v1/status", "", "")
	for _, name := range []string{"node_id", "cluster_id", "version", "healthy", "leader", "term", "state", "commit_index", "applied_index", "voters", "quorum", "lease", "log_hash", "state_hash", "hash_index", "tokens", "grants"} {
		if got.field(t, name) == nil {
			t.Errorf("status has no %s: %s", name, got.body)
		}
	}
}

func TestSnapshot(t *testing.T) {
	b := newAdminBench(t)
	b.node.snapshot = func(w io.Writer) error {
		_, err := io.WriteString(w, "the state")
		return err
	}
	got := b.do(t, "admin", "GET", "/v1/snapshot", "", "")
	if got.status != 200 || got.body != "the state" || got.header.Get("Content-Type") != "application/octet-stream" {
		t.Errorf("got %d %q %q", got.status, got.body, got.header.Get("Content-Type"))
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
		t.Error("a snapshot that broke off ends like a whole one")
	}
}
