package api_test

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"revoked"
	"revoked/api"
	"revoked/fsm/command"
	"revoked/internal/testjwt"
)

// A jwtIssuer signs JWTs that are not registered.
type jwtIssuer struct{ key testjwt.Key }

// trust makes the node trust an issuer with one key.
func (n *memoryNode) trust(t testing.TB, change func(*revoked.Issuer)) jwtIssuer {
	t.Helper()
	key := testjwt.NewKey(t, "k")
	i := revoked.DefaultIssuer()
	i.Name, i.Issuer = "jwt", "https://jwt.example"
	i.Keys = []revoked.IssuerKey{key.Record(t)}
	if change != nil {
		change(&i)
	}
	if _, err := n.commit("", command.PutIssuerOp(n.setupActor(), &i, 0)); err != nil {
		t.Fatal(err)
	}
	return jwtIssuer{key}
}

// sign returns a token of client c1 for rs1 with changed claims. A change to nil removes a claim.
func (i jwtIssuer) sign(changes map[string]any) string {
	claims := map[string]any{"iss": "https://jwt.example", "sub": "alice", "aud": "rs1", "client_id": "c1", "jti": "j1",
		"iat": 1_790_000_000, "exp": 1_790_003_600, "scope": "read write", "gid": "g"}
	for name, v := range changes {
		if claims[name] = v; v == nil {
			delete(claims, name)
		}
	}
	return i.key.Sign(testjwt.AccessToken, claims)
}

// forge returns the token with other claims and its old signature.
func forge(token string, claims string) string {
	parts := strings.Split(token, ".")
	return parts[0] + "." + base64.RawURLEncoding.EncodeToString([]byte(claims)) + "." + parts[2]
}

func (b *bench) introspectAs(t testing.TB, who, token string) string {
	t.Helper()
	w := b.do(call{path: pathIntrospect, auth: as(who), body: "token=" + url.QueryEscape(token)})
	if w.Code != http.StatusOK {
		t.Fatalf("introspection by %s: got %d %s, want 200", who, w.Code, w.Body)
	}
	return w.Body.String()
}

// RFC 8725 section 3.9, RFC 7662 section 4: only an audience of the token sees it as active.
func TestIntrospect_JWT_SeenByAudienceAndOwner(t *testing.T) {
	const inactive = `{"active":false}`
	b := newBench(t)
	token := b.node.trust(t, nil).sign(nil)
	want := `{"active":true,"scope":"read write","client_id":"c1","token_type":"Bearer","exp":1790003600,` +
		`"iat":1790000000,"sub":"alice","aud":"rs1","iss":"https://jwt.example","jti":"j1"}`
	for who, want := range map[string]string{
		"rs1": want, "admin": want, "rs2": inactive,
		"c1": inactive, // C32: c1 at the issuer is not the client c1 of this cluster
		"c2": inactive,
	} {
		if got := b.introspectAs(t, who, token); got != want {
			t.Errorf("%s: got %s, want %s", who, got, want)
		}
	}
	own := newBench(t)
	token = own.node.trust(t, func(i *revoked.Issuer) { i.OwnClients = true }).sign(nil)
	if got := own.introspectAs(t, "c1", token); got != want {
		t.Errorf("own client: got %s, want %s", got, want)
	}
	if got := own.introspectAs(t, "c2", token); got != inactive {
		t.Errorf("another client: got %s, want %s", got, inactive)
	}
}

func TestCheck_JWT_TreatedAsRegisteredToken(t *testing.T) {
	b := newBench(t)
	i := b.node.trust(t, nil)
	check := func(token string) (int, string) {
		w := b.do(call{method: "GET", path: "/v1/check", contentType: "-", auth: "Bearer " + token,
			header: http.Header{"Revoked-Authorization": {as("rs1")}}})
		return w.Code, w.Header().Get("Revoked-Subject")
	}
	token := i.sign(nil)
	if status, subject := check(token); status != http.StatusOK || subject != "alice" {
		t.Errorf("got %d for %q, want 200 for alice", status, subject)
	}
	for name, bad := range map[string]string{
		"changed signature": forge(token, `{"iss":"https://jwt.example"}`),
		"another audience":  i.sign(map[string]any{"aud": "rs2"}),
		"bound to a key":    i.sign(map[string]any{"cnf": map[string]any{"jkt": "x"}}),
	} {
		if status, _ := check(bad); status != http.StatusUnauthorized {
			t.Errorf("%s: got %d, want 401", name, status)
		}
	}
	if w := b.do(call{path: pathRevoke, auth: as("admin"), body: "token=" + token}); w.Code != http.StatusOK {
		t.Fatalf("revoke: got %d %s, want 200", w.Code, w.Body)
	}
	if status, _ := check(token); status != http.StatusUnauthorized {
		t.Errorf("after the revocation: got %d, want 401", status)
	}
}

// The test runs the rows JW of docs/standards-tests.md.
func TestRevoke_JWT_ConformanceRows_Hold(t *testing.T) {
	for _, tt := range []struct {
		name   string
		by     string
		own    bool
		token  func(i jwtIssuer, good string) string
		status int
		body   string
		ends   bool // whether the request revokes the valid token
	}{
		{"JW-01: its client", "c1", true, nil, 200, "{}", true},
		{"JW-01: an administrator", "admin", false, nil, 200, "{}", true},
		{"JW-02: changed signature", "c1", true,
			func(_ jwtIssuer, good string) string { return good[:len(good)-4] + "AAAA" }, 200, "{}", false},
		{"JW-05: another client", "c2", true, nil, 400, "invalid_grant", false},
		{"C32: the client of that id, not ours", "c1", false, nil, 400, "invalid_grant", false},
		{"JW-06: forged with the own client id", "c2", true, func(_ jwtIssuer, good string) string {
			return forge(good, `{"iss":"https://jwt.example","client_id":"c2","jti":"j1","iat":1790000000,"exp":1790003600}`)
		}, 200, "{}", false},
		{"JW-07: expired, of the same grant", "c1", true, func(i jwtIssuer, _ string) string {
			return i.sign(map[string]any{"jti": "old", "iat": 1_789_990_000, "exp": 1_789_993_600})
		}, 200, "{}", true},
		{"JW-07: expired, of another client", "c2", true, func(i jwtIssuer, _ string) string {
			return i.sign(map[string]any{"jti": "old", "iat": 1_789_990_000, "exp": 1_789_993_600})
		}, 200, "{}", false},
		{"JW-08: another type", "c1", true, func(i jwtIssuer, good string) string {
			return base64.RawURLEncoding.EncodeToString([]byte(`{"typ":"JWT","alg":"EdDSA","kid":"k"}`)) +
				good[strings.IndexByte(good, '.'):]
		}, 200, "{}", false},
		{"JW-10: with white space", "c1", true,
			func(_ jwtIssuer, good string) string { return good + "%0A" }, 200, "{}", false},
		{"a resource server", "rs1", true, nil, 400, "unauthorized_client", false},
		{"an issuer", "iss", true, nil, 400, "unauthorized_client", false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := newBench(t)
			i := b.node.trust(t, func(i *revoked.Issuer) { i.OwnClients, i.GrantClaim = tt.own, "gid" })
			good := i.sign(nil)
			token := good
			if tt.token != nil {
				token = tt.token(i, good)
			}
			for range 2 { // a repeated request gets the same answer
				w := b.do(call{path: pathRevoke, auth: as(tt.by), body: "token=" + token})
				if w.Code != tt.status || !strings.Contains(w.Body.String(), tt.body) {
					t.Errorf("got %d %s, want %d with %s", w.Code, w.Body, tt.status, tt.body)
				}
			}
			if active := b.active(t, good); active == tt.ends {
				t.Errorf("afterwards: got active %t, want %t", active, !tt.ends)
			}
		})
	}
}

// A caller that has introspected too many unknown tokens still gets an answer about a JWT with a
// valid signature.
func TestIntrospect_MissLimit_AnswersVerifiedJWTs(t *testing.T) {
	b := newBench(t, func(c *api.Config) { c.MissesPerSecond = 1 })
	i := b.node.trust(t, nil)
	last, forged := 0, forge(i.sign(nil), `{"iss":"https://jwt.example"}`)
	for k := 0; last != http.StatusTooManyRequests && k < 1000; k++ {
		last = b.do(call{path: pathIntrospect, auth: as("rs1"), body: "token=" + forged}).Code
	}
	if last != http.StatusTooManyRequests {
		t.Fatalf("forged JWTs: got %d, want 429 in the end", last)
	}
	if got := b.introspectAs(t, "rs1", i.sign(nil)); !strings.HasPrefix(got, `{"active":true`) {
		t.Errorf("verified JWT: got %s, want it active", got)
	}
}

func TestFeed_JWT_HasIssuerAndJTI(t *testing.T) {
	b := newAdminBench(t)
	now := time.Now().Unix()
	token := b.node.trust(t, nil).sign(map[string]any{"iat": now - 1, "exp": now + 3600})
	p := revoked.PresentedToken{Digest: revoked.DigestToken(token), JWT: []byte(token)}
	if _, err := b.node.RevokeToken(t.Context(), actor(b, "admin"), p); err != nil {
		t.Fatal(err)
	}
	for who, want := range map[string]bool{"admin": true, "rs1": true, "rs2": false} {
		body := b.do(t, who, "GET", "/v1/revocations?after=0", "", "").body
		line := `"kind":"jwt","digests":["` + p.Digest.String() + `"],"issuer":"https://jwt.example","jti":"j1"`
		if got := strings.Contains(body, line); got != want {
			t.Errorf("%s: got %s, want the token %t", who, body, want)
		}
		if !strings.Contains(body, `"kind":"issuer","issuer":"https://jwt.example","action":"changed"`) {
			t.Errorf("%s: got %s, want the new issuer", who, body)
		}
	}
}

func TestRevocations_JTI_RevokesTheToken(t *testing.T) {
	b := newBench(t)
	i := b.node.trust(t, nil)
	bound := confidential("bound", "bound-secret", revoked.RoleIssuer)
	bound.Issuers = []string{"https://jwt.example"}
	elsewhere := confidential("elsewhere", "elsewhere-secret", revoked.RoleIssuer)
	elsewhere.Issuers = []string{"https://x.example"}
	b.node.put(bound, elsewhere)
	post := func(who, body string) (int, string) {
		w := b.do(call{path: "/v1/revocations", auth: as(who), body: body, contentType: "application/json"})
		return w.Code, w.Body.String()
	}
	const good = `{"issuer":"https://jwt.example","jti":"j1","expires_at":1790003600,"reason":"stolen"}`
	for _, tt := range []struct {
		who, body string
		want      int
	}{
		{"rs1", good, 403}, {"c1", good, 403},
		{"iss", good, 403}, // C41: an empty list does not contain any issuer
		{"elsewhere", good, 403},
		{"bound", `{"issuer":"https://jwt.example"}`, 403}, // a cut-off
		{"admin", `{"jti":"j1"}`, 400},
		{"admin", `{"issuer":"https://jwt.example","jti":""}`, 400},
		{"admin", `{"issuer":"https://jwt.example","jti":"j1","subject":"alice"}`, 400},
		{"admin", `{"issuer":"https://jwt.example","jti":"j1","issued_before":1790000000}`, 400},
		{"admin", `{"issuer":"https://jwt.example","expires_at":1790003600}`, 400},
		{"admin", `{"issuer":"https://jwt.example","jti":"j1","dry_run":true}`, 422},
		{"admin", `{"issuer":"https://jwt.example","jti":"j1","expect":1}`, 422},
		{"admin", `{"issuer":"https://x.example","jti":"j1"}`, 422},
	} {
		if got, body := post(tt.who, tt.body); got != tt.want {
			t.Errorf("%s by %s: got %d %s, want %d", tt.body, tt.who, got, body, tt.want)
		}
	}
	one, two := i.sign(nil), i.sign(map[string]any{"jti": "j2"})
	if !b.active(t, one) || !b.active(t, two) {
		t.Error("after refused revocations: got an inactive token, want both active")
	}
	for range 2 {
		if got, body := post("bound", good); got != 200 || !strings.HasPrefix(body, `{"index":`) {
			t.Errorf("issuer that may use the iss: got %d %s, want 200", got, body)
		}
	}
	if b.active(t, one) || !b.active(t, two) {
		t.Error("after the revocation of j1: got another state, want j1 inactive and j2 active")
	}
	if got, body := post("admin", `{"issuer":"https://jwt.example","jti":"j2"}`); got != 200 {
		t.Errorf("administrator: got %d %s, want 200", got, body)
	}
	if b.active(t, two) {
		t.Error("after the revocation of j2: got active, want inactive")
	}
}

func TestRevocations_DenyList_OneResultPerLine(t *testing.T) {
	b := newAdminBench(t)
	i := b.node.trust(t, nil)
	now := time.Now().Unix()
	status := func(jti string) revoked.Verdict {
		token := i.sign(map[string]any{"jti": jti, "iat": now - 1, "exp": now + 3600})
		s, err := b.node.StatusOf(t.Context(), revoked.PresentedToken{Digest: revoked.DigestToken(token), JWT: []byte(token)})
		if err != nil {
			t.Fatal(err)
		}
		return s.Verdict
	}
	const lines = 2000
	var body strings.Builder
	for k := range lines {
		switch k {
		case 700:
			body.WriteString(`{"issuer":"https://x.example","jti":"j"}` + "\n\n")
		case 1400:
			body.WriteString(`{"issuer":"https://jwt.example"}` + "\n")
		default:
			fmt.Fprintf(&body, `{"issuer":"https://jwt.example","jti":"j%d","reason":"list"}`+"\n", k)
		}
	}
	got := b.do(t, "admin", "POST", "/v1/revocations", "application/x-ndjson", body.String())
	list := strings.Split(strings.TrimSpace(got.body), "\n")
	if got.status != 200 || len(list) != lines {
		t.Fatalf("got %d and %d lines, want 200 and %d", got.status, len(list), lines)
	}
	for k, line := range list {
		switch k {
		case 700:
			if !strings.Contains(line, `"error":`) || !strings.Contains(line, `"line":701`) {
				t.Errorf("issuer that is not trusted: got %s, want an error of line 701", line)
			}
		case 1400: // follows a blank line
			if !strings.Contains(line, `"error":`) || !strings.Contains(line, `"line":1402`) {
				t.Errorf("line without a jti: got %s, want an error of line 1402", line)
			}
		default:
			if !strings.HasPrefix(line, `{"index":`) {
				t.Fatalf("line %d: got %s, want its index", k+1, line)
			}
		}
	}
	for jti, want := range map[string]revoked.Verdict{
		"j0": revoked.Dead, "j1999": revoked.Dead, "j700": revoked.Active, "j1400": revoked.Active,
	} {
		if got := status(jti); got != want {
			t.Errorf("%s: got verdict %v, want %v", jti, got, want)
		}
	}
	got = b.do(t, "issuer", "POST", "/v1/revocations?results=errors", "application/x-ndjson",
		`{"issuer":"https://jwt.example","jti":"j700"}`+"\n")
	if got.status != 200 || strings.Count(got.body, "\n") != 2 || !strings.Contains(got.body, `"error":`) ||
		!strings.HasSuffix(got.body, `{"lines":1,"revoked":0,"failed":1}`+"\n") {
		t.Errorf("C41: issuer with an empty list: got %d %s, want an error and the summary", got.status, got.body)
	}
	if got := b.do(t, "rs1", "POST", "/v1/revocations", "application/x-ndjson", "{}\n"); got.status != 403 {
		t.Errorf("resource server: got %d %s, want 403", got.status, got.body)
	}
}
