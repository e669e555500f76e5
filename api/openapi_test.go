package api_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/labstack/echo/v4"

	"revoked"
	"revoked/api"
	"revoked/api/openapi"
)

// A description is the OpenAPI document. It checks calls against the document and records the
// answers that it has seen.
type description struct {
	*openapi3.T
	seen map[string]bool // "POST /v1/grants 201"
}

// loadDescription reads the document. It forbids members that a schema lacks: clients must accept
// unknown members, but the document must list all members.
func loadDescription(t *testing.T) *description {
	t.Helper()
	var raw any
	if err := json.Unmarshal(openapi.Document(), &raw); err != nil {
		t.Fatal(err)
	}
	closeObjects(raw)
	strict, err := json.Marshal(raw)
	if err != nil {
		t.Fatal(err)
	}
	doc, err := openapi3.NewLoader().LoadFromData(strict)
	if err != nil {
		t.Fatal(err)
	}
	return &description{doc, map[string]bool{}}
}

// closeObjects forbids other members in each schema that lists members without
// additionalProperties.
func closeObjects(v any) {
	switch v := v.(type) {
	case []any:
		for _, e := range v {
			closeObjects(e)
		}
	case map[string]any:
		for _, e := range v {
			closeObjects(e)
		}
		_, lists := v["properties"].(map[string]any)
		if _, decides := v["additionalProperties"]; lists && !decides {
			v["additionalProperties"] = false
		}
	}
}

// An operation is one method of a path in the document.
type operation struct {
	call string // "POST /v1/grants"
	item *openapi3.PathItem
	op   *openapi3.Operation
}

func (d *description) operations() []operation {
	var list []operation
	for path, item := range d.Paths.Map() {
		for method, op := range item.Operations() {
			list = append(list, operation{method + " " + path, item, op})
		}
	}
	slices.SortFunc(list, func(a, b operation) int { return strings.Compare(a.call, b.call) })
	return list
}

func (d *description) operation(t *testing.T, call string) operation {
	t.Helper()
	for _, o := range d.operations() {
		if o.call == call {
			return o
		}
	}
	t.Fatalf("%s: got no description, want one", call)
	return operation{}
}

// OpenAPI 3.1: the document is well-formed, and its $refs resolve.
func TestOpenAPI_Document_IsValid(t *testing.T) {
	doc, err := openapi3.NewLoader().LoadFromData(openapi.Document())
	if err != nil {
		t.Fatal(err)
	}
	if err := doc.Validate(t.Context()); err != nil {
		t.Error(err)
	}
	ids := map[string]string{}
	for _, o := range (&description{T: doc}).operations() {
		id := o.op.OperationID
		if id == "" || ids[id] != "" {
			t.Errorf("%s: got operationId %q, which %q has too; want one of its own", o.call, id, ids[id])
		}
		ids[id] = o.call
	}
}

// Each route has a description with the roles of the route, and each description has a route.
func TestOpenAPI_Routes_AreAllDescribed(t *testing.T) {
	d := loadDescription(t)
	unrouted := map[string]bool{} // described operations without a route
	for _, o := range d.operations() {
		unrouted[o.call] = true
	}
	template := strings.NewReplacer(":id", "{id}", ":thumbprint", "{thumbprint}", "/*", "/{path}")
	for _, r := range newBench(t).api.Handler().(*echo.Echo).Routes() {
		path := template.Replace(r.Path)
		item := d.Paths.Value(path)
		switch {
		case item == nil:
			t.Errorf("%s: got no path in openapi.json, want one", r.Path)
		case r.Method == http.MethodHead: // same as GET
		case r.Method != echo.RouteNotFound:
			if item.GetOperation(r.Method) == nil {
				t.Errorf("%s %s: got no operation in openapi.json, want one", r.Method, r.Path)
			}
			delete(unrouted, r.Method+" "+path)
		default: // the handler checks the method
			for method := range item.Operations() {
				delete(unrouted, method+" "+path)
			}
		}
	}
	for call := range unrouted {
		t.Errorf("got %s in openapi.json, want a route for it", call)
	}
	for _, row := range roleTable {
		method, path, _ := strings.Cut(row.call, " ")
		roles, _ := d.operation(t, method+" "+template.Replace(path)).op.Extensions["x-required-roles"].([]any)
		var names []string
		for _, role := range roles {
			names = append(names, role.(string))
		}
		want := strings.Fields(strings.NewReplacer(",", " ", " or ", " ").Replace(row.needs))
		slices.Sort(names)
		slices.Sort(want)
		if !slices.Equal(names, want) {
			t.Errorf("%s: got x-required-roles %v, want %v", row.call, names, want)
		}
	}
}

// An apiCall is one call of a described operation.
type apiCall struct {
	op     string // method and path of the description
	path   string // path as sent; empty: the path of op
	who    string // client id; empty: without credentials
	body   string
	typ    string      // content type; empty: JSON, or a form below /oauth2 and /invoke
	header http.Header // additional headers
	status int
}

func (c apiCall) String() string { return fmt.Sprintf("%s %s as %q %s", c.op, c.path, c.who, c.body) }

// call makes a call. It checks the answer against the description, and the request if the call
// succeeds.
func (d *description) call(t *testing.T, b *adminBench, c apiCall) reply {
	t.Helper()
	o := d.operation(t, c.op)
	method, path, _ := strings.Cut(c.op, " ")
	if c.path == "" {
		c.path = strings.NewReplacer("{id}", "none", "{thumbprint}", "none", "{path}", "a/b").Replace(path)
	}
	req := b.request(t, c.who, method, c.path, strings.NewReader(c.body))
	ctx, cancel := context.WithCancel(req.Context())
	defer cancel()
	req = req.WithContext(ctx)
	if c.who == "" {
		req.Header.Del("Authorization")
	}
	isForm := strings.HasPrefix(path, "/oauth2/") || strings.HasPrefix(path, "/invoke/")
	switch {
	case c.typ != "":
		req.Header.Set("Content-Type", c.typ)
	case isForm:
		req.Header.Set("Content-Type", formType)
	case c.body != "":
		req.Header.Set("Content-Type", "application/json")
	}
	for name, values := range c.header {
		req.Header[name] = values
	}
	res, err := b.http.Do(req)
	if err != nil {
		t.Fatalf("%s: %v", c, err)
	}
	defer res.Body.Close()
	got := reply{res.StatusCode, res.Header, readAnswer(t, res)}
	if c.status != 0 && got.status != c.status {
		t.Errorf("%s: got %d %s, want %d", c, got.status, got.body, c.status)
	}
	in := &openapi3filter.RequestValidationInput{Request: req, PathParams: pathParams(path, c.path),
		QueryParams: req.URL.Query(), Options: &openapi3filter.Options{IncludeResponseStatus: true,
			AuthenticationFunc: openapi3filter.NoopAuthenticationFunc},
		Route: &routers.Route{Spec: d.T, Path: path, PathItem: o.item, Method: method, Operation: o.op}}
	if got.status < 400 {
		d.checkRequest(t, c, o.op, in)
	}
	d.checkAnswer(t, c, o.op, in, got)
	d.seen[fmt.Sprint(c.op, " ", got.status)] = true
	return got
}

// readAnswer reads a whole answer, but only the first event of server-sent events, which continue.
func readAnswer(t *testing.T, res *http.Response) string {
	t.Helper()
	if res.Header.Get("Content-Type") != "text/event-stream" {
		b, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	var text strings.Builder
	for lines := bufio.NewScanner(res.Body); lines.Scan(); {
		text.WriteString(lines.Text() + "\n")
		if strings.HasPrefix(lines.Text(), "data:") {
			return text.String()
		}
	}
	t.Fatalf("server-sent events: got %q, want data", &text)
	return ""
}

// pathParams returns the parameters of a path that matches the template.
func pathParams(template, path string) map[string]string {
	path, _, _ = strings.Cut(path, "?")
	params, parts := map[string]string{}, strings.Split(path, "/")
	for i, part := range strings.Split(template, "/") {
		if name, ok := strings.CutPrefix(part, "{"); ok && i < len(parts) {
			params[strings.TrimSuffix(name, "}")] = parts[i]
		}
	}
	return params
}

// checkRequest reports an error if the description forbids a request that the API has accepted.
func (d *description) checkRequest(t *testing.T, c apiCall, op *openapi3.Operation,
	in *openapi3filter.RequestValidationInput) {
	t.Helper()
	in.Request.Body = io.NopCloser(strings.NewReader(c.body))
	if c.typ == "application/x-ndjson" {
		in.Options.ExcludeRequestBody = true
		d.checkLines(t, c, op.RequestBody.Value.Content.Get(c.typ), strings.Split(strings.TrimSpace(c.body), "\n"))
	}
	if err := openapi3filter.ValidateRequest(t.Context(), in); err != nil {
		t.Errorf("%s: got the request accepted, but the description forbids it: %v", c, err)
	}
}

// checkAnswer checks the status, the headers and the body of an answer.
func (d *description) checkAnswer(t *testing.T, c apiCall, op *openapi3.Operation,
	in *openapi3filter.RequestValidationInput, got reply) {
	t.Helper()
	answer := op.Responses.Status(got.status)
	if answer == nil {
		t.Errorf("%s: got %d %s, want an answer that is described", c, got.status, got.body)
		return
	}
	var lines []string
	switch kind := got.header.Get("Content-Type"); kind {
	case "application/x-ndjson":
		lines = strings.Split(strings.TrimSpace(got.body), "\n")
	case "text/event-stream":
		for line := range strings.Lines(got.body) {
			if data, ok := strings.CutPrefix(line, "data:"); ok {
				lines = append(lines, data)
			}
		}
	}
	if lines != nil {
		in.Options.ExcludeResponseBody = true
		d.checkLines(t, c, answer.Value.Content.Get(got.header.Get("Content-Type")), lines)
	}
	err := openapi3filter.ValidateResponse(t.Context(), &openapi3filter.ResponseValidationInput{
		RequestValidationInput: in, Status: got.status, Header: got.header,
		Body: io.NopCloser(strings.NewReader(got.body)), Options: in.Options,
	})
	if err != nil {
		t.Errorf("%s: got %d %s, which the description does not allow: %v", c, got.status, got.body, err)
	}
}

// checkLines checks each line of a body against x-line-schema.
func (d *description) checkLines(t *testing.T, c apiCall, media *openapi3.MediaType, lines []string) {
	t.Helper()
	if media == nil {
		t.Errorf("%s: got no content type for a body of lines in the description, want one", c)
		return
	}
	name, _ := media.Extensions["x-line-schema"].(string)
	schema := d.Components.Schemas[strings.TrimPrefix(name, "#/components/schemas/")]
	if schema == nil {
		t.Errorf("%s: x-line-schema: got %q, want the name of a schema", c, name)
		return
	}
	for _, line := range lines {
		if line == "" { // the body is empty
			continue
		}
		var v any
		if err := json.Unmarshal([]byte(line), &v); err != nil {
			t.Errorf("%s: line %q: %v", c, line, err)
			continue
		}
		if err := schema.Value.VisitJSON(v, openapi3.EnableJSONSchema2020()); err != nil {
			t.Errorf("%s: line %s: %v", c, line, err)
		}
	}
}

// restrictMetrics requires credentials for /metrics from every address.
func restrictMetrics(c *api.Config) { c.MetricsOnAPI, c.MetricsNetworks = true, nil }

// commonCalls gets from each operation the answers that all operations have in common. It sends
// calls without credentials or without the role, and refused queries, content types and sizes. It
// also calls two other nodes: one has too many requests of the caller, and one is not current.
func (d *description) commonCalls(t *testing.T, b *adminBench) {
	busy := newAdminBench(t, restrictMetrics, func(c *api.Config) { c.MaxRequestsPerClient = 1 })
	_, _, end := busy.open(t, "admin", "GET", "/v1/revocations?follow=true")
	defer end()
	behind := newAdminBench(t, restrictMetrics)
	behind.node.behind = true
	behind.node.fail = func(string) error { return revoked.ErrNotCurrent }
	wrong := func(id string) http.Header { return http.Header{"Authorization": {basic(id, "wrong")}} }
	large := strings.Repeat(" ", 400<<10)
	for _, o := range d.operations() {
		if o.op.Security != nil && len(*o.op.Security) == 0 || strings.HasPrefix(o.call, "GET /v1/check") {
			continue // the operation is open to all, or has its own kinds of answers
		}
		_, path, _ := strings.Cut(o.call, " ")
		path = strings.NewReplacer("{id}", "none", "{thumbprint}", "none").Replace(path)
		isForm := o.op.Extensions["x-required-roles"] == nil
		form := ""
		if isForm {
			form = "token=unknown"
		}
		d.call(t, b, apiCall{op: o.call, body: form, status: 401})
		d.call(t, b, apiCall{op: o.call, body: form, header: wrong("admin"), status: 401})
		d.call(t, busy, apiCall{op: o.call, body: form, who: "admin", status: 429})
		d.call(t, behind, apiCall{op: o.call, body: form, header: wrong("not-known-yet"), status: 503})
		if isForm {
			d.call(t, b, apiCall{op: o.call, who: "app", status: 400})
			d.call(t, b, apiCall{op: o.call, who: "app", body: strings.Repeat("x", 17<<10), status: 413})
			d.call(t, b, apiCall{op: o.call, who: "app", body: form, header: http.Header{"Content-Encoding": {"gzip"}},
				status: 415})
			continue
		}
		d.call(t, b, apiCall{op: o.call, who: "app", status: 403})
		d.call(t, b, apiCall{op: o.call, path: path + "?x=%zz", who: "admin", status: 400})
		if o.op.RequestBody != nil {
			d.call(t, b, apiCall{op: o.call, who: "admin", body: "{}", typ: "text/plain", status: 415})
			d.call(t, b, apiCall{op: o.call, who: "admin", body: large, status: 413})
		}
	}
}
