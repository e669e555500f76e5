package revoked_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"revoked"
)

func TestValidateClient_OneInvalidField_NamesIt(t *testing.T) {
	valid := func() *revoked.Client {
		return &revoked.Client{
			ID: "app", Type: revoked.Confidential, Roles: []revoked.Role{revoked.RoleIssuer},
			Issuers: []string{"https://as.example"}, Audiences: []string{"rs1"},
			AuthMethods: []string{revoked.AuthBasic, revoked.AuthPost},
			Secrets:     []revoked.SecretHash{{Kind: revoked.HashSHA256, Salt: make([]byte, 16), Hash: make([]byte, 32)}},
		}
	}
	public := func(c *revoked.Client) {
		c.Type, c.Roles, c.Issuers, c.AuthMethods, c.Secrets = revoked.Public, nil, nil, nil, nil
	}
	keys := func(c *revoked.Client) {
		c.AuthMethods = []string{revoked.AuthPrivateKey}
		c.Keys = []revoked.IssuerKey{{Thumbprint: strings.Repeat("t", 43), Public: []byte{1}, State: revoked.KeyActive}}
	}
	certificate := func(c *revoked.Client, kind revoked.SubjectKind, value string) {
		c.AuthMethods, c.Subject = []string{revoked.AuthTLS}, revoked.CertificateSubject{Kind: kind, Value: value}
	}
	for _, tt := range []struct {
		name   string
		change func(*revoked.Client)
		want   error
		field  string
	}{
		{"confidential client", func(*revoked.Client) {}, nil, ""},
		{"public client", public, nil, ""},
		{"public revocation by a public client", func(c *revoked.Client) { public(c); c.AllowPublicRevocation = true }, nil,
			""},
		{"empty id", func(c *revoked.Client) { c.ID = "" }, revoked.ErrInvalid, "client_id"},
		{"longest id", func(c *revoked.Client) { c.ID = strings.Repeat("a", 128) }, nil, ""},
		{"id too long", func(c *revoked.Client) { c.ID = strings.Repeat("a", 129) }, revoked.ErrInvalid, "client_id"},
		{"id with a newline", func(c *revoked.Client) { c.ID = "a\nb" }, revoked.ErrInvalid, "client_id"},
		{"id beyond ASCII", func(c *revoked.Client) { c.ID = "ä" }, revoked.ErrInvalid, "client_id"},
		{"id is .", func(c *revoked.Client) { c.ID = "." }, revoked.ErrInvalid, "client_id"},
		{"id is ..", func(c *revoked.Client) { c.ID = ".." }, revoked.ErrInvalid, "client_id"},
		{"unknown type", func(c *revoked.Client) { c.Type = "secret" }, revoked.ErrInvalid, "type"},
		{"empty type", func(c *revoked.Client) { c.Type = "" }, revoked.ErrInvalid, "type"},
		{"every role", func(c *revoked.Client) { c.Roles = revoked.Roles() }, nil, ""},
		{"public operator", func(c *revoked.Client) { public(c); c.Roles = []revoked.Role{revoked.RoleOperator} },
			revoked.ErrUnprocessable, "roles"},
		{"unknown role", func(c *revoked.Client) { c.Roles = append(c.Roles, "root") }, revoked.ErrInvalid, "roles"},
		{"repeated role", func(c *revoked.Client) { c.Roles = append(c.Roles, c.Roles[0]) }, revoked.ErrInvalid, "roles"},
		{"unknown method", func(c *revoked.Client) { c.AuthMethods = []string{"none"} }, revoked.ErrInvalid, "auth_methods"},
		{"repeated method", func(c *revoked.Client) { c.AuthMethods[1] = c.AuthMethods[0] }, revoked.ErrInvalid,
			"auth_methods"},
		{"empty audience", func(c *revoked.Client) { c.Audiences = []string{""} }, revoked.ErrInvalid, "audiences"},
		{"audience with a control character", func(c *revoked.Client) { c.Audiences[0] = "a\x00" }, revoked.ErrInvalid,
			"audiences"},
		{"audience that is not UTF-8", func(c *revoked.Client) { c.Audiences[0] = "\xff" }, revoked.ErrInvalid, "audiences"},
		{"too many audiences", func(c *revoked.Client) { c.Audiences = slices.Repeat(c.Audiences, 65) }, revoked.ErrInvalid,
			"audiences"},
		{"issuer too long", func(c *revoked.Client) { c.Issuers[0] = strings.Repeat("i", 513) }, revoked.ErrInvalid,
			"issuers"},
		{"too many secrets", func(c *revoked.Client) { c.Secrets = slices.Repeat(c.Secrets, 9) }, revoked.ErrInvalid,
			"secrets"},
		{"unknown hash kind", func(c *revoked.Client) { c.Secrets[0].Kind = 9 }, revoked.ErrInvalid, "secrets"},
		{"empty hash", func(c *revoked.Client) { c.Secrets[0].Hash = nil }, revoked.ErrInvalid, "secrets"},
		{"long salt", func(c *revoked.Client) { c.Secrets[0].Salt = make([]byte, 129) }, revoked.ErrInvalid, "secrets"},
		{"public with a role", func(c *revoked.Client) { public(c); c.Roles = []revoked.Role{revoked.RoleIssuer} },
			revoked.ErrUnprocessable, "roles"},
		{"public with a method", func(c *revoked.Client) { public(c); c.AuthMethods = []string{revoked.AuthBasic} },
			revoked.ErrUnprocessable, "auth_methods"},
		{"public with a secret", func(c *revoked.Client) { s := c.Secrets; public(c); c.Secrets = s },
			revoked.ErrUnprocessable, "client_secret"},
		{"confidential without a method", func(c *revoked.Client) { c.AuthMethods = nil }, revoked.ErrUnprocessable,
			"auth_methods"},
		{"public revocation by a confidential client", func(c *revoked.Client) { c.AllowPublicRevocation = true },
			revoked.ErrUnprocessable, "allow_public_revocation"},
		{"issuers without the role", func(c *revoked.Client) { c.Roles = nil }, revoked.ErrUnprocessable, "issuers"},
		{"keys", keys, nil, ""},
		{"keys without a method", func(c *revoked.Client) { m := c.AuthMethods; keys(c); c.AuthMethods = m },
			revoked.ErrUnprocessable, "jwks"},
		{"a method without keys", func(c *revoked.Client) { c.AuthMethods = []string{revoked.AuthSelfSigned} },
			revoked.ErrUnprocessable, "jwks"},
		{"too many keys", func(c *revoked.Client) { keys(c); c.Keys = slices.Repeat(c.Keys, 17) }, revoked.ErrInvalid,
			"jwks"},
		{"a retired key", func(c *revoked.Client) { keys(c); c.Keys[0].State = revoked.KeyRetired }, revoked.ErrInvalid,
			"jwks"},
		{"a key twice", func(c *revoked.Client) { keys(c); c.Keys = slices.Repeat(c.Keys, 2) }, revoked.ErrInvalid, "jwks"},
		{"public with keys", func(c *revoked.Client) { keys(c); k := c.Keys; public(c); c.Keys = k },
			revoked.ErrUnprocessable, "jwks"},
		{"certificate", func(c *revoked.Client) { certificate(c, revoked.SubjectDN, "CN=app,O=Example") }, nil, ""},
		{"certificate of unknown kind", func(c *revoked.Client) { certificate(c, 9, "x") }, revoked.ErrInvalid, ""},
		{"certificate without a method", func(c *revoked.Client) {
			c.Subject = revoked.CertificateSubject{Kind: revoked.SubjectDNS, Value: "app.example"}
		}, revoked.ErrUnprocessable, "tls_client_auth_san_dns"},
		{"a method without a certificate", func(c *revoked.Client) { c.AuthMethods = []string{revoked.AuthTLS} },
			revoked.ErrUnprocessable, "tls_client_auth"},
		{"public with a certificate", func(c *revoked.Client) {
			public(c)
			c.Subject = revoked.CertificateSubject{Kind: revoked.SubjectDNS, Value: "app.example"}
		}, revoked.ErrUnprocessable, "tls_client_auth_san_dns"},
		{"administrator with a key only", func(c *revoked.Client) {
			keys(c)
			c.Roles, c.AuthMethods = append(c.Roles, revoked.RoleAdmin), []string{revoked.AuthPrivateKey}
		}, nil, ""},
		{"operator with a certificate only", func(c *revoked.Client) {
			certificate(c, revoked.SubjectDNS, "app.example")
			c.Roles = append(c.Roles, revoked.RoleOperator)
		}, nil, ""},
		{"administrator without Basic", func(c *revoked.Client) {
			c.Roles, c.AuthMethods = append(c.Roles, revoked.RoleAdmin), []string{revoked.AuthPost}
		}, revoked.ErrUnprocessable, "auth_methods"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := valid()
			tt.change(c)
			err := revoked.ValidateClient(c)
			if !errors.Is(err, tt.want) {
				t.Fatalf("got %v, want %v", err, tt.want)
			}
			if detail := revoked.Detail(err); !strings.HasPrefix(detail, tt.field) {
				t.Errorf("got detail %q, want it to begin with %q", detail, tt.field)
			}
		})
	}
}

// Only roles that use /v1 need an authentication method that /v1 accepts.
func TestValidateClient_V1RoleWithoutBasic_IsRejected(t *testing.T) {
	for _, role := range revoked.Roles() {
		c := &revoked.Client{ID: "c", Type: revoked.Confidential, Roles: []revoked.Role{role},
			AuthMethods: []string{revoked.AuthPost}}
		want := role != revoked.RoleIssuer && role != revoked.RoleResourceServer
		if err := revoked.ValidateClient(c); errors.Is(err, revoked.ErrUnprocessable) != want {
			t.Errorf("%s: got %v, want refused %v", role, err, want)
		}
		c.AuthMethods = []string{revoked.AuthBasic}
		if err := revoked.ValidateClient(c); err != nil {
			t.Errorf("%s with Basic: got %v, want success", role, err)
		}
	}
}

func TestRequire_MissingRole_NamesTheRoles(t *testing.T) {
	c := &revoked.Client{ID: "c", Roles: []revoked.Role{revoked.RoleViewer, revoked.RoleIssuer}}
	for _, tt := range []struct {
		roles []revoked.Role
		want  string
	}{
		{[]revoked.Role{revoked.RoleAdmin, revoked.RoleViewer}, ""},
		{[]revoked.Role{revoked.RoleIssuer}, ""},
		{[]revoked.Role{revoked.RoleAdmin}, "forbidden: the caller needs the role admin"},
		{[]revoked.Role{revoked.RoleAdmin, revoked.RoleOperator}, "forbidden: the caller needs the role admin or operator"},
		{[]revoked.Role{revoked.RoleAdmin, revoked.RoleAuditor, revoked.RoleResourceServer},
			"forbidden: the caller needs the role admin, auditor or resource_server"},
		{nil, "forbidden: the caller needs the role "}, // no role is sufficient
	} {
		err := c.Require(tt.roles...)
		if tt.want == "" && err != nil || tt.want != "" && (!errors.Is(err, revoked.ErrForbidden) || err.Error() != tt.want) {
			t.Errorf("%v: got %v, want %q", tt.roles, err, tt.want)
		}
	}
}
