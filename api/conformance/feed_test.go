package conformance_test

import (
	"bufio"
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

func cutoffScenarios() []scenario {
	return []scenario{
		{"contract", "3 \"several selectors must all match\"", "a cut-off revokes matching tokens only", cutoffSelectors},
		{"contract", "3 \"dry_run\"", "dry_run and expect count first", cutoffCounts},
		{"contract", "3 \"equal whole seconds count as before\"", "issued_before decides by the second", cutoffSeconds},
		{"contract", "3 \"POST /v1/revocations\"", "cut-offs that are refused", cutoffRefusals},
		{"GR-01", "contract 3", "every token of a subject, and of no other", cutoffOfSubject},
	}
}

func cutoffSelectors(t *testing.T, s *stage) {
	for _, row := range []struct{ title, body, dead string }{
		{"a subject", `{"subject":"{subject}"}`, "AT1 RT1 AT2 RT2 AT3 ATa ATb ATc RTg ATp RTp ATq RTq"},
		{"a session", `{"session":"{session}"}`, "AT1 RT1 AT2 RT2 AT3 ATa ATb ATc RTg ATp RTp ATq RTq"},
		{"a subject and a client", `{"subject":"{subject}","client_id":"c2"}`, "AT2 RT2"},
		{"a session and an issuer", `{"session":"{session}","issuer":"https://as.example","client_id":"pub1"}`, "ATp RTp"},
		{"a subject and another session", `{"subject":"{subject}","session":"none"}`, ""},
		{"a subject and another issuer", `{"subject":"{subject}","issuer":"https://other.example"}`, ""},
		{"a grant", `{"grant_id":"{G}"}`, whole},
		{"a grant and the subject of another", `{"grant_id":"{G}","subject":"nobody"}`, ""},
		{"all five", `{"grant_id":"{G}","subject":"{subject}","session":"{session}","client_id":"c1","issuer":"https://as.example"}`, whole},
	} {
		w := s.newTokens(t, s.Follower(t))
		body := strings.NewReplacer("{subject}", w.subject(), "{session}", w.session(), "{G}",
			w.grants["G"]).Replace(row.body)
		for range 2 { // a repeated request gets 200 too
			keys(t, row.title, s.call(t, "POST", "/v1/revocations", "adm", body, 200), "index")
		}
		w.check(t, row.dead)
		if t.Failed() {
			t.Fatalf("after a cut-off by %s", row.title)
		}
	}
}

func cutoffCounts(t *testing.T, s *stage) {
	w := s.newTokens(t, s.Follower(t))
	selector := `"subject":"` + w.subject() + `","client_id":"c1"`
	dry := s.call(t, "POST", "/v1/revocations", "adm", `{`+selector+`,"dry_run":true}`, 200)
	if keys(t, "dry run", dry, "index matched"); dry["matched"] != 3.0 {
		t.Errorf("dry run: got %v, want 3 matched", dry)
	}
	w.check(t, "")
	doc := s.call(t, "POST", "/v1/revocations", "adm", `{`+selector+`,"expect":2}`, 409)
	if doc["matched"] != 3.0 {
		t.Errorf("another number expected: got %v", doc)
	}
	s.call(t, "POST", "/v1/revocations", "adm", `{`+selector+`,"expect":0,"dry_run":true}`, 409)
	w.check(t, "")
	done := s.call(t, "POST", "/v1/revocations", "adm", `{`+selector+`,"expect":3,"reason":"left the company"}`, 200)
	if keys(t, "expected", done, "index matched"); done["matched"] != 3.0 {
		t.Errorf("expected: got %v", done)
	}
	w.check(t, "AT1 RT1 AT3 "+whole)
	if again := s.call(t, "POST", "/v1/revocations", "adm", `{`+selector+`,"dry_run":true}`,
		200); again["matched"] != 0.0 {
		t.Errorf("afterwards: got %v, want 0 matched, since only active grants count", again)
	}
	view := s.call(t, "GET", "/v1/grants/"+w.grants["g1"], "adm", "", 200)
	if end, _ := view["revoked"].(map[string]any); view["state"] != "revoked" || end["by"] != "adm" ||
		end["reason"] != "left the company" || end["index"] != done["index"] {
		t.Errorf("a grant that was cut off: got %v", view)
	}
}

func cutoffSeconds(t *testing.T, s *stage) {
	n := sequence.Add(1)
	subject := fmt.Sprintf("second.%d", n)
	cut := s.now().Unix() - 100
	register := func(name, iat string) (token, state string) {
		token = fmt.Sprintf("%ssecond.%d.%s", rawMark, n, name)
		doc := s.call(t, "POST", "/v1/grants", "iss",
			fmt.Sprintf(`{"client_id":"c1","subject":%q,"access_token":{"token":%q,"issued_at":%s}}`, subject, token, iat),
			201)
		return token, fmt.Sprint(doc["state"])
	}
	rows := []struct {
		name string
		iat  string
		want bool
	}{
		{"before", fmt.Sprintf("%d", cut-1), false}, {"equal", fmt.Sprintf("%d", cut), false},
		{"fraction", fmt.Sprintf("%d.9", cut), false}, {"after", fmt.Sprintf("%d", cut+1), true},
	}
	for _, row := range rows {
		token, _ := register(row.name, row.iat)
		s.everywhere(t, row.name, token, false, true)
	}
	s.call(t, "POST", "/v1/revocations", "adm", fmt.Sprintf(`{"subject":%q,"issued_before":%d.1}`, subject, cut), 200)
	for _, row := range rows {
		s.everywhere(t, row.name+" the cut-off", fmt.Sprintf("%ssecond.%d.%s", rawMark, n, row.name), false, row.want)
		late, state := register(row.name+".late", row.iat)
		if want := map[bool]string{true: "active", false: "revoked"}[row.want]; state != want {
			t.Errorf("%s, registered after the cut-off: got %s, want %s", row.name, state, want)
		}
		s.everywhere(t, row.name+" the cut-off and registered late", late, false, row.want)
	}
}

func cutoffRefusals(t *testing.T, s *stage) {
	far := s.now().Unix() + 100_000
	for _, row := range []struct {
		body   string
		status int
	}{
		{`{}`, 400}, {`{"reason":"x"}`, 400}, {`{"subject":""}`, 400}, {`{"subject":1}`, 400},
		{`{"subject":"x","issued_before":"now"}`, 400},
		{`{"subject":"x","expect":-1}`, 400}, {`{"subject":"x","dry_run":"yes"}`, 400},
		{`{"subject":"x","everything":true}`, 400},
		{fmt.Sprintf(`{"subject":"x","issued_before":%d}`, far), 422},
	} {
		s.call(t, "POST", "/v1/revocations", "adm", row.body, row.status)
	}
}

func cutoffOfSubject(t *testing.T, s *stage) {
	one, two := s.newTokens(t, s.Follower(t)), s.newTokens(t, s.Follower(t))
	s.call(t, "POST", "/v1/revocations", "adm", `{"subject":"`+one.subject()+`"}`, 200)
	one.check(t, "AT1 RT1 AT2 RT2 AT3 ATa ATb ATc RTg ATp RTp ATq RTq")
	two.check(t, "")
}

func feedScenarios() []scenario {
	return []scenario{
		{"contract", "3 \"the feed in log order\"", "an administrator reads every event", feedOfEverything},
		{"contract", "3 \"resource servers see their audience's digests\"", "resource servers see only part of each event",
			feedForResourceServers},
		{"contract", "3 \"resumable by Last-Event-ID\"", "server-sent events resume after the last event", feedResumes},
		{"contract", "3 \"the feed in log order\"", "heartbeats of an idle cluster move the index", feedHeartbeats},
		{"contract", "3 \"410\"", "an index ahead of the log gets 410, one ahead of this node only does not", feedAhead},
		{"contract", "6 \"ERA.INDEX\"", "an id of another era gets 410", feedOtherEra},
		{"contract", "3 \"410\"", "an index that is no longer retained gets 410", feedIsGone},
	}
}

// A feedLine is one event as JSON.
type feedLine struct {
	Index    uint64            `json:"index"`
	Time     float64           `json:"time"`
	Kind     string            `json:"kind"`
	Digests  []string          `json:"digests"`
	Selector map[string]string `json:"selector"`
	Action   string            `json:"action"`
	Actor    string            `json:"actor"`
	Reason   string            `json:"reason"`
}

func (s *stage) applied(t *testing.T) uint64 {
	t.Helper()
	r := s.json(t, s.Leader(t), http.MethodGet, "/v1/status", "adm", "")
	var st struct {
		AppliedIndex uint64 `json:"applied_index"`
	}
	if err := json.Unmarshal([]byte(r.Body), &st); err != nil || r.Status != 200 {
		t.Fatalf("status: got %d %s (%v)", r.Status, r.Body, err)
	}
	return st.AppliedIndex
}

// events reads the feed of a member as NDJSON.
func (s *stage) events(t *testing.T, m *member, who string, after uint64) []feedLine {
	t.Helper()
	r := s.json(t, m, http.MethodGet, "/v1/revocations?after="+strconv.FormatUint(after, 10), who, "")
	if r.Status != 200 || r.Header.Get("Content-Type") != ndjson {
		t.Fatalf("feed: got %d %s %s", r.Status, r.Header.Get("Content-Type"), r.Body)
	}
	var out []feedLine
	last := after
	for line := range strings.Lines(r.Body) {
		var e feedLine
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatalf("feed line %q: %v", line, err)
		}
		if e.Index < last || e.Index <= after || e.Time == 0 || e.Kind == "" {
			t.Errorf("got %s after index %d", line, last)
		}
		last = e.Index
		out = append(out, e)
	}
	if strings.Contains(r.Body, rawMark) {
		t.Errorf("got a raw token in the feed, want none: %s", r.Body)
	}
	return out
}

// endSome performs one revocation of each kind.
func (s *stage) endSome(t *testing.T) *tokenSet {
	t.Helper()
	w := s.newTokens(t, s.Follower(t))
	s.revoke(t, "c1", w.tokens["AT1"])
	s.revoke(t, "c2", fresh("unknown"))
	s.call(t, "DELETE", "/v1/grants/"+w.grants["g2"]+"?reason=why", "adm", "", 200)
	s.call(t, "POST", "/v1/revocations", "adm", `{"subject":"`+w.subject()+`","client_id":"c1","reason":"because"}`, 200)
	s.call(t, "PATCH", "/v1/clients/cl:ient", "adm", `{"disabled":true}`, 200)
	s.call(t, "PATCH", "/v1/clients/cl:ient", "adm", `{"disabled":false}`, 200)
	return w
}

// named returns the events without those of background commands. The omitted events are about
// grants that a cut-off in the feed has revoked.
func (w *tokenSet) named(events []feedLine) (out []feedLine) {
	for _, e := range events {
		if id := e.Selector["grant_id"]; e.Kind != "grant" || id == w.grants["g1"] || id == w.grants["g2"] {
			out = append(out, e)
		}
	}
	return out
}

func kindsOf(events []feedLine) string {
	var kinds []string
	for _, e := range events {
		kinds = append(kinds, e.Kind)
	}
	return strings.Join(kinds, " ")
}

func feedOfEverything(t *testing.T, s *stage) {
	after := s.applied(t)
	w := s.endSome(t)
	for _, m := range s.Members {
		s.until(t, m.ID+" has all events", func() bool { return len(w.named(s.events(t, m, "adm", after))) == 6 })
		events := w.named(s.events(t, m, "adm", after))
		if got := kindsOf(events); got != "grant token grant cutoff client client" {
			t.Fatalf("%s: got %s", m.ID, got)
		}
		digests := strings.Join(events[0].Digests, " ")
		if !strings.Contains(digests, digestOf(w.tokens["AT1"])) || !strings.Contains(digests, digestOf(w.tokens["RT1"])) ||
			events[0].Actor != "c1" {
			t.Errorf("%s: a revoked grant: got %+v", m.ID, events[0])
		}
		if events[2].Reason != "why" || events[2].Actor != "adm" {
			t.Errorf("%s: a deleted grant: got %+v", m.ID, events[2])
		}
		if e := events[3]; e.Selector["subject"] != w.subject() || e.Selector["client_id"] != "c1" || e.Reason != "because" {
			t.Errorf("%s: a cut-off: got %+v", m.ID, e)
		}
		if events[4].Action != "disabled" || events[5].Action != "enabled" || events[4].Selector["client_id"] != "cl:ient" {
			t.Errorf("%s: a client: got %+v %+v", m.ID, events[4], events[5])
		}
		if rest := w.named(s.events(t, m, "adm", events[2].Index)); kindsOf(rest) != "cutoff client client" {
			t.Errorf("%s: after the third: got %s", m.ID, kindsOf(rest))
		}
	}
	for _, after := range []string{"x", "-1", "1.5", "+1"} {
		s.call(t, "GET", "/v1/revocations?after="+after, "adm", "", 400)
	}
}

func feedForResourceServers(t *testing.T, s *stage) {
	after := s.applied(t)
	w := s.endSome(t)
	r := s.json(t, s.Follower(t), http.MethodGet, fmt.Sprintf("/v1/revocations?after=%d", after), "rs1", "")
	for _, secret := range []string{w.subject(), w.session(), "because", "why"} {
		if strings.Contains(r.Body, secret) {
			t.Errorf("a resource server reads %q: %s", secret, r.Body)
		}
	}
	s.until(t, "the follower has all events", func() bool {
		return len(w.named(s.events(t, s.Follower(t), "adm",
			after))) == 6
	})
	mine := fmt.Sprint(s.events(t, s.Follower(t), "rs1", after))
	if !strings.Contains(mine, digestOf(w.tokens["AT1"])) || !strings.Contains(mine, digestOf(w.tokens["AT2"])) ||
		!strings.Contains(mine, "cutoff") {
		t.Errorf("the audience: got %s, want the digests of AT1 and AT2 and the cut-off", mine)
	}
	others := fmt.Sprint(s.events(t, s.Follower(t), "rs2", after))
	if strings.Contains(others, digestOf(w.tokens["AT1"])) || strings.Contains(others, digestOf(w.tokens["AT2"])) {
		t.Errorf("another audience: got %s, want no digests of rs1", others)
	}
}

// A sentEvent is one server-sent event.
type sentEvent struct {
	id   string
	data feedLine
}

func dataOf(events []sentEvent) (lines []feedLine) {
	for _, e := range events {
		lines = append(lines, e.data)
	}
	return lines
}

// readSSE reads events until the client cl:ient is enabled, which endSome does last.
func (s *stage) readSSE(t *testing.T, m *member, query, lastID string, act func()) (events []sentEvent) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, m.URL+"/v1/revocations"+query, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.SetBasicAuth("adm", secretFor("adm"))
	req.Header.Set("Accept", "text/event-stream")
	if lastID != "" {
		req.Header.Set("Last-Event-ID", lastID)
	}
	resp, err := s.http1.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != 200 || resp.Header.Get("Content-Type") != "text/event-stream" {
		t.Fatalf("got %d %s", resp.StatusCode, resp.Header.Get("Content-Type"))
	}
	if act != nil {
		act()
	}
	id := ""
	for lines := bufio.NewScanner(resp.Body); lines.Scan(); {
		field, value, _ := strings.Cut(lines.Text(), ": ")
		switch field {
		case "id":
			id = value
		case "data":
			e := sentEvent{id: id}
			if err := json.Unmarshal([]byte(value), &e.data); err != nil {
				t.Fatal(err)
			}
			if events = append(events, e); e.data.Action == "enabled" {
				return events
			}
		}
	}
	t.Fatalf("the stream ended after %d events", len(events))
	return nil
}

func feedResumes(t *testing.T, s *stage) {
	m := s.Follower(t)
	after := s.applied(t)
	var w *tokenSet
	first := s.readSSE(t, m, fmt.Sprintf("?after=%d", after), "", func() { w = s.endSome(t) })
	lines := dataOf(first)
	era := s.eras(t)
	for _, e := range first {
		if e.id != fmt.Sprintf("%s.%d", era, e.data.Index) && len(first) == 6 {
			t.Errorf("got id %s of the event at index %d", e.id, e.data.Index)
		}
	}
	if got := kindsOf(w.named(lines)); got != "grant token grant cutoff client client" {
		t.Errorf("got %s", got)
	}
	// Another node resumes after the last id, and ignores the parameter. An index may have several
	// events, including those of other tests, and only the last of them has its id.
	at := slices.IndexFunc(first, func(e sentEvent) bool { return e.id == fmt.Sprintf("%s.%d", era, e.data.Index) })
	if at < 0 {
		t.Fatalf("no event has its id: %v", first)
	}
	rest := s.readSSE(t, s.Leader(t), "?after=0", first[at].id, nil)
	if got, want := dataOf(rest), dataOf(first[at+1:]); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("resumed on another node after %s: got %v, want %v", first[at].id, got, want)
	}
	r := s.send(t, s.HTTP, m, "/v1/revocations",
		call{method: "GET", as: "adm", header: http.Header{"Accept": {"text/event-stream"}, "Last-Event-ID": {"x"}},
			contentType: "-"}, nil)
	if r.Status != 400 {
		t.Errorf("malformed Last-Event-ID: got %d %s, want 400", r.Status, r.Body)
	}
}

// eras returns the era of the cluster. It fails the test unless every member has the same era.
func (s *stage) eras(t *testing.T) (era string) {
	t.Helper()
	for _, m := range s.alive() {
		r := s.json(t, m, http.MethodGet, fmt.Sprintf("/v1/revocations?after=%d", s.applied(t)), "rs1", "")
		got := r.Header.Get("Revoked-Era")
		if era = cmp.Or(era, got); r.Status != 200 || got == "" || got != era {
			t.Errorf("%s: got %d and era %q, want 200 and %q", m.ID, r.Status, got, era)
		}
	}
	return era
}

// feedOtherEra reads the feed after ids of this era, which all members share, and after ids of
// another era.
func feedOtherEra(t *testing.T, s *stage) {
	era, after := s.eras(t), s.applied(t)
	other := strings.Repeat("A", len(era))
	for _, m := range s.alive() {
		r := s.json(t, m, http.MethodGet, fmt.Sprintf("/v1/revocations?after=%s.%d", era, after), "rs1", "")
		if r.Status != 200 {
			t.Errorf("%s, this era: got %d %s, want 200", m.ID, r.Status, r.Body)
		}
		r = s.json(t, m, http.MethodGet, fmt.Sprintf("/v1/revocations?after=%s.%d", other, after), "rs1", "")
		problem(t, "410", r)
		if r.Status != 410 || !strings.Contains(r.Body, "after=0") {
			t.Errorf("%s, another era: got %d %s, want 410 with after=0", m.ID, r.Status, r.Body)
		}
		r = s.send(t, s.HTTP, m, "/v1/revocations", call{method: "GET", as: "rs1", contentType: "-",
			header: http.Header{"Accept": {"text/event-stream"}, "Last-Event-ID": {other + ".1"}}}, nil)
		if r.Status != 410 {
			t.Errorf("%s, Last-Event-ID of another era: got %d %s, want 410", m.ID, r.Status, r.Body)
		}
	}
}

// feedHeartbeats reads two heartbeats while no client sends anything else. The nodes still commit
// entries without events, so the second heartbeat has a larger index than the first.
func feedHeartbeats(t *testing.T, s *stage) {
	path := fmt.Sprintf("/v1/revocations?follow=true&after=%d", s.applied(t))
	streams := map[string]*bufio.Scanner{}
	for _, accept := range []string{"application/x-ndjson", "text/event-stream"} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.Follower(t).URL+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.SetBasicAuth("rs1", secretFor("rs1"))
		req.Header.Set("Accept", accept)
		resp, err := s.http1.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if resp.StatusCode != 200 {
			t.Fatalf("%s: got %d, want 200", accept, resp.StatusCode)
		}
		streams[accept] = bufio.NewScanner(resp.Body)
	}
	for accept, lines := range streams {
		var seen []uint64
		for comment := ""; len(seen) < 2; comment = lines.Text() {
			if !lines.Scan() {
				t.Fatalf("%s: got the end (%v) after %d heartbeats, want two", accept, lines.Err(), len(seen))
			}
			text, isID := strings.CutPrefix(lines.Text(), "id: ")
			var e feedLine
			switch {
			case isID && comment == ": heartbeat":
				text = text[strings.LastIndexByte(text, '.')+1:]
			case json.Unmarshal([]byte(text), &e) == nil && e.Kind == "heartbeat":
				text = strconv.FormatUint(e.Index, 10)
			default:
				continue
			}
			index, err := strconv.ParseUint(text, 10, 64)
			if err != nil {
				t.Fatalf("%s: got the index %q, want a number", accept, text)
			}
			seen = append(seen, index)
		}
		if seen[1] <= seen[0] {
			t.Errorf("%s: got heartbeats at %v, want the second at a larger index", accept, seen)
		}
	}
}

// feedAhead reads the feed of every node after an index that only the leader is certain to have. It
// also reads after an index that no node has.
func feedAhead(t *testing.T, s *stage) {
	for range 20 {
		w := s.newTokens(t, s.Leader(t))
		s.call(t, "DELETE", "/v1/grants/"+w.grants["g1"], "adm", "", 200)
		end := s.mustStatus(t, s.Leader(t)).AppliedIndex
		for _, m := range s.alive() {
			if r := s.json(t, m, http.MethodGet, fmt.Sprintf("/v1/revocations?after=%d", end), "rs1", ""); r.Status != 200 {
				t.Errorf("%s, after the leader's index: got %d %s, want 200", m.ID, r.Status, r.Body)
			}
		}
	}
	for _, m := range s.alive() {
		r := s.json(t, m, http.MethodGet, fmt.Sprintf("/v1/revocations?after=%d", uint64(1<<60)), "rs1", "")
		problem(t, "410", r)
		if r.Status != 410 || !strings.Contains(r.Body, "after=0") {
			t.Errorf("%s, after an index that is in no log: got %d %s, want 410 with after=0", m.ID, r.Status, r.Body)
		}
	}
}

// feedIsGone is the last scenario of the feed: it moves the clock beyond the retention.
func feedIsGone(t *testing.T, s *stage) {
	s.needClock(t)
	after := s.applied(t)
	w := s.endSome(t)
	m := s.Follower(t)
	s.until(t, "the follower has the events", func() bool { return len(w.named(s.events(t, m, "adm", after))) == 6 })
	s.call(t, "PATCH", "/v1/settings", "adm", `{"cutoff_retention":"1h"}`, 200)
	s.forward(t, 2*time.Hour)
	s.until(t, "the events are deleted", func() bool {
		return s.json(t, m, http.MethodGet, "/v1/revocations?after="+strconv.FormatUint(after, 10), "adm", "").Status == 410
	})
	problem(t, "410", s.json(t, m, http.MethodGet, "/v1/revocations?after=0", "adm", ""))
	r := s.send(t, s.HTTP, m, "/v1/revocations?after=0",
		call{method: "GET", as: "rs1", header: http.Header{"Accept": {"text/event-stream"}}, contentType: "-"}, nil)
	if r.Status != 410 {
		t.Errorf("server-sent events: got %d %s, want 410", r.Status, r.Body)
	}
	now := s.applied(t)
	s.until(t, "the follower has caught up", func() bool { return s.mustStatus(t, m).AppliedIndex >= now })
	if rest := s.events(t, m, "adm", now); len(rest) != 0 {
		t.Errorf("from now on: got %v, want nothing", rest)
	}
	s.call(t, "PATCH", "/v1/settings", "adm", `{"cutoff_retention":null}`, 200)
}
