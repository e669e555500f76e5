package conformance_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
)

func auditScenarios() []scenario {
	return []scenario{
		{"contract", "6 \"Audit entry\"", "every node has one entry for each call, with its fields", auditEverywhere},
		{"contract", "6 \"Audit entry\"", "calls that leave no entry", auditOfNothing},
		{"contract", "6 \"GET /v1/audit\"", "the parameters of the audit log, and ids of another era", auditParameters},
		{"contract", "6 \"GET /v1/audit\"", "the audit log as server-sent events", auditEvents},
		{"contract", "6 \"GET /v1/audit/token\"", "every node reports whether a token was active", tokenInThePast},
		{"contract", "6 \"GET /v1/audit/token\"", "questions about the past that are refused", refusedPast},
	}
}

// audit returns the audit entries that a member has after an index. It returns only entries whose
// request id begins with prefix.
func (s *stage) audit(t *testing.T, m *member, prefix string, after uint64) (out []map[string]any) {
	t.Helper()
	r := s.json(t, m, "GET", fmt.Sprintf("/v1/audit?after=%d", after), "aud", "")
	if r.Status != 200 || r.Header.Get("Content-Type") != ndjson {
		t.Fatalf("audit of %s: got %d %s %s", m.ID, r.Status, r.Header.Get("Content-Type"), r.Body)
	}
	if strings.Contains(r.Body, rawMark) || strings.Contains(r.Body, secretMark) {
		t.Errorf("got a token or a secret in the audit log of %s, want none", m.ID)
	}
	for line := range strings.Lines(r.Body) {
		var e map[string]any
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatalf("audit line %q: %v", line, err)
		}
		if strings.HasPrefix(fmt.Sprint(e["request_id"]), prefix) {
			out = append(out, e)
		}
	}
	return out
}

// noted sends a request under /v1 with the given request id.
func (s *stage) noted(t *testing.T, m *member, id, method, path, who, body string, status int) {
	t.Helper()
	c := call{method: method, as: who, body: body, contentType: "application/json",
		header: http.Header{"X-Request-Id": {id}}}
	if body == "" {
		c.contentType = "-"
	}
	if r := s.send(t, s.HTTP, m, path, c, nil); r.Status != status {
		t.Errorf("%s %s %s by %s: got %d %s, want %d", method, path, body, who, r.Status, r.Body, status)
	}
}

func auditEverywhere(t *testing.T, s *stage) {
	after, client := s.applied(t), fmt.Sprintf("audited-%d", sequence.Add(1))
	path := "/v1/clients/" + client
	var want []string
	for i, row := range []struct {
		method, path, who, body string
		status                  int
		want                    string
	}{
		{"POST", "/v1/clients", "adm", fmt.Sprintf(`{"client_id":%q}`, client), 201, "client.create done "},
		{"POST", "/v1/clients", "adm", fmt.Sprintf(`{"client_id":%q}`, client), 409, "client.create refused conflict"},
		{"PATCH", path, "adm", `{"disabled":true}`, 200, "client.update done disabled=true"},
		{"PATCH", path, "adm", `{"disabled":true}`, 200, "client.update done no change"},
		{"POST", path + "/secret", "ops", "", 403, "client.secret refused forbidden"},
		{"PATCH", path, "adm", `{"type":"public"}`, 422, "client.update refused unprocessable"},
		{"DELETE", path, "adm", "", 200, "client.delete done "},
		{"DELETE", path, "adm", "", 200, "client.delete done no change"},
		{"DELETE", "/v1/grants/none", "adm", "", 404, "grant.delete refused not_found"},
		{"POST", "/v1/cluster/admit", "ops", `{"node":"guest"}`, 200, "cluster.admit done "},
		{"DELETE", "/v1/cluster/admit/guest", "ops", "", 200, "cluster.bar done "},
	} {
		m, id := s.Members[i%3], fmt.Sprintf("every-%d", i)
		s.noted(t, m, id, row.method, row.path, row.who, row.body, row.status)
		want = append(want, fmt.Sprintf("%s %s %s %s", id, m.ID, row.who, row.want))
	}
	for _, m := range s.Members {
		var got []string
		for _, e := range s.audit(t, m, "every-", after) {
			keys(t, "an entry", e, "actor actor_version detail index kind node object outcome reason request_id time")
			got = append(got, fmt.Sprintf("%s %s %s %s %s %s", e["request_id"], e["node"], e["actor"], e["kind"], e["outcome"],
				e["detail"]))
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: got %q, want %q", m.ID, got, want)
		}
	}
}

func auditOfNothing(t *testing.T, s *stage) {
	after, m := s.applied(t), s.Follower(t)
	for i, row := range []struct {
		method, path, who, body string
		status                  int
	}{
		{"POST", "/v1/clients", "adm", `{"client_id":1}`, 400}, {"POST", "/v1/clients", "eye", `{"client_id":"x"}`, 403},
		{"GET", "/v1/clients/none", "adm", "", 404}, {"HEAD", "/v1/snapshot", "ops", "", 200},
		{"POST", "/v1/revocations", "adm", `{"subject":"nobody","dry_run":true}`, 200},
		{"POST", "/v1/revocations", "adm", `{"subject":"nobody","dry_run":true,"expect":5}`, 409},
		{"DELETE", "/v1/grants/none", "iss", "", 404}, {"POST", "/v1/explain", "ops", `{"token":"x"}`, 403},
	} {
		s.noted(t, m, fmt.Sprintf("none-%d", i), row.method, row.path, row.who, row.body, row.status)
	}
	if got := s.audit(t, m, "none-", after); len(got) > 0 {
		t.Errorf("got entries %v, want none", got)
	}
}

func auditParameters(t *testing.T, s *stage) {
	after, m := s.applied(t), s.Follower(t)
	for i := range 3 {
		s.noted(t, m, fmt.Sprintf("some-%d", i), "DELETE", fmt.Sprintf("/v1/clients/none-%d", i), "adm", "", 404)
	}
	s.noted(t, m, "some-3", "DELETE", "/v1/cluster/join-tokens/none", "ops", "", 404)
	count := func(query string) int {
		t.Helper()
		r := s.json(t, m, "GET", fmt.Sprintf("/v1/audit?after=%d&%s", after, query), "aud", "")
		if r.Status != 200 {
			t.Errorf("%s: got %d %s, want 200", query, r.Status, r.Body)
		}
		return strings.Count(r.Body, `"request_id":"some-`)
	}
	digest := digestOf("none-1")[:8]
	for query, want := range map[string]int{
		"": 4, "kind=client.delete": 3, "kind=restore": 0, "actor=ops": 1, "object=" + digest: 1, "limit=2": 2,
		"since=4000000000": 0, "until=1": 0, "kind=client.delete&actor=ops": 0, "since=2001-01-01T00:00:00Z": 4,
	} {
		if got := count(query); got != want {
			t.Errorf("%s: got %d entries, want %d", query, got, want)
		}
	}
	era := s.eras(t)
	for query, status := range map[string]int{
		"kind=client.none": 400, "limit=0": 400, "since=soon": 400, "after=x": 400,
		fmt.Sprintf("after=%s.%d", era, after): 200, fmt.Sprintf("after=%s.%d", strings.Repeat("A", len(era)), after): 410,
	} {
		r := s.json(t, m, "GET", "/v1/audit?"+query, "aud", "")
		if r.Status != status {
			t.Errorf("%s: got %d %s, want %d", query, r.Status, r.Body, status)
		}
	}
}

func auditEvents(t *testing.T, s *stage) {
	m := s.Follower(t)
	after, era := s.applied(t), s.eras(t)
	s.noted(t, m, "sent-0", "DELETE", "/v1/clients/none", "adm", "", 404)
	path := fmt.Sprintf("/v1/audit?after=%d&limit=1&kind=client.delete", after)
	r := s.send(t, s.HTTP, m, path, call{method: "GET", as: "aud", contentType: "-",
		header: http.Header{"Accept": {"text/event-stream"}}}, nil)
	e := s.audit(t, m, "sent-0", after)
	if r.Status != 200 || r.Header.Get("Content-Type") != "text/event-stream" || len(e) != 1 ||
		!strings.Contains(r.Body, fmt.Sprintf("id: %s.%.0f\n", era, e[0]["index"])) {
		t.Errorf("got %d %s, want the entry %v with its id in era %s", r.Status, r.Body, e, era)
	}
}

func tokenInThePast(t *testing.T, s *stage) {
	ask := func(m *member, digest, at string) map[string]any {
		t.Helper()
		path := "/v1/audit/token?digest=" + digest + at
		return admitted(t, path, s.json(t, m, "GET", path, "aud", ""), 200)
	}
	s.until(t, "the history has begun", func() bool { return ask(s.Follower(t), digestOf("x"), "")["state"] == "unknown" })
	token := s.newTokens(t, s.Follower(t)).tokens["AT1"]
	before := ask(s.Follower(t), digestOf(token), "")
	if before["state"] != "active" || before["reason"] != "active" {
		t.Fatalf("before the revocation: got %v, want active", before)
	}
	s.revoke(t, "c1", token)
	for _, m := range s.Members {
		past := ask(m, digestOf(token), fmt.Sprintf("&at=%.6f", before["since"]))
		if past["state"] != "active" || past["since"] != before["since"] || past["index"] == nil {
			t.Errorf("%s, at its registration: got %v, want active since %v", m.ID, past, before["since"])
		}
		now := ask(m, digestOf(token), "")
		if now["state"] != "inactive" || now["reason"] != "revoked" || now["since"] != past["until"] || now["index"] == nil {
			t.Errorf("%s, now: got %v, want inactive since %v", m.ID, now, past["until"])
		}
		s.until(t, "the entry has the time of its acknowledgement", func() bool {
			now = ask(m, digestOf(token), "")
			return now["acknowledged_at"] != nil || now["acknowledged_before"] != nil
		})
		if final, ok := now["acknowledged_at"].(float64); ok && final < now["since"].(float64) {
			t.Errorf("%s: got %v, want the acknowledgement after the change", m.ID, now)
		}
		if got := ask(m, digestOf(fresh("unknown")), ""); got["state"] != "unknown" {
			t.Errorf("%s, an unknown token: got %v", m.ID, got)
		}
		if got := ask(m, digestOf(token), "&at=1000000000"); got["state"] != "not_held" {
			t.Errorf("%s, in 2001: got %v, want not_held", m.ID, got)
		}
	}
}

func refusedPast(t *testing.T, s *stage) {
	digest := digestOf("x")
	for query, status := range map[string]int{
		"": 400, "digest=" + digest[1:]: 400, "digest=" + digest + "&at=soon": 400,
		"digest=" + digest + "&at=253402300799": 400,
		"digest=" + digest:                      200,
	} {
		r := s.json(t, s.Follower(t), "GET", "/v1/audit/token?"+query, "aud", "")
		if r.Status != status {
			t.Errorf("%s: got %d %s, want %d", query, r.Status, r.Body, status)
		}
	}
	for who, status := range map[string]int{
		"adm": 200, "aud": 200, "ops": 403, "eye": 403, "iss": 403, "rs1": 403, "c1": 403,
	} {
		if r := s.json(t, s.Follower(t), "GET", "/v1/audit/token?digest="+digest, who, ""); r.Status != status {
			t.Errorf("%s: got %d %s, want %d", who, r.Status, r.Body, status)
		}
	}
}
