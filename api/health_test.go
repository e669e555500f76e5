package api_test

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
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
				t.Errorf("%s: 503 without Retry-After", row.path)
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

func TestMetrics_EachCounter_Moves(t *testing.T) {
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
		t.Errorf("in flight: got %v within and %v after, want 1 and 0", inFlight, b.value(t, "in_flight_requests"))
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
			t.Errorf("%q is logged: got %t, want %t", id, got, logged)
		}
	}
}

// A line that may be lost if the process is killed is neither that of a problem nor that of an
// administrator or an operator.
func TestLog_RequestLog_GetsOrdinaryLines(t *testing.T) {
	for name, tt := range map[string]struct {
		call   call
		fails  error // of the backend
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
			t.Errorf("got %s with %s in it", line, bad)
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
		t.Errorf("got %v requests of no route and %v of one, want 4 in all", none, known)
	}
}
