package node_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"revoked"
	"revoked/node/nodetest"
)

// A randomCall is one of the random calls with which the test checks that the audit log is
// complete.
type randomCall struct {
	path string // empty: that of the route
	body string
	form bool // a form instead of JSON, or the lines of a stream
}

// auditFixture holds what the calls of one history share.
type auditFixture struct {
	c     *nodetest.Cluster
	rnd   *rand.Rand
	fresh int
}

func (f *auditFixture) pick(list ...string) string { return list[f.rnd.IntN(len(list))] }

// id returns an id that is often in use, sometimes new, and sometimes unknown.
func (f *auditFixture) id(kind string) string { return fmt.Sprint(kind, f.rnd.IntN(4)) }

// calls returns a random call to each route that may change something.
func (f *auditFixture) calls() map[string]func() randomCall {
	now := time.Now().Unix()
	body := func(list ...string) func() randomCall {
		return func() randomCall { return randomCall{body: f.pick(list...)} }
	}
	path := func(format string, ids ...string) func() randomCall {
		return func() randomCall { return randomCall{path: fmt.Sprintf(format, f.pick(ids...))} }
	}
	issuer := func(n string) string {
		return `{"name":"` + n + `","issuer":"https://` + n + `.example","jwks_uri":"https://` + n + `.example/jwks"}`
	}
	clients := []string{"c0", "c1", "c2", "none"}
	issuers := []string{"i0", "i1", "none"}
	return map[string]func() randomCall{
		"POST /v1/grants": func() randomCall {
			f.fresh++
			const form = `{"grant_id":"%s","client_id":"%s","access_token":{"token":"t-%d","expires_at":%d}}`
			return randomCall{body: fmt.Sprintf(form, f.id("g"), f.pick("app", "other_app", "none"), f.fresh, now+3600)}
		},
		"DELETE /v1/grants/:id": path("/v1/grants/%s", "g0", "g1", "g2", "g3", "none"),
		"POST /v1/revocations": body(`{"subject":"alice"}`, `{"subject":"alice","dry_run":true}`,
			`{"client_id":"app","expect":77}`,
			`{"session":"s","issued_before":1}`, `{}`, `{"subject":7}`, `{"issuer":"https://i0.example","jti":"j","expires_at":`+
				fmt.Sprint(now+60)+`}`),
		"POST /v1/clients": body(`{"client_id":"c0"}`, `{"client_id":"c1","roles":["viewer"]}`, `{"client_id":"c2"}`,
			`{"client_id":1}`,
			`{"client_id":"c3","type":"public","roles":["admin"]}`),
		"PATCH /v1/clients/:id": func() randomCall {
			return randomCall{path: "/v1/clients/" + f.pick(clients...),
				body: f.pick(`{"disabled":true}`, `{"disabled":false}`, `{"audiences":["a"]}`, `{"type":"public"}`, `{"x":1}`)}
		},
		"DELETE /v1/clients/:id":                  path("/v1/clients/%s", clients...),
		"POST /v1/clients/:id/secret":             path("/v1/clients/%s/secret", clients...),
		"POST /v1/issuers":                        body(issuer("i0"), issuer("i1"), `{"name":"i2"}`, `[]`),
		"DELETE /v1/issuers/:id":                  path("/v1/issuers/%s", issuers...),
		"DELETE /v1/issuers/:id/keys/:thumbprint": path("/v1/issuers/%s/keys/unknown", issuers...),
		"POST /v1/issuers/:id/refresh":            path("/v1/issuers/%s/refresh", "none"),
		"PATCH /v1/issuers/:id": func() randomCall {
			return randomCall{path: "/v1/issuers/" + f.pick(issuers...),
				body: f.pick(`{"disabled":true}`, `{"disabled":false}`, `{"max_lifetime":"1ns"}`, `{"x":1}`)}
		},
		"PATCH /v1/settings": body(`{"secret_grace":"1h"}`, `{"secret_grace":"2h"}`, `{"secret_grace":"-1h"}`, `{"x":1}`),
		// A join at a member is refused. Other tests cover a leave or a removal that succeeds.
		"POST /v1/cluster/join":  body(`{"addresses":["127.0.0.1:1"]}`, `{"addresses":[]}`),
		"POST /v1/cluster/leave": body(`{"x":1}`),
		"POST /v1/cluster/remove": body(`{"node":"none"}`, `{"node":"node1"}`, `{"node":"node2","force":true}`,
			`{"node":1}`),
		"POST /v1/cluster/transfer-leader": body(`{"node":"none"}`, `{"node":1}`),
		"POST /v1/cluster/promote":         body(`{"node":"node4"}`, `{"node":"none"}`, `{}`),
		"POST /v1/cluster/demote":          body(`{"node":"node4"}`, `{"node":"none"}`, `{}`),
		"POST /v1/cluster/admit": body(`{"node":"n0"}`, `{"node":"n1","ttl":"9999h"}`, `{"node":"node1"}`,
			`{"node":1}`),
		"DELETE /v1/cluster/admit/:id":       path("/v1/cluster/admit/%s", "n0", "n1", "node1"),
		"POST /v1/cluster/join-tokens":       body(`{}`, `{"node":"n0"}`, `{"ttl":"9999h"}`, `{"ttl":1}`),
		"DELETE /v1/cluster/join-tokens/:id": path("/v1/cluster/join-tokens/%s", "none"),
		"POST /v1/explain":                   body(`{"token":"t-1"}`, `{}`),
		"POST /v1/issuers/:id/check":         path("/v1/issuers/%s/check", issuers...),
		"POST /oauth2/revoke": func() randomCall {
			return randomCall{body: "token=" + f.pick("t-1", "t-2", "x", ""), form: true}
		},
		"POST /invoke/pub.oauth/revokeToken": func() randomCall {
			return randomCall{body: "token=" + f.pick("t-3", "y"), form: true}
		},
		"GET /v1/snapshot": func() randomCall { return randomCall{} },
		"POST /v1/revocations (deny list)": func() randomCall {
			return randomCall{path: "/v1/revocations", body: f.denyList(), form: true}
		},
	}
}

// denyList returns some lines. The issuer of a line may be unknown.
func (f *auditFixture) denyList() (lines string) {
	for range 1 + f.rnd.IntN(5) {
		lines += fmt.Sprintf(`{"issuer":"https://%s.example","jti":"j-%d"}`+"\n", f.pick("i0", "i1", "nobody"), f.rnd.IntN(9))
	}
	return lines
}

// unchanging are the calls that leave no entry if they are accepted.
var unchanging = []string{"POST /v1/grants", "POST /v1/explain", "POST /v1/issuers/:id/check"}

// Every route of the API that may change something is among the random calls.
func TestAuditComplete_Calls_CoverTheRoutes(t *testing.T) {
	source, err := os.ReadFile("../api/routes.go")
	if err != nil {
		t.Fatal(err)
	}
	routes := regexp.MustCompile(`\{"([A-Z ]+)", "(/v1/[^"]+)", `).FindAllStringSubmatch(string(source), -1)
	if len(routes) < 30 {
		t.Fatalf("got %d routes, want those of the API", len(routes))
	}
	calls := (&auditFixture{rnd: rand.New(rand.NewPCG(1, 1))}).calls()
	for _, r := range routes {
		for _, method := range strings.Fields(r[1]) {
			if method != "GET" && method != "HEAD" && calls[method+" "+r[2]] == nil {
				t.Errorf("%s %s: got no random call, want one", method, r[2])
			}
		}
	}
}

// wantEntries returns how many entries a call with a given answer must leave, and with which
// outcome. lines is the number of accepted lines of a deny list. Such lines may share entries.
func wantEntries(route, who string, call randomCall, r nodetest.Reply) (n int, outcome string, lines int) {
	staff := who == "admin" || who == "ops"
	// A call that a role may not make is refused before its body is read.
	dry := strings.Contains(call.body, "dry_run") && r.Status != http.StatusForbidden
	switch {
	case strings.HasSuffix(route, "(deny list)") && r.Status == http.StatusOK:
		lines = strings.Count(r.Body, `{"index":`)
		return min(lines, 1), "done", lines
	case r.Status < 300 && !slices.Contains(unchanging, route) && !dry:
		return 1, "done", 0
	case slices.Contains(unchanging, route) || dry || !staff ||
		strings.HasPrefix(route, "GET ") || strings.Contains(route, "evoke"):
		return 0, "", 0
	}
	switch r.Status {
	case http.StatusForbidden, http.StatusNotFound, http.StatusConflict, http.StatusUnprocessableEntity:
		return 1, "refused", 0
	}
	return 0, "", 0
}

// Contract 6, "Audit entry": random calls to every route that may change something, by clients of
// each role, at every node. Each accepted call leaves one entry, and so does each refused call by
// an administrator or operator. Other calls leave no entries.
func TestAuditComplete_RandomCalls_MatchTheModel(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	clients := nodetest.Clients()
	for _, role := range []revoked.Role{revoked.RoleOperator, revoked.RoleViewer, revoked.RoleAuditor} {
		staff := clients[0]
		staff.ID, staff.Roles = map[revoked.Role]string{revoked.RoleOperator: "ops", revoked.RoleViewer: "eye",
			revoked.RoleAuditor: "aud"}[role], []revoked.Role{role}
		clients = append(clients, staff)
	}
	c := nodetest.Start(t, nodetest.Options{Nodes: 4, Clients: clients})
	f := &auditFixture{c: c, rnd: rand.New(rand.NewPCG(seed, 1))}
	calls := f.calls()
	var routes []string
	for route := range calls {
		routes = append(routes, route)
	}
	slices.Sort(routes)
	want, seen := map[string]string{}, map[string]bool{}
	lines, text := map[string]int{}, map[string]string{}
	for i := range 300 {
		route := routes[i%len(routes)]
		if i >= 2*len(routes) {
			route = f.pick(routes...)
		}
		call := calls[route]()
		who := f.pick("admin", "admin", "admin", "ops", "ops", "issuer", "app", "eye", "aud", "resource_server", "nobody")
		m := c.Members[f.rnd.IntN(len(c.Members))]
		method, path, _ := strings.Cut(strings.TrimSuffix(route, " (deny list)"), " ")
		if call.path != "" {
			path = call.path
		}
		tries := 0
		var id string
		r := m.Decided(func() nodetest.Reply {
			id, tries = fmt.Sprintf("c-%d-%d", i, tries), tries+1
			return f.send(m, method, path, id, who, call)
		})
		n, outcome, accepted := wantEntries(route, who, call, r)
		what := fmt.Sprintf("%s %s %s by %s at %s: %d", method, path, call.body, who, m.ID, r.Status)
		want[id], lines[id], text[id] = strings.Repeat(who+" "+outcome+" "+m.ID+";", n), accepted, what
		if n == 0 {
			outcome = ""
		}
		seen[outcome] = true
	}
	if len(seen) != 3 {
		t.Errorf("got outcomes %v, want accepted, refused and silent calls", seen)
	}
	for _, m := range c.Members {
		var wrong []string
		// On a busy machine, an entry may appear after the response to its call.
		ok := c.Await(m.ID+": the entries of all calls", func() bool {
			wrong = wrongEntries(t, m, want, lines)
			return len(wrong) == 0
		})
		if !ok {
			for _, id := range wrong {
				t.Errorf("%s: %s: want entries %q for %d lines", m.ID, text[id], want[id], lines[id])
			}
			t.Fatalf("audit of %s: %s", m.ID, strings.Join(auditLines(m, ""), "\n"))
		}
	}
}

// wrongEntries returns the ids of the requests whose entries at m are not the wanted ones.
func wrongEntries(t *testing.T, m *nodetest.Member, want map[string]string, lines map[string]int) (wrong []string) {
	got, counts := map[string]string{}, map[string]int{}
	for _, line := range auditLines(m, "") {
		e := parseLine(t, line)
		if count, ok := e.Object["count"].(float64); ok {
			if counts[e.RequestID] += int(count); counts[e.RequestID] > int(count) {
				continue // a deny list may have several
			}
		}
		got[e.RequestID] += e.Actor + " " + e.Outcome + " " + e.Node + ";"
	}
	for id, entries := range want {
		if got[id] != entries || counts[id] != lines[id] {
			wrong = append(wrong, id)
		}
	}
	return wrong
}

// send sends one call with a request id.
func (f *auditFixture) send(m *nodetest.Member, method, path, id, who string, call randomCall) nodetest.Reply {
	f.c.T.Helper()
	req, err := http.NewRequest(method, m.URL+path, strings.NewReader(call.body))
	if err != nil {
		f.c.T.Fatal(err)
	}
	switch {
	case call.form && json.Valid([]byte(strings.SplitN(call.body, "\n", 2)[0])):
		req.Header.Set("Content-Type", "application/x-ndjson")
	case call.form:
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	case call.body != "":
		req.Header.Set("Content-Type", "application/json")
	}
	req.Header.Set("X-Request-Id", id)
	req.SetBasicAuth(who, nodetest.Secret)
	return m.Do(req)
}
