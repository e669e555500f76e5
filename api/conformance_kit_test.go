package api_test

import (
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"revoked"
	"revoked/api"
	"revoked/node"
	"revoked/node/nodetest"
)

// The conformance tables run before three whole nodes, through a node that follows. What every answer
// must keep (GA-1 to GA-8) is checked on each, and so is the state of every token, on every node.

// rawMark begins every raw token, and secretMark every secret of these tests: neither may be found in a
// log, a metric or a file.
const (
	rawMark    = "raw~"
	secretMark = "Secret-of-"
)

// secretFor returns the secret of a client of a stage. It has 32 bytes and more, but for the weak one of
// client C3 of the tables.
func secretFor(id string) string {
	if id == "cl:ient" {
		return "s%c+r t"
	}
	return secretMark + id + "-0123456789abcdefghijklmn"
}

// A stage is a cluster of three nodes with the clients of the tables:
// c1, c2 and cl:ient (C3) are confidential, pub1 (CP) and pub2 public, of which pub2 may revoke, cd (CD) is
// disabled, rs1 and rs2 are resource servers, adm (ADM) is an administrator, iss and iss2 are issuers.
type stage struct {
	*nodetest.Cluster
	clock *movableClock
	spy   *logSpy
	http1 *http.Client
}

// A movableClock is the wall clock of all nodes.
type movableClock struct{ ahead atomic.Int64 }

func (c *movableClock) now() time.Time          { return time.Now().Add(time.Duration(c.ahead.Load())) }
func (c *movableClock) forward(d time.Duration) { c.ahead.Add(int64(d)) }

// A logSpy is where the nodes log. It keeps the lines that hold what no line may.
type logSpy struct {
	mu    sync.Mutex
	found []string
	lines int
}

func (s *logSpy) Write(p []byte) (int, error) {
	line := string(p)
	if os.Getenv("NODETEST_LOG") != "" {
		fmt.Fprint(os.Stderr, line)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lines++
	if strings.Contains(line, rawMark) || strings.Contains(line, secretMark) || strings.Contains(line, "Basic ") {
		s.found = append(s.found, line)
	}
	return len(p), nil
}

// check fails the test when a line held a token or a secret.
func (s *logSpy) check(t *testing.T) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, line := range s.found {
		t.Errorf("the log holds a token or a secret: %s", line)
	}
	if s.lines == 0 {
		t.Error("nothing was logged: the check is blind")
	}
}

func stageClients() []revoked.Client {
	make := func(id string, roles ...revoked.Role) revoked.Client {
		return revoked.Client{ID: id, Type: revoked.Confidential, Roles: roles, Secrets: []revoked.SecretHash{api.HashSecret(secretFor(id))},
			AuthMethods: []string{revoked.AuthBasic, revoked.AuthPost}}
	}
	disabled, basicOnly, postOnly := make("cd"), make("basic-only"), make("post-only")
	disabled.Disabled = true
	basicOnly.AuthMethods = []string{revoked.AuthBasic}
	postOnly.AuthMethods = []string{revoked.AuthPost}
	limited := make("iss2", revoked.RoleIssuer)
	limited.Issuers = []string{"https://as2.example"}
	return []revoked.Client{
		make("c1"), make("c2"), make("cl:ient"), disabled, basicOnly, postOnly,
		{ID: "pub1", Type: revoked.Public}, {ID: "pub2", Type: revoked.Public, AllowPublicRevocation: true},
		make("rs1", revoked.RoleResourceServer), make("rs2", revoked.RoleResourceServer), make("adm", revoked.RoleAdmin),
		make("iss", revoked.RoleIssuer), limited,
	}
}

// newStage starts a cluster; change may alter the configuration of its APIs.
func newStage(t *testing.T, change ...func(*api.Config)) *stage {
	t.Helper()
	s := &stage{clock: new(movableClock), spy: new(logSpy)}
	s.Cluster = nodetest.Start(t, nodetest.Options{
		Clients: stageClients(),
		Log:     slog.NewTextHandler(s.spy, &slog.HandlerOptions{Level: slog.LevelDebug}),
		Node: func(_ int, c *node.Config) {
			c.Now = s.clock.now
			// Elections are the cluster table's to start: not a busy machine's.
			c.HeartbeatTimeout, c.ElectionTimeout = time.Second, time.Second
		},
		API: func(_ int, c *api.Config) {
			c.Now = s.clock.now
			c.AuthFailuresPerMinute, c.MissesPerSecond = 100_000, 100_000
			for _, f := range change {
				f(c)
			}
		},
	})
	pool := s.HTTP.Transport.(*http.Transport).TLSClientConfig.RootCAs
	s.http1 = &http.Client{Timeout: nodetest.LongStop, CheckRedirect: s.HTTP.CheckRedirect,
		Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool, NextProtos: []string{"http/1.1"}}, MaxIdleConnsPerHost: 16}}
	t.Cleanup(s.http1.CloseIdleConnections)
	t.Cleanup(func() { s.spy.check(t) })
	return s
}

// alive returns the members that run.
func (s *stage) alive() []*nodetest.Member {
	var out []*nodetest.Member
	for _, m := range s.Members {
		if m.Node != nil {
			out = append(out, m)
		}
	}
	return out
}

// An ask is one request. {AT1} in its parts stands for the token of that name, {secret:c1} for a secret.
type ask struct {
	method      string // POST
	path        string // behind the endpoint's own
	who         string // authenticates by Basic; empty: see auth
	auth        string // the Authorization header as it is
	body        string
	contentType string // form-encoded; "-": none
	header      http.Header
	plain       bool // plain HTTP
}

func expand(text string, tokens map[string]string) string {
	if !strings.Contains(text, "{") {
		return text
	}
	for name, raw := range tokens {
		text = strings.ReplaceAll(text, "{"+name+"}", raw)
	}
	for {
		before, rest, found := strings.Cut(text, "{secret:")
		if !found {
			return text
		}
		id, after, _ := strings.Cut(rest, "}")
		text = before + url.QueryEscape(secretFor(id)) + after
	}
}

// send sends a request to a member by client.
func (s *stage) send(t *testing.T, client *http.Client, m *nodetest.Member, path string, a ask, tokens map[string]string) nodetest.Reply {
	t.Helper()
	method := a.method
	if method == "" {
		method = http.MethodPost
	}
	base := m.URL
	if a.plain {
		base = "http://" + strings.TrimPrefix(base, "https://")
	}
	body := expand(a.body, tokens)
	var r io.Reader
	if body != "" || method == http.MethodPost {
		r = strings.NewReader(body)
	}
	req, err := http.NewRequest(method, base+path+expand(a.path, tokens), r)
	if err != nil {
		t.Fatal(err)
	}
	for k, v := range a.header {
		req.Header[k] = v
	}
	switch {
	case a.contentType == "-":
	case a.contentType != "":
		req.Header.Set("Content-Type", a.contentType)
	case r != nil:
		req.Header.Set("Content-Type", formType)
	}
	if a.who != "" {
		req.SetBasicAuth(url.QueryEscape(a.who), url.QueryEscape(secretFor(a.who)))
	} else if a.auth != "" {
		req.Header.Set("Authorization", expand(a.auth, tokens))
	}
	return do(t, client, req)
}

func do(t *testing.T, client *http.Client, req *http.Request) nodetest.Reply {
	t.Helper()
	resp, err := client.Do(req)
	if err != nil {
		t.Fatalf("%s: %v", req.Method, err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("%s %s: read the answer: %v", req.Method, req.URL.Path, err)
	}
	return nodetest.Reply{Status: resp.StatusCode, Header: resp.Header, Body: string(b)}
}

// A world is a fresh set of the tokens of section 6.1 of the tables: the pairs (AT1, RT1) of c1 and (AT2,
// RT2) of c2, AT3 of c1 without a refresh token, the grant G of c1 with ATa, ATb, ATc, the rotated RTg0 and
// RTg1 and the live RTg, the pairs (ATp, RTp) and (ATq, RTq) of the public clients, (ATd, RTd) of cd.
type world struct {
	s      *stage
	tokens map[string]string
	grants map[string]string
	iat    int64
	exp    int64
}

var worlds atomic.Int64

// worldTokens are the names of all tokens of a world; those of dormant are inactive from the start.
var (
	worldTokens = []string{"AT1", "RT1", "AT2", "RT2", "AT3", "ATa", "ATb", "ATc", "RTg0", "RTg1", "RTg", "ATp", "RTp", "ATq", "RTq", "ATd", "RTd"}
	dormant     = []string{"RTg0", "RTg1", "ATd", "RTd"}
)

// world registers fresh tokens through the member.
func (s *stage) world(t *testing.T, m *nodetest.Member) *world {
	t.Helper()
	n := worlds.Add(1)
	now := s.clock.now().Unix()
	w := &world{s: s, tokens: make(map[string]string), grants: make(map[string]string), iat: now - 60, exp: now + 3600}
	for _, name := range worldTokens {
		w.tokens[name] = fmt.Sprintf("%s%s.%d~%d", rawMark, name, n, now)
	}
	w.tokens["AT1-tail"] = strings.TrimPrefix(w.tokens["AT1"], rawMark[:1])
	var lines strings.Builder
	add := func(grant, client, access, refresh string, iat int64) {
		w.grants[grant] = fmt.Sprintf("%s.%d", grant, n)
		line := map[string]any{"grant_id": w.grants[grant], "client_id": client, "subject": fmt.Sprintf("alice.%d", n), "session": fmt.Sprintf("s.%d", n),
			"username": "alice@example.org", "issuer": "https://as.example", "scope": "read write", "audience": []string{"rs1"}}
		if access != "" {
			line["access_token"] = map[string]any{"token": w.tokens[access], "issued_at": iat, "expires_at": w.exp, "jti": access}
		}
		if refresh != "" {
			line["refresh_token"] = map[string]any{"token": w.tokens[refresh], "issued_at": iat, "expires_at": w.exp + 3600}
		}
		b, err := json.Marshal(line)
		if err != nil {
			t.Fatal(err)
		}
		lines.Write(append(b, '\n'))
	}
	add("g1", "c1", "AT1", "RT1", w.iat)
	add("g2", "c2", "AT2", "RT2", w.iat)
	add("g3", "c1", "AT3", "", w.iat)
	add("G", "c1", "ATa", "RTg0", w.iat-2)
	add("G", "c1", "ATb", "RTg1", w.iat-1)
	add("G", "c1", "ATc", "RTg", w.iat)
	add("gp", "pub1", "ATp", "RTp", w.iat)
	add("gq", "pub2", "ATq", "RTq", w.iat)
	add("gd", "cd", "ATd", "RTd", w.iat)
	r := s.send(t, s.HTTP, m, "/v1/grants?results=errors", ask{who: "iss", body: lines.String(), contentType: "application/x-ndjson"}, nil)
	if want := `{"registered":9,"known":0,"revoked":0,"failed":0,"lines":9}` + "\n"; r.Status != 200 || r.Body != want {
		t.Fatalf("register: got %d %s, want 200 %s", r.Status, r.Body, want)
	}
	return w
}

// active asks one node whether a token is active, as a caller that may see it: rs1 for access tokens, the
// administrator for refresh tokens.
func (s *stage) active(t *testing.T, m *nodetest.Member, token string, refresh bool) bool {
	t.Helper()
	who := "rs1"
	if refresh {
		who = "adm"
	}
	r := s.send(t, s.HTTP, m, pathIntrospect, ask{who: who, body: "token=" + url.QueryEscape(token)}, nil)
	switch {
	case r.Status == 200 && r.Body == `{"active":false}`:
		return false
	case r.Status == 200 && strings.HasPrefix(r.Body, `{"active":true,`):
		return true
	}
	t.Errorf("introspect on %s: got %d %s, want 200", m.ID, r.Status, r.Body)
	return false
}

func isRefresh(name string) bool { return strings.HasPrefix(name, "RT") }

// check asks every running node about every token: those named in dead must be inactive, and no others.
func (w *world) check(t *testing.T, dead string) {
	t.Helper()
	names := strings.Fields(dead)
	for _, name := range names {
		if !slices.Contains(worldTokens, name) {
			t.Errorf("no token is named %q", name)
		}
	}
	var all sync.WaitGroup
	for _, m := range w.s.alive() {
		all.Go(func() {
			for _, name := range worldTokens {
				want := !slices.Contains(names, name) && !slices.Contains(dormant, name)
				if got := w.s.active(t, m, w.tokens[name], isRefresh(name)); got != want {
					t.Errorf("GA-8 %s on %s: active: got %t, want %t", name, m.ID, got, want)
				}
			}
		})
	}
	all.Wait()
}

// keeps checks what holds for every answer of an OAuth endpoint (GA-1 to GA-7).
func keeps(t *testing.T, r nodetest.Reply) {
	t.Helper()
	keepsHeaders(t, r)
	if r.Status >= 400 {
		var body struct {
			Error       *string `json:"error"`
			Description string  `json:"error_description"`
		}
		if err := json.Unmarshal([]byte(r.Body), &body); err != nil || body.Error == nil || *body.Error == "" {
			t.Errorf("GA-2: got body %s (%v)", r.Body, err)
		}
		for _, c := range []byte(body.Description) {
			if c < 0x20 || c > 0x7e || c == '"' || c == '\\' {
				t.Errorf("GA-2: error_description holds %q", c)
			}
		}
		if strings.Contains(r.Body, rawMark) || strings.Contains(r.Body, secretMark) {
			t.Errorf("the error repeats what was sent: %s", r.Body)
		}
	}
}

// keepsHeaders is keeps for the answer to HEAD, which has no body.
func keepsHeaders(t *testing.T, r nodetest.Reply) {
	t.Helper()
	h := r.Header
	if h.Get("Cache-Control") != "no-store" || h.Get("Pragma") != "no-cache" {
		t.Errorf("GA-1: got Cache-Control %q, Pragma %q", h.Get("Cache-Control"), h.Get("Pragma"))
	}
	if h.Get("Content-Type") != "application/json" {
		t.Errorf("GA-2: got Content-Type %q", h.Get("Content-Type"))
	}
	switch r.Status {
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
	if r.Status >= 300 && r.Status < 400 {
		t.Errorf("GA-6: got a redirect, %d", r.Status)
	}
	if h.Get("X-Content-Type-Options") != "nosniff" || h.Get("Server") != "" {
		t.Errorf("GA-7: got nosniff %q, Server %q", h.Get("X-Content-Type-Options"), h.Get("Server"))
	}
}

// sameAnswer fails the test unless two answers are alike, but for what a connection adds.
func sameAnswer(t *testing.T, what string, a, b nodetest.Reply) {
	t.Helper()
	strip := func(h http.Header) http.Header {
		h = h.Clone()
		for _, k := range []string{"Date", "Connection"} {
			h.Del(k)
		}
		return h
	}
	if a.Status != b.Status || a.Body != b.Body || !reflect.DeepEqual(strip(a.Header), strip(b.Header)) {
		t.Errorf("%s: got %d %v %s and %d %v %s, want equal answers", what, a.Status, a.Header, a.Body, b.Status, b.Header, b.Body)
	}
}

// basicOf returns a Basic header of exactly these bytes.
func basicOf(pair string) string { return "Basic " + base64.StdEncoding.EncodeToString([]byte(pair)) }

// until waits for ok, looking often.
func (s *stage) until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	stop := time.After(nodetest.LongStop)
	for !ok() {
		select {
		case <-tick.C:
		case <-stop:
			t.Fatalf("waited %v in vain until %s", nodetest.LongStop, what)
		}
	}
}

// forward moves the clock of all nodes, and waits until they have leases again and the time of the log
// has followed: a token that is registered without issued_at tells what time it is there.
func (s *stage) forward(t *testing.T, d time.Duration) {
	t.Helper()
	s.clock.forward(d)
	s.until(t, "all nodes answer after the clock moved", func() bool {
		for _, m := range s.alive() {
			if !m.Node.Readiness(context.Background()).CanAnswer {
				return false
			}
		}
		return true
	})
	s.until(t, "the time of the log has followed", func() bool {
		token := fresh("probe")
		m := s.Follower()
		r := s.json(t, m, http.MethodPost, "/v1/grants", "iss", `{"client_id":"c1","access_token":{"token":"`+token+`"}}`)
		if r.Status != http.StatusCreated {
			return false
		}
		r = s.send(t, s.HTTP, m, pathIntrospect, ask{who: "c1", body: "token=" + token}, nil)
		s.revoke(t, "c1", token)
		var got struct {
			IssuedAt int64 `json:"iat"`
		}
		return json.Unmarshal([]byte(r.Body), &got) == nil && got.IssuedAt >= s.clock.now().Unix()-10
	})
}

// withCORS is what TM-12 wants of an answer to a configured origin.
func withCORS(t *testing.T, _ *world, _ *nodetest.Member, r nodetest.Reply) {
	t.Helper()
	h := r.Header
	if h.Get("Access-Control-Allow-Origin") != appOrigin || h.Get("Access-Control-Allow-Credentials") != "" {
		t.Errorf("got Allow-Origin %q, Allow-Credentials %q", h.Get("Access-Control-Allow-Origin"), h.Get("Access-Control-Allow-Credentials"))
	}
	exposed := h.Get("Access-Control-Expose-Headers")
	if !strings.Contains(exposed, "Retry-After") || !strings.Contains(exposed, "WWW-Authenticate") || !strings.Contains(strings.Join(h.Values("Vary"), ","), "Origin") {
		t.Errorf("got Expose-Headers %q, Vary %q", exposed, h.Values("Vary"))
	}
}
