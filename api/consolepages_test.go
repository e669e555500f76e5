package api_test

import (
	"fmt"
	"html"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"revoked"
	"revoked/api"
	"revoked/fsm/command"
)

// A page that refreshes itself is not logged. A page that a user opens is logged with one line for
// each of its calls.
func TestConsole_Refresh_IsQuiet(t *testing.T) {
	b := consoleBench(t)
	p := b.signIn(t, "admin")
	for path, calls := range map[string]int{"/ui/": 2, "/ui/members": 3} {
		before := strings.Count(b.log.String(), `"level":"INFO","msg":"request"`)
		p.get(t, path)
		opened := strings.Count(b.log.String(), `"level":"INFO","msg":"request"`)
		if opened-before != calls {
			t.Errorf("%s: got %d lines, want %d", path, opened-before, calls)
		}
		if got := p.request(t, "GET", path, nil, "Revoked-Refresh", "1"); got.status != 200 {
			t.Errorf("refresh %s: got %d, want 200", path, got.status)
		}
		if n := strings.Count(b.log.String(), `"level":"INFO","msg":"request"`); n != opened {
			t.Errorf("refresh %s: got %d lines, want none", path, n-opened)
		}
	}
	before := strings.Count(b.log.String(), `"level":"INFO","msg":"request"`)
	p.request(t, "GET", "/ui/clients", nil, "Revoked-Refresh", "1") // this page does not refresh itself
	if n := strings.Count(b.log.String(), `"level":"INFO","msg":"request"`); n != before+1 {
		t.Errorf("clients: got %d lines, want 1", n-before)
	}
}

// A browser request counts as one request in progress, however many API calls it makes.
func TestConsole_InFlight_CountsTheBrowserOnce(t *testing.T) {
	reg := prometheus.NewRegistry()
	b := consoleBench(t, func(c *api.Config) { c.Registerer = reg })
	p := b.signIn(t, "aud")
	p.stream(t)
	if n := (&bench{registry: reg}).value(t, "in_flight_requests"); n != 1 {
		t.Errorf("an open stream: got %v, want 1", n)
	}
}

// The page shows the newest entries of the whole window, each once, regardless of how they are
// spread in time.
func TestConsoleAudit_SpreadEntries_ShowsNewest(t *testing.T) {
	start := time.Now()
	var ahead atomic.Int64
	clock := func() time.Time { return start.Add(time.Duration(ahead.Load())) }
	b := consoleBench(t, func(c *api.Config) { c.Now = clock })
	b.node.now = clock
	note := func(n int, step time.Duration) {
		for range n {
			ahead.Add(int64(step))
			e := revoked.AuditEntry{Kind: revoked.AuditSnapshotSave, Detail: fmt.Sprintf("note-%v", ahead.Load())}
			if err := b.node.Note(t.Context(), b.node.setupActor(), e); err != nil {
				t.Fatal(err)
			}
		}
	}
	shown := func(query string) []string {
		p := b.signIn(t, "aud")
		got := p.get(t, "/ui/audit?"+query)
		if got.status != 200 {
			t.Fatalf("got %d %s, want 200", got.status, got.body)
		}
		var list []string
		for row := range strings.SplitSeq(got.body, "<tr>") {
			if _, text, ok := strings.Cut(row, "note-"); ok {
				text, _, _ = strings.Cut(text, "<")
				list = append(list, text)
			}
		}
		return list
	}
	check := func(name string, list []string, want int) {
		t.Helper()
		if len(list) != want {
			t.Errorf("%s: got %d entries, want %d", name, len(list), want)
		}
		for i, text := range list {
			if i > 0 && len(text) == len(list[i-1]) && text >= list[i-1] {
				t.Errorf("%s: got %s after %s, want the newest first and each once", name, text, list[i-1])
			}
		}
		if len(list) > 0 && list[0] != fmt.Sprint(ahead.Load()) {
			t.Errorf("%s: got %s first, want the newest", name, list[0])
		}
	}
	note(40, 30*time.Minute) // 20 h
	check("sparse", shown("kind=snapshot.save&hours=24"), 40)
	check("a short window", shown("kind=snapshot.save&hours=1"), 3)
	note(70, 10*time.Second)
	check("sparse and dense", shown("kind=snapshot.save&hours=24"), 100)
	note(150, 100*time.Millisecond)
	check("dense", shown("kind=snapshot.save&hours=24"), 100)
}

// The page reads only the end of the window.
func TestConsole_Audit_ManyEntries_ReadsTheEnd(t *testing.T) {
	var ahead atomic.Int64
	start := time.Now()
	clock := func() time.Time { return start.Add(time.Duration(ahead.Load())) }
	b := consoleBench(t, func(c *api.Config) { c.Now = clock })
	b.node.now = clock
	for range 5000 {
		ahead.Add(int64(time.Second))
		if err := b.node.Note(t.Context(), b.node.setupActor(),
			revoked.AuditEntry{Kind: revoked.AuditSnapshotSave}); err != nil {
			t.Fatal(err)
		}
	}
	p := b.signIn(t, "aud")
	var pages atomic.Int64
	b.node.mu.Lock()
	b.node.fail = func(method string) error {
		if method == "Audit" {
			pages.Add(1)
		}
		return nil
	}
	b.node.mu.Unlock()
	if got := p.get(t, "/ui/audit"); got.status != 200 || strings.Count(got.body, "snapshot.save</td>") != 100 {
		t.Errorf("got %d and %d entries, want 100", got.status, strings.Count(got.body, "snapshot.save</td>"))
	}
	if n := pages.Load(); n > 6 { // all entries would need at least 5000 / 512 reads
		t.Errorf("got %d reads, want at most 6", n)
	}
}

// A client that changes during its request must sign in again. The answer never makes the browser
// show its own login prompt.
func TestConsole_ClientChangesDuringCall_MustSignIn(t *testing.T) {
	for _, tt := range []struct{ name, who, method, path string }{
		{"a page", "admin", "GET", "/ui/clients"}, {"an action", "admin", "POST", "/ui/grants/g1/end"},
		{"the live audit", "aud", "GET", "/ui/audit/stream?after=0"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := consoleBench(t)
			p := b.signIn(t, tt.who)
			var fields url.Values
			if tt.method == "POST" {
				fields = url.Values{"typed": {"g1"}}
			}
			// The console finds the session, and then the API call waits for the newest records.
			b.node.mu.Lock()
			b.node.elsewhere = func(n *memoryNode) { n.change(tt.who, func(c *revoked.Client) { c.Disabled = true }) }
			b.node.mu.Unlock()
			got := p.request(t, tt.method, tt.path, fields)
			signIn := got.status == http.StatusSeeOther && got.header.Get("Location") == "/ui/sign-in"
			if !signIn && got.status != http.StatusUnauthorized || got.header.Get("WWW-Authenticate") != "" {
				t.Errorf("got %d %v, want the sign-in without a challenge", got.status, got.header)
			}
			if tt.name == "a page" && !signIn {
				t.Errorf("got %d, want a redirect to the sign-in page", got.status)
			}
			if tt.name == "an action" && !strings.Contains(got.body, "You are signed out") {
				t.Errorf("got %s, want a page that reports the end of the session", got.body)
			}
		})
	}
}

// The sign-in page redirects a client with a session to a page that its role may see.
func TestConsole_SignInAgain_RedirectsToAPage(t *testing.T) {
	b := consoleBench(t)
	for _, who := range []string{"eye", "aud", "ops", "admin"} {
		p := b.signIn(t, who)
		got := p.get(t, "/ui/sign-in")
		for range 3 {
			if got.status == http.StatusSeeOther {
				got = p.get(t, got.header.Get("Location"))
			}
		}
		if got.status != 200 || strings.Contains(got.body, `name="client_secret"`) {
			t.Errorf("%s: got %d, want a page", who, got.status)
		}
	}
}

// Leading and trailing spaces are part of a name.
func TestConsole_NamesWithSpaces_AreExact(t *testing.T) {
	b := consoleBench(t)
	b.node.put(revoked.Client{ID: "app ", Type: revoked.Public})
	body := `{"grant_id":"gb","client_id":"app ","subject":" bob","access_token":{"token":"ATb"}}`
	if got := b.do(t, "issuer", "POST", "/v1/grants", "", body); got.status != 201 {
		t.Fatal(got)
	}
	p := b.signIn(t, "admin")
	for fields, want := range map[[2]string]bool{{"client_id", "app "}: true, {"client_id", "app"}: false,
		{"subject", " bob"}: true, {"subject", "bob"}: false} {
		got := p.post(t, "/ui/grants", fields[0], fields[1])
		if got.status != 200 || strings.Contains(got.body, `/ui/grants/gb"`) != want {
			t.Errorf("grants of %q: got %d %s, want the grant %t", fields, got.status, got.body, want)
		}
		count := "<strong>0</strong> active grants match"
		switch {
		case fields[1] == "app":
			count = "<strong>2</strong> active grants match"
		case want:
			count = "<strong>1</strong> active grant matches"
		}
		got = p.post(t, "/ui/cutoffs/dry-run", fields[0], fields[1])
		if !strings.Contains(got.body, count) {
			t.Errorf("cut-off of %q: got %d %s, want %q", fields, got.status, got.body, count)
		}
	}
	if got := p.post(t, "/ui/clients/app%20/disable", "typed", "app"); got.status != 303 {
		t.Errorf("confirm a name without its trailing space: got %d %s, want 303", got.status, got.body)
	}
	if got := b.do(t, "admin", "GET", "/v1/clients/app%20", "", ""); got.field(t, "disabled") != true {
		t.Errorf("got %s, want it disabled", got.body)
	}
}

// If the clients do not fit on a page, they are not listed, but can be opened and created.
func TestConsole_TooManyClients_FormsAreShown(t *testing.T) {
	b := consoleBench(t)
	var audiences []string
	for i := range 64 {
		audiences = append(audiences, fmt.Sprintf("https://%0220d.example", i))
	}
	var many []revoked.Client
	for i := range 1200 {
		many = append(many, revoked.Client{ID: fmt.Sprint("many", i), Type: revoked.Public, Audiences: audiences})
	}
	for ; len(many) > 0; many = many[100:] {
		b.node.put(many[:100]...)
	}
	p := b.signIn(t, "admin")
	got := p.get(t, "/ui/clients")
	if got.status != 200 || !strings.Contains(got.body, "too many clients") ||
		!strings.Contains(got.body, `action="/ui/clients"`) || strings.Contains(got.body, "There are no clients") {
		t.Errorf("got %d %s, want the forms without a list", got.status, got.body)
	}
	got = p.get(t, "/ui/clients?id="+url.QueryEscape("a b/c"))
	if got.status != 303 || got.header.Get("Location") != "/ui/clients/a%20b%2Fc" {
		t.Errorf("open by id: got %d %q, want 303 to the client", got.status, got.header.Get("Location"))
	}
	if got := p.get(t, "/ui/clients?id=many7"); got.status != 303 || p.get(t, got.header.Get("Location")).status != 200 {
		t.Errorf("open many7: got %d, want 303 to its page", got.status)
	}
}

// Browsers share cookies among the ports of a host. Even so, a user can have a session at each of
// several nodes on one host.
func TestConsole_NodesOnOneHost_HaveOwnCookies(t *testing.T) {
	first := consoleBench(t)
	second := consoleBench(t, func(c *api.Config) { c.NodeID = "n2" })
	id := []string{"client_id", "admin", "client_secret", secretOf("admin")}
	names := map[string]bool{}
	for _, b := range []*adminBench{first, second} {
		got := (&visitor{b: b}).post(t, "/ui/sign-in", id...)
		name, _, _ := strings.Cut(got.header.Get("Set-Cookie"), "=")
		if got.status != 303 || !strings.HasPrefix(name, "__Host-revoked-") {
			t.Errorf("got %d and the cookie %q, want 303 and __Host-revoked-*", got.status, name)
		}
		names[name] = true
	}
	if len(names) != 2 {
		t.Errorf("got the names %v, want two", names)
	}
}

// A setting changes only if its name is typed and the page has shown its current value. The page
// shows the API's error unchanged.
func TestConsole_Settings_ChangeIsConfirmed(t *testing.T) {
	b := consoleBench(t)
	ops := b.signIn(t, "ops")
	const page = "/ui/settings/secret_grace"
	for _, tt := range []struct {
		name   string
		fields []string
		status int
		text   string
		value  string // after the request
	}{
		{"without the name", []string{"value", "48h", "shown", "24h"}, 422, "Nothing was done", "24h"},
		{"after another value was shown", []string{"value", "48h", "shown", "23h", "typed", "secret_grace"}, 409,
			"secret_grace is now 24h, not 23h", "24h"},
		{"out of bounds", []string{"value", "99999h", "shown", "24h", "typed", "secret_grace"}, 422,
			"secret_grace must be from 0s to 8760h", "24h"},
		{"malformed", []string{"value", "soon", "shown", "24h", "typed", "secret_grace"}, 400, "secret_grace", "24h"},
		{"a new value", []string{"value", "48h", "shown", "24h", "typed", "secret_grace"}, 303, "", "48h"},
		{"the default", []string{"value", "default", "shown", "48h", "typed", "secret_grace"}, 303, "", "24h"},
	} {
		got := ops.post(t, page, tt.fields...)
		if got.status != tt.status || !strings.Contains(got.body, tt.text) {
			t.Errorf("%s: got %d %s, want %d with %q", tt.name, got.status, got.body, tt.status, tt.text)
		}
		if now := b.do(t, "ops", "GET", "/v1/settings", "", "").field(t, "secret_grace"); now != tt.value {
			t.Errorf("%s: got the value %v, want %s", tt.name, now, tt.value)
		}
	}
	got := ops.post(t, "/ui/settings/audit_max_entries", "value", "2000", "shown", "1000000", "typed", "audit_max_entries")
	if got.status != 303 || !strings.Contains(ops.get(t, "/ui/settings").body, ">2000<") {
		t.Errorf("a count: got %d %s, want 303 and the value 2000", got.status, got.body)
	}
	if got := b.signIn(t, "eye").get(t, page); strings.Contains(got.body, `name="typed"`) {
		t.Error("a viewer: got the form, want none")
	}
	if got := ops.get(t, "/ui/settings/none"); got.status != 404 {
		t.Errorf("an unknown setting: got %d, want 404", got.status)
	}
	for _, rule := range revoked.SettingRules() {
		body := ops.get(t, "/ui/settings/"+rule.Name).body
		_, after, _ := strings.Cut(body, "</h1>")
		if !strings.Contains(after, "<p>") || strings.Contains(after, "<p></p>") {
			t.Errorf("%s: got a page without a description, want one", rule.Name)
		}
	}
}

// The page reports the state of a token at a given time, by the token or by its digest. It shows
// neither.
func TestConsole_Past_AcceptsTokenOrDigest(t *testing.T) {
	b := consoleBench(t)
	b.node.applyOps(command.AcknowledgeOp(nil)) // the history begins
	body := `{"grant_id":"gp","client_id":"app","access_token":{"token":"canary-past"}}`
	if got := b.do(t, "issuer", "POST", "/v1/grants", "", body); got.status != 201 {
		t.Fatal(got)
	}
	aud := b.signIn(t, "aud")
	digest := revoked.DigestToken("canary-past").String()
	ask := func(want string, fields ...string) {
		t.Helper()
		got := aud.post(t, "/ui/past", fields...)
		if got.status != 200 || !strings.Contains(got.body, "<strong>"+want+"</strong>") {
			t.Errorf("%v: got %d %s, want %s", fields, got.status, got.body, want)
		}
		if strings.Contains(got.body, "canary-past") || strings.Contains(got.body, digest) {
			t.Errorf("%v: got the token or its digest in the page, want neither", fields)
		}
	}
	ask("Active.", "token", " canary-past\n")
	ask("Active.", "digest", digest)
	ask("No records.", "token", "canary-past", "at", "1")
	ask("Unknown.", "token", "another")
	if got := b.signIn(t, "admin").post(t, "/ui/grants/gp/end", "typed", "gp"); got.status != 303 {
		t.Fatal(got)
	}
	ask("Not active.", "token", "canary-past")
	for want, fields := range map[string][]string{
		"enter the token or its digest": {"token", "x", "digest", digest},
		"is in the future":              {"token", "x", "at", "9999999999"},
		"at must be Unix seconds":       {"token", "x", "at", "yesterday"},
		"digest must be the SHA-256":    {"digest", "x"},
	} {
		if got := aud.post(t, "/ui/past", fields...); got.status != 400 || !strings.Contains(got.body, want) {
			t.Errorf("%v: got %d %s, want 400 with %q", fields, got.status, got.body, want)
		}
	}
	if strings.Contains(b.log.String(), "canary-past") || strings.Contains(b.log.String(), digest) {
		t.Error("got the token or its digest in the log, want neither")
	}
}

// An administrator creates and changes an issuer with the API's own record. The page shows the
// API's error unchanged.
func TestConsole_Issuer_IsCreatedAndChanged(t *testing.T) {
	b := consoleBench(t)
	p := b.signIn(t, "admin")
	const record = `{"name":"far","issuer":"https://far.example","jwks_uri":"https://far.example/k"}`
	for text, want := range map[string]int{
		"": 400, "{": 400, `{"name":"x","x":1}`: 400, `{"name":"x","issuer":"y"}`: 422,
	} {
		got := p.post(t, "/ui/issuers", "record", text)
		if got.status != want || !strings.Contains(got.body, `role="alert"`) {
			t.Errorf("create %q: got %d %s, want %d", text, got.status, got.body, want)
		}
	}
	if got := p.post(t, "/ui/issuers", "record", record); got.header.Get("Location") != "/ui/issuers/far" {
		t.Fatalf("create: got %d %s, want a redirect to the issuer", got.status, got.body)
	}
	if got := p.post(t, "/ui/issuers", "record", record); got.status != 409 {
		t.Errorf("create it again: got %d, want 409", got.status)
	}
	lifetime := func() any { return b.do(t, "admin", "GET", "/v1/issuers/far", "", "").field(t, "max_lifetime") }
	before := lifetime()
	got := p.post(t, "/ui/issuers/far/change", "record", `{"max_lifetime":"2h"}`)
	if got.status != 422 || lifetime() != before {
		t.Errorf("without the name: got %d and %v, want 422 and no change", got.status, lifetime())
	}
	got = p.post(t, "/ui/issuers/far/change", "record", `{"max_lifetime":"2h"}`, "typed", "far")
	if got.status != 303 || lifetime() != "2h" {
		t.Errorf("change: got %d %s and %v, want 2h", got.status, got.body, lifetime())
	}
	got = p.post(t, "/ui/issuers/far/change", "record", `{"max_lifetime":"2x"}`, "typed", "far")
	if got.status != 400 || !strings.Contains(got.body, "max_lifetime") {
		t.Errorf("a malformed change: got %d %s, want 400 with the member", got.status, got.body)
	}
	page := p.get(t, "/ui/issuers/far").body
	_, text, _ := strings.Cut(page, "<textarea")
	_, text, _ = strings.Cut(text, ">")
	text, _, _ = strings.Cut(text, "</textarea>")
	got = p.post(t, "/ui/issuers/far/change", "record", html.UnescapeString(text), "typed", "far")
	if got.status != 303 || !strings.Contains(text, "max_lifetime") {
		t.Errorf("the record that the page shows: got %d %s for %s, want 303", got.status, got.body, text)
	}
}
