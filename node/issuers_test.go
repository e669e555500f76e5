package node_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"revoked/node/nodetest"
)

// A jwtSigner signs tokens of an issuer with EdDSA.
type jwtSigner struct {
	kid     string
	private ed25519.PrivateKey
}

func newJWTSigner(t testing.TB, kid string) jwtSigner {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return jwtSigner{kid, private}
}

func (s jwtSigner) jwks() string {
	x := base64.RawURLEncoding.EncodeToString(s.private.Public().(ed25519.PublicKey))
	return fmt.Sprintf(`{"keys":[{"kty":"OKP","crv":"Ed25519","kid":%q,"x":%q}]}`, s.kid, x)
}

// token returns an access token of iss for the audience rs1.
func (s jwtSigner) token(iss, jti string) string {
	now := time.Now().Unix()
	header := fmt.Sprintf(`{"typ":"at+jwt","alg":"EdDSA","kid":%q}`, s.kid)
	claims := fmt.Sprintf(`{"iss":%q,"sub":"alice","aud":"rs1","client_id":"app","jti":%q,"iat":%d,"exp":%d}`,
		iss, jti, now, now+3600)
	input := base64.RawURLEncoding.EncodeToString([]byte(header)) + "." +
		base64.RawURLEncoding.EncodeToString([]byte(claims))
	return input + "." + base64.RawURLEncoding.EncodeToString(ed25519.Sign(s.private, []byte(input)))
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
