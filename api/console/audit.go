package console

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"revoked"
	"revoked/api/request"
)

// auditShown is the number of entries that the page of the audit log shows at first.
const auditShown = 100

// An entry is one audit entry in the response to GET /v1/audit.
type entry struct {
	Index   uint64         `json:"index"`
	Time    *float64       `json:"time"`
	Kind    string         `json:"kind"`
	Actor   string         `json:"actor"`
	Node    string         `json:"node"`
	Object  map[string]any `json:"object"`
	Reason  string         `json:"reason"`
	Outcome string         `json:"outcome"`
	Detail  string         `json:"detail"`
}

// About describes the object of the entry in words.
func (e entry) About() string {
	var words []string
	for name, value := range e.Object {
		if n, ok := value.(float64); ok {
			value = strconv.FormatFloat(n, 'f', -1, 64)
		}
		words = append(words, fmt.Sprint(name, " ", value))
	}
	slices.Sort(words)
	return strings.Join(words, ", ")
}

// Why returns the reason that the caller gave and the detail that the node added.
func (e entry) Why() string { return strings.Trim(e.Reason+"; "+e.Detail, "; ") }

// A lineTail keeps the last lines of a stream. The stream may arrive in parts of any size.
type lineTail struct {
	limit int
	rest  []byte
	lines [][]byte
}

func (t *lineTail) write(p []byte) {
	t.rest = append(t.rest, p...)
	for {
		line, rest, whole := bytes.Cut(t.rest, []byte{'\n'})
		if !whole {
			return
		}
		t.lines = append(t.lines, bytes.Clone(line))
		if len(t.lines) >= 2*t.limit {
			t.lines = slices.Clone(t.lines[t.limit:])
		}
		t.rest = rest
	}
}

// last returns the lines that t keeps, the newest first.
func (t *lineTail) last() [][]byte {
	list := slices.Clone(t.lines[max(0, len(t.lines)-t.limit):])
	slices.Reverse(list)
	return list
}

// auditPage is the body of the page of the audit log.
type auditPage struct {
	Kinds       []revoked.AuditKind
	Hours       string
	Kind, Actor string
	Entries     []entry
	Stream      string // address of the stream of new entries
	After       string // id of the last entry of the page
}

// auditQuery returns the selectors of the page and of its stream.
func (v *visit) auditQuery() url.Values {
	given, query := v.http.URL.Query(), url.Values{}
	for _, name := range []string{"kind", "actor"} {
		if value := given.Get(name); value != "" {
			query.Set(name, value)
		}
	}
	return query
}

// getAudit shows the newest entries of the last hours, 24 by default.
func (v *visit) getAudit() error {
	query := v.auditQuery()
	p := auditPage{Kinds: revoked.AuditKinds(), Hours: v.http.URL.Query().Get("hours"), Kind: query.Get("kind"),
		Actor: query.Get("actor"), Stream: Root + "/audit/stream?" + query.Encode()}
	if p.Hours == "" {
		p.Hours = "24"
	}
	hours, err := strconv.Atoi(p.Hours)
	if err != nil || hours < 1 || hours > 24*366 {
		return request.Malformed("hours: want 1 to 8784")
	}
	if err := v.readNewest(&p, query, int64(hours)*3600); err != nil {
		return err
	}
	return v.show(http.StatusOK, "Audit", &p)
}

// Spans that readNewest reads, in seconds.
const (
	firstSpan = 60
	spanGrows = 8 // factor between the lengths of one span and the next
)

// readNewest reads the newest entries of the last seconds. The API answers in the order of the log.
// So readNewest reads a short span that ends now, then longer spans before it, until the page is
// full. It reads each entry at most once.
func (v *visit) readNewest(p *auditPage, query url.Values, seconds int64) error {
	now := v.console.cfg.Now().Unix()
	end := max(0, now-seconds)
	since := now + 1 // beginning of the span that was read last
	for span := int64(firstSpan); since > end && len(p.Entries) < auditShown; span *= spanGrows {
		if v.inner.Repeated { // every span but the first, which has no end
			query.Set("until", strconv.FormatInt(since-1, 10))
		}
		since = max(end, since-span)
		query.Set("since", strconv.FormatInt(since, 10))
		header, err := v.readSpan(p, query)
		if err != nil {
			return err
		}
		if !v.inner.Repeated {
			p.After = header.Get("Revoked-Era") + "." + header.Get("Revoked-Index")
		}
		v.inner.Repeated = true
	}
	return nil
}

// readSpan appends the newest entries of a span to the page.
func (v *visit) readSpan(p *auditPage, query url.Values) (http.Header, error) {
	tail := &lineTail{limit: auditShown - len(p.Entries)}
	a := newAnswer(v.Response())
	a.write = tail.write
	if err := v.send(v.http.Context(), a, "GET", "/v1/audit?"+query.Encode(), "", nil); err != nil {
		return nil, err
	}
	if err := a.decode(nil); err != nil {
		return nil, err
	}
	for _, line := range tail.last() {
		var e entry
		if err := json.Unmarshal(line, &e); err != nil {
			return nil, fmt.Errorf("decode entry of the audit log: %w", err)
		}
		p.Entries = append(p.Entries, e)
	}
	return a.header, nil
}

// getAuditStream sends new entries as the API does, until the session ends. It does not keep the
// session alive.
func (v *visit) getAuditStream() error {
	query := v.auditQuery()
	query.Set("after", v.http.URL.Query().Get("after"))
	ctx, cancel := context.WithCancel(v.http.Context())
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		v.endWithSession(ctx, cancel)
	}()
	defer func() { cancel(); <-watched }()
	address := "/v1/audit?" + query.Encode()
	return v.send(ctx, openAnswer{v.Response()}, "GET", address, "", nil, "Accept", "text/event-stream")
}

// endWithSession calls end once the session has ended, and returns. It also returns when ctx ends.
func (v *visit) endWithSession(ctx context.Context, end func()) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for v.console.sessions.find(v.cookie, true) != nil {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
	end()
}
