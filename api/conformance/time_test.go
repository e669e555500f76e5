package conformance_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"
)

// Tokens and secrets expire and tombstones are deleted. The test moves the clock of all nodes.
func TestOAuth_ClockMoves_Conforms(t *testing.T) {
	s := newStage(t, options{})
	runScenarios(t, s, timeScenarios())
}

func timeScenarios() []scenario {
	return []scenario{
		{"HP-06", "RFC 7009 2.2", "revoking an expired access token revokes its refresh token", expiredAccessToken},
		{"IN-02", "RFC 7662 2.2", "an expired token is inactive", expiredAccessToken},
		{"IN-02", "RFC 7662 2.2", "a token that is not valid yet is inactive, and active later", notYetValid},
		{"PR-12", "contract 2", "revoking an expired and deleted token still revokes its grant", deletedTokens},
		{"PR-12", "contract 2", "revoking a token of an expired grant is 200", grantThatIsOver},
		{"CA-20", "contract 3", "an old secret within its grace and after it", secretInGrace},
		{"contract", "2 \"late_registration_window\"", "a tombstone revokes a late registration, and is deleted later",
			lateRegistration},
		{"contract", "3 \"Dead from the start\"", "a cut-off outlives the tokens that it revoked",
			cutoffOutlivesTokens},
	}
}

// issue registers a token pair of a client and returns the raw tokens. A lifetime of 0 omits the
// token.
func (s *stage) issue(t *testing.T, who, client string, access, refresh time.Duration, more string) (at, rt string) {
	t.Helper()
	n := sequence.Add(1)
	now := s.now()
	at, rt = fmt.Sprintf("%sat.%d~%d", rawMark, n, now.Unix()), fmt.Sprintf("%srt.%d~%d", rawMark, n, now.Unix())
	body := `{"client_id":"` + client + `"` + more
	if access != 0 {
		body += fmt.Sprintf(`,"access_token":{"token":%q,"issued_at":%d,"expires_at":%d}`, at, now.Unix(),
			now.Add(access).Unix())
	}
	if refresh != 0 {
		body += fmt.Sprintf(`,"refresh_token":{"token":%q,"issued_at":%d,"expires_at":%d}`, rt, now.Unix(),
			now.Add(refresh).Unix())
	}
	if r := s.json(t, s.Follower(t), http.MethodPost, "/v1/grants", who, body+"}"); r.Status != 201 ||
		!strings.Contains(r.Body, `"state":"active"`) {
		t.Fatalf("register: got %d %s, want 201", r.Status, r.Body)
	}
	return at, rt
}

// everywhere fails the test unless introspection on every node returns want.
func (s *stage) everywhere(t *testing.T, what, token string, refresh, want bool) {
	t.Helper()
	for _, m := range s.alive() {
		if got := s.active(t, m, token, refresh); got != want {
			t.Errorf("%s on %s: active: got %t, want %t", what, m.ID, got, want)
		}
	}
}

func (s *stage) revoke(t *testing.T, who, token string) {
	t.Helper()
	r := s.sendUntilLed(t, s.Follower(t), pathRevoke, call{as: who, body: "token=" + token})
	checkOAuth(t, r)
	if r.Status != 200 || r.Body != "{}" {
		t.Fatalf("revoke: got %d %s, want 200 {}", r.Status, r.Body)
	}
}

func expiredAccessToken(t *testing.T, s *stage) {
	at, rt := s.issue(t, "iss", "c1", 30*time.Second, time.Hour, "")
	s.everywhere(t, "before", at, false, true)
	s.forward(t, time.Minute)
	s.everywhere(t, "expired", at, false, false)
	s.everywhere(t, "its refresh token", rt, true, true)
	s.revoke(t, "c1", at)
	s.everywhere(t, "refresh token after the revocation", rt, true, false)
}

func notYetValid(t *testing.T, s *stage) {
	now := s.now().Unix()
	token := fmt.Sprintf("%snbf.%d", rawMark, sequence.Add(1))
	body := fmt.Sprintf(`{"client_id":"c1","access_token":{"token":%q,"issued_at":%d,"not_before":%d,"expires_at":%d}}`,
		token, now, now+100, now+3600)
	if r := s.json(t, s.Follower(t), http.MethodPost, "/v1/grants", "iss", body); r.Status != 201 {
		t.Fatalf("register: got %d %s", r.Status, r.Body)
	}
	s.everywhere(t, "before its not_before time", token, false, false)
	s.forward(t, 2*time.Minute)
	s.until(t, "the token is valid on every node", func() bool {
		for _, m := range s.alive() {
			if !s.active(t, m, token, false) {
				return false
			}
		}
		return true
	})
	s.revoke(t, "c1", token)
	s.everywhere(t, "revoked", token, false, false)
}

// liveTokens returns the number of tokens that a node reports.
func (s *stage) liveTokens(t *testing.T, m *member) uint64 {
	t.Helper()
	r := s.json(t, m, http.MethodGet, "/v1/status", "adm", "")
	var st struct{ Tokens uint64 }
	if err := json.Unmarshal([]byte(r.Body), &st); r.Status != 200 || err != nil {
		t.Fatalf("status: got %d %s (%v)", r.Status, r.Body, err)
	}
	return st.Tokens
}

func deletedTokens(t *testing.T, s *stage) {
	m := s.Follower(t)
	at, rt := s.issue(t, "iss", "c1", 30*time.Second, time.Hour, "")
	s.until(t, "the registration is applied here", func() bool { return s.active(t, m, at, false) })
	before := s.liveTokens(t, m)
	s.forward(t, 2*time.Minute)
	s.until(t, "the token is deleted", func() bool { return s.liveTokens(t, m) < before })
	s.revoke(t, "c1", at)
	s.everywhere(t, "refresh token after the deleted access token was revoked", rt, true, false)
}

func grantThatIsOver(t *testing.T, s *stage) {
	m := s.Follower(t)
	id := fmt.Sprintf("over.%d", sequence.Add(1))
	at, rt := s.issue(t, "iss", "c1", 30*time.Second, 40*time.Second, `,"grant_id":"`+id+`"`)
	grants := func() int { return s.json(t, m, http.MethodGet, "/v1/grants/"+id, "adm", "").Status }
	if got := grants(); got != 200 {
		t.Fatalf("the grant: got %d, want 200", got)
	}
	s.forward(t, 2*time.Minute)
	s.until(t, "the grant is deleted", func() bool { return grants() == 404 })
	for _, token := range []string{at, rt} {
		s.revoke(t, "c1", token)
		s.everywhere(t, "a token of a grant that has ended", token, false, false)
	}
}

func secretInGrace(t *testing.T, s *stage) {
	r := s.json(t, s.Follower(t), http.MethodPost, "/v1/clients/c2/secret", "adm", "{}")
	var made struct {
		ClientSecret string `json:"client_secret"`
		Index        uint64 `json:"index"`
	}
	if err := json.Unmarshal([]byte(r.Body), &made); r.Status != 200 || err != nil || made.ClientSecret == "" ||
		made.Index == 0 {
		t.Fatalf("rotate: got %d %s (%v)", r.Status, r.Body, err)
	}
	try := func(m *member, secret string) int {
		r := s.send(t, s.HTTP, m, pathRevoke, call{auth: basicOf("c2:" + secret), body: "token=raw~unknown"}, nil)
		checkOAuth(t, r)
		return r.Status
	}
	for _, m := range s.Members {
		if old, fresh := try(m, secretFor("c2")), try(m, made.ClientSecret); old != 200 || fresh != 200 {
			t.Errorf("%s inside the grace: got %d for the old secret and %d for the new one, want 200", m.ID, old, fresh)
		}
	}
	s.forward(t, 23*time.Hour)
	if old := try(s.Follower(t), secretFor("c2")); old != 200 {
		t.Errorf("after 23 hours: got %d for the old secret, want 200", old)
	}
	s.forward(t, 2*time.Hour)
	for _, m := range s.Members {
		if old, fresh := try(m, secretFor("c2")), try(m, made.ClientSecret); old != 401 || fresh != 200 {
			t.Errorf("%s after the grace: got %d for the old secret and %d for the new one, want 401 and 200", m.ID, old, fresh)
		}
	}
}

func lateRegistration(t *testing.T, s *stage) {
	register := func(client, token string) string {
		r := s.json(t, s.Follower(t), http.MethodPost, "/v1/grants", "iss",
			fmt.Sprintf(`{"client_id":%q,"access_token":{"token":%q}}`, client, token))
		var got struct{ State string }
		if err := json.Unmarshal([]byte(r.Body), &got); r.Status != 201 || err != nil {
			t.Fatalf("register: got %d %s (%v)", r.Status, r.Body, err)
		}
		return got.State
	}
	n := sequence.Add(1)
	token := func(name string) string { return fmt.Sprintf("%slate.%s.%d", rawMark, name, n) }
	for i := range 50 {
		s.revoke(t, "c1", token(fmt.Sprint("forgotten", i)))
	}
	for _, name := range []string{"soon", "other", "end"} {
		s.revoke(t, "c1", token(name))
	}
	s.revoke(t, "adm", token("any"))
	if got := register("c1", token("soon")); got != "revoked" {
		t.Errorf("registered for the client that revoked it: got %q, want revoked", got)
	}
	s.everywhere(t, "registered late", token("soon"), false, false)
	if got := register("c2", token("other")); got != "active" {
		t.Errorf("registered for another client: got %q, want active", got)
	}
	s.everywhere(t, "registered late for another client", token("other"), false, true)
	if got := register("cl:ient", token("any")); got != "revoked" {
		t.Errorf("registered after an administrator revoked it: got %q, want revoked", got)
	}
	s.everywhere(t, "registered late after an administrator's revocation", token("any"), false, false)
	s.forward(t, 59*time.Minute)
	if got := register("c1", token("end")); got != "revoked" {
		t.Errorf("registered at the end of the window: got %q, want revoked", got)
	}
	// A node may keep a tombstone longer than required, but must delete it eventually.
	s.forward(t, 3*time.Hour)
	next := 0
	s.until(t, "a registration three windows later is active", func() bool {
		if next == 49 { // a token registered while its tombstone existed stays revoked
			t.Fatal("got all 49 tombstones, want some deleted")
		}
		next++
		before := s.liveTokens(t, s.Follower(t))
		if register("c1", token(fmt.Sprint("forgotten", next))) == "active" {
			return true
		}
		s.until(t, "the compaction ran", func() bool {
			s.issue(t, "iss", "c1", time.Hour, 0, "")
			return s.liveTokens(t, s.Follower(t)) > before+50
		})
		return false
	})
	s.everywhere(t, "registered three windows later", token(fmt.Sprint("forgotten", next)), false, true)
}

func cutoffOutlivesTokens(t *testing.T, s *stage) {
	n := sequence.Add(1)
	subject := fmt.Sprintf("cut.%d", n)
	at, _ := s.issue(t, "iss", "c1", 30*time.Second, 0, `,"subject":"`+subject+`"`)
	issued := s.now().Unix()
	if r := s.json(t, s.Follower(t), http.MethodPost, "/v1/revocations", "adm",
		`{"subject":"`+subject+`"}`); r.Status != 200 {
		t.Fatalf("cut-off: got %d %s", r.Status, r.Body)
	}
	s.everywhere(t, "cut off", at, false, false)
	s.forward(t, 48*time.Hour)
	late := fmt.Sprintf("%scut.%d", rawMark, n)
	r := s.json(t, s.Follower(t), http.MethodPost, "/v1/grants", "iss",
		fmt.Sprintf(`{"client_id":"c1","subject":%q,"access_token":{"token":%q,"issued_at":%d}}`, subject, late, issued))
	if r.Status != 201 || !strings.Contains(r.Body, `"state":"revoked"`) {
		t.Errorf("a token issued before the cut-off, registered two days later: got %d %s, want 201 and revoked", r.Status,
			r.Body)
	}
	s.everywhere(t, "registered after the cut-off", late, false, false)
	r = s.json(t, s.Follower(t), http.MethodPost, "/v1/grants", "iss",
		fmt.Sprintf(`{"client_id":"c1","subject":%q,"access_token":{"token":"%s.new"}}`, subject, late))
	if r.Status != 201 || !strings.Contains(r.Body, `"state":"active"`) {
		t.Errorf("a token issued after the cut-off: got %d %s, want 201 and active", r.Status, r.Body)
	}
	s.everywhere(t, "issued after the cut-off", late+".new", false, true)
}
