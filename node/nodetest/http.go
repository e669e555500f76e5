package nodetest

import (
	"io"
	"net/http"
	"net/url"
	"strings"
)

// A Reply is an HTTP answer, read whole.
type Reply struct {
	Status int
	Header http.Header
	Body   string
}

// Form posts a form to path with the credentials of client (none when it is empty).
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
	return m.Do(req)
}

// JSON sends a JSON body (none when it is empty) with the credentials of client.
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
	return m.Do(req)
}

// Do sends a request as it is.
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
