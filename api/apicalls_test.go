package api_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"revoked"
	"revoked/api"
)

// Real calls get each answer that openapi.json describes, and no other answer. An answer with a
// member that its schema lacks fails the test.
func TestOpenAPI_RealCalls_MatchTheDescription(t *testing.T) {
	d := loadDescription(t)
	b := newAdminBench(t, restrictMetrics)
	b.node.nodes = []revoked.Member{{NodeID: "n1", Region: "eu", Voter: true, Leader: true, Alive: true, LastContact: -1}}
	b.node.snapshot = func(w io.Writer) error {
		_, err := io.WriteString(w, "a backup")
		return err
	}
	d.commonCalls(t, b)
	for _, calls := range [][]apiCall{oauthCalls(), grantCalls(), clientCalls(), logCalls(), healthCalls()} {
		for _, c := range calls {
			d.call(t, b, c)
		}
	}
	d.issuerCalls(t, b)
	d.clusterCalls(t, b)
	d.debugCalls(t, newAdminBench(t, func(c *api.Config) {
		c.Profiles, c.RecentLog = true, func() []byte { return []byte("a line\n") }
		c.EffectiveConfig = func() any {
			return json.RawMessage(`{"node_id":"n1","build":{"version":"dev","go":"go1","platform":"linux/amd64"},` +
				`"settings":[{"key":"region","value":"eu","source":"default"}]}`)
		}
	}), newAdminBench(t))
	d.refusedCalls(t, b)
	for _, o := range d.operations() {
		for status := range o.op.Responses.Map() {
			if !d.seen[o.call+" "+status] {
				t.Errorf("%s: got no answer %s, want each that openapi.json describes", o.call, status)
			}
		}
	}
}

// oauthCalls are successful calls to the OAuth endpoints, and calls of forward authentication.
func oauthCalls() []apiCall {
	register := pairBody("g-oauth", "app", "access-oauth", "refresh-oauth")
	gateway := http.Header{"Revoked-Authorization": {basic("rs1", secretOf("rs1"))}}
	with := func(authorization string) http.Header {
		return http.Header{"Revoked-Authorization": gateway["Revoked-Authorization"], "Authorization": {authorization}}
	}
	calls := []apiCall{{op: "POST /v1/grants", who: "issuer", body: register,
		status: 201},
		{op: "POST /v1/grants", who: "issuer", status: 201,
			body: `{"client_id":"app","access_token":{"token":"plain","expires_at":` + ahead + `,"not_before":1790000000},
			"audience":["rs1","rs2"],"scope":"read"}`}}
	for _, path := range []string{"/v1/check", "/v1/check/{path}"} {
		op := "GET " + path
		calls = append(calls, apiCall{op: op, header: with("Bearer plain"), status: 200},
			apiCall{op: op, header: gateway, status: 401},
			apiCall{op: op, header: with("Bearer none"), status: 401},
			apiCall{op: op, header: http.Header{"Authorization": {"Bearer plain"}}, status: 403})
	}
	for _, path := range []string{"/oauth2/introspect", "/invoke/pub.oauth/introspectToken"} {
		for _, token := range []string{"access-oauth", "plain", "refresh-oauth", "none"} {
			calls = append(calls, apiCall{op: "POST " + path, who: "admin", body: "token=" + token, status: 200})
		}
	}
	for _, path := range []string{"/oauth2/revoke", "/invoke/pub.oauth/revokeToken"} {
		calls = append(calls, apiCall{op: "POST " + path, who: "admin", body: "token=none", status: 200},
			apiCall{op: "POST " + path, who: "other", body: "token=access-oauth", status: 400},
			apiCall{op: "POST " + path, body: "token=none&client_id=app&client_secret=" + secretOf("app"), status: 200})
	}
	return calls
}

// grantCalls are calls about grants and tokens.
func grantCalls() []apiCall {
	register := pairBody("g-1", "app", "access-1", "refresh-1")
	explain := func(body string, status int) apiCall {
		return apiCall{op: "POST /v1/explain", who: "admin", body: body, status: status}
	}
	past := "/v1/audit/token?digest=" + revoked.DigestToken("access-1").String()
	list := apiCall{op: "GET /v1/grants", path: "/v1/grants?client_id=app&limit=1", who: "admin", status: 200}
	calls := []apiCall{
		{op: "POST /v1/grants", who: "issuer", body: register, status: 201},
		{op: "POST /v1/grants", who: "issuer", body: register, status: 200},
		{op: "POST /v1/grants", who: "issuer", status: 422, body: `{"client_id":"nobody","access_token":{"token":"t"}}`},
		{op: "POST /v1/grants", who: "issuer", status: 409, body: strings.Replace(register, `"app"`, `"other"`, 1)},
		{op: "GET /v1/grants/{id}", path: "/v1/grants/g-1", who: "admin", status: 200},
		{op: "GET /v1/grants/{id}", who: "admin", status: 404},
		list,
		explain(`{"token":"access-1"}`, 200), explain(`{"token":"access-1","as":"nobody"}`, 422),
		{op: "POST /v1/explain", who: "eye", body: `{"token":"access-1"}`, status: 200},
		{op: "GET /v1/audit/token", path: past, who: "aud", status: 200},
		{op: "DELETE /v1/grants/{id}", path: "/v1/grants/g-1?reason=left", who: "issuer", status: 200},
		{op: "DELETE /v1/grants/{id}", who: "issuer", status: 404},
		{op: "GET /v1/grants/{id}", path: "/v1/grants/g-1", who: "admin", status: 200},
		explain(`{"digest":"`+revoked.DigestToken("refresh-1").String()+`"}`, 200), explain(`{"token":"none"}`, 200),
		{op: "GET /v1/audit/token", path: past, who: "aud", status: 200},
		{op: "POST /v1/grants", who: "issuer", status: 201, body: pairBody("g-2", "app", "access-2", "refresh-2")},
	}
	for _, body := range []string{`{"subject":"alice","dry_run":true}`,
		fmt.Sprintf(`{"grant_id":"g-2","issued_before":%d.5,"reason":"left"}`, time.Now().Unix())} {
		calls = append(calls, apiCall{op: "POST /v1/revocations", who: "admin", body: body, status: 200})
	}
	lines := func(path, body string) apiCall {
		op, _, _ := strings.Cut(path, "?")
		return apiCall{op: "POST " + op, path: path, who: "issuer", body: body, typ: "application/x-ndjson", status: 200}
	}
	two := `{"client_id":"app","access_token":{"token":"bulk-1"}}` + "\n" +
		`{"client_id":"nobody","access_token":{"token":"bulk-2"}}`
	deny := `{"issuer":"https://nobody.example","jti":"j"}`
	return append(calls, explain(`{"token":"access-2"}`, 200),
		apiCall{op: "GET /v1/grants/{id}", path: "/v1/grants/g-2", who: "admin", status: 200},
		apiCall{op: "POST /v1/revocations", who: "admin", body: `{"subject":"alice","expect":99}`, status: 409},
		apiCall{op: "POST /v1/revocations", who: "admin", body: deny, status: 422},
		lines("/v1/grants", two), lines("/v1/grants?results=errors", two),
		lines("/v1/revocations", deny), lines("/v1/revocations?results=errors", deny))
}

// clientCalls are calls about clients and settings.
func clientCalls() []apiCall {
	const one = "/v1/clients/new"
	post := func(body string, status int) apiCall {
		return apiCall{op: "POST /v1/clients", who: "admin", body: body, status: status}
	}
	patch := func(op, path, typ, body string, status int) apiCall {
		return apiCall{op: "PATCH " + op, path: path, who: "admin", typ: typ, body: body, status: status}
	}
	const merge = "application/merge-patch+json"
	calls := []apiCall{
		post(`{"client_id":"new","roles":["resource_server"],"audiences":["a"],"client_secret":"short","imported":true}`, 201),
		post(`{"client_id":"new"}`, 409), post(`{"client_id":"odd","type":"public","roles":["admin"]}`, 422),
		post(`{"client_id":"tls","auth_methods":["tls_client_auth"],"tls_client_auth_san_dns":"a.example"}`, 201),
		patch("/v1/clients/{id}", one, merge, `{"disabled":true,"roles":null}`, 200),
		patch("/v1/clients/{id}", one, "", `{"type":"public"}`, 422), patch("/v1/clients/{id}", "", "", `{}`, 404),
		{op: "GET /v1/clients/{id}", path: one, who: "admin", status: 200},
		{op: "POST /v1/clients/{id}/secret", path: one + "/secret", who: "admin", status: 200},
		{op: "POST /v1/clients/{id}/secret", who: "admin", status: 404},
		{op: "POST /v1/clients/{id}/secret", path: "/v1/clients/pub/secret", who: "admin", status: 422},
		{op: "GET /v1/clients/{id}", path: one, who: "admin", status: 200}, // with two secrets
		{op: "GET /v1/clients/{id}", who: "admin", status: 404},
		{op: "GET /v1/clients", who: "admin", status: 200},
		{op: "DELETE /v1/clients/{id}", path: one, who: "admin", status: 200},
		{op: "DELETE /v1/clients/{id}", who: "admin", status: 404},
		{op: "GET /v1/settings", who: "eye", status: 200},
		patch("/v1/settings", "", merge, `{"secret_grace":"1h","audit_max_entries":2000,"max_clock_skew":null}`, 200),
		patch("/v1/settings", "", "", `{"lease_duration":"1ns"}`, 422),
	}
	return calls
}

// logCalls read the feed and the audit log.
func logCalls() []apiCall {
	sse := http.Header{"Accept": {"text/event-stream"}}
	var calls []apiCall
	for _, op := range []string{"GET /v1/revocations", "GET /v1/audit"} {
		path := strings.TrimPrefix(op, "GET ")
		calls = append(calls, apiCall{op: op, who: "admin", status: 200},
			apiCall{op: op, path: path + "?after=0", who: "aud", header: sse, status: 200},
			apiCall{op: op, path: path + "?after=999999", who: "admin", status: 410})
	}
	return append(calls, apiCall{op: "GET /v1/revocations", who: "rs1", status: 200},
		apiCall{op: "GET /v1/audit", path: "/v1/audit?kind=client.create&limit=1&since=0", who: "admin", status: 200})
}

// healthCalls are calls that anyone may make.
func healthCalls() []apiCall {
	const metadata = "GET /.well-known/oauth-authorization-server"
	return []apiCall{
		{op: metadata, status: 200}, {op: "GET /v1/openapi.json", status: 200}, {op: "GET /livez", status: 200},
		{op: "GET /readyz", path: "/readyz?verbose&revoke", status: 200}, {op: "GET /metrics", who: "eye", status: 200},
	}
}

// issuerCalls are calls about trusted issuers.
func (d *description) issuerCalls(t *testing.T, b *adminBench) {
	k := newTrustedKey(t, "k1")
	set := jwks(t, k)
	admin := func(call, path, body string, status int) reply {
		if path == "" {
			_, path, _ = strings.Cut(call, " ")
		}
		return d.call(t, b, apiCall{op: call, path: strings.NewReplacer("{id}", "none", "{thumbprint}", "none").Replace(path),
			who: "admin", body: body, status: status})
	}
	admin("POST /v1/issuers", "", `{"name":"as2","issuer":"https://as2.example","jwks":`+set+`}`, 201)
	admin("POST /v1/issuers", "", `{"name":"as2","issuer":"https://other.example","jwks":`+set+`}`, 409)
	admin("POST /v1/issuers", "", `{"name":"as3","issuer":"https://as3.example"}`, 422)
	admin("POST /v1/issuers", "", `{"name":"far","issuer":"https://far.example","jwks_uri":"https://far.example/k"}`, 201)
	admin("GET /v1/issuers", "", "", 200)
	shown := admin("GET /v1/issuers/{id}", "/v1/issuers/as2", "", 200)
	admin("GET /v1/issuers/{id}", "", "", 404)
	admin("PATCH /v1/issuers/{id}", "/v1/issuers/as2", shown.body, 200) // the record as it was read
	admin("PATCH /v1/issuers/{id}", "/v1/issuers/as2", `{"unknown_clients":null,"required_claims":{"a":"b"}}`, 200)
	admin("PATCH /v1/issuers/{id}", "/v1/issuers/as2", `{"name":"other"}`, 422)
	admin("PATCH /v1/issuers/{id}", "", `{}`, 404)
	admin("PATCH /v1/issuers/{id}", "/v1/issuers/as2", `{"required_claims":null}`, 200)
	const check = "POST /v1/issuers/{id}/check"
	for _, token := range []string{k.token(t, `,"jti":"j-9"`), "no JWT", newTrustedKey(t, "k1").token(t, "")} {
		admin(check, "/v1/issuers/as2/check", fmt.Sprintf(`{"token":%q}`, token), 200)
		d.call(t, b, apiCall{op: "POST /v1/explain", who: "admin", body: fmt.Sprintf(`{"token":%q}`, token), status: 200})
	}
	admin(check, "", `{"token":"t"}`, 404)
	const deny = `{"issuer":"https://as2.example","jti":"j-9","expires_at":4102444800}`
	admin("POST /v1/revocations", "", deny, 200)
	d.call(t, b, apiCall{op: "POST /v1/revocations", who: "admin", typ: "application/x-ndjson", body: deny, status: 200})
	admin("POST /v1/issuers/{id}/refresh", "/v1/issuers/far/refresh", "{}", 200)
	admin("POST /v1/issuers/{id}/refresh", "", "", 404)
	thumbprint := shown.field(t, "keys").([]any)[0].(map[string]any)["thumbprint"].(string)
	admin("DELETE /v1/issuers/{id}/keys/{thumbprint}", "/v1/issuers/as2/keys/"+thumbprint, "", 200)
	admin("DELETE /v1/issuers/{id}/keys/{thumbprint}", "", "", 404)
	admin("DELETE /v1/issuers/{id}", "/v1/issuers/as2", "", 200)
	admin("DELETE /v1/issuers/{id}", "", "", 404)
	client := fmt.Sprintf(`{"client_id":"signs","auth_methods":["private_key_jwt"],"jwks":%s}`, set)
	admin("POST /v1/clients", "", client, 201)
	d.call(t, b, apiCall{op: "GET /v1/revocations", who: "admin", status: 200})
	d.call(t, b, apiCall{op: "GET /v1/audit", who: "admin", status: 200})
}

// clusterCalls are successful calls about the members and backups.
func (d *description) clusterCalls(t *testing.T, b *adminBench) {
	ops := func(call, path, body string, status int) reply {
		return d.call(t, b, apiCall{op: call, path: path, who: "ops", body: body, status: status})
	}
	ops("GET /v1/members", "", "", 200)
	ops("GET /v1/status", "", "", 200)
	ops("POST /v1/cluster/join", "", `{"addresses":["n1:7443"]}`, 200)
	ops("POST /v1/cluster/leave", "", "", 200)
	ops("POST /v1/cluster/remove", "", `{"node":"n2"}`, 200)
	ops("POST /v1/cluster/transfer-leader", "", `{"node":"n1"}`, 200)
	ops("POST /v1/cluster/promote", "", `{"node":"n2"}`, 200)
	ops("POST /v1/cluster/demote", "", `{"node":"n2"}`, 200)
	ops("POST /v1/cluster/admit", "", `{"node":"n4","non_voter":true,"ttl":"10m"}`, 200)
	ops("POST /v1/cluster/admit", "", `{"node":"n4","ttl":"9000h"}`, 422)
	ops("GET /v1/cluster/admitted", "", "", 200)
	ops("DELETE /v1/cluster/admit/{id}", "/v1/cluster/admit/n4", "", 200)
	ops("DELETE /v1/cluster/admit/{id}", "", "", 404)
	made := ops("POST /v1/cluster/join-tokens", "", `{"node":"n5"}`, 201)
	ops("POST /v1/cluster/join-tokens", "", `{"ttl":"9000h"}`, 422)
	ops("GET /v1/cluster/join-tokens", "", "", 200)
	ops("DELETE /v1/cluster/join-tokens/{id}", "/v1/cluster/join-tokens/"+made.field(t, "id").(string), "", 200)
	ops("DELETE /v1/cluster/join-tokens/{id}", "", "", 404)
	ops("GET /v1/snapshot", "", "", 200)
}

// debugCalls calls the debug pages of two APIs: b serves all pages, and bare lacks those that a
// Config must enable.
func (d *description) debugCalls(t *testing.T, b, bare *adminBench) {
	for page, status := range map[string]int{"log": 404, "config": 404, "metrics": 200, "goroutines": 200, "heap": 404} {
		d.call(t, b, apiCall{op: "GET /v1/debug/" + page, who: "admin", status: 200})
		d.call(t, bare, apiCall{op: "GET /v1/debug/" + page, who: "admin", status: status})
	}
}

// refusedCalls are calls that the API refuses in some states of the node.
func (d *description) refusedCalls(t *testing.T, b *adminBench) {
	failing := func(method string, err error, c apiCall) {
		b.node.mu.Lock()
		b.node.fail = func(m string) error {
			if m == method {
				return err
			}
			return nil
		}
		b.node.mu.Unlock()
		d.call(t, b, c)
	}
	bodies := map[string]string{
		"Join": `{"addresses":["n1:7443"]}`, "Leave": "", "TransferLeader": "", "RefreshIssuer": "",
	}
	ops := map[string]string{
		"Join": "POST /v1/cluster/join", "Leave": "POST /v1/cluster/leave", "Remove": "POST /v1/cluster/remove",
		"TransferLeader": "POST /v1/cluster/transfer-leader", "Promote": "POST /v1/cluster/promote",
		"Demote": "POST /v1/cluster/demote", "Admit": "POST /v1/cluster/admit",
		"WithdrawAdmission": "DELETE /v1/cluster/admit/{id}", "Admitted": "GET /v1/cluster/admitted",
		"JoinTokens": "GET /v1/cluster/join-tokens", "DeleteJoinToken": "DELETE /v1/cluster/join-tokens/{id}",
		"Snapshot": "GET /v1/snapshot", "DeleteClient": "DELETE /v1/clients/{id}",
		"RefreshIssuer": "POST /v1/issuers/{id}/refresh",
	}
	for method, op := range ops {
		body, ok := bodies[method]
		if !ok && strings.HasPrefix(op, "POST") {
			body = `{"node":"n2"}`
		}
		failing(method, revoked.ErrUnprocessable, apiCall{op: op, who: "admin", body: body, status: 422})
	}
	for _, method := range []string{"Remove", "TransferLeader", "Promote", "Demote"} {
		failing(method, revoked.ErrNotFound, apiCall{op: ops[method], who: "ops", body: `{"node":"n9"}`, status: 404})
	}
	failing("Join", revoked.ErrAlreadyMember, apiCall{op: ops["Join"], who: "ops", body: bodies["Join"], status: 409})
	for _, method := range []string{"Leave", "Remove", "Demote"} {
		body := `{"node":"n2"}`
		if method == "Leave" {
			body = ""
		}
		failing(method, revoked.ErrQuorumRisk, apiCall{op: ops[method], who: "ops", body: body, status: 409})
	}
	failing("Admit", revoked.ErrConflict, apiCall{op: ops["Admit"], who: "ops", body: `{"node":"n1"}`, status: 409})
	failing("WithdrawAdmission", revoked.ErrConflict, apiCall{op: ops["WithdrawAdmission"], who: "ops", status: 409})
	gateway := http.Header{"Revoked-Authorization": {basic("rs1", secretOf("rs1"))}, "Authorization": {"Bearer plain"}}
	for _, path := range []string{"/v1/check", "/v1/check/{path}"} {
		failing("Status", revoked.ErrNotCurrent, apiCall{op: "GET " + path, header: gateway, status: 503})
	}
	b.node.ready = revoked.Readiness{Reasons: []string{"no lease"}}
	failing("", nil, apiCall{op: "GET /readyz", status: 503})
}
