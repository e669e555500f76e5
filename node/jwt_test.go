package node_test

import (
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"revoked"
	"revoked/node/nodetest"
)

// A JWT that is not registered is active at every node, and at none once its revocation at one of
// them has been acknowledged.
func TestJWT_RevokedAtOneNode_InactiveAtAll(t *testing.T) {
	c := nodetest.Start(t, nodetest.Options{})
	public, key, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(der)
	enc := base64.RawURLEncoding.EncodeToString
	i := revoked.DefaultIssuer()
	i.Name, i.Issuer = "jwt", "https://jwt.example"
	i.Keys = []revoked.IssuerKey{{KeyID: "k", Thumbprint: enc(sum[:]), Public: der, State: revoked.KeyActive}}
	admin, _ := c.Leader().Node.Client("admin")
	c.Until("the cluster trusts the issuer", func() bool {
		return c.Leader().Node.Trust(t.Context(), revoked.ActorOf(admin), &i) == nil
	})
	sign := func(jti string) string {
		now := time.Now().Unix()
		claims := fmt.Sprintf(`{"iss":"https://jwt.example","sub":"alice","aud":"resource_server","client_id":"app",`+
			`"jti":%q,"iat":%d,"exp":%d}`, jti, now-1, now+3600)
		input := enc([]byte(`{"typ":"at+jwt","alg":"EdDSA","kid":"k"}`)) + "." + enc([]byte(claims))
		return input + "." + enc(ed25519.Sign(key, []byte(input)))
	}
	active := func(m *nodetest.Member, token string) bool {
		t.Helper()
		r := m.Decided(func() nodetest.Reply {
			return m.Form("/oauth2/introspect", "resource_server", url.Values{"token": {token}})
		})
		if r.Status != http.StatusOK {
			t.Fatalf("introspection at %s: got %d %s", m.ID, r.Status, r.Body)
		}
		return strings.HasPrefix(r.Body, `{"active":true`)
	}
	for k, at := range c.Members {
		token := sign(fmt.Sprint("j", k))
		for _, m := range c.Members {
			if !active(m, token) {
				t.Errorf("at %s before the revocation: got inactive, want active", m.ID)
			}
		}
		r := at.Decided(func() nodetest.Reply {
			return at.Form("/oauth2/revoke", "admin", url.Values{"token": {token}})
		})
		if r.Status != http.StatusOK || r.Header.Get("Revoked-Outcome") != "revoked" {
			t.Fatalf("revocation at %s: got %d %s %v", at.ID, r.Status, r.Body, r.Header)
		}
		for _, m := range c.Members {
			if active(m, token) {
				t.Errorf("at %s after the revocation at %s: got active, want inactive", m.ID, at.ID)
			}
		}
	}
}
