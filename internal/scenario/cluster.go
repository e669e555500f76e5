package scenario

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
)

// Nodes starts and stops the nodes of a cluster, numbered from 0. Its methods fail the test if they
// do not succeed.
type Nodes interface {
	// Add starts another node, which is not in a cluster, and returns its number.
	Add() int
	Start(node int)
	// Refused starts a node that must not run and returns its error.
	Refused(node int) string
	// Stop shuts a node down cleanly.
	Stop(node int)
	// Kill stops a node immediately. In one process, it shuts the node down cleanly.
	Kill(node int)
	// Exit waits until a running node exits without being stopped, and returns its error, or "".
	Exit(node int) string
	// Wipe deletes the data of a stopped node.
	Wipe(node int)

	ID(node int) string
	Address(node int) string // address of the cluster port
	URL(node int) string     // URL of the API
	HTTP() *http.Client
	// Credentials returns the credentials of a client of `revoked dev`.
	Credentials(client string) (id, secret string)
}

// longStop bounds every wait.
const longStop = 2 * time.Minute

// A cluster adds requests and waits to Nodes.
type cluster struct {
	Nodes
	*testing.T
	up map[int]bool
}

func (c *cluster) start(node int) { c.Nodes.Start(node); c.up[node] = true }
func (c *cluster) stop(node int)  { c.Nodes.Stop(node); delete(c.up, node) }
func (c *cluster) kill(node int)  { c.Nodes.Kill(node); delete(c.up, node) }
func (c *cluster) add() int       { k := c.Nodes.Add(); c.up[k] = true; return k }

func (c *cluster) exit(node int) string {
	delete(c.up, node)
	return c.Nodes.Exit(node)
}

// running returns the running nodes except those given, in ascending order.
func (c *cluster) running(but ...int) []int {
	var nodes []int
	for k := 0; len(nodes) < len(c.up); k++ {
		if c.up[k] {
			nodes = append(nodes, k)
		}
	}
	var out []int
next:
	for _, k := range nodes {
		for _, b := range but {
			if k == b {
				continue next
			}
		}
		out = append(out, k)
	}
	return out
}

// A response is an HTTP response with its whole body.
type response struct {
	status int
	header http.Header
	body   string
}

// send sends a request with the credentials of a client, or without credentials if client is empty.
func (c *cluster) send(node int, client, method, path string, body any) (response, error) {
	id, secret := "", ""
	if client != "" {
		id, secret = c.Credentials(client)
	}
	return c.sendAs(node, id, secret, method, path, body)
}

// sendAs sends a request whose body is a form or anything that encodes to JSON.
func (c *cluster) sendAs(node int, id, secret, method, path string, body any) (response, error) {
	contentType, text := "application/json", ""
	switch b := body.(type) {
	case nil:
	case url.Values:
		contentType, text = "application/x-www-form-urlencoded", b.Encode()
	default:
		data, err := json.Marshal(b)
		if err != nil {
			return response{}, err
		}
		text = string(data)
	}
	req, err := http.NewRequest(method, c.URL(node)+path, strings.NewReader(text))
	if err != nil {
		return response{}, err
	}
	if text != "" {
		req.Header.Set("Content-Type", contentType)
	}
	if id != "" {
		req.SetBasicAuth(id, secret)
	}
	req.Header["X-Idempotency-Key"] = nil // not sent: sends req again if the server has closed the connection
	resp, err := c.HTTP().Do(req)
	if err != nil {
		return response{}, err
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(resp.Body)
	return response{resp.StatusCode, resp.Header, strings.TrimSpace(string(data))}, err
}

// change requests a membership change and fails the test unless the response has that status and
// contains text. It retries the request while the status is 503.
func (c *cluster) change(node int, path string, body any, status int, text string) {
	c.Helper()
	var r response
	var err error
	c.until(path+" on "+c.ID(node), func() error {
		r, err = c.send(node, "admin", http.MethodPost, "/v1/cluster/"+path, body)
		if err == nil && r.status == http.StatusServiceUnavailable {
			return fmt.Errorf("got %d %s, want %d", r.status, r.body, status)
		}
		return nil
	})
	if err != nil || r.status != status || !strings.Contains(r.body, text) {
		c.Errorf("%s %v on %s: got %d %s %v, want %d with %q", path, body, c.ID(node), r.status, r.body, err, status, text)
	}
}

// awaitChange retries a change until it succeeds, because the leader may change.
func (c *cluster) awaitChange(node int, path string, body any) {
	c.Helper()
	c.until(path+" on "+c.ID(node), func() error {
		r, err := c.send(node, "admin", http.MethodPost, "/v1/cluster/"+path, body)
		if err == nil && r.status != http.StatusOK && !(path == "join" && r.status == http.StatusConflict) {
			err = fmt.Errorf("got %d %s, want 200", r.status, r.body)
		}
		return err
	})
}

type object map[string]any

// register registers an access and a refresh token for the client app.
func (c *cluster) register(node int, name string) (access, refresh string) {
	c.Helper()
	access, refresh = "at-"+name, "rt-"+name
	body := object{"grant_id": "g-" + name, "client_id": "app", "subject": "alice",
		"access_token": object{"token": access}, "refresh_token": object{"token": refresh}}
	c.until("registration on "+c.ID(node), func() error {
		r, err := c.send(node, "issuer", http.MethodPost, "/v1/grants", body)
		if err == nil && r.status != http.StatusCreated && r.status != http.StatusOK {
			err = fmt.Errorf("got %d %s, want 201", r.status, r.body)
		}
		return err
	})
	return access, refresh
}

func (c *cluster) revoke(node int, token string) {
	c.Helper()
	c.until("revocation on "+c.ID(node), func() error {
		r, err := c.send(node, "app", http.MethodPost, "/oauth2/revoke", url.Values{"token": {token}})
		if err == nil && (r.status != http.StatusOK || r.body != "{}") {
			err = fmt.Errorf("got %d %s, want 200 {}", r.status, r.body)
		}
		return err
	})
}

// wantActive fails the test unless every node reports that the token is active, or inactive, as in
// want.
func (c *cluster) wantActive(want bool, token string, nodes ...int) {
	c.Helper()
	for _, k := range nodes {
		c.until("introspection on "+c.ID(k), func() error {
			r, err := c.send(k, "app", http.MethodPost, "/oauth2/introspect", url.Values{"token": {token}})
			if err != nil {
				return err
			}
			var v struct{ Active *bool }
			if err := json.Unmarshal([]byte(r.body), &v); err != nil || r.status != http.StatusOK || v.Active == nil {
				return fmt.Errorf("got %d %s, want 200", r.status, r.body)
			}
			if *v.Active != want {
				c.Errorf("introspect %s on %s: got active %t, want %t", token, c.ID(k), *v.Active, want)
			}
			return nil
		})
	}
}

type status struct {
	ClusterID string `json:"cluster_id"`
	State     string `json:"state"`
	Voters    int    `json:"voters"`
	HashIndex uint64 `json:"hash_index"`
	LogHash   string `json:"log_hash"`
	StateHash string `json:"state_hash"`
}

type member struct {
	NodeID string `json:"node_id"`
	Voter  bool   `json:"voter"`
	Alive  bool   `json:"alive"`
}

// get sends a GET as the administrator and decodes the body of the response into v.
func (c *cluster) get(node int, path string, v any) error {
	r, err := c.send(node, "admin", http.MethodGet, path, nil)
	if err != nil {
		return err
	}
	if r.status != http.StatusOK {
		return fmt.Errorf("%s: got %d %s, want 200", path, r.status, r.body)
	}
	return json.Unmarshal([]byte(r.body), v)
}

func (c *cluster) status(node int) (s status, err error) { return s, c.get(node, "/v1/status", &s) }

func (c *cluster) members(node int) ([]member, error) {
	var v struct{ Members []member }
	err := c.get(node, "/v1/members", &v)
	return v.Members, err
}

// leader waits for a leader that can commit.
func (c *cluster) leader() (leader int) {
	c.Helper()
	c.until("a leader", func() error {
		for _, k := range c.running() {
			if s, err := c.status(k); err == nil && s.State == "leader" && c.ready(k) == nil {
				leader = k
				return nil
			}
		}
		return fmt.Errorf("got no leader among %v", c.running())
	})
	return leader
}

// follower returns a running node that is not the leader.
func (c *cluster) follower() int { return c.running(c.leader())[0] }

func (c *cluster) ready(node int) error {
	r, err := c.send(node, "", http.MethodGet, "/readyz?verbose&revoke", nil)
	if err == nil && r.status != http.StatusOK {
		err = fmt.Errorf("got %d %s, want 200", r.status, r.body)
	}
	return err
}

// awaitReady waits until all running nodes can introspect and revoke.
func (c *cluster) awaitReady() {
	c.Helper()
	for _, k := range c.running() {
		c.until(c.ID(k)+" is ready", func() error { return c.ready(k) })
	}
}

// awaitMembers waits until the leader lists that many members, all of them voters.
func (c *cluster) awaitMembers(want int) {
	c.Helper()
	c.until(fmt.Sprintf("%d members vote", want), func() error {
		ms, err := c.members(c.leader())
		if err != nil {
			return err
		}
		voters := 0
		for _, m := range ms {
			if m.Voter {
				voters++
			}
		}
		if len(ms) != want || voters != want {
			return fmt.Errorf("got %d members and %d voters, want %d of each", len(ms), voters, want)
		}
		return nil
	})
}

// until calls f until it returns nil. After longStop it fails the test with the last error.
func (c *cluster) until(what string, f func() error) {
	c.Helper()
	deadline := time.Now().Add(longStop)
	for tick := time.NewTicker(10 * time.Millisecond); ; <-tick.C {
		err := f()
		if err == nil {
			tick.Stop()
			return
		}
		if time.Now().After(deadline) {
			c.Fatalf("%s: %v", what, err)
		}
	}
}
