package node_test

import (
	"fmt"
	"net/http"
	"testing"

	"revoked/fsm/command"
	"revoked/node"
	"revoked/node/nodetest"
)

// A denied jti also revokes the grants of registered tokens with that jti. While a member does not
// support this rule, the jti revokes only the tokens, at every member. After the upgrade it revokes
// the grants.
func TestOldMember_DeniedJTI_RevokesOnceUpgraded(t *testing.T) {
	t.Parallel()
	const iss = "https://as2.example"
	old := map[string]bool{"node3": true}
	c := nodetest.Start(t, nodetest.Options{Node: func(_ int, conf *node.Config) {
		conf.NonVoter = conf.NodeID == "node3" // it must not lead
		if old[conf.NodeID] {
			conf.Announce(command.JTIRules - 1)
		}
	}})
	issuer := fmt.Sprintf(`{"name":"as2","issuer":%q,"jwks":%s}`, iss, newJWTSigner(t, "k1").jwks())
	c.Until("the leader trusts an issuer", func() bool {
		return c.Follower().JSON("POST", "/v1/issuers", "admin", issuer).Status == http.StatusCreated
	})
	for _, jti := range []string{"1", "2"} {
		adminCall(t, c.Members[0], "POST", "/v1/grants", fmt.Sprintf(`{"client_id":"app","issuer":%q,"access_token":`+
			`{"token":"a%s","jti":"j%s"},"refresh_token":{"token":"r%s"}}`, iss, jti, jti, jti), http.StatusCreated)
	}
	deny := func(jti string) {
		adminCall(t, c.Members[2], "POST", "/v1/revocations", fmt.Sprintf(`{"issuer":%q,"jti":%q}`, iss, jti), http.StatusOK)
	}
	want := func(what, token string, wanted bool) {
		for _, m := range c.Members {
			if got := active(t, m, token); got != fmt.Sprint(wanted) {
				t.Errorf("%s: %s at %s: got active %s, want %v", what, token, m.ID, got, wanted)
			}
		}
	}
	deny("j1")
	want("an older member", "a1", false)
	want("an older member", "r1", true)

	clear(old) // the upgrade
	c.Members[2].Restart()
	c.WaitReady()
	c.Until("the log has the newest rules", func() bool {
		deny("j2")
		return c.Leader().Node.LogVersion() == command.Rules
	})
	want("no older member", "a2", false)
	deny("j2")
	deny("j1")
	for _, token := range []string{"r1", "r2", "a1"} {
		want("no older member", token, false)
	}
}
