package nodetest

import (
	"io"
	"net/http"
	"net/url"
	"strings"
)

// A Reply is an HTTP response whose body has been read completely.
type Reply struct {
	Status int
	Header http.Header
	Body   string
}

// Form posts a form to path with the credentials of client, or without credentials if client is "".
// Unlike a browser it follows no redirect.
func (m *Member) Form(path, client string, form url.Values) Reply {
	m.c.T.Helper()
	req, err := http.NewRequest(http.MethodPost, m.URL+path, strings.NewReader(form.Encode()))
	if err != nil {
		m.c.T.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	if client != "" {
		req.SetBasicAuth(client, Secret)
	}
	req.Header["X-Idempotency-Key"] = nil // net/http does not send it, but then retries on a closed connection
	return m.Do(req)
}

// JSON sends a JSON body, or no body if body is "", with the credentials of client. It sends
// credentials only if client is not empty.
func (m *Member) JSON(method, path, client, body string) Reply {
	m.c.T.Helper()
	req, err := http.NewRequest(method, m.URL+path, strings.NewReader(body))
	if err != nil {
		m.c.T.Fatal(err)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	if client != "" {
		req.SetBasicAuth(client, Secret)
	}
	req.Header["X-Idempotency-Key"] = nil // net/http does not send it, but then retries on a closed connection
	return m.Do(req)
}

// Decided repeats call while its status is 503, because on a busy machine a leader may lose its
// leadership at any moment. It returns every other response, even an error, for the caller to
// check.
func (m *Member) Decided(call func() Reply) (r Reply) {
	m.c.T.Helper()
	m.c.Until("a leader decides", func() bool {
		r = call()
		return r.Status != http.StatusServiceUnavailable
	})
	return r
}

// Do sends req unchanged. It ends the test if no response arrives; every status is a response.
func (m *Member) Do(req *http.Request) Reply {
	m.c.T.Helper()
	resp, err := m.c.HTTP.Do(req)
	if err != nil {
		m.c.T.Fatalf("%s %s: %v", req.Method, req.URL, err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		m.c.T.Fatalf("%s %s: read: %v", req.Method, req.URL, err)
	}
	return Reply{Status: resp.StatusCode, Header: resp.Header, Body: string(b)}
}
