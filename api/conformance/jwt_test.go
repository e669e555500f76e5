package conformance_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"net/url"
	"strings"
	"testing"

	"revoked/internal/testjwt"
)

const jwtIssuer = "https://jwt.example"

// Rows JW of docs/standards-tests.md: JWTs of a trusted issuer that are not registered. In each
// subtest, the cluster trusts the issuer with another key. The clients are those of the stage.
func TestJWT_TrustedIssuer_Conforms(t *testing.T) {
	s := newStage(t, options{})
	runScenarios(t, s, jwtScenarios())
}

func jwtScenarios() []scenario {
	list := []scenario{
		{"JW-01", "RFC 7009 2.2", "its client revokes a JWT, and the feed has its jti", revokedJWT},
		{"JW-07", "contract 4", "revoking an expired JWT revokes its grant, and the registered tokens of that grant",
			expiredJWT},
		{"JW-12", "contract 4", "a JWT of a retired key is inactive, and can be revoked", jwtOfRetiredKey},
	}
	for _, r := range jwtRows() {
		list = append(list, scenario{r.id, r.level, r.title, r.run})
	}
	return list
}

// A jwtRow presents a token made from an active JWT of c1, for revocation. The request must not
// revoke the active JWT.
type jwtRow struct {
	id, level, title string
	as               string
	token            func(i trustedIssuer, good string, claims map[string]any) string
	status           []int
	code             string
}

func jwtRows() []jwtRow {
	ok := []int{200}
	b64 := base64.RawURLEncoding.EncodeToString
	typed := func(typ string) func(trustedIssuer, string, map[string]any) string {
		return func(i trustedIssuer, _ string, claims map[string]any) string {
			return i.Sign(typ, claims)
		}
	}
	// The last character of a signature of 64 bytes has four bits that must be zero.
	lastBits := func(good string) string { return good[:len(good)-1] + string(good[len(good)-1]+1) }
	return []jwtRow{
		{"JW-02", "RFC 7009 2.2", "a JWT with another signature", "c1",
			func(_ trustedIssuer, good string, _ map[string]any) string { return good[:len(good)-8] + "AAAAAAAA" }, ok, ""},
		{"JW-05", "RFC 7009 2.1", "another client", "c2",
			func(_ trustedIssuer, good string, _ map[string]any) string { return good }, []int{400}, "invalid_grant"},
		{"JW-06", "RFC 9068 4", "a JWT forged with the client id of its sender", "c2",
			func(_ trustedIssuer, good string, claims map[string]any) string {
				claims["client_id"] = "c2"
				payload, _ := json.Marshal(claims)
				parts := strings.Split(good, ".")
				return parts[0] + "." + b64(payload) + "." + parts[2]
			}, ok, ""},
		{"JW-06", "RFC 8725 2.1", "a JWT without a signature", "c1",
			func(i trustedIssuer, good string, _ map[string]any) string {
				return b64([]byte(`{"typ":"at+jwt","alg":"none"}`)) + "." + strings.Split(good, ".")[1] + "."
			}, ok, ""},
		{"JW-08", "RFC 8725 2.8", "an ID token", "c1", typed("JWT"), ok, ""},
		{"JW-08", "RFC 8725 2.8", "a security event token", "c1", typed("secevent+jwt"), ok, ""},
		{"JW-08", "RFC 8725 2.8", "an introspection response", "c1", typed("token-introspection+jwt"), ok, ""},
		{"JW-09", "RFC 8725 3.6", "an encrypted JWT that unpacks to much", "c1",
			func(trustedIssuer, string, map[string]any) string {
				return b64([]byte(`{"alg":"dir","enc":"A128GCM","zip":"DEF"}`)) + "..AAAA." + strings.Repeat("A", 8000) + ".AAAA"
			}, []int{200, 400}, ""},
		{"JW-09", "RFC 8725 2.3", "a nested JWT", "c1",
			func(i trustedIssuer, good string, _ map[string]any) string {
				header := fmt.Sprintf(`{"typ":"at+jwt","alg":"EdDSA","cty":"JWT","kid":%q}`, i.ID)
				return i.SignRaw(header, []byte(good))
			}, ok, ""},
		{"JW-10", "RFC 7515 2", "padding", "c1",
			func(_ trustedIssuer, good string, _ map[string]any) string { return good + "==" }, ok, ""},
		{"JW-10", "RFC 7515 2", "white space", "c1",
			func(_ trustedIssuer, good string, _ map[string]any) string { return good + "\n" }, ok, ""},
		{"JW-10", "RFC 4648 3.5", "trailing bits that are not zero", "c1",
			func(_ trustedIssuer, good string, _ map[string]any) string { return lastBits(good) }, ok, ""},
	}
}

func (r *jwtRow) run(t *testing.T, s *stage) {
	i := s.trust(t)
	for _, path := range revokePaths {
		claims := i.claims(s, "c1")
		good := i.token(claims)
		s.everywhere(t, "before", good, false, true)
		token := r.token(i, good, maps.Clone(claims))
		for range 2 { // a repeated request gets the same answer
			a := s.sendUntilLed(t, s.Follower(t), path, call{as: r.as, body: "token=" + url.QueryEscape(token)})
			checkOAuth(t, a)
			if !oneOf(a.Status, r.status) || r.code != "" && !strings.Contains(a.Body, `"`+r.code+`"`) {
				t.Errorf("%s: got %d %s, want %v %s", path, a.Status, a.Body, r.status, r.code)
			}
		}
		s.everywhere(t, "the active JWT", good, false, true)
		if token != good {
			s.everywhere(t, "the presented token", token, false, false)
		}
	}
}

func oneOf(got int, want []int) bool {
	for _, w := range want {
		if got == w {
			return true
		}
	}
	return false
}

// A trustedIssuer signs JWTs with one key.
type trustedIssuer struct{ testjwt.Key }

// trust makes the cluster trust jwtIssuer with one more key, and returns the signer of that key.
func (s *stage) trust(t *testing.T, more ...trustedIssuer) trustedIssuer {
	t.Helper()
	i := trustedIssuer{testjwt.NewKey(t, fmt.Sprint("k", sequence.Add(1)))}
	keys := i.JWK()
	for _, other := range more {
		keys += "," + other.JWK()
	}
	jwks := `"jwks":{"keys":[` + keys + `]}`
	m := s.Follower(t)
	r := s.json(t, m, "POST", "/v1/issuers", "adm",
		fmt.Sprintf(`{"name":"jwt","issuer":%q,"own_clients":true,"grant_claim":"gid",%s}`, jwtIssuer, jwks))
	if r.Status == 409 {
		patch := call{method: "PATCH", as: "adm", body: "{" + jwks + "}", contentType: "application/merge-patch+json"}
		r = s.sendUntilLed(t, m, "/v1/issuers/jwt", patch)
	}
	if r.Status != 200 && r.Status != 201 {
		t.Fatalf("trust the issuer: got %d %s, want 200 or 201", r.Status, r.Body)
	}
	return i
}

// claims returns the claims of a new access token (RFC 9068 section 2.2) with a grant of its own.
func (i trustedIssuer) claims(s *stage, client string) map[string]any {
	now, n := s.now().Unix(), sequence.Add(1)
	return map[string]any{"iss": jwtIssuer, "sub": "alice", "aud": "rs1", "client_id": client, "iat": now - 60,
		"exp": now + 3600, "jti": fmt.Sprint("jwt-", n), "gid": fmt.Sprint("jwt-grant-", n), "scope": "read write"}
}

func (i trustedIssuer) token(claims map[string]any) string {
	return i.Sign(testjwt.AccessToken, claims)
}

// wantTold fails the test unless the feed contains the jti of the claims.
func (s *stage) wantTold(t *testing.T, claims map[string]any) {
	t.Helper()
	r := s.json(t, s.Follower(t), "GET", "/v1/revocations?after=0", "adm", "")
	if want := fmt.Sprintf(`"jti":%q`, claims["jti"]); r.Status != 200 || !strings.Contains(r.Body, want) {
		t.Errorf("feed: got %d %s, want %s in it", r.Status, r.Body, want)
	}
}

func revokedJWT(t *testing.T, s *stage) {
	i := s.trust(t)
	for _, who := range []string{"c1", "adm"} {
		claims := i.claims(s, "c1")
		token := i.token(claims)
		s.everywhere(t, "before", token, false, true)
		s.revoke(t, who, token)
		s.everywhere(t, "revoked by "+who, token, false, false)
		s.wantTold(t, claims)
		s.revoke(t, who, token)
	}
}

func expiredJWT(t *testing.T, s *stage) {
	i := s.trust(t)
	claims := i.claims(s, "c1")
	live := i.token(claims)
	grant := fmt.Sprintf(`,"grant_id":%q,"issuer":%q`, claims["gid"], jwtIssuer)
	_, refresh := s.issue(t, "iss", "c1", 0, 3600e9, grant)
	claims["iat"], claims["exp"], claims["jti"] = claims["iat"].(int64)-7200, claims["iat"].(int64)-3600, "earlier"
	expired := i.token(claims)
	s.everywhere(t, "the active JWT", live, false, true)
	s.everywhere(t, "the registered refresh token", refresh, true, true)
	s.everywhere(t, "the expired JWT", expired, false, false)
	s.revoke(t, "c1", expired)
	s.everywhere(t, "the unexpired JWT of the grant", live, false, false)
	s.everywhere(t, "the registered refresh token of the grant", refresh, true, false)
}

func jwtOfRetiredKey(t *testing.T, s *stage) {
	old := s.trust(t)
	claims, kept := old.claims(s, "c1"), old.claims(s, "c1")
	token := old.token(claims)
	s.everywhere(t, "before", token, false, true)
	s.trust(t) // replaces the old key
	s.everywhere(t, "of a retired key", token, false, false)
	s.revoke(t, "c1", token)
	s.wantTold(t, claims)
	s.trust(t, old)
	s.everywhere(t, "of a retired key that is published again", old.token(kept), false, false)
}
