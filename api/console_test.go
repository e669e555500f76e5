package api_test

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/labstack/echo/v4"

	"revoked"
	"revoked/api"
	"revoked/api/serve"
	"revoked/internal/await"
)

func withConsole(c *api.Config) { c.Console, c.NodeID = true, "n1" }

// sessionCookie is the name of the cookie of n1. It contains the first digits of the SHA-256 of n1.
const sessionCookie = "__Host-revoked-676b8bb8"

// A visitor is a browser at the console of an adminBench. It does not follow redirects.
type visitor struct {
	b            *adminBench
	cookie, form string
}

// request sends a request with the session cookie. It adds the form token unless fields has one.
func (p *visitor) request(t testing.TB, method, path string, fields url.Values, header ...string) reply {
	t.Helper()
	var body io.Reader
	if fields != nil {
		if p.form != "" && !fields.Has("form") {
			fields.Set("form", p.form)
		}
		body = strings.NewReader(fields.Encode())
	}
	req, err := http.NewRequestWithContext(t.Context(), method, p.b.url+path, body)
	if err != nil {
		t.Fatal(err)
	}
	if fields != nil {
		req.Header.Set("Content-Type", formType)
	}
	if p.cookie != "" {
		req.Header.Set("Cookie", sessionCookie+"="+p.cookie)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := p.b.http.Transport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return reply{res.StatusCode, res.Header, string(text)}
}

func (p *visitor) get(t testing.TB, path string) reply { return p.request(t, "GET", path, nil) }

// post sends a form of names and values.
func (p *visitor) post(t testing.TB, path string, pairs ...string) reply {
	t.Helper()
	fields := url.Values{}
	for i := 0; i+1 < len(pairs); i += 2 {
		fields.Add(pairs[i], pairs[i+1])
	}
	return p.request(t, "POST", path, fields)
}

var formToken = regexp.MustCompile(`name="form" value="([^"]+)"`)

// signIn returns a browser in which a client has signed in.
func (b *adminBench) signIn(t testing.TB, who string) *visitor {
	t.Helper()
	p := &visitor{b: b}
	got := p.post(t, "/ui/sign-in", "client_id", who, "client_secret", secretOf(who))
	if got.status != 303 {
		t.Fatalf("sign in as %s: got %d %s, want 303", who, got.status, got.body)
	}
	value, rest, _ := strings.Cut(strings.TrimPrefix(got.header.Get("Set-Cookie"), sessionCookie+"="), ";")
	if want := " Path=/; HttpOnly; Secure; SameSite=Strict"; rest != want {
		t.Fatalf("cookie: got %q, want %q", rest, want)
	}
	p.cookie = value
	found := formToken.FindStringSubmatch(p.get(t, "/ui/none").body + p.get(t, "/ui/audit").body + p.get(t, "/ui/").body)
	if found == nil {
		t.Fatal("got no form token in the pages, want one")
	}
	p.form = found[1]
	return p
}

// consolePages lists each page with the clients that may see it, as roleTable does.
var consolePages = []struct{ path, may string }{
	{"/ui/", "admin ops eye"}, {"/ui/members", "admin ops eye"}, {"/ui/members/n2", "admin ops eye"},
	{"/ui/tokens", "admin eye"}, {"/ui/grants", "admin"}, {"/ui/grants/g1", "admin"}, {"/ui/cutoffs", "admin"},
	{"/ui/clients", "admin"}, {"/ui/clients/app", "admin"}, {"/ui/issuers", "admin"}, {"/ui/audit", "admin aud"},
	{"/ui/past", "admin aud"}, {"/ui/settings", "admin ops eye"}, {"/ui/settings/secret_grace", "admin ops eye"},
}

// consoleForms lists each form, with a correct confirmation, and the clients that may send it.
var consoleForms = []struct{ path, fields, may string }{
	{"/ui/members/n2/promote", "typed=n2", "admin ops"}, {"/ui/members/n2/demote", "typed=n2", "admin ops"},
	{"/ui/members/n2/transfer-leader", "typed=n2", "admin ops"},
	{"/ui/members/n2/remove", "typed=n2", "admin ops"}, {"/ui/members/n2/leave", "typed=n2", "admin ops"},
	{"/ui/admissions/admit", "node=n4", "admin ops"}, {"/ui/admissions/withdraw", "node=n4&typed=n4", "admin ops"},
	{"/ui/admissions/create-token", "ttl=1h", "admin ops"}, {"/ui/admissions/delete-token", "id=none", "admin ops"},
	{"/ui/tokens/explain", "token=AT1", "admin eye"}, {"/ui/tokens/revoke", "token=AT1&typed=revoke", "admin"},
	{"/ui/grants", "subject=alice", "admin"}, {"/ui/grants/none/end", "typed=none", "admin"},
	{"/ui/cutoffs/dry-run", "subject=alice", "admin"}, {"/ui/cutoffs", "subject=x&expect=0&typed=0", "admin"},
	{"/ui/clients", "client_id=fresh&type=public", "admin"}, {"/ui/clients/none/enable", "", "admin"},
	{"/ui/clients/none/disable", "typed=none", "admin"}, {"/ui/clients/none/secret", "typed=none", "admin"},
	{"/ui/clients/none/delete", "typed=none", "admin"}, {"/ui/issuers/none/enable", "", "admin"},
	{"/ui/issuers/none/disable", "typed=none", "admin"}, {"/ui/issuers/none/refresh", "", "admin"},
	{"/ui/issuers/none/delete", "typed=none", "admin"}, {"/ui/issuers", "record={}", "admin"},
	{"/ui/issuers/none/change", "record={}&typed=none", "admin"}, {"/ui/past", "token=AT1", "admin aud"},
	{"/ui/settings/secret_grace", "value=25h&shown=24h&typed=secret_grace", "admin ops"},
	{"/ui/issuers/none/ban-key", "thumbprint=none&typed=none", "admin"},
}

func consoleBench(t testing.TB, configure ...func(*api.Config)) *adminBench {
	t.Helper()
	b := newAdminBench(t, append([]func(*api.Config){withConsole}, configure...)...)
	b.node.nodes = []revoked.Member{{NodeID: "memory", Region: "north", Voter: true, Alive: true},
		{NodeID: "n2", Region: "south", Leader: true, Voter: true, Alive: true, LeaseLeft: time.Second}}
	for _, id := range []string{"1", "2"} {
		body := `{"grant_id":"g` + id + `","client_id":"app","subject":"alice","access_token":{"token":"AT` + id + `"}}`
		if got := b.do(t, "issuer", "POST", "/v1/grants", "", body); got.status != 201 {
			t.Fatalf("register: got %d %s, want 201", got.status, got.body)
		}
	}
	return b
}

func TestConsole_Off_IsNotFound(t *testing.T) {
	b := newAdminBench(t)
	p := visitor{b: b}
	for _, path := range []string{"/ui", "/ui/", "/ui/sign-in", "/ui/static/console.css"} {
		if got := p.get(t, path); got.status != 404 {
			t.Errorf("GET %s: got %d, want 404", path, got.status)
		}
	}
}

// The console adds only two routes to the API. The console itself handles every path below them.
func TestConsole_On_AddsTwoRoutes(t *testing.T) {
	paths := func(b *bench) (list []string) {
		for _, r := range b.api.Handler().(*echo.Echo).Routes() {
			list = append(list, r.Method+" "+r.Path)
		}
		return list
	}
	without := paths(newBench(t))
	var added []string
	for _, path := range paths(newBench(t, withConsole)) {
		if !slices.Contains(without, path) {
			added = append(added, path)
		}
	}
	slices.Sort(added)
	if want := []string{"echo_route_not_found /ui", "echo_route_not_found /ui/*"}; !slices.Equal(added, want) {
		t.Errorf("got %v, want %v", added, want)
	}
}

// A client without a session gets no data. A client with a session may see and do the same as its
// role at /v1. A refused call gets 403.
func TestConsole_EachPageByEachRole_MatchesTheAPI(t *testing.T) {
	b := consoleBench(t)
	nobody := visitor{b: b}
	for _, page := range consolePages {
		if got := nobody.get(t, page.path); got.status != 303 || got.header.Get("Location") != "/ui/sign-in" {
			t.Errorf("GET %s without a session: got %d %s, want 303", page.path, got.status, got.header.Get("Location"))
		}
	}
	for _, form := range consoleForms {
		if got := nobody.request(t, "POST", form.path, url.Values{}); got.status != 401 {
			t.Errorf("POST %s without a session: got %d, want 401", form.path, got.status)
		}
	}
	for _, who := range []string{"eye", "aud", "ops", "admin"} {
		p := b.signIn(t, who)
		for _, page := range consolePages {
			got := p.get(t, page.path)
			if may := slices.Contains(strings.Fields(page.may), who); may != (got.status == 200) || !may && got.status != 403 {
				t.Errorf("GET %s as %s: got %d, want 200 with the role, else 403", page.path, who, got.status)
			}
			if shown := strings.Contains(got.body, `href="`+page.path+`"`); shown &&
				!slices.Contains(strings.Fields(page.may), who) {
				t.Errorf("GET %s as %s: got a link to it, want none", page.path, who)
			}
		}
		for _, form := range consoleForms {
			fields, err := url.ParseQuery(form.fields)
			if err != nil {
				t.Fatal(err)
			}
			got := p.request(t, "POST", form.path, fields)
			may := slices.Contains(strings.Fields(form.may), who)
			refused := got.status == 403 || form.path == "/ui/tokens/revoke" && got.status == 400
			if may == refused || got.status >= 500 {
				t.Errorf("POST %s as %s: got %d %s, want a refusal only without the role", form.path, who, got.status, got.body)
			}
		}
	}
}

func TestConsole_SignIn_NeedsSecretAndRole(t *testing.T) {
	b := consoleBench(t)
	for _, tt := range []struct {
		name, id, secret string
		status           int
	}{
		{"wrong secret", "admin", "wrong", 401}, {"unknown client", "nobody", "wrong", 401}, {"nothing", "", "", 401},
		{"an issuer", "issuer", secretOf("issuer"), 403}, {"a plain client", "app", secretOf("app"), 403},
		{"a public client", "pub", "", 401},
	} {
		p := visitor{b: b}
		got := p.post(t, "/ui/sign-in", "client_id", tt.id, "client_secret", tt.secret)
		if got.status != tt.status || got.header.Get("Set-Cookie") != "" {
			t.Errorf("%s: got %d %v, want %d and no cookie", tt.name, got.status, got.header, tt.status)
		}
		if got.header.Get("WWW-Authenticate") != "" {
			t.Errorf("%s: got WWW-Authenticate, want none, because browsers would show a login prompt", tt.name)
		}
	}
}

// Failed sign-ins count toward the same failure limit as failed calls.
func TestConsole_SignIn_GuessesAreThrottled(t *testing.T) {
	b := consoleBench(t, func(c *api.Config) { c.AuthFailuresPerMinute = 3 })
	p := visitor{b: b}
	statuses := map[int]int{}
	for range 5 {
		statuses[p.post(t, "/ui/sign-in", "client_id", "admin", "client_secret", "guess").status]++
	}
	if statuses[401] != 3 || statuses[429] != 2 {
		t.Errorf("got %v, want 3 times 401 and then 429", statuses)
	}
	b.signIn(t, "admin") // the correct secret still passes
}

// Every change of a client ends its sessions and the streams that it has opened.
func TestConsole_Session_EndsWithItsClient(t *testing.T) {
	ends := slices.DeleteFunc(credentialEnds("aud"), func(e credentialEnd) bool {
		return e.name == "not allowed to use Basic" // not possible for a client with a role of the console
	})
	for _, end := range append(ends, credentialEnd{name: "rotated, in its grace",
		change: func(t *testing.T, b *adminBench) {
			if got := b.do(t, "admin", "POST", "/v1/clients/aud/secret", "", ""); got.status != 200 {
				t.Fatal(got)
			}
		}}) {
		t.Run(end.name, func(t *testing.T) {
			b := consoleBench(t)
			p := b.signIn(t, "aud")
			lines := p.stream(t)
			end.change(t, b)
			if got := p.get(t, "/ui/audit"); got.status != 303 {
				t.Errorf("got %d, want a redirect to the sign-in page", got.status)
			}
			for range lines { // wait until the stream ends
			}
		})
	}
}

// stream opens the live audit and returns its lines. The channel is closed when the stream ends.
func (p *visitor) stream(t testing.TB) <-chan string {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, "GET", p.b.url+"/ui/audit/stream?after=0", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Cookie", sessionCookie+"="+p.cookie)
	res, err := p.b.http.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	if got := res.Header.Get("Content-Type"); res.StatusCode != 200 || got != "text/event-stream" {
		t.Fatalf("stream: got %d %s, want 200 and events", res.StatusCode, got)
	}
	lines, done := make(chan string, 1000), make(chan struct{})
	go func() {
		defer close(done)
		defer close(lines)
		for s := bufio.NewScanner(res.Body); s.Scan(); {
			lines <- s.Text()
		}
	}()
	t.Cleanup(func() { cancel(); <-done; res.Body.Close() })
	return lines
}

func TestConsole_Stream_ShowsANewEntry(t *testing.T) {
	b := consoleBench(t)
	p := b.signIn(t, "aud")
	lines := p.stream(t)
	if got := b.do(t, "admin", "DELETE", "/v1/grants/g1?reason=live", "", ""); got.status != 200 {
		t.Fatal(got)
	}
	for line := range lines {
		if strings.Contains(line, `"reason":"live"`) {
			return
		}
	}
	t.Error("got the end of the stream, want the new entry")
}

func TestConsole_Session_HasLimits(t *testing.T) {
	var ahead atomic.Int64
	b := consoleBench(t, func(c *api.Config) {
		c.Now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	})
	idle := b.signIn(t, "admin")
	ahead.Add(int64(14 * time.Minute))
	if got := idle.request(t, "GET", "/ui/", nil, "Revoked-Refresh", "1"); got.status != 200 {
		t.Errorf("refresh after 14 min: got %d, want 200", got.status)
	}
	ahead.Add(int64(2 * time.Minute))
	if got := idle.request(t, "GET", "/ui/", nil, "Revoked-Refresh", "1"); got.status != 401 {
		t.Errorf("refresh after 16 min: got %d, want 401, because a refresh does not count as use", got.status)
	}
	used := b.signIn(t, "admin")
	hours := 0
	for ; used.get(t, "/ui/").status == 200 && hours < 100; hours++ {
		ahead.Add(int64(10 * time.Minute))
	}
	if hours != 48 {
		t.Errorf("a session in use: got %d times 10 min, want 8 h", hours)
	}
	p := b.signIn(t, "admin")
	got := p.post(t, "/ui/sign-out")
	if got.status != 303 || !strings.Contains(got.header.Get("Set-Cookie"), "Max-Age=0") {
		t.Errorf("sign out: got %d %s, want 303 and Max-Age=0", got.status, got.header.Get("Set-Cookie"))
	}
	if got := p.get(t, "/ui/"); got.status != 303 {
		t.Errorf("the cookie after the sign-out: got %d, want 303", got.status)
	}
	first := b.signIn(t, "admin")
	for range 16 {
		b.signIn(t, "admin")
	}
	if got := first.get(t, "/ui/"); got.status != 303 {
		t.Errorf("the oldest of 17 sessions: got %d, want 303, because it has ended", got.status)
	}
}

func TestConsole_Forms_OfOtherSites_AreRefused(t *testing.T) {
	b := consoleBench(t)
	p, other := b.signIn(t, "admin"), b.signIn(t, "admin")
	fields := func(form string) url.Values { return url.Values{"typed": {"g1"}, "form": {form}} }
	for _, tt := range []struct {
		name   string
		fields url.Values
		header []string
	}{
		{"no token", fields(""), nil}, {"a wrong token", fields("x"), nil},
		{"the token of another session", fields(other.form), nil},
		{"from another site", fields(p.form), []string{"Sec-Fetch-Site", "cross-site"}},
		{"from another host of the site", fields(p.form), []string{"Sec-Fetch-Site", "same-site"}},
		{"with another origin", fields(p.form), []string{"Origin", "https://evil.example"}},
	} {
		if got := p.request(t, "POST", "/ui/grants/g1/end", tt.fields, tt.header...); got.status != 403 {
			t.Errorf("%s: got %d, want 403", tt.name, got.status)
		}
	}
	if got := p.request(t, "POST", "/ui/grants/g1/end", fields(p.form), "Content-Type", "text/plain"); got.status != 415 {
		t.Errorf("text/plain: got %d, want 415", got.status)
	}
	if got := b.do(t, "admin", "GET", "/v1/grants/g1", "", ""); got.field(t, "state") != "active" {
		t.Errorf("the grant afterwards: got %s, want it active", got.body)
	}
	got := p.request(t, "POST", "/ui/grants/g1/end", fields(p.form), "Sec-Fetch-Site", "same-origin")
	if got.status != 303 {
		t.Errorf("from the page itself: got %d %s, want 303", got.status, got.body)
	}
	secret := url.Values{"client_id": {"admin"}, "client_secret": {secretOf("admin")}}
	got = (&visitor{b: b}).request(t, "POST", "/ui/sign-in", secret, "Sec-Fetch-Site", "cross-site")
	if got.status != 403 {
		t.Errorf("sign-in from another site: got %d, want 403", got.status)
	}
}

func TestConsole_Responses_HaveSecurityHeaders(t *testing.T) {
	b := consoleBench(t)
	p := b.signIn(t, "admin")
	nonce := regexp.MustCompile(`nonce-([A-Z2-7]{26})'`)
	seen := map[string]bool{}
	for _, path := range []string{
		"/ui/", "/ui/none", "/ui/sign-in", "/ui/static/console.js", "/ui/audit", "/ui/grants/none",
	} {
		got := p.get(t, path)
		policy := got.header.Get("Content-Security-Policy")
		for _, part := range []string{
			"default-src 'none'", "frame-ancestors 'none'", "base-uri 'none'", "form-action 'self'",
		} {
			if !strings.Contains(policy, part) {
				t.Errorf("%s: got the policy %q, want %s", path, policy, part)
			}
		}
		if strings.Contains(policy, "unsafe") || strings.Contains(policy, "*") {
			t.Errorf("%s: got the policy %q, want no unsafe source and no *", path, policy)
		}
		for name, want := range map[string]string{"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff",
			"Referrer-Policy": "no-referrer", "X-Frame-Options": "DENY", "Cross-Origin-Opener-Policy": "same-origin"} {
			if got.header.Get(name) != want {
				t.Errorf("%s: %s: got %q, want %q", path, name, got.header.Get(name), want)
			}
		}
		found := nonce.FindStringSubmatch(policy)
		if found == nil || seen[found[1]] {
			t.Fatalf("%s: got policy %q, want a fresh nonce", path, policy)
		}
		seen[found[1]] = true
		if strings.Contains(got.body, "<html") {
			checkInline(t, path, got.body, found[1])
		}
	}
}

// checkInline fails for a page with an inline script, style or handler.
func checkInline(t *testing.T, path, body, nonce string) {
	t.Helper()
	for _, tag := range regexp.MustCompile(`<(script|link)[^>]*>[^<]*`).FindAllString(body, -1) {
		if !strings.Contains(tag, `rel="icon"`) && !strings.Contains(tag, `nonce="`+nonce+`"`) {
			t.Errorf("%s: got %s, want the nonce", path, tag)
		}
	}
	if bad := regexp.MustCompile(`(?i)<style|\sstyle=|\son[a-z]+=|javascript:|<script[^>]*>[^<\s]`).FindString(body); bad != "" {
		t.Errorf("%s: got %q, want nothing inline", path, bad)
	}
}

func TestConsole_PlainHTTP_IsRefused(t *testing.T) {
	b := newBench(t, withConsole, func(c *api.Config) { c.RequireHTTPS = false })
	got := b.do(call{method: "GET", path: "/ui/sign-in", plain: true})
	if got.Code != 400 || !strings.Contains(got.Body.String(), "https://") {
		t.Errorf("got %d %s, want 400 with advice", got.Code, got.Body)
	}
}

// A browser gets a page even for a refusal that precedes the console. Other clients get JSON.
func TestConsole_EarlyRefusal_SendsAPage(t *testing.T) {
	r := start(t, nil, withConsole)
	addr := serveLimited(t, r, func(c *serve.Config) { c.MaxRequests, c.MaxRequestsPerAddress = 1, 1 })
	h := dialH2(t, addr)
	if err := h.HalfRequest(pathIntrospect, 10); err != nil {
		t.Fatal(err)
	}
	await.Until(t, "the request to be in progress", func() bool {
		return r.metric(t, "revoked_api_in_flight_requests", nil) == 1
	})
	for path, want := range map[string]string{
		"/ui": "text/html", "/ui/": "text/html", "/ui/none": "text/html", "/uix": "application/json",
	} {
		res, err := r.client(t, false).Get("https://" + addr + path)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(res.Body)
		res.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		if res.StatusCode != 503 || !strings.HasPrefix(res.Header.Get("Content-Type"), want) ||
			res.Header.Get("Retry-After") == "" || !strings.Contains(string(body), "oo many requests in progress") {
			t.Errorf("%s at the limit: got %d %v %s, want 503 and %s", path, res.StatusCode, res.Header, body, want)
		}
		if csp := res.Header.Get("Content-Security-Policy"); (want == "text/html") != strings.Contains(csp, "'none'") {
			t.Errorf("%s at the limit: got policy %q, want 'none' only for pages", path, csp)
		}
	}

	b := newBench(t, withConsole)
	got := b.do(call{method: "GET", path: "/ui/", plain: true})
	if got.Code != 400 || !strings.Contains(got.Body.String(), "<html") {
		t.Errorf("over plain HTTP: got %d %s, want 400 and a page", got.Code, got.Body)
	}
}

// No log line, page or Location header contains a token or a secret.
func TestConsole_Secrets_DoNotLeak(t *testing.T) {
	const canary = "canary-token-5d1c"
	b := consoleBench(t)
	p := b.signIn(t, "admin")
	var pages strings.Builder
	for _, fields := range [][]string{
		{"/ui/tokens/explain", "token", canary}, {"/ui/tokens/revoke", "token", canary, "typed", "revoke"},
		{"/ui/tokens/revoke", "token", canary, "typed", "no"}, {"/ui/tokens/explain", "token", canary, "as", "none"},
		{"/ui/tokens/explain", "token", canary, "digest", "x"},
	} {
		got := p.post(t, fields[0], fields[1:]...)
		pages.WriteString(got.body + got.header.Get("Location"))
	}
	got := p.post(t, "/ui/sign-in", "client_id", "admin", "client_secret", canary)
	pages.WriteString(got.body + got.header.Get("Location"))
	if strings.Contains(pages.String(), canary) {
		t.Error("got the canary in a page or a Location header, want none")
	}
	if all := b.log.String(); strings.Contains(all, canary) || strings.Contains(all, secretOf("admin")) ||
		strings.Contains(all, p.cookie) || strings.Contains(all, p.form) {
		t.Errorf("got a secret in the log, want none: %s", all)
	}
}

func TestConsole_HostileNames_AreEscaped(t *testing.T) {
	const hostile = `"><script>alert(1)</script>`
	b := consoleBench(t)
	body := `{"grant_id":"gh","client_id":"app","subject":"\"><script>alert(1)</script>","access_token":{"token":"ATh"}}`
	if got := b.do(t, "issuer", "POST", "/v1/grants", "", body); got.status != 201 {
		t.Fatal(got)
	}
	b.node.nodes = append(b.node.nodes, revoked.Member{NodeID: hostile, Region: hostile, Alive: true, Version: hostile})
	c := revoked.Client{ID: hostile, Type: revoked.Public}
	b.node.put(c)
	p := b.signIn(t, "admin")
	if got := b.do(t, "admin", "DELETE", "/v1/grants/gh?reason="+url.QueryEscape(hostile), "", ""); got.status != 200 {
		t.Fatal(got)
	}
	escaped := url.PathEscape(hostile)
	for _, got := range []reply{
		p.get(t, "/ui/"), p.get(t, "/ui/members"), p.get(t, "/ui/members/"+escaped), p.get(t, "/ui/clients"),
		p.get(t, "/ui/clients/"+escaped), p.get(t, "/ui/grants/gh"), p.get(t, "/ui/audit"),
		p.get(t, "/ui/audit?kind=grant.delete&hours=2"),
		p.post(t, "/ui/grants", "subject", hostile), p.post(t, "/ui/tokens/explain", "token", "ATh"),
		p.post(t, "/ui/cutoffs/dry-run", "subject", hostile), p.post(t, "/ui/tokens/explain", "token", "AT1", "as", "app"),
	} {
		if got.status != 200 || !strings.Contains(got.body, "<h1>") {
			t.Errorf("got %d %s, want a page", got.status, got.body)
		}
		if strings.Contains(got.body, "<script>alert") {
			t.Errorf("got the name as HTML, want it escaped: %s", got.body)
		}
	}
	got := p.post(t, "/ui/sign-in", "client_id", hostile, "client_secret", "x")
	if strings.Contains(got.body, "<script>alert") {
		t.Errorf("sign-in: got the id as HTML, want it escaped")
	}
}

// An action needs the typed name. It leaves one audit entry, by the client that has signed in.
func TestConsole_ActionConfirmed_LeavesOneAuditEntry(t *testing.T) {
	b := consoleBench(t)
	p := b.signIn(t, "admin")
	for _, tt := range []struct {
		kind, path, want string
		fields           []string
	}{
		{"client.update", "/ui/clients/other/disable", "other", nil},
		{"client.secret", "/ui/clients/other/secret", "other", nil},
		{"client.delete", "/ui/clients/other/delete", "other", nil},
		{"grant.delete", "/ui/grants/g1/end", "g1", []string{"reason", "by hand"}},
		{"token.revoke", "/ui/tokens/revoke", "revoke", []string{"token", "AT2"}},
		{"cutoff.create", "/ui/cutoffs", "0", []string{"subject", "bob", "expect", "0"}},
	} {
		entries := func() int {
			list := b.do(t, "admin", "GET", "/v1/audit?actor=admin&kind="+tt.kind, "", "").body
			return strings.Count(list, `"outcome":"done"`)
		}
		if got := p.post(t, tt.path, append(tt.fields, "typed", "something else")...); got.status != 422 || entries() != 0 {
			t.Errorf("%s without confirmation: got %d and %d entries, want 422 and none", tt.path, got.status, entries())
		}
		if got := p.post(t, tt.path, append(tt.fields, "typed", tt.want)...); got.status != 303 && got.status != 200 {
			t.Errorf("%s: got %d %s, want 303 or 200", tt.path, got.status, got.body)
		}
		if n := entries(); n != 1 {
			t.Errorf("%s: got %d entries of %s, want 1", tt.path, n, tt.kind)
		}
	}
	if got := p.get(t, "/ui/tokens"); !strings.Contains(got.body, `role="status"`) {
		t.Errorf("the next page: got %s, want the notice", got.body)
	}
	if got := p.get(t, "/ui/tokens"); strings.Contains(got.body, `role="status"`) {
		t.Error("the page after that: got the notice again, want none")
	}
}

// The console records a refused call by an operator in the audit log, as /v1 does.
func TestConsole_Refusal_IsAudited(t *testing.T) {
	b := consoleBench(t)
	p := b.signIn(t, "ops")
	if got := p.post(t, "/ui/clients/app/delete", "typed", "app"); got.status != 403 {
		t.Fatalf("got %d %s, want 403", got.status, got.body)
	}
	list := b.do(t, "admin", "GET", "/v1/audit?actor=ops&kind=client.delete", "", "").body
	if strings.Count(list, `"outcome":"refused"`) != 1 {
		t.Errorf("got %s, want one refused call", list)
	}
}

func TestConsole_Cutoff_CountsFirst(t *testing.T) {
	b := consoleBench(t)
	p := b.signIn(t, "admin")
	if got := p.post(t, "/ui/cutoffs", "subject", "alice", "typed", "2"); got.status != 400 {
		t.Errorf("without a dry run: got %d %s, want 400", got.status, got.body)
	}
	got := p.post(t, "/ui/cutoffs/dry-run", "subject", "alice", "reason", "left")
	if got.status != 200 || !strings.Contains(got.body, "<strong>2</strong> active grants match") {
		t.Fatalf("dry run: got %d %s, want 200 and 2 grants", got.status, got.body)
	}
	if got := p.post(t, "/ui/cutoffs", "subject", "alice", "expect", "1", "typed", "1"); got.status != 409 {
		t.Errorf("another number: got %d %s, want 409", got.status, got.body)
	}
	if got := b.do(t, "admin", "GET", "/v1/grants/g1", "", ""); got.field(t, "state") != "active" {
		t.Errorf("before the cut-off: got %s, want the grant active", got.body)
	}
	if got := p.post(t, "/ui/cutoffs", "subject", "alice", "expect", "2", "typed", "2"); got.status != 303 {
		t.Errorf("got %d %s, want 303", got.status, got.body)
	}
	if got := p.get(t, "/ui/grants/g1"); !strings.Contains(got.body, "by a cut-off") {
		t.Errorf("the grant: got %s, want it revoked by a cut-off", got.body)
	}
}

// A viewer gets the explanation without the subject, whether the form has the token or its digest.
func TestConsole_Explain_AcceptsTokenOrDigest(t *testing.T) {
	b := consoleBench(t)
	eye, admin := b.signIn(t, "eye"), b.signIn(t, "admin")
	for _, fields := range [][]string{{"token", "AT1"}, {"digest", revoked.DigestToken("AT1").String()}} {
		if got := admin.post(t, "/ui/tokens/explain", fields...); !strings.Contains(got.body, "Active.") ||
			!strings.Contains(got.body, "alice") {
			t.Errorf("as admin: got %s, want an active token of alice", got.body)
		}
		if got := eye.post(t, "/ui/tokens/explain", fields...); !strings.Contains(got.body, "Active.") ||
			strings.Contains(got.body, "alice") || strings.Contains(got.body, `href="/ui/grants`) {
			t.Errorf("as viewer: got %s, want no subject and no link", got.body)
		}
	}
}

func TestConsole_NoLeader_StatusIsShown(t *testing.T) {
	b := consoleBench(t)
	p := b.signIn(t, "admin")
	b.node.mu.Lock()
	b.node.fail = func(string) error { return revoked.ErrNoLeader }
	b.node.mu.Unlock()
	if got := p.get(t, "/ui/"); got.status != 200 || !strings.Contains(got.body, "The members could not be read") {
		t.Errorf("overview: got %d %s, want 200 without the members", got.status, got.body)
	}
	got := p.post(t, "/ui/grants/g1/end", "typed", "g1")
	if got.status != 503 || got.header.Get("Retry-After") == "" || !strings.Contains(got.body, "<h1>No leader") {
		t.Errorf("a write: got %d %s, want a page with 503", got.status, got.body)
	}
}

func TestConsole_Errors_ArePages(t *testing.T) {
	b := consoleBench(t)
	p := b.signIn(t, "admin")
	for path, want := range map[string]int{"/ui/none": 404, "/ui/grants/none": 404, "/ui/members/none": 404,
		"/ui/audit?hours=x": 400, "/ui/audit?kind=x": 400, "/ui/static/none.js": 404, "/ui/tokens/revoke": 405,
		"/ui/static/..%2fconsole.go": 404} {
		if got := p.get(t, path); got.status != want || !strings.Contains(got.body, "<h1>") {
			t.Errorf("GET %s: got %d %s, want a page with %d", path, got.status, got.body, want)
		}
	}
	if got := p.get(t, "/ui/tokens/revoke"); got.header.Get("Allow") != "POST" {
		t.Errorf("got Allow %q, want POST", got.header.Get("Allow"))
	}
	long := strings.Repeat("x", 70<<10)
	if got := p.post(t, "/ui/tokens/explain", "token", long); got.status != 413 {
		t.Errorf("a long form: got %d, want 413", got.status)
	}
	if got := p.post(t, "/ui/members/n2/none", "typed", "n2"); got.status != 404 {
		t.Errorf("an unknown action: got %d, want 404", got.status)
	}
}

// The answer that creates a secret shows it, and the secret works.
func TestConsole_NewClient_SecretIsShownOnce(t *testing.T) {
	b := consoleBench(t)
	p := b.signIn(t, "admin")
	got := p.post(t, "/ui/clients", "client_id", "second", "type", "confidential", "role", "viewer", "role", "auditor")
	found := regexp.MustCompile(`<code id="secret">([^<]+)</code>`).FindStringSubmatch(got.body)
	if got.status != 201 || found == nil {
		t.Fatalf("got %d %s, want 201 and a secret", got.status, got.body)
	}
	q := visitor{b: b}
	if got := q.post(t, "/ui/sign-in", "client_id", "second", "client_secret", found[1]); got.status != 303 {
		t.Errorf("sign in with the new secret: got %d %s, want 303", got.status, got.body)
	}
	if got := p.get(t, "/ui/clients/second"); strings.Contains(got.body, found[1]) ||
		!strings.Contains(got.body, "viewer, auditor") {
		t.Errorf("its page: got %s, want the roles and no secret", got.body)
	}
}
