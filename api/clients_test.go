package api_test

import (
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"testing"

	"revoked"
)

func TestClients_Post_ShowsSecretOnce(t *testing.T) {
	b := newAdminBench(t)
	got := b.do(t, "admin", "POST", "/v1/clients", "",
		`{"client_id":"new","roles":["resource_server"],"audiences":["a","a","b"]}`)
	secret, _ := got.field(t, "client_secret").(string)
	if got.status != 201 || len(secret) != 43 ||
		strings.Trim(secret, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
		t.Fatalf("got %d %s, want 201 and a secret", got.status, got.body)
	}
	get := b.do(t, "admin", "GET", "/v1/clients/new", "", "")
	want := `{"client_id":"new","type":"confidential","roles":["resource_server"],"audiences":["a","b"],"issuers":[],"auth_methods":["client_secret_basic","client_secret_post"],"allow_public_revocation":false,"disabled":false,"created_at":`
	if get.status != 200 || !strings.HasPrefix(get.body, want) || strings.Contains(get.body, "secret\":") ||
		get.field(t, "created_at").(float64) == 0 {
		t.Errorf("got %d %s, want %s...", get.status, get.body, want)
	}
	if list := b.do(t, "admin", "GET", "/v1/clients", "", ""); list.status != 200 ||
		!strings.Contains(list.body, want) || !strings.HasPrefix(list.body, `{"clients":[`) {
		t.Errorf("got %s, want the new client listed", list.body)
	}
	if again := b.do(t, "admin", "POST", "/v1/clients", "", `{"client_id":"new"}`); again.status != 409 {
		t.Errorf("the same id: got %d, want 409", again.status)
	}
	for body, status := range map[string]int{
		`{}`: 400, `{"client_id":""}`: 400, `{"client_id":"ä"}`: 400, `{"client_id":".."}`: 400,
		`{"client_id":"` + strings.Repeat("x", 129) + `"}`: 400,
		`{"client_id":"x","type":"secret"}`:                400, `{"client_id":"x","roles":["root"]}`: 400,
		`{"client_id":"x","roles":"admin"}`:                    400,
		`{"client_id":"x","auth_methods":["private_key_jwt"]}`: 422, `{"client_id":"x","auth_methods":[]}`: 422,
		`{"client_id":"x","type":"public","roles":["admin"]}`:                                          422,
		`{"client_id":"x","type":"public","client_secret":"0123456789012345678901234567890123456789"}`: 422,
		`{"client_id":"x","client_secret":"short"}`:                                                    422,
		`{"client_id":"x","created_at":1}`:                                                             422,
		`{"client_id":"x","allow_public_revocation":true}`:                                             422,
		`{"client_id":"x","issuers":["https://a"]}`:                                                    422,
		`{"client_id":"x","color":1}`:                                                                  400,
	} {
		if got := b.do(t, "admin", "POST", "/v1/clients", "", body); got.status != status {
			t.Errorf("%s: got %d %s, want %d", body, got.status, got.body, status)
		}
	}
	if got := b.do(t, "admin", "POST", "/v1/clients", "",
		`{"client_id":"pub2","type":"public","allow_public_revocation":true}`); got.status != 201 ||
		strings.Contains(got.body, "client_secret") || got.field(t, "auth_methods") == nil {
		t.Errorf("public: got %d %s, want 201 without a secret", got.status, got.body)
	}
	imported := b.do(t, "admin", "POST", "/v1/clients", "",
		`{"client_id":"old","client_secret":"hunter2","imported":true}`)
	if imported.status != 201 || imported.field(t, "client_secret") != "hunter2" {
		t.Errorf("imported: got %d %s, want 201", imported.status, imported.body)
	}
	if c, _ := b.node.Client("old"); c.Secrets[0].Kind != revoked.HashArgon2id {
		t.Error("imported secret: got another hash, want argon2id")
	}
	if strings.Contains(b.log.String(), "hunter2") || strings.Contains(b.log.String(), secret) {
		t.Error("got a secret in the log, want none")
	}
}

func TestClients_Patch_MergesFields(t *testing.T) {
	b := newAdminBench(t)
	const merge = "application/merge-patch+json"
	patch := func(body string) reply { return b.do(t, "admin", "PATCH", "/v1/clients/rs2", merge, body) }
	for range 2 {
		if got := patch(`{"disabled":true}`); got.status != 200 || got.field(t, "disabled") != true {
			t.Errorf("disable: got %d %s, want 200", got.status, got.body)
		}
	}
	if got := patch(`{"disabled":null,"audiences":null,"client_id":"rs2","type":"confidential"}`); got.status != 200 ||
		got.field(t, "disabled") != false || len(got.field(t, "audiences").([]any)) != 0 {
		t.Errorf("null: got %d %s, want the defaults", got.status, got.body)
	}
	for body, want := range map[string]int{
		`{"client_id":"x"}`: 422, `{"type":"public"}`: 422, `{"created_at":1}`: 422, `{"client_secret":"x"}`: 422,
		`{"secrets":[]}`: 400, `[]`: 400, `{"roles":[1]}`: 400,
	} {
		if got := patch(body); got.status != want {
			t.Errorf("%s: got %d %s, want %d", body, got.status, got.body, want)
		}
	}
	if got := b.do(t, "admin", "PATCH", "/v1/clients/none", merge, `{}`); got.status != 404 {
		t.Errorf("unknown: got %d, want 404", got.status)
	}
	conflicts := 2
	b.node.mu.Lock()
	b.node.fail = func(m string) error {
		if m == "UpdateClient" && conflicts > 0 {
			conflicts--
			return fmt.Errorf("%w: changed during the call", revoked.ErrConflict)
		}
		return nil
	}
	b.node.mu.Unlock()
	if got := patch(`{"audiences":["z"]}`); got.status != 200 {
		t.Errorf("two conflicts: got %d %s, want 200", got.status, got.body)
	}
	b.node.mu.Lock()
	conflicts = 1000
	b.node.mu.Unlock()
	if got := patch(`{"audiences":["y"]}`); got.status != 409 {
		t.Errorf("persistent conflicts: got %d %s, want 409", got.status, got.body)
	}
}

func TestClients_SecretAndDelete_TakeEffect(t *testing.T) {
	b := newAdminBench(t)
	got := b.do(t, "admin", "POST", "/v1/clients/app/secret", "", "")
	fresh, _ := got.field(t, "client_secret").(string)
	if got.status != 200 || len(fresh) != 43 || got.field(t, "client_id") != "app" ||
		got.field(t, "index").(float64) == 0 {
		t.Fatalf("got %d %s, want a new secret", got.status, got.body)
	}
	c, _ := b.node.Client("app")
	if len(c.Secrets) != 2 || c.Secrets[0].ExpiresAt != 0 || c.Secrets[1].ExpiresAt == 0 {
		t.Errorf("got secrets %+v, want the new one without expiry and the old one with one", c.Secrets)
	}
	for range 6 {
		b.do(t, "admin", "POST", "/v1/clients/app/secret", "", "{}")
	}
	if c, _ := b.node.Client("app"); len(c.Secrets) > 4 {
		t.Errorf("got %d secrets, want a bounded number", len(c.Secrets))
	}
	if got := b.do(t, "admin", "PATCH", "/v1/settings", "", `{"secret_grace":"0s"}`); got.status != 200 {
		t.Fatal(got)
	}
	b.do(t, "admin", "POST", "/v1/clients/app/secret", "", "")
	if c, _ := b.node.Client("app"); len(c.Secrets) != 1 {
		t.Errorf("without grace: got %d secrets, want 1", len(c.Secrets))
	}
	if got := b.do(t, "admin", "POST", "/v1/clients/pub/secret", "", ""); got.status != 422 {
		t.Errorf("public: got %d, want 422", got.status)
	}
	for range 2 {
		if got := b.do(t, "admin", "DELETE", "/v1/clients/app", "", ""); got.status != 200 ||
			got.field(t, "index").(float64) == 0 {
			t.Errorf("DELETE: got %d %s, want 200", got.status, got.body)
		}
	}
	if got := b.do(t, "admin", "DELETE", "/v1/clients/none", "", ""); got.status != 404 {
		t.Errorf("DELETE unknown: got %d, want 404", got.status)
	}
}

// After a rotation, an administrator must see until when the old secret is valid. Times are whole
// seconds, and a caller can send back a record that it has read.
func TestClients_Record_ShowsValidSecrets(t *testing.T) {
	b := newAdminBench(t)
	get := func() map[string]any {
		t.Helper()
		var record map[string]any
		r := b.do(t, "admin", "GET", "/v1/clients/rs2", "", "")
		if err := json.Unmarshal([]byte(r.body), &record); err != nil || strings.Contains(r.body, "hash") {
			t.Fatalf("got %d %s and %v, want a record without hashes", r.status, r.body, err)
		}
		return record
	}
	valid := func(record map[string]any) (ends []any) {
		list, _ := record["valid_secrets"].([]any)
		for _, s := range list {
			ends = append(ends, s.(map[string]any)["expires_at"])
		}
		return ends
	}
	if got := valid(get()); len(got) != 0 {
		t.Errorf("got %v, want no list for one secret that does not expire", got)
	}
	if r := b.do(t, "admin", "POST", "/v1/clients/rs2/secret", "", ""); r.status != 200 {
		t.Fatalf("got %d %s, want 200", r.status, r.body)
	}
	record := get()
	got := valid(record)
	if len(got) != 2 || got[0] != nil || got[1] == nil || got[1] != math.Trunc(got[1].(float64)) {
		t.Fatalf("got %v, want the new secret and the expiry of the old one in whole seconds", got)
	}
	if at := record["created_at"].(float64); at != math.Trunc(at) {
		t.Errorf("got created_at %v, want whole seconds", at)
	}
	body, err := json.Marshal(record)
	if err != nil {
		t.Fatal(err)
	}
	if r := b.do(t, "admin", "PATCH", "/v1/clients/rs2", "application/merge-patch+json", string(body)); r.status != 200 {
		t.Errorf("a record sent back: got %d %s, want 200", r.status, r.body)
	}
	if r := b.do(t, "admin", "POST", "/v1/clients", "",
		`{"client_id":"x","valid_secrets":[{"expires_at":null}]}`); r.status != 422 {
		t.Errorf("valid_secrets in a POST: got %d %s, want 422", r.status, r.body)
	}
}

// weak_secret shows an administrator that a secret can be guessed.
func TestClients_ImportedShortSecret_IsMarked(t *testing.T) {
	b := newAdminBench(t)
	long := strings.Repeat("x", 32)
	for secret, want := range map[string]bool{"short": true, long[:31]: true, long: false} {
		id := fmt.Sprint("imported", len(secret))
		body := fmt.Sprintf(`{"client_id":%q,"client_secret":%q,"imported":true}`, id, secret)
		if got := b.do(t, "admin", "POST", "/v1/clients", "", body); got.status != 201 {
			t.Fatal(got)
		}
		got := b.do(t, "admin", "GET", "/v1/clients/"+id, "", "")
		if has := strings.Contains(got.body, `"weak_secret":true`); has != want || got.status != 200 {
			t.Errorf("%d bytes: got %d %s, want weak_secret %t", len(secret), got.status, got.body, want)
		}
		if back := b.do(t, "admin", "PATCH", "/v1/clients/"+id, "", got.body); back.status != 200 {
			t.Errorf("%d bytes, sent back: got %d %s, want 200", len(secret), back.status, back.body)
		}
		if got := b.do(t, "admin", "POST", "/v1/clients/"+id+"/secret", "", "{}"); got.status != 200 {
			t.Fatal(got)
		}
		b.node.change(id, func(c *revoked.Client) { c.Secrets[1].ExpiresAt = 1 }) // its grace ends
		if got := b.do(t, "admin", "GET", "/v1/clients/"+id, "", ""); strings.Contains(got.body, "weak_secret") {
			t.Errorf("%d bytes, rotated: got %s, want no weak_secret", len(secret), got.body)
		}
	}
}
