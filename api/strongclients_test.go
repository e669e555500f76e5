package api_test

import (
	"strings"
	"testing"

	"revoked"
)

func TestClients_Keys_AreShownWithoutASecret(t *testing.T) {
	b := newAdminBench(t)
	k, next := newTrustedKey(t, "k1"), newTrustedKey(t, "k2")
	set := jwks(t, k)
	made := b.do(t, "admin", "POST", "/v1/clients", "",
		`{"client_id":"robot","auth_methods":["private_key_jwt"],"jwks":`+set+`}`)
	if made.status != 201 || strings.Contains(made.body, "client_secret") {
		t.Fatalf("got %d %s, want 201 without a secret", made.status, made.body)
	}
	got := b.do(t, "admin", "GET", "/v1/clients/robot", "", "")
	if got.status != 200 || !strings.Contains(got.body, `"keys":[{"kid":"k1","thumbprint":"`) ||
		!strings.Contains(got.body, `"jwks":{"keys":[{"use":"sig","kty":"EC","kid":"k1"`) {
		t.Errorf("got %d %s, want the key", got.status, got.body)
	}
	const merge = "application/merge-patch+json"
	patch := func(body string) reply { return b.do(t, "admin", "PATCH", "/v1/clients/robot", merge, body) }
	if got := patch(got.body); got.status != 200 {
		t.Errorf("the record itself: got %d %s, want 200", got.status, got.body)
	}
	if got := patch(`{"jwks":` + jwks(t, next) + `}`); got.status != 200 || strings.Contains(got.body, `"k1"`) ||
		!strings.Contains(got.body, `"k2"`) {
		t.Errorf("another key: got %d %s, want k2 only", got.status, got.body)
	}
	for body, want := range map[string]int{
		`{"jwks":null}`: 422, `{"jwks":{"keys":[]}}`: 400, `{"jwks":[]}`: 400,
		`{"auth_methods":["client_secret_basic"]}`: 422, `{"jwks":{"keys":[{"kty":"oct","k":"AAAA"}]}}`: 400,
		`{"jwks":` + strings.Replace(set, `"kty"`, `"d":"AAAA","kty"`, 1) + `}`: 400,
		`{"tls_client_auth_san_dns":"a.example"}`:                               422,
		`{"jwks":` + set + `,"jwks":` + set + `}`:                               400,
	} {
		if got := patch(body); got.status != want {
			t.Errorf("%.200s: got %d %s, want %d", body, got.status, got.body, want)
		}
	}
	if got := b.do(t, "admin", "POST", "/v1/clients/robot/secret", "", ""); got.status != 422 {
		t.Errorf("a secret without a method: got %d %s, want 422", got.status, got.body)
	}
	if got := b.do(t, "admin", "POST", "/v1/clients", "", `{"client_id":"x","auth_methods":["private_key_jwt"],`+
		`"client_secret":"0123456789012345678901234567890123456789","jwks":`+set+`}`); got.status != 422 {
		t.Errorf("a useless secret: got %d %s, want 422", got.status, got.body)
	}
}

func TestClients_TwoCertificateSubjects_AreRefused(t *testing.T) {
	b := newAdminBench(t)
	post := func(members string) reply {
		return b.do(t, "admin", "POST", "/v1/clients", "",
			`{"client_id":"web","auth_methods":["tls_client_auth"]`+members+`}`)
	}
	for members, want := range map[string]int{
		``: 422, `,"tls_client_auth_san_dns":"*.example"`: 400, `,"tls_client_auth_subject_dn":"web"`: 400,
		`,"tls_client_auth_san_dns":"a.example","tls_client_auth_san_ip":"192.0.2.1"`: 422,
	} {
		if got := post(members); got.status != want {
			t.Errorf("%s: got %d %s, want %d", members, got.status, got.body, want)
		}
	}
	if got := post(`,"tls_client_auth_subject_dn":"CN=web,O=Example"`); got.status != 201 ||
		got.field(t, "tls_client_auth_subject_dn") != "CN=web,O=Example" {
		t.Fatalf("got %d %s, want 201", got.status, got.body)
	}
	const merge = "application/merge-patch+json"
	got := b.do(t, "admin", "PATCH", "/v1/clients/web", merge, `{"tls_client_auth_san_dns":"a.example"}`)
	if got.status != 422 {
		t.Errorf("a second name: got %d %s, want 422", got.status, got.body)
	}
	got = b.do(t, "admin", "PATCH", "/v1/clients/web", merge,
		`{"tls_client_auth_subject_dn":null,"tls_client_auth_san_dns":"a.example"}`)
	if got.status != 200 || strings.Contains(got.body, "subject_dn") ||
		got.field(t, "tls_client_auth_san_dns") != "a.example" {
		t.Errorf("another name: got %d %s, want only the host name", got.status, got.body)
	}
}

// The last administrator needs a lasting credential: a key is one, a certificate of a CA is not.
func TestClients_LastAdmin_NeedsLastingCredential(t *testing.T) {
	b := newAdminBench(t)
	const merge = "application/merge-patch+json"
	for _, id := range []string{setup} {
		b.node.change(id, func(c *revoked.Client) { c.Disabled = true })
	}
	patch := func(body string) reply { return b.do(t, "admin", "PATCH", "/v1/clients/admin", merge, body) }
	if got := patch(`{"auth_methods":["tls_client_auth"],"tls_client_auth_san_dns":"a.example"}`); got.status != 422 {
		t.Errorf("a certificate: got %d %s, want 422", got.status, got.body)
	}
	set := jwks(t, newTrustedKey(t, "k"))
	if got := patch(`{"auth_methods":["private_key_jwt"],"jwks":` + set + `}`); got.status != 200 {
		t.Errorf("a key: got %d %s, want 200", got.status, got.body)
	}
}
