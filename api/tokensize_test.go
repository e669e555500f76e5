package api_test

import (
	"fmt"
	"net/url"
	"strings"
	"testing"

	"revoked"
)

// A token that can be registered fits into every request that contains it. The client id and
// the secret are the longest, and every character needs percent-encoding.
func TestGrants_TokenSize_RegisteredCanBeRevoked(t *testing.T) {
	b := newBench(t)
	id, secret := strings.Repeat("~", revoked.MaxClientID), strings.Repeat("&", 1024)
	b.node.put(confidential(id, secret))
	max := func(unit string, size int) string { return strings.Repeat(unit, size/len(unit)) }
	for i, tt := range []struct {
		name  string
		token string
		want  int
	}{
		{"8,192 plain bytes", max("aB0-._zZ", 8192), 201},
		{"8,193 plain bytes", max("a", 8193), 400},
		{"16,379 plain bytes", max("a", 16_379), 400},
		{"16,384 plain bytes", max("a", 16_384), 400},
		{"8,192 bytes of base64", max(strings.Repeat("a", 60)+"+/==", 8192), 201},
		{"4,096 bytes to escape", max("~", 4096), 201},
		{"4,097 bytes to escape", max("~", 4097), 400},
		{"4,096 bytes of UTF-8", max("é", 4096), 201},
		{"4,098 bytes of UTF-8", max("é", 4098), 400},
		{"8,192 bytes to escape", max("/", 8192), 400},
		{"spaces", max(" ", 4097), 400},
		{"mixed characters at the limit", max("a", 6144) + max("%", 2048), 201},
		{"mixed characters above the limit", max("a", 6143) + max("%", 2049), 400},
	} {
		t.Run(tt.name, func(t *testing.T) {
			// An escaped slash or line break takes more bytes in JSON than in the token.
			body := fmt.Sprintf(`{"client_id":%q,"grant_id":"size-%d","access_token":{"token":%q}}`, id, i, tt.token)
			w := b.do(call{path: "/v1/grants", auth: as("iss"), contentType: "application/json", body: body})
			if w.Code != tt.want {
				t.Fatalf("register: got %d %s, want %d", w.Code, w.Body, tt.want)
			}
			if tt.want == 400 {
				if !strings.Contains(w.Body.String(), "longer than") {
					t.Errorf("got %s, want an error with the limit", w.Body)
				}
				return
			}
			form := "token=" + strings.ReplaceAll(url.QueryEscape(tt.token), "~", "%7E") +
				"&token_type_hint=refresh_token&client_id=" + strings.ReplaceAll(id, "~", "%7E") +
				"&client_secret=" + url.QueryEscape(secret)
			if w := b.do(call{path: pathIntrospect, body: form}); w.Code != 200 ||
				!strings.HasPrefix(w.Body.String(), `{"active":true`) {
				t.Errorf("introspect: got %d %s, want active", w.Code, w.Body)
			}
			if !strings.ContainsAny(tt.token, " é") {
				w := b.do(call{method: "GET", path: "/v1/check", auth: "Bearer " + tt.token,
					header: map[string][]string{"Revoked-Authorization": {as("rs1")}}})
				if w.Code != 200 {
					t.Errorf("check: got %d %s, want 200", w.Code, w.Body)
				}
			}
			if w := b.do(call{path: pathRevoke, body: form}); w.Code != 200 {
				t.Errorf("revoke: got %d %s, want 200", w.Code, w.Body)
			}
			rec, err := b.node.Peek(revoked.DigestToken(tt.token))
			if err != nil || rec.Grant.Revoked == nil {
				t.Errorf("after the revocation: got %+v, %v, want a revoked grant", rec, err)
			}
		})
	}
}
