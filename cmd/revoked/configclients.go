package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	yaml "go.yaml.in/yaml/v3"

	"revoked"
	"revoked/api"
)

// adminID is the client id of the administrator whose secret is in bootstrap_admin_secret_file.
const adminID = "admin"

// A bootstrapRecord is one entry of bootstrap_clients_file: the client record of the API, with its
// secret in the clear or as keygen --hash printed it.
type bootstrapRecord struct {
	ClientID              string   `yaml:"client_id"`
	Type                  string   `yaml:"type"`
	Roles                 []string `yaml:"roles"`
	Audiences             []string `yaml:"audiences"`
	Issuers               []string `yaml:"issuers"`
	AuthMethods           []string `yaml:"auth_methods"`
	AllowPublicRevocation bool     `yaml:"allow_public_revocation"`
	Disabled              bool     `yaml:"disabled"`
	ClientSecret          string   `yaml:"client_secret"`
	ClientSecretHash      string   `yaml:"client_secret_hash"`
	Imported              bool     `yaml:"imported"` // the secret may be short
}

// bootstrapClients reads both bootstrap files. Secrets leave it hashed.
func (c *config) bootstrapClients() (clients []revoked.Client, warnings []string, problems []problem) {
	if name := c.BootstrapAdminSecretFile; name != "" {
		secret, warning, err := readSecretFile(name)
		if err == nil {
			var admin revoked.Client
			admin, err = bootstrapRecord{ClientID: adminID, Roles: []string{string(revoked.RoleAdmin)}, ClientSecret: secret, Imported: true}.client()
			clients = append(clients, admin)
		}
		if err != nil {
			problems = append(problems, problem{c.where("bootstrap_admin_secret_file"), err.Error()})
		}
		warnings = append(warnings, warning...)
	}
	if name := c.BootstrapClientsFile; name != "" {
		more, warning, err := readClientsFile(name)
		if err != nil {
			problems = append(problems, problem{c.where("bootstrap_clients_file"), err.Error()})
		}
		for _, m := range more {
			if slices.ContainsFunc(clients, func(c revoked.Client) bool { return c.ID == m.ID }) {
				problems = append(problems, problem{c.where("bootstrap_clients_file"), fmt.Sprintf("client %q is there twice", m.ID)})
				continue
			}
			clients = append(clients, m)
		}
		warnings = append(warnings, warning...)
	}
	return clients, warnings, problems
}

// readSecretFile reads a file that holds one secret; a newline at its end does not count.
func readSecretFile(name string) (string, []string, error) {
	data, warnings, err := readPrivate(name)
	if err != nil {
		return "", nil, err
	}
	secret := strings.TrimRight(string(data), "\r\n")
	if secret == "" {
		return "", nil, fmt.Errorf("%s is empty: it should hold the secret", name)
	}
	if len(secret) > 1024 || strings.ContainsAny(secret, "\r\n") {
		return "", nil, fmt.Errorf("%s should hold one secret in one line of at most 1024 bytes", name)
	}
	return secret, warnings, nil
}

// readClientsFile reads a list of client records.
func readClientsFile(name string) ([]revoked.Client, []string, error) {
	data, warnings, err := readPrivate(name)
	if err != nil {
		return nil, nil, err
	}
	clients, err := parseClients(data)
	if err != nil {
		return nil, warnings, fmt.Errorf("%s: %w", name, err)
	}
	return clients, warnings, nil
}

// parseClients reads a YAML or JSON list of records. Errors name the line or the client, never a
// secret.
func parseClients(data []byte) ([]revoked.Client, error) {
	var records []bootstrapRecord
	dec := yaml.NewDecoder(bytes.NewReader(data))
	dec.KnownFields(true)
	if err := dec.Decode(&records); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%s; want a list of clients, each with client_id and client_secret or client_secret_hash", withoutValues(err))
	}
	clients := make([]revoked.Client, 0, len(records))
	for i, r := range records {
		cl, err := r.client()
		if err != nil {
			return nil, fmt.Errorf("client %d (%q): %w", i+1, r.ClientID, err)
		}
		clients = append(clients, cl)
	}
	return clients, nil
}

// withoutValues returns a message of the YAML library with every quoted value cut out: it could be a
// secret in a wrong place. What Go and YAML call a type is said in other words.
func withoutValues(err error) string {
	parts := strings.Split(plainYAML(err), "`")
	for i := 1; i < len(parts); i += 2 {
		parts[i] = "..."
	}
	s := strings.Join(parts, "`")
	for _, r := range []struct{ goes, comes string }{
		{"[]main.bootstrapRecord", "a list of clients"}, {"in type main.bootstrapRecord", "in a client"}, {"main.bootstrapRecord", "a client"},
		{"[]string", "a list"}, {"cannot unmarshal", "cannot read"}, {"!!map", "keys and values"}, {"!!seq", "a list"}, {"!!str", "a text"},
	} {
		s = strings.ReplaceAll(s, r.goes, r.comes)
	}
	return s
}

// readPrivate reads a file that should be readable by its owner only, and warns where all may.
func readPrivate(name string) ([]byte, []string, error) {
	st, err := os.Stat(name)
	if isNotExist(err) {
		return nil, nil, fmt.Errorf("no such file: %s", name)
	}
	if err != nil {
		return nil, nil, err
	}
	var warnings []string
	if isWorldReadable(st) {
		warnings = append(warnings, readableWarning(name))
	}
	data, err := readBounded(name, maxConfigFile)
	return data, warnings, err
}

func readableWarning(name string) string {
	return fmt.Sprintf("%s holds secrets and everybody on this machine may read it: chmod 600", name)
}

// client checks the record and returns it with its secret hashed.
func (r bootstrapRecord) client() (revoked.Client, error) {
	c := revoked.Client{
		ID: r.ClientID, Type: revoked.ClientType(r.Type), Audiences: r.Audiences, Issuers: r.Issuers,
		AuthMethods: r.AuthMethods, AllowPublicRevocation: r.AllowPublicRevocation, Disabled: r.Disabled,
	}
	if c.Type == "" {
		c.Type = revoked.Confidential
	}
	if c.Type != revoked.Confidential && c.Type != revoked.Public {
		return c, fmt.Errorf("type: want confidential or public")
	}
	if n := len(c.ID); n < 1 || n > 128 || strings.ContainsFunc(c.ID, func(r rune) bool { return r < 0x20 || r > 0x7e }) {
		return c, errors.New("client_id: want 1 to 128 printable ASCII characters")
	}
	for _, role := range r.Roles {
		switch role := revoked.Role(role); role {
		case revoked.RoleAdmin, revoked.RoleIssuer, revoked.RoleResourceServer:
			c.Roles = append(c.Roles, role)
		default:
			return c, errors.New("roles: want admin, issuer or resource_server")
		}
	}
	if len(c.AuthMethods) == 0 && c.Type == revoked.Confidential {
		c.AuthMethods = []string{revoked.AuthBasic, revoked.AuthPost}
	}
	for _, m := range c.AuthMethods {
		if m != revoked.AuthBasic && m != revoked.AuthPost {
			return c, fmt.Errorf("auth_methods: want %s or %s", revoked.AuthBasic, revoked.AuthPost)
		}
	}
	return r.withSecret(c)
}

func (r bootstrapRecord) withSecret(c revoked.Client) (revoked.Client, error) {
	switch {
	case c.Type == revoked.Public && (r.ClientSecret != "" || r.ClientSecretHash != ""):
		return c, errors.New("a public client has no secret")
	case c.Type == revoked.Public && len(r.Roles) > 0:
		return c, errors.New("a public client has no roles")
	case c.Type == revoked.Public:
		return c, nil
	case r.ClientSecret != "" && r.ClientSecretHash != "":
		return c, errors.New("has both client_secret and client_secret_hash")
	case r.ClientSecretHash != "":
		h, err := parseSecretHash(r.ClientSecretHash)
		c.Secrets = []revoked.SecretHash{h}
		return c, err
	case r.ClientSecret == "":
		return c, errors.New("has neither client_secret nor client_secret_hash")
	case len(r.ClientSecret) < 32 && !r.Imported:
		return c, errors.New("client_secret is shorter than 32 bytes; for a secret that comes from elsewhere say imported: true")
	default:
		c.Secrets = []revoked.SecretHash{api.HashSecret(r.ClientSecret)}
		return c, nil
	}
}
