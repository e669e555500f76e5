package conformance_test

import (
	"net/http"
	"strings"
	"testing"
)

var revokePaths = []string{pathRevoke, "/invoke/pub.oauth/revokeToken"}

// A row is one line of the tables 6.2 to 6.8 for the revocation endpoint, or a sentence of the
// contract about this endpoint. The test sends its request to a follower, on both paths, each time
// with fresh tokens.
type row struct {
	id     string // row of the tables; "contract" for a sentence of the contract
	level  string // paragraph
	title  string
	call   call
	status int
	code   string // error code
	dead   string // tokens that are inactive afterwards; all others must be as before
	after  func(t *testing.T, w *tokenSet, m *member, r reply)
}

func (r *row) name() string { return r.id + " " + r.level + ": " + r.title }

func runRows(t *testing.T, s *stage, rows []row) {
	for _, row := range rows {
		t.Run(row.name(), func(t *testing.T) {
			var replies []reply
			for i, path := range revokePaths {
				m := s.Follower(t)
				w := s.newTokens(t, m)
				client := s.HTTP
				if i > 0 {
					client = s.http1
				}
				r := s.send(t, client, m, path, row.call, w.tokens)
				if row.call.method == http.MethodHead {
					checkHeaders(t, r)
				} else {
					checkOAuth(t, r)
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
			checkEqual(t, "HP-13", replies[0], replies[1])
		})
	}
}

// pair and whole list the tokens that are revoked together.
const (
	pair  = "AT1 RT1"
	whole = "ATa ATb ATc RTg"
)

// again returns a check that repeats the request and requires an equal response.
func again(a call) func(t *testing.T, w *tokenSet, m *member, r reply) {
	return func(t *testing.T, w *tokenSet, m *member, r reply) {
		for range 2 {
			next := w.s.send(t, w.s.HTTP, m, pathRevoke, a, w.tokens)
			checkOAuth(t, next)
			if next.Status != 200 || next.Body != "{}" {
				t.Errorf("repeated: got %d %s, want 200 {}", next.Status, next.Body)
			}
		}
	}
}

func happyRows() []row {
	at1 := call{as: "c1", body: "token={AT1}"}
	return []row{
		{id: "HP-01", level: "RFC 7009 2.2", title: "a client revokes its access token", call: at1, status: 200, dead: pair},
		{id: "HP-03", level: "RFC 7009 2", title: "a client revokes its refresh token",
			call: call{as: "c1", body: "token={RT1}"}, status: 200, dead: pair},
		{id: "HP-04", level: "RFC 7009 2.2", title: "a revocation repeated", call: at1, status: 200, dead: pair,
			after: again(at1)},
		{id: "HP-05", level: "RFC 7009 2.2", title: "a token that was never issued",
			call: call{as: "c1", body: "token=raw~never-issued"}, status: 200},
		{id: "HP-07", level: "RFC 7009 2.1", title: "an access token without a refresh token",
			call: call{as: "c1", body: "token={AT3}"}, status: 200, dead: "AT3"},
		{id: "HP-08", level: "RFC 6749 2.3.1", title: "client_secret_post",
			call: call{body: "client_id=c1&client_secret={secret:c1}&token={AT1}"}, status: 200, dead: pair},
		{id: "HP-09", level: "contract 2", title: "an administrator revokes the token of another",
			call: call{as: "adm", body: "token={AT2}"}, status: 200, dead: "AT2 RT2"},
		{id: "HP-10", level: "RFC 6749 3.2", title: "unknown parameters are ignored",
			call: call{as: "c1", body: "foo=1&token={AT1}&resource=x"}, status: 200, dead: pair},
		{id: "HP-11", level: "RFC 9110 8.3", title: "a content type with a charset",
			call: call{as: "c1", body: "token={AT1}", contentType: formType + "; charset=UTF-8"}, status: 200, dead: pair},
		{id: "HP-11", level: "RFC 9110 8.3.1", title: "a content type in capitals",
			call: call{as: "c1", body: "token={AT1}", contentType: "Application/X-WWW-Form-Urlencoded"}, status: 200,
			dead: pair},
		{id: "HP-12", level: "RFC 6749 B", title: "another order and an escaped token",
			call: call{as: "c1", body: "token_type_hint=access_token&t%6Fken=%72{AT1-tail}"}, status: 200, dead: pair},
		{id: "HP-13", level: "contract 2", title: "Basic with a scheme in lower case",
			call:   call{auth: "basic " + strings.TrimPrefix(basicOf("c1:"+secretFor("c1")), "Basic "), body: "token={AT1}"},
			status: 200, dead: pair},
	}
}

func hintRows() []row {
	hint := func(token, hint string) call {
		return call{as: "c1", body: "token={" + token + "}&token_type_hint=" + hint}
	}
	rows := []row{
		{id: "HT-01", level: "RFC 7009 2.1", title: "a right hint for an access token", call: hint("AT1", "access_token"),
			status: 200, dead: pair},
		{id: "HT-02", level: "RFC 7009 2.1", title: "a right hint for a refresh token", call: hint("RT1", "refresh_token"),
			status: 200, dead: pair},
		{id: "HT-03", level: "RFC 7009 2.1", title: "a wrong hint for an access token", call: hint("AT1", "refresh_token"),
			status: 200, dead: pair},
		{id: "HT-04", level: "RFC 7009 2.1", title: "a wrong hint for a refresh token", call: hint("RT1", "access_token"),
			status: 200, dead: pair},
		{id: "HT-05", level: "RFC 7009 2.2", title: "an unknown hint", call: hint("AT1", "banana"), status: 200, dead: pair},
		{id: "HT-06", level: "RFC 7009 2.1", title: "a hint in capitals", call: hint("AT1", "ACCESS_TOKEN"), status: 200,
			dead: pair},
		{id: "HT-07", level: "RFC 6749 3.1", title: "an empty hint", call: hint("AT1", ""), status: 200, dead: pair},
		{id: "HT-08", level: "RFC 7009 2.1", title: "the hint id_token", call: hint("AT1", "id_token"), status: 200,
			dead: pair},
		{id: "HT-08", level: "RFC 7009 2.1", title: "the hint pct", call: hint("AT1", "pct"), status: 200, dead: pair},
		{id: "HT-09", level: "RFC 6749 3.1", title: "a hint sent twice",
			call: hint("AT1", "access_token&token_type_hint=access_token"), status: 400, code: "invalid_request"},
		{id: "HT-11", level: "RFC 9110 15.5.14", title: "a hint of 10 kB", call: hint("AT1", strings.Repeat("h", 10<<10)),
			status: 200, dead: pair},
		{id: "contract", level: "2 \"never changes the outcome\"", title: "a wrong hint for a foreign token",
			call: hint("AT2", "refresh_token"), status: 400, code: "invalid_grant"},
	}
	for _, h := range []string{"access_token", "refresh_token", "banana", "ACCESS_TOKEN", "", "id_token", "pct"} {
		rows = append(rows, row{id: "HT-10", level: "RFC 7009 2.2", title: "an unknown token with the hint '" + h + "'",
			call: call{as: "c1", body: "token=raw~unknown&token_type_hint=" + h}, status: 200})
	}
	return rows
}

func grantRows() []row {
	c1 := func(token string) call { return call{as: "c1", body: "token={" + token + "}"} }
	return []row{
		{id: "PR-01", level: "RFC 7009 2.1", title: "revoking an access token revokes its refresh token", call: c1("AT1"),
			status: 200, dead: pair},
		{id: "PR-02", level: "RFC 7009 2.1", title: "revoking a refresh token revokes its access token", call: c1("RT1"),
			status: 200, dead: pair},
		{id: "PR-03", level: "RFC 7009 2.1", title: "revoking a refresh token revokes all access tokens of its grant",
			call: c1("RTg"), status: 200, dead: whole},
		{id: "PR-04", level: "contract 2", title: "revoking any access token of a grant revokes the whole grant",
			call:   c1("ATb"),
			status: 200, dead: whole},
		{id: "PR-05", level: "contract 2", title: "other grants are untouched", call: c1("AT1"), status: 200, dead: pair},
		{id: "PR-06", level: "RFC 9700 4.14.2", title: "revoking a rotated refresh token revokes the grant", call: c1("RTg0"),
			status: 200, dead: whole},
		{id: "PR-06", level: "contract 2", title: "an administrator revokes a rotated refresh token",
			call: call{as: "adm", body: "token={RTg1}"}, status: 200, dead: whole},
		{id: "PR-07", level: "RFC 9700 4.14.2", title: "the authorization server reports a reuse", call: c1("RTg1"),
			status: 200, dead: whole,
			after: func(t *testing.T, w *tokenSet, m *member, _ reply) {
				r := w.s.send(t, w.s.HTTP, m, "/v1/grants/"+w.grants["G"]+"?reason=reuse",
					call{method: http.MethodDelete, as: "iss"}, nil)
				if r.Status != 200 {
					t.Errorf("report of a reuse by the issuer: got %d %s, want 200", r.Status, r.Body)
				}
			}},
		{id: "PR-08", level: "RFC 6749 5.2", title: "a refresh after the revocation is inactive from the start",
			call: c1("AT1"), status: 200, dead: pair,
			after: func(t *testing.T, w *tokenSet, m *member, _ reply) {
				fresh := w.tokens["AT1"] + ".refreshed"
				r := w.s.json(t, m, http.MethodPost, "/v1/grants", "iss",
					`{"grant_id":"`+w.grants["g1"]+`","client_id":"c1","subject":"`+w.subject()+`","session":"`+w.session()+
						`","issuer":"https://as.example","access_token":{"token":"`+fresh+`"}}`)
				if r.Status != 201 || !strings.Contains(r.Body, `"state":"revoked"`) {
					t.Errorf("register into a revoked grant: got %d %s, want 201 and state revoked", r.Status, r.Body)
				}
				for _, o := range w.s.alive() {
					if w.s.active(t, o, fresh, false) {
						t.Errorf("a token of a revoked grant on %s: got active, want inactive", o.ID)
					}
				}
			}},
		{id: "PR-10", level: "contract 3", title: "a new pair of the same user and client is active", call: c1("AT1"),
			status: 200, dead: pair,
			after: func(t *testing.T, w *tokenSet, m *member, _ reply) {
				fresh := w.tokens["AT1"] + ".new"
				r := w.s.json(t, m, http.MethodPost, "/v1/grants", "iss",
					`{"client_id":"c1","subject":"`+w.subject()+`","session":"`+w.session()+
						`","issuer":"https://as.example","access_token":{"token":"`+fresh+`"}}`)
				if r.Status != 201 || !strings.Contains(r.Body, `"state":"active"`) {
					t.Errorf("register a new grant: got %d %s, want 201 and state active", r.Status, r.Body)
				}
				for _, o := range w.s.alive() {
					if !w.s.active(t, o, fresh, false) {
						t.Errorf("a new grant on %s: got inactive, want active", o.ID)
					}
				}
			}},
	}
}

func ownerRows() []row {
	c1 := call{as: "c1", body: "token={AT1}"}
	spoof := http.Header{"X-Client-Id": {"c1"}, "X-Forwarded-User": {"c1"}, "X-Ssl-Client-Cert": {"c1"},
		"X-Remote-User": {"c1"}, "Forwarded": {"for=1.2.3.4;proto=https"}}
	return []row{
		{id: "OW-01", level: "RFC 7009 2.1", title: "a foreign access token", call: call{as: "c1", body: "token={AT2}"},
			status: 400, code: "invalid_grant"},
		{id: "OW-02", level: "RFC 7009 2.1", title: "a foreign refresh token with a wrong hint",
			call: call{as: "c1", body: "token={RT2}&token_type_hint=access_token"}, status: 400, code: "invalid_grant"},
		{id: "OW-03", level: "RFC 7009 5", title: "a public client may not revoke",
			call: call{body: "client_id=pub1&token={ATp}"}, status: 401, code: "invalid_client"},
		{id: "OW-04", level: "RFC 7009 5", title: "a public client that may revoke, its access token",
			call: call{body: "client_id=pub2&token={ATq}"}, status: 200, dead: "ATq RTq"},
		{id: "OW-04", level: "RFC 7009 5", title: "a public client that may revoke, its refresh token",
			call: call{body: "client_id=pub2&token={RTq}"}, status: 200, dead: "ATq RTq"},
		{id: "OW-05", level: "RFC 7009 2.1", title: "a public client that may revoke, a foreign token",
			call: call{body: "client_id=pub2&token={AT1}"}, status: 400, code: "invalid_grant"},
		{id: "OW-06", level: "RFC 6749 5.2", title: "a disabled client with the correct secret",
			call: call{as: "cd", body: "token={ATd}"}, status: 401, code: "invalid_client"},
		{id: "OW-07", level: "RFC 9701 3", title: "a resource server", call: call{as: "rs1", body: "token={AT1}"},
			status: 400, code: "unauthorized_client"},
		{id: "OW-07", level: "RFC 9701 3", title: "a resource server, an unknown token",
			call: call{as: "rs1", body: "token=raw~unknown"}, status: 400, code: "unauthorized_client"},
		{id: "OW-07", level: "contract 2", title: "an issuer", call: call{as: "iss", body: "token={AT1}"}, status: 400,
			code: "unauthorized_client"},
		{id: "OW-08", level: "contract 2", title: "an administrator revokes an unknown token",
			call: call{as: "adm", body: "token=raw~unknown"}, status: 200},
		{id: "OW-15", level: "RFC 7009 2.1", title: "client names in headers are ignored",
			call: call{body: "token={AT1}", header: spoof}, status: 401, code: "invalid_client"},
		{id: "OW-15", level: "RFC 7009 2.1", title: "client names in headers change no credentials",
			call: call{as: "c2", body: "token={AT1}", header: spoof}, status: 400, code: "invalid_grant"},
		{id: "contract", level: "2 \"foreign and already dead: 200\"", title: "a foreign token of a revoked grant",
			call: c1, status: 200, dead: pair,
			after: func(t *testing.T, w *tokenSet, m *member, _ reply) {
				r := w.s.send(t, w.s.HTTP, m, pathRevoke, call{as: "c2", body: "token={AT1}"}, w.tokens)
				checkOAuth(t, r)
				if r.Status != 200 {
					t.Errorf("a foreign revoked token: got %d %s, want 200", r.Status, r.Body)
				}
			}},
		{id: "contract", level: "2 \"foreign and already dead: 200\"",
			title: "a foreign rotated refresh token changes nothing", call: call{as: "c2", body: "token={RTg0}"}, status: 200},
		{id: "contract", level: "2 \"Who may revoke\"", title: "an administrator, the token of a public client",
			call: call{as: "adm", body: "token={RTp}"}, status: 200, dead: "ATp RTp"},
		{id: "contract", level: "2 \"Who may revoke\"", title: "an administrator, the token of a disabled client",
			call: call{as: "adm", body: "token={RTd}"}, status: 200},
	}
}

func (w *tokenSet) subject() string { return "alice." + strings.TrimPrefix(w.grants["g1"], "g1.") }
func (w *tokenSet) session() string { return "s." + strings.TrimPrefix(w.grants["g1"], "g1.") }

// json sends a JSON body under /v1 as a client.
func (s *stage) json(t *testing.T, m *member, method, path, who, body string) reply {
	t.Helper()
	a := call{method: method, as: who, body: body, contentType: "application/json"}
	if body == "" {
		a.contentType = "-"
	}
	return s.send(t, s.HTTP, m, path, a, nil)
}
