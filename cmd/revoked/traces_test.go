package main

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"revoked/cmd/revoked/internal/devcluster"
	"revoked/internal/await"
)

// A collector is an OTLP receiver in this process.
type collector struct {
	*httptest.Server
	mu       sync.Mutex
	requests int
	raw      []byte // all bodies, also as JSON
	spans    []collected
}

// A collected span has its ids in hexadecimal.
type collected struct {
	*tracepb.Span
	node, trace, id, parent string
}

func newCollector(t *testing.T) *collector {
	t.Helper()
	c := &collector{}
	c.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		var data tracepb.TracesData
		if err == nil {
			err = proto.Unmarshal(body, &data)
		}
		text, errJSON := protojson.Marshal(&data)
		if err != nil || errJSON != nil {
			t.Errorf("got %v, %v, want OTLP", err, errJSON)
		}
		c.mu.Lock()
		defer c.mu.Unlock()
		c.requests++
		c.raw = append(append(c.raw, body...), text...)
		for _, rs := range data.ResourceSpans {
			for _, ss := range rs.ScopeSpans {
				for _, s := range ss.Spans {
					c.spans = append(c.spans, collected{s, attribute(rs.Resource.Attributes, "service.instance.id"),
						hex.EncodeToString(s.TraceId), hex.EncodeToString(s.SpanId), hex.EncodeToString(s.ParentSpanId)})
				}
			}
		}
	}))
	t.Cleanup(c.Close)
	return c
}

// attribute returns the text of an attribute, or "" if it is absent.
func attribute(list []*commonpb.KeyValue, key string) string {
	for _, a := range list {
		if a.Key == key {
			if text, ok := a.Value.Value.(*commonpb.AnyValue_StringValue); ok {
				return text.StringValue
			}
			return protojson.Format(a.Value)
		}
	}
	return ""
}

// spansOf returns the spans of a trace by name.
func (c *collector) spansOf(trace string) map[string]collected {
	c.mu.Lock()
	defer c.mu.Unlock()
	found := map[string]collected{}
	for _, s := range c.spans {
		if s.trace == trace {
			found[s.Name] = s
		}
	}
	return found
}

// stateOf returns the state of a node, such as "leader".
func stateOf(t *testing.T, c *devcluster.Cluster, n devcluster.Node) string {
	t.Helper()
	var status struct{ State string }
	_, body := callNode(t, c, n, "admin", http.MethodGet, "/v1/status", "")
	if err := json.Unmarshal(body, &status); err != nil {
		t.Fatal(err)
	}
	return status.State
}

// A revocation at a follower is one trace across two nodes. It continues the trace of the caller.
// No span has a secret.
func TestTraces_RevocationAtFollower_IsOneTrace(t *testing.T) {
	if testing.Short() {
		t.Skip("runs three nodes")
	}
	to := newCollector(t)
	dir := t.TempDir()
	p := startWith(t, []string{"REVOKED_HEARTBEAT_TIMEOUT=3s", "REVOKED_ELECTION_TIMEOUT=3s",
		"REVOKED_TRACES_ENDPOINT=" + to.URL, "REVOKED_TRACES_SAMPLE=1", "REVOKED_TRACES_NETWORKS=127.0.0.0/8"},
		"dev", "--dir", dir, "--api-port", strconv.Itoa(freeBase(t, 3)))
	p.readUntil(t, "Stop with Ctrl-C.")
	c := readDevFile(t, dir)
	secrets := filesOf(t, &c)
	sendTokens(t, &c, secrets)
	var follower devcluster.Node
	leader := ""
	for _, n := range c.Nodes {
		if stateOf(t, &c, n) == "leader" {
			leader = n.ID
		} else {
			follower = n
		}
	}
	const trace, caller = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
	secrets["the token"] = "canary-token-of-the-trace"
	revokeTraced(t, &c, follower, secrets["the token"], "00-"+trace+"-"+caller+"-01")
	await.Until(t, "all eight spans", func() bool { return len(to.spansOf(trace)) == 8 })
	spans := to.spansOf(trace)
	for name, want := range map[string]struct{ parent, node string }{
		"POST /oauth2/revoke": {caller, follower.ID},
		"authenticate":        {spans["POST /oauth2/revoke"].id, follower.ID},
		"propose":             {spans["POST /oauth2/revoke"].id, follower.ID},
		"forward":             {spans["propose"].id, follower.ID},
		"serve":               {spans["forward"].id, leader},
		"commit":              {spans["serve"].id, leader},
		"apply":               {spans["commit"].id, leader},
		"acknowledge":         {spans["serve"].id, leader},
	} {
		if got := spans[name]; got.parent != want.parent || got.node != want.node || got.id == "" {
			t.Errorf("%s: got parent %q of node %q, want %q of %q", name, got.parent, got.node, want.parent, want.node)
		}
	}
	for span, attrs := range map[string]map[string]string{
		"POST /oauth2/revoke": {"http.route": "/oauth2/revoke", "http.request.method": "POST",
			"http.response.status_code": `{"intValue":"200"}`},
		"serve": {"revoked.via": follower.ID},
	} {
		for key, want := range attrs {
			if got := strings.Join(strings.Fields(attribute(spans[span].Attributes, key)), ""); got != want {
				t.Errorf("%s: got %s %q, want %q", span, key, got, want)
			}
		}
	}
	for span, key := range map[string]string{"propose": "revoked.index", "acknowledge": "revoked.waited_for",
		"commit": "revoked.term"} {
		if attribute(spans[span].Attributes, key) == "" {
			t.Errorf("%s: got no %s, want one", span, key)
		}
	}
	if err := p.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	_ = p.wait(t)
	to.mu.Lock()
	defer to.mu.Unlock()
	searchSecrets(t, secrets, to.raw)
	for _, name := range []string{"subject-of-the-trace", `"admin"`, "resource_server"} {
		if strings.Contains(string(to.raw), name) {
			t.Errorf("got %s in the spans, want no client and no subject", name)
		}
	}
	t.Logf("searched %d spans for %d secrets", len(to.spans), len(secrets))
}

// revokeTraced registers a token, and revokes it at a node as part of a trace.
func revokeTraced(t *testing.T, c *devcluster.Cluster, n devcluster.Node, token, traceparent string) {
	t.Helper()
	body := fmt.Sprintf(`{"client_id":"app","subject":"subject-of-the-trace","access_token":{"token":%q}}`, token)
	got, _ := callNode(t, c, n, "issuer", http.MethodPost, "/v1/grants", body, "Content-Type", "application/json")
	if got != http.StatusCreated {
		t.Fatalf("register: got %d, want 201", got)
	}
	got, _ = callNode(t, c, n, "admin", http.MethodPost, "/oauth2/revoke", "token="+url.QueryEscape(token),
		"Content-Type", "application/x-www-form-urlencoded", "traceparent", traceparent)
	if got != http.StatusOK {
		t.Fatalf("revoke: got %d, want 200", got)
	}
}

// Without traces_endpoint, a node does not connect to a collector, even if variables of
// OpenTelemetry are set. It warns that these variables have no effect.
func TestTraces_NoEndpoint_ConnectsNowhere(t *testing.T) {
	if testing.Short() {
		t.Skip("runs a node")
	}
	to := newCollector(t)
	c, _ := oneNode(t)
	p := startWith(t, []string{"OTEL_EXPORTER_OTLP_ENDPOINT=" + to.URL, "OTEL_TRACES_SAMPLER=always_on",
		"OTEL_TRACES_EXPORTER=otlp"}, "server", "--config", c.Nodes[0].Config)
	awaitReady(t, p, &c)
	revokeTraced(t, &c, c.Nodes[0], "a-token", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := p.wait(t); err != nil {
		t.Errorf("got %v, want exit code 0", err)
	}
	if to.requests != 0 {
		t.Errorf("got %d requests at the collector, want none", to.requests)
	}
	if !strings.Contains(p.stderr.String(), "OTEL_EXPORTER_OTLP_ENDPOINT has no effect") {
		t.Errorf("got log %s, want a warning about the variable", p.stderr)
	}
}
