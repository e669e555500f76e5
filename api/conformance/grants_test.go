package conformance_test

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

func registrationScenarios() []scenario {
	return []scenario{
		{"contract", "3 \"POST /v1/grants\"", "201, then 200 with the same", registerTwice},
		{"contract", "3 \"POST /v1/grants\"", "registrations that are refused", registerRefusals},
		{"contract", "3 \"grant_id\"", "a grant of another client, subject, session or issuer", registerConflicts},
		{"contract", "3 \"The refresh token with the latest issued_at is live\"", "refresh tokens rotate, in any order",
			registerRotation},
		{"contract", "3 \"application/x-ndjson\"", "results come in the order of the lines", registerLines},
		{"contract", "3 \"results=errors\"", "only failures and a summary", registerErrorsOnly},
		{"contract", "3 \"must not deadlock\"", "a client that reads nothing before it has sent everything",
			registerWithoutReading},
		{"contract", "3 \"GET /v1/grants/{id}\"", "a grant is shown to its issuer and to administrators", shownGrant},
		{"contract", "3 \"DELETE /v1/grants/{id}\"", "an issuer revokes its grant", endedGrant},
	}
}

// largeScenarios returns the scenarios that must run last: the nodes delete a large grant in steps,
// and the feed lists these steps.
func largeScenarios() []scenario {
	return []scenario{{"contract", "3 \"at most 10,000 tokens\"", "a full grant", fullGrant}}
}

func digestOf(token string) string {
	sum := sha256.Sum256([]byte(token))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// fresh returns an unused raw token.
func fresh(name string) string { return fmt.Sprintf("%s%s.%d", rawMark, name, sequence.Add(1)) }

func registerTwice(t *testing.T, s *stage) {
	at, rt := fresh("at"), fresh("rt")
	id := fmt.Sprintf("twice.%d", sequence.Add(1))
	exp := s.now().Unix() + 600
	body := fmt.Sprintf(`{"grant_id":%q,"client_id":"c1","scope":"a b","audience":["rs1"],"access_token":{"token":%q,"expires_at":%d},"refresh_token":{"digest":%q}}`, id, at, exp, digestOf(rt))
	first := s.call(t, "POST", "/v1/grants", "iss", body, 201)
	keys(t, "registered", first, "grant_id index state")
	if first["grant_id"] != id || first["state"] != "active" || first["index"].(float64) <= 0 {
		t.Errorf("got %v", first)
	}
	s.everywhere(t, "given as a token", at, false, true)
	s.everywhere(t, "given as a digest", rt, true, true)
	for _, again := range []string{body,
		strings.Replace(body, fmt.Sprint(exp), fmt.Sprint(exp+1000), 1), // does not change the token
		fmt.Sprintf(`{"client_id":"c1","scope":"other","access_token":{"digest":%q}}`, digestOf(at)),
	} {
		second := s.call(t, "POST", "/v1/grants", "iss", again, 200)
		keys(t, "known", second, "grant_id index state")
		if second["grant_id"] != id || second["state"] != "active" {
			t.Errorf("known: got %v, want the grant %s", second, id)
		}
	}
	r := s.send(t, s.HTTP, s.Follower(t), pathIntrospect, call{as: "rs1", body: "token=" + at}, nil)
	if !strings.Contains(r.Body, fmt.Sprintf(`"exp":%d,`, exp)) || !strings.Contains(r.Body, `"scope":"a b"`) {
		t.Errorf("after it was registered again: got %s, want the expiry and scope it had", r.Body)
	}
	made := s.call(t, "POST", "/v1/grants", "adm", `{"client_id":"c1","access_token":{"token":"`+fresh("made")+`"}}`, 201)
	other := s.call(t, "POST", "/v1/grants", "adm", `{"client_id":"c1","access_token":{"token":"`+fresh("made")+`"}}`, 201)
	if made["grant_id"] == "" || made["grant_id"] == other["grant_id"] {
		t.Errorf("made by the server: got %v and %v", made, other)
	}
	// More tokens of a known grant.
	more := s.call(t, "POST", "/v1/grants", "iss",
		fmt.Sprintf(`{"grant_id":%q,"client_id":"c1","scope":"c","access_token":{"token":%q}}`, id, at+".more"), 201)
	if more["grant_id"] != id {
		t.Errorf("got %v", more)
	}
	s.revoke(t, "c1", at+".more")
	s.everywhere(t, "of a grant that ended by a later token", at, false, false)
	revoked := s.call(t, "POST", "/v1/grants", "iss", body, 200)
	if revoked["state"] != "revoked" {
		t.Errorf("known and revoked: got %v, want state revoked", revoked)
	}
}

func registerRefusals(t *testing.T, s *stage) {
	now := s.now().Unix()
	for _, row := range []struct {
		body   string
		status int
	}{
		{`{}`, 400}, {`{"client_id":"c1"}`, 400}, {`{"access_token":{"token":"raw~x"}}`, 400},
		{`{"client_id":"c1","access_token":{}}`, 400},
		{`{"client_id":"c1","access_token":{"token":""}}`, 400}, {`{"client_id":"c1","access_token":{"token":1}}`, 400},
		{`{"client_id":"c1","access_token":"raw~x"}`, 400},
		{`{"client_id":"c1","access_token":{"digest":"AAAA"}}`, 400},
		{`{"client_id":"c1","access_token":{"digest":"` + digestOf("x") + `="}}`, 400},
		{`{"client_id":"c1","access_token":{"digest":"` + strings.Repeat("+", 43) + `"}}`, 400},
		{`{"client_id":"c1","access_token":{"digest":"` + digestOf("x") + `AA"}}`, 400},
		{`{"client_id":"c1","access_token":{"token":"raw~x","digest":"` + digestOf("x") + `"}}`, 400},
		{fmt.Sprintf(`{"client_id":"c1","access_token":{"token":"raw~x","expires_at":%d}}`, now-1), 400},
		{fmt.Sprintf(`{"client_id":"c1","access_token":{"token":"raw~x"},"refresh_token":{"token":"raw~y","expires_at":%d}}`, now-1), 400},
		{`{"client_id":"c1","access_token":{"token":"raw~x","issued_at":"yesterday"}}`, 400},
		{`{"client_id":"c1","access_token":{"token":"raw~x","issued_at":-1}}`, 400},
		{`{"client_id":"c1","access_token":{"token":"raw~x","cnf":"x"}}`, 400},
		{`{"client_id":"c1","audience":"rs1","access_token":{"token":"raw~x"}}`, 400},
		{`{"client_id":"c1","access_token":{"token":"raw~x"},"refresh_token":{"token":"raw~x"}}`, 400},
		{`{"client_id":"c1","surprise":1,"access_token":{"token":"raw~x"}}`, 400},
		{`{"client_id":"nobody","access_token":{"token":"raw~x"}}`, 422},
	} {
		s.call(t, "POST", "/v1/grants", "iss", row.body, row.status)
	}
	for _, token := range []string{"raw~x", "raw~y", "x"} {
		s.everywhere(t, "after refusals", token, false, false)
	}
	as2 := fresh("as2")
	s.call(t, "POST", "/v1/grants", "iss2",
		`{"client_id":"c1","issuer":"https://as.example","access_token":{"token":"`+as2+`"}}`, 403)
	s.call(t, "POST", "/v1/grants", "iss2", `{"client_id":"c1","access_token":{"token":"`+as2+`"}}`, 403)
	s.everywhere(t, "of an issuer that may not", as2, false, false)
	s.call(t, "POST", "/v1/grants", "iss2",
		`{"client_id":"c1","issuer":"https://as2.example","access_token":{"token":"`+as2+`"}}`, 201)
	s.everywhere(t, "of an issuer that may", as2, false, true)
}

func registerConflicts(t *testing.T, s *stage) {
	id, at := fmt.Sprintf("mine.%d", sequence.Add(1)), fresh("mine")
	register := func(client, subject, session, issuer, token string, status int) {
		t.Helper()
		s.call(t, "POST", "/v1/grants", "iss",
			fmt.Sprintf(`{"grant_id":%q,"client_id":%q,"subject":%q,"session":%q,"issuer":%q,"access_token":{"token":%q}}`,
				id, client, subject, session, issuer, token), status)
	}
	register("c1", "u", "s", "https://as.example", at, 201)
	register("c2", "u", "s", "https://as.example", at+"1", 409)
	register("c1", "v", "s", "https://as.example", at+"2", 409)
	register("c1", "u", "r", "https://as.example", at+"3", 409)
	register("c1", "u", "s", "https://as.other", at+"4", 409)
	s.call(t, "POST", "/v1/grants", "iss", `{"client_id":"c2","access_token":{"token":"`+at+`"}}`, 409)
	if known := s.call(t, "POST", "/v1/grants", "iss",
		`{"client_id":"c1","subject":"else","access_token":{"token":"`+at+`"}}`, 200); known["grant_id"] != id {
		t.Errorf("a token known for the same client: got %v, want its grant %s", known, id)
	}
	// Absent fields of a registration match any value of the grant.
	s.call(t, "POST", "/v1/grants", "iss", `{"grant_id":"`+id+`","client_id":"c1","access_token":{"token":"`+at+`"}}`, 200)
	more := at + ".more"
	s.call(t, "POST", "/v1/grants", "iss",
		`{"grant_id":"`+id+`","client_id":"c1","subject":null,"access_token":{"token":"`+more+`"}}`, 201)
	s.everywhere(t, "joined by the grant's id alone", more, false, true)
	other := fresh("other")
	s.call(t, "POST", "/v1/grants", "iss", `{"client_id":"c1","refresh_token":{"token":"`+other+`"}}`, 201)
	s.call(t, "POST", "/v1/grants", "iss",
		`{"client_id":"c1","access_token":{"token":"`+at+`"},"refresh_token":{"token":"`+other+`"}}`, 200)
	s.call(t, "POST", "/v1/grants", "iss",
		`{"client_id":"c1","access_token":{"token":"`+at+`"},"refresh_token":{"token":"`+other+`.new"}}`, 409)
	for i := 1; i <= 4; i++ {
		s.everywhere(t, "after a conflict", fmt.Sprint(at, i), false, false)
	}
	s.everywhere(t, "the earlier token", at, false, true)
}

func registerRotation(t *testing.T, s *stage) {
	id, now := fmt.Sprintf("rotating.%d", sequence.Add(1)), s.now().Unix()
	var tokens []string
	add := func(iat string) string {
		token := fresh("rotating")
		tokens = append(tokens, token)
		s.call(t, "POST", "/v1/grants", "iss",
			fmt.Sprintf(`{"grant_id":%q,"client_id":"c1","refresh_token":{"token":%q,"issued_at":%s}}`, id, token, iat), 201)
		return token
	}
	live := func(want string) {
		t.Helper()
		for _, token := range tokens {
			s.everywhere(t, "refresh token", token, true, token == want)
		}
	}
	first := add(fmt.Sprint(now - 100))
	live(first)
	second := add(fmt.Sprintf("%d.5", now-50))
	live(second)
	add(fmt.Sprintf("%d.25", now-50)) // fractions of a second are compared, too
	live(second)
	add(fmt.Sprint(now - 1000)) // an older token that is registered late
	live(second)
	last := add(fmt.Sprint(now))
	live(last)
	r := s.send(t, s.HTTP, s.Follower(t), pathRevoke, call{as: "c1", body: "token=" + first}, nil)
	if r.Status != 200 {
		t.Errorf("revoke a rotated one: got %d %s", r.Status, r.Body)
	}
	live("")
}

func fullGrant(t *testing.T, s *stage) {
	id, n := fmt.Sprintf("full.%d", sequence.Add(1)), sequence.Add(1)
	var lines strings.Builder
	for i := range 5000 {
		fmt.Fprintf(&lines, `{"grant_id":%q,"client_id":"c1","access_token":{"digest":%q},"refresh_token":{"digest":%q,"issued_at":%d}}`+"\n", id,
			digestOf(fmt.Sprintf("full.%d.%d", n, i)), digestOf(fmt.Sprintf("full.%d.%d.r", n, i)), 1_700_000_000+i)
	}
	r := s.send(t, s.HTTP, s.Follower(t), "/v1/grants?results=errors",
		call{as: "iss", body: lines.String(), contentType: ndjson}, nil)
	if want := `{"registered":5000,"known":0,"revoked":0,"failed":0,"lines":5000}` + "\n"; r.Body != want {
		t.Fatalf("got %d %s, want %s", r.Status, r.Body, want)
	}
	one := func(token string, status int) {
		t.Helper()
		s.call(t, "POST", "/v1/grants", "iss", fmt.Sprintf(`{"grant_id":%q,"client_id":"c1","access_token":{"token":%q}}`,
			id, token), status)
	}
	one(fresh("full"), 422)
	one(fmt.Sprintf("full.%d.17", n), 200) // known
	s.revoke(t, "c1", fmt.Sprintf("full.%d.4321.r", n))
	for _, i := range []int{0, 1, 63, 64, 65, 4999} {
		s.everywhere(t, "of a large grant", fmt.Sprintf("full.%d.%d", n, i), false, false)
	}
	one(fresh("full"), 422) // the limit includes revoked tokens
}

func registerLines(t *testing.T, s *stage) {
	id, n := fmt.Sprintf("lines.%d", sequence.Add(1)), sequence.Add(1)
	token := func(i int) string { return fmt.Sprintf("%sline.%d.%d", rawMark, n, i) }
	s.revoke(t, "c1", token(4))
	lines := []struct{ body, want string }{
		{fmt.Sprintf(`{"grant_id":%q,"client_id":"c1","access_token":{"token":%q}}`, id, token(1)),
			`{"grant_id":"` + id + `","index":#,"state":"active"}`},
		{`{"client_id":"c1"`, `{"error":"invalid","line":2}`},
		{fmt.Sprintf(`{"grant_id":%q,"client_id":"c1","access_token":{"token":%q}}`, id, token(1)),
			`{"grant_id":"` + id + `","index":#,"state":"active"}`},
		{"", ""},
		{fmt.Sprintf(`{"grant_id":"%s.d","client_id":"c1","access_token":{"token":%q}}`, id, token(4)),
			`{"grant_id":"` + id + `.d","index":#,"state":"revoked"}`},
		{fmt.Sprintf(`{"client_id":"nobody","access_token":{"token":%q}}`, token(5)), `{"error":"unknown_client","line":6}`},
		{fmt.Sprintf(`{"grant_id":%q,"client_id":"c2","access_token":{"token":%q}}`, id, token(6)),
			`{"error":"conflict","line":7}`},
		{strings.Repeat("x", 70<<10), `{"error":"invalid","line":8}`},
		{fmt.Sprintf(`{"grant_id":"%s.e","client_id":"c2","refresh_token":{"token":%q}}`, id, token(7)) + "\r",
			`{"grant_id":"` + id + `.e","index":#,"state":"active"}`},
	}
	var body strings.Builder
	var want []string
	for i, l := range lines {
		body.WriteString(l.body)
		if i < len(lines)-1 { // the last line needs no line feed
			body.WriteString("\n")
		}
		if l.want != "" {
			want = append(want, l.want)
		}
	}
	r := s.send(t, s.HTTP, s.Follower(t), "/v1/grants", call{as: "iss", body: body.String(), contentType: ndjson}, nil)
	if r.Status != 200 || r.Header.Get("Content-Type") != ndjson {
		t.Errorf("got %d %s", r.Status, r.Header.Get("Content-Type"))
	}
	got := strings.Split(strings.TrimSuffix(r.Body, "\n"), "\n")
	if len(got) != len(want) {
		t.Fatalf("got %d results %s, want %d", len(got), r.Body, len(want))
	}
	for i, line := range got {
		var doc map[string]any
		if err := json.Unmarshal([]byte(line), &doc); err != nil {
			t.Fatalf("result %d: %v", i, err)
		}
		if _, failed := doc["error"]; failed {
			if detail, _ := doc["detail"].(string); detail == "" || strings.Contains(detail, rawMark) {
				t.Errorf("result %d: got detail %q", i, detail)
			}
			line = fmt.Sprintf(`{"error":%q,"line":%v}`, doc["error"], doc["line"])
		} else {
			line = strings.Replace(line, fmt.Sprintf(`"index":%.0f`, doc["index"]), `"index":#`, 1)
		}
		if line != want[i] {
			t.Errorf("result %d: got %s, want %s", i, line, want[i])
		}
	}
	s.everywhere(t, "line 1", token(1), false, true)
	s.everywhere(t, "line 5, revoked before", token(4), false, false)
	s.everywhere(t, "line 7, a conflict", token(6), false, false)
	s.everywhere(t, "the last line", token(7), true, true)
}

func registerErrorsOnly(t *testing.T, s *stage) {
	n := sequence.Add(1)
	dead := fmt.Sprintf("%serrors.%d.dead", rawMark, n)
	s.revoke(t, "adm", dead)
	body := fmt.Sprintf(`{"client_id":"c1","access_token":{"token":"%[1]serrors.%[2]d.1"}}
{"client_id":"c1","access_token":{"token":"%[1]serrors.%[2]d.1"}}
{"client_id":"nobody","access_token":{"token":"%[1]serrors.%[2]d.2"}}
{"client_id":"c1","access_token":{"token":%[3]q}}
not JSON
`, rawMark, n, dead)
	r := s.send(t, s.HTTP, s.Follower(t), "/v1/grants?results=errors", call{as: "iss", body: body, contentType: ndjson},
		nil)
	lines := strings.Split(strings.TrimSuffix(r.Body, "\n"), "\n")
	if r.Status != 200 || len(lines) != 3 || !strings.Contains(lines[0], `"line":3`) ||
		!strings.Contains(lines[1], `"line":5`) ||
		lines[2] != `{"registered":2,"known":1,"revoked":1,"failed":2,"lines":5}` {
		t.Errorf("got %d %s", r.Status, r.Body)
	}
	if r := s.send(t, s.HTTP, s.Follower(t), "/v1/grants?results=some", call{as: "iss", body: body, contentType: ndjson},
		nil); r.Status != 400 {
		t.Errorf("results=some: got %d %s, want 400", r.Status, r.Body)
	}
	if r := s.send(t, s.HTTP, s.Follower(t), "/v1/grants?results=errors", call{as: "iss", contentType: ndjson},
		nil); r.Body != `{"registered":0,"known":0,"revoked":0,"failed":0,"lines":0}`+"\n" {
		t.Errorf("no lines: got %d %s", r.Status, r.Body)
	}
	for _, who := range []string{"c1", "rs1"} {
		if r := s.send(t, s.HTTP, s.Follower(t), "/v1/grants", call{as: who, body: body, contentType: ndjson},
			nil); r.Status != 403 {
			t.Errorf("%s: got %d %s, want 403", who, r.Status, r.Body)
		}
	}
}

// registerWithoutReading writes all of a long body to a bare connection before it reads.
func registerWithoutReading(t *testing.T, s *stage) {
	const lines = 5000
	n := sequence.Add(1)
	var body strings.Builder
	for i := range lines {
		fmt.Fprintf(&body, `{"grant_id":"%s.%d.%d","client_id":"c1","subject":"a subject that makes results long and lines longer","access_token":{"digest":%q}}`+"\n",
			strings.Repeat("g", 200), n, i, digestOf(fmt.Sprintf("unread.%d.%d", n, i)))
	}
	request := "POST /v1/grants HTTP/1.1\r\nHost: as.example\r\nAuthorization: " + basicOf("iss:"+secretFor("iss")) +
		"\r\nContent-Type: " + ndjson + "\r\n" + sized(body.String()) + "\r\n" + body.String()
	r, closed := s.exchange(t, s.Follower(t), false, request)
	if got := strings.Count(r.Body, `"state":"active"`); closed || r.Status != 200 || got != lines {
		t.Errorf("got %d and %d results, want 200 and %d", r.Status, got, lines)
	}
	last := -1
	for _, line := range strings.Split(strings.TrimSuffix(r.Body, "\n"), "\n") {
		var doc struct {
			GrantID string `json:"grant_id"`
		}
		if err := json.Unmarshal([]byte(line), &doc); err != nil {
			t.Fatal(err)
		}
		var i int
		if _, err := fmt.Sscanf(doc.GrantID[strings.LastIndex(doc.GrantID, ".")+1:], "%d", &i); err != nil || i != last+1 {
			t.Fatalf("got the result of line %d after that of line %d (%v)", i, last, err)
		}
		last = i
	}
}

func shownGrant(t *testing.T, s *stage) {
	w := s.newTokens(t, s.Follower(t))
	view := s.call(t, "GET", "/v1/grants/"+w.grants["G"], "iss", "", 200)
	for _, k := range []string{"grant_id", "state", "client_id", "subject", "session", "issuer", "scope", "created_at",
		"expires_at", "tokens"} {
		if _, ok := view[k]; !ok {
			t.Errorf("the grant has no member %s: %v", k, view)
		}
	}
	if got := fmt.Sprint(view["grant_id"], view["state"], view["client_id"], view["subject"], view["session"],
		view["issuer"], view["scope"]); got !=
		w.grants["G"]+"active"+"c1"+w.subject()+w.session()+"https://as.example"+"read write" {
		t.Errorf("got %s", got)
	}
	if _, there := view["revoked"]; there {
		t.Errorf("got the active grant revoked: %v", view)
	}
	states := map[string]string{}
	for _, x := range view["tokens"].([]any) {
		tok := x.(map[string]any)
		states[fmt.Sprint(tok["digest_prefix"])] = fmt.Sprint(tok["kind"], " ", tok["state"])
	}
	check := func(want map[string]string) {
		t.Helper()
		for name, state := range want {
			if got := states[digestOf(w.tokens[name])[:8]]; got != state {
				t.Errorf("%s: got %q, want %q", name, got, state)
			}
		}
		if len(states) != len(want) {
			t.Errorf("got %d tokens, want %d", len(states), len(want))
		}
	}
	check(map[string]string{"ATa": "access_token active", "ATb": "access_token active", "ATc": "access_token active",
		"RTg0": "refresh_token rotated", "RTg1": "refresh_token rotated", "RTg": "refresh_token active"})
	s.call(t, "GET", "/v1/grants/"+w.grants["G"], "adm", "", 200)
	s.call(t, "GET", "/v1/grants/"+w.grants["G"], "iss2", "", 404)
	s.call(t, "GET", "/v1/grants/"+w.grants["G"], "c1", "", 403)
	s.revoke(t, "c1", w.tokens["ATb"])
	view = s.call(t, "GET", "/v1/grants/"+w.grants["G"], "iss", "", 200)
	end, _ := view["revoked"].(map[string]any)
	if view["state"] != "revoked" || end["by"] != "c1" || end["index"].(float64) <= 0 ||
		end["at"].(float64) < float64(w.iat) {
		t.Errorf("revoked: got %v", view)
	}
	if _, ok := end["reason"]; !ok {
		t.Errorf("revoked: got no reason in %v", end)
	}
	if b, _ := json.Marshal(view); strings.Contains(string(b), rawMark) {
		t.Errorf("got a raw token in the view, want none: %s", b)
	}
}

func endedGrant(t *testing.T, s *stage) {
	w := s.newTokens(t, s.Follower(t))
	s.call(t, "DELETE", "/v1/grants/"+w.grants["G"], "iss2", "", 404)
	s.call(t, "DELETE", "/v1/grants/"+w.grants["G"], "c1", "", 403)
	s.call(t, "DELETE", "/v1/grants/"+w.grants["G"], "rs1", "", 403)
	w.check(t, "")
	first := s.call(t, "DELETE", "/v1/grants/"+w.grants["G"]+"?reason=stolen", "iss", "", 200)
	keys(t, "deleted", first, "index")
	w.check(t, whole)
	keys(t, "deleted again", s.call(t, "DELETE", "/v1/grants/"+w.grants["G"], "iss", "", 200), "index")
	view := s.call(t, "GET", "/v1/grants/"+w.grants["G"], "adm", "", 200)
	if end, _ := view["revoked"].(map[string]any); end["by"] != "iss" || end["reason"] != "stolen" ||
		end["index"] != first["index"] {
		t.Errorf("got %v, want by iss, stolen, at %v", view["revoked"], first["index"])
	}
	keys(t, "deleted by an administrator", s.call(t, "DELETE", "/v1/grants/"+w.grants["g2"], "adm", "", 200), "index")
	w.check(t, whole+" AT2 RT2")
}
