package api_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"revoked"
)

// A trustedKey is a key of a trusted issuer.
type trustedKey struct {
	private *ecdsa.PrivateKey
	kid     string
}

func newTrustedKey(t testing.TB, kid string) trustedKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return trustedKey{k, kid}
}

// jwks returns the JWK set of keys.
func jwks(t testing.TB, keys ...trustedKey) string {
	t.Helper()
	var set jose.JSONWebKeySet
	for _, k := range keys {
		set.Keys = append(set.Keys, jose.JSONWebKey{Key: k.private.Public(), KeyID: k.kid, Algorithm: "ES256"})
	}
	b, err := json.Marshal(set)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// token returns an access token (RFC 9068) with additional claims.
func (k trustedKey) token(t testing.TB, claims string) string {
	t.Helper()
	s, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256,
		Key: jose.JSONWebKey{Key: k.private, KeyID: k.kid}}, (&jose.SignerOptions{}).WithType("at+jwt"))
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now().Unix()
	jws, err := s.Sign(fmt.Appendf(nil,
		`{"iss":"https://as2.example","sub":"alice","aud":"rs1","client_id":"app","sid":"s1","iat":%d,"exp":%d%s}`,
		now, now+600, claims))
	if err != nil {
		t.Fatal(err)
	}
	raw, err := jws.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func TestIssuers_Post_CreatesTheRecord(t *testing.T) {
	b := newAdminBench(t)
	k := newTrustedKey(t, "k1")
	set := jwks(t, k)
	body := func(members string) string { return `{"name":"as2","issuer":"https://as2.example"` + members + `}` }
	good := body(`,"jwks":` + set)
	const uri = `,"jwks_uri":"https://as2.example/jwks"`
	for body, status := range map[string]int{
		`{}`:                                400,
		`{"name":"as2","jwks":` + set + `}`: 400,
		`{"issuer":"https://as2.example","jwks":` + set + `}`: 400,
		strings.Replace(good, `"as2"`, `"As 2"`, 1):           400,
		body(``):                          422,
		body(uri + `,"jwks":` + set):      422,
		body(uri + `,"jwks":{"keys":[]}`): 422,
		body(`,"jwks":{}`):                400,
		body(`,"jwks":{"keys":[]}`):       400,
		body(`,"jwks":[]`):                400,
		body(`,"jwks":"x"`):               400,
		body(`,"jwks":{"keys":[{"kty":"oct","k":"AAAA"}]}`):                      400,
		body(`,"jwks":` + strings.Replace(set, `"kty"`, `"d":"AAAA","kty"`, 1)):  400,
		body(`,"jwks":` + strings.Replace(set, `"kty"`, `"kty":"RSA","kty"`, 1)): 400,
		body(`,"jwks_uri":"http://as2.example/jwks"`):                            400,
		body(`,"color":1,"jwks":` + set):                                         400,
		body(`,"algorithms":["none"],"jwks":` + set):                             400,
		body(`,"algorithms":["HS256"],"jwks":` + set):                            400,
		body(`,"token_types":["JWT"],"jwks":` + set):                             422,
		body(`,"token_types":[""],"jwks":` + set):                                422,
		body(`,"token_types":[],"jwks":` + set):                                  400,
		body(`,"unknown_clients":"maybe","jwks":` + set):                         400,
		body(`,"required_claims":{"a":1},"jwks":` + set):                         400,
		body(`,"required_claims":{"a":"b","a":"c"},"jwks":` + set):               400,
		body(`,"max_lifetime":"59s","jwks":` + set):                              422,
		body(`,"max_lifetime":"721h","jwks":` + set):                             422,
		body(`,"max_lifetime":60,"jwks":` + set):                                 400,
		body(`,"clock_skew":"6m","jwks":` + set):                                 422,
		body(`,"created_at":1,"jwks":` + set):                                    422,
		body(`,"keys":[],"jwks":` + set):                                         422,
	} {
		if got := b.do(t, "admin", "POST", "/v1/issuers", "", body); got.status != status {
			t.Errorf("%.300s: got %d %s, want %d", body, got.status, got.body, status)
		}
	}
	for _, who := range []string{"app", "issuer", "rs1"} {
		if got := b.do(t, who, "POST", "/v1/issuers", "", good); got.status != 403 {
			t.Errorf("%s: got %d, want 403", who, got.status)
		}
	}
	made := b.do(t, "admin", "POST", "/v1/issuers", "", good)
	const want = `"algorithms":[],"token_types":["at+jwt"],"required_claims":{},"forbidden_claims":[],"client_claim":"","session_claim":"sid","grant_claim":"","revoke_session":false,"own_clients":false,"unknown_clients":"allow","require_audience":true,"jti":true,"max_lifetime":"24h","clock_skew":"5s","disabled":false,"created_at":`
	if made.status != 201 || !strings.Contains(made.body, want) || strings.Contains(made.body, "jwks_uri") ||
		made.field(t, "created_at") == nil {
		t.Fatalf("got %d %s, want 201 with %s", made.status, made.body, want)
	}
	key := made.field(t, "keys").([]any)[0].(map[string]any)
	if key["kid"] != "k1" || key["alg"] != "ES256" || key["state"] != "active" || len(key["thumbprint"].(string)) != 43 {
		t.Errorf("got key %v, want k1, active", key)
	}
	get := b.do(t, "admin", "GET", "/v1/issuers/as2", "", "")
	list := b.do(t, "admin", "GET", "/v1/issuers", "", "")
	if get.status != 200 || get.body != made.body ||
		strings.TrimSpace(list.body) != `{"issuers":[`+strings.TrimSpace(made.body)+`]}` {
		t.Errorf("got %s and %s, want the record", get.body, list.body)
	}
	for _, again := range []string{good, strings.Replace(good, `"as2"`, `"as3"`, 1),
		strings.Replace(good, "https://as2", "https://as3", 1)} {
		if got := b.do(t, "admin", "POST", "/v1/issuers", "", again); got.status != 409 {
			t.Errorf("name or iss taken: got %d %s, want 409", got.status, got.body)
		}
	}
	if got := b.do(t, "admin", "GET", "/v1/issuers/none", "", ""); got.status != 404 {
		t.Errorf("unknown: got %d, want 404", got.status)
	}
}

func TestIssuers_Patch_MergesFields(t *testing.T) {
	b := newAdminBench(t)
	k1, k2 := newTrustedKey(t, "k1"), newTrustedKey(t, "k2")
	b.do(t, "admin", "POST", "/v1/issuers", "", `{"name":"as2","issuer":"https://as2.example","jwks":`+jwks(t, k1)+`}`)
	patch := func(body string) reply {
		return b.do(t, "admin", "PATCH", "/v1/issuers/as2", "application/merge-patch+json", body)
	}
	got := patch(`{"disabled":true,"max_lifetime":"1h","session_claim":"","token_types":["JWT","","JWT"],"forbidden_claims":["nonce"],"required_claims":{"typ":"Bearer"},"jti":false,"unknown_clients":"refuse","name":"as2"}`)
	if got.status != 200 || !strings.Contains(got.body, `"token_types":["JWT",""]`) ||
		!strings.Contains(got.body, `"unknown_clients":"refuse"`) || !strings.Contains(got.body, `"session_claim":""`) ||
		!strings.Contains(got.body, `"max_lifetime":"1h"`) || !strings.Contains(got.body, `"disabled":true`) {
		t.Errorf("got %d %s, want the changes", got.status, got.body)
	}
	// null sets the default. The body may repeat members that the server sets.
	got = patch(`{"disabled":null,"max_lifetime":null,"session_claim":null,"token_types":null,"jti":null,"unknown_clients":null,"keys":[],"fetch":null}`)
	if got.status != 200 || !strings.Contains(got.body, `"token_types":["at+jwt"]`) ||
		!strings.Contains(got.body, `"unknown_clients":"allow"`) || !strings.Contains(got.body, `"session_claim":"sid"`) ||
		!strings.Contains(got.body, `"max_lifetime":"24h"`) || !strings.Contains(got.body, `"jti":true`) ||
		!strings.Contains(got.body, `"state":"active"`) {
		t.Errorf("got %d %s, want the defaults and the key", got.status, got.body)
	}
	for body, status := range map[string]int{
		`{"name":"x"}`: 422, `{"issuer":"https://x"}`: 422, `{"created_at":1}`: 422, `{"jwks":null}`: 422,
		`{"jwks_uri":"https://as2.example/jwks"}`: 422, `{"color":1}`: 400, `{"jwks":{"keys":[]}}`: 400, `[]`: 400,
		`{"token_types":["JWT"],"forbidden_claims":null,"required_claims":null}`: 422,
	} {
		if got := patch(body); got.status != status {
			t.Errorf("%s: got %d %s, want %d", body, got.status, got.body, status)
		}
	}
	// A new set retires the keys that it lacks, immediately and permanently.
	got = patch(`{"jwks":` + jwks(t, k2) + `}`)
	if got.status != 200 || strings.Count(got.body, `"state":"retired"`) != 1 ||
		strings.Count(got.body, `"state":"active"`) != 1 || strings.Count(got.body, `"kty"`) != 1 {
		t.Errorf("new set: got %d %s, want one key retired", got.status, got.body)
	}
	got = patch(`{"jwks":` + jwks(t, k1, k2) + `}`)
	if got.status != 200 || strings.Count(got.body, `"state":"retired"`) != 1 {
		t.Errorf("old set again: got %d %s, want the key still retired", got.status, got.body)
	}
	if got := b.do(t, "admin", "PATCH", "/v1/issuers/none", "", `{}`); got.status != 404 {
		t.Errorf("unknown: got %d, want 404", got.status)
	}
}

// The earlier claims of an issuer are kept until every token that was verified with them has
// expired.
func TestIssuers_PatchedClaims_AreBounded(t *testing.T) {
	b := newAdminBench(t)
	b.do(t, "admin", "POST", "/v1/issuers", "",
		`{"name":"as2","issuer":"https://as2.example","jwks":`+jwks(t, newTrustedKey(t, "k1"))+`}`)
	patch := func(claim string) reply {
		return b.do(t, "admin", "PATCH", "/v1/issuers/as2", "application/merge-patch+json",
			`{"grant_claim":"`+claim+`"}`)
	}
	for n := range revoked.MaxEarlierMappings {
		if got := patch(fmt.Sprint("g", n)); got.status != 200 {
			t.Fatalf("change %d: got %d %s, want 200", n, got.status, got.body)
		}
	}
	if got := patch("g99"); got.status != 422 || !strings.Contains(got.body, "retry after 20") {
		t.Errorf("one change more: got %d %s, want 422 with the time at which it is possible", got.status, got.body)
	}
	if got := patch("g0"); got.status != 200 {
		t.Errorf("earlier claims again: got %d %s, want 200", got.status, got.body)
	}
}

func TestIssuers_CheckBanDelete_TakeEffect(t *testing.T) {
	b := newAdminBench(t)
	k1, k2 := newTrustedKey(t, "k1"), newTrustedKey(t, "k2")
	made := b.do(t, "admin", "POST", "/v1/issuers", "",
		`{"name":"as2","issuer":"https://as2.example","jwks":`+jwks(t, k1)+`}`)
	thumbprint := made.field(t, "keys").([]any)[0].(map[string]any)["thumbprint"].(string)
	token := k1.token(t, `,"jti":"j1"`)
	check := func(token string) reply {
		return b.do(t, "admin", "POST", "/v1/issuers/as2/check", "", fmt.Sprintf(`{"token":%q}`, token))
	}
	got := check(token)
	want := `{"verified":true,"kid":"k1","thumbprint":"` + thumbprint + `","client_id":"app","sub":"alice","session":"s1","jti":"j1","iat":`
	if got.status != 200 || !strings.HasPrefix(got.body, want) {
		t.Errorf("got %d %s, want %s", got.status, got.body, want)
	}
	for raw, reason := range map[string]string{
		"opaque": "format", k1.token(t, `,"nbf":99999999999`): "claims", k2.token(t, ``): "kid",
		trustedKey{k2.private, "k1"}.token(t, ``): "signature", strings.Repeat("x", 100_000): "format",
	} {
		if got := check(raw); got.status != 200 || got.field(t, "verified") != false || got.field(t, "reason") != reason {
			t.Errorf("%.20s: got %d %s, want reason %s", raw, got.status, got.body, reason)
		}
	}
	if got := check(k1.token(t, `,"nbf":"x"`)); got.field(t, "claim") != "nbf" {
		t.Errorf("wrong nbf: got %s, want its name", got.body)
	}
	for body, status := range map[string]int{`{}`: 400, `{"token":""}`: 400, `{"token":1}`: 400, `{"digest":"x"}`: 400} {
		if got := b.do(t, "admin", "POST", "/v1/issuers/as2/check", "", body); got.status != status {
			t.Errorf("check %s: got %d, want %d", body, got.status, status)
		}
	}
	if got := b.do(t, "admin", "POST", "/v1/issuers/none/check", "", `{"token":"x"}`); got.status != 404 {
		t.Errorf("check of an unknown issuer: got %d, want 404", got.status)
	}
	if strings.Contains(b.log.String(), token) {
		t.Error("got a token in the log, want none")
	}

	for range 2 {
		if got := b.do(t, "admin", "DELETE", "/v1/issuers/as2/keys/"+thumbprint, "", ""); got.status != 200 ||
			got.field(t, "index").(float64) == 0 {
			t.Errorf("ban: got %d %s, want 200", got.status, got.body)
		}
	}
	if got := check(token); got.field(t, "reason") != "kid" || got.field(t, "jti") != "j1" {
		t.Errorf("banned key: got %s, want reason kid and the claims", got.body)
	}
	for _, path := range []string{"/v1/issuers/as2/keys/none", "/v1/issuers/none/keys/" + thumbprint} {
		if got := b.do(t, "admin", "DELETE", path, "", ""); got.status != 404 {
			t.Errorf("%s: got %d, want 404", path, got.status)
		}
	}

	for range 2 {
		if got := b.do(t, "admin", "DELETE", "/v1/issuers/as2", "", ""); got.status != 200 ||
			got.field(t, "index").(float64) == 0 {
			t.Errorf("delete: got %d %s, want 200", got.status, got.body)
		}
	}
	for _, path := range []string{"/v1/issuers/as2", "/v1/issuers/none"} {
		if got := b.do(t, "admin", "GET", path, "", ""); got.status != 404 {
			t.Errorf("GET %s: got %d, want 404", path, got.status)
		}
	}
	if got := b.do(t, "admin", "DELETE", "/v1/issuers/none", "", ""); got.status != 404 {
		t.Errorf("delete an unknown issuer: got %d, want 404", got.status)
	}
	again := b.do(t, "admin", "POST", "/v1/issuers", "",
		`{"name":"as2","issuer":"https://as2.example","jwks":`+jwks(t, k2)+`}`)
	if again.status != 409 {
		t.Errorf("create again soon: got %d %s, want 409", again.status, again.body)
	}
}

func TestIssuers_WithJWKSURI_ShowLastFetch(t *testing.T) {
	b := newAdminBench(t)
	const body = `{"name":"as2","issuer":"https://as2.example","jwks_uri":"https://as2.example/jwks"}`
	const fetch = `"keys":[],"fetch":{"at":1790000000,"ok":false,"error":"status 500","next_at":1790000030}`
	got := b.do(t, "admin", "POST", "/v1/issuers", "", body)
	if got.status != 201 || !strings.Contains(got.body, fetch) || strings.Contains(got.body, `"jwks":`) {
		t.Errorf("got %d %s, want 201 with %s", got.status, got.body, fetch)
	}
	for range 2 {
		got = b.do(t, "admin", "POST", "/v1/issuers/as2/refresh", "", "")
		if got.status != 200 || got.field(t, "changed") != true || got.field(t, "index").(float64) == 0 {
			t.Errorf("refresh: got %d %s, want 200", got.status, got.body)
		}
	}
	for sentinel, status := range map[error]int{
		revoked.ErrQuota: 429, revoked.ErrNotFound: 404, revoked.ErrUnprocessable: 422, revoked.ErrNotCurrent: 503,
		errors.New("status 500"): 503,
	} {
		b.node.mu.Lock()
		b.node.fail = func(string) error { return sentinel }
		b.node.mu.Unlock()
		if got := b.do(t, "admin", "POST", "/v1/issuers/as2/refresh", "", "{}"); got.status != status {
			t.Errorf("%v: got %d %s, want %d", sentinel, got.status, got.body, status)
		}
	}
	b.node.mu.Lock()
	b.node.fail = nil
	b.node.mu.Unlock()
	got = b.do(t, "admin", "POST", "/v1/issuers", "", strings.ReplaceAll(body, "as2", "as4"))
	if got.status != 201 || !strings.Contains(got.body, `"fetch":{"at":null,"ok":false,"next_at":null}`) {
		t.Errorf("not fetched yet: got %d %s, want 201 with an empty fetch", got.status, got.body)
	}
	b.node.mu.Lock()
	b.node.fail = func(m string) error { return map[string]error{"KeyFetches": revoked.ErrNoLeader}[m] }
	b.node.mu.Unlock()
	got = b.do(t, "admin", "GET", "/v1/issuers/as2", "", "")
	if got.status != 200 || strings.Contains(got.body, `"fetch"`) {
		t.Errorf("without the leader: got %d %s, want 200 without the fetch", got.status, got.body)
	}
	// Change the issuer from a URI to given keys, and back.
	patch := func(body string) reply {
		return b.do(t, "admin", "PATCH", "/v1/issuers/as2", "application/merge-patch+json", body)
	}
	k := newTrustedKey(t, "k1")
	if got := patch(`{"jwks":` + jwks(t, k) + `}`); got.status != 422 {
		t.Errorf("both: got %d %s, want 422", got.status, got.body)
	}
	if got := patch(`{"jwks_uri":null,"jwks":` + jwks(t, k) + `}`); got.status != 200 {
		t.Errorf("given keys: got %d %s, want 200", got.status, got.body)
	}
	if got := patch(`{"jwks_uri":"https://as2.example/jwks","jwks":null}`); got.status != 200 ||
		!strings.Contains(got.body, `"state":"active"`) {
		t.Errorf("a URI again: got %d %s, want 200 with the key", got.status, got.body)
	}
}
