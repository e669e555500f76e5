package api_test

import (
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/labstack/echo/v4"

	"revoked"
)

// roleTable has the roles of contract 3, 4 and 6 for each route. A row has a method, a path, a
// body, and the ids of the adminBench's clients that may call. An allowed call does not change
// anything that other rows need.
var roleTable = []struct{ call, body, may, needs string }{
	{"POST /v1/grants", `{}`, "admin issuer narrow", "admin or issuer"},
	{"GET /v1/grants", "", "admin", "admin"},
	{"GET /v1/grants/:id", "", "admin issuer narrow", "admin or issuer"},
	{"DELETE /v1/grants/:id", "", "admin issuer narrow", "admin or issuer"},
	{"POST /v1/explain", `{}`, "admin eye", "admin or viewer"},
	{"GET /v1/audit/token", "", "admin aud", "admin or auditor"},
	{"POST /v1/revocations", `{"issuer":"https://as.example","jti":"j"}`, "admin issuer narrow", "admin or issuer"},
	{"GET /v1/revocations", "", "admin aud rs1 rs2", "admin, auditor or resource_server"},
	{"GET /v1/audit", "", "admin aud", "admin or auditor"},
	{"GET /v1/clients", "", "admin", "admin"},
	{"POST /v1/clients", `{}`, "admin", "admin"},
	{"GET /v1/clients/:id", "", "admin", "admin"},
	{"PATCH /v1/clients/:id", `{}`, "admin", "admin"},
	{"DELETE /v1/clients/:id", "", "admin", "admin"},
	{"POST /v1/clients/:id/secret", "", "admin", "admin"},
	{"GET /v1/issuers", "", "admin", "admin"},
	{"POST /v1/issuers", `{}`, "admin", "admin"},
	{"GET /v1/issuers/:id", "", "admin", "admin"},
	{"PATCH /v1/issuers/:id", `{}`, "admin", "admin"},
	{"DELETE /v1/issuers/:id", "", "admin", "admin"},
	{"DELETE /v1/issuers/:id/keys/:thumbprint", "", "admin", "admin"},
	{"POST /v1/issuers/:id/check", `{}`, "admin", "admin"},
	{"POST /v1/issuers/:id/refresh", `{}`, "admin", "admin"},
	{"GET /v1/settings", "", "admin ops eye", "admin, operator or viewer"},
	{"PATCH /v1/settings", `{}`, "admin ops", "admin or operator"},
	{"GET /v1/members", "", "admin ops eye", "admin, operator or viewer"},
	{"GET /v1/status", "", "admin ops eye", "admin, operator or viewer"},
	{"POST /v1/cluster/join", `{}`, "admin ops", "admin or operator"},
	{"POST /v1/cluster/leave", `{}`, "admin ops", "admin or operator"},
	{"POST /v1/cluster/remove", `{}`, "admin ops", "admin or operator"},
	{"POST /v1/cluster/transfer-leader", `{}`, "admin ops", "admin or operator"},
	{"POST /v1/cluster/promote", `{}`, "admin ops", "admin or operator"},
	{"POST /v1/cluster/demote", `{}`, "admin ops", "admin or operator"},
	{"POST /v1/cluster/admit", `{}`, "admin ops", "admin or operator"},
	{"DELETE /v1/cluster/admit/:id", "", "admin ops", "admin or operator"},
	{"GET /v1/cluster/admitted", "", "admin ops", "admin or operator"},
	{"POST /v1/cluster/join-tokens", `{"ttl":1}`, "admin ops", "admin or operator"},
	{"GET /v1/cluster/join-tokens", "", "admin ops", "admin or operator"},
	{"DELETE /v1/cluster/join-tokens/:id", "", "admin ops", "admin or operator"},
	{"GET /v1/snapshot", "", "admin ops", "admin or operator"},
	{"GET /v1/debug/log", "", "admin", "admin"},
	{"GET /v1/debug/config", "", "admin", "admin"},
	{"GET /v1/debug/metrics", "", "admin", "admin"},
	{"GET /v1/debug/goroutines", "", "admin", "admin"},
	{"GET /v1/debug/heap", "", "admin", "admin"},
}

// openRoutes need no role: their handlers decide about their callers, or everyone may call.
var openRoutes = []string{
	pathRevoke, "/invoke/pub.oauth/revokeToken", pathIntrospect, "/invoke/pub.oauth/introspectToken",
	"/.well-known/oauth-authorization-server", "/v1/check", "/v1/check/*", "/v1/openapi.json",
	"/livez", "/readyz", "/metrics",
}

// Every route that the API registers is in the table, or open.
func TestRoles_Routes_AreAllInTheTable(t *testing.T) {
	missing := map[string]bool{}
	for _, row := range roleTable {
		missing[row.call] = true
	}
	routes := newBench(t).api.Handler().(*echo.Echo).Routes()
	if len(routes) < len(roleTable) {
		t.Fatalf("got %d routes, want at least %d", len(routes), len(roleTable))
	}
	for _, r := range routes {
		method := r.Method
		if method == http.MethodHead {
			method = http.MethodGet // the same handler
		}
		call := method + " " + r.Path
		known := slices.ContainsFunc(roleTable, func(row struct{ call, body, may, needs string }) bool {
			return row.call == call
		})
		if delete(missing, call); !known && !slices.Contains(openRoutes, r.Path) {
			t.Errorf("%s: got no row, want the roles that may call it", call)
		}
	}
	if len(missing) > 0 {
		t.Errorf("got rows without a route, want none: %v", missing)
	}
}

// Contract 3 and 6: a client of each role calls each route. A refused call gets 403. The text of
// the response contains the roles that may call the route, always in the same form.
func TestRoles_EachRouteByEachRole_MatchTheTable(t *testing.T) {
	b := newAdminBench(t)
	b.node.nodes = []revoked.Member{{NodeID: "n2", Leader: true}} // a transfer does not wait for the id of a leader
	for _, row := range roleTable {
		method, path, _ := strings.Cut(row.call, " ")
		path = strings.NewReplacer(":id", "none", ":thumbprint", "none").Replace(path)
		methods := []string{method}
		if method == http.MethodGet {
			methods = append(methods, http.MethodHead)
		}
		for _, method := range methods {
			what := method + " " + path
			if got := b.do(t, "", method, path, "", row.body); got.status != 401 ||
				got.header.Get("WWW-Authenticate") != `Basic realm="revoked"` {
				t.Errorf("%s without credentials: got %d, want 401 and Basic", what, got.status)
			}
			for _, who := range []string{"admin", "issuer", "narrow", "rs1", "rs2", "ops", "eye", "aud", "app"} {
				got := b.do(t, who, method, path, "", row.body)
				if got.header.Get("Cache-Control") != "no-store" {
					t.Errorf("%s: got Cache-Control %q, want no-store", what, got.header.Get("Cache-Control"))
				}
				if method == http.MethodHead {
					if (got.status == 403) != !slices.Contains(strings.Fields(row.may), who) {
						t.Errorf("%s as %s: got %d, want 403 only without the role", what, who, got.status)
					}
					continue
				}
				checkRole(t, what, who, row.may, row.needs, got)
			}
		}
	}
}

// checkRole checks the answer to a call. A refusal for a reason other than the role may be 403 too.
func checkRole(t *testing.T, what, who, may, needs string, got reply) {
	t.Helper()
	if got.status >= 400 {
		checkProblem(t, what, got)
	}
	allowed := slices.Contains(strings.Fields(may), who)
	refused := got.status == 403 && strings.Contains(got.body, "the caller needs the role")
	switch {
	case allowed && (refused || got.status == 401):
		t.Errorf("%s as %s: got %d %s, want an allowed call", what, who, got.status, got.body)
	case !allowed && (!refused || got.field(t, "detail") != "forbidden: the caller needs the role "+needs):
		t.Errorf("%s as %s: got %d %s, want 403 with %s", what, who, got.status, got.body, needs)
	}
}

// A cut-off has the same route as the revocation of a jti by an issuer, but requires an
// administrator. The gateway that sends a check authenticates by another header.
func TestRoles_OtherCalls_NameTheRoles(t *testing.T) {
	b := newAdminBench(t)
	for _, who := range []string{"admin", "issuer", "narrow"} {
		for _, body := range []string{`{}`, `{"subject":"nobody"}`, `{"client_id":"app","dry_run":true}`} {
			checkRole(t, "cut-off "+body, who, "admin", "admin", b.do(t, who, "POST", "/v1/revocations", "", body))
		}
	}
	for _, who := range []string{"ops", "eye", "aud", "rs1", "app"} {
		for contentType, path := range map[string]string{
			"application/x-ndjson": "/v1/revocations?results=errors", "application/json": "/v1/grants"} {
			checkRole(t, path, who, "", "admin or issuer", b.do(t, who, "POST", path, contentType, "{}\n"))
		}
	}
	for _, who := range []string{"ops", "eye", "aud", "admin", "issuer", "app"} {
		req := b.request(t, who, "GET", "/v1/check", nil)
		req.Header.Set("Authorization", "Bearer x")
		req.Header.Set("Revoked-Authorization", basic(who, secretOf(who)))
		res, err := b.http.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(res.Body)
		res.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		got := reply{res.StatusCode, res.Header, string(body)}
		if got.status != 403 || got.field(t, "detail") != "forbidden: the caller needs the role resource_server" {
			t.Errorf("check as %s: got %d %s, want 403 with resource_server", who, got.status, got.body)
		}
	}
}

// At the OAuth endpoints, an operator, a viewer or an auditor cannot see or revoke the tokens of
// others. The same holds for an issuer.
func TestRoles_OAuth_StaffHasNoAdminRights(t *testing.T) {
	b := newAdminBench(t)
	tok := `{"client_id":"app","audience":["ops","eye","aud"],"access_token":{"token":"AT"}}`
	if got := b.do(t, "issuer", "POST", "/v1/grants", "", tok); got.status != 201 {
		t.Fatalf("register: got %d %s, want 201", got.status, got.body)
	}
	for _, who := range []string{"ops", "eye", "aud"} {
		if got := b.do(t, who, "POST", pathIntrospect, formType, "token=AT"); got.body != `{"active":false}` {
			t.Errorf("introspect as %s: got %d %s, want inactive", who, got.status, got.body)
		}
		for _, token := range []string{"AT", "unknown"} {
			got := b.do(t, who, "POST", pathRevoke, formType, "token="+token)
			if got.status != 400 || got.field(t, "error") != "unauthorized_client" {
				t.Errorf("revoke %s as %s: got %d %s, want unauthorized_client", token, who, got.status, got.body)
			}
		}
	}
	if got := b.do(t, "admin", "POST", pathIntrospect, formType, "token=AT"); got.field(t, "active") != true {
		t.Errorf("the token afterwards: got %s, want active", got.body)
	}
}

// An auditor reads the whole feed, as an administrator does.
func TestRoles_Feed_AuditorSeesEverything(t *testing.T) {
	b := newAdminBench(t)
	revokeSome(t, b)
	if got := b.do(t, "admin", "POST", "/v1/revocations", "",
		`{"subject":"alice","session":"s-1","reason":"left"}`); got.status != 200 {
		t.Fatalf("cut-off: got %d %s, want 200", got.status, got.body)
	}
	want := b.do(t, "admin", "GET", "/v1/revocations", "", "").body
	if got := b.do(t, "aud", "GET", "/v1/revocations", "", "").body; got != want || !strings.Contains(got, `"left"`) {
		t.Errorf("feed of an auditor: got %s, want %s", got, want)
	}
	if got := b.do(t, "rs1", "GET", "/v1/revocations", "", "").body; strings.Contains(got, "alice") {
		t.Errorf("feed of a resource server: got %s, want no subject", got)
	}
}
