// Package conformance_test checks the API against its standards (RFC 7009, 7662, 8414 and others)
// and its contract. Rows and scenarios run against a cluster of three nodes, through a follower:
// nodes in this process, or processes of the program that REVOKED_CONFORMANCE_BINARY names.
// docs/standards-tests.md lists the test of each paragraph.
package conformance_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"
)

// program is the program under test. If it is empty, the nodes run in the test's own process.
var program = os.Getenv("REVOKED_CONFORMANCE_BINARY")

// longStop bounds every wait.
const longStop = 60 * time.Second

// rawMark begins every raw token and secretMark every secret of these tests. Neither may be found
// in a log, a metric or a file.
const (
	rawMark    = "raw~"
	secretMark = "Secret-of-"
)

// secretFor returns the secret of a client of a stage. All but the weak one of client C3 have at
// least 32 bytes.
func secretFor(id string) string {
	if id == "cl:ient" {
		return "s%c+r t"
	}
	return secretMark + id + "-0123456789abcdefghijklmn"
}

// stageClients are the clients of the tables, as bodies of POST /v1/clients without their secrets.
// c1, c2 and cl:ient (C3) are confidential, cd (CD) is disabled, pub1 (CP) and pub2 are public. rs1
// and rs2 are resource servers, iss and iss2 are issuers. adm (ADM) is an administrator, ops an
// operator, eye a viewer and aud an auditor.
var stageClients = []string{
	`{"client_id":"adm","roles":["admin"]}`,
	`{"client_id":"c1"}`, `{"client_id":"c2"}`, `{"client_id":"cl:ient","imported":true}`,
	`{"client_id":"cd","disabled":true}`,
	`{"client_id":"basic-only","auth_methods":["client_secret_basic"]}`,
	`{"client_id":"post-only","auth_methods":["client_secret_post"]}`,
	`{"client_id":"pub1","type":"public"}`, `{"client_id":"pub2","type":"public","allow_public_revocation":true}`,
	`{"client_id":"rs1","roles":["resource_server"]}`, `{"client_id":"rs2","roles":["resource_server"]}`,
	`{"client_id":"ops","roles":["operator"]}`, `{"client_id":"eye","roles":["viewer"]}`,
	`{"client_id":"aud","roles":["auditor"]}`,
	`{"client_id":"iss","roles":["issuer"]}`,
	`{"client_id":"iss2","roles":["issuer"],"issuers":["https://as2.example"]}`,
}

// options configure the nodes of a stage. The zero value of each field is its default.
type options struct {
	open           bool          // whether plain HTTP and GET are allowed
	cors           []string      // allowed origins
	issuerPath     string        // path of the issuer
	metadataExtra  string        // JSON
	checkNetworks  []string      // networks that may call /v1/check
	requestTimeout time.Duration // default 30 s, so that a busy machine does not cause a 503
	heartbeat      time.Duration // timeout of heartbeats and elections; default 3 s
	authFailures   int           // limit of failures per minute; default 100,000
	misses         int           // limit of misses per second; default 100,000
}

// A member is one node of a stage.
type member struct {
	ID      string
	URL     string // URL of the API
	cluster string // address of the cluster port
	data    string // data directory
	control control
}

// A control starts and stops a node.
type control interface {
	// Start starts the node. Its API may not answer yet.
	Start(t *testing.T)
	// Stop shuts the node down without waiting for requests.
	Stop(t *testing.T)
	// StopGracefully lets requests in progress finish first.
	StopGracefully(t *testing.T)
	Running() bool
}

// A stage is a cluster of three nodes with the clients of the tables. Tests check each answer
// against the rules for all answers (GA-1 to GA-8), and the state of every token on every node.
type stage struct {
	Members []*member
	HTTP    *http.Client // trusts the CA of the API ports
	http1   *http.Client // like HTTP, but without HTTP/2
	issuer  string
	version string
	now     func() time.Time      // clock of the nodes
	advance func(d time.Duration) // moves the clock; nil if the nodes use the real time
}

// newStage starts a cluster. Its logs are searched for tokens and secrets when the test ends.
func newStage(t *testing.T, o options) *stage {
	t.Helper()
	if o.requestTimeout == 0 {
		o.requestTimeout = 30 * time.Second
	}
	if o.heartbeat == 0 {
		o.heartbeat = 3 * time.Second
	}
	if o.authFailures == 0 {
		o.authFailures = 100_000
	}
	if o.misses == 0 {
		o.misses = 100_000
	}
	var s *stage
	if program == "" {
		s = inProcess(t, o)
	} else {
		s = processes(t, o)
	}
	for _, body := range stageClients[1:] {
		s.createClient(t, body)
	}
	for _, m := range s.Members {
		s.until(t, m.ID+" has all clients", func() bool {
			return s.json(t, m, http.MethodGet, "/v1/clients/iss2", "adm", "").Status == http.StatusOK
		})
	}
	return s
}

func (s *stage) createClient(t *testing.T, body string) {
	t.Helper()
	var c struct {
		ClientID string `json:"client_id"`
		Type     string `json:"type"`
	}
	if err := json.Unmarshal([]byte(body), &c); err != nil {
		t.Fatal(err)
	}
	if c.Type != "public" {
		body = fmt.Sprintf(`%s,"client_secret":%q}`, strings.TrimSuffix(body, "}"), secretFor(c.ClientID))
	}
	if r := s.json(t, s.Follower(t), http.MethodPost, "/v1/clients", "adm", body); r.Status != http.StatusCreated {
		t.Fatalf("create client %s: got %d %s, want 201", c.ClientID, r.Status, r.Body)
	}
}

// alive returns the running members.
func (s *stage) alive() []*member {
	var out []*member
	for _, m := range s.Members {
		if m.control.Running() {
			out = append(out, m)
		}
	}
	return out
}

// start starts the members and waits until all running members can answer.
func (s *stage) start(t *testing.T, members ...*member) {
	t.Helper()
	s.HTTP.CloseIdleConnections()
	for _, m := range members {
		m.control.Start(t)
	}
	s.waitReady(t)
}

// waitReady waits until every running node can answer introspections.
func (s *stage) waitReady(t *testing.T) {
	t.Helper()
	for _, m := range s.alive() {
		s.until(t, m.ID+" is ready", func() bool {
			r, err := s.HTTP.Get(m.URL + "/readyz")
			if err != nil {
				return false
			}
			defer r.Body.Close()
			return r.StatusCode == http.StatusOK
		})
	}
}

// nodeStatus is the part of GET /v1/status that the tests use.
type nodeStatus struct {
	State        string `json:"state"`
	AppliedIndex uint64 `json:"applied_index"`
	Tokens       uint64 `json:"tokens"`
	Leader       struct {
		NodeID string `json:"node_id"`
	} `json:"leader"`
	Lease struct {
		Held bool `json:"held"`
	} `json:"lease"`
}

// status returns the status of a member. ok is false if the member does not send its status.
func (s *stage) status(t *testing.T, m *member) (st nodeStatus, ok bool) {
	t.Helper()
	req, err := http.NewRequest(http.MethodGet, m.URL+"/v1/status", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.SetBasicAuth("adm", secretFor("adm"))
	resp, err := s.HTTP.Do(req)
	if err != nil {
		return st, false
	}
	defer resp.Body.Close()
	return st, json.NewDecoder(resp.Body).Decode(&st) == nil && resp.StatusCode == http.StatusOK
}

// mustStatus is like status, but fails the test if the member does not send its status.
func (s *stage) mustStatus(t *testing.T, m *member) nodeStatus {
	t.Helper()
	st, ok := s.status(t, m)
	if !ok {
		t.Fatalf("%s: got no status, want one", m.ID)
	}
	return st
}

// Leader waits until a node reports itself as the leader, and returns that node.
func (s *stage) Leader(t *testing.T) (leader *member) {
	t.Helper()
	s.until(t, "a node leads", func() bool {
		for _, m := range s.alive() {
			if st, ok := s.status(t, m); ok && st.State == "leader" && st.Leader.NodeID == m.ID {
				leader = m
				return true
			}
		}
		return false
	})
	return leader
}

// Follower returns a running node that does not lead.
func (s *stage) Follower(t *testing.T) *member {
	t.Helper()
	leader := s.Leader(t)
	for _, m := range s.alive() {
		if m != leader {
			return m
		}
	}
	t.Fatal("no follower is running")
	return nil
}

// until polls until ok returns true. It fails the test after longStop.
func (s *stage) until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	stop := time.After(longStop)
	for !ok() {
		select {
		case <-tick.C:
		case <-stop:
			t.Fatalf("waited %v for: %s", longStop, what)
		}
	}
}

// needClock skips a test if it cannot move the clock.
func (s *stage) needClock(t *testing.T) {
	t.Helper()
	if s.advance == nil {
		t.Skip("the clock of real processes cannot be moved")
	}
}

// forward moves the clock of all nodes. It waits until they have leases again and the log has the
// new time, which shows in the issued_at of a token registered without one.
func (s *stage) forward(t *testing.T, d time.Duration) {
	t.Helper()
	s.needClock(t)
	s.advance(d)
	s.waitReady(t)
	s.until(t, "the time of the log has followed", func() bool {
		token := fresh("probe")
		m := s.Follower(t)
		r := s.json(t, m, http.MethodPost, "/v1/grants", "iss", `{"client_id":"c1","access_token":{"token":"`+token+`"}}`)
		if r.Status != http.StatusCreated {
			return false
		}
		r = s.send(t, s.HTTP, m, pathIntrospect, call{as: "c1", body: "token=" + token}, nil)
		s.revoke(t, "c1", token)
		var got struct {
			IssuedAt int64 `json:"iat"`
		}
		return json.Unmarshal([]byte(r.Body), &got) == nil && got.IssuedAt >= s.now().Unix()-10
	})
}
