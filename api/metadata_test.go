package api_test

import (
	"encoding/json"
	"testing"

	"revoked/api"
)

func TestMetadata_Extra_IsMerged(t *testing.T) {
	const path = "/.well-known/oauth-authorization-server"
	extra := map[string]any{"response_types_supported": []string{"code"}, "token_endpoint": "https://as.example/token",
		"scopes_supported":      []string{},
		"grant_types_supported": []any{}, "issuer": "https://evil.example", "revocation_endpoint": "https://evil.example/r"}
	with := func(issuer string) func(*api.Config) {
		return func(c *api.Config) { c.Issuer, c.MetadataExtra = issuer, extra }
	}
	b := newBench(t, with("https://as.example"))
	w := b.do(call{method: "GET", path: path + "?from=lb"})
	const want = `{"introspection_endpoint":"https://as.example/oauth2/introspect","introspection_endpoint_auth_methods_supported":["client_secret_basic","client_secret_post","private_key_jwt","self_signed_tls_client_auth"],` +
		`"introspection_endpoint_auth_signing_alg_values_supported":["RS256","RS384","RS512","PS256","PS384","PS512","ES256","ES384","ES512","EdDSA"],` +
		`"issuer":"https://as.example","response_types_supported":["code"],"revocation_endpoint":"https://as.example/oauth2/revoke",` +
		`"revocation_endpoint_auth_methods_supported":["client_secret_basic","client_secret_post","private_key_jwt","self_signed_tls_client_auth"],` +
		`"revocation_endpoint_auth_signing_alg_values_supported":["RS256","RS384","RS512","PS256","PS384","PS512","ES256","ES384","ES512","EdDSA"],"token_endpoint":"https://as.example/token"}`
	if w.Code != 200 || w.Header().Get("Content-Type") != "application/json" || w.Body.String() != want {
		t.Errorf("MD-01, MD-04, MD-06: got %d %s\nwant %s", w.Code, w.Body, want)
	}
	if other := newBench(t, with("https://as.example")).do(call{method: "GET", path: path}); other.Body.String() != want {
		t.Errorf("another node: got %s, want %s", other.Body, want)
	}
	for _, method := range []string{"POST", "DELETE", "OPTIONS", "BREW"} {
		w := b.do(call{method: method, path: path})
		always(t, w)
		if w.Code != 405 || w.Header().Get("Allow") != "GET, HEAD" {
			t.Errorf("MD-11 %s: got %d, Allow %q, want 405 with GET, HEAD", method, w.Code, w.Header().Get("Allow"))
		}
	}
	if w := b.do(call{method: "HEAD", path: path}); w.Code != 200 {
		t.Errorf("HEAD: got %d, want 200", w.Code)
	}

	b = newBench(t, with("https://as.example/t1/"))
	w = b.do(call{method: "GET", path: path + "/t1"})
	var doc map[string]any
	if err := json.Unmarshal(w.Body.Bytes(), &doc); err != nil || w.Code != 200 {
		t.Fatalf("MD-02: got %d %s (%v), want 200 and JSON", w.Code, w.Body, err)
	}
	if doc["issuer"] != "https://as.example/t1/" || doc["revocation_endpoint"] != "https://as.example/oauth2/revoke" {
		t.Errorf("MD-02: got %v, want the path in the issuer only", doc)
	}
	if w := b.do(call{method: "GET", path: path + "/t2"}); w.Code != 404 {
		t.Errorf("the path of another issuer: got %d, want 404", w.Code)
	}
}
