package revoked_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"errors"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"revoked"
)

func TestValidateIssuer_OneInvalidField_NamesIt(t *testing.T) {
	key := func(c string) revoked.IssuerKey {
		return revoked.IssuerKey{KeyID: "k1", Thumbprint: strings.Repeat(c, 43), Algorithm: "RS256",
			Public: make([]byte, 300), State: revoked.KeyActive}
	}
	valid := func() *revoked.Issuer {
		i := revoked.DefaultIssuer()
		i.Name, i.Issuer, i.JWKSURI = "as1", "https://as.example", "https://as.example/jwks?v=1"
		return &i
	}
	inline := func(i *revoked.Issuer) { i.JWKSURI, i.Keys = "", []revoked.IssuerKey{key("a"), key("b")} }
	badKey := func(change func(*revoked.IssuerKey)) func(*revoked.Issuer) {
		return func(i *revoked.Issuer) { inline(i); change(&i.Keys[1]) }
	}
	many := func(n int) (list []string) {
		for k := range n {
			list = append(list, "x"+strconv.Itoa(k))
		}
		return list
	}
	claims := func(n int) map[string]string {
		m := map[string]string{}
		for _, name := range many(n) {
			m[name] = "v"
		}
		return m
	}
	invalid, unprocessable := revoked.ErrInvalid, revoked.ErrUnprocessable
	type issuer = revoked.Issuer
	for _, tt := range []struct {
		name   string
		change func(*issuer)
		want   error
		field  string
	}{
		{"defaults with a jwks_uri", func(*issuer) {}, nil, ""},
		{"inline keys", inline, nil, ""},
		{"fetched keys and a jwks_uri", func(i *issuer) { i.Keys = []revoked.IssuerKey{key("a")} }, nil, ""},
		{"every algorithm", func(i *issuer) { i.Algorithms = revoked.SignatureAlgorithms() }, nil, ""},
		{"shortest name", func(i *issuer) { i.Name = "0" }, nil, ""},
		{"longest name", func(i *issuer) { i.Name = strings.Repeat("a", 64) }, nil, ""},
		{"name with each character", func(i *issuer) { i.Name = "a0._-" }, nil, ""},
		{"empty name", func(i *issuer) { i.Name = "" }, invalid, "name"},
		{"name too long", func(i *issuer) { i.Name = strings.Repeat("a", 65) }, invalid, "name"},
		{"name in upper case", func(i *issuer) { i.Name = "As1" }, invalid, "name"},
		{"name with a slash", func(i *issuer) { i.Name = "a/b" }, invalid, "name"},
		{"name that begins with a dot", func(i *issuer) { i.Name = ".." }, invalid, "name"},
		{"name that begins with a dash", func(i *issuer) { i.Name = "-a" }, invalid, "name"},
		{"no issuer", func(i *issuer) { i.Issuer = "" }, invalid, "issuer"},
		{"issuer too long", func(i *issuer) { i.Issuer = strings.Repeat("i", 513) }, invalid, "issuer"},
		{"issuer with a control character", func(i *issuer) { i.Issuer = "a\n" }, invalid, "issuer"},
		{"neither keys nor a jwks_uri", func(i *issuer) { i.JWKSURI = "" }, unprocessable, "jwks_uri"},
		{"jwks_uri over http", func(i *issuer) { i.JWKSURI = "http://as.example/jwks" }, invalid, "jwks_uri"},
		{"jwks_uri without a host", func(i *issuer) { i.JWKSURI = "https:///jwks" }, invalid, "jwks_uri"},
		{"jwks_uri with only a port", func(i *issuer) { i.JWKSURI = "https://:443/jwks" }, invalid, "jwks_uri"},
		{"opaque jwks_uri", func(i *issuer) { i.JWKSURI = "https:as.example" }, invalid, "jwks_uri"},
		{"jwks_uri of a file", func(i *issuer) { i.JWKSURI = "file:///etc/passwd" }, invalid, "jwks_uri"},
		{"jwks_uri with credentials", func(i *issuer) { i.JWKSURI = "https://a:b@as.example/" }, invalid, "jwks_uri"},
		{"jwks_uri with a fragment", func(i *issuer) { i.JWKSURI = "https://as.example/#" }, invalid, "jwks_uri"},
		{"jwks_uri that does not parse", func(i *issuer) { i.JWKSURI = "https://as.example/%zz" }, invalid, "jwks_uri"},
		{"jwks_uri with a newline", func(i *issuer) { i.JWKSURI += "\n" }, invalid, "jwks_uri"},
		{"jwks_uri too long", func(i *issuer) { i.JWKSURI += strings.Repeat("a", 2048) }, invalid, "jwks_uri"},
		{"algorithm none", func(i *issuer) { i.Algorithms = []string{"none"} }, invalid, "algorithms"},
		{"HMAC", func(i *issuer) { i.Algorithms = []string{"RS256", "HS256"} }, invalid, "algorithms"},
		{"empty algorithm", func(i *issuer) { i.Algorithms = []string{""} }, invalid, "algorithms"},
		{"algorithm in lower case", func(i *issuer) { i.Algorithms = []string{"rs256"} }, invalid, "algorithms"},
		{"repeated algorithm", func(i *issuer) { i.Algorithms = []string{"ES256", "ES256"} }, invalid, "algorithms"},
		{"no token types", func(i *issuer) { i.TokenTypes = nil }, invalid, "token_types"},
		{"too many token types", func(i *issuer) { i.TokenTypes = many(17) }, invalid, "token_types"},
		{"long token type", func(i *issuer) { i.TokenTypes = []string{strings.Repeat("t", 65)} }, invalid, "token_types"},
		{"token type with a space", func(i *issuer) { i.TokenTypes = []string{"at jwt"} }, invalid, "token_types"},
		{"token type JWT alone", func(i *issuer) { i.TokenTypes = []string{"JWT"} }, unprocessable, "token_types"},
		{"token type application/jwt alone", func(i *issuer) { i.TokenTypes = []string{"at+jwt", "application/jwt"} },
			unprocessable, "token_types"},
		{"no typ alone", func(i *issuer) { i.TokenTypes = []string{""} }, unprocessable, "token_types"},
		{"token type JWT with a required claim", func(i *issuer) {
			i.TokenTypes, i.RequiredClaims = []string{"JWT", ""}, map[string]string{"typ": "Bearer"}
		}, nil, ""},
		{"token type JWT with a forbidden claim", func(i *issuer) {
			i.TokenTypes, i.ForbiddenClaims = []string{"JWT"}, []string{"nonce"}
		}, nil, ""},
		{"too many required claims", func(i *issuer) { i.RequiredClaims = claims(17) }, invalid, "required_claims"},
		{"required claim without a name", func(i *issuer) { i.RequiredClaims = map[string]string{"": "v"} },
			invalid, "required_claims"},
		{"required claim with a long value", func(i *issuer) {
			i.RequiredClaims = map[string]string{"a": strings.Repeat("v", 513)}
		}, invalid, "required_claims"},
		{"too many forbidden claims", func(i *issuer) { i.ForbiddenClaims = many(17) }, invalid, "forbidden_claims"},
		{"forbidden claim without a name", func(i *issuer) { i.ForbiddenClaims = []string{""} }, invalid,
			"forbidden_claims"},
		{"claim both required and forbidden", func(i *issuer) {
			i.RequiredClaims, i.ForbiddenClaims = claims(2), many(1)
		}, unprocessable, "forbidden_claims"},
		{"long client claim", func(i *issuer) { i.ClientClaim = strings.Repeat("c", 129) }, invalid, "client_claim"},
		{"session claim with a control character", func(i *issuer) { i.SessionClaim = "\x00" }, invalid, "session_claim"},
		{"grant claim that is not UTF-8", func(i *issuer) { i.GrantClaim = "\xff" }, invalid, "grant_claim"},
		{"no session claim", func(i *issuer) { i.SessionClaim = "" }, nil, ""},
		{"revoke_session without a session claim", func(i *issuer) { i.SessionClaim, i.RevokeSession = "", true },
			unprocessable, "revoke_session"},
		{"shortest lifetime", func(i *issuer) { i.MaxLifetime = time.Minute }, nil, ""},
		{"longest lifetime", func(i *issuer) { i.MaxLifetime = 720 * time.Hour }, nil, ""},
		{"lifetime too short", func(i *issuer) { i.MaxLifetime = time.Minute - 1 }, unprocessable, "max_lifetime"},
		{"lifetime too long", func(i *issuer) { i.MaxLifetime = 720*time.Hour + 1 }, unprocessable, "max_lifetime"},
		{"no skew", func(i *issuer) { i.ClockSkew = 0 }, nil, ""},
		{"largest skew", func(i *issuer) { i.ClockSkew = 5 * time.Minute }, nil, ""},
		{"negative skew", func(i *issuer) { i.ClockSkew = -1 }, unprocessable, "clock_skew"},
		{"skew too large", func(i *issuer) { i.ClockSkew = 5*time.Minute + 1 }, unprocessable, "clock_skew"},
		{"negative earlier lifetime", func(i *issuer) { i.EarlierLifetime = -1 }, unprocessable, "earlier lifetime"},
		{"negative earlier skew", func(i *issuer) { i.EarlierSkew = -1 }, unprocessable, "earlier skew"},
		{"too many keys", func(i *issuer) { i.Keys = make([]revoked.IssuerKey, 257) }, invalid, "jwks"},
		{"keys out of order", func(i *issuer) { inline(i); slices.Reverse(i.Keys) }, invalid, "jwks"},
		{"repeated key", badKey(func(k *revoked.IssuerKey) { *k = key("a") }), invalid, "jwks"},
		{"long kid", badKey(func(k *revoked.IssuerKey) { k.KeyID = strings.Repeat("k", 513) }), invalid, "jwks: kid"},
		{"short thumbprint", badKey(func(k *revoked.IssuerKey) { k.Thumbprint = "c" }), invalid, "jwks"},
		{"empty key", badKey(func(k *revoked.IssuerKey) { k.Public = nil }), invalid, "jwks"},
		{"large key", badKey(func(k *revoked.IssuerKey) { k.Public = make([]byte, 2049) }), invalid, "jwks"},
		{"key without a state", badKey(func(k *revoked.IssuerKey) { k.State = 0 }), invalid, "jwks"},
		{"key for HMAC", badKey(func(k *revoked.IssuerKey) { k.Algorithm = "HS256" }), invalid, "jwks"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			i := valid()
			tt.change(i)
			err := revoked.ValidateIssuer(i)
			if !errors.Is(err, tt.want) {
				t.Fatalf("got %v, want %v", err, tt.want)
			}
			if tt.want != nil && !strings.HasPrefix(revoked.Detail(err), tt.field) {
				t.Errorf("got %v, want an error that names %s", err, tt.field)
			}
		})
	}
}

// C25: an increase of max_lifetime affects only tokens that are issued after it.
func TestLifetimeOf_Increase_AppliesToLaterTokens(t *testing.T) {
	i := revoked.DefaultIssuer()
	if got := i.LifetimeOf(0); got != i.MaxLifetime {
		t.Errorf("without an increase: got %v, want %v", got, i.MaxLifetime)
	}
	i.EarlierLifetime, i.LifetimeSince = time.Hour, 100_500_000
	for iat, want := range map[revoked.Time]time.Duration{
		0: time.Hour, 99e6: time.Hour, 100e6: time.Hour, 100_900_000: time.Hour, 101e6: i.MaxLifetime,
	} {
		if got := i.LifetimeOf(iat); got != want {
			t.Errorf("issued at %d: got %v, want %v", iat, got, want)
		}
	}
	if i.MaxLifetime = time.Minute; i.LifetimeOf(0) != time.Minute {
		t.Errorf("lowered later: got %v, want %v", i.LifetimeOf(0), time.Minute)
	}
}

// A cut-off applies the clock_skew in force when the token was issued, even after a decrease.
func TestCutoffSkew_AfterDecrease_IsTheEarlierSkew(t *testing.T) {
	i := revoked.DefaultIssuer()
	if got := i.CutoffSkew(0); got != i.ClockSkew {
		t.Errorf("never lowered: got %v, want %v", got, i.ClockSkew)
	}
	i.EarlierSkew, i.SkewSince = time.Minute, 100_500_000
	for iat, want := range map[revoked.Time]time.Duration{
		0: time.Minute, 100e6: time.Minute, 100_500_000: time.Minute, 101e6: i.ClockSkew,
	} {
		if got := i.CutoffSkew(iat); got != want {
			t.Errorf("issued at %d: got %v, want %v", iat, got, want)
		}
	}
	if i.ClockSkew = time.Hour; i.CutoffSkew(0) != time.Hour {
		t.Errorf("raised later: got %v, want %v", i.CutoffSkew(0), time.Hour)
	}
}

func TestIssuer_AcceptsType_IgnoresCaseAndPrefix(t *testing.T) {
	i := revoked.Issuer{TokenTypes: []string{"application/AT+jwt", "JWT"}}
	for typ, want := range map[string]bool{
		"at+jwt": true, "AT+JWT": true, "application/at+jwt": true, "Application/At+Jwt": true, "jwt": true,
		"application/jwt": true, "": false, "application/": false, "application/application/at+jwt": false,
		"text/at+jwt": false, "id+jwt": false, "at+jwt ": false,
	} {
		if got := i.AcceptsType(typ); got != want {
			t.Errorf("%q: got %v, want %v", typ, got, want)
		}
	}
	if i.TokenTypes = []string{""}; !i.AcceptsType("") || i.AcceptsType("application/") || i.AcceptsType("jwt") {
		t.Error("no typ: got another type accepted, want only a token without typ")
	}
}

func TestIssuer_AlgorithmOf_KeyWithoutAlg(t *testing.T) {
	public := func(k crypto.Signer, err error) []byte {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		der, err := x509.MarshalPKIXPublicKey(k.Public())
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	curve := func(c elliptic.Curve) []byte {
		k, err := ecdsa.GenerateKey(c, rand.Reader)
		return public(k, err)
	}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	edKey := public(ed, err)
	rs, err := rsa.GenerateKey(rand.Reader, 2048)
	rsKey := public(rs, err)
	for _, tt := range []struct {
		name       string
		key        revoked.IssuerKey
		algorithms []string
		want       string
	}{
		{"alg of the JWK", revoked.IssuerKey{Algorithm: "PS512", Public: rsKey}, []string{"RS256"}, "PS512"},
		{"P-256", revoked.IssuerKey{Public: curve(elliptic.P256())}, nil, "ES256"},
		{"P-384", revoked.IssuerKey{Public: curve(elliptic.P384())}, nil, "ES384"},
		{"P-521", revoked.IssuerKey{Public: curve(elliptic.P521())}, nil, "ES512"},
		{"Ed25519", revoked.IssuerKey{Public: edKey}, nil, "EdDSA"},
		{"RSA, any algorithm", revoked.IssuerKey{Public: rsKey}, nil, ""},
		{"RSA, one algorithm of RSA", revoked.IssuerKey{Public: rsKey}, []string{"ES256", "PS256", "EdDSA"}, "PS256"},
		{"RSA, two algorithms of RSA", revoked.IssuerKey{Public: rsKey}, []string{"RS256", "PS256"}, ""},
		{"malformed", revoked.IssuerKey{Public: []byte("x")}, []string{"RS256"}, ""},
	} {
		i := revoked.Issuer{Algorithms: tt.algorithms}
		if got := i.AlgorithmOf(&tt.key); got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
	}
}
