package api_test

import (
	"fmt"
	"strings"
	"testing"

	"revoked"
)

// An attacker has the credentials of another issuer and knows the digest of a refresh token. Every
// probe gets the same response, so a probe does not reveal a correct guess. The token stays active.
func TestGrants_AnotherIssuer_ReadsAndRevokesNothing(t *testing.T) {
	b := newBench(t)
	b.node.put(confidential("evil", "evil-secret", revoked.RoleIssuer))
	post := func(who, contentType, body string) (int, string) {
		w := b.do(call{path: "/v1/grants", auth: as(who), contentType: contentType, body: body})
		return w.Code, w.Body.String()
	}
	digest := revoked.DigestToken("RT1").String()
	const forged = `"refresh_token":{"token":"forged","issued_at":1790000050}`
	probes := map[string]string{
		"known digest":      fmt.Sprintf(`{"client_id":"c1","refresh_token":{"digest":%q}}`, digest),
		"digest and client": fmt.Sprintf(`{"client_id":"c2","refresh_token":{"digest":%q}}`, digest),
		"join":              `{"grant_id":"g1","client_id":"c1",` + forged + `}`,
		"right subject":     `{"grant_id":"g1","client_id":"c1","subject":"alice",` + forged + `}`,
		"wrong subject":     `{"grant_id":"g1","client_id":"c1","subject":"bob",` + forged + `}`,
		"right issuer":      `{"grant_id":"g1","client_id":"c1","issuer":"https://as.example",` + forged + `}`,
		"wrong client":      `{"grant_id":"g1","client_id":"c2",` + forged + `}`,
		"known and new": fmt.Sprintf(`{"grant_id":"g9","client_id":"c1","access_token":{"digest":%q},%s}`,
			revoked.DigestToken("AT1").String(), forged),
	}
	want := ""
	for name, body := range probes {
		code, got := post("evil", "application/json", body)
		if want == "" {
			want = got
		}
		if code != 409 || got != want {
			t.Errorf("%s: got %d %s, want 409 %s", name, code, got, want)
		}
	}
	for _, iat := range []string{"253402300000", "1790000106", "1790003700.5"} {
		body := `{"grant_id":"g1","client_id":"c1","refresh_token":{"token":"ahead","issued_at":` + iat + `}}`
		if code, got := post("iss", "application/json", body); code != 422 || !strings.Contains(got, "issued_at") {
			t.Errorf("refresh token issued at %s: got %d %s, want 422 with issued_at in the detail", iat, code, got)
		}
	}
	if !b.active(t, "RT1") || !b.active(t, "AT1") {
		t.Error("tokens of the grant: got inactive, want active")
	}
}
