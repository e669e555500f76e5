package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"revoked"
	"revoked/api/clientauth"
)

const longSecret = "0123456789abcdef0123456789abcdef"

func TestParseClients_HashesSecretsAndDefaults(t *testing.T) {
	hash := FormatSecretHash(clientauth.HashSecret(longSecret))
	clients, err := parseClients([]byte(`
- client_id: admin
  roles: [admin]
  client_secret: ` + longSecret + `
- {"client_id": "rs", "roles": ["resource_server"], "audiences": ["a"], "client_secret_hash": "` + hash + `"}
- client_id: spa
  type: public
  allow_public_revocation: true
- client_id: old
  client_secret: short
  imported: true
  auth_methods: [client_secret_post]
- client_id: backup
  roles: [operator, viewer, auditor]
  client_secret: ` + longSecret + `
`))
	if err != nil {
		t.Fatal(err)
	}
	if len(clients) != 5 {
		t.Fatalf("got %d clients, want 5", len(clients))
	}
	if got := clients[4].Roles; len(got) != 3 || got[0] != revoked.RoleOperator {
		t.Errorf("got roles %v, want operator, viewer and auditor", got)
	}
	admin, rs, spa, old := clients[0], clients[1], clients[2], clients[3]
	if !admin.Has(revoked.RoleAdmin) || admin.Type != revoked.Confidential || len(admin.Secrets) != 1 ||
		len(admin.AuthMethods) != 2 {
		t.Errorf("got %+v, want an administrator with one secret", admin)
	}
	if rs.EffectiveAudiences()[0] != "a" || FormatSecretHash(rs.Secrets[0]) != hash {
		t.Errorf("got %+v, want its audience and hash", rs)
	}
	if spa.Type != revoked.Public || len(spa.Secrets) != 0 || !spa.AllowPublicRevocation {
		t.Errorf("got %+v, want a public client without secrets", spa)
	}
	if old.Secrets[0].Kind != revoked.HashArgon2id || old.AuthMethods[0] != revoked.AuthPost {
		t.Errorf("got %+v, want a slow hash for a short secret", old)
	}
}

func TestParseClients_InvalidRecord_ReportsIt(t *testing.T) {
	for _, tt := range []struct{ name, text, want string }{
		{"an unknown key, with its line", "- client_id: a\n  secret: x\n", "line 2"},
		{"a short secret", "- {client_id: a, client_secret: hunter2}", "fewer than 32 bytes"},
		{"no secret", "- {client_id: a}", "neither client_secret nor"},
		{"two secrets", "- {client_id: a, client_secret: " + longSecret + ", client_secret_hash: b}", "both"},
		{"a public client with a secret", "- {client_id: a, type: public, client_secret: hunter2}",
			"public client cannot have a secret"},
		{"a public client with a role", "- {client_id: a, type: public, roles: [admin]}", "have roles"},
		{"an unknown role", "- {client_id: a, roles: [root], client_secret: hunter2}", "roles: want"},
		{"an unknown type", "- {client_id: a, type: secret}", "type: want"},
		{"an unknown method", "- {client_id: a, auth_methods: [hunter2]}", "auth_methods: want"},
		{"no id", "- {client_secret: hunter2}", "client_id"},
		{"a broken hash", "- {client_id: a, client_secret_hash: hunter2}", "want kind:salt:hash"},
		{"a secret where a list belongs", "- {client_id: a, roles: hunter2}", "line 1: roles: want"},
		{"a repeated role", "- {client_id: a, roles: [admin, admin], client_secret: " + longSecret + "}",
			`client 1 ("a"): line 1: roles: an element is repeated`},
		{"a repeated role, on its line", "- {client_id: a, client_secret: " + longSecret +
			"}\n- client_id: b\n  roles: [admin, admin]\n",
			`client 2 ("b"): line 3: roles`},
		{"issuers without the role issuer", "- {client_id: a, issuers: [x], client_secret: " + longSecret + "}", "issuers"},
		{"an administrator without Basic",
			"- {client_id: a, roles: [admin], auth_methods: [client_secret_post], client_secret: " + longSecret + "}",
			"client_secret_basic"},
		{"a key and a secret", "- {client_id: a, auth_methods: [private_key_jwt], jwks: " + publicKey +
			", client_secret: " + longSecret + "}", "no method in auth_methods uses a secret"},
		{"a key and a hash", "- {client_id: a, auth_methods: [private_key_jwt], jwks: " + publicKey +
			", client_secret_hash: x}", "no method in auth_methods uses a secret"},
		{"a private key", `- {client_id: a, auth_methods: [private_key_jwt], jwks: {keys: [{kty: OKP, crv: Ed25519, x: hunter2, d: hunter2}]}}`,
			"private members"},
		{"a key set of another type", "- {client_id: a, auth_methods: [private_key_jwt], jwks: hunter2}", "want a JWK set"},
		{"a path segment as id", "- {client_id: .., client_secret: " + longSecret + "}", "client_id"},
		{"a time of creation", "- {client_id: a, created_at: 5, client_secret: " + longSecret + "}", "created_at"},
		{"the same key twice", "- {client_id: a, client_id: b}", "each key once"},
		{"no list", "client_id: a", "line 1: want a list of clients"},
		{"a text", "hunter2", "want a list of clients"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := parseClients([]byte(tt.text))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q in it", err, tt.want)
			}
			if err != nil && (strings.Contains(err.Error(), "config.") || strings.Contains(err.Error(), "!!")) {
				t.Errorf("got %v, want no types of Go or YAML in it", err)
			}
			if err != nil && strings.Contains(err.Error(), "hunter2") {
				t.Errorf("got %v, want no secret in it", err)
			}
		})
	}
}

// publicKey is the key of RFC 8037 appendix A.2.
const publicKey = `{keys: [{kty: OKP, crv: Ed25519, kid: k1, x: 11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo}]}`

func TestParseClients_StrongMethods_NeedNoSecret(t *testing.T) {
	clients, err := parseClients([]byte("- {client_id: robot, auth_methods: [private_key_jwt], jwks: " + publicKey + "}\n" +
		"- {client_id: web, auth_methods: [tls_client_auth], tls_client_auth_subject_dn: 'CN=web,O=Example'}\n"))
	if err != nil || len(clients) != 2 {
		t.Fatalf("got %v, %v, want two clients", clients, err)
	}
	if c := clients[0]; len(c.Secrets) != 0 || len(c.Keys) != 1 || c.Keys[0].KeyID != "k1" {
		t.Errorf("got %+v, want a client with one key", c)
	}
	want := revoked.CertificateSubject{Kind: revoked.SubjectDN, Value: "CN=web,O=Example"}
	if c := clients[1]; len(c.Secrets) != 0 || c.Subject != want {
		t.Errorf("got %+v, want a client with the certificate %v", c, want)
	}
}

func TestLoadClients_ReadsBothFiles(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string, mode os.FileMode) string {
		name = filepath.Join(dir, name)
		if err := os.WriteFile(name, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return name
	}
	load := func(admin, clients string) (*Files, []Problem) {
		c, f := &Config{Settings: Settings{BootstrapAdminSecretFile: admin, BootstrapClientsFile: clients}}, &Files{}
		c.loadClients(f)
		return f, c.problems
	}
	secret := write("admin.secret", longSecret+"\n", 0o600)
	f, problems := load(secret, "")
	if len(problems) > 0 || len(f.Warnings) > 0 || len(f.Clients) != 1 || f.Clients[0].ID != "admin" ||
		!f.Clients[0].Has(revoked.RoleAdmin) {
		t.Errorf("got %+v, %v, want one administrator", f, problems)
	}
	f, problems = load(secret, write("clients.yml", "- {client_id: admin, client_secret: "+longSecret+"}", 0o644))
	if len(problems) != 1 || !strings.Contains(problems[0].Text, `client "admin" is defined twice`) {
		t.Errorf("got %v, want the second admin refused", problems)
	}
	if len(f.Warnings) != 1 || !strings.Contains(f.Warnings[0], "every user of this machine can read it") {
		t.Errorf("got %v, want a warning about the mode", f.Warnings)
	}
	_, problems = load(write("empty", "\n", 0o600), filepath.Join(dir, "none"))
	if len(problems) != 2 || !strings.Contains(problems[0].Text, "is empty") ||
		!strings.Contains(problems[1].Text, "no such file") {
		t.Errorf("got %v, want both files in it", problems)
	}
}

func FuzzParseClients(f *testing.F) {
	f.Add([]byte("- {client_id: a, client_secret: " + longSecret + "}"))
	f.Add([]byte(`[{"client_id":"a","type":"public"}]`))
	f.Add([]byte("- &a [*a]"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if strings.Contains(string(data), "imported") {
			t.Skip("argon2id is too slow for fuzzing")
		}
		clients, err := parseClients(data)
		for _, c := range clients {
			if err == nil && (c.ID == "" || c.Type == revoked.Confidential && len(c.Secrets) != 1) {
				t.Errorf("got %+v", c)
			}
		}
	})
}

func FuzzParseSecretHash(f *testing.F) {
	f.Add(FormatSecretHash(clientauth.HashSecret(longSecret)))
	f.Add("argon2id:AAAAAAAAAAAAAAAAAAAAAA:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")
	f.Add("sha256::")
	f.Fuzz(func(t *testing.T, s string) {
		h, err := parseSecretHash(s)
		if err == nil && FormatSecretHash(h) != s {
			t.Errorf("got %q after a round trip, want %q", FormatSecretHash(h), s)
		}
	})
}
