package api_test

import (
	"net/http"
	"strings"
	"testing"

	"revoked/node/nodetest"
)

var revokePaths = []string{pathRevoke, "/invoke/pub.oauth/revokeToken"}

// A row is one line of the tables 6.2 to 6.8 for the revocation endpoint, or a sentence of the contract
// about it. It is sent to a follower, on both paths, each to fresh tokens.
type row struct {
	id     string // of the tables; "contract" for a sentence of the contract
	level  string // paragraph
	says   string
	ask    ask
	status int
	code   string // error
	dead   string // tokens that are inactive afterwards; all others must be as before
	after  func(t *testing.T, w *world, m *nodetest.Member, r nodetest.Reply)
}

func (r *row) name() string { return r.id + " " + r.level + ": " + r.says }

func runRows(t *testing.T, s *stage, rows []row) {
	for _, row := range rows {
		t.Run(row.name(), func(t *testing.T) {
			var replies []nodetest.Reply
			for i, path := range revokePaths {
				m := s.Follower()
				w := s.world(t, m)
				client := s.HTTP
				if i > 0 {
					client = s.http1
				}
				r := s.send(t, client, m, path, row.ask, w.tokens)
				if row.ask.method == http.MethodHead {
					keepsHeaders(t, r)
				} else {
					keeps(t, r)
				}
				if r.Status != row.status {
					t.Errorf("%s: got %d %s, want %d", path, r.Status, r.Body, row.status)
				}
				if r.Status == 200 && r.Body != "{}" {
					t.Errorf("GA-3 %s: got body %q, want {}", path, r.Body)
				}
				if row.code != "" && !strings.HasPrefix(r.Body, `{"error":"`+row.code+`"`) {
					t.Errorf("%s: got %s, want error %s", path, r.Body, row.code)
				}
				if row.after != nil {
					row.after(t, w, m, r)
				}
				w.check(t, row.dead)
				replies = append(replies, r)
			}
			sameAnswer(t, "HP-13", replies[0], replies[1])
		})
	}
}

// pair and whole name the tokens that end together.
const (
	pair  = "AT1 RT1"
	whole = "ATa ATb ATc RTg"
)

// again sends the same request once more and wants the same answer.
func again(a ask) func(t *testing.T, w *world, m *nodetest.Member, r nodetest.Reply) {
	return func(t *testing.T, w *world, m *nodetest.Member, r nodetest.Reply) {
		for range 2 {
			next := w.s.send(t, w.s.HTTP, m, pathRevoke, a, w.tokens)
			keeps(t, next)
			if next.Status != 200 || next.Body != "{}" {
				t.Errorf("repeated: got %d %s, want 200 {}", next.Status, next.Body)
			}
		}
	}
}

func happyRows() []row {
	at1 := ask{who: "c1", body: "token={AT1}"}
	return []row{
		{id: "HP-01", level: "RFC 7009 2.2", says: "a client revokes its access token", ask: at1, status: 200, dead: pair},
		{id: "HP-03", level: "RFC 7009 2", says: "a client revokes its refresh token", ask: ask{who: "c1", body: "token={RT1}"}, status: 200, dead: pair},
		{id: "HP-04", level: "RFC 7009 2.2", says: "a revocation repeated", ask: at1, status: 200, dead: pair, after: again(at1)},
		{id: "HP-05", level: "RFC 7009 2.2", says: "a token that was never issued", ask: ask{who: "c1", body: "token=raw~never-issued"}, status: 200},
		{id: "HP-07", level: "RFC 7009 2.1", says: "an access token without a refresh token", ask: ask{who: "c1", body: "token={AT3}"}, status: 200, dead: "AT3"},
		{id: "HP-08", level: "RFC 6749 2.3.1", says: "client_secret_post", ask: ask{body: "client_id=c1&client_secret={secret:c1}&token={AT1}"}, status: 200, dead: pair},
		{id: "HP-09", level: "contract 2", says: "an administrator revokes the token of another", ask: ask{who: "adm", body: "token={AT2}"}, status: 200, dead: "AT2 RT2"},
		{id: "HP-10", level: "RFC 6749 3.2", says: "unknown parameters are ignored", ask: ask{who: "c1", body: "foo=1&token={AT1}&resource=x"}, status: 200, dead: pair},
		{id: "HP-11", level: "RFC 9110 8.3", says: "a content type with a charset", ask: ask{who: "c1", body: "token={AT1}", contentType: formType + "; charset=UTF-8"}, status: 200, dead: pair},
		{id: "HP-11", level: "RFC 9110 8.3.1", says: "a content type in capitals", ask: ask{who: "c1", body: "token={AT1}", contentType: "Application/X-WWW-Form-Urlencoded"}, status: 200, dead: pair},
		{id: "HP-12", level: "RFC 6749 B", says: "another order and an escaped token", ask: ask{who: "c1", body: "token_type_hint=access_token&t%6Fken=%72{AT1-tail}"}, status: 200, dead: pair},
		{id: "HP-13", level: "contract 2", says: "Basic with a scheme in lower case", ask: ask{auth: "basic " + strings.TrimPrefix(basicOf("c1:"+secretFor("c1")), "Basic "), body: "token={AT1}"}, status: 200, dead: pair},
	}
}

func hintRows() []row {
	hint := func(token, hint string) ask {
		return ask{who: "c1", body: "token={" + token + "}&token_type_hint=" + hint}
	}
	rows := []row{
		{id: "HT-01", level: "RFC 7009 2.1", says: "a right hint for an access token", ask: hint("AT1", "access_token"), status: 200, dead: pair},
		{id: "HT-02", level: "RFC 7009 2.1", says: "a right hint for a refresh token", ask: hint("RT1", "refresh_token"), status: 200, dead: pair},
		{id: "HT-03", level: "RFC 7009 2.1", says: "a wrong hint for an access token", ask: hint("AT1", "refresh_token"), status: 200, dead: pair},
		{id: "HT-04", level: "RFC 7009 2.1", says: "a wrong hint for a refresh token", ask: hint("RT1", "access_token"), status: 200, dead: pair},
		{id: "HT-05", level: "RFC 7009 2.2", says: "an unknown hint", ask: hint("AT1", "banana"), status: 200, dead: pair},
		{id: "HT-06", level: "RFC 7009 2.1", says: "a hint in capitals", ask: hint("AT1", "ACCESS_TOKEN"), status: 200, dead: pair},
		{id: "HT-07", level: "RFC 6749 3.1", says: "an empty hint", ask: hint("AT1", ""), status: 200, dead: pair},
		{id: "HT-08", level: "RFC 7009 2.1", says: "the hint id_token", ask: hint("AT1", "id_token"), status: 200, dead: pair},
		{id: "HT-08", level: "RFC 7009 2.1", says: "the hint pct", ask: hint("AT1", "pct"), status: 200, dead: pair},
		{id: "HT-09", level: "RFC 6749 3.1", says: "a hint sent twice", ask: hint("AT1", "access_token&token_type_hint=access_token"), status: 400, code: "invalid_request"},
		{id: "HT-11", level: "RFC 9110 15.5.14", says: "a hint of 10 kB", ask: hint("AT1", strings.Repeat("h", 10<<10)), status: 200, dead: pair},
		{id: "contract", level: "2 \"never changes the outcome\"", says: "a wrong hint for a foreign token", ask: hint("AT2", "refresh_token"), status: 400, code: "invalid_grant"},
	}
	for _, h := range []string{"access_token", "refresh_token", "banana", "ACCESS_TOKEN", "", "id_token", "pct"} {
		rows = append(rows, row{id: "HT-10", level: "RFC 7009 2.2", says: "an unknown token with the hint '" + h + "'",
			ask: ask{who: "c1", body: "token=raw~unknown&token_type_hint=" + h}, status: 200})
	}
	return rows
}

func grantRows() []row {
	c1 := func(token string) ask { return ask{who: "c1", body: "token={" + token + "}"} }
	return []row{
		{id: "PR-01", level: "RFC 7009 2.1", says: "an access token takes its refresh token along", ask: c1("AT1"), status: 200, dead: pair},
		{id: "PR-02", level: "RFC 7009 2.1", says: "a refresh token takes its access token along", ask: c1("RT1"), status: 200, dead: pair},
		{id: "PR-03", level: "RFC 7009 2.1", says: "a refresh token takes all access tokens of its grant along", ask: c1("RTg"), status: 200, dead: whole},
		{id: "PR-04", level: "contract 2", says: "any access token of a grant ends all of it", ask: c1("ATb"), status: 200, dead: whole},
		{id: "PR-05", level: "contract 2", says: "other grants are untouched", ask: c1("AT1"), status: 200, dead: pair},
		{id: "PR-06", level: "RFC 9700 4.14.2", says: "a rotated refresh token ends the grant", ask: c1("RTg0"), status: 200, dead: whole},
		{id: "PR-06", level: "contract 2", says: "an administrator revokes a rotated refresh token", ask: ask{who: "adm", body: "token={RTg1}"}, status: 200, dead: whole},
		{id: "PR-07", level: "RFC 9700 4.14.2", says: "the authorization server reports a reuse", ask: c1("RTg1"), status: 200, dead: whole,
			after: func(t *testing.T, w *world, m *nodetest.Member, _ nodetest.Reply) {
				r := w.s.send(t, w.s.HTTP, m, "/v1/grants/"+w.grants["G"]+"?reason=reuse", ask{method: http.MethodDelete, who: "iss"}, nil)
				if r.Status != 200 {
					t.Errorf("report of a reuse by the issuer: got %d %s, want 200", r.Status, r.Body)
				}
			}},
		{id: "PR-08", level: "RFC 6749 5.2", says: "a refresh after the revocation is dead from the start", ask: c1("AT1"), status: 200, dead: pair,
			after: func(t *testing.T, w *world, m *nodetest.Member, _ nodetest.Reply) {
				fresh := w.tokens["AT1"] + ".refreshed"
				r := w.s.json(t, m, http.MethodPost, "/v1/grants", "iss", `{"grant_id":"`+w.grants["g1"]+`","client_id":"c1","subject":"`+w.subject()+`","session":"`+w.session()+
					`","issuer":"https://as.example","access_token":{"token":"`+fresh+`"}}`)
				if r.Status != 201 || !strings.Contains(r.Body, `"state":"revoked"`) {
					t.Errorf("register into a revoked grant: got %d %s, want 201 and state revoked", r.Status, r.Body)
				}
				for _, o := range w.s.alive() {
					if w.s.active(t, o, fresh, false) {
						t.Errorf("%s says active of a token of a revoked grant", o.ID)
					}
				}
			}},
		{id: "PR-10", level: "contract 3", says: "a new pair of the same user and client is live", ask: c1("AT1"), status: 200, dead: pair,
			after: func(t *testing.T, w *world, m *nodetest.Member, _ nodetest.Reply) {
				fresh := w.tokens["AT1"] + ".new"
				r := w.s.json(t, m, http.MethodPost, "/v1/grants", "iss", `{"client_id":"c1","subject":"`+w.subject()+`","session":"`+w.session()+
					`","issuer":"https://as.example","access_token":{"token":"`+fresh+`"}}`)
				if r.Status != 201 || !strings.Contains(r.Body, `"state":"active"`) {
					t.Errorf("register a new grant: got %d %s, want 201 and state active", r.Status, r.Body)
				}
				for _, o := range w.s.alive() {
					if !w.s.active(t, o, fresh, false) {
						t.Errorf("%s says inactive of a new grant", o.ID)
					}
				}
			}},
	}
}

func ownerRows() []row {
	c1 := ask{who: "c1", body: "token={AT1}"}
	spoof := http.Header{"X-Client-Id": {"c1"}, "X-Forwarded-User": {"c1"}, "X-Ssl-Client-Cert": {"c1"}, "X-Remote-User": {"c1"}, "Forwarded": {"for=1.2.3.4;proto=https"}}
	return []row{
		{id: "OW-01", level: "RFC 7009 2.1", says: "a foreign access token", ask: ask{who: "c1", body: "token={AT2}"}, status: 400, code: "invalid_grant"},
		{id: "OW-02", level: "RFC 7009 2.1", says: "a foreign refresh token with a wrong hint", ask: ask{who: "c1", body: "token={RT2}&token_type_hint=access_token"}, status: 400, code: "invalid_grant"},
		{id: "OW-03", level: "RFC 7009 5", says: "a public client may not revoke", ask: ask{body: "client_id=pub1&token={ATp}"}, status: 401, code: "invalid_client"},
		{id: "OW-04", level: "RFC 7009 5", says: "a public client that may revoke, its access token", ask: ask{body: "client_id=pub2&token={ATq}"}, status: 200, dead: "ATq RTq"},
		{id: "OW-04", level: "RFC 7009 5", says: "a public client that may revoke, its refresh token", ask: ask{body: "client_id=pub2&token={RTq}"}, status: 200, dead: "ATq RTq"},
		{id: "OW-05", level: "RFC 7009 2.1", says: "a public client that may revoke, a foreign token", ask: ask{body: "client_id=pub2&token={AT1}"}, status: 400, code: "invalid_grant"},
		{id: "OW-06", level: "RFC 6749 5.2", says: "a disabled client with the right secret", ask: ask{who: "cd", body: "token={ATd}"}, status: 401, code: "invalid_client"},
		{id: "OW-07", level: "RFC 9701 3", says: "a resource server", ask: ask{who: "rs1", body: "token={AT1}"}, status: 400, code: "unauthorized_client"},
		{id: "OW-07", level: "RFC 9701 3", says: "a resource server, an unknown token", ask: ask{who: "rs1", body: "token=raw~unknown"}, status: 400, code: "unauthorized_client"},
		{id: "OW-07", level: "contract 2", says: "an issuer", ask: ask{who: "iss", body: "token={AT1}"}, status: 400, code: "unauthorized_client"},
		{id: "OW-08", level: "contract 2", says: "an administrator revokes an unknown token", ask: ask{who: "adm", body: "token=raw~unknown"}, status: 200},
		{id: "OW-15", level: "RFC 7009 2.1", says: "names that come in headers are ignored", ask: ask{body: "token={AT1}", header: spoof}, status: 401, code: "invalid_client"},
		{id: "OW-15", level: "RFC 7009 2.1", says: "names that come in headers change no credentials", ask: ask{who: "c2", body: "token={AT1}", header: spoof}, status: 400, code: "invalid_grant"},
		{id: "contract", level: "2 \"foreign and already dead: 200\"", says: "a foreign token of a revoked grant", ask: c1, status: 200, dead: pair,
			after: func(t *testing.T, w *world, m *nodetest.Member, _ nodetest.Reply) {
				r := w.s.send(t, w.s.HTTP, m, pathRevoke, ask{who: "c2", body: "token={AT1}"}, w.tokens)
				keeps(t, r)
				if r.Status != 200 {
					t.Errorf("a foreign dead token: got %d %s, want 200", r.Status, r.Body)
				}
			}},
		{id: "contract", level: "2 \"foreign and already dead: 200\"", says: "a foreign rotated refresh token changes nothing", ask: ask{who: "c2", body: "token={RTg0}"}, status: 200},
		{id: "contract", level: "2 \"Who may revoke\"", says: "an administrator, the token of a public client", ask: ask{who: "adm", body: "token={RTp}"}, status: 200, dead: "ATp RTp"},
		{id: "contract", level: "2 \"Who may revoke\"", says: "an administrator, the token of a disabled client", ask: ask{who: "adm", body: "token={RTd}"}, status: 200},
	}
}

func (w *world) subject() string { return "alice." + strings.TrimPrefix(w.grants["g1"], "g1.") }
func (w *world) session() string { return "s." + strings.TrimPrefix(w.grants["g1"], "g1.") }

// json sends a JSON body under /v1 as who.
func (s *stage) json(t *testing.T, m *nodetest.Member, method, path, who, body string) nodetest.Reply {
	t.Helper()
	a := ask{method: method, who: who, body: body, contentType: "application/json"}
	if body == "" {
		a.contentType = "-"
	}
	return s.send(t, s.HTTP, m, path, a, nil)
}
