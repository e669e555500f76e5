package api_test

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/netip"
	"runtime/trace"
	"strings"
	"testing"

	dto "github.com/prometheus/client_model/go"

	"revoked"
	"revoked/api"
	"revoked/internal/await"
)

func TestHealth_Readiness_DecidesStatus(t *testing.T) {
	all := revoked.Readiness{CanAnswer: true, CanRevoke: true, Checks: []revoked.Check{{Name: "lease", OK: true}}}
	noLeader := revoked.Readiness{CanAnswer: true, Reasons: []string{"no leader is known"},
		Checks: []revoked.Check{{Name: "leader", Detail: "none"}}}
	lapsed := revoked.Readiness{Reasons: []string{"lapsed"}, Checks: []revoked.Check{{Name: "lease", Detail: "lapsed"}}}
	none := revoked.Readiness{}
	for _, row := range []struct {
		path   string
		state  revoked.Readiness
		status int
		body   string
	}{
		{"/livez", none, 200, "ok\n"},
		{"/readyz", all, 200, "ready\n"},
		{"/readyz", noLeader, 200, "ready\n"},
		{"/readyz?revoke", noLeader, 503, "not ready\n"},
		{"/readyz?verbose&revoke", noLeader, 503, "[-]leader failed: none\nno leader is known\nnot ready\n"},
		{"/readyz?verbose", lapsed, 503, "[-]lease failed: lapsed\nnot ready\n"}, // each reason once
		{"/readyz?revoke", all, 200, "ready\n"},
		{"/readyz?verbose", all, 200, "[+]lease ok\nready\n"},
		{"/readyz", none, 503, "not ready\n"},
	} {
		b := newBench(t)
		b.node.ready = row.state
		for name, h := range map[string]http.Handler{"API": b.api.Handler(), "metrics": b.api.MetricsHandler()} {
			w := serveCall(h, call{method: "GET", path: row.path, plain: name == "metrics"})
			if w.Code != row.status || w.Body.String() != row.body {
				t.Errorf("%s on the %s address: got %d %q, want %d %q", row.path, name, w.Code, w.Body, row.status, row.body)
			}
			if w.Code == 503 && w.Header().Get("Retry-After") == "" {
				t.Errorf("%s: got 503 without Retry-After, want one", row.path)
			}
		}
	}
}

func TestMetrics_Page_IsServed(t *testing.T) {
	b := newBench(t, func(c *api.Config) { c.MetricsOnAPI = false })
	if w := b.do(call{method: "GET", path: "/metrics"}); w.Code != 404 {
		t.Errorf("on the API address: got %d, want 404", w.Code)
	}
	w := serveCall(b.api.MetricsHandler(), call{method: "GET", path: "/metrics", plain: true})
	if w.Code != 200 || !strings.Contains(w.Body.String(), "revoked_api_requests_total") {
		t.Errorf("on its own address: got %d, want 200 and the metrics", w.Code)
	}
	if w := serveCall(b.api.MetricsHandler(), call{path: pathRevoke, auth: as("c1"), body: "token=AT1"}); w.Code != 404 {
		t.Errorf("OAuth on the metrics address: got %d, want 404", w.Code)
	}
}

// Contract 6: a caller in metrics_networks needs no credentials. Any other caller needs the role of
// a viewer. Both addresses behave the same.
func TestMetrics_Networks_DecideWhoAuthenticates(t *testing.T) {
	list := func(networks ...string) (out []netip.Prefix) {
		for _, n := range networks {
			out = append(out, netip.MustParsePrefix(n))
		}
		return out
	}
	const here, elsewhere, proxy = "192.0.2.7:4711", "198.51.100.7:4711", "203.0.113.1:4711"
	forwarded := func(addr string) http.Header { return http.Header{"X-Forwarded-For": {addr}} }
	for name, tt := range map[string]struct {
		networks []netip.Prefix
		call     call
		status   int
	}{
		"a network":                 {list("192.0.2.0/24"), call{remote: here}, 200},
		"all networks":              {list("0.0.0.0/0", "::/0"), call{remote: "[2001:db8::1]:4711"}, 200},
		"an IPv4 address as IPv6":   {list("192.0.2.0/24"), call{remote: "[::ffff:192.0.2.7]:4711"}, 200},
		"another address":           {list("192.0.2.0/24"), call{remote: elsewhere}, 401},
		"no network":                {list(), call{remote: here}, 401},
		"a wrong secret":            {list(), call{remote: here, auth: basic("eye", "wrong")}, 401},
		"a viewer":                  {list(), call{remote: here, auth: as("eye")}, 200},
		"an operator":               {list(), call{remote: here, auth: as("ops")}, 200},
		"an administrator":          {list(), call{remote: here, auth: as("admin")}, 200},
		"an auditor":                {list(), call{remote: here, auth: as("aud")}, 403},
		"a resource server":         {list(), call{remote: here, auth: as("rs1")}, 403},
		"a client without a role":   {list(), call{remote: here, auth: as("c1")}, 403},
		"behind a proxy":            {list("192.0.2.0/24"), call{remote: proxy, header: forwarded("192.0.2.7")}, 200},
		"elsewhere, behind a proxy": {list("203.0.113.0/24"), call{remote: proxy, header: forwarded("198.51.100.7")}, 401},
		"a forged header":           {list("192.0.2.0/24"), call{remote: elsewhere, header: forwarded("192.0.2.7")}, 401},
		"credentials are not read":  {list("192.0.2.0/24"), call{remote: here, auth: basic("eye", "wrong")}, 200},
	} {
		b := newBench(t, func(c *api.Config) {
			c.MetricsNetworks, c.TrustedProxies = tt.networks, list("203.0.113.1/32")
		})
		tt.call.method, tt.call.path = "GET", "/metrics"
		for address, h := range map[string]http.Handler{"API": b.api.Handler(), "metrics": b.api.MetricsHandler()} {
			tt.call.plain = address == "metrics"
			w := serveCall(h, tt.call)
			if w.Code != tt.status || (w.Code == 200) != strings.Contains(w.Body.String(), "revoked_api_") {
				t.Errorf("%s, at the %s address: got %d %.80s, want %d", name, address, w.Code, w.Body, tt.status)
			}
			if w.Code == 401 && w.Header().Get("WWW-Authenticate") == "" {
				t.Errorf("%s, at the %s address: got no challenge, want one", name, address)
			}
		}
	}
}

// Profiles are for administrators, only at the address of the metrics, and only if they are
// switched on.
func TestProfiles_MetricsAddress_RequireAdministrator(t *testing.T) {
	off := newBench(t).api.MetricsHandler()
	b := newBench(t, func(c *api.Config) { c.Profiles = true })
	on := b.api.MetricsHandler()
	const goroutines, gzip = "goroutine?debug=1", "\x1f\x8b"
	for _, tt := range []struct {
		what      string
		h         http.Handler
		who, path string
		status    int
		begins    string
	}{
		{"switched off", off, "admin", goroutines, 404, ""},
		{"at the API", b.api.Handler(), "admin", goroutines, 404, ""},
		{"a wrong secret", on, "nobody", goroutines, 401, ""},
		{"an operator", on, "ops", goroutines, 403, ""},
		{"a viewer", on, "eye", goroutines, 403, ""},
		{"goroutines as text", on, "admin", goroutines, 200, "goroutine profile:"},
		{"the heap", on, "admin", "heap", 200, gzip},
		{"the processor", on, "admin", "profile?seconds=1", 200, gzip},
		{"a trace", on, "admin", "trace?seconds=1", 200, "go 1."},
		{"the command line", on, "admin", "cmdline", 404, ""},
		{"a profile that is too long", on, "admin", "profile?seconds=61", 400, ""},
		{"an unknown debug format", on, "admin", "heap?debug=3", 400, ""},
	} {
		w := serveCall(tt.h, call{method: "GET", path: "/debug/pprof/" + tt.path, auth: as(tt.who)})
		if w.Code != tt.status || !strings.HasPrefix(w.Body.String(), tt.begins) {
			t.Errorf("%s: got %d %.60q, want %d and %q", tt.what, w.Code, w.Body, tt.status, tt.begins)
		}
	}
}

// Stacks in the format of a crash would show memory contents as arguments.
func TestProfiles_Stacks_HaveNoArguments(t *testing.T) {
	h := newBench(t, func(c *api.Config) { c.Profiles = true }).api.MetricsHandler()
	w := serveCall(h, call{method: "GET", path: "/debug/pprof/goroutine?debug=2", auth: as("admin")})
	if got := w.Body.String(); w.Code != 200 || !strings.Contains(got, "goroutine 1 [") ||
		!strings.Contains(got, "TestProfiles_Stacks_HaveNoArguments(...)\n\t") {
		t.Fatalf("got %d %.300s, want the stacks, this test in them", w.Code, got)
	}
	for line := range strings.Lines(w.Body.String()) {
		if line[0] != '\t' && strings.Contains(line, "0x") {
			t.Errorf("got %q, want no argument", line)
		}
	}
}

// Two profiles over a period would measure each other. So a second one is refused while the first
// runs.
func TestProfiles_SecondTimedProfile_IsRefused(t *testing.T) {
	h := newBench(t, func(c *api.Config) { c.Profiles = true }).api.MetricsHandler()
	get := func(path string) int {
		return serveCall(h, call{method: "GET", path: "/debug/pprof/" + path, auth: as("admin")}).Code
	}
	first := make(chan int, 1)
	go func() { first <- get("trace?seconds=5") }()
	await.Until(t, "the trace runs", trace.IsEnabled)
	if got := get("profile?seconds=1"); got != 409 {
		t.Errorf("while a trace runs: got %d, want 409", got)
	}
	if got := await.Receive(t, first, "the trace"); got != 200 {
		t.Errorf("the trace: got %d, want 200", got)
	}
}

// value returns a counter, a gauge, or the count of a histogram. labels are pairs of name and
// value.
func (b *bench) value(t *testing.T, name string, labels ...string) float64 {
	t.Helper()
	families, err := b.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	sum := 0.0
	for _, f := range families {
		if f.GetName() != "revoked_api_"+name {
			continue
		}
		for _, m := range f.GetMetric() {
			if has(m, labels) {
				sum += m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
			}
		}
	}
	return sum
}

func has(m *dto.Metric, labels []string) bool {
	for i := 0; i < len(labels); i += 2 {
		found := false
		for _, l := range m.GetLabel() {
			found = found || l.GetName() == labels[i] && l.GetValue() == labels[i+1]
		}
		if !found {
			return false
		}
	}
	return true
}

func TestMetrics_EachCounter_Increases(t *testing.T) {
	b := newBench(t, func(c *api.Config) { c.AuthFailuresPerMinute, c.MissesPerSecond = 1, 1 })
	inFlight := 0.0
	b.node.onRevoke = func(context.Context, revoked.Actor, revoked.Digest) error {
		inFlight = b.value(t, "in_flight_requests")
		return nil
	}
	gateway := http.Header{"Revoked-Authorization": {as("rs1")}}
	b.do(call{path: pathRevoke, auth: as("c1"), body: "token=AT1"})
	b.do(call{path: pathRevoke, auth: as("c1"), body: "token=AT2"})
	b.do(call{path: pathRevoke, auth: as("c1"), body: "token=unknown"})
	b.do(call{path: pathRevoke, auth: as("rs1"), body: "token=AT2"})
	b.do(call{path: pathRevoke, auth: as("c1")})
	b.do(call{path: pathRevoke, body: "token=AT1"})
	b.do(call{path: pathRevoke, auth: basic("c1", "wrong"), body: "token=AT1"})
	b.do(call{path: pathRevoke, auth: basic("c1", "wrong"), body: "token=AT1"})
	for _, token := range []string{"AT2", "AT1", "n1", "n2"} {
		b.do(call{path: pathIntrospect, auth: as("rs1"), body: "token=" + token})
	}
	b.do(call{method: "GET", path: "/v1/check", auth: "Bearer AT2", header: gateway})
	b.do(call{method: "GET", path: "/v1/check", auth: "Bearer AT1", header: gateway})
	b.node.onRevoke = func(context.Context, revoked.Actor, revoked.Digest) error { panic(errors.New("token=AT1")) }
	w := b.do(call{path: pathRevoke, auth: as("c1"), body: "token=AT1"})
	always(t, w)
	if w.Code != 500 || !strings.Contains(w.Body.String(), "server_error") {
		t.Errorf("a panic: got %d %s, want 500", w.Code, w.Body)
	}
	if strings.Contains(b.log.String(), "token=AT1") {
		t.Error("got the value of a panic in the log, want its type only")
	}
	if inFlight != 1 || b.value(t, "in_flight_requests") != 0 {
		t.Errorf("in flight: got %v during and %v after it, want 1 and 0", inFlight, b.value(t, "in_flight_requests"))
	}
	for _, row := range []struct {
		want   float64
		name   string
		labels []string
	}{
		{1, "requests_total", []string{"route", pathRevoke, "status", "200", "outcome", "revoked"}},
		{1, "requests_total", []string{"route", pathRevoke, "status", "400", "outcome", "foreign_token"}},
		{1, "requests_total", []string{"route", pathRevoke, "status", "429", "outcome", "throttled"}},
		{9, "request_duration_seconds", []string{"route", pathRevoke}},
		{1, "panics_total", nil},
		{1, "authentication_failures_total", []string{"kind", "none"}},
		{2, "authentication_failures_total", []string{"kind", "failed"}},
		{1, "throttled_total", []string{"budget", "authentication"}},
		{1, "throttled_total", []string{"budget", "misses"}},
		{1, "revocations_total", []string{"outcome", "revoked"}},
		{1, "revocations_total", []string{"outcome", "unknown"}},
		{1, "revocations_total", []string{"outcome", "foreign_token"}},
		{1, "revocations_total", []string{"outcome", "unauthorized_client"}},
		{1, "revocations_total", []string{"outcome", "no_token"}},
		{1, "introspections_total", []string{"result", "active"}},
		{1, "introspections_total", []string{"result", "inactive"}},
		{1, "introspections_total", []string{"result", "unknown"}},
		{1, "introspections_total", []string{"result", "error"}},
		{1, "checks_total", []string{"result", "active"}},
		{1, "checks_total", []string{"result", "inactive"}},
	} {
		if got := b.value(t, row.name, row.labels...); got != row.want {
			t.Errorf("%s%v: got %v, want %v", row.name, row.labels, got, row.want)
		}
	}
}

// The log shows the caller's id unless it may be a token: 64 hexadecimal digits may be one.
func TestLog_RequestID_IsHarmless(t *testing.T) {
	trace := strings.Repeat("0aF9", 8)
	for id, logged := range map[string]bool{
		"r-1": true, "A.b_c": true, strings.Repeat("x", 20): true, strings.Repeat("x", 21): false,
		"9f3b8c1e-0d2a-4e5f-8a7b-1c2d3e4f5a6b": true, "9f3b8c1e-0d2a-4e5f-8a7b1-c2d3e4f5a6b": false,
		trace: true, trace + "0": false, trace[1:]: false, trace + trace: false, "a b": false, "ä": false,
	} {
		b := newBench(t)
		b.do(call{path: pathRevoke, auth: as("c1"), body: "token=AT1", header: http.Header{"X-Request-Id": {id}}})
		if got := strings.Contains(b.log.String(), `"request_id":"`+id+`"`); got != logged {
			t.Errorf("%q: got logged %t, want %t", id, got, logged)
		}
	}
}

// A line about a problem, or about a call by an administrator or operator, must not be lost if the
// process is killed.
func TestRequestLog_OrdinaryLine_IsBuffered(t *testing.T) {
	for name, tt := range map[string]struct {
		call   call
		fails  error // error of the backend
		status int
		later  bool
	}{
		"a revocation":   {call{path: pathRevoke, auth: as("c1"), body: "token=AT1"}, nil, 200, true},
		"a wrong secret": {call{path: pathRevoke, auth: basic("c1", "wrong"), body: "token=AT1"}, nil, 401, true},
		"a failure of the server": {call{path: pathRevoke, auth: as("c1"), body: "token=AT1"},
			revoked.ErrNoLeader, 503, false},
		"an administrator":          {call{path: pathRevoke, auth: as("admin"), body: "token=AT1"}, nil, 200, false},
		"a refused administrator":   {call{path: pathRevoke, auth: as("admin")}, nil, 400, false},
		"an operator's status":      {call{method: "GET", path: "/v1/status", auth: as("ops")}, nil, 200, false},
		"a viewer's status":         {call{method: "GET", path: "/v1/status", auth: as("eye")}, nil, 200, true},
		"an administrator's status": {call{method: "GET", path: "/v1/status", auth: as("admin")}, nil, 200, false},
	} {
		t.Run(name, func(t *testing.T) {
			var requests await.Log
			b := newBench(t, func(c *api.Config) { c.RequestLog = slog.New(slog.NewJSONHandler(&requests, nil)) })
			b.node.onRevoke = func(context.Context, revoked.Actor, revoked.Digest) error { return tt.fails }
			if got := b.do(tt.call); got.Code != tt.status {
				t.Errorf("got %d, want %d", got.Code, tt.status)
			}
			now, later := strings.Count(b.log.String(), `"msg":"request"`), strings.Count(requests.String(), `"msg":"request"`)
			if now+later != 1 || (later == 1) != tt.later {
				t.Errorf("got %d lines now and %d later, want one, later %t", now, later, tt.later)
			}
		})
	}
}

func TestLog_Request_OneLineNoSecrets(t *testing.T) {
	b := newBench(t)
	b.do(call{path: pathRevoke + "?tenant=secret-query", auth: as("c1"), body: "token=AT1",
		header: http.Header{"X-Request-Id": {"r-1"}}})
	line := b.log.String()
	if strings.Count(line, "\n") != 1 {
		t.Fatalf("got %q, want one line", line)
	}
	for _, want := range []string{`"method":"POST"`, `"route":"/oauth2/revoke"`, `"status":200`, `"outcome":"revoked"`,
		`"client_id":"c1"`, `"request_id":"r-1"`, `"duration_seconds":`} {
		if !strings.Contains(line, want) {
			t.Errorf("got %s, want %s in it", line, want)
		}
	}
	for _, bad := range []string{"AT1", "secret-query", "c1-secret", "tenant"} {
		if strings.Contains(line, bad) {
			t.Errorf("got %s, want no %s in it", line, bad)
		}
	}
	b.do(call{method: "BREW", path: "/token-in-path", header: http.Header{"X-Request-Id": {"bad\nid"}}})
	b.do(call{method: "GET", path: "/v1/grants/some-id/token-in-path", auth: as("c1")})
	b.do(call{method: "PUT", path: "/v1/grants/token-in-path", auth: as("c1")})
	b.do(call{method: "GET", path: "/v1/grants/token-in-path", auth: as("admin")})
	b.do(call{method: "TOKEN-IN-PATH", path: "/v1/grants", auth: as("admin"),
		header: http.Header{"X-Request-Id": {"something-that-may-well-be-a-token-in-path"}}})
	if log := strings.ToLower(b.log.String()); strings.Contains(log, "bad\\nid") ||
		strings.Contains(log, "token-in-path") {
		t.Errorf("got log %s, want no input of the caller", b.log.String())
	}
	if none, known := b.value(t, "requests_total", "route", "none"),
		b.value(t, "requests_total", "route", "/v1/grants/:id"); none+known != 4 {
		t.Errorf("got %v requests without a route and %v with it, want 4 in total", none, known)
	}
}
