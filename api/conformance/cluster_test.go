package conformance_test

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Rows CL of docs/standards-tests.md: the guarantees of a cluster while nodes stop and start.
func TestCluster_NodeFailures_Conforms(t *testing.T) {
	s := newStage(t, options{requestTimeout: 2 * time.Second, heartbeat: time.Second})
	runScenarios(t, s, clusterScenarios())
}

func clusterScenarios() []scenario {
	return []scenario{
		{"CL-01", "RFC 7009 2.1", "inactive on every node right after the 200", inactiveAtOnce},
		{"CL-12", "contract 2", "a cache that fills while a revocation is applied, 1000 rounds", cacheRace},
		{"CL-17", "contract 2", "a follower shuts down cleanly under load", stopUnderLoad(false)},
		{"CL-04", "RFC 7009 2.2.1", "the leader stops under load", stopUnderLoad(true)},
		{"PR-11", "contract 2", "nothing revoked comes back after all nodes restarted", restartAll},
		{"CL-03", "RFC 7009 2.2.1", "a request during an election is answered 200 or 503", duringElection},
		{"CL-04", "RFC 7009 2.2.1", "an entry that was appended and not committed", appendedOnly},
		{"CL-05", "RFC 7009 2.2", "without quorum, no answer claims an outcome", withoutQuorum},
	}
}

// many registers n token pairs of a client and returns the access and refresh tokens.
func (s *stage) many(t *testing.T, client string, n int) (access, refresh []string) {
	t.Helper()
	id, now := sequence.Add(1), s.now()
	var lines strings.Builder
	for i := range n {
		access = append(access, fmt.Sprintf("%sm%d.%d", rawMark, id, i))
		refresh = append(refresh, fmt.Sprintf("%sr%d.%d", rawMark, id, i))
		fmt.Fprintf(&lines, `{"client_id":%q,"audience":["rs1"],"access_token":{"token":%q,"expires_at":%d},"refresh_token":{"token":%q}}`+"\n",
			client, access[i], now.Add(time.Hour).Unix(), refresh[i])
	}
	r := s.send(t, s.HTTP, s.Follower(t), "/v1/grants?results=errors",
		call{as: "iss", body: lines.String(), contentType: ndjson}, nil)
	if want := fmt.Sprintf(`{"registered":%d,"known":0,"revoked":0,"failed":0,"lines":%d}`+"\n", n,
		n); r.Status != 200 || r.Body != want {
		t.Fatalf("register: got %d %s, want %s", r.Status, r.Body, want)
	}
	return access, refresh
}

func inactiveAtOnce(t *testing.T, s *stage) {
	access, refresh := s.many(t, "c1", 60)
	var all sync.WaitGroup
	for worker := range 3 {
		all.Go(func() {
			for i := worker; i < len(access); i += 3 {
				r := s.revokeUntilLed(t, s.Members[i%3], access[i])
				checkOAuth(t, r)
				if r.Status != 200 {
					t.Errorf("revoke: got %d %s, want 200", r.Status, r.Body)
					continue
				}
				s.everywhere(t, "access token", access[i], false, false)
				s.everywhere(t, "refresh token", refresh[i], true, false)
			}
		})
	}
	all.Wait()
}

// cacheRace introspects a token on one node in a loop while another node revokes it.
func cacheRace(t *testing.T, s *stage) {
	const rounds, workers = 1000, 8
	access, _ := s.many(t, "c1", rounds)
	var next atomic.Int64
	var all sync.WaitGroup
	for worker := range workers {
		all.Go(func() {
			reader, writer := s.Members[worker%3], s.Members[(worker/3+worker+1)%3]
			for {
				i := int(next.Add(1)) - 1
				if i >= rounds || t.Failed() {
					return
				}
				var over atomic.Bool
				var reading sync.WaitGroup
				reading.Go(func() {
					for !over.Load() {
						s.active(t, reader, access[i], false)
					}
				})
				if r := s.revokeUntilLed(t, writer, access[i]); r.Status != 200 {
					t.Errorf("round %d: revoke: got %d %s, want 200", i, r.Status, r.Body)
				} else {
					// Introspect twice: the second answer may come from a cache that the first one filled.
					for range 2 {
						if s.active(t, reader, access[i], false) {
							t.Errorf("round %d: got an active token on %s after the 200, want an inactive one", i, reader.ID)
						}
					}
				}
				over.Store(true)
				reading.Wait()
			}
		})
	}
	all.Wait()
}

// revokeUntilLed revokes a token of c1 through a member. It retries like sendUntilLed.
func (s *stage) revokeUntilLed(t *testing.T, m *member, token string) reply {
	t.Helper()
	return s.sendUntilLed(t, m, pathRevoke, call{as: "c1", body: "token=" + token})
}

// attempt revokes a token through a member that may be stopping. It returns 0 if no response
// arrives.
func (s *stage) attempt(t *testing.T, m *member, token string) int {
	form := url.Values{"token": {token}}
	req, err := http.NewRequest(http.MethodPost, m.URL+pathRevoke, strings.NewReader(form.Encode()))
	if err != nil {
		t.Error(err)
		return 0
	}
	req.Header.Set("Content-Type", formType)
	req.SetBasicAuth("c1", secretFor("c1"))
	resp, err := s.HTTP.Do(req)
	if err != nil {
		return 0
	}
	defer resp.Body.Close()
	return resp.StatusCode
}

// stopUnderLoad shuts a node down cleanly while clients revoke through all nodes. Every response is
// 200 or 503. A 200 is final. A retry after any other result gets 200.
func stopUnderLoad(leader bool) func(t *testing.T, s *stage) {
	return func(t *testing.T, s *stage) {
		const tokens, workers = 300, 6
		access, refresh := s.many(t, "c1", tokens)
		victim := s.Follower(t)
		if leader {
			victim = s.Leader(t)
		}
		var half = make(chan struct{})
		var next, done atomic.Int64
		results := make([]int, tokens)
		var all sync.WaitGroup
		for worker := range workers {
			all.Go(func() {
				for {
					i := int(next.Add(1)) - 1
					if i >= tokens {
						return
					}
					results[i] = s.attempt(t, s.Members[(worker+i)%3], access[i])
					if done.Add(1) == tokens/3 {
						close(half)
					}
				}
			})
		}
		<-half
		victim.control.StopGracefully(t)
		all.Wait()
		counts := map[int]int{}
		for i, status := range results {
			counts[status]++
			switch status {
			case 200:
				s.everywhere(t, "answered 200 before the shutdown", access[i], false, false)
			case 503, 0:
				s.until(t, "a retry gets 200", func() bool { return s.attempt(t, s.Follower(t), access[i]) == 200 })
			default:
				t.Errorf("got %d, want 200 or 503", status)
			}
			s.everywhere(t, "refresh token in the end", refresh[i], true, false)
		}
		if counts[200] == 0 {
			t.Errorf("got statuses %v, want at least one 200", counts)
		}
		victim.control.Start(t)
		s.waitReady(t)
		for i := range access {
			if s.active(t, victim, access[i], false) {
				t.Errorf("token %d on the restarted node: got active, want inactive", i)
			}
		}
	}
}

func restartAll(t *testing.T, s *stage) {
	w := s.newTokens(t, s.Follower(t))
	s.revoke(t, "c1", w.tokens["ATb"])
	for _, m := range s.Members {
		m.control.StopGracefully(t)
	}
	s.HTTP.CloseIdleConnections()
	for _, m := range s.Members {
		m.control.Start(t)
	}
	s.waitReady(t)
	w.check(t, whole)
}

func duringElection(t *testing.T, s *stage) {
	access, _ := s.many(t, "c1", 40)
	leader := s.Leader(t)
	var followers []*member
	for _, m := range s.Members {
		if m != leader {
			followers = append(followers, m)
		}
	}
	leader.control.Stop(t)
	results := make([]int, len(access))
	var all sync.WaitGroup
	for i := range access {
		all.Go(func() { results[i] = s.attempt(t, followers[i%2], access[i]) })
	}
	all.Wait()
	for i, status := range results {
		if status != 200 && status != 503 {
			t.Errorf("got %d, want 200 or 503", status)
		}
		s.until(t, "a retry gets 200", func() bool { return s.attempt(t, followers[i%2], access[i]) == 200 })
		s.everywhere(t, "in the end", access[i], false, false)
	}
	leader.control.Start(t)
	s.waitReady(t)
}

// appendedOnly makes the leader append an entry that no follower receives. The revocation gets 503,
// and a retry gets 200.
func appendedOnly(t *testing.T, s *stage) {
	w := s.newTokens(t, s.Follower(t))
	leader := s.Leader(t)
	for _, m := range s.Members {
		if m != leader {
			m.control.Stop(t)
		}
	}
	r := s.send(t, s.HTTP, leader, pathRevoke, call{as: "c1", body: "token={AT1}"}, w.tokens)
	checkOAuth(t, r)
	if r.Status != 503 {
		t.Errorf("a leader without followers: got %d %s, want 503", r.Status, r.Body)
	}
	for _, m := range s.Members {
		if m != leader {
			m.control.Start(t)
		}
	}
	s.waitReady(t)
	s.until(t, "a retry gets 200", func() bool { return s.attempt(t, s.Follower(t), w.tokens["AT1"]) == 200 })
	w.check(t, pair)
}

// quorumRows are the answers of a node without quorum. The rows run in parallel, because each
// request may wait for a leader until its timeout.
func quorumRows() []row {
	down := func(id, level, title string, a call) row {
		return row{id: id, level: level, title: title, call: a, status: 503, code: "temporarily_unavailable"}
	}
	c1 := func(body string) call { return call{as: "c1", body: body} }
	return []row{
		down("CL-03", "RFC 7009 2.2.1", "a client's own active token", c1("token={AT1}")),
		down("CL-16", "RFC 7009 2.2.1", "the body and the headers of the 503", c1("token={AT1}")),
		down("CL-05", "RFC 7009 2.2", "an unknown token", c1("token=raw~unknown")),
		down("CL-05", "contract 2 \"a repeat is as final as the first\"", "a token that was revoked before",
			c1("token={AT3}")),
		down("CL-08", "RFC 7009 2.2", "a foreign token", c1("token={AT2}")),
		down("CL-08", "RFC 7009 2.2", "an administrator", call{as: "adm", body: "token={AT2}"}),
		{id: "CL-09", level: "RFC 6749 5.2", title: "a wrong secret",
			call: call{auth: basicOf("c1:wrong"), body: "token={AT1}"}, status: 401, code: "invalid_client"},
		{id: "CL-09", level: "RFC 6749 5.2", title: "no credentials", call: call{body: "token={AT1}"}, status: 401,
			code: "invalid_client"},
		{id: "CL-09", level: "contract 2", title: "no token", call: c1("x=1"), status: 400, code: "invalid_request"},
		{id: "CL-09", level: "contract 2", title: "two tokens", call: c1("token=a&token=b"), status: 400,
			code: "invalid_request"},
		{id: "CL-09", level: "contract 2", title: "a resource server", call: call{as: "rs1", body: "token={AT1}"},
			status: 400, code: "unauthorized_client"},
	}
}

func withoutQuorum(t *testing.T, s *stage) {
	w := s.newTokens(t, s.Follower(t))
	s.revoke(t, "c1", w.tokens["AT3"])
	last := s.Follower(t)
	for _, m := range s.Members {
		if m != last {
			m.control.Stop(t)
		}
	}
	s.until(t, "its lease has expired", func() bool { return !s.mustStatus(t, last).Lease.Held })
	t.Run("alone", func(t *testing.T) {
		for _, row := range quorumRows() {
			t.Run(row.name(), func(t *testing.T) {
				t.Parallel()
				for _, path := range revokePaths {
					r := s.send(t, s.HTTP, last, path, row.call, w.tokens)
					checkOAuth(t, r)
					if r.Status != row.status || !strings.HasPrefix(r.Body, `{"error":"`+row.code+`"`) {
						t.Errorf("%s: got %d %s, want %d %s", path, r.Status, r.Body, row.status, row.code)
					}
				}
			})
		}
		t.Run("CL-11 RFC 7662 4: introspection", func(t *testing.T) {
			t.Parallel()
			aloneIntrospection(t, s, last, w)
		})
		t.Run("contract 3: the rest of the API", func(t *testing.T) {
			t.Parallel()
			aloneAdmin(t, s, last, w)
		})
	})
	for _, m := range s.Members {
		if m != last {
			m.control.Start(t)
		}
	}
	s.waitReady(t)
	w.check(t, "AT3")
	s.until(t, "a retry gets 200", func() bool { return s.attempt(t, last, w.tokens["AT1"]) == 200 })
	w.check(t, "AT3 AT1 RT1")
}

func aloneIntrospection(t *testing.T, s *stage, last *member, w *tokenSet) {
	var all sync.WaitGroup
	for _, row := range []struct {
		title, as, token string
		status           int
		body             string
	}{
		{"an active token", "rs1", "{AT1}", 503, ""},
		{"an active token, its client", "c1", "{AT1}", 503, ""},
		{"an active refresh token, an administrator", "adm", "{RT1}", 503, ""},
		{"an unknown token", "rs1", "raw~unknown", 503, ""},
		{"a revoked token stays inactive", "rs1", "{AT3}", 200, inactive},
		{"a rotated token too", "adm", "{RTg0}", 200, inactive},
	} {
		for _, path := range introspectPaths {
			all.Go(func() {
				r := s.send(t, s.HTTP, last, path, call{as: row.as, body: "token=" + row.token}, w.tokens)
				checkOAuth(t, r)
				if r.Status != row.status || row.status == 200 && r.Body != row.body || row.status == 503 &&
					!strings.HasPrefix(r.Body, `{"error":"temporarily_unavailable"`) {
					t.Errorf("%s: got %d %s, want %d", row.title, r.Status, r.Body, row.status)
				}
			})
		}
	}
	all.Wait()
}

func aloneAdmin(t *testing.T, s *stage, last *member, w *tokenSet) {
	var all sync.WaitGroup
	for _, row := range []struct {
		method, path, as, body string
		status                 int
	}{
		{"POST", "/v1/grants", "iss", `{"client_id":"c1","access_token":{"token":"raw~alone"}}`, 503},
		{"GET", "/v1/grants/" + w.grants["g1"], "adm", "", 503},
		{"DELETE", "/v1/grants/" + w.grants["g1"], "adm", "", 503},
		{"POST", "/v1/revocations", "adm", `{"subject":"x"}`, 503},
		{"POST", "/v1/revocations", "adm", `{"subject":"x","dry_run":true}`, 503},
		{"POST", "/v1/clients", "adm", `{"client_id":"alone"}`, 503},
		{"PATCH", "/v1/clients/c1", "adm", `{"disabled":true}`, 503},
		{"DELETE", "/v1/clients/c1", "adm", "", 503},
		{"PATCH", "/v1/settings", "adm", `{"secret_grace":"1h"}`, 503},
		{"GET", "/v1/snapshot", "adm", "", 503},
		{"GET", "/v1/revocations?after=1152921504606846976", "rs1", "", 503},
		{"POST", "/v1/grants", "c1", `{}`, 403},
		{"POST", "/v1/grants", "", `{}`, 401},
		{"POST", "/v1/grants", "iss", `{}`, 400},
		{"GET", "/v1/status", "adm", "", 200},
		{"GET", "/v1/members", "adm", "", 200},
		{"GET", "/livez", "", "", 200},
		{"GET", "/readyz", "", "", 503},
		{"GET", "/readyz?verbose&revoke", "", "", 503},
		{"GET", "/metrics", "", "", 200},
		{"GET", metadataPath, "", "", 200},
	} {
		all.Go(func() {
			r := s.json(t, last, row.method, row.path, row.as, row.body)
			if r.Status != row.status {
				t.Errorf("%s %s: got %d %s, want %d", row.method, row.path, r.Status, r.Body, row.status)
			}
			if row.status == 503 && r.Header.Get("Retry-After") == "" {
				t.Errorf("%s %s: 503 without Retry-After", row.method, row.path)
			}
		})
	}
	all.Wait()
	r := s.send(t, s.HTTP, last, "/v1/check", call{method: "GET", auth: "Bearer {AT1}",
		header: http.Header{"Revoked-Authorization": {basicOf("rs1:" + secretFor("rs1"))}}}, w.tokens)
	if r.Status != 503 {
		t.Errorf("/v1/check: got %d %s, want 503", r.Status, r.Body)
	}
	r = s.send(t, s.HTTP, last, "/v1/grants", call{as: "iss", contentType: ndjson,
		body: `{"client_id":"c1","access_token":{"token":"raw~alone1"}}` + "\n{}\n"}, nil)
	if lines := strings.Split(strings.TrimSpace(r.Body), "\n"); r.Status != 200 || len(lines) != 2 ||
		!strings.Contains(lines[0], `"error":"temporarily_unavailable"`) || !strings.Contains(lines[1], `"line":2`) {
		t.Errorf("NDJSON: got %d %s, want a line with temporarily_unavailable and one with invalid", r.Status, r.Body)
	}
}
