package api_test

import (
	"context"
	"net/http"
	"net/netip"
	"testing"

	"revoked"
	"revoked/api"
)

func TestForwardAuthentication(t *testing.T) {
	const invalid = `Bearer error="invalid_token"`
	from := func(id string) http.Header { return http.Header{"Revoked-Authorization": {as(id)}} }
	for _, row := range []struct {
		id        string
		call      call
		status    int
		challenge string
	}{
		{"a live token", call{header: from("rs1"), auth: "Bearer AT1"}, 200, ""},
		{"a lower-case scheme", call{header: from("rs1"), auth: "bearer AT1"}, 200, ""},
		{"a path behind it, as Envoy sends", call{path: "/some/path?token=x", header: from("rs1"), auth: "Bearer AT1"}, 200, ""},
		{"any method, with a body", call{method: "PUT", header: from("rs1"), auth: "Bearer AT1", body: "ignored"}, 200, ""},
		{"an unknown token", call{header: from("rs1"), auth: "Bearer nope"}, 401, invalid},
		{"another audience", call{header: from("rs2"), auth: "Bearer AT1"}, 401, invalid},
		{"a refresh token", call{header: from("rs1"), auth: "Bearer RT1"}, 401, invalid},
		{"a token bound to a key", call{header: from("rs1"), auth: "Bearer bound"}, 401, invalid},
		{"no bearer token", call{header: from("rs1")}, 401, "Bearer"},
		{"Basic instead", call{header: from("rs1"), auth: as("c1")}, 401, "Bearer"},
		{"an empty token", call{header: from("rs1"), auth: "Bearer "}, 401, invalid},
		{"a token with a blank", call{header: from("rs1"), auth: "Bearer AT1 AT2"}, 401, invalid},
		{"two tokens", call{header: http.Header{"Revoked-Authorization": {as("rs1")}, "Authorization": {"Bearer AT1", "Bearer AT1"}}}, 401, invalid},
		{"a gateway without credentials", call{auth: "Bearer AT1"}, 401, `Basic realm="revoked"`},
		{"a gateway with wrong credentials", call{header: http.Header{"Revoked-Authorization": {basic("rs1", "wrong")}}, auth: "Bearer AT1"}, 401, `Basic realm="revoked"`},
		{"a client that is no resource server", call{header: from("c1"), auth: "Bearer AT1"}, 403, ""},
		{"plain HTTP", call{plain: true, header: from("rs1"), auth: "Bearer AT1"}, 400, ""},
		{"a network that may", call{remote: "10.9.8.7:1", auth: "Bearer AT1"}, 200, ""},
		{"a network that may, with credentials of another audience", call{remote: "10.9.8.7:1", header: from("rs2"), auth: "Bearer AT1"}, 401, invalid},
		{"a network that may, named in a header only", call{header: http.Header{"X-Forwarded-For": {"10.9.8.7"}}, auth: "Bearer AT1"}, 401, `Basic realm="revoked"`},
	} {
		b := newBench(t, func(c *api.Config) { c.CheckNetworks = []netip.Prefix{netip.MustParsePrefix("10.9.0.0/16")} })
		iss, _ := b.node.Client("iss")
		if _, err := b.node.Register(t.Context(), revoked.ActorOf(iss), []revoked.Registration{{GrantID: "b", ClientID: "c1",
			Tokens: []revoked.TokenRegistration{{Digest: revoked.DigestToken("bound"), Kind: revoked.AccessToken, CNF: []byte(`{"jkt":"x"}`)}}}}); err != nil {
			t.Fatal(err)
		}
		if row.call.method == "" {
			row.call.method = "GET"
		}
		row.call.path = "/v1/check" + row.call.path
		w := b.do(row.call)
		if w.Code != row.status || w.Header().Get("WWW-Authenticate") != row.challenge {
			t.Errorf("%s: got %d %q %s, want %d %q", row.id, w.Code, w.Header().Get("WWW-Authenticate"), w.Body, row.status, row.challenge)
		}
		if w.Header().Get("Cache-Control") != "no-store" {
			t.Errorf("%s: got Cache-Control %q", row.id, w.Header().Get("Cache-Control"))
		}
		if h := w.Header(); w.Code == 200 && (h.Get("Revoked-Subject") != "alice" || h.Get("Revoked-Client-Id") != "c1" || h.Get("Revoked-Scope") != "read write") {
			t.Errorf("%s: got headers %v", row.id, h)
		}
	}
}

// A gateway repeats the user's method, whatever it is.
func TestForwardAuthenticationTakesEveryMethod(t *testing.T) {
	b := newBench(t)
	for _, method := range []string{"GET", "HEAD", "POST", "OPTIONS", "TRACE", "PROPFIND", "REPORT", "MKCOL", "SEARCH", "LOCK", "QUERY", "PURGE", "FOO"} {
		for _, path := range []string{"/v1/check", "/v1/check/", "/v1/check/some/path"} {
			ask := func(token string) int {
				return b.do(call{method: method, path: path, contentType: "-", auth: "Bearer " + token, header: http.Header{"Revoked-Authorization": {as("rs1")}}}).Code
			}
			if live, dead := ask("AT1"), ask("nope"); live != 200 || dead != 401 {
				t.Errorf("%s %s: got %d and %d, want 200 and 401", method, path, live, dead)
			}
		}
		if method == "GET" || method == "HEAD" {
			continue
		}
		w := b.do(call{method: method, path: "/livez"})
		if method != "OPTIONS" && w.Code != 405 || w.Header().Get("Allow") == "" {
			t.Errorf("%s /livez: got %d, Allow %q, want 405", method, w.Code, w.Header().Get("Allow"))
		}
	}
}

func TestForwardAuthenticationWithoutProofIs503(t *testing.T) {
	b := newBench(t, func(c *api.Config) { c.MissesPerSecond = 1 })
	ask := func(token string) int {
		w := b.do(call{method: "GET", path: "/v1/check", auth: "Bearer " + token, header: http.Header{"Revoked-Authorization": {as("rs1")}}})
		if w.Code == 503 && w.Header().Get("Retry-After") == "" {
			t.Error("503 without Retry-After")
		}
		return w.Code
	}
	if a, b := ask("x1"), ask("x2"); a != 401 || b != 503 {
		t.Errorf("over the budget of misses: got %d, %d, want 401, 503", a, b)
	}
	b.node.onStatus = func(context.Context, revoked.Digest) error { return revoked.ErrNotCurrent }
	if got := ask("AT1"); got != 503 {
		t.Errorf("no proof: got %d, want 503", got)
	}
}

func TestHeadersOfForwardAuthenticationAreHarmless(t *testing.T) {
	b := newBench(t)
	iss, _ := b.node.Client("iss")
	if _, err := b.node.Register(t.Context(), revoked.ActorOf(iss), []revoked.Registration{{GrantID: "x", ClientID: "c1", Subject: "evil\r\nX-Admin: 1",
		Tokens: []revoked.TokenRegistration{{Digest: revoked.DigestToken("x"), Kind: revoked.AccessToken}}}}); err != nil {
		t.Fatal(err)
	}
	w := b.do(call{method: "GET", path: "/v1/check", auth: "Bearer x", header: http.Header{"Revoked-Authorization": {as("rs1")}}})
	if w.Code != 200 || w.Header().Get("Revoked-Subject") != "" {
		t.Errorf("got %d, Revoked-Subject %q, want 200 without it", w.Code, w.Header().Get("Revoked-Subject"))
	}
}
