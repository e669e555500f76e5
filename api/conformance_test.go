package api_test

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"testing"

	"revoked"
	"revoked/api"
)

// always checks what holds for every answer of an OAuth endpoint (GA-1 to GA-7).
func always(t *testing.T, w *httptest.ResponseRecorder) {
	t.Helper()
	h := w.Header()
	if h.Get("Cache-Control") != "no-store" || h.Get("Pragma") != "no-cache" {
		t.Errorf("GA-1: got Cache-Control %q, Pragma %q", h.Get("Cache-Control"), h.Get("Pragma"))
	}
	if h.Get("Content-Type") != "application/json" {
		t.Errorf("GA-2: got Content-Type %q", h.Get("Content-Type"))
	}
	if w.Code >= 400 {
		var body map[string]string
		if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil || body["error"] == "" {
			t.Errorf("GA-2: got body %s (%v)", w.Body, err)
		}
		for k, v := range body {
			for _, c := range []byte(v) {
				if c < 0x20 || c > 0x7e || c == '"' || c == '\\' {
					t.Errorf("GA-2: %s holds %q", k, c)
				}
			}
		}
	}
	switch w.Code {
	case 401:
		if got := h.Get("WWW-Authenticate"); got != `Basic realm="revoked"` {
			t.Errorf("GA-4: got WWW-Authenticate %q", got)
		}
	case 405:
		if h.Get("Allow") == "" {
			t.Error("GA-4: 405 without Allow")
		}
	case 429, 503:
		if n, err := strconv.Atoi(h.Get("Retry-After")); err != nil || n < 1 {
			t.Errorf("GA-4: got Retry-After %q", h.Get("Retry-After"))
		}
	}
	if w.Code >= 300 && w.Code < 400 {
		t.Errorf("GA-6: got a redirect, %d", w.Code)
	}
	if h.Get("X-Content-Type-Options") != "nosniff" || h.Get("Server") != "" {
		t.Errorf("GA-7: got nosniff %q, Server %q", h.Get("X-Content-Type-Options"), h.Get("Server"))
	}
}

// TestRevocationConformance holds the rows of the tables HP, HT, PR, OW, CA, MF and TM that one node can
// show, on both paths. A row that says dead lists the tokens that must be inactive afterwards; all others
// must still be live (GA-8).
func TestRevocationConformance(t *testing.T) {
	long := strings.Repeat("x", 8<<10)
	rows := []struct {
		id     string
		call   call
		status int
		code   string // error
		dead   string
	}{
		{"HP-01 a client revokes its access token", call{auth: as("c1"), body: "token=AT1"}, 200, "", "AT1 RT1"},
		{"HP-03 a client revokes its refresh token", call{auth: as("c1"), body: "token=RT1"}, 200, "", "AT1 RT1"},
		{"HP-05 an unknown token", call{auth: as("c1"), body: "token=never-issued"}, 200, "", ""},
		{"HP-09 an administrator revokes any token", call{auth: as("admin"), body: "token=AT2"}, 200, "", "AT2 RT2"},
		{"HP-10 extra parameters are ignored", call{auth: as("c1"), body: "foo=1&resource=x&token=AT1"}, 200, "", "AT1 RT1"},
		{"HP-11 a charset parameter", call{auth: as("c1"), body: "token=AT1", contentType: formType + "; charset=UTF-8"}, 200, "", "AT1 RT1"},
		{"HP-12 other order, escaped token and name", call{auth: as("c1"), body: "token_type_hint=access_token&t%6Fken=%41T1"}, 200, "", "AT1 RT1"},
		{"HT-03 a wrong hint", call{auth: as("c1"), body: "token=AT1&token_type_hint=refresh_token"}, 200, "", "AT1 RT1"},
		{"HT-04 a wrong hint for a refresh token", call{auth: as("c1"), body: "token=RT1&token_type_hint=access_token"}, 200, "", "AT1 RT1"},
		{"HT-05 an invalid hint", call{auth: as("c1"), body: "token=AT1&token_type_hint=banana"}, 200, "", "AT1 RT1"},
		{"HT-07 an empty hint", call{auth: as("c1"), body: "token=AT1&token_type_hint="}, 200, "", "AT1 RT1"},
		{"HT-09 a hint sent twice", call{auth: as("c1"), body: "token=AT1&token_type_hint=a&token_type_hint=a"}, 400, "invalid_request", ""},
		{"HT-11 a hint of 10 kB", call{auth: as("c1"), body: "token=AT1&token_type_hint=" + strings.Repeat("h", 10<<10)}, 200, "", "AT1 RT1"},
		{"OW-01 a foreign access token", call{auth: as("c1"), body: "token=AT2"}, 400, "invalid_grant", ""},
		{"OW-02 a foreign refresh token with a wrong hint", call{auth: as("c1"), body: "token=RT2&token_type_hint=access_token"}, 400, "invalid_grant", ""},
		{"OW-03 a public client", call{body: "client_id=pub1&token=ATp"}, 401, "invalid_client", ""},
		{"OW-06 a disabled client with the right secret", call{auth: as("cd"), body: "token=AT1"}, 401, "invalid_client", ""},
		{"OW-07 a resource server", call{auth: as("rs1"), body: "token=AT1"}, 400, "unauthorized_client", ""},
		{"OW-07 an issuer", call{auth: as("iss"), body: "token=AT1"}, 400, "unauthorized_client", ""},
		{"OW-07 an issuer, an unknown token", call{auth: as("iss"), body: "token=nope"}, 400, "unauthorized_client", ""},
		{"OW-07 an issuer, no token", call{auth: as("iss"), body: "token="}, 400, "unauthorized_client", ""},
		{"OW-08 an administrator revokes an unknown token", call{auth: as("admin"), body: "token=nope"}, 200, "", ""},
		{"OW-15 identity headers from outside", call{body: "token=AT1", header: http.Header{"X-Client-Id": {"c1"}, "X-Forwarded-User": {"c1"}, "X-Ssl-Client-Cert": {"c1"}}}, 401, "invalid_client", ""},
		{"CA-01 a wrong secret", call{auth: basic("c1", "wrong"), body: "token=AT1"}, 401, "invalid_client", ""},
		{"CA-02 an unknown client", call{auth: basic("nobody", "wrong"), body: "token=AT1"}, 401, "invalid_client", ""},
		{"CA-03 no credentials", call{body: "token=AT1"}, 401, "invalid_client", ""},
		{"CA-05 a wrong secret and an unknown token", call{auth: basic("c1", "wrong"), body: "token=unknown"}, 401, "invalid_client", ""},
		{"CA-06 a wrong secret and no token", call{auth: basic("c1", "wrong"), body: "a=b"}, 401, "invalid_client", ""},
		{"CA-07 form-encoded Basic", call{auth: "Basic Y2wlM0FpZW50OnMlMjVjJTJCcit0", body: "token=x"}, 200, "", ""},
		{"CA-08 raw Basic with a colon in the id", call{auth: "Basic Y2w6aWVudDpzJWMrciB0", body: "token=x"}, 401, "invalid_client", ""},
		{"Basic with everything percent-encoded", call{auth: rawBasic("s%3Ae", "s%3Ae%20c%2Fret"), body: "token=x"}, 200, "", ""},
		{"Basic with only the colon escaped", call{auth: rawBasic("s%3Ae", "s%3Ae c/ret"), body: "token=x"}, 200, "", ""},
		{"Basic with only the colon escaped in a secret with a per cent sign", call{auth: rawBasic("cl%3Aient", "s%c+r t"), body: "token=x"}, 200, "", ""},
		{"Basic with a form-encoded id and a raw secret", call{auth: rawBasic("a+b%25", "50%25+x"), body: "token=x"}, 200, "", ""},
		{"Basic with a raw id and a form-encoded secret", call{auth: rawBasic("a b%", "50%2525%2Bx"), body: "token=x"}, 200, "", ""},
		{"Basic with a percent-encoded id and a form-encoded secret", call{auth: rawBasic("a%20b%25", "50%2525%2Bx"), body: "token=x"}, 200, "", ""},
		{"Basic with a lower-case scheme", call{auth: strings.Replace(as("c1"), "Basic", "basic", 1), body: "token=AT1"}, 200, "", "AT1 RT1"},
		{"credentials in the body", call{body: "client_id=c1&client_secret=c1-secret&token=AT1"}, 200, "", "AT1 RT1"},
		{"CA-11 Basic and another client_id", call{auth: as("c1"), body: "client_id=c2&token=AT1"}, 400, "invalid_request", ""},
		{"Basic and the same client_id is one way", call{auth: as("c1"), body: "client_id=c1&token=AT1"}, 200, "", "AT1 RT1"},
		{"Basic and a secret in the body are two", call{auth: as("c1"), body: "client_id=c1&client_secret=c1-secret&token=AT1"}, 400, "invalid_request", ""},
		{"Basic and empty credentials in the body are one way", call{auth: as("c1"), body: "client_id=&client_secret=&token=AT1"}, 200, "", "AT1 RT1"},
		{"Basic and an assertion are two ways", call{auth: as("c1"), body: "client_assertion=x&token=AT1"}, 400, "invalid_request", ""},
		{"an assertion alone is no way that is offered", call{body: "client_assertion_type=y&client_assertion=x&client_id=c1&token=AT1"}, 401, "invalid_client", ""},
		{"CA-12 client_secret in the query", call{path: "?client_secret=c1-secret&client_id=c1", body: "token=AT1"}, 400, "invalid_request", ""},
		{"empty parameters in the query are absent", call{path: "?token=&client_id=&client_secret=&client_assertion=&client_assertion_type=", auth: as("c1"), body: "token=AT1"}, 200, "", "AT1 RT1"},
		{"an empty secret in the query beside one in the body", call{path: "?client_secret", body: "client_id=c1&client_secret=c1-secret&token=AT1"}, 200, "", "AT1 RT1"},
		{"an empty token in the query alone", call{path: "?token=", auth: as("c1"), body: "a=b"}, 400, "invalid_request", ""},
		{"a client id in the query", call{path: "?client_id=c1", auth: as("c1"), body: "token=AT1"}, 400, "invalid_request", ""},
		{"a secret in the query beside an empty one", call{path: "?client_secret=c1-secret&client_secret=", auth: as("c1"), body: "token=AT1"}, 400, "invalid_request", ""},
		{"an empty parameter twice in the query", call{path: "?token=&token=", auth: as("c1"), body: "token=AT1"}, 400, "invalid_request", ""},
		{"a hint in the query beside an empty one in the body", call{path: "?token_type_hint=x", auth: as("c1"), body: "token=AT1&token_type_hint="}, 400, "invalid_request", ""},
		{"an empty hint in the query beside one in the body", call{path: "?token_type_hint=", auth: as("c1"), body: "token=AT1&token_type_hint=x"}, 200, "", "AT1 RT1"},
		{"a hint in the query and one in the body", call{path: "?token_type_hint=x", auth: as("c1"), body: "token=AT1&token_type_hint=x"}, 400, "invalid_request", ""},
		{"CA-13 Basic that is not base64", call{auth: "Basic !!!", body: "token=AT1"}, 401, "invalid_client", ""},
		{"CA-13 Basic without a colon", call{auth: "Basic YWJj", body: "token=AT1"}, 401, "invalid_client", ""},
		{"CA-13 Basic with nothing", call{auth: "Basic ", body: "token=AT1"}, 401, "invalid_client", ""},
		{"CA-13 Basic with nothing but the scheme", call{auth: "Basic", body: "token=AT1"}, 401, "invalid_client", ""},
		{"CA-15 two Authorization headers", call{header: http.Header{"Authorization": {as("c1"), as("c1")}}, body: "token=AT1"}, 400, "invalid_request", ""},
		{"CA-16 Digest", call{auth: `Digest username="c1"`, body: "token=AT1"}, 401, "invalid_client", ""},
		{"CA-16 Digest and a secret in the body are two ways", call{auth: `Digest username="c1"`, body: "client_id=c1&client_secret=c1-secret&token=AT1"}, 400, "invalid_request", ""},
		{"CA-17 an empty secret in the body", call{body: "client_id=c1&client_secret=&token=AT1"}, 401, "invalid_client", ""},
		{"CA-17 an empty client_id in the body", call{body: "client_id=&client_secret=c1-secret&token=AT1"}, 401, "invalid_client", ""},
		{"MF-01 no token", call{auth: as("c1"), body: "a=b"}, 400, "invalid_request", ""},
		{"MF-02 an empty token", call{auth: as("c1"), body: "token="}, 400, "invalid_request", ""},
		{"MF-03 two tokens", call{auth: as("c1"), body: "token=AT1&token=b"}, 400, "invalid_request", ""},
		{"MF-04 the same token twice", call{auth: as("c1"), body: "token=AT1&token=AT1"}, 400, "invalid_request", ""},
		{"a token and an empty one are a repeat", call{auth: as("c1"), body: "token=AT1&token="}, 400, "invalid_request", ""},
		{"MF-05 token in body and query", call{path: "?token=AT1", auth: as("c1"), body: "token=AT1"}, 400, "invalid_request", ""},
		{"MF-06 token only in the query", call{path: "?token=AT1", auth: as("c1"), body: "a=b"}, 400, "invalid_request", ""},
		{"MF-07 JSON", call{auth: as("c1"), body: `{"token":"AT1"}`, contentType: "application/json"}, 400, "invalid_request", ""},
		{"MF-08 multipart", call{auth: as("c1"), body: "--x\r\n", contentType: "multipart/form-data; boundary=x"}, 400, "invalid_request", ""},
		{"MF-09 no content type", call{auth: as("c1"), body: "token=AT1", contentType: "-"}, 400, "invalid_request", ""},
		{"MF-10 a bad escape", call{auth: as("c1"), body: "token=%zz"}, 400, "invalid_request", ""},
		{"a bad escape in an unknown parameter", call{auth: as("c1"), body: "token=AT1&x=%"}, 400, "invalid_request", ""},
		{"MF-11 a semicolon", call{auth: as("c1"), body: "token=a;b=c"}, 400, "invalid_request", ""},
		{"MF-12 an empty body", call{auth: as("c1")}, 400, "invalid_request", ""},
		{"MF-13 a body above the limit", call{auth: as("c1"), body: "token=" + strings.Repeat("x", 16<<10)}, 413, "invalid_request", ""},
		{"MF-13 before bad credentials", call{auth: basic("c1", "wrong"), body: "token=" + strings.Repeat("x", 16<<10)}, 413, "invalid_request", ""},
		{"MF-14 a token of 8 KiB", call{auth: as("c1"), body: "token=" + long}, 200, "", ""},
		{"MF-15 a token with blanks, NUL and more", call{auth: as("c1"), body: "token=%00+%FF%0A%20x"}, 200, "", ""},
		{"MF-17 the wrong case of a name", call{auth: as("c1"), body: "Token=AT1"}, 400, "invalid_request", ""},
		{"MF-18 an unknown parameter repeated", call{auth: as("c1"), body: "x=1&x=2&token=AT1"}, 200, "", "AT1 RT1"},
		{"MF-20 a compressed body", call{auth: as("c1"), body: "token=AT1", header: http.Header{"Content-Encoding": {"gzip"}}}, 415, "invalid_request", ""},
		{"TM-01 plain HTTP", call{plain: true, auth: as("c1"), body: "token=AT1"}, 400, "invalid_request", ""},
		{"TM-04 X-Forwarded-Proto from anyone", call{plain: true, auth: as("c1"), body: "token=AT1", header: http.Header{"X-Forwarded-Proto": {"https"}}}, 400, "invalid_request", ""},
		{"TM-05 GET", call{method: "GET", path: "?token=AT1", auth: as("c1")}, 405, "invalid_request", ""},
		{"TM-10 OPTIONS without CORS", call{method: "OPTIONS", header: http.Header{"Origin": {"https://x"}, "Access-Control-Request-Method": {"POST"}}}, 405, "invalid_request", ""},
		{"a method that nobody knows", call{method: "BREW", auth: as("c1")}, 405, "invalid_request", ""},
		{"DELETE", call{method: "DELETE", auth: as("c1")}, 405, "invalid_request", ""},
		{"TM-14 callback is ignored", call{auth: as("c1"), body: "token=AT1&callback=f"}, 200, "", "AT1 RT1"},
		{"TM-18 a trailing slash", call{path: "/", auth: as("c1"), body: "token=AT1"}, 404, "invalid_request", ""},
		{"TM-21 a query component is no input", call{path: "?tenant=x", auth: as("c1"), body: "token=AT1"}, 200, "", "AT1 RT1"},
	}
	for _, row := range rows {
		t.Run(row.id, func(t *testing.T) {
			var answers [2]*httptest.ResponseRecorder
			for i, path := range []string{pathRevoke, "/invoke/pub.oauth/revokeToken"} {
				b := newBench(t)
				c := row.call
				c.path = path + c.path
				w := b.do(c)
				always(t, w)
				answers[i] = w
				if w.Code != row.status {
					t.Fatalf("got %d %s, want %d", w.Code, w.Body, row.status)
				}
				if row.status == 200 && w.Body.String() != "{}" {
					t.Errorf("GA-3: got body %q", w.Body)
				}
				if row.code != "" && !strings.HasPrefix(w.Body.String(), `{"error":"`+row.code+`"`) {
					t.Errorf("got %s, want error %s", w.Body, row.code)
				}
				if row.status == 405 && w.Header().Get("Allow") != "POST" {
					t.Errorf("got Allow %q, want POST", w.Header().Get("Allow"))
				}
				for _, token := range []string{"AT1", "RT1", "AT2", "RT2", "ATp", "RTp"} {
					if got, want := b.active(t, token), !strings.Contains(row.dead, token); got != want {
						t.Errorf("%s active: got %t, want %t", token, got, want)
					}
				}
				for _, secret := range []string{"AT1", "RT1", "AT2", "c1-secret", "tenant", "never-issued"} {
					if strings.Contains(b.log.String(), secret) {
						t.Errorf("the log holds %q:\n%s", secret, b.log.String())
					}
				}
			}
			if fmt.Sprint(answers[0].Code, answers[0].Header(), answers[0].Body) != fmt.Sprint(answers[1].Code, answers[1].Header(), answers[1].Body) {
				t.Errorf("HP-13: the paths differ: %v %v", answers[0], answers[1])
			}
		})
	}
}

func rawBasic(id, secret string) string {
	r, _ := http.NewRequest(http.MethodGet, "/", nil)
	r.SetBasicAuth(id, secret)
	return r.Header.Get("Authorization")
}

func TestRevocationOfDeadTokensAnswers200(t *testing.T) {
	b := newBench(t)
	for i := range 2 {
		if w := b.do(call{path: pathRevoke, auth: as("c1"), body: "token=AT1"}); w.Code != 200 {
			t.Fatalf("HP-04: call %d: got %d %s", i, w.Code, w.Body)
		}
	}
	if w := b.do(call{path: pathRevoke, auth: as("c2"), body: "token=AT1"}); w.Code != 200 {
		t.Errorf("a foreign token that is dead: got %d %s, want 200", w.Code, w.Body)
	}
}

func TestPublicClientMayRevokeItsOwnWhenAllowed(t *testing.T) {
	b := newBench(t)
	b.node.put(revoked.Client{ID: "pub1", Type: revoked.Public, AllowPublicRevocation: true})
	for _, row := range []struct {
		id, body string
		status   int
	}{
		{"OW-05 a foreign token", "client_id=pub1&token=AT1", 400},
		{"with a secret it is not public", "client_id=pub1&client_secret=x&token=ATp", 401},
		{"an unknown client", "client_id=pub2&token=ATp", 401},
		{"a confidential client without its secret", "client_id=c1&token=AT1", 401},
		{"OW-04 its own token", "client_id=pub1&token=ATp", 200},
	} {
		w := b.do(call{path: pathRevoke, body: row.body})
		always(t, w)
		if w.Code != row.status {
			t.Errorf("%s: got %d %s, want %d", row.id, w.Code, w.Body, row.status)
		}
	}
	if b.active(t, "RTp") || !b.active(t, "AT1") {
		t.Error("want the public client's grant dead and the other live")
	}
	if w := b.do(call{path: pathIntrospect, body: "client_id=pub1&token=ATp"}); w.Code != 401 {
		t.Errorf("IN-09: got %d, want 401", w.Code)
	}
}

// OW-07: who is a resource server or an issuer, and an OAuth client besides, revokes what was issued to itself.
func TestAResourceServerRevokesItsOwn(t *testing.T) {
	b := newBench(t)
	b.pair(t, "r", "rs1")
	b.pair(t, "s", "rs1")
	for _, token := range []string{"ATr", "RTs"} {
		if w := b.do(call{path: pathRevoke, auth: as("rs2"), body: "token=" + token}); w.Code != 400 {
			t.Errorf("%s by another resource server: got %d %s, want 400", token, w.Code, w.Body)
		}
		if w := b.do(call{path: pathRevoke, auth: as("rs1"), body: "token=" + token}); w.Code != 200 {
			t.Errorf("%s by its own client: got %d %s, want 200", token, w.Code, w.Body)
		}
	}
	for _, token := range []string{"ATr", "RTr", "ATs", "RTs"} {
		if b.active(t, token) {
			t.Errorf("%s is active, want it dead", token)
		}
	}
	b.node.onStatus = func(context.Context, revoked.Digest) error { return revoked.ErrNoLeader }
	if w := b.do(call{path: pathRevoke, auth: as("rs1"), body: "token=unknown"}); w.Code != 503 {
		t.Errorf("an unknown token without a leader: got %d, want 503", w.Code)
	}
}

func TestFailedLoginsAreAllAlike(t *testing.T) {
	b := newBench(t)
	want := ""
	for _, c := range []call{
		{auth: basic("c1", "wrong")}, {auth: basic("nobody", "wrong")}, {auth: as("cd")}, {auth: "Digest x"}, {auth: "Basic !"},
		{body: "client_id=pub1"}, {body: "client_id=nobody&client_secret=x"}, {body: ""},
	} {
		c.path = pathRevoke
		w := b.do(c)
		got := fmt.Sprint(w.Code, w.Header(), w.Body)
		if want == "" {
			want = got
		}
		if got != want {
			t.Errorf("CA-02: got %s, want %s", got, want)
		}
	}
}

// Errors of the backend, CL-03 to CL-16: nothing that is not known to be committed is a 200.
func TestRevocationSaysWhatTheBackendSays(t *testing.T) {
	for _, row := range []struct {
		err    error
		status int
		code   string
	}{
		{revoked.ErrNoLeader, 503, "temporarily_unavailable"}, {revoked.ErrOutcomeUnknown, 503, "temporarily_unavailable"},
		{revoked.ErrNotCurrent, 503, "temporarily_unavailable"}, {revoked.ErrOverloaded, 503, "temporarily_unavailable"},
		{revoked.ErrNoCluster, 503, "temporarily_unavailable"}, {revoked.ErrClosed, 503, "temporarily_unavailable"},
		{fmt.Errorf("disk on fire at /secret"), 503, "temporarily_unavailable"}, {context.DeadlineExceeded, 503, "temporarily_unavailable"},
		{revoked.ErrConflict, 503, "temporarily_unavailable"}, {revoked.ErrNotFound, 503, "temporarily_unavailable"},
		{revoked.ErrQuota, 429, "temporarily_unavailable"}, {revoked.ErrActorChanged, 503, "temporarily_unavailable"},
		{revoked.ErrForeignToken, 400, "invalid_grant"},
	} {
		b := newBench(t)
		b.node.onRevoke = func(context.Context, revoked.Actor, revoked.Digest) error { return fmt.Errorf("%w: facts", row.err) }
		w := b.do(call{path: pathRevoke, auth: as("c1"), body: "token=AT1"})
		always(t, w)
		if w.Code != row.status || !strings.HasPrefix(w.Body.String(), `{"error":"`+row.code+`"`) {
			t.Errorf("%v: got %d %s, want %d %s", row.err, w.Code, w.Body, row.status, row.code)
		}
		if strings.Contains(w.Body.String(), "facts") || strings.Contains(w.Body.String(), "/secret") {
			t.Errorf("%v: the answer tells the detail: %s", row.err, w.Body)
		}
		for what, c := range map[string]call{
			"401": {auth: basic("c1", "wrong"), body: "token=AT1"}, "400": {auth: as("c1"), body: "token=a&token=b"},
		} {
			c.path = pathRevoke
			if w := b.do(c); strconv.Itoa(w.Code) != what {
				t.Errorf("CL-09 while %v: got %d, want %s", row.err, w.Code, what)
			}
		}
	}
}

// A record that changes under a request is judged again: only credentials that are wrong now are 401.
func TestRevocationByAClientThatChanges(t *testing.T) {
	for _, row := range []struct {
		id     string
		change func(*revoked.Client)
		status int
	}{
		{"something else changed", func(c *revoked.Client) { c.Audiences = []string{"x"} }, 200},
		{"the secret changed", func(c *revoked.Client) { c.Secrets = []revoked.SecretHash{strong("other")} }, 401},
		{"it was disabled", func(c *revoked.Client) { c.Disabled = true }, 401},
	} {
		b := newBench(t)
		calls := 0
		b.node.onRevoke = func(context.Context, revoked.Actor, revoked.Digest) error {
			if calls++; calls == 1 {
				old, _ := b.node.Client("c1")
				c := *old
				row.change(&c)
				b.node.put(c)
			}
			return nil
		}
		w := b.do(call{path: pathRevoke, auth: as("c1"), body: "token=AT1"})
		always(t, w)
		if w.Code != row.status {
			t.Errorf("%s: got %d %s, want %d", row.id, w.Code, w.Body, row.status)
		}
	}
}

func TestIntrospectionConformance(t *testing.T) {
	const at1 = `{"active":true,"scope":"read write","client_id":"c1","username":"alice@example.org","token_type":"Bearer",` +
		`"exp":1790003600,"iat":1790000000,"sub":"alice","aud":"rs1","iss":"https://as.example","jti":"j1"}`
	const rt1 = `{"active":true,"client_id":"c1","exp":1792592000,"iat":1790000000}`
	const no = `{"active":false}`
	for _, row := range []struct {
		id     string
		call   call
		status int
		body   string // or error code
	}{
		{"IN-01 a resource server of the audience", call{auth: as("rs1"), body: "token=AT1"}, 200, at1},
		{"an administrator", call{auth: as("admin"), body: "token=AT1"}, 200, at1},
		{"IN-02 an unknown token", call{auth: as("rs1"), body: "token=nope"}, 200, no},
		{"IN-03 a resource server of another audience", call{auth: as("rs2"), body: "token=AT1"}, 200, no},
		{"IN-04 a wrong hint", call{auth: as("rs1"), body: "token=AT1&token_type_hint=refresh_token"}, 200, at1},
		{"IN-04 an invalid hint", call{auth: as("rs1"), body: "token=AT1&token_type_hint=banana"}, 200, at1},
		{"IN-04 a hint twice", call{auth: as("rs1"), body: "token=AT1&token_type_hint=a&token_type_hint=b"}, 400, "invalid_request"},
		{"IN-05 a refresh token, its client", call{auth: as("c1"), body: "token=RT1"}, 200, rt1},
		{"a refresh token, an administrator", call{auth: as("admin"), body: "token=RT1"}, 200, rt1},
		{"a refresh token, a resource server", call{auth: as("rs1"), body: "token=RT1"}, 200, no},
		{"IN-07 a wrong secret", call{auth: basic("rs1", "wrong"), body: "token=AT1"}, 401, "invalid_client"},
		{"IN-08 no credentials", call{body: "token=AT1"}, 401, "invalid_client"},
		{"IN-09 a public client", call{body: "client_id=pub1&token=ATp"}, 401, "invalid_client"},
		{"IN-10 a client, its own token", call{auth: as("c1"), body: "token=AT1"}, 200, at1},
		{"IN-10 a client, a foreign token", call{auth: as("c1"), body: "token=AT2"}, 200, no},
		{"an issuer", call{auth: as("iss"), body: "token=AT1"}, 200, no},
		{"IN-11 a bearer token", call{auth: "Bearer AT1", body: "token=AT1"}, 401, "invalid_client"},
		{"IN-13 GET", call{method: "GET", path: "?token=AT1", auth: as("rs1")}, 405, "invalid_request"},
		{"IN-22 Accept text/html", call{auth: as("rs1"), body: "token=AT1", header: http.Header{"Accept": {"text/html"}}}, 200, at1},
		{"credentials in the body", call{body: "token=AT1&client_id=rs1&client_secret=rs1-secret"}, 200, at1},
		{"no token", call{auth: as("rs1"), body: "a=b"}, 400, "invalid_request"},
		{"plain HTTP", call{plain: true, auth: as("rs1"), body: "token=AT1"}, 400, "invalid_request"},
	} {
		t.Run(row.id, func(t *testing.T) {
			b := newBench(t)
			var all [2]string
			for i, path := range []string{pathIntrospect, "/invoke/pub.oauth/introspectToken"} {
				c := row.call
				c.path = path + c.path
				w := b.do(c)
				always(t, w)
				all[i] = fmt.Sprint(w.Code, w.Header(), w.Body)
				want := row.body
				if row.status != 200 {
					want = `{"error":"` + want + `"`
				}
				if w.Code != row.status || !strings.HasPrefix(w.Body.String(), want) || row.status == 200 && w.Body.String() != want {
					t.Errorf("got %d %s, want %d %s", w.Code, w.Body, row.status, want)
				}
			}
			if all[0] != all[1] {
				t.Errorf("HP-13: the paths differ: %s, %s", all[0], all[1])
			}
		})
	}
}

func TestIntrospectionSaysOnlyWhatTheRecordHolds(t *testing.T) {
	b := newBench(t)
	iss, _ := b.node.Client("iss")
	_, err := b.node.Register(t.Context(), revoked.ActorOf(iss), []revoked.Registration{
		{GrantID: "bare", ClientID: "c1", Tokens: []revoked.TokenRegistration{{Digest: revoked.DigestToken("bare"), Kind: revoked.AccessToken, IssuedAt: 1_790_000_000_900_000}}},
		{GrantID: "full", ClientID: "c1", Subject: "a \"<ü>\" \x01", Audience: []string{"rs2", "rs1"}, Tokens: []revoked.TokenRegistration{{Digest: revoked.DigestToken("full"),
			Kind: revoked.AccessToken, IssuedAt: 1_790_000_000_000_000, NotBefore: 1_790_000_000_000_000, CNF: []byte(`{"x5t#S256":"abc"}`)}}},
		{GrantID: "early", ClientID: "c1", Tokens: []revoked.TokenRegistration{{Digest: revoked.DigestToken("early"), Kind: revoked.AccessToken, NotBefore: 1_800_000_000_000_000}}},
		{GrantID: "late", ClientID: "c1", Tokens: []revoked.TokenRegistration{{Digest: revoked.DigestToken("late"), Kind: revoked.AccessToken, ExpiresAt: 1_790_000_000_000_001}}},
		{GrantID: "broken", ClientID: "c1", Tokens: []revoked.TokenRegistration{{Digest: revoked.DigestToken("broken"), Kind: revoked.AccessToken, CNF: []byte(`{"x":`)}}},
		{GrantID: "off", ClientID: "cd", Tokens: []revoked.TokenRegistration{{Digest: revoked.DigestToken("off"), Kind: revoked.AccessToken}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct{ id, token, want string }{
		{"IN-14 a token that never expires, for every audience", "bare", `{"active":true,"client_id":"c1","token_type":"Bearer","iat":1790000000}`},
		{"several audiences, a confirmation, a subject to escape", "full", `{"active":true,"client_id":"c1","token_type":"Bearer","iat":1790000000,"nbf":1790000000,` +
			`"sub":"a \"\u003cü\u003e\" \u0001","aud":["rs2","rs1"],"cnf":{"x5t#S256":"abc"}}`},
		{"IN-02 not yet valid", "early", `{"active":false}`},
		{"IN-02 expired", "late", `{"active":false}`},
		{"IN-25 of a disabled client", "off", `{"active":false}`},
	} {
		w := b.do(call{path: pathIntrospect, auth: as("rs1"), body: "token=" + row.token})
		always(t, w)
		if w.Code != 200 || w.Body.String() != row.want {
			t.Errorf("%s: got %d %s, want %s", row.id, w.Code, w.Body, row.want)
		}
		if !json.Valid(w.Body.Bytes()) {
			t.Errorf("%s: not JSON", row.id)
		}
	}
	if w := b.do(call{path: pathIntrospect, auth: as("rs1"), body: "token=broken"}); w.Code != 503 {
		t.Errorf("a confirmation that cannot be repeated: got %d %s, want 503", w.Code, w.Body)
	}
}

func TestIntrospectionWithoutProof(t *testing.T) {
	for _, row := range []struct {
		id, who, token string
		status         int
	}{
		{"CL-11 a live token needs proof", "rs1", "AT1", 503},
		{"CL-05 an unknown token needs proof", "rs1", "nope", 503},
		{"a token of another audience does not", "rs2", "AT1", 200},
		{"nor does a refresh token that is not the caller's", "rs1", "RT1", 200},
	} {
		b := newBench(t)
		b.node.onStatus = func(context.Context, revoked.Digest) error { return revoked.ErrNotCurrent }
		w := b.do(call{path: pathIntrospect, auth: as(row.who), body: "token=" + row.token})
		always(t, w)
		if w.Code != row.status || row.status == 200 && w.Body.String() != `{"active":false}` {
			t.Errorf("%s: got %d %s, want %d", row.id, w.Code, w.Body, row.status)
		}
	}
}

func TestMissesAreThrottledAndKnownTokensAreNot(t *testing.T) {
	b := newBench(t, func(c *api.Config) { c.MissesPerSecond = 5 })
	codes := map[int]int{}
	for i := range 20 {
		w := b.do(call{path: pathIntrospect, auth: as("rs1"), body: "token=random" + strconv.Itoa(i)})
		always(t, w)
		codes[w.Code]++
	}
	if codes[200] != 5 || codes[429] != 15 {
		t.Errorf("IN-24: got %v, want 5 answers and 15 refusals", codes)
	}
	if n := b.node.statusCalls.Load(); n != 5 {
		t.Errorf("got %d calls of the backend, want 5", n)
	}
	if !b.active(t, "AT1") {
		t.Error("a known token of the same caller is inactive")
	}
	if w := b.do(call{path: pathIntrospect, auth: as("rs2"), body: "token=random"}); w.Code != 200 {
		t.Errorf("another caller: got %d, want 200", w.Code)
	}
}

func TestGetWhereItIsAllowed(t *testing.T) {
	for _, row := range []struct {
		id     string
		call   call
		status int
	}{
		{"TM-06 GET revokes", call{path: pathRevoke + "?token=AT1", auth: as("c1")}, 200},
		{"IN-13 GET introspects", call{path: pathIntrospect + "?token=AT1&token_type_hint=x", auth: as("rs1")}, 200},
		{"TM-07 a secret in the query", call{path: pathRevoke + "?token=AT1&client_id=c1&client_secret=c1-secret"}, 400},
		{"a client id in the query", call{path: pathRevoke + "?token=AT1&client_id=pub1"}, 400},
		{"empty credentials in the query", call{path: pathRevoke + "?token=AT1&client_id=&client_secret=&client_assertion=&client_assertion_type=", auth: as("c1")}, 200},
		{"a kind of assertion in the query", call{path: pathRevoke + "?token=AT1&client_assertion_type=x"}, 400},
		{"an empty token", call{path: pathRevoke + "?token=", auth: as("c1")}, 400},
		{"a token and an empty one", call{path: pathRevoke + "?token=AT1&token=", auth: as("c1")}, 400},
		{"TM-08 token twice", call{path: pathRevoke + "?token=AT1&token=AT1", auth: as("c1")}, 400},
		{"a body", call{path: pathRevoke + "?token=AT1", auth: as("c1"), body: "token=AT1"}, 400},
		{"no credentials", call{path: pathRevoke + "?token=AT1"}, 401},
		{"no token", call{path: pathRevoke, auth: as("c1")}, 400},
		{"a semicolon", call{path: pathRevoke + "?token=AT1;x=y", auth: as("c1")}, 400},
	} {
		b := newBench(t, func(c *api.Config) { c.RequirePost = false })
		row.call.method = "GET"
		w := b.do(row.call)
		always(t, w)
		if w.Code != row.status {
			t.Errorf("%s: got %d %s, want %d", row.id, w.Code, w.Body, row.status)
		}
		if strings.Contains(b.log.String(), "AT1") {
			t.Errorf("%s: the log holds the token: %s", row.id, b.log.String())
		}
		row.call.method = "HEAD"
		row.call.body = ""
		if w := b.do(row.call); w.Code != 405 || w.Header().Get("Allow") != "GET, POST" {
			t.Errorf("%s: HEAD: got %d, Allow %q", row.id, w.Code, w.Header().Get("Allow"))
		}
	}
}

func TestPlainHTTP(t *testing.T) {
	proxy := func(c *api.Config) { c.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")} }
	off := func(c *api.Config) { c.RequireHTTPS = false }
	forwarded := http.Header{"X-Forwarded-Proto": {"https"}}
	for _, row := range []struct {
		id     string
		change func(*api.Config)
		call   call
		status int
	}{
		{"TM-02 where HTTPS is not required", off, call{}, 200},
		{"a trusted proxy says https", proxy, call{header: forwarded, remote: "10.1.2.3:999"}, 200},
		{"a trusted proxy says nothing", proxy, call{remote: "10.1.2.3:999"}, 400},
		{"TM-04 another peer says https", proxy, call{header: forwarded, remote: "192.0.2.1:999"}, 400},
	} {
		b := newBench(t, row.change)
		row.call.plain, row.call.path, row.call.auth, row.call.body = true, pathRevoke, as("c1"), "token=AT1"
		w := b.do(row.call)
		always(t, w)
		if w.Code != row.status {
			t.Errorf("%s: got %d %s, want %d", row.id, w.Code, w.Body, row.status)
		}
	}
}

func TestUnknownPathsAreJSON(t *testing.T) {
	b := newBench(t)
	for path, want := range map[string]string{
		"/oauth2/nope": "application/json", "/oauth2": "application/problem+json", "/": "application/problem+json",
		"/v1/nope": "application/problem+json", "/invoke/x": "application/json", "/.well-known/x": "application/json",
		"//oauth2/revoke": "application/problem+json", "/oauth2/../oauth2/revoke": "application/json",
	} {
		w := b.do(call{path: path, auth: as("c1"), body: "token=AT1"})
		if w.Code != 404 || w.Header().Get("Content-Type") != want || !json.Valid(w.Body.Bytes()) {
			t.Errorf("TM-17 %s: got %d %s %s, want 404 %s", path, w.Code, w.Header().Get("Content-Type"), w.Body, want)
		}
	}
}

// Whatever bytes come, an OAuth endpoint answers with its own shape and no 500.
func TestNoBodyIsA500(t *testing.T) {
	b := newBench(t)
	r := rand.New(rand.NewPCG(1, 2))
	for range 500 {
		body := make([]byte, r.IntN(200))
		for i := range body {
			body[i] = "token=&%+;AT1\x00\xffz"[r.IntN(16)]
		}
		w := b.do(call{path: pathRevoke, auth: as("c1"), body: string(body)})
		always(t, w)
		if w.Code != 200 && w.Code != 400 {
			t.Fatalf("%q: got %d %s", body, w.Code, w.Body)
		}
	}
}

func TestFormValuesMatchThoseOfTheStandardLibrary(t *testing.T) {
	b := newBench(t)
	var got revoked.Digest
	b.node.onRevoke = func(_ context.Context, _ revoked.Actor, d revoked.Digest) error { got = d; return nil }
	for _, token := range []string{"a", "a b", "a+b", "ü€\x00", "a=b=c", "a&b", strings.Repeat("%", 100)} {
		w := b.do(call{path: pathRevoke, auth: as("c1"), body: url.Values{"token": {token}}.Encode()})
		if w.Code != 200 || got != revoked.DigestToken(token) {
			t.Errorf("%q: got %d and another digest", token, w.Code)
		}
	}
	if w := b.do(call{path: pathRevoke, auth: as("c1"), body: "token=a=b"}); w.Code != 200 || got != revoked.DigestToken("a=b") {
		t.Errorf("an equals sign in a value: got %d and another digest", w.Code)
	}
}
