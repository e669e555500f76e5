package revoked_test

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"net"
	"net/url"
	"testing"

	"revoked"
)

func subject(kind revoked.SubjectKind, value string) *revoked.Client {
	return &revoked.Client{ID: "app", Type: revoked.Confidential, AuthMethods: []string{revoked.AuthTLS},
		Subject: revoked.CertificateSubject{Kind: kind, Value: value}}
}

func TestValidateClient_CertificateSubject_IsChecked(t *testing.T) {
	for _, tt := range []struct {
		kind  revoked.SubjectKind
		value string
		ok    bool
	}{
		{revoked.SubjectDN, "CN=app,O=Example", true}, {revoked.SubjectDN, "app", false}, {revoked.SubjectDN, "", false},
		{revoked.SubjectDN, "CN=a\nb", false},
		{revoked.SubjectDNS, "app.example", true}, {revoked.SubjectDNS, "*.example", false},
		{revoked.SubjectDNS, "app..example", false}, {revoked.SubjectDNS, "a b", false},
		{revoked.SubjectURI, "spiffe://example.org/app", true}, {revoked.SubjectURI, "app", false},
		{revoked.SubjectIP, "192.0.2.1", true}, {revoked.SubjectIP, "2001:db8::1", true},
		{revoked.SubjectIP, "fe80::1%eth0", false}, {revoked.SubjectIP, "192.0.2.0/24", false},
		{revoked.SubjectEmail, "app@example.org", true}, {revoked.SubjectEmail, "app", false},
		{revoked.SubjectEmail, "@example.org", false}, {0, "x", false},
	} {
		err := revoked.ValidateClient(subject(tt.kind, tt.value))
		if tt.ok && err != nil || !tt.ok && !errors.Is(err, revoked.ErrInvalid) && !errors.Is(err, revoked.ErrUnprocessable) {
			t.Errorf("kind %d, %q: got %v, want valid %v", tt.kind, tt.value, err, tt.ok)
		}
	}
}

// certificate returns a certificate with one name of each kind.
func certificate(t *testing.T) *x509.Certificate {
	t.Helper()
	raw, err := asn1.Marshal(pkix.Name{CommonName: "App", Organization: []string{"Example, Inc."}}.ToRDNSequence())
	if err != nil {
		t.Fatal(err)
	}
	uri, _ := url.Parse("spiffe://example.org/app")
	return &x509.Certificate{
		RawSubject: raw, DNSNames: []string{"other.example", "App.Example", "*.wild.example"}, URIs: []*url.URL{uri},
		IPAddresses:    []net.IP{net.ParseIP("192.0.2.1"), net.ParseIP("2001:db8::1")},
		EmailAddresses: []string{"App@Example.org"},
	}
}

func TestCertificateSubject_Matches_ExactlyOneName(t *testing.T) {
	cert := certificate(t)
	for _, tt := range []struct {
		kind  revoked.SubjectKind
		value string
		want  bool
	}{
		{revoked.SubjectDN, `CN=App,O=Example\, Inc.`, true}, {revoked.SubjectDN, `cn=App, o=Example\2C Inc.`, true},
		{revoked.SubjectDN, `2.5.4.3=App,O=Example\, Inc.`, true}, {revoked.SubjectDN, `CN=app,O=Example\, Inc.`, false},
		{revoked.SubjectDN, `O=Example\, Inc.,CN=App`, false}, {revoked.SubjectDN, "CN=App", false},
		{revoked.SubjectDN, `CN=App+O=Example\, Inc.`, false}, {revoked.SubjectDN, `OU=x,CN=App,O=Example\, Inc.`, false},
		{revoked.SubjectDNS, "app.example", true}, {revoked.SubjectDNS, "example", false},
		{revoked.SubjectDNS, "a.wild.example", false}, {revoked.SubjectDNS, "App", false},
		{revoked.SubjectURI, "spiffe://example.org/app", true}, {revoked.SubjectURI, "spiffe://example.org/app/", false},
		{revoked.SubjectIP, "192.0.2.1", true}, {revoked.SubjectIP, "::ffff:192.0.2.1", true},
		{revoked.SubjectIP, "2001:db8:0:0::1", true}, {revoked.SubjectIP, "192.0.2.2", false},
		{revoked.SubjectEmail, "App@example.ORG", true}, {revoked.SubjectEmail, "app@example.org", false},
		{0, "", false},
	} {
		s := revoked.CertificateSubject{Kind: tt.kind, Value: tt.value}
		if got := s.Matches(cert); got != tt.want {
			t.Errorf("kind %d, %q: got %v, want %v", tt.kind, tt.value, got, tt.want)
		}
		if s.Matches(&x509.Certificate{}) {
			t.Errorf("kind %d, %q: got a match with an empty certificate", tt.kind, tt.value)
		}
	}
}

// The names are the examples of RFC 4514 section 4.
func TestParseDN_Examples(t *testing.T) {
	name := func(set ...pkix.RelativeDistinguishedNameSET) revoked.DN {
		t.Helper()
		der, err := asn1.Marshal(pkix.RDNSequence(set))
		if err != nil {
			t.Fatal(err)
		}
		d, err := revoked.DNOf(der)
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	type set = pkix.RelativeDistinguishedNameSET
	attr := func(value any, oid ...int) pkix.AttributeTypeAndValue {
		return pkix.AttributeTypeAndValue{Type: oid, Value: value}
	}
	dc := func(s string) set { return set{attr(s, 0, 9, 2342, 19200300, 100, 1, 25)} }
	cn := func(s string) set { return set{attr(s, 2, 5, 4, 3)} }
	for text, want := range map[string]revoked.DN{
		"UID=jsmith,DC=example,DC=net": name(dc("net"), dc("example"), set{attr("jsmith", 0, 9, 2342, 19200300, 100, 1, 1)}),
		"OU=Sales+CN=J.  Smith,DC=net": name(dc("net"), set{attr("J.  Smith", 2, 5, 4, 3), attr("Sales", 2, 5, 4, 11)}),
		`CN=James \"Jim\" Smith\, III`: name(cn(`James "Jim" Smith, III`)),
		`CN=Before\0dAfter`:            name(cn("Before\rAfter")),
		"1.3.6.1.4.1.1466.0=#04024869": name(set{attr([]byte("Hi"), 1, 3, 6, 1, 4, 1, 1466, 0)}),
		`CN=Lu\C4\8Di\C4\87`:           name(cn("Lučić")),
		`CN = \ a b\  , DC = net`:      name(dc("net"), cn(" a b ")),
		"CN=#0C0141":                   name(cn("A")),
	} {
		got, err := revoked.ParseDN(text)
		if err != nil || !got.Equal(want) {
			t.Errorf("%s: got %v, %v, want %v", text, got, err, want)
		}
	}
	for _, text := range []string{
		"", "CN", "CN=", "=a", "CN=a,", "CN=a+", ",CN=a", "CN=a;b", `CN=a\`, `CN=a\x`, "CN=#", "CN=#0", "CN=#zz", "XX=a",
		"1=a", "01.2=a", `CN="a"`, "CN=a<b", "CN=\xff", `CN=\ff`, "CN=a\x00",
	} {
		if got, err := revoked.ParseDN(text); err == nil {
			t.Errorf("%q: got %v, want an error", text, got)
		}
	}
}

func FuzzParseDN(f *testing.F) {
	for _, s := range []string{"CN=a,O=b", "cn=a+ou=b", `CN=\,`, "CN=#0C0141", "1.2=x", " CN = a ", `CN=\41`} {
		f.Add(s, []byte{0x30, 0})
	}
	f.Fuzz(func(t *testing.T, s string, der []byte) {
		d, err := revoked.ParseDN(s)
		if err == nil && (len(d) == 0 || !d.Equal(d)) {
			t.Errorf("%q: got %v, want a name", s, d)
		}
		other, err2 := revoked.DNOf(der)
		if err == nil && err2 == nil && d.Equal(other) != other.Equal(d) {
			t.Errorf("%q and %x: equality is not symmetric", s, der)
		}
	})
}
