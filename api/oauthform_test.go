package api_test

import (
	"context"
	"encoding/json"
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

// always checks the assertions GA-1 to GA-7 on a response of an OAuth endpoint.
func always(t *testing.T, w *httptest.ResponseRecorder) {
	t.Helper()
	h := w.Header()
	if h.Get("Cache-Control") != "no-store" || h.Get("Pragma") != "no-cache" {
		t.Errorf("GA-1: got Cache-Control %q, Pragma %q, want neither cached", h.Get("Cache-Control"), h.Get("Pragma"))
	}
	if h.Get("Content-Type") != "application/json" {
		t.Errorf("GA-2: got Content-Type %q, want application/json", h.Get("Content-Type"))
	}
	if w.Code >= 400 {
		var body map[string]string
		if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil || body["error"] == "" {
			t.Errorf("GA-2: got body %s (%v), want a JSON error", w.Body, err)
		}
		for k, v := range body {
			for _, c := range []byte(v) {
				if c < 0x20 || c > 0x7e || c == '"' || c == '\\' {
					t.Errorf("GA-2: got %[2]q in %[1]s, want plain ASCII", k, c)
				}
			}
		}
	}
	switch w.Code {
	case 401:
		if got := h.Get("WWW-Authenticate"); got != `Basic realm="revoked"` {
			t.Errorf("GA-4: got WWW-Authenticate %q, want Basic", got)
		}
	case 405:
		if h.Get("Allow") == "" {
			t.Error("GA-4: got 405 without Allow, want one")
		}
	case 429, 503:
		if n, err := strconv.Atoi(h.Get("Retry-After")); err != nil || n < 1 {
			t.Errorf("GA-4: got Retry-After %q, want seconds", h.Get("Retry-After"))
		}
	}
	if w.Code >= 300 && w.Code < 400 {
		t.Errorf("GA-6: got redirect %d, want none", w.Code)
	}
	if h.Get("X-Content-Type-Options") != "nosniff" || h.Get("Server") != "" {
		t.Errorf("GA-7: got %q, Server %q, want nosniff and none", h.Get("X-Content-Type-Options"), h.Get("Server"))
	}
}

func rawBasic(id, secret string) string {
	r, _ := http.NewRequest(http.MethodGet, "/", nil)
	r.SetBasicAuth(id, secret)
	return r.Header.Get("Authorization")
}

func TestOAuth_GetAllowed_ReadsQuery(t *testing.T) {
	for _, row := range []struct {
		id     string
		call   call
		status int
	}{
		{"TM-06 GET revokes", call{path: pathRevoke + "?token=AT1", auth: as("c1")}, 200},
		{"IN-13 GET introspects", call{path: pathIntrospect + "?token=AT1&token_type_hint=x", auth: as("rs1")}, 200},
		{"TM-07 a secret in the query", call{path: pathRevoke + "?token=AT1&client_id=c1&client_secret=c1-secret"}, 400},
		{"a client id in the query", call{path: pathRevoke + "?token=AT1&client_id=pub1"}, 400},
		{"empty credentials in the query", call{path: pathRevoke +
			"?token=AT1&client_id=&client_secret=&client_assertion=&client_assertion_type=", auth: as("c1")}, 200},
		{"an assertion type in the query", call{path: pathRevoke + "?token=AT1&client_assertion_type=x"}, 400},
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
			t.Errorf("%s: got the token in the log, want none: %s", row.id, b.log.String())
		}
		row.call.method = "HEAD"
		row.call.body = ""
		if w := b.do(row.call); w.Code != 405 || w.Header().Get("Allow") != "GET, POST" {
			t.Errorf("%s: HEAD: got %d, Allow %q, want 405 with GET, POST", row.id, w.Code, w.Header().Get("Allow"))
		}
	}
}

func TestOAuth_PlainHTTP_NeedsOptionOrProxy(t *testing.T) {
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
		{"a trusted proxy sends https", proxy, call{header: forwarded, remote: "10.1.2.3:999"}, 200},
		{"a trusted proxy sends no header", proxy, call{remote: "10.1.2.3:999"}, 400},
		{"TM-04 another peer sends https", proxy, call{header: forwarded, remote: "192.0.2.1:999"}, 400},
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

func TestRoutes_UnknownPath_IsJSON404(t *testing.T) {
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

func TestOAuth_RandomBody_IsNever500(t *testing.T) {
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
			t.Fatalf("%q: got %d %s, want 200 or 400", body, w.Code, w.Body)
		}
	}
}

func TestForm_Values_EqualNetURL(t *testing.T) {
	b := newBench(t)
	var got revoked.Digest
	b.node.onRevoke = func(_ context.Context, _ revoked.Actor, d revoked.Digest) error { got = d; return nil }
	for _, token := range []string{"a", "a b", "a+b", "ü€\x00", "a=b=c", "a&b", strings.Repeat("%", 100)} {
		w := b.do(call{path: pathRevoke, auth: as("c1"), body: url.Values{"token": {token}}.Encode()})
		if w.Code != 200 || got != revoked.DigestToken(token) {
			t.Errorf("%q: got %d and another digest, want 200 and that of the value", token, w.Code)
		}
	}
	if w := b.do(call{path: pathRevoke, auth: as("c1"), body: "token=a=b"}); w.Code != 200 ||
		got != revoked.DigestToken("a=b") {
		t.Errorf("an equals sign in a value: got %d and another digest, want 200 and that of a=b", w.Code)
	}
}

// The log has the caller's address, not the proxy's. Proxies may add a port or brackets to it.
func TestLog_ForwardedFor_NamesTheCaller(t *testing.T) {
	proxy := func(c *api.Config) { c.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")} }
	for header, want := range map[string]string{
		"192.0.2.7": "192.0.2.7", "192.0.2.7:4711": "192.0.2.7", "2001:db8::7": "2001:db8::7",
		"[2001:db8::7]": "2001:db8::7", "[2001:db8::7]:4711": "2001:db8::7", "::ffff:192.0.2.7": "192.0.2.7",
		"198.51.100.1, 192.0.2.7:1": "192.0.2.7", "192.0.2.7, 10.9.9.9:443": "192.0.2.7",
		"10.1.1.1, 10.9.9.9": "10.1.1.1", "unknown": "10.1.2.3", "": "10.1.2.3", "192.0.2.7, unknown, 10.9.9.9": "10.9.9.9",
		"192.0.2.7,": "10.1.2.3", "192.0.2.7:99999": "10.1.2.3", "[192.0.2.7": "10.1.2.3",
	} {
		b := newBench(t, proxy)
		b.do(call{path: pathRevoke, remote: "10.1.2.3:999", header: http.Header{"X-Forwarded-For": {header}}})
		if got := `"remote":"` + want + `"`; !strings.Contains(b.log.String(), got) {
			t.Errorf("%q: got %s, want %s in it", header, b.log.String(), got)
		}
		b = newBench(t, proxy)
		b.do(call{path: pathRevoke, remote: "192.0.2.99:1", header: http.Header{"X-Forwarded-For": {header}}})
		if !strings.Contains(b.log.String(), `"remote":"192.0.2.99"`) {
			t.Errorf("%q from a peer that is not a proxy: got %s, want its own address", header, b.log.String())
		}
	}
	b := newBench(t, proxy)
	b.do(call{path: pathRevoke, remote: "10.1.2.3:999",
		header: http.Header{"X-Forwarded-For": {"192.0.2.1", "192.0.2.7"}}})
	if !strings.Contains(b.log.String(), `"remote":"192.0.2.7"`) {
		t.Errorf("two headers: got %s, want the last entry", b.log.String())
	}
}
