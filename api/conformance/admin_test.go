package conformance_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
)

// TestAdminAPI_DefaultOptions_Conforms checks section 3 of the contract through a follower.
func TestAdminAPI_DefaultOptions_Conforms(t *testing.T) {
	s := newStage(t, options{checkNetworks: []string{"192.0.2.0/24"}})
	t.Run("access", func(t *testing.T) { runScenarios(t, s, accessScenarios()) })
	t.Run("clients", func(t *testing.T) { runScenarios(t, s, clientScenarios()) })
	t.Run("grants", func(t *testing.T) { runScenarios(t, s, registrationScenarios()) })
	t.Run("explain", func(t *testing.T) { runScenarios(t, s, explainScenarios()) })
	t.Run("revocations", func(t *testing.T) { runScenarios(t, s, cutoffScenarios()) })
	t.Run("feed", func(t *testing.T) { runScenarios(t, s, feedScenarios()) })
	t.Run("audit", func(t *testing.T) { runScenarios(t, s, auditScenarios()) })
	t.Run("cluster", func(t *testing.T) { runScenarios(t, s, operatorScenarios()) })
	t.Run("large grants", func(t *testing.T) { runScenarios(t, s, largeScenarios()) })
}

func accessScenarios() []scenario {
	return []scenario{
		{"contract", "3 \"role\"", "every call for every role, with and without credentials", roleMatrix},
		{"contract", "6 \"Roles\"", "a refusal names the roles that may call", roleNames},
		{"contract", "6 \"Roles\"", "clients with the roles operator, viewer and auditor", staffRecords},
		{"contract", "3 \"405\"", "a wrong method gets 405 with Allow", wrongMethods},
		{"contract", "3 \"400 malformed, 413, 415\"", "bodies that are refused", refusedBodies},
	}
}

// call sends a request under /v1, checks the response, and returns its JSON object. It retries a
// request during an election, unless it is a POST.
func (s *stage) call(t *testing.T, method, path, who, body string, status int) map[string]any {
	t.Helper()
	var r reply
	s.until(t, "an answer with a leader", func() bool {
		r = s.json(t, s.Follower(t), method, path, who, body)
		return r.Status != http.StatusServiceUnavailable || status == r.Status || method == http.MethodPost
	})
	return admitted(t, method+" "+path+" "+body, r, status)
}

func admitted(t *testing.T, what string, r reply, status int) map[string]any {
	t.Helper()
	if r.Status != status {
		t.Errorf("%s: got %d %s, want %d", what, r.Status, r.Body, status)
	}
	if r.Status >= 400 {
		return problem(t, what, r)
	}
	if r.Header.Get("Cache-Control") != "no-store" || r.Header.Get("Content-Type") != "application/json" {
		t.Errorf("%s: got Cache-Control %q, Content-Type %q", what, r.Header.Get("Cache-Control"),
			r.Header.Get("Content-Type"))
	}
	var out map[string]any
	if err := json.Unmarshal([]byte(r.Body), &out); err != nil {
		t.Errorf("%s: got %s: %v", what, r.Body, err)
	}
	return out
}

// problem checks an RFC 9457 document.
func problem(t *testing.T, what string, r reply) map[string]any {
	t.Helper()
	h := r.Header
	var doc map[string]any
	if err := json.Unmarshal([]byte(r.Body), &doc); err != nil || h.Get("Content-Type") != "application/problem+json" {
		t.Errorf("%s: got %s %s (%v), want problem+json", what, h.Get("Content-Type"), r.Body, err)
		return nil
	}
	if doc["status"] != float64(r.Status) || doc["title"] == "" || doc["title"] == nil {
		t.Errorf("%s: got %s, want its status %d and a title", what, r.Body, r.Status)
	}
	if h.Get("Cache-Control") != "no-store" || h.Get("X-Content-Type-Options") != "nosniff" {
		t.Errorf("%s: got Cache-Control %q, nosniff %q", what, h.Get("Cache-Control"), h.Get("X-Content-Type-Options"))
	}
	switch {
	case r.Status == 401 && h.Get("WWW-Authenticate") != `Basic realm="revoked"`:
		t.Errorf("%s: got WWW-Authenticate %q", what, h.Get("WWW-Authenticate"))
	case r.Status == 405 && h.Get("Allow") == "":
		t.Errorf("%s: 405 without Allow", what)
	case (r.Status == 429 || r.Status == 503) && h.Get("Retry-After") == "":
		t.Errorf("%s: %d without Retry-After", what, r.Status)
	}
	if strings.Contains(r.Body, rawMark) || strings.Contains(r.Body, secretMark) {
		t.Errorf("%s: the problem repeats a token or a secret: %s", what, r.Body)
	}
	return doc
}

// keys fails the test unless the object has exactly these members.
func keys(t *testing.T, what string, doc map[string]any, want string) {
	t.Helper()
	if got := strings.Join(slices.Sorted(maps.Keys(doc)), " "); got != want {
		t.Errorf("%s: got members %q, want %q", what, got, want)
	}
}

// An adminCall is one call of contract section 3 that changes nothing. status is the status that a
// client with a permitted role gets.
type adminCall struct {
	method, path, body string
	roles              string
	status             int
}

func adminCalls() []adminCall {
	return []adminCall{
		{"POST", "/v1/grants", "{", "iss iss2 adm", 400},
		{"GET", "/v1/grants", "", "adm", 400},
		{"GET", "/v1/grants/none", "", "iss iss2 adm", 404},
		{"DELETE", "/v1/grants/none", "", "iss iss2 adm", 404},
		{"POST", "/v1/explain", "{", "adm eye", 400},
		{"POST", "/v1/revocations", "{", "adm", 400},
		{"GET", "/v1/revocations?after=x", "", "adm aud rs1 rs2", 400},
		{"GET", "/v1/clients", "", "adm", 200},
		{"POST", "/v1/clients", "{", "adm", 400},
		{"GET", "/v1/clients/none", "", "adm", 404},
		{"PATCH", "/v1/clients/none", "{}", "adm", 404},
		{"DELETE", "/v1/clients/none", "", "adm", 404},
		{"POST", "/v1/clients/none/secret", "", "adm", 404},
		{"GET", "/v1/settings", "", "adm ops eye", 200},
		{"PATCH", "/v1/settings", "{", "adm ops", 400},
		{"GET", "/v1/members", "", "adm ops eye", 200},
		{"GET", "/v1/status", "", "adm ops eye", 200},
		{"POST", "/v1/cluster/join", "{}", "adm ops", 400},
		{"POST", "/v1/cluster/leave", "{", "adm ops", 400},
		{"POST", "/v1/cluster/remove", "{}", "adm ops", 400},
		{"POST", "/v1/cluster/transfer-leader", "{", "adm ops", 400},
		{"POST", "/v1/cluster/promote", "{}", "adm ops", 400},
		{"POST", "/v1/cluster/demote", "{}", "adm ops", 400},
		{"POST", "/v1/cluster/admit", "{}", "adm ops", 400},
		{"DELETE", "/v1/cluster/admit/none", "", "adm ops", 404},
		{"GET", "/v1/cluster/admitted", "", "adm ops", 200},
		{"POST", "/v1/cluster/join-tokens", "{", "adm ops", 400},
		{"GET", "/v1/cluster/join-tokens", "", "adm ops", 200},
		{"DELETE", "/v1/cluster/join-tokens/none", "", "adm ops", 404},
		{"GET", "/v1/snapshot", "", "adm ops", 200},
		{"GET", "/v1/debug/metrics", "", "adm", 200},
		{"GET", "/v1/debug/goroutines", "", "adm", 200},
		{"GET", "/v1/debug/heap", "", "adm", 404}, // without pprof
	}
}

func roleMatrix(t *testing.T, s *stage) {
	m := s.Follower(t)
	for _, c := range adminCalls() {
		for _, who := range []string{"adm", "iss", "iss2", "rs1", "rs2", "ops", "eye", "aud", "c1", "cl:ient",
			"basic-only"} {
			r := s.json(t, m, c.method, c.path, who, c.body)
			want := 403
			if slices.Contains(strings.Fields(c.roles), who) {
				want = c.status
			}
			if r.Status != want {
				t.Errorf("%s %s as %s: got %d %s, want %d", c.method, c.path, who, r.Status, r.Body, want)
			}
			if r.Status >= 400 {
				problem(t, c.path, r)
			}
		}
		for title, auth := range map[string]string{
			"no credentials": "", "a wrong secret": basicOf("adm:wrong"),
			"an unknown client": basicOf("nobody:" + secretFor("adm")),
			"a disabled client": basicOf("cd:" + secretFor("cd")), "a public client": basicOf("pub2:x"),
			"a bearer token":                      "Bearer raw~token",
			"a client of client_secret_post only": basicOf("post-only:" + secretFor("post-only")), "no base64": "Basic !!!",
		} {
			a := call{method: c.method, auth: auth, body: c.body, contentType: "application/json"}
			r := s.send(t, s.HTTP, m, c.path, a, nil)
			if r.Status != 401 {
				t.Errorf("%s %s with %s: got %d %s, want 401", c.method, c.path, title, r.Status, r.Body)
			}
			problem(t, c.path, r)
		}
		own := basicOf("adm:" + secretFor("adm"))
		r := s.send(t, s.HTTP, m, c.path, call{method: c.method, body: c.body, contentType: "application/json",
			header: http.Header{"Authorization": {own, own}}}, nil)
		if r.Status != 400 {
			t.Errorf("%s %s with two Authorization headers: got %d, want 400", c.method, c.path, r.Status)
		}
		r = s.send(t, s.HTTP, m, c.path, call{method: c.method, body: c.body, contentType: "application/json", as: "adm",
			plain: true}, nil)
		if r.Status != 400 {
			t.Errorf("%s %s over plain HTTP: got %d, want 400", c.method, c.path, r.Status)
		}
		problem(t, c.path, r)
	}
}

func roleNames(t *testing.T, s *stage) {
	for _, row := range []struct{ method, path, who, body, names string }{
		{"GET", "/v1/members", "c1", "", "admin, operator or viewer"},
		{"GET", "/v1/settings", "aud", "", "admin, operator or viewer"},
		{"PATCH", "/v1/settings", "eye", "{}", "admin or operator"},
		{"GET", "/v1/snapshot", "eye", "", "admin or operator"},
		{"POST", "/v1/cluster/join", "iss", "{}", "admin or operator"},
		{"GET", "/v1/clients", "ops", "", "admin"},
		{"DELETE", "/v1/issuers/none", "ops", "", "admin"},
		{"GET", "/v1/grants?subject=alice", "iss", "", "admin"},
		{"POST", "/v1/grants", "ops", "{}", "admin or issuer"},
		{"POST", "/v1/explain", "ops", "{}", "admin or viewer"},
		{"POST", "/v1/revocations", "rs1", "{}", "admin or issuer"},
		{"POST", "/v1/revocations", "iss", `{"subject":"alice"}`, "admin"}, // without a jti it is a cut-off
		{"GET", "/v1/revocations", "ops", "", "admin, auditor or resource_server"},
	} {
		doc := s.call(t, row.method, row.path, row.who, row.body, 403)
		if want := "forbidden: the caller needs the role " + row.names; doc["detail"] != want {
			t.Errorf("%s %s as %s: got %v, want %q", row.method, row.path, row.who, doc, want)
		}
	}
}

func staffRecords(t *testing.T, s *stage) {
	for _, role := range []string{"operator", "viewer", "auditor"} {
		id, patched := "new-"+role, "patched-"+role
		doc := s.call(t, "POST", "/v1/clients", "adm", fmt.Sprintf(`{"client_id":%q,"roles":[%q,"issuer"]}`, id, role), 201)
		if got := fmt.Sprint(doc["roles"]); got != "["+role+" issuer]" {
			t.Errorf("%s: got roles %s", role, got)
		}
		s.call(t, "POST", "/v1/clients", "adm", fmt.Sprintf(`{"client_id":%q}`, patched), 201)
		doc = s.call(t, "PATCH", "/v1/clients/"+patched, "adm", fmt.Sprintf(`{"roles":[%q]}`, role), 200)
		if got := fmt.Sprint(doc["roles"]); got != "["+role+"]" {
			t.Errorf("%s after PATCH: got roles %s", role, got)
		}
		for _, body := range []string{
			`{"client_id":"refused","type":"public","roles":[%q]}`,
			`{"client_id":"refused","roles":[%q],"auth_methods":["client_secret_post"]}`,
		} {
			s.call(t, "POST", "/v1/clients", "adm", fmt.Sprintf(body, role), 422)
		}
		for _, id := range []string{id, patched} {
			s.call(t, "DELETE", "/v1/clients/"+id, "adm", "", 200)
		}
	}
}

func wrongMethods(t *testing.T, s *stage) {
	allowed := map[string][]string{}
	for _, c := range adminCalls() {
		path, _, _ := strings.Cut(c.path, "?")
		allowed[path] = append(allowed[path], c.method)
	}
	allowed["/livez"], allowed["/readyz"], allowed["/metrics"] = []string{"GET", "HEAD"}, []string{"GET", "HEAD"},
		[]string{"GET", "HEAD"}
	for path, methods := range allowed {
		for _, method := range []string{"GET", "POST", "PUT", "PATCH", "DELETE", "BREW"} {
			if slices.Contains(methods, method) {
				continue
			}
			r := s.json(t, s.Follower(t), method, path, "adm", "")
			if r.Status != 405 {
				t.Errorf("%s %s: got %d %s, want 405", method, path, r.Status, r.Body)
				continue
			}
			problem(t, path, r)
			allow := r.Header.Get("Allow")
			for _, ok := range methods {
				if !strings.Contains(allow, ok) {
					t.Errorf("%s %s: got Allow %q, want %s in it", method, path, allow, ok)
				}
			}
			if strings.Contains(allow, method) {
				t.Errorf("%s %s: got Allow %q, which contains the rejected method", method, path, allow)
			}
		}
	}
}

func refusedBodies(t *testing.T, s *stage) {
	m := s.Follower(t)
	huge := `{"reason":"` + strings.Repeat("x", 70<<10) + `"}`
	for _, c := range adminCalls() {
		if c.method != "POST" && c.method != "PATCH" || c.path == "/v1/clients/none/secret" {
			continue
		}
		send := func(title, body, contentType string, header http.Header, status int) {
			t.Helper()
			r := s.send(t, s.HTTP, m, c.path, call{method: c.method, as: "adm", body: body, contentType: contentType,
				header: header}, nil)
			if r.Status != status {
				t.Errorf("%s %s with %s: got %d %s, want %d", c.method, c.path, title, r.Status, r.Body, status)
			}
			if r.Status >= 400 {
				problem(t, c.path, r)
			}
		}
		send("a form", "a=b", formType, nil, 415)
		send("no content type", "{}", "-", nil, 415)
		send("text", "{}", "text/plain", nil, 415)
		send("another charset", "{}", "application/json; charset=latin1", nil, 415)
		send("gzip", "{}", "application/json", http.Header{"Content-Encoding": {"gzip"}}, 415)
		send("identity", "{}", "application/json", http.Header{"Content-Encoding": {"identity"}}, 415)
		send("a body above the limit", huge, "application/json", nil, 413)
		for _, body := range []string{"[]", "null", `"x"`, "{} {}", "{", `{"unknown_member":1}`, `{"reason":1,"reason":2}`,
			"{\"a\":\"\xff\"}", `{"raw~x":1}`, strings.Repeat(`{"cnf":`, 40)} {
			send("malformed JSON "+body[:min(len(body), 20)], body, "application/json", nil, 400)
		}
	}
}

func clientScenarios() []scenario {
	return []scenario{
		{"contract", "3 \"Client record\"", "a client is created, shown, listed and deleted", clientLife},
		{"contract", "3 \"Client record\"", "valid and invalid client records", clientRefusals},
		{"contract", "3 \"merge-patch\"", "a record is patched", clientPatches},
		{"contract", "3 \"its tokens end\"", "a deleted client's tokens stay inactive when its id is reused", deletedClient},
		{"contract", "3 \"secret_grace\"", "a secret is rotated", rotatedSecret},
		{"contract", "3", "the last administrator cannot be deleted or demoted", lastAdministrator},
		{"contract", "3 \"Public client\"", "allow_public_revocation is switched on and off", publicRevocation},
	}
}

const clientMembers = "allow_public_revocation audiences auth_methods client_id created_at disabled issuers roles type"

func clientLife(t *testing.T, s *stage) {
	id := fmt.Sprintf("made.%d", sequence.Add(1))
	made := s.call(t, "POST", "/v1/clients", "adm",
		`{"client_id":"`+id+`","roles":["resource_server","issuer"],"audiences":["a1"],"issuers":["https://as.example"]}`,
		201)
	keys(t, "created", made, strings.Replace(clientMembers, "client_id", "client_id client_secret", 1))
	secret, _ := made["client_secret"].(string)
	if len(secret) < 32 {
		t.Errorf("got a secret of %d bytes, want 32 or more", len(secret))
	}
	if got := fmt.Sprint(made["client_id"], made["type"], made["roles"], made["audiences"], made["issuers"],
		made["auth_methods"], made["allow_public_revocation"], made["disabled"]); got !=
		id+"confidential[resource_server issuer] [a1] [https://as.example] [client_secret_basic client_secret_post] false false" {
		t.Errorf("created: got %s", got)
	}
	delete(made, "client_secret")
	shown := s.call(t, "GET", "/v1/clients/"+id, "adm", "", 200)
	if fmt.Sprint(shown) != fmt.Sprint(made) {
		t.Errorf("shown: got %v, want %v", shown, made)
	}
	found := false
	for _, x := range s.call(t, "GET", "/v1/clients", "adm", "", 200)["clients"].([]any) {
		record := x.(map[string]any)
		keys(t, "listed", record, clientMembers)
		if record["client_id"] == id {
			found = fmt.Sprint(record) == fmt.Sprint(made)
		}
	}
	if !found {
		t.Error("list: got no record equal to the created client, want one")
	}
	for _, m := range s.Members {
		r := s.send(t, s.HTTP, m, pathIntrospect, call{auth: basicOf(id + ":" + secret), body: "token=raw~unknown"}, nil)
		if r.Status != 200 {
			t.Errorf("%s: the new client: got %d %s, want 200", m.ID, r.Status, r.Body)
		}
	}
	s.call(t, "POST", "/v1/clients", "adm", `{"client_id":"`+id+`"}`, 409)
	keys(t, "deleted", s.call(t, "DELETE", "/v1/clients/"+id, "adm", "", 200), "index")
	keys(t, "deleted again", s.call(t, "DELETE", "/v1/clients/"+id, "adm", "", 200), "index")
	s.call(t, "GET", "/v1/clients/"+id, "adm", "", 404)
	s.call(t, "PATCH", "/v1/clients/"+id, "adm", `{"disabled":true}`, 404)
	for _, m := range s.Members {
		r := s.send(t, s.HTTP, m, pathRevoke, call{auth: basicOf(id + ":" + secret), body: "token=raw~unknown"}, nil)
		if r.Status != 401 {
			t.Errorf("%s: the deleted client: got %d %s, want 401", m.ID, r.Status, r.Body)
		}
	}
}

func clientRefusals(t *testing.T, s *stage) {
	id := fmt.Sprintf("refused.%d", sequence.Add(1))
	for _, row := range []struct {
		body   string
		status int
	}{
		{`{}`, 400}, {`{"client_id":""}`, 400}, {`{"client_id":1}`, 400}, {`{"client_id":"a\u0000b"}`, 400},
		{`{"client_id":"` + strings.Repeat("i", 1000) + `"}`, 400},
		{`{"client_id":"ID","type":"secret"}`, 400}, {`{"client_id":"ID","roles":["king"]}`, 400},
		{`{"client_id":"ID","roles":"admin"}`, 400},
		{`{"client_id":"ID","auth_methods":["client_secret_jwt"]}`, 400},
		{`{"client_id":"ID","auth_methods":["private_key_jwt"]}`, 422}, {`{"client_id":"ID","disabled":"no"}`, 400},
		{`{"client_id":"ID","client_secret":"too short"}`, 422},
		{`{"client_id":"ID","type":"public","client_secret":"` + strings.Repeat("s", 40) + `"}`, 422},
		{`{"client_id":"ID","type":"public","roles":["admin"]}`, 422},
		{`{"client_id":"ID","allow_public_revocation":true}`, 422},
	} {
		s.call(t, "POST", "/v1/clients", "adm", strings.Replace(row.body, "ID", id, 1), row.status)
	}
	s.call(t, "GET", "/v1/clients/"+id, "adm", "", 404)
	given := secretFor(id)
	if made := s.call(t, "POST", "/v1/clients", "adm", `{"client_id":"`+id+`","client_secret":"`+given+`"}`,
		201); made["client_secret"] != given {
		t.Error("given secret: got another client_secret, want the given one")
	}
	weak := s.call(t, "POST", "/v1/clients", "adm", `{"client_id":"`+id+`.weak","client_secret":"weak","imported":true}`,
		201)
	if weak["client_secret"] != "weak" {
		t.Error("imported secret: got another client_secret, want the imported one")
	}
	for _, auth := range []string{basicOf(id + ":" + given), basicOf(id + ".weak:weak")} {
		if r := s.send(t, s.HTTP, s.Follower(t), pathRevoke, call{auth: auth, body: "token=raw~unknown"},
			nil); r.Status != 200 {
			t.Errorf("a client with a given secret: got %d %s, want 200", r.Status, r.Body)
		}
	}
	public := s.call(t, "POST", "/v1/clients", "adm", `{"client_id":"`+id+`.public","type":"public"}`, 201)
	keys(t, "a public client", public, clientMembers)
}

func clientPatches(t *testing.T, s *stage) {
	id := fmt.Sprintf("patched.%d", sequence.Add(1))
	made := s.call(t, "POST", "/v1/clients", "adm",
		`{"client_id":"`+id+`","roles":["resource_server"],"audiences":["a1","a2"]}`, 201)
	patch := func(body string, status int) map[string]any {
		return s.call(t, "PATCH", "/v1/clients/"+id, "adm", body, status)
	}
	if got := patch(`{"audiences":["a3"]}`, 200); fmt.Sprint(got["audiences"]) != "[a3]" ||
		fmt.Sprint(got["roles"]) != "[resource_server]" {
		t.Errorf("got %v", got)
	}
	if got := patch(`{"audiences":null}`, 200); fmt.Sprint(got["audiences"]) != "[]" {
		t.Errorf("null: got %v, want no audiences", got["audiences"])
	}
	if got := patch(`{}`, 200); fmt.Sprint(got["roles"]) != "[resource_server]" {
		t.Errorf("an empty patch: got %v", got)
	}
	if got := patch(`{"disabled":true}`, 200); got["disabled"] != true {
		t.Errorf("got %v, want disabled", got)
	}
	if got := patch(`{"disabled":true}`, 200); got["disabled"] != true {
		t.Errorf("repeated: got %v, want disabled", got)
	}
	if got := patch(`{"disabled":false,"client_id":"`+id+`","type":"confidential"}`, 200); got["disabled"] != false ||
		got["created_at"] != made["created_at"] {
		t.Errorf("got %v, want enabled and created as before", got)
	}
	patch(`{"client_id":"other"}`, 422)
	patch(`{"type":"public"}`, 422)
	patch(`{"client_secret":"`+secretFor(id)+`"}`, 422)
	patch(`{"roles":["king"]}`, 400)
	patch(`{"auth_methods":[]}`, 422)
	r := s.send(t, s.HTTP, s.Follower(t), "/v1/clients/"+id,
		call{method: "PATCH", as: "adm", body: `{"audiences":["m"]}`, contentType: "application/merge-patch+json"}, nil)
	if got := admitted(t, "merge-patch", r, 200); fmt.Sprint(got["audiences"]) != "[m]" {
		t.Errorf("application/merge-patch+json: got %v", got)
	}
	// A change of a resource server's audiences takes effect immediately, on every node.
	token := fmt.Sprintf("%spatched.%d", rawMark, sequence.Add(1))
	s.call(t, "POST", "/v1/grants", "iss", `{"client_id":"c1","audience":["m2"],"access_token":{"token":"`+token+`"}}`,
		201)
	for _, aud := range []string{"m2", "m"} {
		patch(`{"audiences":["`+aud+`"]}`, 200)
		for _, m := range s.Members {
			r := s.send(t, s.HTTP, m, pathIntrospect, call{auth: basicOf(id + ":" + made["client_secret"].(string)),
				body: "token=" + token}, nil)
			if got := strings.Contains(r.Body, `"active":true`); got != (aud == "m2") {
				t.Errorf("%s with the audience %s: got %d %s", m.ID, aud, r.Status, r.Body)
			}
		}
	}
}

func deletedClient(t *testing.T, s *stage) {
	id := fmt.Sprintf("doomed.%d", sequence.Add(1))
	s.call(t, "POST", "/v1/clients", "adm", `{"client_id":"`+id+`","client_secret":"`+secretFor(id)+`"}`, 201)
	access, refresh := s.many(t, id, 3)
	s.everywhere(t, "before", access[0], false, true)
	s.call(t, "DELETE", "/v1/clients/"+id, "adm", "", 200)
	all := func(what string) {
		t.Helper()
		for i := range access {
			s.everywhere(t, what, access[i], false, false)
			s.everywhere(t, what, refresh[i], true, false)
		}
	}
	all("after the client was deleted")
	s.call(t, "POST", "/v1/grants", "iss", `{"client_id":"`+id+`","access_token":{"token":"raw~gone"}}`, 422)
	s.call(t, "POST", "/v1/clients", "adm", `{"client_id":"`+id+`","client_secret":"`+secretFor(id)+`"}`, 201)
	all("after the id was reused")
	if r := s.send(t, s.HTTP, s.Follower(t), pathRevoke, call{as: id, body: "token=" + access[0]}, nil); r.Status != 200 {
		t.Errorf("the new client revokes a token of the old one: got %d %s, want 200", r.Status, r.Body)
	}
}

func rotatedSecret(t *testing.T, s *stage) {
	id := fmt.Sprintf("rotated.%d", sequence.Add(1))
	s.call(t, "POST", "/v1/clients", "adm", `{"client_id":"`+id+`","client_secret":"`+secretFor(id)+`"}`, 201)
	try := func(secret string) (out []int) {
		for _, m := range s.Members {
			out = append(out, s.send(t, s.HTTP, m, pathRevoke,
				call{auth: basicOf(id + ":" + secret), body: "token=raw~unknown"}, nil).Status)
		}
		return out
	}
	first := s.call(t, "POST", "/v1/clients/"+id+"/secret", "adm", "", 200)
	keys(t, "rotated", first, "client_id client_secret index")
	if first["client_id"] != id {
		t.Errorf("got client_id %v, want %s", first["client_id"], id)
	}
	if got := fmt.Sprint(try(secretFor(id)), try(first["client_secret"].(string))); got != "[200 200 200] [200 200 200]" {
		t.Errorf("in the grace: got %s for the old and the new secret, want 200", got)
	}
	s.call(t, "PATCH", "/v1/settings", "adm", `{"secret_grace":"0s"}`, 200)
	second := s.call(t, "POST", "/v1/clients/"+id+"/secret", "adm", "{}", 200)
	s.call(t, "PATCH", "/v1/settings", "adm", `{"secret_grace":null}`, 200)
	if got := fmt.Sprint(try(first["client_secret"].(string)),
		try(second["client_secret"].(string))); got != "[401 401 401] [200 200 200]" {
		t.Errorf("without a grace: got %s for the old and the new secret, want 401 and 200", got)
	}
	s.call(t, "POST", "/v1/clients/pub1/secret", "adm", "", 422)
}

func lastAdministrator(t *testing.T, s *stage) {
	s.call(t, "DELETE", "/v1/clients/adm", "adm", "", 422)
	s.call(t, "PATCH", "/v1/clients/adm", "adm", `{"disabled":true}`, 422)
	s.call(t, "PATCH", "/v1/clients/adm", "adm", `{"roles":[]}`, 422)
	s.call(t, "GET", "/v1/settings", "adm", "", 200)
}

func publicRevocation(t *testing.T, s *stage) {
	w := s.newTokens(t, s.Follower(t))
	own := call{body: "client_id=pub1&token={ATp}"}
	s.call(t, "PATCH", "/v1/clients/pub1", "adm", `{"allow_public_revocation":true}`, 200)
	if r := s.send(t, s.HTTP, s.Follower(t), pathRevoke, call{body: "client_id=pub1&token={AT1}"},
		w.tokens); r.Status != 400 || !strings.Contains(r.Body, "invalid_grant") {
		t.Errorf("a foreign token: got %d %s, want 400 invalid_grant", r.Status, r.Body)
	}
	w.check(t, "")
	if r := s.send(t, s.HTTP, s.Follower(t), pathRevoke, own, w.tokens); r.Status != 200 {
		t.Errorf("switched on: got %d %s, want 200", r.Status, r.Body)
	}
	w.check(t, "ATp RTp")
	s.call(t, "PATCH", "/v1/clients/pub1", "adm", `{"allow_public_revocation":false}`, 200)
	for _, m := range s.Members {
		if r := s.send(t, s.HTTP, m, pathRevoke, own, w.tokens); r.Status != 401 {
			t.Errorf("%s: switched off: got %d %s, want 401", m.ID, r.Status, r.Body)
		}
	}
}
