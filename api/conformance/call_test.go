package conformance_test

import (
	"encoding/base64"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
)

const (
	pathRevoke     = "/oauth2/revoke"
	pathIntrospect = "/oauth2/introspect"
	formType       = "application/x-www-form-urlencoded"
	ndjson         = "application/x-ndjson"
)

// A call is one request. In its fields, {AT1} stands for the token AT1, and {secret:c1} for the
// secret of c1.
type call struct {
	method      string // default: POST
	path        string // appended to the path of the endpoint
	as          string // id of the client that authenticates by Basic; empty: see auth
	auth        string // the whole Authorization header
	body        string
	contentType string // default: form-encoded; "-": none
	header      http.Header
	plain       bool // whether to use plain HTTP
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

// send sends a request to a member through client.
func (s *stage) send(t *testing.T, client *http.Client, m *member, path string, a call,
	tokens map[string]string) reply {
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
	if a.as != "" {
		req.SetBasicAuth(url.QueryEscape(a.as), url.QueryEscape(secretFor(a.as)))
	} else if a.auth != "" {
		req.Header.Set("Authorization", expand(a.auth, tokens))
	}
	return do(t, client, req)
}

// sendUntilLed sends a request that is safe to retry. It retries the request while the response is
// 503, because on a busy machine an election may happen at any time.
func (s *stage) sendUntilLed(t *testing.T, m *member, path string, a call) (r reply) {
	t.Helper()
	s.until(t, "an answer with a leader", func() bool {
		r = s.send(t, s.HTTP, m, path, a, nil)
		return r.Status != http.StatusServiceUnavailable
	})
	return r
}

func do(t *testing.T, client *http.Client, req *http.Request) reply {
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
	return reply{Status: resp.StatusCode, Header: resp.Header, Body: string(b)}
}

// basicOf returns a Basic header with exactly the bytes of pair.
func basicOf(pair string) string { return "Basic " + base64.StdEncoding.EncodeToString([]byte(pair)) }

// A reply is a response with its whole body.
type reply struct {
	Status int
	Header http.Header
	Body   string
}
