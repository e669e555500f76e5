package api_test

import (
	"net/http"
	"strings"
	"testing"

	"revoked/api"
)

func TestCORS_OriginAndPath_DecideHeaders(t *testing.T) {
	on := func(c *api.Config) { c.CORSOrigins = []string{"https://app.example"} }
	any := func(c *api.Config) { c.CORSOrigins = []string{"*"} }
	origin := func(o string) http.Header { return http.Header{"Origin": {o}} }
	preflight := func(o string) http.Header {
		return http.Header{"Origin": {o}, "Access-Control-Request-Method": {"POST"},
			"Access-Control-Request-Headers": {"authorization"}}
	}
	for _, row := range []struct {
		id     string
		change func(*api.Config)
		call   call
		status int
		allow  string
	}{
		{"TM-10 a preflight, CORS off", func(*api.Config) {},
			call{method: "OPTIONS", path: pathRevoke, header: preflight("https://app.example")}, 405, ""},
		{"TM-11 a preflight of a configured origin", on,
			call{method: "OPTIONS", path: pathRevoke, header: preflight("https://app.example")}, 204, "https://app.example"},
		{"TM-12 a request", on, call{path: pathRevoke, auth: as("c1"), body: "token=x",
			header: origin("https://app.example")}, 200, "https://app.example"},
		{"TM-12 a request that fails", on, call{path: pathRevoke, body: "token=x", header: origin("https://app.example")},
			401, "https://app.example"},
		{"TM-12 a body above the limit", on, call{path: pathRevoke, body: strings.Repeat("x", 20000),
			header: origin("https://app.example")}, 413, "https://app.example"},
		{"TM-12 a wrong method", on, call{method: "PUT", path: pathRevoke, header: origin("https://app.example")}, 405,
			"https://app.example"},
		{"TM-13 another origin", on, call{path: pathRevoke, auth: as("c1"), body: "token=x",
			header: origin("https://evil.example")}, 200, ""},
		{"TM-13 a preflight of another origin", on,
			call{method: "OPTIONS", path: pathRevoke, header: preflight("https://evil.example")}, 405, ""},
		{"any origin", any, call{path: pathIntrospect, auth: as("rs1"), body: "token=x",
			header: origin("https://x.example")}, 200, "*"},
		{"MD-12 the metadata", on, call{method: "GET", path: "/.well-known/oauth-authorization-server",
			header: origin("https://app.example")}, 200, "https://app.example"},
		{"not under /v1", on, call{method: "OPTIONS", path: "/v1/clients", header: preflight("https://app.example")}, 204,
			""},
		{"not on an unknown path", on, call{method: "OPTIONS", path: "/oauth2/nope",
			header: preflight("https://app.example")}, 404, ""},
		{"not over plain HTTP", on, call{plain: true, method: "OPTIONS", path: pathRevoke,
			header: preflight("https://app.example")}, 400, "https://app.example"},
	} {
		b := newBench(t, row.change)
		w := b.do(row.call)
		h := w.Header()
		if w.Code != row.status || h.Get("Access-Control-Allow-Origin") != row.allow {
			t.Errorf("%s: got %d, Access-Control-Allow-Origin %q, want %d, %q", row.id, w.Code,
				h.Get("Access-Control-Allow-Origin"), row.status, row.allow)
		}
		if h.Get("Access-Control-Allow-Credentials") != "" {
			t.Errorf("%s: got credentials mode, want none", row.id)
		}
		if row.allow == "" {
			for k := range h {
				if strings.HasPrefix(k, "Access-Control-") {
					t.Errorf("%s: got %s, want no CORS header", row.id, k)
				}
			}
			continue
		}
		if h.Get("Vary") != "Origin" || h.Get("Access-Control-Expose-Headers") != "Retry-After, WWW-Authenticate" {
			t.Errorf("%s: got %v, want Vary and the exposed headers", row.id, h)
		}
		if w.Code == 204 && (h.Get("Access-Control-Allow-Methods") != "POST" ||
			h.Get("Access-Control-Allow-Headers") != "authorization, content-type") {
			t.Errorf("%s: got %v, want the allowed method and headers", row.id, h)
		}
	}
}
