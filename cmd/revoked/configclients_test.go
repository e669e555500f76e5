package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"revoked"
	"revoked/api"
)

const longSecret = "0123456789abcdef0123456789abcdef"

func TestParseClients(t *testing.T) {
	hash := formatSecretHash(api.HashSecret(longSecret))
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
`))
	if err != nil {
		t.Fatal(err)
	}
	if len(clients) != 4 {
		t.Fatalf("got %d clients, want 4", len(clients))
	}
	admin, rs, spa, old := clients[0], clients[1], clients[2], clients[3]
	if !admin.Has(revoked.RoleAdmin) || admin.Type != revoked.Confidential || len(admin.Secrets) != 1 || len(admin.AuthMethods) != 2 {
		t.Errorf("got %+v", admin)
	}
	if rs.HasAudiences()[0] != "a" || formatSecretHash(rs.Secrets[0]) != hash {
		t.Errorf("got %+v", rs)
	}
	if spa.Type != revoked.Public || len(spa.Secrets) != 0 || !spa.AllowPublicRevocation {
		t.Errorf("got %+v", spa)
	}
	if old.Secrets[0].Kind != revoked.HashArgon2id || old.AuthMethods[0] != revoked.AuthPost {
		t.Errorf("got %+v, want a slow hash for a short secret", old)
	}
}

func TestParseClientsRefuses(t *testing.T) {
	for _, tt := range []struct{ name, text, want string }{
		{"an unknown key, with its line", "- client_id: a\n  secret: x\n", "line 2"},
		{"a short secret", "- {client_id: a, client_secret: hunter2}", "shorter than 32 bytes"},
		{"no secret", "- {client_id: a}", "neither client_secret nor"},
		{"two secrets", "- {client_id: a, client_secret: hunter2, client_secret_hash: b}", "both"},
		{"a public client with a secret", "- {client_id: a, type: public, client_secret: hunter2}", "public client has no secret"},
		{"a public client with a role", "- {client_id: a, type: public, roles: [admin]}", "no roles"},
		{"an unknown role", "- {client_id: a, roles: [root], client_secret: hunter2}", "roles: want"},
		{"an unknown type", "- {client_id: a, type: secret}", "type: want"},
		{"an unknown method", "- {client_id: a, auth_methods: [hunter2]}", "auth_methods: want"},
		{"no id", "- {client_secret: hunter2}", "client_id"},
		{"a broken hash", "- {client_id: a, client_secret_hash: hunter2}", "want kind:salt:hash"},
		{"a secret where a list belongs", "- {client_id: a, roles: hunter2}", "cannot read a text `...` into a list"},
		{"no list", "client_id: a", "line 1: cannot read keys and values into a list of clients; want a list of clients"},
		{"a text", "hunter2", "want a list of clients"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := parseClients([]byte(tt.text))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want it to say %q", err, tt.want)
			}
			if err != nil && (strings.Contains(err.Error(), "main.") || strings.Contains(err.Error(), "!!")) {
				t.Errorf("the error speaks of Go's or YAML's types: %v", err)
			}
			if err != nil && strings.Contains(err.Error(), "hunter2") {
				t.Errorf("the error repeats a secret: %v", err)
			}
		})
	}
}

func TestBootstrapClients(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string, mode os.FileMode) string {
		name = filepath.Join(dir, name)
		if err := os.WriteFile(name, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return name
	}
	secret := write("admin.secret", longSecret+"\n", 0o600)
	var c config
	c.BootstrapAdminSecretFile = secret
	clients, warnings, problems := c.bootstrapClients()
	if len(problems) > 0 || len(warnings) > 0 || len(clients) != 1 || clients[0].ID != "admin" || !clients[0].Has(revoked.RoleAdmin) {
		t.Errorf("got %+v, %v, %v", clients, warnings, problems)
	}
	c.BootstrapClientsFile = write("clients.yml", "- {client_id: admin, client_secret: "+longSecret+"}", 0o644)
	_, warnings, problems = c.bootstrapClients()
	if len(problems) != 1 || !strings.Contains(problems[0].text, `client "admin" is there twice`) {
		t.Errorf("got %v, want the second admin refused", problems)
	}
	if len(warnings) != 1 || !strings.Contains(warnings[0], "everybody on this machine may read it") {
		t.Errorf("got %v, want a warning about the mode", warnings)
	}
	c.BootstrapAdminSecretFile, c.BootstrapClientsFile = write("empty", "\n", 0o600), filepath.Join(dir, "none")
	_, _, problems = c.bootstrapClients()
	if len(problems) != 2 || !strings.Contains(problems[0].text, "is empty") || !strings.Contains(problems[1].text, "no such file") {
		t.Errorf("got %v", problems)
	}
}

func FuzzParseClients(f *testing.F) {
	f.Add([]byte("- {client_id: a, client_secret: " + longSecret + "}"))
	f.Add([]byte(`[{"client_id":"a","type":"public"}]`))
	f.Add([]byte("- &a [*a]"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if strings.Contains(string(data), "imported") {
			t.Skip("slow hashes are not what is tried here")
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
	f.Add(formatSecretHash(api.HashSecret(longSecret)))
	f.Add("argon2id:AAAAAAAAAAAAAAAAAAAAAA:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")
	f.Add("sha256::")
	f.Fuzz(func(t *testing.T, s string) {
		h, err := parseSecretHash(s)
		if err == nil && formatSecretHash(h) != s {
			t.Errorf("%q reads as %q", s, formatSecretHash(h))
		}
	})
}
