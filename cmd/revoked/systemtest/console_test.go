//go:build system

package systemtest

import (
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/chromedp/chromedp/kb"
)

// consolePages are the pages of an administrator, with their headings.
var consolePages = [][2]string{
	{"/ui/", "Overview"}, {"/ui/members", "Members"}, {"/ui/members/node2", "Member node2"}, {"/ui/tokens", "Tokens"},
	{"/ui/grants", "Grants"}, {"/ui/grants/g1", "Grant"}, {"/ui/cutoffs", "Cut-offs"}, {"/ui/clients", "Clients"},
	{"/ui/clients/app", "Client app"}, {"/ui/issuers", "Issuers"}, {"/ui/issuers/demo", "Issuer demo"},
	{"/ui/settings", "Settings"}, {"/ui/settings/secret_grace", "Setting secret_grace"},
	{"/ui/past", "A token in the past"}, {"/ui/audit", "Audit"}, {"/ui/none", "No such page"},
}

// signIn signs in as the administrator, using only the keyboard.
func (b *tab) signIn(c *cluster, m *member) {
	b.t.Helper()
	b.open(m.API + "/ui")
	b.titled("Sign in")
	admin := c.Clients["admin"]
	b.keys(kb.Tab + kb.Tab + kb.Tab) // the skip link, the brand, the first field
	b.until("document.activeElement.id === 'client_id'")
	b.keys(admin.ClientID + kb.Tab + admin.ClientSecret + kb.Enter)
	b.titled("Overview")
}

// accessible fails the test for each accessibility fault of the page.
func (b *tab) accessible(rules, what string) {
	b.t.Helper()
	for _, fault := range eval[[]string](b, rules) {
		b.t.Errorf("%s: %s", what, fault)
	}
}

// focusable selects the elements that the keyboard must reach, as text for a script.
const focusable = `[...document.querySelectorAll("a[href], button, input:not([type=hidden]), select, textarea, ` +
	`[tabindex='0']")].filter((e) => e.checkVisibility())`

// reachable presses Tab until each element that accepts input has had the focus. It fails the test
// if an element does not get the focus, or does not show it (WCAG 2.1.1 and 2.4.7).
func (b *tab) reachable(what string) {
	b.t.Helper()
	n := eval[int](b, focusable+".length")
	seen := map[int]bool{}
	for range n {
		b.keys(kb.Tab)
		at := eval[int](b, focusable+".indexOf(document.activeElement)")
		seen[at] = true
		if !eval[bool](b, "(() => { const s = getComputedStyle(document.activeElement);"+
			" return s.outlineStyle !== 'none' && parseFloat(s.outlineWidth) >= 2 })()") {
			b.t.Errorf("%s: the focus is not visible at %s", what, eval[string](b, "document.activeElement.outerHTML"))
		}
	}
	if len(seen) != n || seen[-1] {
		b.t.Errorf("%s: the keyboard reaches %d elements (%v), want %d", what, len(seen), seen, n)
	}
}

// accessibilityRules returns a script that checks a page.
func accessibilityRules(t testing.TB) string {
	t.Helper()
	rules, err := os.ReadFile("testdata/accessibility.js")
	if err != nil {
		t.Fatal(err)
	}
	return string(rules)
}

// Every page fits a phone, is legible in light and dark colors, and follows the rules of
// accessibility. It does not violate its own content security policy.
func TestConsole_Pages_AreAccessible(t *testing.T) {
	c := newCluster(t, 3)
	for i, m := range c.Nodes {
		m.args = []string{"--region", []string{"north", "south"}[i%2]}
	}
	c.startAll(t)
	c.awaitReady(t, c.Nodes...)
	m, rules := c.Nodes[0], accessibilityRules(t)
	c.mustRegister(t, m, "g1", "alice", "AT1", "RT1")
	record := filepath.Join(c.dir, "demo-issuer.json")
	if code, _, messages := runProgram(t, c.tool("admin", m), "", "issuer", "create", record); code != 0 {
		t.Fatalf("create the issuer: got exit code %d, want 0: %s", code, messages)
	}
	b := openTab(t, c)
	b.open(m.API + "/ui/sign-in")
	b.accessible(rules, "sign-in")
	b.reachable("sign-in")
	b.shoot("sign-in")
	b.signIn(c, m)
	for _, look := range []struct {
		name          string
		width, height int64
		dark          bool
	}{
		{"light", 1200, 900, false}, {"dark", 1200, 900, true}, {"narrow", 360, 740, false},
		{"narrow-dark", 360, 740, true},
	} {
		b.resize(look.width, look.height, look.dark)
		for _, page := range consolePages {
			b.open(m.API + page[0])
			b.titled(page[1])
			b.shoot(look.name + strings.ReplaceAll(page[0], "/", "-"))
			b.accessible(rules, look.name+" "+page[0])
			if look.name == "light" {
				b.reachable(page[0])
			}
		}
	}
	for _, page := range consolePages[:14] { // with a wrong selector, the rules above would check nothing
		b.open(m.API + page[0])
		if eval[int](b, "document.querySelectorAll('table th[scope=col], form label').length") == 0 {
			t.Errorf("%s: got no table and no form", page[0])
		}
	}
}

// The rules find faults. Otherwise the test above would prove nothing.
func TestConsole_Rules_FindFaults(t *testing.T) {
	c := startCluster(t, 1)
	b, rules := openTab(t, c), accessibilityRules(t)
	b.open(c.Nodes[0].API + "/ui/sign-in")
	for rule, change := range map[string]string{
		"3.1.1": "document.documentElement.lang = ''", "2.4.2": "document.title = ''",
		"4.1.2": "document.querySelector('label').remove()", "1.3.1": "document.querySelector('h1').remove()",
		"1.4.3": "document.querySelector('label').append(Object.assign(document.createElement('b'), {textContent: 'x'}));" +
			"document.querySelector('label b').style.color = '#999'",
		"1.4.10": "document.querySelector('form').style.minWidth = '3000px'",
		"2.4.1":  "document.querySelector('.skip').remove()",
	} {
		b.open(c.Nodes[0].API + "/ui/sign-in")
		eval[any](b, change+"; null")
		found := strings.Join(eval[[]string](b, rules), "\n")
		if !strings.Contains(found, rule) {
			t.Errorf("%s: got %q, want the fault %s", change, found, rule)
		}
	}
}

// Actions of an administrator in the browser have the same effect as API calls. When a grant is
// revoked, its tokens become inactive on every node.
func TestConsole_Actions_TakeEffect(t *testing.T) {
	c := startCluster(t, 3)
	m := c.Nodes[0]
	for _, id := range []string{"1", "2", "3", "4"} {
		c.mustRegister(t, m, "g"+id, "alice", "AT-secret-"+id, "RT-secret-"+id)
	}
	b := openTab(t, c)
	b.signIn(c, m)

	b.open(m.API + "/ui/tokens")
	b.fill("#token", "AT-secret-1")
	b.submit("form[data-hash]")
	b.text("Active.")
	b.text("alice")
	if _, bodies := b.sent(); strings.Contains(bodies, "AT-secret-1") || !strings.Contains(bodies, "digest=") {
		t.Errorf("explain: got the bodies %s, want only the digest", bodies)
	}
	b.fill("#revoke", "AT-secret-1")
	b.fill("#typed", "revoke")
	b.submit("form[action$=revoke]")
	b.text("Revoked: no node answers")
	c.wantActive(t, "AT-secret-1", false, c.Nodes...)
	c.wantActive(t, "AT-secret-2", true, c.Nodes...)

	b.open(m.API + "/ui/grants")
	b.fill("#subject", "alice"+kb.Enter)
	b.text("g2")
	b.open(m.API + "/ui/grants/g2")
	b.titled("Grant")
	b.fill("input[name=typed]", "g1") // another one
	b.submit("form[action$=end]")
	b.titled("Not confirmed")
	c.wantActive(t, "AT-secret-2", true, c.Nodes...)
	b.open(m.API + "/ui/grants/g2")
	b.fill("input[name=typed]", "g2"+kb.Enter)
	b.text("The grant is revoked")
	c.wantActive(t, "AT-secret-2", false, c.Nodes...)

	b.open(m.API + "/ui/cutoffs")
	b.fill("#subject", "alice")
	b.submit("form[action$=dry-run]")
	b.text("2 active grants match")
	b.shoot("dry-run")
	c.wantActive(t, "AT-secret-3", true, c.Nodes...)
	b.fill("input[name=typed]", "2"+kb.Enter)
	b.text("2 grants are revoked")
	c.wantActive(t, "AT-secret-3", false, c.Nodes...)
	c.wantActive(t, "AT-secret-4", false, c.Nodes...)

	b.open(m.API + "/ui/past")
	b.fill("#token", "AT-secret-1")
	b.submit("form[data-hash]")
	b.text("Not active.")
	b.accessible(accessibilityRules(t), "an answer about the past")
	b.shoot("past-answer")
	b.fill("#token", "a.b.c") // looks like a JWT
	b.fill("#at", "tomorrow")
	b.submit("form[data-hash]")
	b.text("at must be Unix seconds")
	b.shoot("past-error")
	if _, bodies := b.sent(); strings.Contains(bodies, "a.b.c") {
		t.Errorf("the past: got the bodies %s, want only the digest", bodies)
	}

	b.open(m.API + "/ui/settings/secret_grace")
	b.fill("#value", "99999h")
	b.fill("#typed", "secret_grace"+kb.Enter)
	b.text("secret_grace must be from")
	b.shoot("setting-error")
	b.open(m.API + "/ui/settings/secret_grace")
	b.fill("#value", "48h")
	b.fill("#typed", "secret_grace"+kb.Enter)
	b.text("secret_grace is changed")
	b.shoot("setting-changed")

	b.open(m.API + "/ui/issuers")
	record, err := os.ReadFile(filepath.Join(c.dir, "demo-issuer.json"))
	if err != nil {
		t.Fatal(err)
	}
	replace := func(text string) {
		eval[any](b, "document.getElementById('record').value = "+strconv.Quote(text)+"; null")
	}
	replace(`{"name":"demo"}`)
	b.submit("form[action$=issuers]")
	b.until("document.readyState === 'complete' && document.querySelector('[role=alert]') !== null")
	b.shoot("issuer-error")
	b.open(m.API + "/ui/issuers")
	replace(string(record))
	b.submit("form[action$=issuers]")
	b.text("demo is created")
	replace(`{"max_lifetime":"2h"}`)
	b.fill("#change", "demo"+kb.Enter)
	b.text("demo is changed")
	b.shoot("issuer-changed")

	if urls, _ := b.sent(); strings.Contains(urls, "AT-secret") || strings.Contains(urls, "alice") {
		t.Errorf("got a token or a subject in an address: %s", urls)
	}
	b.submit(".who")
	b.titled("Sign in")
	b.open(m.API + "/ui/")
	b.titled("Sign in")
}

// The page of the audit log shows an entry when it is committed, without loading the page again.
func TestConsole_Audit_IsLive(t *testing.T) {
	c := startCluster(t, 3)
	m := c.Nodes[0]
	c.mustRegister(t, m, "g1", "alice", "AT1", "RT1")
	b := openTab(t, c)
	b.signIn(c, m)
	b.open(m.API + "/ui/audit")
	b.text("New entries appear as they are committed.")
	eval[any](b, "window.same = true; null")
	end := request{method: http.MethodDelete, path: "/v1/grants/g1?reason=seen-live", as: "admin"}
	if a := c.send(c.Nodes[1], end); a.status != http.StatusOK {
		t.Fatalf("end the grant: got %d %s", a.status, a.body)
	}
	b.text("seen-live")
	if !eval[bool](b, "window.same && document.querySelector('#audit tbody tr').innerText.includes('grant.delete')") {
		t.Error("got a new page, want a new first row")
	}
	b.shoot("audit-live")
	if got := eval[string](b, "document.querySelector('#audit tbody tr').className"); got != "fresh" {
		t.Errorf("the new row: got class %q, want fresh", got)
	}

	// The first request of the page requests entries after an index beyond the log, which the node
	// does not have.
	b.first(`{ const real = fetch; let old = true; window.fetch = (address, options) => {
		if (old) address = address.replace(/&after=.*/, "&after=999999999999");
		old = false;
		return real(address, options);
	} }`)
	b.open(m.API + "/ui/audit")
	b.text("So this list starts again with the newest ones. New entries appear as they are committed.")
	c.mustRegister(t, m, "g2", "alice", "AT2", "RT2")
	end.path = "/v1/grants/g2?reason=seen-after-the-gap"
	if a := c.send(c.Nodes[1], end); a.status != http.StatusOK {
		t.Fatalf("end the grant: got %d %s", a.status, a.body)
	}
	b.text("seen-after-the-gap")
	b.text("seen-live")
}

// Everything can be read and done without JavaScript.
func TestConsole_NoScripts_Works(t *testing.T) {
	c := startCluster(t, 1)
	m := c.Nodes[0]
	c.mustRegister(t, m, "g1", "alice", "AT1", "RT1")
	b := openTab(t, c)
	b.noScripts(true)
	b.open(m.API + "/ui")
	admin := c.Clients["admin"]
	b.fill("#client_id", admin.ClientID)
	b.fill("#client_secret", admin.ClientSecret+kb.Enter)
	b.titled("Overview")
	if got := eval[string](b, "document.getElementById('health').innerText"); !strings.Contains(got, "node1 leads") {
		t.Errorf("got the health %q", got)
	}
	b.open(m.API + "/ui/tokens")
	if !eval[bool](b, "document.querySelector('[data-hash-choice]').hidden") {
		t.Error("got the choice of hashing, which needs a script")
	}
	b.fill("#revoke", "AT1")
	b.fill("#typed", "revoke"+kb.Enter)
	b.text("Revoked: no node answers")
	c.wantActive(t, "AT1", false, m)
	b.open(m.API + "/ui/audit")
	b.text("token.revoke")
}

// A page shows a lost node and a lost quorum without being loaded again. The page of a node that is
// not in a cluster explains what is missing.
func TestConsole_Failures_AreShown(t *testing.T) {
	c := newCluster(t, 3)
	m := c.Nodes[0]
	c.start(t, m)
	await(t, "the node to serve", func() error {
		return c.send(m, request{method: http.MethodGet, path: "/livez"}).want(http.StatusOK)
	})
	b := openTab(t, c)
	b.signIn(c, m)
	b.text("This node is not in a cluster yet")
	b.shoot("empty")
	c.start(t, c.Nodes[1])
	c.start(t, c.Nodes[2])
	c.awaitReady(t, c.Nodes...)
	b.signIn(c, m) // the client has a new record now
	b.text("3 of 3 voters answer")
	eval[any](b, "window.same = true; null")
	lost := c.without(m, c.leader(t))[0]
	lost.proc.Kill()
	b.text("2 of 3 voters answer")
	b.until("document.querySelector('svg.map').ariaLabel.includes('" + lost.ID + " lost')")
	b.shoot("lost")
	b.accessible(accessibilityRules(t), "a lost node")
	for _, other := range c.without(m, lost) {
		other.proc.Kill()
	}
	b.text("No leader: 1 of 3 voters answer and 2 are needed")
	b.shoot("no-quorum")
	if !eval[bool](b, "window.same") {
		t.Error("got a new page, want the same one with a new part")
	}
	b.open(m.API + "/ui/clients")
	b.titled("No leader")
	b.shoot("no-quorum-clients")
}

// A page updates itself and keeps the focus and the scroll position. While the user types or has
// selected text, it does not update itself, and a notice explains why.
func TestConsole_Refresh_KeepsFocusAndText(t *testing.T) {
	c := startCluster(t, 1)
	m := c.Nodes[0]
	b := openTab(t, c)
	b.signIn(c, m)
	b.resize(360, 740, false)
	b.open(m.API + "/ui/members")
	b.titled("Members")
	replaced := func(what string) {
		t.Helper()
		eval[any](b, "window.old = document.querySelector('#live table'); null")
		b.until("document.querySelector('#live table') !== window.old")
		if got := eval[string](b, "document.getElementById('stale')?.innerText ?? ''"); got != "" {
			t.Errorf("%s: got the notice %q, want none", what, got)
		}
	}
	eval[any](b, "(() => { const e = document.querySelector('#live .scroll'); e.focus(); e.scrollTo(40, 0) })(); null")
	replaced("the focus in the table")
	if !eval[bool](b, "document.activeElement.matches('#live .scroll') && document.activeElement.scrollLeft === 40") {
		t.Errorf("got the focus at %s", eval[string](b, "document.activeElement.outerHTML"))
	}
	eval[any](b, "document.querySelector('#live a').focus(); null")
	replaced("the focus at a link")
	if !eval[bool](b, "document.activeElement.matches('#live a[href=\"/ui/members/node1\"]')") {
		t.Errorf("got the focus at %s, want the link", eval[string](b, "document.activeElement.outerHTML"))
	}
	eval[any](b, "getSelection().selectAllChildren(document.querySelector('#live th')); null")
	b.until("document.getElementById('stale')?.innerText.includes('while text is selected')")
	eval[any](b, "getSelection().empty(); null")
	replaced("without a selection")
	eval[any](b, "document.getElementById('live').append(Object.assign(document.createElement('input'), {id: 'typed'})); null")
	b.fill("#typed", "half a name")
	eval[any](b, "document.activeElement.blur(); null")
	b.until("document.getElementById('stale')?.innerText.includes('while you fill in its form')")
	if got := eval[string](b, "document.getElementById('typed').value"); got != "half a name" {
		t.Errorf("got the text %q, want what was typed", got)
	}
	eval[any](b, "document.getElementById('typed').value = ''; null")
	replaced("without text")
}
