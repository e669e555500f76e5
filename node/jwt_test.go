package node_test

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"revoked"
	"revoked/internal/testjwt"
	"revoked/node/nodetest"
)

// A JWT that is not registered is active at every node. Once its revocation at one node has been
// acknowledged, it is inactive at all.
func TestJWT_RevokedAtOneNode_InactiveAtAll(t *testing.T) {
	t.Parallel()
	c := nodetest.Start(t, nodetest.Options{})
	key := testjwt.NewKey(t, "k")
	i := revoked.DefaultIssuer()
	i.Name, i.Issuer = "jwt", "https://jwt.example"
	i.Keys = []revoked.IssuerKey{key.Record(t)}
	admin, _ := c.Leader().Node.Client("admin")
	c.Until("the cluster trusts the issuer", func() bool {
		return c.Leader().Node.Trust(t.Context(), revoked.ActorOf(admin), &i) == nil
	})
	sign := func(jti string) string {
		now := time.Now().Unix()
		return key.Sign(testjwt.AccessToken, map[string]any{"iss": "https://jwt.example", "sub": "alice",
			"aud": "resource_server", "client_id": "app", "jti": jti, "iat": now - 1, "exp": now + 3600})
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
