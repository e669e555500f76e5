package revoked

import (
	"crypto/x509"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// A SubjectKind is the part of a certificate that names a client (RFC 8705 section 2.1.2). The
// numbers are part of stored records.
type SubjectKind uint8

// The kinds.
const (
	SubjectDN    SubjectKind = 1 // the whole subject, as a distinguished name of RFC 4514
	SubjectDNS   SubjectKind = 2 // a dNSName of the subject alternative names
	SubjectURI   SubjectKind = 3
	SubjectIP    SubjectKind = 4
	SubjectEmail SubjectKind = 5
)

// subjectKinds are the names of the kinds in a client record.
var subjectKinds = [...]string{
	SubjectDN:    "tls_client_auth_subject_dn",
	SubjectDNS:   "tls_client_auth_san_dns",
	SubjectURI:   "tls_client_auth_san_uri",
	SubjectIP:    "tls_client_auth_san_ip",
	SubjectEmail: "tls_client_auth_san_email",
}

// SubjectKinds returns all kinds.
func SubjectKinds() []SubjectKind {
	return []SubjectKind{SubjectDN, SubjectDNS, SubjectURI, SubjectIP, SubjectEmail}
}

// Name returns the name of the kind in a client record, or "" for an unknown kind.
func (k SubjectKind) Name() string {
	if int(k) < len(subjectKinds) {
		return subjectKinds[k]
	}
	return ""
}

// subjectNames lists the names of the kinds for messages.
func subjectNames() string { return strings.Join(subjectKinds[SubjectDN:], ", ") }

// MaxSubject is the maximum length of the Value of a CertificateSubject, in bytes.
const MaxSubject = 1024

// A CertificateSubject names the certificate of one client. The zero value does not name a
// certificate.
type CertificateSubject struct {
	Kind  SubjectKind
	Value string
}

// validate returns an error that wraps ErrInvalid unless s is zero or well formed. A value must
// have the form in which Matches compares it, because any other value would never match.
func (s CertificateSubject) validate() error {
	if s == (CertificateSubject{}) {
		return nil
	}
	name := s.Kind.Name()
	if name == "" || len(s.Value) > MaxSubject {
		return fmt.Errorf("%w: %s: wrong length (got %d bytes, want 1 to %d)", ErrInvalid, name, len(s.Value), MaxSubject)
	}
	if err := checkPlain(name, s.Value); err != nil {
		return err
	}
	want := ""
	switch s.Kind {
	case SubjectDN:
		if _, err := ParseDN(s.Value); err != nil {
			return fmt.Errorf("%w: %s: %w", ErrInvalid, name, err)
		}
	case SubjectDNS:
		if !isHostName(s.Value) {
			want = "a host name, without a wildcard"
		}
	case SubjectURI:
		if u, err := url.Parse(s.Value); err != nil || u.Scheme == "" || u.String() != s.Value {
			want = "an absolute URI"
		}
	case SubjectIP:
		if _, err := netip.ParseAddr(s.Value); err != nil || strings.Contains(s.Value, "%") {
			want = "an IPv4 or IPv6 address"
		}
	case SubjectEmail:
		local, domain, ok := strings.Cut(s.Value, "@")
		if !ok || local == "" || !isHostName(domain) {
			want = "an address such as name@host.example"
		}
	}
	if want != "" {
		return fmt.Errorf("%w: %s: want %s", ErrInvalid, name, want)
	}
	return nil
}

// isHostName reports whether s consists of labels of letters, digits, hyphens and underscores.
func isHostName(s string) bool {
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 || strings.ContainsFunc(label, func(r rune) bool {
			return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' && r != '_'
		}) {
			return false
		}
	}
	return len(s) <= 253
}

// Matches reports whether s names the certificate. It checks neither the chain nor the validity of
// the certificate. The comparison ignores case in host names and in the host of an email address. A
// wildcard in a certificate matches nothing.
func (s CertificateSubject) Matches(cert *x509.Certificate) bool {
	switch s.Kind {
	case SubjectDN:
		want, err := ParseDN(s.Value)
		if err != nil {
			return false
		}
		got, err := DNOf(cert.RawSubject)
		return err == nil && want.Equal(got)
	case SubjectDNS:
		for _, name := range cert.DNSNames {
			if strings.EqualFold(name, s.Value) && isHostName(name) {
				return true
			}
		}
	case SubjectURI:
		for _, u := range cert.URIs {
			if u.String() == s.Value {
				return true
			}
		}
	case SubjectIP:
		want, err := netip.ParseAddr(s.Value)
		for _, ip := range cert.IPAddresses {
			if addr, ok := netip.AddrFromSlice(ip); ok && err == nil && addr.Unmap() == want.Unmap() {
				return true
			}
		}
	case SubjectEmail:
		local, domain, _ := strings.Cut(s.Value, "@")
		for _, address := range cert.EmailAddresses {
			l, d, ok := strings.Cut(address, "@")
			if ok && l == local && strings.EqualFold(d, domain) && isHostName(d) {
				return true
			}
		}
	}
	return false
}

// A DN is a distinguished name in the order of RFC 4514: the most specific part comes first. Two
// names are equal if all their parts are equal. Values are compared exactly, which is stricter than
// RFC 4517: names that differ only in case are different.
type DN []rdn

// An rdn is one part of a DN: its attributes in the order of their types, usually just one.
type rdn []attribute

type attribute struct {
	oid   string // OID of the type
	value string // text, or the DER of a value that is not text
	text  bool
}

// Equal reports whether two names are equal.
func (d DN) Equal(other DN) bool {
	return slices.EqualFunc(d, other, func(a, b rdn) bool { return slices.Equal(a, b) })
}

// attributeTypes maps short names of attribute types, in upper case, to their OIDs. RFC 4514
// section 3 defines the first nine. Common tools print the others.
var attributeTypes = map[string]string{
	"CN": "2.5.4.3", "L": "2.5.4.7", "ST": "2.5.4.8", "O": "2.5.4.10", "OU": "2.5.4.11", "C": "2.5.4.6",
	"STREET": "2.5.4.9", "DC": "0.9.2342.19200300.100.1.25", "UID": "0.9.2342.19200300.100.1.1",
	"SN": "2.5.4.4", "GN": "2.5.4.42", "SERIALNUMBER": "2.5.4.5", "TITLE": "2.5.4.12", "POSTALCODE": "2.5.4.17",
	"EMAILADDRESS": "1.2.840.113549.1.9.1", "ORGANIZATIONIDENTIFIER": "2.5.4.97",
}

// maxRDNs bounds the parts of a name, and the attributes of a part.
const maxRDNs = 32

// errDN is returned for a text that is not a distinguished name. It does not quote the text.
var errDN = errors.New("want a distinguished name of RFC 4514, such as CN=app,O=Example")

// ParseDN parses the text form of RFC 4514. Like RFC 2253, it accepts spaces around the separators.
// It rejects the empty name, which would match every certificate without a subject.
func ParseDN(s string) (DN, error) {
	var d DN
	var part rdn
	for {
		a, rest, err := parseAttribute(s)
		if err != nil {
			return nil, err
		}
		if part = append(part, a); len(part) > maxRDNs || len(d) >= maxRDNs {
			return nil, fmt.Errorf("%w: too many parts", errDN)
		}
		if strings.HasPrefix(rest, "+") {
			s = rest[1:]
			continue
		}
		part.sort()
		d, part = append(d, part), nil
		if rest == "" {
			return d, nil
		}
		s = rest[1:]
	}
}

func (r rdn) sort() {
	slices.SortFunc(r, func(a, b attribute) int {
		return strings.Compare(a.oid+"="+a.value, b.oid+"="+b.value)
	})
}

// parseAttribute parses one attribute. rest is empty or begins with the separator that follows.
func parseAttribute(s string) (a attribute, rest string, err error) {
	name, s, ok := strings.Cut(s, "=")
	name = strings.Trim(name, " ")
	if !ok || name == "" {
		return a, "", errDN
	}
	switch oid, known := attributeTypes[strings.ToUpper(name)]; {
	case known:
		a.oid = oid
	case isOID(name):
		a.oid = name
	default:
		return a, "", fmt.Errorf("%w: unknown attribute type: use its OID", errDN)
	}
	s = strings.TrimLeft(s, " ")
	if strings.HasPrefix(s, "#") {
		end := strings.IndexAny(s, ",+")
		if end < 0 {
			end = len(s)
		}
		der, err := hex.DecodeString(strings.TrimRight(s[1:end], " "))
		if err != nil || len(der) == 0 {
			return a, "", fmt.Errorf("%w: invalid hexadecimal value", errDN)
		}
		a.value, a.text = textOf(der)
		return a, s[end:], nil
	}
	a.text = true
	a.value, rest, err = parseValue(s)
	return a, rest, err
}

// parseValue parses a value up to an unescaped separator. It drops unescaped spaces at the end.
func parseValue(s string) (value, rest string, err error) {
	var b []byte
	kept := 0 // the length of b up to the last byte that is not an unescaped space
	for i := 0; i < len(s); i++ {
		switch c := s[i]; c {
		case ',', '+':
			return finishValue(b[:kept], s[i:])
		case '"', ';', '<', '>', 0:
			return "", "", fmt.Errorf("%w: a special character is not escaped", errDN)
		case ' ':
			b = append(b, c)
			continue
		case '\\':
			plain, n := unescape(s[i+1:])
			if n == 0 {
				return "", "", fmt.Errorf("%w: invalid escape", errDN)
			}
			b = append(b, plain)
			i += n
		default:
			b = append(b, c)
		}
		kept = len(b)
	}
	return finishValue(b[:kept], "")
}

func finishValue(b []byte, rest string) (string, string, error) {
	if len(b) == 0 || !utf8.Valid(b) {
		return "", "", fmt.Errorf("%w: a value is empty or not UTF-8", errDN)
	}
	return string(b), rest, nil
}

// unescape returns the byte that an escape encodes, and the number of characters that the escape
// has after its backslash. The number is 0 for an invalid escape.
func unescape(s string) (b byte, n int) {
	if s != "" && strings.IndexByte(` "#+,;<=>\`, s[0]) >= 0 {
		return s[0], 1
	}
	if len(s) >= 2 {
		if pair, err := hex.DecodeString(s[:2]); err == nil {
			return pair[0], 2
		}
	}
	return 0, 0
}

// isOID reports whether s is an object identifier in dotted decimal.
func isOID(s string) bool {
	arcs := 0
	for arc := range strings.SplitSeq(s, ".") {
		if arc == "" || len(arc) > 1 && arc[0] == '0' || strings.Trim(arc, "0123456789") != "" {
			return false
		}
		arcs++
	}
	return arcs >= 2
}

// DNOf parses the DER of a Name (RFC 5280 section 4.1.2.4), as in RawSubject of a certificate.
func DNOf(der []byte) (DN, error) {
	type pair struct {
		Type  asn1.ObjectIdentifier
		Value asn1.RawValue
	}
	type set []pair
	var parts []asn1.RawValue
	if rest, err := asn1.Unmarshal(der, &parts); err != nil || len(rest) > 0 {
		return nil, errDN
	}
	if len(parts) > maxRDNs {
		return nil, errDN
	}
	var d DN
	for _, part := range slices.Backward(parts) {
		var pairs set
		rest, err := asn1.UnmarshalWithParams(part.FullBytes, &pairs, "set")
		if err != nil || len(rest) > 0 || len(pairs) > maxRDNs {
			return nil, errDN
		}
		var r rdn
		for _, p := range pairs {
			a := attribute{oid: p.Type.String()}
			a.value, a.text = textOf(p.Value.FullBytes)
			r = append(r, a)
		}
		r.sort()
		d = append(d, r)
	}
	return d, nil
}

// textOf returns the text of a DER string. For any other value it returns the DER itself, and
// false.
func textOf(der []byte) (value string, text bool) {
	var v asn1.RawValue
	rest, err := asn1.Unmarshal(der, &v)
	if err != nil || len(rest) > 0 || v.Class != asn1.ClassUniversal || v.IsCompound {
		return string(der), false
	}
	switch v.Tag {
	case asn1.TagUTF8String, asn1.TagPrintableString, asn1.TagIA5String, asn1.TagNumericString:
		if utf8.Valid(v.Bytes) {
			return string(v.Bytes), true
		}
	case asn1.TagBMPString:
		if len(v.Bytes)%2 == 0 {
			units := make([]uint16, 0, len(v.Bytes)/2)
			for i := 0; i < len(v.Bytes); i += 2 {
				units = append(units, uint16(v.Bytes[i])<<8|uint16(v.Bytes[i+1]))
			}
			return string(utf16.Decode(units)), true
		}
	}
	return string(der), false
}
