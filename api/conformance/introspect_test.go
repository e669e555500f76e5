package conformance_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var introspectPaths = []string{pathIntrospect, "/invoke/pub.oauth/introspectToken"}

// A view is one line of table 6.10: a caller, a token and the answer.
type view struct {
	id, level, title string
	call             call
	status           int
	want             string // an error code or the answer, in which fill replaces {exp} and others
}

func (v *view) name() string { return v.id + " " + v.level + ": " + v.title }

const (
	inactive  = `{"active":false}`
	activeAT1 = `{"active":true,"scope":"read write","client_id":"c1","username":"alice@example.org","token_type":"Bearer","exp":{exp},"iat":{iat},` +
		`"sub":"{subject}","aud":"rs1","iss":"https://as.example","jti":"AT1"}`
	activeRT1 = `{"active":true,"client_id":"c1","exp":{rexp},"iat":{iat}}`
)

func (w *tokenSet) fill(want string) string {
	return strings.NewReplacer("{exp}", fmt.Sprint(w.exp), "{rexp}", fmt.Sprint(w.exp+3600), "{iat}", fmt.Sprint(w.iat),
		"{subject}", w.subject()).Replace(want)
}

func viewRows() []view {
	about := func(who, token string) call { return call{as: who, body: "token={" + token + "}"} }
	rows := []view{
		{"IN-01", "RFC 7662 2.2", "a resource server of the audience", about("rs1", "AT1"), 200, activeAT1},
		{"IN-01", "contract 2", "an administrator", about("adm", "AT1"), 200, activeAT1},
		{"IN-02", "RFC 7662 2.2", "an unknown token", call{as: "rs1", body: "token=raw~unknown"}, 200, inactive},
		{"IN-02", "contract 3", "a rotated refresh token", about("adm", "RTg0"), 200, inactive},
		{"IN-03", "RFC 7662 4", "a resource server of another audience", about("rs2", "AT1"), 200, inactive},
		{"IN-05", "contract 2", "a refresh token, its client", about("c1", "RT1"), 200, activeRT1},
		{"IN-05", "contract 2", "a refresh token, an administrator", about("adm", "RT1"), 200, activeRT1},
		{"IN-06", "contract 2", "a refresh token, a resource server", about("rs1", "RT1"), 200, inactive},
		{"IN-06", "contract 2", "a refresh token, another client", about("c2", "RT1"), 200, inactive},
		{"IN-07", "RFC 7662 2.3", "a wrong secret", call{auth: basicOf("rs1:wrong"), body: "token={AT1}"}, 401,
			"invalid_client"},
		{"IN-07", "contract 2", "a wrong secret and no token", call{auth: basicOf("rs1:wrong"), body: "x=1"}, 401,
			"invalid_client"},
		{"IN-08", "RFC 7662 2.3", "no credentials", call{body: "token={AT1}"}, 401, "invalid_client"},
		{"IN-09", "RFC 7662 2.1", "a public client", call{body: "client_id=pub1&token={ATp}"}, 401, "invalid_client"},
		{"IN-09", "contract 2", "a public client that may revoke", call{body: "client_id=pub2&token={ATq}"}, 401,
			"invalid_client"},
		{"IN-10", "contract 2", "a client, its own token", about("c1", "AT1"), 200, activeAT1},
		{"IN-10", "contract 2", "a client, a foreign token", about("c1", "AT2"), 200, inactive},
		{"IN-11", "RFC 7662 2.3", "a bearer token", call{auth: "Bearer {AT1}", body: "token={AT1}"}, 401, "invalid_client"},
		{"IN-12", "contract 2 \"Everything else\"", "an issuer", about("iss", "AT1"), 200, inactive},
		{"IN-12", "contract 2", "a disabled client", call{as: "cd", body: "token={ATd}"}, 401, "invalid_client"},
		{"IN-13", "RFC 7662 2.1", "GET where POST is required",
			call{method: http.MethodGet, path: "?token={AT1}", as: "rs1"}, 405, "invalid_request"},
		{"IN-15", "RFC 7662 2.1", "no token", call{as: "rs1", body: "x=1"}, 400, "invalid_request"},
		{"IN-15", "RFC 6749 3.1", "two tokens", call{as: "rs1", body: "token={AT1}&token={AT2}"}, 400, "invalid_request"},
		{"IN-18", "RFC 6749 2.3.1", "id and secret in the body",
			call{body: "client_id=rs1&client_secret={secret:rs1}&token={AT1}"}, 200, activeAT1},
		{"IN-21", "RFC 9701 4", "Accept names the JWT form second",
			call{as: "rs1", body: "token={AT1}",
				header: http.Header{"Accept": {"application/json, application/token-introspection+jwt;q=0.5"}}}, 200, activeAT1},
		{"IN-22", "RFC 9110 12.5.1", "Accept: text/html",
			call{as: "rs1", body: "token={AT1}", header: http.Header{"Accept": {"text/html"}}}, 200, activeAT1},
	}
	for _, h := range []string{"access_token", "refresh_token", "banana", "ACCESS_TOKEN", "", "id_token", "pct",
		strings.Repeat("h", 1000)} {
		with := func(who, token string) call { return call{as: who, body: "token={" + token + "}&token_type_hint=" + h} }
		short := h[:min(len(h), 16)]
		rows = append(rows,
			view{"IN-04", "RFC 7662 2.1", "an access token with the hint '" + short + "'", with("rs1", "AT1"), 200, activeAT1},
			view{"IN-04", "RFC 7662 2.1", "a refresh token with the hint '" + short + "'", with("c1", "RT1"), 200, activeRT1})
	}
	return append(rows, view{"IN-04", "RFC 6749 3.1", "a hint twice",
		call{as: "rs1", body: "token={AT1}&token_type_hint=a&token_type_hint=a"}, 400, "invalid_request"})
}

func runViews(t *testing.T, s *stage, rows []view) {
	w := s.newTokens(t, s.Follower(t))
	for _, row := range rows {
		t.Run(row.name(), func(t *testing.T) {
			for _, m := range s.alive() {
				var replies []reply
				for _, path := range introspectPaths {
					r := s.send(t, s.HTTP, m, path, row.call, w.tokens)
					checkOAuth(t, r)
					want := w.fill(row.want)
					switch {
					case r.Status != row.status:
						t.Errorf("%s: got %d %s, want %d", m.ID, r.Status, r.Body, row.status)
					case row.status == 200 && r.Body != want:
						t.Errorf("%s: got %s, want %s", m.ID, r.Body, want)
					case row.status != 200 && !strings.HasPrefix(r.Body, `{"error":"`+want+`"`):
						t.Errorf("%s: got %s, want error %s", m.ID, r.Body, want)
					case row.status == 405 && r.Header.Get("Allow") != "POST":
						t.Errorf("%s: got Allow %q, want POST", m.ID, r.Header.Get("Allow"))
					}
					replies = append(replies, r)
				}
				checkEqual(t, "contract 2: both paths", replies[0], replies[1])
			}
		})
	}
	t.Run("IN-02 RFC 7662 2.2: a revoked token", func(t *testing.T) {
		if r := s.send(t, s.HTTP, s.Follower(t), pathRevoke, call{as: "c1", body: "token={AT1}"}, w.tokens); r.Status != 200 {
			t.Fatalf("revoke: got %d %s", r.Status, r.Body)
		}
		for _, m := range s.alive() {
			for _, who := range []string{"rs1", "adm", "c1"} {
				if r := s.send(t, s.HTTP, m, pathIntrospect, call{as: who, body: "token={AT1}"}, w.tokens); r.Status != 200 ||
					r.Body != inactive {
					t.Errorf("%s to %s: got %d %s, want 200 %s", m.ID, who, r.Status, r.Body, inactive)
				}
			}
		}
	})
	t.Run("IN-14 contract 2: absent members are omitted", func(t *testing.T) { bareTokens(t, s) })
}

// bareTokens introspects tokens without an expiry, with no or several audiences, and with a
// confirmation.
func bareTokens(t *testing.T, s *stage) {
	n := sequence.Add(1)
	bare, many, bound := fmt.Sprintf("raw~bare.%d", n), fmt.Sprintf("raw~many.%d", n), fmt.Sprintf("raw~bound.%d", n)
	iat := s.now().Unix() - 5
	body := fmt.Sprintf(`{"client_id":"c1","access_token":{"token":%q,"issued_at":%d.75},"refresh_token":{"token":"%s.refresh","issued_at":%d}}
{"client_id":"c1","audience":["rs2","other","rs1"],"access_token":{"token":%q,"issued_at":%d,"not_before":%d}}
{"client_id":"c1","subject":"a\"<\u00fc>","audience":["rs1"],"access_token":{"token":%q,"issued_at":%d,"cnf":{ "x5t#S256": "abc" }}}
`, bare, iat, bare, iat, many, iat, iat, bound, iat)
	r := s.send(t, s.HTTP, s.Follower(t), "/v1/grants?results=errors", call{as: "iss", body: body, contentType: ndjson},
		nil)
	if !strings.HasPrefix(r.Body, `{"registered":3,`) {
		t.Fatalf("register: got %d %s", r.Status, r.Body)
	}
	for _, row := range []struct{ what, as, token, want string }{
		{"IN-14 no expiry, no audience", "rs1", bare,
			fmt.Sprintf(`{"active":true,"client_id":"c1","token_type":"Bearer","iat":%d}`, iat)},
		{"a token without an audience is for every resource server", "rs2", bare,
			fmt.Sprintf(`{"active":true,"client_id":"c1","token_type":"Bearer","iat":%d}`, iat)},
		{"IN-05 a refresh token without an expiry", "c1", bare + ".refresh",
			fmt.Sprintf(`{"active":true,"client_id":"c1","iat":%d}`, iat)},
		{"several audiences", "rs1", many,
			fmt.Sprintf(`{"active":true,"client_id":"c1","token_type":"Bearer","iat":%d,"nbf":%d,"aud":["rs2","other","rs1"]}`,
				iat, iat)},
		{"several audiences, the first", "rs2", many,
			fmt.Sprintf(`{"active":true,"client_id":"c1","token_type":"Bearer","iat":%d,"nbf":%d,"aud":["rs2","other","rs1"]}`,
				iat, iat)},
		{"a confirmation and a subject to escape", "rs1", bound,
			fmt.Sprintf(`{"active":true,"client_id":"c1","token_type":"Bearer","iat":%d,"sub":"a\"\u003cü\u003e","aud":"rs1","cnf":{"x5t#S256":"abc"}}`, iat)},
	} {
		for _, m := range s.alive() {
			r := s.send(t, s.HTTP, m, pathIntrospect, call{as: row.as, body: "token=" + row.token}, nil)
			checkOAuth(t, r)
			if r.Status != 200 || r.Body != row.want {
				t.Errorf("%s on %s: got %d %s, want %s", row.what, m.ID, r.Status, r.Body, row.want)
			}
		}
	}
}

// refusesAlike sends the rows that the revocation endpoint rejects before it reads the token to the
// introspection endpoint, which must reject them with equal responses.
func refusesAlike(t *testing.T, s *stage) {
	w := s.newTokens(t, s.Follower(t))
	for _, rows := range [][]row{authenticationRows(), malformedRows(), transportRows()} {
		for _, row := range rows {
			if row.status < 400 {
				continue
			}
			t.Run(row.name(), func(t *testing.T) {
				var replies []reply
				m := s.Follower(t)
				for _, path := range introspectPaths {
					r := s.send(t, s.HTTP, m, path, row.call, w.tokens)
					if row.call.method == http.MethodHead {
						checkHeaders(t, r)
					} else {
						checkOAuth(t, r)
					}
					if r.Status != row.status || row.code != "" && !strings.HasPrefix(r.Body, `{"error":"`+row.code+`"`) {
						t.Errorf("%s: got %d %s, want %d %s", path, r.Status, r.Body, row.status, row.code)
					}
					replies = append(replies, r)
				}
				checkEqual(t, "contract 2: both paths", replies[0], replies[1])
			})
		}
	}
}

func metadataScenarios() []scenario {
	return []scenario{
		{"MD-01", "RFC 8414 3.2", "the document, and the same bytes from every node", metadataIsTheSame},
		{"MD-04", "RFC 8414 2", "the methods that are listed are those that work", metadataMethods},
		{"MD-05", "RFC 8414 2", "the algorithms of assertions, without none", metadataAlgorithms},
		{"MD-06", "RFC 8414 3.2", "no member is empty", metadataMembers},
		{"MD-08", "RFC 8414 2", "no keys are published if none are used", metadataMembers},
		{"MD-09", "RFC 9701 7", "the metadata does not offer JWT introspection", metadataMembers},
		{"MD-10", "RFC 8705 5", "mutual TLS is at the same endpoints", metadataMembers},
		{"MD-11", "RFC 9110 15.5.6", "only GET and HEAD", metadataMethodsOfHTTP},
		{"TM-17", "RFC 9110 15.5.5", "unknown paths get 404 in JSON", unknownPaths},
	}
}

const metadataPath = "/.well-known/oauth-authorization-server"

func (s *stage) metadata(t *testing.T, m *member) (reply, map[string]any) {
	t.Helper()
	r := s.send(t, s.HTTP, m, metadataPath, call{method: http.MethodGet}, nil)
	var doc map[string]any
	if err := json.Unmarshal([]byte(r.Body), &doc); r.Status != 200 || err != nil {
		t.Fatalf("metadata: got %d %s (%v)", r.Status, r.Body, err)
	}
	checkHeaders(t, r)
	return r, doc
}

func metadataIsTheSame(t *testing.T, s *stage) {
	first, doc := s.metadata(t, s.Members[0])
	if doc["issuer"] != "https://as.example" {
		t.Errorf("got issuer %v, want https://as.example", doc["issuer"])
	}
	for member, path := range map[string]string{"revocation_endpoint": pathRevoke,
		"introspection_endpoint": pathIntrospect} {
		if doc[member] != "https://as.example"+path {
			t.Errorf("got %s %v, want https://as.example%s", member, doc[member], path)
		}
	}
	for _, m := range s.Members[1:] {
		other, _ := s.metadata(t, m)
		checkEqual(t, "metadata of "+m.ID, first, other)
	}
	head := s.send(t, s.HTTP, s.Follower(t), metadataPath, call{method: http.MethodHead}, nil)
	if head.Status != 200 || head.Body != "" || head.Header.Get("Content-Length") != fmt.Sprint(len(first.Body)) {
		t.Errorf("HEAD: got %d, Content-Length %q, want 200 and %d", head.Status, head.Header.Get("Content-Length"),
			len(first.Body))
	}
}

func metadataMethods(t *testing.T, s *stage) {
	_, doc := s.metadata(t, s.Follower(t))
	for _, member := range []string{"revocation_endpoint_auth_methods_supported",
		"introspection_endpoint_auth_methods_supported"} {
		want := "[client_secret_basic client_secret_post private_key_jwt self_signed_tls_client_auth]"
		if got := fmt.Sprint(doc[member]); got != want {
			t.Errorf("%s: got %s, want %s", member, got, want)
		}
	}
}

// signingAlgorithms are the members that list the algorithms of assertions.
var signingAlgorithms = []string{"revocation_endpoint_auth_signing_alg_values_supported",
	"introspection_endpoint_auth_signing_alg_values_supported"}

func metadataAlgorithms(t *testing.T, s *stage) {
	_, doc := s.metadata(t, s.Follower(t))
	for _, member := range signingAlgorithms {
		list, _ := doc[member].([]any)
		if len(list) == 0 {
			t.Errorf("%s: got %v, want algorithms", member, doc[member])
		}
		for _, alg := range list {
			if name, _ := alg.(string); name == "" || name == "none" || strings.HasPrefix(name, "HS") {
				t.Errorf("%s: got %v, want none without a public key", member, list)
			}
		}
	}
}

func metadataMembers(t *testing.T, s *stage) {
	_, doc := s.metadata(t, s.Follower(t))
	for k, v := range doc {
		if list, ok := v.([]any); v == nil || v == "" || ok && len(list) == 0 {
			t.Errorf("%s is empty", k)
		}
		if slices.Contains(signingAlgorithms, k) {
			continue
		}
		if strings.Contains(k, "signing_alg") || k == "jwks_uri" || k == "mtls_endpoint_aliases" ||
			strings.Contains(k, "introspection_encryption") {
			t.Errorf("metadata member %s is not supported", k)
		}
	}
}

func metadataMethodsOfHTTP(t *testing.T, s *stage) {
	for _, method := range []string{"POST", "PUT", "DELETE", "OPTIONS"} {
		r := s.send(t, s.HTTP, s.Follower(t), metadataPath, call{method: method}, nil)
		checkOAuth(t, r)
		if r.Status != 405 || r.Header.Get("Allow") != "GET, HEAD" {
			t.Errorf("%s: got %d, Allow %q, want 405 and GET, HEAD", method, r.Status, r.Header.Get("Allow"))
		}
	}
	if r := s.send(t, s.HTTP, s.Follower(t), metadataPath,
		call{method: http.MethodGet, header: http.Header{"Origin": {"https://app.example"}}},
		nil); r.Header.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("MD-12: CORS is off, got Access-Control-Allow-Origin %q", r.Header.Get("Access-Control-Allow-Origin"))
	}
}

func unknownPaths(t *testing.T, s *stage) {
	for path, want := range map[string]string{
		"/oauth2/token": "application/json", "/oauth2/": "application/json", "/oauth2//revoke": "application/json",
		"/invoke/pub.oauth/nothing":                  "application/json",
		"/.well-known/openid-configuration":          "application/json",
		"/.well-known/oauth-authorization-server/t1": "application/json",
		"/": "application/problem+json", "/v1": "application/problem+json", "/v1/nothing": "application/problem+json",
		"/index.html": "application/problem+json",
	} {
		for _, method := range []string{"GET", "POST"} {
			r := s.send(t, s.HTTP, s.Follower(t), path, call{method: method, as: "adm"}, nil)
			if r.Status != 404 || r.Header.Get("Content-Type") != want || !json.Valid([]byte(r.Body)) {
				t.Errorf("%s %s: got %d %s %s, want 404 %s", method, path, r.Status, r.Header.Get("Content-Type"), r.Body, want)
			}
		}
	}
}

// nothingRawIsLeft fails the test if a metric contains a raw token or a secret, or if a file does
// after the nodes have stopped.
func nothingRawIsLeft(t *testing.T, s *stage) {
	for _, m := range s.Members {
		r := s.send(t, s.HTTP, m, "/metrics", call{method: http.MethodGet}, nil)
		if r.Status != 200 || !strings.Contains(r.Body, "revoked_") {
			t.Fatalf("metrics of %s: got %d and %d bytes", m.ID, r.Status, len(r.Body))
		}
		if strings.Contains(r.Body, rawMark) || strings.Contains(r.Body, secretMark) {
			t.Errorf("the metrics of %s contain a token or a secret", m.ID)
		}
	}
	for _, m := range s.Members {
		m.control.Stop(t)
	}
	files := 0
	for _, m := range s.Members {
		err := filepath.WalkDir(m.data, func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return err
			}
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			files++
			if bytes.Contains(b, []byte(rawMark)) || bytes.Contains(b, []byte(secretMark)) {
				t.Errorf("got a token or a secret in %s, want none", path)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if files < 9 {
		t.Errorf("got %d files, want at least 9", files)
	}
}
