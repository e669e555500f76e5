package api_test

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"revoked"
	"revoked/api"
	"revoked/api/clientauth"
	"revoked/api/serve"
	"revoked/internal/await"
)

// An adminBench is an API with a memoryNode, served with TLS on loopback.
type adminBench struct {
	node *memoryNode
	log  *await.Log
	addr string
	url  string
	http *http.Client
	srv  *serve.Server
	tls  *tls.Config // TLS configuration of the server
}

// secretOf returns the secret of a client of an adminBench.
func secretOf(id string) string { return "secret-of-" + id + "-0123456789abcdef0123456789" }

func newAdminBench(t testing.TB, configure ...func(*api.Config)) *adminBench {
	t.Helper()
	b := &adminBench{node: newMemoryNode(t, time.Now), log: &await.Log{}}
	for _, c := range []revoked.Client{
		{ID: "admin", Roles: []revoked.Role{revoked.RoleAdmin}},
		{ID: "issuer", Roles: []revoked.Role{revoked.RoleIssuer}},
		{ID: "narrow", Roles: []revoked.Role{revoked.RoleIssuer}, Issuers: []string{"https://as.example"}},
		{ID: "rs1", Roles: []revoked.Role{revoked.RoleResourceServer}},
		{ID: "rs2", Roles: []revoked.Role{revoked.RoleResourceServer}, Audiences: []string{"aud2"}},
		{ID: "ops", Roles: []revoked.Role{revoked.RoleOperator}},
		{ID: "eye", Roles: []revoked.Role{revoked.RoleViewer}},
		{ID: "aud", Roles: []revoked.Role{revoked.RoleAuditor}},
		{ID: "app"}, {ID: "other"},
	} {
		c.Type = revoked.Confidential
		c.AuthMethods = []string{revoked.AuthBasic, revoked.AuthPost}
		c.Secrets = []revoked.SecretHash{clientauth.HashSecret(secretOf(c.ID))}
		b.node.put(c)
	}
	b.node.put(revoked.Client{ID: "pub", Type: revoked.Public})
	cfg := api.Config{Backend: b.node, Issuer: "https://as.example", RequireHTTPS: true, RequirePost: true,
		RequestTimeout: await.Limit, // no 503 on a busy machine
		Log:            jsonLog(b.log)}
	for _, f := range configure {
		f(&cfg)
	}
	a, err := api.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(context.Background()) }) // before the node closes
	serveAdmin(t, b, a.Handler())
	return b
}

// serveAdmin serves handler on a loopback port. The server's certificate and the HTTP client come
// from httptest.
func serveAdmin(t testing.TB, b *adminBench, handler http.Handler) {
	t.Helper()
	tlsServer := httptest.NewTLSServer(http.NotFoundHandler())
	t.Cleanup(tlsServer.Close)
	tr := tlsServer.Client().Transport.(*http.Transport).Clone()
	tr.ForceAttemptHTTP2 = true
	b.http = &http.Client{Transport: tr}
	b.tls = &tls.Config{Certificates: tlsServer.TLS.Certificates, NextProtos: []string{"h2", "http/1.1"}}
	b.srv, b.addr = serveTLS(t, handler, b.tls)
	b.url = "https://" + b.addr
	t.Cleanup(tr.CloseIdleConnections)
}

// serveTLS serves handler on a loopback port until the end of the test.
func serveTLS(t testing.TB, handler http.Handler, cfg *tls.Config) (srv *serve.Server, addr string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv = serve.New(serve.Config{Listener: ln, Handler: handler, TLS: cfg, RequestTimeout: await.Limit})
	done := make(chan error, 1)
	go func() { done <- srv.Serve() }()
	t.Cleanup(func() {
		_ = srv.Close()
		if err := await.Receive(t, done, "the end of Serve"); err != nil {
			t.Errorf("got %v, want no error from the server", err)
		}
	})
	return srv, ln.Addr().String()
}

// A reply is a response with its whole body.
type reply struct {
	status int
	header http.Header
	body   string
}

func (r reply) field(t *testing.T, name string) any {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal([]byte(r.body), &m); err != nil {
		t.Fatalf("got %d %q, want a JSON object", r.status, r.body)
	}
	return m[name]
}

// do sends a request as the client who. contentType "" means application/json if there is a body.
func (b *adminBench) do(t testing.TB, who, method, path, contentType, body string) reply {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, b.url+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if contentType == "" && body != "" {
		contentType = "application/json"
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	if who != "" {
		req.SetBasicAuth(who, secretOf(who))
	}
	res, err := b.http.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	got, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return reply{res.StatusCode, res.Header, string(got)}
}

// ahead is a Unix time an hour from now. It is constant, so that a test can send the same
// registration again.
var ahead = fmt.Sprint(time.Now().Add(time.Hour).Unix())

func pairBody(grant, client, access, refresh string) string {
	return fmt.Sprintf(`{"grant_id":%q,"client_id":%q,"subject":"alice","session":"s-1","username":"alice@example.org",
		"issuer":"https://as.example","scope":"read write","audience":["rs1"],
		"access_token":{"token":%q,"issued_at":1790000000.25,"expires_at":%s,"jti":"j","cnf":{"x5t#S256": "abc"}},
		"refresh_token":{"digest":%q,"issued_at":1790000000,"expires_at":%s}}`,
		grant, client, access, ahead, revoked.DigestToken(refresh), ahead)
}

// checkProblem checks a problem document (RFC 9457 section 3).
func checkProblem(t *testing.T, what string, r reply) {
	t.Helper()
	if ct := r.header.Get("Content-Type"); ct != "application/problem+json" {
		t.Errorf("%s: got Content-Type %q, want application/problem+json", what, ct)
	}
	var p struct {
		Type, Title, Detail string
		Status              int
	}
	if err := json.Unmarshal([]byte(r.body), &p); err != nil || p.Status != r.status || p.Title == "" || p.Type == "" {
		t.Errorf("%s: got %q, want a problem document with status %d", what, r.body, r.status)
	}
}

func TestGrants_Registration_IsStored(t *testing.T) {
	b := newAdminBench(t)
	body := pairBody("g-1", "app", "access-1", "refresh-1")
	got := b.do(t, "issuer", "POST", "/v1/grants", "", body)
	if got.status != 201 || got.field(t, "grant_id") != "g-1" || got.field(t, "state") != "active" ||
		got.field(t, "index").(float64) == 0 {
		t.Fatalf("got %d %s, want 201 with grant_id, index, state active", got.status, got.body)
	}
	if again := b.do(t, "issuer", "POST", "/v1/grants", "", body); again.status != 200 ||
		again.field(t, "state") != "active" {
		t.Errorf("the same registration again: got %d %s, want 200", again.status, again.body)
	}
	rec, err := b.node.Peek(revoked.DigestToken("access-1"))
	if err != nil || !rec.Found || rec.Token.IssuedAt != 1790000000_250000 ||
		string(rec.Token.CNF) != `{"x5t#S256":"abc"}` || rec.Token.Scope != "read write" {
		t.Errorf("got record %+v, want the registered values", rec.Token)
	}
	generated := b.do(t, "issuer", "POST", "/v1/grants", "", `{"client_id":"app","access_token":{"token":"t2"}}`)
	id, _ := generated.field(t, "grant_id").(string)
	if generated.status != 201 || len(id) != 24 || !strings.HasPrefix(id, "g_") {
		t.Errorf("without grant_id: got %d %s, want 201 and a generated id", generated.status, generated.body)
	}
	if _, err := b.node.Revoke(t.Context(), actor(b, "admin"), revoked.DigestToken("late")); err != nil {
		t.Fatal(err)
	}
	late := b.do(t, "issuer", "POST", "/v1/grants", "", `{"client_id":"app","access_token":{"token":"late"}}`)
	if late.status != 201 || late.field(t, "state") != "revoked" {
		t.Errorf("a token with a tombstone: got %d %s, want 201 revoked", late.status, late.body)
	}
}

func actor(b *adminBench, id string) revoked.Actor {
	c, _ := b.node.Client(id)
	return revoked.ActorOf(c)
}

// Contract section 3, "body of a registration". No error contains the token.
func TestGrants_MalformedBody_IsRejected(t *testing.T) {
	b := newAdminBench(t)
	if got := b.do(t, "issuer", "POST", "/v1/grants", "", pairBody("g-1", "app", "known", "known-r")); got.status != 201 {
		t.Fatal(got)
	}
	const secret = "SECRET-TOKEN-1234"
	tok := `"access_token":{"token":"` + secret + `"}`
	long := strings.Repeat("x", 300)
	for _, tt := range []struct {
		name, who, body string
		want            int
	}{
		{"not JSON", "issuer", `token=` + secret, 400},
		{"an array", "issuer", `[{"client_id":"app",` + tok + `}]`, 400},
		{"cut short", "issuer", `{"client_id":"app",` + tok, 400},
		{"two values", "issuer", `{"client_id":"app",` + tok + `} {}`, 400},
		{"unknown field", "issuer", `{"client_id":"app","color":"red",` + tok + `}`, 400},
		{"unknown field that is a token", "issuer", `{"client_id":"app","` + secret + `":"red"}`, 400},
		{"unknown field of a token", "issuer", `{"client_id":"app","access_token":{"token":"` + secret + `","exp":1}}`, 400},
		{"a field twice", "issuer", `{"client_id":"app","client_id":"other",` + tok + `}`, 400},
		{"another encoding of a name", "issuer", `{"Client_ID":"app",` + tok + `}`, 400},
		{"client_id a number", "issuer", `{"client_id":1,` + tok + `}`, 400},
		{"audience a string", "issuer", `{"client_id":"app","audience":"rs1",` + tok + `}`, 400},
		{"cnf a string", "issuer", `{"client_id":"app","access_token":{"token":"` + secret + `","cnf":"x"}}`, 400},
		{"expires_at a string", "issuer", `{"client_id":"app","access_token":{"token":"` + secret +
			`","expires_at":"2030-01-01"}}`, 400},
		{"expires_at in milliseconds", "issuer", `{"client_id":"app","access_token":{"token":"` + secret +
			`","expires_at":1990000000000}}`, 400},
		{"past expiry", "issuer", `{"client_id":"app","access_token":{"token":"` + secret + `","expires_at":1000000000}}`,
			400},
		{"negative issued_at", "issuer", `{"client_id":"app","access_token":{"token":"` + secret + `","issued_at":-1}}`, 400},
		{"no client_id", "issuer", `{` + tok + `}`, 400},
		{"no tokens", "issuer", `{"client_id":"app"}`, 400},
		{"tokens null", "issuer", `{"client_id":"app","access_token":null}`, 400},
		{"token and digest", "issuer", `{"client_id":"app","access_token":{"token":"` + secret + `","digest":"` +
			revoked.DigestToken("x").String() + `"}}`, 400},
		{"neither token nor digest", "issuer", `{"client_id":"app","access_token":{}}`, 400},
		{"empty token", "issuer", `{"client_id":"app","access_token":{"token":""}}`, 400},
		{"digest of a wrong length", "issuer", `{"client_id":"app","access_token":{"digest":"` + secret + `"}}`, 400},
		{"digest with padding", "issuer", `{"client_id":"app","access_token":{"digest":"` +
			revoked.DigestToken("x").String() + `="}}`, 400},
		{"digest in standard base64", "issuer", `{"client_id":"app","access_token":{"digest":"` + strings.Repeat("+",
			43) + `"}}`, 400},
		{"both tokens equal", "issuer", `{"client_id":"app",` + tok + `,"refresh_token":{"token":"` + secret + `"}}`, 400},
		{"grant_id too long", "issuer", `{"grant_id":"` + long + `","client_id":"app",` + tok + `}`, 400},
		{"control character in an id", "issuer", `{"grant_id":"a\u0007","client_id":"app",` + tok + `}`, 400},
		{"lone surrogate", "issuer", `{"grant_id":"\ud800","client_id":"app",` + tok + `}`, 400},
		{"empty grant_id", "issuer", `{"grant_id":"","client_id":"app",` + tok + `}`, 400},
		{"too many audiences", "issuer", `{"client_id":"app","audience":[` + strings.Repeat(`"a",`, 64) + `"a"],` + tok +
			`}`, 400},
		{"nested deep", "issuer", `{"client_id":"app","access_token":{"token":"` + secret + `","cnf":{"a":` +
			strings.Repeat("[", 40) + strings.Repeat("]", 40) + `}}}`, 400},
		{"unknown client", "issuer", `{"client_id":"nobody",` + tok + `}`, 422},
		{"grant of another subject", "issuer", `{"grant_id":"g-1","client_id":"app","subject":"bob",` + tok + `}`, 409},
		{"token of another client", "issuer", `{"client_id":"other","access_token":{"token":"known"}}`, 409},
		{"an issuer that the caller may not use", "narrow",
			`{"client_id":"app","issuer":"https://evil.example",` + tok + `}`, 403},
		{"too large", "issuer", `{"client_id":"app",` + tok + `,"scope":"` + strings.Repeat("x", 70000) + `"}`, 413},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := b.do(t, tt.who, "POST", "/v1/grants", "", tt.body)
			if got.status != tt.want {
				t.Errorf("got %d %s, want %d", got.status, got.body, tt.want)
			}
			checkProblem(t, tt.name, got)
			if strings.Contains(got.body, secret) {
				t.Errorf("got the token in the error %s, want none", got.body)
			}
		})
	}
	if strings.Contains(b.log.String(), secret) {
		t.Error("got a token in the log, want none")
	}
	if got := b.do(t, "issuer", "POST", "/v1/grants", "",
		`{"client_id":"app","color":"red"}`); !strings.Contains(got.body, "color") {
		t.Errorf("got %s, want an error with the name of the unknown field", got.body)
	}
}

func TestGrants_OtherContentType_Is415(t *testing.T) {
	b := newAdminBench(t)
	for _, ct := range []string{"text/plain", "application/x-www-form-urlencoded", "application/json; charset=latin1",
		"application/"} {
		if got := b.do(t, "issuer", "POST", "/v1/grants", ct, `{}`); got.status != 415 {
			t.Errorf("%s: got %d, want 415", ct, got.status)
		}
	}
	if got := b.do(t, "issuer", "POST", "/v1/grants", "Application/JSON; charset=UTF-8",
		pairBody("g", "app", "a", "r")); got.status != 201 {
		t.Errorf("got %d %s, want 201", got.status, got.body)
	}
	req, _ := http.NewRequest("POST", b.url+"/v1/grants", strings.NewReader("x"))
	req.Header.Set("Content-Type", "application/x-ndjson")
	req.Header.Set("Content-Encoding", "gzip")
	req.SetBasicAuth("issuer", secretOf("issuer"))
	res, err := b.http.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != 415 {
		t.Errorf("gzip: got %d, want 415", res.StatusCode)
	}
}

func TestGrants_GetAndDelete_RequireOwner(t *testing.T) {
	b := newAdminBench(t)
	id := `g/1 "ä"`
	if got := b.do(t, "issuer", "POST", "/v1/grants", "", pairBody(id, "app", "a", "r")); got.status != 201 {
		t.Fatal(got)
	}
	path := "/v1/grants/" + url.PathEscape(id)
	got := b.do(t, "issuer", "GET", path, "", "")
	if got.status != 200 {
		t.Fatal(got)
	}
	for name, want := range map[string]any{"grant_id": id, "state": "active", "client_id": "app", "subject": "alice",
		"session": "s-1",
		"issuer":  "https://as.example", "scope": "read write", "registered_by": "issuer", "revoked": nil} {
		if v := got.field(t, name); v != want {
			t.Errorf("%s: got %v, want %v", name, v, want)
		}
	}
	first := got.field(t, "tokens").([]any)[0].(map[string]any)
	if first["kind"] != "access_token" || first["digest_prefix"] != revoked.DigestToken("a").Prefix() ||
		first["state"] != "active" || first["issued_at"] != 1790000000.25 {
		t.Errorf("got token %v, want the registered access token", first)
	}
	if strings.Contains(got.body, revoked.DigestToken("a").String()) {
		t.Error("got a whole digest, want its prefix")
	}
	for _, method := range []string{"GET", "DELETE"} {
		if got := b.do(t, "narrow", method, path, "", ""); got.status != 404 {
			t.Errorf("%s by another issuer: got %d, want 404", method, got.status)
		}
	}
	for range 2 {
		if got := b.do(t, "issuer", "DELETE", path+"?reason=left", "", ""); got.status != 200 ||
			got.field(t, "index").(float64) == 0 {
			t.Errorf("DELETE: got %d %s, want 200 {index}", got.status, got.body)
		}
	}
	got = b.do(t, "admin", "GET", path, "", "")
	end, _ := got.field(t, "revoked").(map[string]any)
	if got.field(t, "state") != "revoked" || end["by"] != "issuer" || end["reason"] != "left" ||
		end["index"].(float64) == 0 || end["at"].(float64) == 0 {
		t.Errorf("got %s, want the member revoked", got.body)
	}
	if got := b.do(t, "admin", "DELETE", "/v1/grants/none", "", ""); got.status != 404 {
		t.Errorf("unknown: got %d, want 404", got.status)
	}
}

func TestV1_MalformedQuery_Is400(t *testing.T) {
	b := newBench(t)
	for _, row := range []struct {
		title, method, path string
		status              int
		detail              string
	}{
		{"an invalid escape in a value", "GET", "/v1/revocations?after=%zz", 400, "invalid escape"},
		{"an invalid escape in a name", "GET", "/v1/revocations?a%fter=1", 400, "invalid escape"},
		{"a semicolon", "GET", "/v1/revocations?after=5;x=1", 400, "semicolon"},
		{"only a semicolon", "GET", "/v1/revocations?;", 400, "semicolon"},
		{"a repeated parameter", "GET", "/v1/revocations?after=1&after=2", 400, "after is repeated"},
		{"a parameter repeated with the same value", "GET", "/v1/revocations?follow=false&follow=false", 400,
			"follow is repeated"},
		{"a parameter repeated in another encoding", "GET", "/v1/revocations?after=1&%61fter=10", 400, "after is repeated"},
		{"an invalid escape in a reason", "DELETE", "/v1/grants/g1?reason=%zz", 400, "invalid escape"},
		{"two reasons", "DELETE", "/v1/grants/g1?reason=a&reason=b", 400, "reason is repeated"},
		{"an invalid escape on a path without parameters", "GET", "/v1/status?x=%", 400, "invalid escape"},
		{"results twice", "POST", "/v1/grants?results=errors&results=errors", 400, "results is repeated"},
		{"an unknown parameter", "HEAD", "/v1/revocations?after=1&x=1", 200, ""},
		{"an unknown parameter, repeated", "HEAD", "/v1/revocations?after=1&x=1&x=2", 200, ""},
		{"an empty query", "HEAD", "/v1/revocations?", 200, ""},
		{"only separators", "HEAD", "/v1/revocations?&&after=1&", 200, ""},
		{"the query of a gateway, which is not checked", "GET", "/v1/check?a=%zz&a;b", 403, "gateway is not"},
	} {
		w := b.do(call{method: row.method, path: row.path, auth: as("admin")})
		if w.Code != row.status || !strings.Contains(w.Body.String(), row.detail) {
			t.Errorf("%s: got %d %s, want %d, %q", row.title, w.Code, w.Body, row.status, row.detail)
		}
		if w.Code == 400 && w.Header().Get("Content-Type") != "application/problem+json" {
			t.Errorf("%s: got Content-Type %q, want a problem document", row.title, w.Header().Get("Content-Type"))
		}
	}
	if !b.active(t, "AT1") {
		t.Error("got a deleted grant after a rejected request, want an active token")
	}
	if w := b.do(call{method: "GET", path: "/v1/revocations?after=%zz", auth: basic("admin", "wrong")}); w.Code != 401 {
		t.Errorf("bad credentials and a bad query: got %d, want 401", w.Code)
	}
}

func TestV1_NoLeader_Is503(t *testing.T) {
	b := newAdminBench(t)
	b.node.mu.Lock()
	b.node.fail = func(string) error { return fmt.Errorf("%w: no quorum", revoked.ErrNoLeader) }
	b.node.mu.Unlock()
	for _, c := range [][3]string{
		{"POST", "/v1/grants", pairBody("g", "app", "a", "r")}, {"GET", "/v1/grants/g", ""}, {"DELETE", "/v1/grants/g", ""},
		{"POST", "/v1/revocations", `{"subject":"alice"}`}, {"GET", "/v1/revocations", ""}, {"GET", "/v1/clients", ""},
		{"POST", "/v1/clients", `{"client_id":"n"}`}, {"PATCH", "/v1/clients/app", `{"disabled":true}`},
		{"DELETE", "/v1/clients/app", ""},
		{"POST", "/v1/clients/app/secret", ""}, {"PATCH", "/v1/settings", `{"lease_duration":"3s"}`},
		{"GET", "/v1/members", ""},
		{"POST", "/v1/cluster/leave", "{}"}, {"GET", "/v1/snapshot", ""},
	} {
		got := b.do(t, "admin", c[0], c[1], "", c[2])
		if got.status != 503 || got.header.Get("Retry-After") == "" || strings.Contains(got.body, "raft") {
			t.Errorf("%s %s: got %d %s, want an opaque 503 with Retry-After", c[0], c[1], got.status, got.body)
		}
	}
}
