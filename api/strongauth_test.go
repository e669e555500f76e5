package api_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/big"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"revoked"
	"revoked/api"
	"revoked/node/jwt"
)

const assertionType = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"

// A strongBench is a bench with CJ (private_key_jwt, also an administrator "root") and the clients
// of RFC 8705.
type strongBench struct {
	*bench
	key trustedKey
}

func newStrongBench(t testing.TB, change ...func(*api.Config)) *strongBench {
	t.Helper()
	b := &strongBench{newBench(t, change...), newTrustedKey(t, "k1")}
	keys, err := jwt.ParseInline([]byte(jwks(t, b.key)))
	if err != nil {
		t.Fatal(err)
	}
	robot := func(id string, roles ...revoked.Role) revoked.Client {
		return revoked.Client{ID: id, Roles: roles, AuthMethods: []string{revoked.AuthPrivateKey}, Keys: keys}
	}
	b.node.put(robot("cj"), robot("root", revoked.RoleAdmin), robot("reader", revoked.RoleResourceServer))
	b.pair(t, "j", "cj")
	return b
}

// assertion returns an assertion of a client with changed claims.
func (b *strongBench) assertion(t testing.TB, client, jti string, changes map[string]any) string {
	t.Helper()
	return b.signed(t, "", client, jti, changes)
}

func (b *strongBench) signed(t testing.TB, typ, client, jti string, changes map[string]any) string {
	t.Helper()
	opts := &jose.SignerOptions{}
	if typ != "" {
		opts.WithType(jose.ContentType(typ))
	}
	s, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256,
		Key: jose.JSONWebKey{Key: b.key.private, KeyID: b.key.kid}}, opts)
	if err != nil {
		t.Fatal(err)
	}
	claims := map[string]any{"iss": client, "sub": client, "aud": "https://as.example", "jti": jti,
		"exp": b.now.Unix() + 60}
	for name, v := range changes {
		claims[name] = v
	}
	payload, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	jws, err := s.Sign(payload)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := jws.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// assertionForm returns the body of a form with an assertion.
func assertionForm(assertion string, more ...string) string {
	v := url.Values{"client_assertion": {assertion}, "client_assertion_type": {assertionType}, "token": {"ATj"}}
	for i := 0; i < len(more); i += 2 {
		v.Set(more[i], more[i+1])
	}
	return v.Encode()
}

func (b *strongBench) revokeWith(body string) int {
	return b.do(call{path: pathRevoke, body: body}).Code
}

// CA-21 to CA-31: the audience, the type, the expiry and the names of an assertion.
func TestPrivateKeyJWT_Claims_DecideStatus(t *testing.T) {
	b := newStrongBench(t)
	n := 0
	for _, tt := range []struct {
		name, typ string
		changes   map[string]any
		client    string // client_id of the form
		want      int
	}{
		{"CA-21 issuer", "", nil, "", 200},
		{"CA-22 list of the issuer", "", map[string]any{"aud": []string{"https://as.example"}}, "", 200},
		{"CA-23 revocation endpoint", "", map[string]any{"aud": "https://as.example/oauth2/revoke"}, "", 401},
		{"CA-25 two audiences", "", map[string]any{"aud": []string{"https://as.example", "https://b"}}, "", 401},
		{"CA-26 JWT", "JWT", nil, "", 200}, {"CA-26 own type", "client-authentication+jwt", nil, "", 200},
		{"CA-27 at+jwt", "at+jwt", nil, "", 401}, {"CA-27 secevent+jwt", "secevent+jwt", nil, "", 401},
		{"CA-27 statuslist+jwt", "statuslist+jwt", nil, "", 401},
		{"CA-27 IN-23 introspection", "token-introspection+jwt", nil, "", 401},
		{"CA-28 expired", "", map[string]any{"exp": b.now.Unix() - 6}, "", 401},
		{"CA-28 no exp", "", map[string]any{"exp": nil}, "", 401},
		{"CA-29 a year ahead", "", map[string]any{"exp": b.now.Unix() + 365*86400}, "", 401},
		{"CA-29 eleven minutes", "", map[string]any{"exp": b.now.Unix() + 660}, "", 401},
		{"CA-31 sub", "", map[string]any{"sub": "c1"}, "", 401}, {"CA-31 client_id", "", nil, "c1", 401},
		{"the right client_id", "", nil, "cj", 200}, {"no jti", "", map[string]any{"jti": nil}, "", 401},
		{"a client without the method", "", map[string]any{"iss": "c1", "sub": "c1"}, "", 401},
		{"an unknown client", "", map[string]any{"iss": "nobody", "sub": "nobody"}, "", 401},
		{"a public client", "", map[string]any{"iss": "pub1", "sub": "pub1"}, "", 401},
	} {
		n++
		raw := b.signed(t, tt.typ, "cj", fmt.Sprint("claims-", n), tt.changes)
		if got := b.revokeWith(assertionForm(raw, "client_id", tt.client)); got != tt.want {
			t.Errorf("%s: got %d, want %d", tt.name, got, tt.want)
		}
		if strings.Contains(b.log.String(), raw) || strings.Contains(b.log.String(), raw[strings.LastIndex(raw, "."):]) {
			t.Fatalf("%s: got the assertion in the log, want none", tt.name)
		}
	}
	if b.active(t, "ATj") {
		t.Error("got the token active, want it revoked")
	}
}

// CA-33 on one node, and CL-18: one request succeeds. A 503 that committed nothing may be retried.
func TestPrivateKeyJWT_Replay_OneSucceeds(t *testing.T) {
	b := newStrongBench(t)
	raw := b.assertion(t, "cj", "once", nil)
	for i, want := range []int{200, 401, 401} {
		if got := b.revokeWith(assertionForm(raw)); got != want {
			t.Errorf("attempt %d: got %d, want %d", i, got, want)
		}
	}
	if w := b.do(call{path: pathIntrospect, body: assertionForm(raw)}); w.Code != 401 {
		t.Errorf("introspection with it: got %d, want 401", w.Code)
	}
	read := b.assertion(t, "cj", "read", nil)
	for i, want := range []int{200, 401} {
		if w := b.do(call{path: pathIntrospect, body: assertionForm(read)}); w.Code != want {
			t.Errorf("introspection %d: got %d %s, want %d", i, w.Code, w.Body, want)
		}
	}
	if got := b.revokeWith(assertionForm(read)); got != 401 {
		t.Errorf("revocation with an assertion of an introspection: got %d, want 401", got)
	}
	again := b.assertion(t, "cj", "again", nil)
	b.node.mu.Lock()
	b.node.fail = func(string) error { return revoked.ErrNoLeader }
	b.node.mu.Unlock()
	if got := b.revokeWith(assertionForm(again)); got != 503 {
		t.Fatalf("without a leader: got %d, want 503", got)
	}
	b.node.mu.Lock()
	b.node.fail = nil
	b.node.mu.Unlock()
	for i, want := range []int{200, 401} {
		if got := b.revokeWith(assertionForm(again)); got != want {
			t.Errorf("retry %d after a 503: got %d, want %d", i, got, want)
		}
	}
}

// CA-33: another encoding of a used assertion is the same use. An ECDSA signature has two valid
// forms (RFC 7518 section 3.4), and the holder of the key can sign the same claims again.
func TestPrivateKeyJWT_OtherEncoding_IsOneUse(t *testing.T) {
	b := newStrongBench(t)
	raw := b.assertion(t, "cj", "encoded", nil)
	cut := strings.LastIndex(raw, ".") + 1
	signature, err := base64.RawURLEncoding.DecodeString(raw[cut:])
	if err != nil {
		t.Fatal(err)
	}
	s := new(big.Int).SetBytes(signature[32:])
	s.Sub(elliptic.P256().Params().N, s).FillBytes(signature[32:])
	other := raw[:cut] + base64.RawURLEncoding.EncodeToString(signature)
	again := b.assertion(t, "cj", "encoded", map[string]any{"exp": b.now.Unix() + 90})
	if other == raw || again == raw {
		t.Fatal("got the same encoding, want another")
	}
	if got := b.revokeWith(assertionForm(other)); got != 200 {
		t.Errorf("the other encoding first: got %d, want 200: it verifies", got)
	}
	for what, encoded := range map[string]string{"the signature": raw, "the same": other, "another expiry": again} {
		for _, path := range []string{pathRevoke, pathIntrospect} {
			if w := b.do(call{path: path, body: assertionForm(encoded)}); w.Code != 401 {
				t.Errorf("%s at %s: got %d %s, want 401", what, path, w.Code, w.Body)
			}
		}
	}
}

// Errors of the OAuth endpoints and of /v1 contain the reason for which an assertion is refused, if
// the caller has signed it. Other callers do not get the reason.
func TestPrivateKeyJWT_Refused_SignerGetsReason(t *testing.T) {
	b := newStrongBench(t)
	forged := &strongBench{b.bench, newTrustedKey(t, "k1")}
	used := b.assertion(t, "root", "used", nil)
	if w := b.do(call{path: pathRevoke, body: assertionForm(used)}); w.Code != 200 {
		t.Fatalf("got %d %s, want 200", w.Code, w.Body)
	}
	hour := map[string]any{"exp": b.now.Unix() + 3600}
	const plain = "client authentication failed"
	for raw, want := range map[string]string{
		b.assertion(t, "root", "a", hour):                               "exp must be at most 10 minutes ahead",
		b.assertion(t, "root", "b", map[string]any{"aud": "https://x"}): "aud must be https://as.example alone",
		used:                                   "the assertion was used before; sign one for each request",
		forged.assertion(t, "root", "c", hour): "",
		b.assertion(t, "c1", "d", hour):        "", // c1 does not have keys
		b.assertion(t, "nobody", "e", hour):    "",
	} {
		for _, c := range []call{
			{path: pathRevoke, body: assertionForm(raw)}, {path: pathIntrospect, body: assertionForm(raw)},
			{method: "GET", path: "/v1/settings", auth: "Bearer " + raw, contentType: "-"}} {
			w := b.do(c)
			var body struct {
				Description string `json:"error_description"`
				Detail      string `json:"detail"`
			}
			if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil {
				t.Fatal(err)
			}
			description := plain
			if want != "" {
				description += ": " + want
			}
			if c.path == "/v1/settings" {
				description = want
			}
			if got := body.Description + body.Detail; w.Code != 401 || got != description {
				t.Errorf("%s: got %d %q, want 401 %q", c.path, w.Code, got, description)
			}
		}
	}
}

// If the record changes during the request, the request authenticates again with the same
// assertion.
func TestPrivateKeyJWT_RecordChanged_AuthenticatesAgain(t *testing.T) {
	b := newStrongBench(t)
	var used []revoked.AssertionUse
	b.node.onRevoke = func(_ context.Context, by revoked.Actor, _ revoked.Digest) error {
		if used = append(used, *by.Assertion); len(used) == 1 {
			return fmt.Errorf("%w: during the request", revoked.ErrActorChanged)
		}
		return nil
	}
	if got := b.revokeWith(assertionForm(b.assertion(t, "cj", "changed", nil))); got != 200 {
		t.Errorf("got %d, want 200", got)
	}
	if len(used) != 2 || used[0] != used[1] {
		t.Errorf("got uses %v, want the same use twice", used)
	}
}

// CA-34, CA-35: every attack of RFC 8725 gets 401, whether the request's token exists or not.
func TestPrivateKeyJWT_Attacks_Get401(t *testing.T) {
	b := newStrongBench(t)
	good := b.assertion(t, "cj", "attack", nil)
	parts := strings.Split(good, ".")
	forged := &strongBench{b.bench, newTrustedKey(t, "k1")}
	none := "eyJhbGciOiJub25lIn0." + parts[1] + "."
	for name, raw := range map[string]string{
		"alg none": none, "a stranger's key": forged.assertion(t, "cj", "attack", nil),
		"no signature": parts[0] + "." + parts[1] + ".",
		"not a JWT":    "x", "five parts": good + ".a.b",
		"another payload": parts[0] + "." + strings.Split(b.assertion(t, "cj", "x", nil), ".")[1] + "." + parts[2],
		"too long":        good + strings.Repeat("A", 9000),
	} {
		for _, path := range []string{pathRevoke, "/invoke/pub.oauth/revokeToken", pathIntrospect} {
			w := b.do(call{path: path, body: assertionForm(raw)})
			if w.Code != 401 || !strings.Contains(w.Body.String(), "invalid_client") ||
				w.Header().Get("WWW-Authenticate") == "" {
				t.Errorf("%s at %s: got %d %s, want 401", name, path, w.Code, w.Body)
			}
		}
		w := b.do(call{method: "GET", path: "/v1/clients", auth: "Bearer " + raw, contentType: "-"})
		if w.Code != 401 {
			t.Errorf("%s below /v1: got %d, want 401", name, w.Code)
		}
	}
	if !b.active(t, "ATj") {
		t.Error("after the attacks: got the token inactive, want it active")
	}
}

// More than one authentication method gets 400. An unknown type of assertion gets 401.
func TestPrivateKeyJWT_SeveralMethods_AreRefused(t *testing.T) {
	b := newStrongBench(t)
	raw := b.assertion(t, "cj", "c", nil)
	for name, c := range map[string]struct {
		call
		want int
	}{
		"with Basic":       {call{auth: as("c1"), body: assertionForm(raw)}, 400},
		"with a secret":    {call{body: assertionForm(raw, "client_secret", "x")}, 400},
		"without its type": {call{body: "token=ATj&client_assertion=" + raw}, 401},
		"a type alone":     {call{body: assertionForm("")}, 401},
		"SAML":             {call{body: assertionForm(raw, "client_assertion_type", "urn:x:saml2-bearer")}, 401},
		"twice":            {call{body: assertionForm(raw) + "&client_assertion=" + raw}, 400},
		"in the query":     {call{body: "token=ATj", header: nil}, 401},
	} {
		c.path = pathRevoke
		if name == "in the query" {
			c.path, c.want = pathRevoke+"?client_assertion="+raw+"&client_assertion_type="+url.QueryEscape(assertionType), 400
		}
		if w := b.do(c.call); w.Code != c.want {
			t.Errorf("%s: got %d %s, want %d", name, w.Code, w.Body, c.want)
		}
	}
	if got := b.revokeWith(assertionForm(raw)); got != 200 { // the refused calls did not use it up
		t.Errorf("afterwards: got %d, want 200", got)
	}
}

// Below /v1 the assertion is a bearer token. Both changes and reads use it up.
func TestPrivateKeyJWT_AdminAPI_AcceptsBearer(t *testing.T) {
	b := newStrongBench(t)
	get := func(raw string, header http.Header) int {
		return b.do(call{method: "GET", path: "/v1/settings", auth: "Bearer " + raw, contentType: "-", header: header}).Code
	}
	raw := b.assertion(t, "root", "v1", nil)
	for i, want := range []int{200, 401} {
		if got := get(raw, nil); got != want {
			t.Errorf("read %d: got %d, want %d", i, got, want)
		}
	}
	if got := get(b.assertion(t, "cj", "v2", nil), nil); got != 403 {
		t.Errorf("without the role: got %d, want 403", got)
	}
	name := http.Header{"Revoked-Client-Id": {"root"}}
	if got := get(b.assertion(t, "root", "v3", nil), name); got != 200 {
		t.Errorf("with its own name: got %d, want 200", got)
	}
	name.Set("Revoked-Client-Id", "admin")
	if got := get(b.assertion(t, "root", "v4", nil), name); got != 401 {
		t.Errorf("with another name: got %d, want 401", got)
	}
	raw = b.assertion(t, "root", "v5", nil)
	post := func() int {
		return b.do(call{path: "/v1/revocations", auth: "Bearer " + raw, contentType: "application/json",
			body: `{"subject":"alice"}`}).Code
	}
	for i, want := range []int{200, 401} {
		if got := post(); got != want {
			t.Errorf("cut-off %d: got %d, want %d", i, got, want)
		}
	}
	if w := b.do(call{path: "/v1/check", method: "GET", auth: "Bearer AT1", contentType: "-",
		header: http.Header{"Revoked-Authorization": {"Bearer " + b.assertion(t, "reader", "check", nil)}}}); w.Code != 401 {
		t.Errorf("forward authentication: got %d, want 401 for a token of another audience", w.Code)
	}
}

// A correct assertion passes while others guess. Guesses are limited like guesses of a secret.
func TestPrivateKeyJWT_Guesses_AreThrottled(t *testing.T) {
	b := newStrongBench(t, func(c *api.Config) { c.AuthFailuresPerMinute = 2 })
	forged := &strongBench{b.bench, newTrustedKey(t, "k1")}
	for i, want := range []int{401, 401, 429} {
		if got := b.revokeWith(assertionForm(forged.assertion(t, "cj", fmt.Sprint("guess", i), nil))); got != want {
			t.Errorf("guess %d: got %d, want %d", i, got, want)
		}
	}
	if got := b.revokeWith(assertionForm(b.assertion(t, "cj", "right", nil))); got != 200 {
		t.Errorf("the right one: got %d, want 200", got)
	}
}

// A ca issues certificates of callers.
type ca struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newCA(t testing.TB) *ca {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &ca{key: k}
	c.cert = c.sign(t, caTemplate("ca"), k)
	return c
}

// caTemplate returns the template of a CA's certificate.
func caTemplate(name string) *x509.Certificate {
	return &x509.Certificate{Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign}
}

// sign completes a template. Without a certificate of its own the CA signs itself.
func (c *ca) sign(t testing.TB, template *x509.Certificate, key *ecdsa.PrivateKey) *x509.Certificate {
	t.Helper()
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	if template.NotAfter.IsZero() {
		template.NotBefore, template.NotAfter = time.Unix(1_789_000_000, 0), time.Unix(1_791_000_000, 0)
	}
	parent := c.cert
	if parent == nil {
		parent = template
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), c.key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func (c *ca) client(t testing.TB, change func(*x509.Certificate)) *x509.Certificate {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{Subject: pkix.Name{CommonName: "cm", Organization: []string{"Example"}},
		DNSNames: []string{"cm.example"}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}}
	if change != nil {
		change(template)
	}
	return c.sign(t, template, k)
}

func (c *ca) pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(c.cert)
	return p
}

func tlsClient(id string, kind revoked.SubjectKind, value string, roles ...revoked.Role) revoked.Client {
	return revoked.Client{ID: id, Roles: roles, AuthMethods: []string{revoked.AuthTLS},
		Subject: revoked.CertificateSubject{Kind: kind, Value: value}}
}

// CA-39, CA-41 and CA-42: a caller authenticates by a certificate of a CA. OW-15: headers are
// ignored.
func TestTLSClientAuth_Certificate_MustMatchRecord(t *testing.T) {
	authority, stranger := newCA(t), newCA(t)
	pool := authority.pool()
	b := newStrongBench(t, func(c *api.Config) {
		c.ClientCAs = func() *x509.CertPool { return pool }
		c.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("198.51.100.0/24")}
	})
	b.node.put(tlsClient("cm", revoked.SubjectDN, "CN=cm,O=Example"), tlsClient("cn", revoked.SubjectDNS, "cm.example"),
		tlsClient("top", revoked.SubjectDNS, "cm.example", revoked.RoleAdmin))
	b.pair(t, "m", "cm")
	good := authority.client(t, nil)
	other := authority.client(t, func(c *x509.Certificate) { c.Subject.CommonName = "other" })
	expired := authority.client(t, func(c *x509.Certificate) {
		c.NotBefore, c.NotAfter = time.Unix(1_780_000_000, 0), time.Unix(1_790_000_000, 0)
	})
	server := authority.client(t, func(c *x509.Certificate) {
		c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	})
	list := func(c *x509.Certificate) []*x509.Certificate { return []*x509.Certificate{c} }
	pem := http.Header{"X-Ssl-Client-Cert": {"x"}, "X-Client-Id": {"cm"}, "X-Forwarded-Client-Cert": {"Subject=\"CN=cm\""}}
	for name, tt := range map[string]struct {
		call
		want int
	}{
		"CA-39":                      {call{body: "client_id=cm&token=ATm", certs: list(good)}, 200},
		"the host name":              {call{body: "client_id=cn&token=x", certs: list(good)}, 200},
		"CA-41 another subject":      {call{body: "client_id=cm&token=x", certs: list(other)}, 401},
		"CA-41 untrusted CA":         {call{body: "client_id=cm&token=x", certs: list(stranger.client(t, nil))}, 401},
		"CA-41 none":                 {call{body: "client_id=cm&token=x"}, 401},
		"CA-41 headers of a proxy":   {call{body: "client_id=cm&token=x", header: pem}, 401},
		"expired":                    {call{body: "client_id=cm&token=x", certs: list(expired)}, 401},
		"a certificate for servers":  {call{body: "client_id=cm&token=x", certs: list(server)}, 401},
		"without client_id":          {call{body: "token=x", certs: list(good)}, 401},
		"an unknown client":          {call{body: "client_id=nobody&token=x", certs: list(good)}, 401},
		"without the method":         {call{body: "client_id=c1&token=x", certs: list(good)}, 401},
		"a public client":            {call{body: "client_id=pub1&token=x", certs: list(good)}, 401},
		"through a trusted proxy":    {call{body: "client_id=cm&token=x", certs: list(good), remote: "198.51.100.7:1"}, 401},
		"CA-42 Basic, too":           {call{body: "token=x", auth: as("c1"), certs: list(good)}, 200},
		"a secret, too":              {call{body: "client_id=c1&client_secret=c1-secret&token=x", certs: list(good)}, 200},
		"a wrong secret, too":        {call{body: "client_id=cm&client_secret=wrong&token=x", certs: list(good)}, 401},
		"an assertion, too":          {call{body: assertionForm(b.assertion(t, "cj", "tls", nil)), certs: list(good)}, 200},
		"Basic of another client":    {call{body: "client_id=cm&token=x", auth: as("c1"), certs: list(good)}, 400},
		"a bearer token, too":        {call{body: "client_id=cm&token=x", auth: "Bearer x", certs: list(good)}, 200},
		"an unsupported header":      {call{body: "client_id=cm&token=x", auth: "Digest x", certs: list(good)}, 401},
		"plain HTTP (refused as is)": {call{body: "client_id=cm&token=x", plain: true}, 400},
	} {
		tt.path = pathRevoke
		if w := b.do(tt.call); w.Code != tt.want {
			t.Errorf("%s: got %d %s, want %d", name, w.Code, w.Body, tt.want)
		}
	}
	if w := b.do(call{path: pathIntrospect, body: "client_id=cm&token=ATm", certs: list(good)}); w.Code != 200 {
		t.Errorf("introspection: got %d %s, want 200", w.Code, w.Body)
	}
	for name, tt := range map[string]struct {
		header http.Header
		certs  []*x509.Certificate
		auth   string
		want   int
	}{
		"below /v1":       {http.Header{"Revoked-Client-Id": {"top"}}, list(good), "", 200},
		"without a name":  {nil, list(good), "", 401},
		"without a cert":  {http.Header{"Revoked-Client-Id": {"top"}}, nil, "", 401},
		"without a role":  {http.Header{"Revoked-Client-Id": {"cm"}}, list(good), "", 403},
		"two names":       {http.Header{"Revoked-Client-Id": {"top", "cm"}}, list(good), "", 400},
		"Basic, same id":  {http.Header{"Revoked-Client-Id": {"admin"}}, list(good), as("admin"), 200},
		"Basic, other id": {http.Header{"Revoked-Client-Id": {"top"}}, list(good), as("admin"), 400},
	} {
		w := b.do(call{method: "GET", path: "/v1/settings", header: tt.header, certs: tt.certs, auth: tt.auth,
			contentType: "-"})
		if w.Code != tt.want {
			t.Errorf("%s: got %d %s, want %d", name, w.Code, w.Body, tt.want)
		}
	}
	pool = stranger.pool() // the file of the CAs has changed
	if w := b.do(call{path: pathRevoke, body: "client_id=cm&token=x", certs: list(good)}); w.Code != 401 {
		t.Errorf("after a change of the CAs: got %d, want 401", w.Code)
	}
	if strings.Contains(b.log.String(), "BEGIN CERTIFICATE") {
		t.Error("got a certificate in the log, want none")
	}
}

// Self-signed certificates authenticate by their key, and only without CAs.
func TestSelfSignedTLSClientAuth_Key_MustMatch(t *testing.T) {
	var pool *x509.CertPool
	b := newStrongBench(t, func(c *api.Config) { c.ClientCAs = func() *x509.CertPool { return pool } })
	self, other := newCA(t), newCA(t)
	set := jwks(t, trustedKey{self.key, "cert"})
	keys, err := jwt.ParseInline([]byte(set))
	if err != nil {
		t.Fatal(err)
	}
	b.node.put(revoked.Client{ID: "cs", AuthMethods: []string{revoked.AuthSelfSigned}, Keys: keys},
		tlsClient("cm", revoked.SubjectDN, "CN=ca"))
	try := func(id string, cert *x509.Certificate) int {
		return b.do(call{path: pathRevoke, body: "client_id=" + id + "&token=x", certs: []*x509.Certificate{cert}}).Code
	}
	old := &x509.Certificate{NotBefore: time.Unix(1_780_000_000, 0), NotAfter: time.Unix(1_790_000_000, 0)}
	for name, tt := range map[string]struct {
		id   string
		cert *x509.Certificate
		want int
	}{
		"its key":                        {"cs", self.cert, 200},
		"its key in another certificate": {"cs", other.sign(t, &x509.Certificate{}, self.key), 200},
		"another key":                    {"cs", other.cert, 401}, "expired": {"cs", self.sign(t, old, self.key), 401},
		"a subject without a CA": {"cm", self.cert, 401}, "keys of another client": {"cj", self.cert, 401},
	} {
		if got := try(tt.id, tt.cert); got != tt.want {
			t.Errorf("%s: got %d, want %d", name, got, tt.want)
		}
	}
	pool = self.pool()
	if got := try("cs", self.cert); got != 401 {
		t.Errorf("with a CA: got %d, want 401", got)
	}
}

// MD-04, MD-05: the metadata document lists the methods that a node accepts.
func TestMetadata_Methods_FollowTheCAs(t *testing.T) {
	pool := x509.NewCertPool()
	for want, change := range map[string]func(*api.Config){
		revoked.AuthSelfSigned: func(*api.Config) {},
		revoked.AuthTLS:        func(c *api.Config) { c.ClientCAs = func() *x509.CertPool { return pool } },
	} {
		var doc map[string]any
		w := newBench(t, change).do(call{method: "GET", path: "/.well-known/oauth-authorization-server", contentType: "-"})
		if err := json.Unmarshal(w.Body.Bytes(), &doc); err != nil {
			t.Fatal(err)
		}
		for _, endpoint := range []string{"revocation", "introspection"} {
			got := fmt.Sprint(doc[endpoint+"_endpoint_auth_methods_supported"])
			if got != "[client_secret_basic client_secret_post private_key_jwt "+want+"]" {
				t.Errorf("%s: got %s, want %s", endpoint, got, want)
			}
			algorithms := fmt.Sprint(doc[endpoint+"_endpoint_auth_signing_alg_values_supported"])
			if algorithms != fmt.Sprint(revoked.SignatureAlgorithms()) || strings.Contains(algorithms, "none") {
				t.Errorf("%s: got algorithms %s, want those of revoked, without none", endpoint, algorithms)
			}
		}
	}
}
