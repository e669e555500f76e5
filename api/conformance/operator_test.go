package conformance_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
)

func operatorScenarios() []scenario {
	return []scenario{
		{"contract", "3 \"/v1/settings\"", "settings are shown and changed on every node", settingsEverywhere},
		{"contract", "3 \"GET /v1/status\"", "the members of the status of every node", statusShape},
		{"contract", "3 \"GET /v1/members\"", "the members of the list of members, from every node", membersShape},
		{"contract", "3 \"any method /v1/check\"", "forward authentication", forwardAuthentication},
		{"contract", "3 \"GET /v1/snapshot\"", "a snapshot through a follower", snapshotThroughFollower},
		{"contract", "3 \"/livez, /readyz, /metrics\"", "health and metrics need no credentials", healthIsOpen},
		{"contract", "3 \"POST /v1/cluster/...\"", "membership and leadership calls", clusterCalls},
	}
}

func settingsEverywhere(t *testing.T, s *stage) {
	const members = "audit_max_entries audit_retention cutoff_retention late_registration_window lease_duration max_clock_skew secret_grace"
	defaults := s.call(t, "GET", "/v1/settings", "adm", "", 200)
	keys(t, "settings", defaults, members)
	if got := fmt.Sprint(defaults["lease_duration"], defaults["late_registration_window"], defaults["cutoff_retention"],
		defaults["max_clock_skew"], defaults["secret_grace"]); got != "2s1h9600h5s24h" {
		t.Errorf("defaults: got %s", got)
	}
	changed := s.call(t, "PATCH", "/v1/settings", "adm", `{"secret_grace":"90m","lease_duration":"1500ms"}`, 200)
	if keys(t, "changed", changed, members); changed["secret_grace"] != "1h30m" || changed["lease_duration"] != "1.5s" ||
		changed["max_clock_skew"] != "5s" {
		t.Errorf("changed: got %v", changed)
	}
	for _, m := range s.Members {
		s.until(t, m.ID+" has the change", func() bool {
			return fmt.Sprint(admitted(t, "settings", s.json(t, m, "GET", "/v1/settings", "adm", ""),
				200)) == fmt.Sprint(changed)
		})
	}
	for body, status := range map[string]int{
		`{"secret_grace":90}`: 400, `{"secret_grace":"soon"}`: 400, `{"heartbeat_timeout":"1s"}`: 400,
		`{"lease_duration":"1h"}`:  422,
		`{"lease_duration":"1ms"}`: 422, `{"late_registration_window":"-1s"}`: 422, `{"max_clock_skew":"1h"}`: 422,
	} {
		s.call(t, "PATCH", "/v1/settings", "adm", body, status)
	}
	if back := s.call(t, "PATCH", "/v1/settings", "adm", `{"secret_grace":null,"lease_duration":null}`,
		200); fmt.Sprint(back) != fmt.Sprint(defaults) {
		t.Errorf("null: got %v, want %v", back, defaults)
	}
}

func statusShape(t *testing.T, s *stage) {
	leader := s.Leader(t)
	cluster := ""
	for _, m := range s.Members {
		var st map[string]any
		s.until(t, m.ID+" is healthy", func() bool { // on a busy machine a lease may expire at any time
			st = admitted(t, "status", s.json(t, m, "GET", "/v1/status", "adm", ""), 200)
			return st["healthy"] == true
		})
		keys(t, "status of "+m.ID, st,
			"applied_index cluster_id commit_index grants hash_index healthy leader lease log_hash node_id quorum state state_hash term tokens version voters voting")
		keys(t, "lease", st["lease"].(map[string]any), "held left_ms")
		keys(t, "leader", st["leader"].(map[string]any), "api node_id")
		if cluster == "" {
			cluster, _ = st["cluster_id"].(string)
		}
		want := "follower"
		if m == leader {
			want = "leader"
		}
		if st["node_id"] != m.ID || st["cluster_id"] != cluster || cluster == "" || st["healthy"] != true ||
			st["state"] != want || st["voters"] != 3.0 || st["quorum"] != 2.0 {
			t.Errorf("%s: got %v", m.ID, st)
		}
		if got := st["leader"].(map[string]any); got["node_id"] != leader.ID || got["api"] != leader.URL {
			t.Errorf("%s: got leader %v, want %s at %s", m.ID, got, leader.ID, leader.URL)
		}
		if lease := st["lease"].(map[string]any); lease["held"] != true || lease["left_ms"].(float64) <= 0 {
			t.Errorf("%s: got lease %v", m.ID, lease)
		}
		if st["commit_index"].(float64) < st["applied_index"].(float64) {
			t.Errorf("%s: applied %v is beyond commit %v", m.ID, st["applied_index"], st["commit_index"])
		}
	}
}

func membersShape(t *testing.T, s *stage) {
	leader := s.Leader(t)
	for _, m := range s.Members {
		list := admitted(t, "members", s.json(t, m, "GET", "/v1/members", "adm", ""), 200)
		keys(t, "members", list, "members voting")
		members := list["members"].([]any)
		if len(members) != 3 {
			t.Fatalf("%s: got %d members", m.ID, len(members))
		}
		for i, x := range members {
			e := x.(map[string]any)
			keys(t, "a member", e,
				"alive api applied_index behind cluster last_contact_ms leader lease_left_ms node_id region version voter")
			o := s.Members[i]
			if e["node_id"] != o.ID || e["voter"] != true || e["alive"] != true || e["leader"] != (o == leader) ||
				e["api"] != o.URL || e["cluster"] != o.cluster ||
				e["version"] != s.version || !strings.HasPrefix(fmt.Sprint(e["region"]), "region") {
				t.Errorf("%s about %s: got %v", m.ID, o.ID, e)
			}
		}
	}
}

func forwardAuthentication(t *testing.T, s *stage) {
	w := s.newTokens(t, s.Follower(t))
	s.revoke(t, "c2", w.tokens["AT2"])
	from := func(who string) http.Header {
		return http.Header{"Revoked-Authorization": {basicOf(who + ":" + secretFor(who))}}
	}
	const invalid = `Bearer error="invalid_token"`
	for _, row := range []struct {
		title     string
		call      call
		status    int
		challenge string
	}{
		{"an active token", call{auth: "Bearer {AT1}", header: from("rs1")}, 200, ""},
		{"a path behind it", call{auth: "Bearer {AT1}", header: from("rs1"), path: "/some/path?x=y"}, 200, ""},
		{"a revoked token", call{auth: "Bearer {AT2}", header: from("rs1")}, 401, invalid},
		{"an unknown token", call{auth: "Bearer raw~unknown", header: from("rs1")}, 401, invalid},
		{"a token of another audience", call{auth: "Bearer {AT1}", header: from("rs2")}, 401, invalid},
		{"a refresh token", call{auth: "Bearer {RT1}", header: from("rs1")}, 401, invalid},
		{"a disabled client's token", call{auth: "Bearer {ATd}", header: from("rs1")}, 401, invalid},
		{"no token", call{header: from("rs1")}, 401, "Bearer"},
		{"no credentials of the gateway", call{auth: "Bearer {AT1}"}, 403, ""},
		{"wrong credentials of the gateway", call{auth: "Bearer {AT1}",
			header: http.Header{"Revoked-Authorization": {basicOf("rs1:wrong")}}}, 403, ""},
		{"a client without the role resource_server", call{auth: "Bearer {AT1}", header: from("c1")}, 403, ""},
		{"an issuer", call{auth: "Bearer {AT1}", header: from("iss")}, 403, ""},
		{"a network that is named in a header only",
			call{auth: "Bearer {AT1}", header: http.Header{"X-Forwarded-For": {"192.0.2.1"}}}, 403, ""},
	} {
		for _, method := range []string{"GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS"} {
			for _, m := range s.Members {
				row.call.method = method
				r := s.send(t, s.HTTP, m, "/v1/check", row.call, w.tokens)
				if r.Status != row.status || r.Header.Get("WWW-Authenticate") != row.challenge {
					t.Errorf("%s %s on %s: got %d %q, want %d %q", method, row.title, m.ID, r.Status,
						r.Header.Get("WWW-Authenticate"), row.status, row.challenge)
				}
				if r.Header.Get("Cache-Control") != "no-store" {
					t.Errorf("%s %s: got Cache-Control %q", method, row.title, r.Header.Get("Cache-Control"))
				}
			}
		}
	}
}

func snapshotThroughFollower(t *testing.T, s *stage) {
	w := s.newTokens(t, s.Follower(t))
	s.revoke(t, "c1", w.tokens["AT1"])
	r := s.json(t, s.Follower(t), "GET", "/v1/snapshot", "adm", "")
	if r.Status != 200 || r.Header.Get("Content-Type") != "application/octet-stream" || len(r.Body) < 1000 {
		t.Fatalf("got %d %s and %d bytes", r.Status, r.Header.Get("Content-Type"), len(r.Body))
	}
	if strings.Contains(r.Body, rawMark) || strings.Contains(r.Body, secretMark) {
		t.Error("got a token or a secret in the snapshot, want none")
	}
	if !strings.Contains(r.Body, w.grants["g2"]) {
		t.Error("the snapshot does not contain a grant that was registered before")
	}
}

func healthIsOpen(t *testing.T, s *stage) {
	for _, m := range s.Members {
		for path, want := range map[string]string{"/livez": "ok", "/readyz": "ready", "/readyz?revoke": "ready",
			"/readyz?verbose": "[+]lease ok", "/readyz?verbose&revoke": "[+]leader ok", "/metrics": "revoked_applied_index"} {
			r := s.send(t, s.HTTP, m, path, call{method: "GET", contentType: "-"}, nil)
			if r.Status != 200 || !strings.Contains(r.Body, want) {
				t.Errorf("%s%s: got %d %.100s, want 200 and %q", m.ID, path, r.Status, r.Body, want)
			}
		}
	}
}

// clusterCalls transfers leadership and sends calls that are refused.
func clusterCalls(t *testing.T, s *stage) {
	for _, row := range []struct {
		path, body string
		status     int
	}{
		{"/v1/cluster/join", `{"addresses":[]}`, 400}, {"/v1/cluster/join", `{"addresses":["no port"]}`, 400},
		{"/v1/cluster/join", `{"addresses":["` + s.Members[0].cluster + `"]}`, 409},
		{"/v1/cluster/remove", `{"node":"none"}`, 404}, {"/v1/cluster/remove", `{"node":"node1","force":true}`, 422},
		{"/v1/cluster/transfer-leader", `{"node":"none"}`, 404},
	} {
		s.call(t, "POST", row.path, "adm", row.body, row.status)
	}
	for range 2 {
		target := s.Follower(t)
		keys(t, "transfer", s.call(t, "POST", "/v1/cluster/transfer-leader", "adm", `{"node":"`+target.ID+`"}`, 200), "index")
		s.until(t, target.ID+" leads", func() bool { return s.Leader(t) == target })
	}
	var other *member
	before := s.Leader(t)
	keys(t, "transfer to anyone", s.call(t, "POST", "/v1/cluster/transfer-leader", "adm", "", 200), "index")
	s.until(t, "another leads", func() bool { other = s.Leader(t); return other != before })
	w := s.newTokens(t, s.Follower(t))
	s.revoke(t, "c1", w.tokens["ATc"])
	w.check(t, whole)
}
