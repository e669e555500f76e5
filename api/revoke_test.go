package api_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"revoked"
	"revoked/api"
)

// The test runs the rows of the tables HP, HT, PR, OW, CA, MF and TM that need only one node, on
// both paths. dead lists the tokens that are inactive afterwards; all others must be active (GA-8).
func TestRevoke_SingleNodeRows_MatchTables(t *testing.T) {
	long := strings.Repeat("x", 8<<10)
	rows := []struct {
		id     string
		call   call
		status int
		code   string // error code
		dead   string
	}{
		{"HP-01 a client revokes its access token", call{auth: as("c1"), body: "token=AT1"}, 200, "", "AT1 RT1"},
		{"HP-03 a client revokes its refresh token", call{auth: as("c1"), body: "token=RT1"}, 200, "", "AT1 RT1"},
		{"HP-05 an unknown token", call{auth: as("c1"), body: "token=never-issued"}, 200, "", ""},
		{"HP-09 an administrator revokes any token", call{auth: as("admin"), body: "token=AT2"}, 200, "", "AT2 RT2"},
		{"HP-10 extra parameters are ignored", call{auth: as("c1"), body: "foo=1&resource=x&token=AT1"}, 200, "", "AT1 RT1"},
		{"HP-11 a charset parameter", call{auth: as("c1"), body: "token=AT1", contentType: formType + "; charset=UTF-8"},
			200, "", "AT1 RT1"},
		{"HP-12 other order, escaped token and name",
			call{auth: as("c1"), body: "token_type_hint=access_token&t%6Fken=%41T1"}, 200, "", "AT1 RT1"},
		{"HT-03 a wrong hint", call{auth: as("c1"), body: "token=AT1&token_type_hint=refresh_token"}, 200, "", "AT1 RT1"},
		{"HT-04 a wrong hint for a refresh token", call{auth: as("c1"), body: "token=RT1&token_type_hint=access_token"},
			200, "", "AT1 RT1"},
		{"HT-05 an invalid hint", call{auth: as("c1"), body: "token=AT1&token_type_hint=banana"}, 200, "", "AT1 RT1"},
		{"HT-07 an empty hint", call{auth: as("c1"), body: "token=AT1&token_type_hint="}, 200, "", "AT1 RT1"},
		{"HT-09 a hint sent twice", call{auth: as("c1"), body: "token=AT1&token_type_hint=a&token_type_hint=a"}, 400,
			"invalid_request", ""},
		{"HT-11 a hint of 10 kB", call{auth: as("c1"), body: "token=AT1&token_type_hint=" + strings.Repeat("h", 10<<10)},
			200, "", "AT1 RT1"},
		{"OW-01 a foreign access token", call{auth: as("c1"), body: "token=AT2"}, 400, "invalid_grant", ""},
		{"OW-02 a foreign refresh token with a wrong hint",
			call{auth: as("c1"), body: "token=RT2&token_type_hint=access_token"}, 400, "invalid_grant", ""},
		{"OW-03 a public client", call{body: "client_id=pub1&token=ATp"}, 401, "invalid_client", ""},
		{"OW-06 a disabled client with the correct secret", call{auth: as("cd"), body: "token=AT1"}, 401, "invalid_client",
			""},
		{"OW-07 a resource server", call{auth: as("rs1"), body: "token=AT1"}, 400, "unauthorized_client", ""},
		{"OW-07 an issuer", call{auth: as("iss"), body: "token=AT1"}, 400, "unauthorized_client", ""},
		{"OW-07 an issuer, an unknown token", call{auth: as("iss"), body: "token=nope"}, 400, "unauthorized_client", ""},
		{"OW-07 an issuer, no token", call{auth: as("iss"), body: "token="}, 400, "unauthorized_client", ""},
		{"OW-08 an administrator revokes an unknown token", call{auth: as("admin"), body: "token=nope"}, 200, "", ""},
		{"OW-15 identity headers from outside", call{body: "token=AT1",
			header: http.Header{"X-Client-Id": {"c1"}, "X-Forwarded-User": {"c1"}, "X-Ssl-Client-Cert": {"c1"}}}, 401,
			"invalid_client", ""},
		{"CA-01 a wrong secret", call{auth: basic("c1", "wrong"), body: "token=AT1"}, 401, "invalid_client", ""},
		{"CA-02 an unknown client", call{auth: basic("nobody", "wrong"), body: "token=AT1"}, 401, "invalid_client", ""},
		{"CA-03 no credentials", call{body: "token=AT1"}, 401, "invalid_client", ""},
		{"CA-05 a wrong secret and an unknown token", call{auth: basic("c1", "wrong"), body: "token=unknown"}, 401,
			"invalid_client", ""},
		{"CA-06 a wrong secret and no token", call{auth: basic("c1", "wrong"), body: "a=b"}, 401, "invalid_client", ""},
		{"CA-07 form-encoded Basic", call{auth: "Basic Y2wlM0FpZW50OnMlMjVjJTJCcit0", body: "token=x"}, 200, "", ""},
		{"CA-08 raw Basic with a colon in the id", call{auth: "Basic Y2w6aWVudDpzJWMrciB0", body: "token=x"}, 401,
			"invalid_client", ""},
		{"Basic with everything percent-encoded", call{auth: rawBasic("s%3Ae", "s%3Ae%20c%2Fret"), body: "token=x"}, 200,
			"", ""},
		{"Basic with only the colon escaped", call{auth: rawBasic("s%3Ae", "s%3Ae c/ret"), body: "token=x"}, 200, "", ""},
		{"Basic with only the colon escaped in a secret with a per cent sign",
			call{auth: rawBasic("cl%3Aient", "s%c+r t"), body: "token=x"}, 200, "", ""},
		{"Basic with a form-encoded id and a raw secret", call{auth: rawBasic("a+b%25", "50%25+x"), body: "token=x"}, 200,
			"", ""},
		{"Basic with a raw id and a form-encoded secret", call{auth: rawBasic("a b%", "50%2525%2Bx"), body: "token=x"}, 200,
			"", ""},
		{"Basic with a percent-encoded id and a form-encoded secret",
			call{auth: rawBasic("a%20b%25", "50%2525%2Bx"), body: "token=x"}, 200, "", ""},
		{"Basic with a lower-case scheme", call{auth: strings.Replace(as("c1"), "Basic", "basic", 1), body: "token=AT1"},
			200, "", "AT1 RT1"},
		{"credentials in the body", call{body: "client_id=c1&client_secret=c1-secret&token=AT1"}, 200, "", "AT1 RT1"},
		{"CA-11 Basic and another client_id", call{auth: as("c1"), body: "client_id=c2&token=AT1"}, 400, "invalid_request",
			""},
		{"Basic and the same client_id is one way", call{auth: as("c1"), body: "client_id=c1&token=AT1"}, 200, "", "AT1 RT1"},
		{"Basic and a secret in the body are two", call{auth: as("c1"),
			body: "client_id=c1&client_secret=c1-secret&token=AT1"}, 400, "invalid_request", ""},
		{"Basic and empty credentials in the body are one way",
			call{auth: as("c1"), body: "client_id=&client_secret=&token=AT1"}, 200, "", "AT1 RT1"},
		{"Basic and an assertion are two ways", call{auth: as("c1"), body: "client_assertion=x&token=AT1"}, 400,
			"invalid_request", ""},
		{"an assertion alone is not supported",
			call{body: "client_assertion_type=y&client_assertion=x&client_id=c1&token=AT1"}, 401, "invalid_client", ""},
		{"CA-12 client_secret in the query", call{path: "?client_secret=c1-secret&client_id=c1", body: "token=AT1"}, 400,
			"invalid_request", ""},
		{"empty parameters in the query are absent",
			call{path: "?token=&client_id=&client_secret=&client_assertion=&client_assertion_type=", auth: as("c1"),
				body: "token=AT1"}, 200, "", "AT1 RT1"},
		{"an empty secret in the query, and one in the body",
			call{path: "?client_secret", body: "client_id=c1&client_secret=c1-secret&token=AT1"}, 200, "", "AT1 RT1"},
		{"an empty token in the query alone", call{path: "?token=", auth: as("c1"), body: "a=b"}, 400, "invalid_request", ""},
		{"a client id in the query", call{path: "?client_id=c1", auth: as("c1"), body: "token=AT1"}, 400, "invalid_request",
			""},
		{"a secret in the query, and an empty one",
			call{path: "?client_secret=c1-secret&client_secret=", auth: as("c1"), body: "token=AT1"}, 400, "invalid_request",
			""},
		{"an empty parameter twice in the query", call{path: "?token=&token=", auth: as("c1"), body: "token=AT1"}, 400,
			"invalid_request", ""},
		{"a hint in the query, and an empty one in the body",
			call{path: "?token_type_hint=x", auth: as("c1"), body: "token=AT1&token_type_hint="}, 400, "invalid_request", ""},
		{"an empty hint in the query, and one in the body",
			call{path: "?token_type_hint=", auth: as("c1"), body: "token=AT1&token_type_hint=x"}, 200, "", "AT1 RT1"},
		{"a hint in the query and one in the body",
			call{path: "?token_type_hint=x", auth: as("c1"), body: "token=AT1&token_type_hint=x"}, 400, "invalid_request", ""},
		{"CA-13 Basic that is not base64", call{auth: "Basic !!!", body: "token=AT1"}, 401, "invalid_client", ""},
		{"CA-13 Basic without a colon", call{auth: "Basic YWJj", body: "token=AT1"}, 401, "invalid_client", ""},
		{"CA-13 Basic with nothing", call{auth: "Basic ", body: "token=AT1"}, 401, "invalid_client", ""},
		{"CA-13 Basic with only the scheme", call{auth: "Basic", body: "token=AT1"}, 401, "invalid_client", ""},
		{"CA-15 two Authorization headers", call{header: http.Header{"Authorization": {as("c1"), as("c1")}},
			body: "token=AT1"}, 400, "invalid_request", ""},
		{"CA-16 Digest", call{auth: `Digest username="c1"`, body: "token=AT1"}, 401, "invalid_client", ""},
		{"CA-16 Digest and a secret in the body are two ways",
			call{auth: `Digest username="c1"`, body: "client_id=c1&client_secret=c1-secret&token=AT1"}, 400, "invalid_request",
			""},
		{"CA-17 an empty secret in the body", call{body: "client_id=c1&client_secret=&token=AT1"}, 401, "invalid_client", ""},
		{"CA-17 an empty client_id in the body", call{body: "client_id=&client_secret=c1-secret&token=AT1"}, 401,
			"invalid_client", ""},
		{"MF-01 no token", call{auth: as("c1"), body: "a=b"}, 400, "invalid_request", ""},
		{"MF-02 an empty token", call{auth: as("c1"), body: "token="}, 400, "invalid_request", ""},
		{"MF-03 two tokens", call{auth: as("c1"), body: "token=AT1&token=b"}, 400, "invalid_request", ""},
		{"MF-04 the same token twice", call{auth: as("c1"), body: "token=AT1&token=AT1"}, 400, "invalid_request", ""},
		{"a token and an empty one", call{auth: as("c1"), body: "token=AT1&token="}, 400, "invalid_request", ""},
		{"MF-05 token in body and query", call{path: "?token=AT1", auth: as("c1"), body: "token=AT1"}, 400,
			"invalid_request", ""},
		{"MF-06 token only in the query", call{path: "?token=AT1", auth: as("c1"), body: "a=b"}, 400, "invalid_request", ""},
		{"MF-07 JSON", call{auth: as("c1"), body: `{"token":"AT1"}`, contentType: "application/json"}, 400,
			"invalid_request", ""},
		{"MF-08 multipart", call{auth: as("c1"), body: "--x\r\n", contentType: "multipart/form-data; boundary=x"}, 400,
			"invalid_request", ""},
		{"MF-09 no content type", call{auth: as("c1"), body: "token=AT1", contentType: "-"}, 400, "invalid_request", ""},
		{"MF-10 an invalid escape", call{auth: as("c1"), body: "token=%zz"}, 400, "invalid_request", ""},
		{"an invalid escape in another parameter", call{auth: as("c1"), body: "token=AT1&x=%"}, 400, "invalid_request", ""},
		{"MF-11 a semicolon", call{auth: as("c1"), body: "token=a;b=c"}, 400, "invalid_request", ""},
		{"MF-12 an empty body", call{auth: as("c1")}, 400, "invalid_request", ""},
		{"MF-13 a body above the limit", call{auth: as("c1"), body: "token=" + strings.Repeat("x", 16<<10)}, 413,
			"invalid_request", ""},
		{"MF-13 before bad credentials", call{auth: basic("c1", "wrong"), body: "token=" + strings.Repeat("x", 16<<10)},
			413, "invalid_request", ""},
		{"MF-14 a token of 8 KiB", call{auth: as("c1"), body: "token=" + long}, 200, "", ""},
		{"MF-15 a token with spaces, NUL and more", call{auth: as("c1"), body: "token=%00+%FF%0A%20x"}, 200, "", ""},
		{"MF-17 the wrong case of a name", call{auth: as("c1"), body: "Token=AT1"}, 400, "invalid_request", ""},
		{"MF-18 an unknown parameter repeated", call{auth: as("c1"), body: "x=1&x=2&token=AT1"}, 200, "", "AT1 RT1"},
		{"MF-20 a compressed body", call{auth: as("c1"), body: "token=AT1",
			header: http.Header{"Content-Encoding": {"gzip"}}}, 415, "invalid_request", ""},
		{"TM-01 plain HTTP", call{plain: true, auth: as("c1"), body: "token=AT1"}, 400, "invalid_request", ""},
		{"TM-04 X-Forwarded-Proto from anyone", call{plain: true, auth: as("c1"), body: "token=AT1",
			header: http.Header{"X-Forwarded-Proto": {"https"}}}, 400, "invalid_request", ""},
		{"TM-05 GET", call{method: "GET", path: "?token=AT1", auth: as("c1")}, 405, "invalid_request", ""},
		{"TM-10 OPTIONS without CORS", call{method: "OPTIONS",
			header: http.Header{"Origin": {"https://x"}, "Access-Control-Request-Method": {"POST"}}}, 405, "invalid_request",
			""},
		{"an unknown method", call{method: "BREW", auth: as("c1")}, 405, "invalid_request", ""},
		{"DELETE", call{method: "DELETE", auth: as("c1")}, 405, "invalid_request", ""},
		{"TM-14 callback is ignored", call{auth: as("c1"), body: "token=AT1&callback=f"}, 200, "", "AT1 RT1"},
		{"TM-18 a trailing slash", call{path: "/", auth: as("c1"), body: "token=AT1"}, 404, "invalid_request", ""},
		{"TM-21 a query component is not form input", call{path: "?tenant=x", auth: as("c1"), body: "token=AT1"}, 200, "",
			"AT1 RT1"},
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
					t.Errorf("GA-3: got body %q, want {}", w.Body)
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
						t.Errorf("got %q in the log, want none:\n%s", secret, b.log.String())
					}
				}
			}
			if fmt.Sprint(answers[0].Code, answers[0].Header(), answers[0].Body) != fmt.Sprint(answers[1].Code,
				answers[1].Header(), answers[1].Body) {
				t.Errorf("HP-13: got %v and %v, want the same answer at both paths", answers[0], answers[1])
			}
		})
	}
}

func TestRevoke_InactiveToken_Is200(t *testing.T) {
	b := newBench(t)
	for i := range 2 {
		if w := b.do(call{path: pathRevoke, auth: as("c1"), body: "token=AT1"}); w.Code != 200 {
			t.Fatalf("HP-04: call %d: got %d %s, want 200", i, w.Code, w.Body)
		}
	}
	if w := b.do(call{path: pathRevoke, auth: as("c2"), body: "token=AT1"}); w.Code != 200 {
		t.Errorf("an inactive foreign token: got %d %s, want 200", w.Code, w.Body)
	}
}

func TestRevoke_PublicClient_OnlyIfAllowed(t *testing.T) {
	b := newBench(t)
	b.node.put(revoked.Client{ID: "pub1", Type: revoked.Public, AllowPublicRevocation: true})
	for _, row := range []struct {
		id, body string
		status   int
	}{
		{"OW-05 a foreign token", "client_id=pub1&token=AT1", 400},
		{"a public client with a secret", "client_id=pub1&client_secret=x&token=ATp", 401},
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
		t.Error("got another state, want the grant of pub1 inactive and that of c1 active")
	}
	if w := b.do(call{path: pathIntrospect, body: "client_id=pub1&token=ATp"}); w.Code != 401 {
		t.Errorf("IN-09: got %d, want 401", w.Code)
	}
}

// OW-07: a resource server or issuer that is an OAuth client too may revoke its own tokens.
func TestRevoke_ResourceServer_OnlyItsOwn(t *testing.T) {
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
			t.Errorf("%s: got active, want inactive", token)
		}
	}
	b.node.onStatus = func(context.Context, revoked.Digest) error { return revoked.ErrNoLeader }
	if w := b.do(call{path: pathRevoke, auth: as("rs1"), body: "token=unknown"}); w.Code != 503 {
		t.Errorf("an unknown token without a leader: got %d, want 503", w.Code)
	}
}

func TestRevoke_FailedLogins_GetEqualResponses(t *testing.T) {
	b := newBench(t)
	want := ""
	for _, c := range []call{
		{auth: basic("c1", "wrong")}, {auth: basic("nobody", "wrong")}, {auth: as("cd")}, {auth: "Digest x"},
		{auth: "Basic !"},
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

// Errors of the backend, CL-03 to CL-16: a revocation that is possibly not committed never gets
// 200.
func TestRevoke_BackendError_DecidesStatus(t *testing.T) {
	for _, row := range []struct {
		err    error
		status int
		code   string
	}{
		{revoked.ErrNoLeader, 503, "temporarily_unavailable"}, {revoked.ErrOutcomeUnknown, 503, "temporarily_unavailable"},
		{revoked.ErrNotCurrent, 503, "temporarily_unavailable"}, {revoked.ErrOverloaded, 503, "temporarily_unavailable"},
		{revoked.ErrNoCluster, 503, "temporarily_unavailable"}, {revoked.ErrClosed, 503, "temporarily_unavailable"},
		{fmt.Errorf("disk on fire at /secret"), 503, "temporarily_unavailable"},
		{context.DeadlineExceeded, 503, "temporarily_unavailable"},
		{revoked.ErrConflict, 503, "temporarily_unavailable"}, {revoked.ErrNotFound, 503, "temporarily_unavailable"},
		{revoked.ErrQuota, 429, "temporarily_unavailable"}, {revoked.ErrActorChanged, 503, "temporarily_unavailable"},
		{revoked.ErrForeignToken, 400, "invalid_grant"},
	} {
		b := newBench(t)
		b.node.onRevoke = func(context.Context, revoked.Actor,
			revoked.Digest) error {
			return fmt.Errorf("%w: facts", row.err)
		}
		w := b.do(call{path: pathRevoke, auth: as("c1"), body: "token=AT1"})
		always(t, w)
		if w.Code != row.status || !strings.HasPrefix(w.Body.String(), `{"error":"`+row.code+`"`) {
			t.Errorf("%v: got %d %s, want %d %s", row.err, w.Code, w.Body, row.status, row.code)
		}
		if strings.Contains(w.Body.String(), "facts") || strings.Contains(w.Body.String(), "/secret") {
			t.Errorf("%v: got the detail in the response %s, want none", row.err, w.Body)
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

// If a record changes during a request, the caller authenticates again, so 401 means that the
// credentials are wrong now.
func TestRevoke_ClientChanges_AuthenticatesAgain(t *testing.T) {
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

// An operator must be able to alert on revocations of unknown tokens, and an administrator must see
// a typo. Other callers must not learn which tokens exist, so they get one answer for all.
func TestRevoke_UnknownToken_IsReported(t *testing.T) {
	for _, path := range []string{pathRevoke, "/invoke/pub.oauth/revokeToken"} {
		for _, row := range []struct {
			caller, token, outcome, header string
		}{
			{"admin", "AT1", "revoked", "revoked"},
			{"admin", "AT1", "revoked", "revoked"}, // inactive now, and known
			{"admin", "typo", "unknown", "unknown"},
			{"admin", "typo", "unknown", "unknown"}, // has a tombstone now, and is still unknown
			{"c2", "AT1", "revoked", ""},            // foreign and inactive
			{"c2", "AT2", "revoked", ""},
			{"c2", "typo-2", "unknown", ""},
		} {
			b := newBench(t)
			b.do(call{path: path, auth: as("admin"), body: "token=AT1"})
			b.do(call{path: path, auth: as("admin"), body: "token=typo"})
			before := b.value(t, "revocations_total", "outcome", row.outcome)
			logged := len(b.log.String())
			w := b.do(call{path: path, auth: as(row.caller), body: "token=" + row.token})
			if w.Code != 200 || w.Body.String() != "{}" {
				t.Errorf("%s, %s: got %d %q, want 200 {}", row.caller, row.token, w.Code, w.Body)
			}
			if got := w.Header().Get("Revoked-Outcome"); got != row.header {
				t.Errorf("%s, %s: got header %q, want %q", row.caller, row.token, got, row.header)
			}
			if got := b.value(t, "revocations_total", "outcome", row.outcome) - before; got != 1 {
				t.Errorf("%s, %s: got %v more of outcome %s, want 1", row.caller, row.token, got, row.outcome)
			}
			if want := `"outcome":"` + row.outcome + `"`; !strings.Contains(b.log.String()[logged:], want) {
				t.Errorf("%s, %s: got log %q, want %s", row.caller, row.token, b.log.String()[logged:], want)
			}
		}
	}
}

// An outsider who knows the id of a public client must not use up its quota or lock out its users.
func TestRevoke_PublicClient_UnknownTokensLimited(t *testing.T) {
	b := newBench(t, func(c *api.Config) { c.PublicRevocationsPerMinute = 3 })
	for _, id := range []string{"pub2", "pub3"} {
		b.node.put(revoked.Client{ID: id, Type: revoked.Public, AllowPublicRevocation: true})
	}
	b.pair(t, "v", "pub2")
	b.pair(t, "w", "pub2")
	n := 0
	send := func(client, remote, token string) *httptest.ResponseRecorder {
		if n++; token == "" {
			token = fmt.Sprint("unknown", n)
		}
		return b.do(call{path: pathRevoke, body: "client_id=" + client + "&token=" + token, remote: remote})
	}
	const attacker, other = "192.0.2.1:1000", "192.0.2.2:1000"
	for range 3 {
		if w := send("pub2", attacker, ""); w.Code != 200 {
			t.Fatalf("below the limit: got %d %s, want 200", w.Code, w.Body)
		}
	}
	for range 5 {
		w := send("pub2", attacker, "")
		if w.Code != 429 || w.Header().Get("Retry-After") != "20" ||
			!strings.Contains(w.Body.String(), "temporarily_unavailable") {
			t.Errorf("above the limit: got %d %v %s, want 429 with Retry-After 20", w.Code, w.Header(), w.Body)
		}
	}
	if w := send("pub2", attacker, "ATv"); w.Code != 200 || b.active(t, "ATv") {
		t.Errorf("known token above the limit: got %d %s, want 200 and an inactive token", w.Code, w.Body)
	}
	if w := send("pub2", other, ""); w.Code != 200 {
		t.Errorf("another address: got %d %s, want 200", w.Code, w.Body)
	}
	if w := send("pub3", attacker, ""); w.Code != 200 {
		t.Errorf("another client: got %d %s, want 200", w.Code, w.Body)
	}
	confidential := call{path: pathRevoke, auth: as("c1"), remote: attacker, body: "token=unknown"}
	for range 5 {
		if w := b.do(confidential); w.Code != 200 {
			t.Errorf("confidential client: got %d %s, want 200", w.Code, w.Body)
		}
	}
	b.now = b.now.Add(20 * time.Second)
	if w := send("pub2", attacker, ""); w.Code != 200 {
		t.Errorf("after Retry-After: got %d %s, want 200", w.Code, w.Body)
	}
	for i := range 4 { // an IPv6 host may have a whole /64
		w := send("pub2", fmt.Sprintf("[2001:db8:0:1::%d]:1000", i), "")
		if want := map[bool]int{true: 200, false: 429}[i < 3]; w.Code != want {
			t.Errorf("address %d of one network: got %d %s, want %d", i, w.Code, w.Body, want)
		}
	}
}
