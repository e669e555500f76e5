package api_test

import (
	"context"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"revoked"
	"revoked/api"
)

func TestCheck_Token_DecidesStatus(t *testing.T) {
	const invalid = `Bearer error="invalid_token"`
	from := func(id string) http.Header { return http.Header{"Revoked-Authorization": {as(id)}} }
	for _, row := range []struct {
		id        string
		call      call
		status    int
		challenge string
	}{
		{"an active token", call{header: from("rs1"), auth: "Bearer AT1"}, 200, ""},
		{"a lower-case scheme", call{header: from("rs1"), auth: "bearer AT1"}, 200, ""},
		{"a longer path, as Envoy sends", call{path: "/some/path?token=x", header: from("rs1"), auth: "Bearer AT1"}, 200,
			""},
		{"any method, with a body", call{method: "PUT", header: from("rs1"), auth: "Bearer AT1", body: "ignored"}, 200, ""},
		{"an unknown token", call{header: from("rs1"), auth: "Bearer nope"}, 401, invalid},
		{"another audience", call{header: from("rs2"), auth: "Bearer AT1"}, 401, invalid},
		{"a refresh token", call{header: from("rs1"), auth: "Bearer RT1"}, 401, invalid},
		{"a token bound to a key", call{header: from("rs1"), auth: "Bearer bound"}, 401, invalid},
		{"no bearer token", call{header: from("rs1")}, 401, "Bearer"},
		{"Basic instead", call{header: from("rs1"), auth: as("c1")}, 401, "Bearer"},
		{"an empty token", call{header: from("rs1"), auth: "Bearer "}, 401, invalid},
		{"a token with a space", call{header: from("rs1"), auth: "Bearer AT1 AT2"}, 401, invalid},
		{"two tokens", call{header: http.Header{"Revoked-Authorization": {as("rs1")},
			"Authorization": {"Bearer AT1", "Bearer AT1"}}}, 401, invalid},
		{"a gateway without credentials", call{auth: "Bearer AT1"}, 403, ""},
		{"a gateway with a wrong secret", call{header: http.Header{"Revoked-Authorization": {basic("rs1", "wrong")}},
			auth: "Bearer AT1"}, 403, ""},
		{"an unknown gateway", call{header: http.Header{"Revoked-Authorization": {basic("rs9", "wrong")}},
			auth: "Bearer AT1"}, 403, ""},
		{"a disabled gateway", call{header: from("cd"), auth: "Bearer AT1"}, 403, ""},
		{"a gateway with malformed credentials", call{header: http.Header{"Revoked-Authorization": {"Basic !!!"}},
			auth: "Bearer AT1"}, 403, ""},
		{"a gateway with an empty header", call{header: http.Header{"Revoked-Authorization": {""}}, auth: "Bearer AT1"}, 403,
			""},
		{"a gateway that sends Bearer", call{header: http.Header{"Revoked-Authorization": {"Bearer AT1"}},
			auth: "Bearer AT1"}, 403, ""},
		{"a gateway that adds to the user's credentials", call{header: http.Header{"Revoked-Authorization": {as("rs1"),
			as("rs1")}}, auth: "Bearer AT1"}, 403, ""},
		{"a gateway with two credentials in one header", call{header: http.Header{"Revoked-Authorization": {as("rs1") +
			", " + as("rs1")}}, auth: "Bearer AT1"}, 403, ""},
		{"a gateway without credentials, no bearer token", call{}, 403, ""},
		{"a client without the role resource_server", call{header: from("c1"), auth: "Bearer AT1"}, 403, ""},
		{"plain HTTP", call{plain: true, header: from("rs1"), auth: "Bearer AT1"}, 400, ""},
		{"an allowed network", call{remote: "10.9.8.7:1", auth: "Bearer AT1"}, 200, ""},
		{"an allowed network, with credentials of another audience",
			call{remote: "10.9.8.7:1", header: from("rs2"), auth: "Bearer AT1"}, 401, invalid},
		{"an allowed network, only in a header",
			call{header: http.Header{"X-Forwarded-For": {"10.9.8.7"}}, auth: "Bearer AT1"}, 403, ""},
	} {
		b := newBench(t, func(c *api.Config) { c.CheckNetworks = networks("10.9.0.0/16", "*") })
		iss, _ := b.node.Client("iss")
		if _, err := b.node.Register(t.Context(), revoked.ActorOf(iss), []revoked.Registration{{GrantID: "b", ClientID: "c1",
			Tokens: []revoked.TokenRegistration{{Digest: revoked.DigestToken("bound"), Kind: revoked.AccessToken,
				CNF: []byte(`{"jkt":"x"}`)}}}}); err != nil {
			t.Fatal(err)
		}
		if row.call.method == "" {
			row.call.method = "GET"
		}
		row.call.path = "/v1/check" + row.call.path
		w := b.do(row.call)
		if w.Code != row.status || w.Header().Get("WWW-Authenticate") != row.challenge {
			t.Errorf("%s: got %d %q %s, want %d %q", row.id, w.Code, w.Header().Get("WWW-Authenticate"), w.Body, row.status,
				row.challenge)
		}
		if w.Header().Get("Cache-Control") != "no-store" {
			t.Errorf("%s: got Cache-Control %q, want no-store", row.id, w.Header().Get("Cache-Control"))
		}
		for _, name := range []string{"Revoked-Subject", "Revoked-Client-Id", "Revoked-Scope"} {
			if v := w.Header()[name]; len(v) != 1 || w.Code != 200 && v[0] != "" {
				t.Errorf("%s: got %s %q, want it once, and empty in a refusal", row.id, name, v)
			}
		}
		if h := w.Header(); w.Code == 200 && (h.Get("Revoked-Subject") != "alice" || h.Get("Revoked-Client-Id") != "c1" ||
			h.Get("Revoked-Scope") != "read write") {
			t.Errorf("%s: got headers %v, want those of AT1", row.id, h)
		}
	}
}

// networks returns check networks from pairs of a network and its audience ("": none).
func networks(pairs ...string) map[netip.Prefix][]string {
	m := map[netip.Prefix][]string{}
	for i := 0; i < len(pairs); i += 2 {
		n := netip.MustParsePrefix(pairs[i])
		if m[n] = append(m[n], pairs[i+1]); pairs[i+1] == "" {
			m[n] = nil
		}
	}
	return m
}

// A network sees the same tokens as a resource server with the audiences of its longest prefix.
func TestCheck_Network_SeesItsAudiences(t *testing.T) {
	b := newBench(t, func(c *api.Config) {
		c.CheckNetworks = networks("10.0.0.0/8", "a", "10.1.0.0/16", "*", "10.2.0.0/16", "", "10.3.0.0/16", "b",
			"10.3.0.0/16", "c", "10.3.3.3/32", "a", "::/0", "b", "fd00::/8", "a")
	})
	iss, _ := b.node.Client("iss")
	for token, audience := range map[string][]string{"none": nil, "a": {"a"}, "b": {"b"}, "ab": {"a", "b"}, "*": {"*"}} {
		if _, err := b.node.Register(t.Context(), revoked.ActorOf(iss), []revoked.Registration{{GrantID: token,
			ClientID: "c1", Audience: audience, Tokens: []revoked.TokenRegistration{
				{Digest: revoked.DigestToken("AT-" + token), Kind: revoked.AccessToken},
				{Digest: revoked.DigestToken("RT-" + token), Kind: revoked.RefreshToken}}}}); err != nil {
			t.Fatal(err)
		}
	}
	ask := func(remote, token string) int {
		return b.do(call{method: "GET", path: "/v1/check", remote: remote, auth: "Bearer " + token}).Code
	}
	for _, row := range []struct{ what, remote, passes string }{
		{"one audience", "10.9.9.9:1", "none a ab"},
		{"every audience", "10.1.0.1:1", "none a b ab *"},
		{"no audience", "10.2.0.1:1", "none"},
		{"two audiences", "10.3.0.1:1", "none b ab"},
		{"an address in two networks", "10.3.3.3:1", "none a ab"},
		{"an IPv4 address on an IPv6 socket", "[::ffff:10.1.0.1]:1", "none a b ab *"},
		{"every IPv6 address", "[2001:db8::1]:1", "none b ab"},
		{"a longer IPv6 prefix", "[fd00::1]:1", "none a ab"},
		{"an IPv6 address with a zone", "[fe80::1%eth0]:1", "none b ab"},
	} {
		for _, token := range []string{"none", "a", "b", "ab", "*"} {
			want := 401
			if slices.Contains(strings.Fields(row.passes), token) {
				want = 200
			}
			if got := ask(row.remote, "AT-"+token); got != want {
				t.Errorf("%s, audience %s: got %d, want %d", row.what, token, got, want)
			}
			if got := ask(row.remote, "RT-"+token); got != 401 {
				t.Errorf("%s, refresh token: got %d, want 401", row.what, got)
			}
		}
	}
	for _, remote := range []string{"192.0.2.1:1", "[::ffff:192.0.2.1]:1", "@", ""} {
		if got := ask(remote, "AT-none"); got != 403 {
			t.Errorf("%q, outside all networks: got %d, want 403", remote, got)
		}
	}
	b.node.onStatus = func(context.Context, revoked.Digest) error { return revoked.ErrNotCurrent }
	for token, want := range map[string]int{"a": 503, "b": 401} { // 401 without a read barrier, as for a resource server
		if got := ask("10.9.9.9:1", "AT-"+token); got != want {
			t.Errorf("not current, audience %s: got %d, want %d", token, got, want)
		}
	}
}

// A gateway passes on the method of the user's request.
func TestCheck_AnyMethod_IsServed(t *testing.T) {
	b := newBench(t)
	for _, method := range []string{"GET", "HEAD", "POST", "OPTIONS", "TRACE", "PROPFIND", "REPORT", "MKCOL", "SEARCH",
		"LOCK", "QUERY", "PURGE", "FOO"} {
		for _, path := range []string{"/v1/check", "/v1/check/", "/v1/check/some/path"} {
			ask := func(token string) int {
				return b.do(call{method: method, path: path, contentType: "-", auth: "Bearer " + token,
					header: http.Header{"Revoked-Authorization": {as("rs1")}}}).Code
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
			t.Errorf("%s /livez: got %d, Allow %q, want 405 with Allow", method, w.Code, w.Header().Get("Allow"))
		}
	}
}

func TestCheck_NoReadBarrier_Is503(t *testing.T) {
	b := newBench(t, func(c *api.Config) { c.MissesPerSecond = 1 })
	ask := func(token string) int {
		w := b.do(call{method: "GET", path: "/v1/check", auth: "Bearer " + token,
			header: http.Header{"Revoked-Authorization": {as("rs1")}}})
		if w.Code == 503 && w.Header().Get("Retry-After") == "" {
			t.Error("got 503 without Retry-After, want one")
		}
		return w.Code
	}
	if a, b := ask("x1"), ask("x2"); a != 401 || b != 503 {
		t.Errorf("over the limit of misses: got %d, %d, want 401, 503", a, b)
	}
	b.node.onStatus = func(context.Context, revoked.Digest) error { return revoked.ErrNotCurrent }
	if got := ask("AT1"); got != 503 {
		t.Errorf("no read barrier: got %d, want 503", got)
	}
}

// A value that a gateway could not pass on unchanged is empty, never absent and never shortened.
func TestCheck_Headers_AreWholeOrEmpty(t *testing.T) {
	b := newBench(t)
	for i, row := range []struct {
		subject, want string
	}{
		{"alice", "alice"}, {"alice smith", "alice smith"}, {"", ""},
		{"evil\r\nX-Admin: 1", ""}, {"evil\nX-Admin: 1", ""}, {"\x00", ""}, {"tab\tbed", ""}, {"del\x7f", ""}, {"zoë", ""},
		{"alice ", ""}, {" alice", ""}, {" ", ""},
	} {
		b.node.editRecord = func(r *revoked.Record) {
			r.Grant.Subject, r.Grant.ClientID, r.Token.Scope = row.subject, row.subject, row.subject
		}
		w := b.do(call{method: "GET", path: "/v1/check", auth: "Bearer AT1",
			header: http.Header{"Revoked-Authorization": {as("rs1")}}})
		for _, name := range []string{"Revoked-Subject", "Revoked-Client-Id", "Revoked-Scope"} {
			if got := w.Header()[name]; w.Code != 200 || len(got) != 1 || got[0] != row.want {
				t.Errorf("%d, %q: got %d, %s %q, want 200 and %q", i, row.subject, w.Code, name, got, row.want)
			}
		}
	}
}

// A gateway without valid credentials is logged and counted, because users only see a refusal.
func TestCheck_UnknownGateway_IsCounted(t *testing.T) {
	for name, values := range map[string][]string{
		"wrong": {basic("rs1", "wrong")}, "missing": nil, "repeated": {as("rs1"), as("rs1")}, "without the role": {as("c1")},
	} {
		b := newBench(t)
		b.do(call{method: "GET", path: "/v1/check", auth: "Bearer AT1",
			header: http.Header{"Revoked-Authorization": values}})
		page := b.do(call{method: "GET", path: "/metrics"}).Body.String()
		if !strings.Contains(page, `revoked_api_checks_total{result="gateway"} 1`) {
			t.Errorf("%s: got no check of result gateway, want 1", name)
		}
		if log := b.log.String(); !strings.Contains(log, `"level":"WARN"`) || !strings.Contains(log, `"outcome":"gateway"`) ||
			strings.Contains(log, "wrong") {
			t.Errorf("%s: got log %s, want a warning of outcome gateway without the secret", name, log)
		}
	}
}
