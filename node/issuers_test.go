package node_test

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"revoked/internal/testjwt"
	"revoked/node/nodetest"
)

// A jwtSigner signs tokens of an issuer.
type jwtSigner struct{ testjwt.Key }

func newJWTSigner(t testing.TB, kid string) jwtSigner { return jwtSigner{testjwt.NewKey(t, kid)} }

func (s jwtSigner) jwks() string { return `{"keys":[` + s.JWK() + `]}` }

// token returns an access token of iss for the audience rs1.
func (s jwtSigner) token(iss, jti string) string {
	now := time.Now().Unix()
	return s.Sign(testjwt.AccessToken, map[string]any{"iss": iss, "sub": "alice", "aud": "rs1", "client_id": "app",
		"jti": jti, "iat": now, "exp": now + 3600})
}

// tokenCheck is the answer to the check of a token.
type tokenCheck struct {
	Verified    bool
	Reason, JTI string
}

func checkToken(t *testing.T, m *nodetest.Member, name, token string) (c tokenCheck) {
	t.Helper()
	r := adminCall(t, m, "POST", "/v1/issuers/"+name+"/check", fmt.Sprintf(`{"token":%q}`, token), 200)
	if err := json.Unmarshal([]byte(r.Body), &c); err != nil {
		t.Fatal(err)
	}
	return c
}

// Every node verifies with the keys of its own state, as soon as a change is final.
func TestIssuers_EveryNode_VerifiesWithTheSameKeys(t *testing.T) {
	t.Parallel()
	c := nodetest.Start(t, nodetest.Options{})
	by, s := c.Follower(), newJWTSigner(t, "k1")
	const iss = "https://as2.example"
	body := fmt.Sprintf(`{"name":"as2","issuer":%q,"jwks":%s}`, iss, s.jwks())
	made := adminCall(t, by, "POST", "/v1/issuers", body, 201)
	var record struct{ Keys []struct{ Thumbprint string } }
	if err := json.Unmarshal([]byte(made.Body), &record); err != nil {
		t.Fatal(err)
	}
	token := s.token(iss, "j1")
	expect := func(reason string) {
		t.Helper()
		for _, m := range c.Members {
			want := tokenCheck{Verified: reason == "", Reason: reason, JTI: "j1"}
			if got := checkToken(t, m, "as2", token); got != want {
				t.Errorf("%s: got %+v, want %+v", m.ID, got, want)
			}
		}
	}
	expect("")
	adminCall(t, by, "PATCH", "/v1/issuers/as2", `{"disabled":true}`, 200)
	expect("disabled")
	adminCall(t, c.Leader(), "PATCH", "/v1/issuers/as2", `{"disabled":false}`, 200)
	expect("")
	adminCall(t, by, "DELETE", "/v1/issuers/as2/keys/"+record.Keys[0].Thumbprint, "", 200)
	expect("kid")
	by.Restart()
	c.WaitReady()
	expect("kid")
	adminCall(t, by, "DELETE", "/v1/issuers/as2", "", 200)
	for _, m := range c.Members {
		adminCall(t, m, "GET", "/v1/issuers/as2", "", 404)
	}
}
