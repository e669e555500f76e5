//go:build system

package systemtest

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"
)

// send sends one request and reads its whole answer.
func (c *cluster) send(m *member, r request) answer {
	var body io.Reader = http.NoBody
	contentType := ""
	switch {
	case r.form != nil:
		body, contentType = strings.NewReader(r.form.Encode()), "application/x-www-form-urlencoded"
	case r.json != nil:
		text, err := json.Marshal(r.json)
		if err != nil {
			return answer{err: err}
		}
		body, contentType = bytes.NewReader(text), "application/json"
	}
	req, err := http.NewRequest(r.method, m.API+r.path, body)
	if err != nil {
		return answer{err: err}
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	for k, v := range r.header {
		req.Header[k] = v
	}
	if r.as != "" {
		cl, ok := c.Clients[r.as]
		if !ok {
			return answer{err: fmt.Errorf("no client %q in dev.json", r.as)}
		}
		req.SetBasicAuth(cl.ClientID, cl.ClientSecret)
	}
	resp, err := m.client.Do(req)
	if err != nil {
		return answer{err: err}
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 16<<20))
	if err != nil {
		return answer{err: err}
	}
	return answer{status: resp.StatusCode, header: resp.Header, body: text}
}

// registration is the body of POST /v1/grants for a pair.
func registration(grant, subject, access, refresh string) map[string]any {
	return map[string]any{
		"grant_id": grant, "client_id": "app", "subject": subject, "scope": "read write",
		"access_token":  map[string]any{"token": access},
		"refresh_token": map[string]any{"token": refresh},
	}
}

func (c *cluster) register(m *member, grant, subject, access, refresh string) answer {
	return c.send(m, request{method: http.MethodPost, path: "/v1/grants", as: "issuer",
		json: registration(grant, subject, access, refresh)})
}

func (c *cluster) revoke(m *member, as, token string) answer {
	return c.send(m, request{method: http.MethodPost, path: "/oauth2/revoke", as: as, form: url.Values{"token": {token}}})
}

func (c *cluster) introspect(m *member, as, token string) answer {
	return c.send(m, request{method: http.MethodPost, path: "/oauth2/introspect", as: as,
		form: url.Values{"token": {token}}})
}

// active returns the result of an introspection; ok is false unless the status is 200.
func (a answer) active() (active, ok bool) {
	if a.err != nil || a.status != http.StatusOK {
		return false, false
	}
	var body struct {
		Active *bool `json:"active"`
	}
	if err := json.Unmarshal(a.body, &body); err != nil || body.Active == nil {
		return false, false
	}
	return *body.Active, true
}

// mustRegister registers a pair and retries until it succeeds.
func (c *cluster) mustRegister(t testing.TB, m *member, grant, subject, access, refresh string) {
	t.Helper()
	await(t, "the registration of "+grant, func() error {
		a := c.register(m, grant, subject, access, refresh)
		if a.err == nil && a.status == http.StatusOK {
			return nil // an earlier attempt succeeded
		}
		return a.want(http.StatusCreated)
	})
}

// mustRevoke revokes a token and retries until it succeeds.
func (c *cluster) mustRevoke(t testing.TB, m *member, token string) {
	t.Helper()
	await(t, "the revocation", func() error { return c.revoke(m, "app", token).want(http.StatusOK) })
}

// wantActive fails the test unless every node answers want. It retries until each node answers 200.
func (c *cluster) wantActive(t testing.TB, token string, want bool, nodes ...*member) {
	t.Helper()
	for _, m := range nodes {
		await(t, "an answer of "+m.ID, func() error {
			a := c.introspect(m, "app", token)
			got, ok := a.active()
			if !ok {
				return fmt.Errorf("%w", a.want(http.StatusOK))
			}
			if got != want {
				t.Errorf("%s: got active %t, want %t", m.ID, got, want)
			}
			return nil
		})
	}
}

// tool returns the environment of the command line tool as a client of the given nodes.
func (c *cluster) tool(as string, nodes ...*member) []string {
	var addrs []string
	for _, m := range nodes {
		addrs = append(addrs, m.API)
	}
	cl := c.Clients[as]
	return []string{
		"REVOKED_ADDR=" + strings.Join(addrs, ","), "REVOKED_CACERT=" + c.CA,
		"REVOKED_CLIENT_ID=" + cl.ClientID, "REVOKED_CLIENT_SECRET=" + cl.ClientSecret,
	}
}

// sendLines sends NDJSON as the issuer and reads the whole answer.
func (c *cluster) sendLines(m *member, path string, lines []byte) answer {
	req, err := http.NewRequest(http.MethodPost, m.API+path, bytes.NewReader(lines))
	if err != nil {
		return answer{err: err}
	}
	req.Header.Set("Content-Type", "application/x-ndjson")
	issuer := c.Clients["issuer"]
	req.SetBasicAuth(issuer.ClientID, issuer.ClientSecret)
	resp, err := m.client.Do(req)
	if err != nil {
		return answer{err: err}
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 16<<20))
	return answer{status: resp.StatusCode, header: resp.Header, body: body, err: err}
}

// awaitKnown waits until the node's own copy has the token.
func (c *cluster) awaitKnown(t testing.TB, m *member, token string) {
	t.Helper()
	await(t, m.ID+" to have a token", func() error {
		a := c.introspect(m, "resource_server", token)
		if err := a.want(http.StatusOK); err != nil {
			return err
		}
		if !strings.Contains(string(a.body), `"active":true`) {
			return fmt.Errorf("got %s", a.body)
		}
		return nil
	})
}

// metric returns the sum of a node's series of one name.
func (c *cluster) metric(t testing.TB, m *member, name string) float64 {
	t.Helper()
	sum, err := c.readMetric(m, name)
	if err != nil {
		t.Fatalf("metrics of %s: %v", m.ID, err)
	}
	return sum
}

func (c *cluster) readMetric(m *member, name string) (float64, error) {
	a := c.send(m, request{method: http.MethodGet, path: "/metrics"})
	if err := a.want(http.StatusOK); err != nil {
		return 0, err
	}
	sum := 0.0
	for lines := bufio.NewScanner(strings.NewReader(string(a.body))); lines.Scan(); {
		rest, ok := strings.CutPrefix(lines.Text(), name)
		if !ok || rest == "" || rest[0] != ' ' && rest[0] != '{' {
			continue
		}
		v, err := strconv.ParseFloat(rest[strings.LastIndexByte(rest, ' ')+1:], 64)
		if err != nil {
			return 0, fmt.Errorf("%q: %w", lines.Text(), err)
		}
		sum += v
	}
	return sum, nil
}
