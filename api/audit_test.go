package api_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"revoked"
	"revoked/api"
	"revoked/internal/await"
)

// audit returns the audit entries that the query selects.
func (b *adminBench) audit(t testing.TB, query string) []map[string]any {
	t.Helper()
	got := b.do(t, "aud", "GET", "/v1/audit?"+query, "", "")
	if got.status != 200 {
		t.Fatalf("audit?%s: got %d %s, want 200", query, got.status, got.body)
	}
	var list []map[string]any
	for line := range strings.Lines(got.body) {
		var m map[string]any
		if err := json.Unmarshal([]byte(line), &m); err != nil {
			t.Fatalf("got line %q, want JSON", line)
		}
		list = append(list, m)
	}
	return list
}

// short returns "actor kind outcome detail".
func short(m map[string]any) string {
	return strings.TrimSpace(fmt.Sprint(m["actor"], " ", m["kind"], " ", m["outcome"], " ", m["detail"]))
}

// Contract 6, "Audit entry": each accepted call to each route leaves one entry, and so does each
// refused call by an administrator or operator. Reads, malformed calls and dry runs leave no entry.
func TestAudit_Calls_LeaveOneEntryOrNone(t *testing.T) {
	b := newAdminBench(t)
	b.node.nodes = []revoked.Member{{NodeID: "n2", Leader: true}}
	b.node.snapshot = func(w io.Writer) error { _, err := io.WriteString(w, "backup"); return err }
	for _, step := range []struct {
		who, method, path, body string
		status                  int
		want                    string // empty: no entry
		object                  string // JSON
	}{
		{"admin", "POST", "/v1/clients", `{"client_id":"n","roles":["viewer"]}`, 201,
			"admin client.create done roles=viewer", `{"client_id":"n"}`},
		{"admin", "POST", "/v1/clients", `{"client_id":"n"}`, 409, "admin client.create refused conflict",
			`{"client_id":"n"}`},
		{"admin", "POST", "/v1/clients", `{"client_id":1}`, 400, "", ""},
		{"ops", "POST", "/v1/clients", `{"client_id":"m"}`, 403, "ops client.create refused forbidden", `{}`},
		{"eye", "POST", "/v1/clients", `{"client_id":"m"}`, 403, "", ""},
		{"admin", "PATCH", "/v1/clients/n", `{"disabled":true}`, 200, "admin client.update done disabled=true",
			`{"client_id":"n"}`},
		{"admin", "PATCH", "/v1/clients/n", `{"disabled":true}`, 200, "admin client.update done no change",
			`{"client_id":"n"}`},
		{"admin", "PATCH", "/v1/clients/n", `{"type":"public"}`, 422, "admin client.update refused unprocessable",
			`{"client_id":"n"}`},
		{"admin", "POST", "/v1/clients/n/secret", ``, 200, "admin client.secret done secrets", `{"client_id":"n"}`},
		{"admin", "DELETE", "/v1/clients/n", ``, 200, "admin client.delete done", `{"client_id":"n"}`},
		{"admin", "DELETE", "/v1/clients/n", ``, 200, "admin client.delete done no change", `{"client_id":"n"}`},
		{"admin", "GET", "/v1/clients/n", ``, 404, "", ""},
		{"admin", "DELETE", "/v1/clients/unknown-id", ``, 404, "admin client.delete refused not_found",
			`{"digest":"` + revoked.DigestToken("unknown-id").Prefix() + `"}`},
		{"ops", "PATCH", "/v1/settings", `{"secret_grace":"1h"}`, 200, "ops settings.update done secret_grace=1h", `{}`},
		{"ops", "PATCH", "/v1/settings", `{"secret_grace":"1h"}`, 200, "ops settings.update done no change", `{}`},
		{"ops", "PATCH", "/v1/settings", `{"lease_duration":"1ns"}`, 422, "ops settings.update refused unprocessable", `{}`},
		{"ops", "PATCH", "/v1/settings", `{"other":1}`, 400, "", ""},
		{"ops", "GET", "/v1/clients", ``, 403, "", ""},
		{"issuer", "POST", "/v1/grants", `{"grant_id":"g1","client_id":"app","access_token":{"token":"tok-1"}}`, 201, "", ""},
		{"ops", "DELETE", "/v1/grants/g1", ``, 403, "ops grant.delete refused forbidden", `{"grant_id":"g1"}`},
		{"issuer", "DELETE", "/v1/grants/g1?reason=left", ``, 200, "issuer grant.delete done", `{"grant_id":"g1"}`},
		{"admin", "DELETE", "/v1/grants/g1", ``, 200, "admin grant.delete done no change", `{"grant_id":"g1"}`},
		{"issuer", "DELETE", "/v1/grants/none", ``, 404, "", ""},
		{"admin", "POST", "/v1/revocations", `{"subject":"alice","reason":"left"}`, 200, "admin cutoff.create done", ""},
		{"admin", "POST", "/v1/revocations", `{"subject":"alice","dry_run":true}`, 200, "", ""},
		{"admin", "POST", "/v1/revocations", `{"subject":"alice","dry_run":true,"expect":9}`, 409, "", ""},
		{"admin", "POST", "/v1/revocations", `{"client_id":"app","expect":9}`, 409,
			"admin cutoff.create refused expectation", `{"client_id":"app"}`},
		{"admin", "POST", "/v1/revocations", `{"issuer":"https://nobody.example","jti":"j"}`, 422,
			"admin jti.revoke refused unprocessable",
			`{"digest":"` + revoked.DigestToken("https://nobody.example").Prefix() + `"}`},
		{"ops", "POST", "/v1/cluster/admit", `{"node":"node4"}`, 200, "ops cluster.admit done", `{"node":"node4"}`},
		{"ops", "POST", "/v1/cluster/admit", `{"node":"node4","ttl":"9000h"}`, 422,
			"ops cluster.admit refused unprocessable", `{"node":"node4"}`},
		{"ops", "DELETE", "/v1/cluster/admit/node4", ``, 200, "ops cluster.bar done", `{"node":"node4"}`},
		{"ops", "DELETE", "/v1/cluster/admit/none", ``, 404, "ops cluster.bar refused not_found", ""},
		{"ops", "POST", "/v1/cluster/remove", `{"node":"n2","force":true}`, 422,
			"ops cluster.remove refused unprocessable", `{"node":"n2"}`},
		{"ops", "GET", "/v1/snapshot", ``, 200, "ops snapshot.save done", `{}`},
		{"aud", "GET", "/v1/snapshot", ``, 403, "", ""},
		{"ops", "HEAD", "/v1/snapshot", ``, 200, "", ""},
		{"admin", "PATCH", "/v1/clients", ``, 405, "", ""},
		{"admin", "POST", "/v1/nothing", ``, 404, "", ""},
		{"ops", "POST", "/v1/explain", `{"token":"t"}`, 403, "", ""}, // the call changes nothing
	} {
		before := b.node.fsm.Applied()
		what := fmt.Sprintf("%s %s %s %s", step.who, step.method, step.path, step.body)
		req := b.request(t, step.who, step.method, step.path, strings.NewReader(step.body))
		req.Header.Set("X-Request-Id", "r-1")
		if step.body != "" {
			req.Header.Set("Content-Type", "application/json")
		}
		resp, err := b.http.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != step.status {
			t.Errorf("%s: got %d, want %d", what, resp.StatusCode, step.status)
		}
		var got, want []string
		list := b.audit(t, fmt.Sprintf("after=%d", before))
		for _, e := range list {
			got = append(got, short(e))
		}
		if step.want != "" {
			want = []string{step.want}
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: got %q, want %q", what, got, want)
			continue
		}
		if step.want == "" {
			continue
		}
		object, err := json.Marshal(list[0]["object"])
		if err != nil || step.object != "" && string(object) != step.object {
			t.Errorf("%s: got object %s, want %s", what, object, step.object)
		}
		if list[0]["request_id"] != "r-1" || list[0]["actor_version"] == 0.0 || list[0]["time"] == nil {
			t.Errorf("%s: got %v, want the request id and the version of the actor", what, list[0])
		}
	}
}

// Contract 6, "Audit entry": each revocation by any client leaves one audit entry. A deny list
// leaves one audit entry for each log entry.
func TestAudit_Revocations_LeaveOneEntryEach(t *testing.T) {
	b := newAdminBench(t)
	b.do(t, "issuer", "POST", "/v1/grants", "", `{"grant_id":"g1","client_id":"app","access_token":{"token":"tok-1"}}`)
	start := b.node.fsm.Applied()
	for _, token := range []string{"tok-1", "tok-1", "ghost"} {
		if got := b.do(t, "app", "POST", pathRevoke, formType, "token="+token); got.status != 200 {
			t.Fatalf("revoke: got %d %s, want 200", got.status, got.body)
		}
	}
	if got := b.do(t, "other", "POST", pathRevoke, formType, "token="); got.status != 400 {
		t.Fatalf("no token: got %d %s, want 400", got.status, got.body)
	}
	var got []string
	for _, e := range b.audit(t, fmt.Sprintf("after=%d", start)) {
		o := e["object"].(map[string]any)
		got = append(got, fmt.Sprint(short(e), " ", o["digest"], " ", o["grant_id"]))
	}
	first, ghost := revoked.DigestToken("tok-1").Prefix(), revoked.DigestToken("ghost").Prefix()
	want := []string{
		"app token.revoke done " + first + " g1", "app token.revoke done no change " + first + " <nil>",
		"app token.revoke done unknown " + ghost + " <nil>",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// The parameters select entries; a malformed one gets 400.
func TestAudit_Query_SelectsEntries(t *testing.T) {
	var offset atomic.Int64
	b := newAdminBench(t)
	b.node.now = func() time.Time { return time.Now().Add(time.Duration(offset.Load())) }
	start := b.node.fsm.Applied()
	for i := range 4 {
		b.do(t, "admin", "POST", "/v1/clients", "", fmt.Sprintf(`{"client_id":"n%d"}`, i))
		offset.Add(int64(time.Hour))
	}
	b.do(t, "ops", "PATCH", "/v1/settings", "", `{"secret_grace":"1h"}`)
	all := b.audit(t, fmt.Sprintf("after=%d", start))
	if len(all) != 5 {
		t.Fatalf("got %d entries, want 5", len(all))
	}
	at := func(i int) int64 { return int64(all[i]["time"].(float64)) }
	text := time.Unix(at(1), 0).UTC().Format(time.RFC3339)
	for query, want := range map[string]int{
		"kind=client.create": 4, "kind=client.delete": 0, "actor=ops": 1, "object=n2": 1, "object=n": 0, "limit=2": 2,
		"kind=client.create&limit=3":   3,
		fmt.Sprintf("since=%d", at(1)): 4, fmt.Sprintf("since=%d", at(1)+1): 3, "since=" + text: 4,
		fmt.Sprintf("until=%d", at(1)): 2, "until=" + text: 2, fmt.Sprintf("until=%d", at(0)-1): 0,
		fmt.Sprintf("since=%d&until=%d", at(1), at(2)): 2,
		fmt.Sprintf("since=%d", at(4)+1):               0,
	} {
		if got := b.audit(t, fmt.Sprintf("after=%d&%s", start, query)); len(got) != want {
			t.Errorf("%s: got %d entries, want %d", query, len(got), want)
		}
	}
	for _, query := range []string{
		"kind=other", "kind=client.create&kind=client.delete", "since=x", "until=-1", "limit=0", "limit=x", "after=x",
		"follow=maybe", "since=2026-01-31", "since=99999999999999",
	} {
		if got := b.do(t, "aud", "GET", "/v1/audit?"+query, "", ""); got.status != 400 {
			t.Errorf("%s: got %d %s, want 400", query, got.status, got.body)
		}
	}
	got := b.do(t, "rs1", "GET", "/v1/audit", "", "")
	if got.status != 403 || !strings.Contains(got.body, "admin or auditor") {
		t.Errorf("resource server: got %d %s, want 403 with the roles", got.status, got.body)
	}
}

// Contract 6, "Ids": the audit log continues as server-sent events, and resumes after an id.
// An id of another era, or one whose next entries were dropped, gets 410.
func TestAudit_Events_FollowAndResume(t *testing.T) {
	b := newAdminBench(t)
	b.do(t, "admin", "POST", "/v1/clients", "", `{"client_id":"n1"}`)
	at := b.node.fsm.Applied()
	read := func(header, value, query string) (next func() []string) {
		t.Helper()
		req := b.request(t, "aud", "GET", "/v1/audit"+query, nil)
		req.Header.Set("Accept", "text/event-stream")
		if header != "" {
			req.Header.Set(header, value)
		}
		resp, err := b.http.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { resp.Body.Close() })
		if resp.StatusCode != 200 || resp.Header.Get("Content-Type") != "text/event-stream" {
			t.Fatalf("got %d %s, want 200 and events", resp.StatusCode, resp.Header.Get("Content-Type"))
		}
		lines := bufio.NewScanner(resp.Body)
		return func() (event []string) {
			for lines.Scan() {
				if lines.Text() == "" {
					return event
				}
				event = append(event, lines.Text())
			}
			return event
		}
	}
	next := read("", "", fmt.Sprintf("?after=%d", at-1))
	event := next()
	id := fmt.Sprintf("id: %s.%d", b.node.Era(), at)
	if !slices.Contains(event, id) || !slices.Contains(event, "event: client.create") {
		t.Fatalf("got event %q, want %q", event, id)
	}
	follows := make(chan []string, 1)
	go func() { follows <- next() }()
	b.do(t, "admin", "PATCH", "/v1/settings", "", `{"secret_grace":"2h"}`) // not an event of the feed
	if event := await.Receive(t, follows, "the next event"); !slices.Contains(event, "event: settings.update") {
		t.Errorf("got event %q, want settings.update", event)
	}
	resumed := read("Last-Event-ID", strings.TrimPrefix(id, "id: "), "")
	if event := resumed(); !slices.Contains(event, "event: settings.update") {
		t.Errorf("after %s: got event %q, want settings.update", id, event)
	}
	other := revoked.Position{Era: revoked.EraOf("other"), Index: at}.String()
	if got := b.do(t, "aud", "GET", "/v1/audit?after="+other, "", ""); got.status != 410 {
		t.Errorf("another era: got %d, want 410", got.status)
	}
	b.node.mu.Lock()
	b.node.fail = func(method string) error {
		if method == "Audit" {
			return fmt.Errorf("%w: the audit log begins after index %d", revoked.ErrGone, at)
		}
		return nil
	}
	b.node.mu.Unlock()
	if got := b.do(t, "aud", "GET", "/v1/audit?after=1", "", ""); got.status != 410 {
		t.Errorf("no longer retained: got %d, want 410", got.status)
	}
}

// Refusals beyond the limit of a client are only counted, and the next entry reports their number.
// A refused call is answered even if its entry does not commit.
func TestAudit_ManyRefusals_AreBounded(t *testing.T) {
	var offset atomic.Int64
	start := time.Now()
	b := newAdminBench(t, func(c *api.Config) {
		c.Now = func() time.Time { return start.Add(time.Duration(offset.Load())) }
	})
	refuse := func(who string) {
		t.Helper()
		if got := b.do(t, who, "POST", "/v1/clients", "", `{}`); got.status != 403 {
			t.Fatalf("got %d, want 403", got.status)
		}
	}
	from := b.node.fsm.Applied()
	for range 1010 {
		refuse("ops")
	}
	if n := len(b.audit(t, fmt.Sprintf("after=%d", from))); n != 1000 {
		t.Errorf("got %d entries, want 1000", n)
	}
	b.node.mu.Lock()
	b.node.fail = func(method string) error { return map[string]error{"Note": revoked.ErrOutcomeUnknown}[method] }
	b.node.mu.Unlock()
	offset.Add(int64(time.Minute))
	refuse("ops")
	b.node.mu.Lock()
	b.node.fail = nil
	b.node.mu.Unlock()
	from = b.node.fsm.Applied()
	refuse("ops")
	list := b.audit(t, fmt.Sprintf("after=%d", from))
	if len(list) != 1 || list[0]["detail"] != "forbidden; 11 earlier entries are missing" {
		t.Errorf("got %v, want one entry that reports 11 missing entries", list)
	}
}

// No token, secret or subject of a token reaches an entry, even if a caller sends one in place of
// an id.
func TestAudit_Secrets_NotInEntries(t *testing.T) {
	b := newAdminBench(t)
	const canary = "canary-2f9d1c"
	for _, call := range []struct{ who, method, path, body string }{
		{"issuer", "POST", "/v1/grants", `{"grant_id":"g1","client_id":"app","subject":"` + canary +
			`","session":"` + canary + `","access_token":{"token":"` + canary + `-token"}}`},
		{"admin", "DELETE", "/v1/grants/" + canary, ""}, {"admin", "DELETE", "/v1/clients/" + canary, ""},
		{"admin", "PATCH", "/v1/issuers/" + canary, `{}`},
		{"admin", "DELETE", "/v1/issuers/" + canary + "/keys/" + canary, ""},
		{"ops", "POST", "/v1/cluster/promote", `{"node":"` + canary + `"}`},
		{"ops", "DELETE", "/v1/cluster/admit/" + canary, ""}, {"ops", "DELETE", "/v1/cluster/join-tokens/" + canary, ""},
		{"admin", "POST", "/v1/clients", `{"client_id":"new","imported":true,"client_secret":"` + canary + `"}`},
		{"admin", "POST", "/v1/clients", `{"client_id":"` + canary + `","roles":["admin"],"type":"public"}`},
	} {
		b.do(t, call.who, call.method, call.path, "", call.body)
	}
	for _, token := range []string{canary + "-token", canary + "-other"} {
		b.do(t, "app", "POST", pathRevoke, formType, "token="+token)
	}
	got := b.do(t, "aud", "GET", "/v1/audit", "", "")
	if n := strings.Count(got.body, "\n"); n < 10 || strings.Contains(got.body, canary) {
		t.Errorf("got %d entries, want at least 10 without %q:\n%s", n, canary, got.body)
	}
}

// Every call that may change something is in the table of audit kinds or in the list of exceptions
// below.
func TestAudit_Routes_HaveAuditKinds(t *testing.T) {
	b := newAdminBench(t)
	b.node.nodes = []revoked.Member{{NodeID: "n2", Leader: true}}
	unaudited := []string{
		"POST /v1/grants",                                // registrations
		"POST /v1/explain", "POST /v1/issuers/:id/check", // they change nothing
		"POST /v1/cluster/join", "POST /v1/cluster/transfer-leader", // the memory node accepts them
	}
	for _, row := range roleTable {
		method, path, _ := strings.Cut(row.call, " ")
		if method == http.MethodGet || slices.Contains(unaudited, row.call) ||
			slices.Contains(strings.Fields(row.may), "ops") {
			continue
		}
		before := b.node.fsm.Audits()
		path = strings.NewReplacer(":id", "none", ":thumbprint", "none").Replace(path)
		if got := b.do(t, "ops", method, path, "", row.body); got.status != 403 {
			t.Errorf("%s: got %d, want 403", row.call, got.status)
		}
		if n := b.node.fsm.Audits() - before; n != 1 {
			t.Errorf("%s refused: got %d entries, want 1", row.call, n)
		}
	}
}
