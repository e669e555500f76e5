package api_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"revoked"
	"revoked/fsm/command"
	"revoked/internal/await"
)

// request returns a request of a client.
func (b *adminBench) request(t testing.TB, who, method, path string, body io.Reader) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, b.url+path, body)
	if err != nil {
		t.Fatal(err)
	}
	req.SetBasicAuth(who, secretOf(who))
	return req
}

// revokeSome registers and deletes one grant for each audience, revokes an unknown token and
// creates a cut-off by subject.
func revokeSome(t *testing.T, b *adminBench) {
	t.Helper()
	for _, aud := range []string{"rs1", "aud2", ""} {
		body := fmt.Sprintf(`{"grant_id":"g-%s","client_id":"app","subject":"alice","access_token":{"token":"t-%s"}`, aud,
			aud)
		if aud != "" {
			body += fmt.Sprintf(`,"audience":[%q]`, aud)
		}
		if got := b.do(t, "issuer", "POST", "/v1/grants", "", body+"}"); got.status != 201 {
			t.Fatal(got)
		}
		if got := b.do(t, "admin", "DELETE", "/v1/grants/g-"+aud+"?reason=why", "", ""); got.status != 200 {
			t.Fatal(got)
		}
	}
	if _, err := b.node.Revoke(t.Context(), actor(b, "app"), revoked.DigestToken("unknown")); err != nil {
		t.Fatal(err)
	}
	if got := b.do(t, "admin", "POST", "/v1/revocations", "",
		`{"subject":"alice","client_id":"app","reason":"alice left"}`); got.status != 200 {
		t.Fatal(got)
	}
}

func feedLines(t *testing.T, body string) (out []map[string]any) {
	t.Helper()
	for line := range strings.Lines(body) {
		var m map[string]any
		if err := json.Unmarshal([]byte(line), &m); err != nil {
			t.Fatalf("got line %q, want JSON", line)
		}
		out = append(out, m)
	}
	return out
}

func TestFeed_NDJSON_ListsEventsInOrder(t *testing.T) {
	b := newAdminBench(t)
	start := b.node.fsm.Applied()
	revokeSome(t, b)
	got := b.do(t, "admin", "GET", fmt.Sprintf("/v1/revocations?after=%d", start), "", "")
	events := feedLines(t, got.body)
	if got.status != 200 || got.header.Get("Content-Type") != "application/x-ndjson" || len(events) != 5 {
		t.Fatalf("got %d %s, want five events", got.status, got.body)
	}
	last := 0.0
	for _, e := range events {
		if e["index"].(float64) <= last {
			t.Errorf("got event %v out of order, want increasing indexes", e)
		}
		last = e["index"].(float64)
	}
	first, cutoff := events[0], events[4]
	if first["kind"] != "grant" || first["reason"] != "why" || first["actor"] != "admin" ||
		first["digests"].([]any)[0] != revoked.DigestToken("t-rs1").String() {
		t.Errorf("got %v, want the deleted grant", first)
	}
	if sel := cutoff["selector"].(map[string]any); cutoff["kind"] != "cutoff" || sel["subject"] != "alice" ||
		cutoff["issued_before"] == nil {
		t.Errorf("got %v, want the cut-off of alice", cutoff)
	}
	if sel := events[3]["selector"].(map[string]any); events[3]["kind"] != "token" || sel["client_id"] != "app" ||
		len(sel) != 1 {
		t.Errorf("got %v, want a token of app", events[3])
	}
	if got := b.do(t, "admin", "GET", fmt.Sprintf("/v1/revocations?after=%d", int(last)), "", ""); got.body != "" ||
		got.status != 200 {
		t.Errorf("nothing new: got %d %q, want 200 and nothing", got.status, got.body)
	}
	for _, after := range []string{"x", "-1", "1.5", "+1", "99999999999999999999"} {
		if got := b.do(t, "admin", "GET", "/v1/revocations?after="+after, "", ""); got.status != 400 {
			t.Errorf("after=%s: got %d, want 400", after, got.status)
		}
	}
	b.node.mu.Lock()
	b.node.fail = func(method string) error {
		if method == "Events" {
			return fmt.Errorf("%w: the oldest index held is %d", revoked.ErrGone, start+1)
		}
		return nil
	}
	b.node.mu.Unlock()
	if got := b.do(t, "admin", "GET", fmt.Sprintf("/v1/revocations?after=%d", start), "", ""); got.status != 410 {
		t.Errorf("no longer retained: got %d, want 410", got.status)
	}
}

// A reader that comes from another node waits until this node has caught up. A reader ahead of the
// whole log, which a restored backup made shorter, gets 410.
func TestFeed_ReaderAhead_WaitsOrGets410(t *testing.T) {
	b := newAdminBench(t)
	revokeSome(t, b)
	end := b.node.fsm.Applied()
	calls := 0
	during := func(f func() error) {
		b.node.mu.Lock()
		defer b.node.mu.Unlock()
		b.node.fail = func(method string) error {
			if method != "Newest" {
				return nil
			}
			calls++
			return f()
		}
	}
	sse := func(path, last string) reply {
		t.Helper()
		req := b.request(t, "admin", "GET", path, nil)
		req.Header.Set("Accept", "text/event-stream")
		req.Header.Set("Last-Event-ID", last)
		res, err := b.http.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		if res.StatusCode == 200 {
			return reply{status: 200}
		}
		body, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return reply{res.StatusCode, res.Header, string(body)}
	}
	get := func(after uint64, more string) reply {
		t.Helper()
		return b.do(t, "admin", "GET", fmt.Sprintf("/v1/revocations?after=%d%s", after, more), "", "")
	}

	during(func() error { return nil })
	for what, got := range map[string]reply{
		"one ahead": get(end+1, ""), "far ahead": get(1<<60, ""), "a following reader": get(end+1, "&follow=true"),
		"SSE":  sse("/v1/revocations", fmt.Sprint(end+1)),
		"HEAD": b.do(t, "admin", "HEAD", fmt.Sprintf("/v1/revocations?after=%d", end+1), "", ""),
	} {
		if got.status != 410 || what != "HEAD" && !strings.Contains(got.body, "after=0") {
			t.Errorf("ahead of the cluster, %s: got %d %s, want 410 with after=0", what, got.status, got.body)
		}
	}
	calls = 0
	if got := get(end, ""); got.status != 200 || got.body != "" || calls != 0 {
		t.Errorf("at the end: got %d %q and %d calls, want 200, no event and 0", got.status, got.body, calls)
	}

	for _, err := range []error{revoked.ErrNotCurrent, revoked.ErrNoLeader} {
		during(func() error { return err })
		if got := get(end+1, ""); got.status != 503 || got.header.Get("Retry-After") == "" {
			t.Errorf("%v: got %d, want 503", err, got.status)
		}
		if got := get(end, ""); got.status != 200 {
			t.Errorf("%v, at the end: got %d, want 200", err, got.status)
		}
	}

	caught := false
	during(func() error {
		for i := uint64(1); !caught && i <= 3; i++ {
			d := revoked.DigestToken(fmt.Sprint(i))
			b.node.mustApply(command.RevokeOp(b.node.setupActor(), d, ""))
		}
		caught = true
		return nil
	})
	got := get(end+2, "")
	events := feedLines(t, got.body)
	if got.status != 200 || len(events) != 1 || events[0]["index"] != float64(end+3) ||
		got.header.Get("Revoked-Index") != fmt.Sprint(end+3) {
		t.Errorf("ahead of this node only: got %d %s %s, want the one event after it", got.status,
			got.header.Get("Revoked-Index"), got.body)
	}
}

// An index of another era belongs to another history. A reader that resumed there could miss the
// cut-off of the restore that began the current era.
func TestFeed_OtherEra_Gets410(t *testing.T) {
	b := newAdminBench(t)
	revokeSome(t, b)
	end, era := b.node.fsm.Applied(), b.node.Era()
	b.node.mu.Lock()
	b.node.fail = func(method string) error {
		if method == "Newest" {
			return revoked.ErrNoLeader
		}
		return nil
	}
	b.node.mu.Unlock()
	other := revoked.EraOf("the cluster before")
	for _, tt := range []struct {
		name, after string
		status      int
	}{
		{"this era", fmt.Sprintf("%s.%d", era, end), 200},
		{"this era, from the beginning", era + ".0", 200},
		{"no era", fmt.Sprint(end), 200},
		{"this era, ahead of a node that has no leader", fmt.Sprintf("%s.%d", era, end+1), 503},
		{"another era", fmt.Sprintf("%s.%d", other, end-1), 410},
		{"another era, from the beginning", other + ".0", 410},
		{"another era, ahead of the log", fmt.Sprintf("%s.%d", other, end+1), 410},
		{"not an era", "x.1", 400},
		{"only an era", era, 400},
		{"an era without an index", era + ".", 400},
	} {
		for _, header := range []http.Header{nil, {"Accept": {"text/event-stream"}, "Last-Event-ID": {tt.after}}} {
			path := "/v1/revocations?after=" + tt.after
			if header != nil {
				path = "/v1/revocations?after=0"
			}
			req := b.request(t, "admin", "GET", path, nil)
			for name, values := range header {
				req.Header[name] = values
			}
			res, err := b.http.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			var body []byte
			if res.StatusCode != 200 {
				body, err = io.ReadAll(res.Body)
			} else if got := res.Header.Get("Revoked-Era"); got != era {
				t.Errorf("%s: got Revoked-Era %q, want %q", tt.name, got, era)
			}
			res.Body.Close()
			if err != nil || res.StatusCode != tt.status {
				t.Errorf("%s, %v: got %d %s, %v, want %d", tt.name, header, res.StatusCode, body, err, tt.status)
			}
			if tt.status == 410 && !strings.Contains(string(body), "start again from after=0") {
				t.Errorf("%s: got %s, want the remedy", tt.name, body)
			}
		}
	}
}

// A resource server sees digests of its audience and of tokens without an audience, and no subject
// in any field.
func TestFeed_ResourceServer_SeesItsAudience(t *testing.T) {
	b := newAdminBench(t)
	start := b.node.fsm.Applied()
	revokeSome(t, b)
	got := b.do(t, "rs2", "GET", fmt.Sprintf("/v1/revocations?after=%d", start), "", "")
	if strings.Contains(got.body, "alice") || strings.Contains(got.body, "reason") {
		t.Errorf("got %s, want no subject and no reason", got.body)
	}
	if strings.Contains(got.body, revoked.DigestToken("t-rs1").String()) {
		t.Error("got the digest of another audience, want none")
	}
	for _, token := range []string{"t-aud2", "t-", "unknown"} {
		if !strings.Contains(got.body, revoked.DigestToken(token).String()) {
			t.Errorf("got %s, want the digest of %s", got.body, token)
		}
	}
	events := feedLines(t, got.body)
	cutoff := events[len(events)-1]
	if cutoff["kind"] != "cutoff" || cutoff["withheld"] != true ||
		cutoff["selector"].(map[string]any)["client_id"] != "app" {
		t.Errorf("got %v, want a cut-off with withheld true", cutoff)
	}
}

// Last-Event-ID resumes after a whole index.
func TestFeed_SSE_ResumesWholeIndexes(t *testing.T) {
	b := newAdminBench(t)
	var ops []*command.Op
	for i := range 700 { // more than a page at one index
		ops = append(ops, command.RevokeOp(b.node.setupActor(), revoked.DigestToken(fmt.Sprint(i)), ""))
	}
	b.node.mustApply(ops...)
	at, era := b.node.fsm.Applied(), b.node.Era()
	open := func(last string) (*bufio.Scanner, func()) {
		req := b.request(t, "admin", "GET", "/v1/revocations?after=0", nil)
		req.Header.Set("Accept", "text/event-stream")
		if last != "" {
			req.Header.Set("Last-Event-ID", last)
		}
		res, err := b.http.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		if res.StatusCode != 200 || res.Header.Get("Content-Type") != "text/event-stream" {
			t.Fatalf("got %d %s, want 200 and events", res.StatusCode, res.Header)
		}
		return bufio.NewScanner(res.Body), func() { res.Body.Close() }
	}
	events, done := open("")
	data, ids := 0, 0
	for data < 700 && events.Scan() {
		switch line := events.Text(); {
		case strings.HasPrefix(line, "data: "):
			data++
		case strings.HasPrefix(line, "id: ") && data > 0:
			ids++
			if data != 699 || line != fmt.Sprintf("id: %s.%d", era, at) {
				t.Errorf("got %s after %d events, want the id with the last", line, data)
			}
		}
	}
	if data != 700 || ids != 1 {
		t.Errorf("got %d events and %d ids, want 700 and 1", data, ids)
	}
	done()

	events, done = open(fmt.Sprintf("%s.%d", era, at))
	defer done()
	if got := b.do(t, "admin", "POST", "/v1/revocations", "", `{"subject":"bob"}`); got.status != 200 {
		t.Fatal(got)
	}
	for events.Scan() {
		if line, ok := strings.CutPrefix(events.Text(), "data: "); ok {
			if !strings.Contains(line, `"bob"`) {
				t.Errorf("got %s, want only events after Last-Event-ID", line)
			}
			return
		}
	}
	t.Error("got the end of the stream, want an event")
}

// A stream ends when its credential becomes invalid. Its last line has the reason, and the index up
// to which the stream was complete.
func TestFeed_CredentialEnds_StreamEnds(t *testing.T) {
	for _, row := range credentialEnds("rs1") {
		for _, accept := range []string{"application/x-ndjson", "text/event-stream"} {
			b := newAdminBench(t)
			req := b.request(t, "rs1", "GET", "/v1/revocations?follow=true", nil)
			req.Header.Set("Accept", accept)
			res, err := b.http.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			row.change(t, b)
			body, err := io.ReadAll(res.Body)
			res.Body.Close()
			if err != nil {
				t.Errorf("%s, %s: got %v, want a clean end", row.name, accept, err)
			}
			lines := strings.Split(strings.TrimSpace(string(body)), "\n")
			var last struct {
				Kind, Reason string
				Index        *uint64
			}
			text := strings.TrimPrefix(lines[len(lines)-1], "data: ")
			if err := json.Unmarshal([]byte(text), &last); err != nil || last.Kind != "end" || last.Reason != row.reason ||
				last.Index == nil {
				t.Errorf("%s, %s: got last line %q, want kind end with reason %s", row.name, accept, text, row.reason)
			}
			if n := strings.Count(string(body), "heartbeat"); n > 1 {
				t.Errorf("%s, %s: got %d heartbeats, want the end before the second", row.name, accept, n)
			}
			revokeSome(t, b)
			if got := b.do(t, "rs1", "GET", "/v1/revocations", "", ""); got.status != 401 && got.status != 403 {
				t.Errorf("%s: got %d for a new request, want 401 or 403", row.name, got.status)
			}
		}
	}
}

// A stream continues after changes that leave its credential as it is.
func TestFeed_OtherChanges_StreamContinues(t *testing.T) {
	b := newAdminBench(t)
	res, err := b.http.Do(b.request(t, "rs1", "GET", "/v1/revocations?follow=true", nil))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if got := b.do(t, "admin", "POST", "/v1/clients/rs1/secret", "", "{}"); got.status != 200 { // the old one stays valid
		t.Fatal(got)
	}
	if got := b.do(t, "admin", "PATCH", "/v1/clients/rs1", "", `{"audiences":["rs9"]}`); got.status != 200 {
		t.Fatal(got)
	}
	revokeSome(t, b)
	lines := bufio.NewScanner(res.Body)
	for lines.Scan() {
		switch text := lines.Text(); {
		case strings.Contains(text, `"end"`), strings.Contains(text, revoked.DigestToken("t-rs1").String()):
			t.Fatalf("got %s, want no end and no digest of its former audience", text)
		case strings.Contains(text, `"cutoff"`):
			return
		}
	}
	t.Error("got the end of the stream, want the cut-off")
}

// A bounded answer that ends early is aborted, so that a reader does not take it for complete.
func TestFeed_BoundedAnswerEndsEarly_IsAborted(t *testing.T) {
	b := newAdminBench(t)
	for i := range 3 {
		var ops []*command.Op
		for j := range 500 { // each fills a page
			ops = append(ops, command.RevokeOp(b.node.setupActor(), revoked.DigestToken(fmt.Sprint(i, j)), ""))
		}
		b.node.mustApply(ops...)
	}
	pages := 0
	b.node.mu.Lock()
	b.node.fail = func(method string) error {
		if method == "Events" {
			if pages++; pages == 2 {
				b.node.change("rs1", func(c *revoked.Client) { c.Disabled = true })
			}
		}
		return nil
	}
	b.node.mu.Unlock()
	res, err := b.http.Do(b.request(t, "rs1", "GET", "/v1/revocations", nil))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err == nil || !strings.HasSuffix(string(body), `"kind":"end","reason":"client_disabled"}`+"\n") {
		t.Errorf("got %.200s, error %v, want an end line and an aborted answer", body[max(0, len(body)-200):], err)
	}
}

// Entries without events, of which an idle cluster commits two a second, must not wake the readers.
func TestFeed_EntriesWithoutEvents_WakeNoReader(t *testing.T) {
	b := newAdminBench(t)
	const readers, ticks = 20, 50
	var pages int
	waits := make(chan struct{}, readers*(ticks+3))
	b.node.mu.Lock()
	b.node.fail = func(method string) error {
		switch method {
		case "Events":
			pages++
		case "WaitEvent":
			waits <- struct{}{}
		}
		return nil
	}
	b.node.mu.Unlock()
	var bodies []*bufio.Scanner
	for range readers {
		res, err := b.http.Do(b.request(t, "rs1", "GET", "/v1/revocations?follow=true", nil))
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		bodies = append(bodies, bufio.NewScanner(res.Body))
	}
	// Each reader reads the entries that the node committed at its start, and then waits for an event.
	for range readers {
		await.Receive(t, waits, "a waiting reader")
	}
	for range ticks {
		b.node.apply(&command.Tick{Stamp: b.node.stamp()})
	}
	b.node.mustApply(command.RevokeOp(b.node.setupActor(), revoked.DigestToken("x"), ""))
	for _, s := range bodies {
		for s.Scan() && !strings.Contains(s.Text(), `"token"`) {
		}
		if s.Err() != nil {
			t.Fatal(s.Err())
		}
	}
	b.node.mu.Lock()
	defer b.node.mu.Unlock()
	if most := 5 * readers; pages > most {
		t.Errorf("got %d pages read by %d readers for %d entries and one event, want at most %d", pages, readers, ticks, most)
	}
}

func TestFeed_Shutdown_EndsStreams(t *testing.T) {
	b := newAdminBench(t)
	for _, h2 := range []bool{false, true} {
		res, err := b.client(t, h2).Do(b.request(t, "rs1", "GET", "/v1/revocations?follow=true", nil))
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		line, err := bufio.NewReader(res.Body).ReadString('\n')
		if err != nil || !strings.Contains(line, "heartbeat") {
			t.Fatalf("got %q %v, want a heartbeat", line, err)
		}
	}
	if err := b.srv.Shutdown(t.Context()); err != nil {
		t.Errorf("got %v, want a shutdown before its timeout", err)
	}
}

// HEAD is GET without the content (RFC 9110 sections 9.1 and 9.3.2), even if GET streams.
func TestV1_Head_EqualsGet(t *testing.T) {
	b := newAdminBench(t)
	revokeSome(t, b)
	for path, kind := range map[string]string{
		"/v1/clients": "application/json", "/v1/clients/app": "application/json", "/v1/grants/g-rs1": "application/json",
		"/v1/settings": "application/json", "/v1/members": "application/json", "/v1/status": "application/json",
		"/v1/revocations": "text/event-stream", "/v1/revocations?follow=true": "text/event-stream",
		"/v1/snapshot": "application/octet-stream",
	} {
		req := b.request(t, "admin", http.MethodHead, path, nil)
		req.Header.Set("Accept", "text/event-stream")
		resp, err := b.http.Do(req)
		if err != nil {
			t.Errorf("HEAD %s: %v", path, err)
			continue
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if got := resp.Header.Get("Content-Type"); resp.StatusCode != 200 || !strings.HasPrefix(got, kind) ||
			len(body) > 0 || err != nil {
			t.Errorf("HEAD %s: got %d, %s, %d bytes, %v; want 200, %s and nothing", path, resp.StatusCode, got, len(body), err,
				kind)
		}
	}
}

// A type that Accept does not contain, or contains with weight 0, is not sent (RFC 9110 sections
// 12.4.2 and 12.5.1).
func TestFeed_AcceptHeader_PicksFormat(t *testing.T) {
	b := newAdminBench(t)
	revokeSome(t, b)
	for accept, want := range map[string]string{
		"": "application/x-ndjson", "*/*": "application/x-ndjson", "text/event-stream;q=0": "application/x-ndjson",
		"text/event-streams": "application/x-ndjson", "TEXT/Event-Stream": "text/event-stream",
		"application/json, text/event-stream;q=0.5":               "text/event-stream",
		"application/x-ndjson, text/event-stream;q=0.1":           "application/x-ndjson",
		"text/event-stream;q=0.1,application/x-ndjson;q=0.2":      "application/x-ndjson",
		"application/x-ndjson;q=0.1, text/event-stream":           "text/event-stream",
		"application/x-ndjson, text/event-stream":                 "text/event-stream",
		"text/event-stream, */*;q=0.1":                            "text/event-stream",
		"text/event-stream;q=0.1, */*":                            "application/x-ndjson",
		"text/event-stream;q=0.5, application/*;q=0.6, */*;q=0.1": "application/x-ndjson",
		"text/event-stream;q=0.5, application/x-ndjson;q=0, */*":  "text/event-stream",
		"text/event-stream, */*":                                  "text/event-stream",
	} {
		req := b.request(t, "admin", http.MethodHead, "/v1/revocations", nil)
		if accept != "" {
			req.Header.Set("Accept", accept)
		}
		resp, err := b.http.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if got := resp.Header.Get("Content-Type"); got != want {
			t.Errorf("Accept %q: got %s, want %s", accept, got, want)
		}
	}
}
