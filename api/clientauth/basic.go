package clientauth

import (
	"encoding/base64"
	"net/url"
	"slices"
	"strings"
)

// A Credential is a client id with a secret: one possible decoding of what a caller sent.
type Credential struct{ ID, Secret string }

const (
	maxBasic     = 8 << 10 // bytes of base64
	maxDecodings = 3       // decodings per id and per secret: nine pairs at most
)

// ParseBasic returns the candidates for the value of an Authorization header of scheme Basic. It
// returns nil if the scheme differs or the value is malformed.
//
// Clients encode id and secret independently: form-encoded (RFC 6749 section 2.3.1),
// percent-encoded, with only the colon escaped, or raw. ParseBasic pairs every decoding of the id
// with every decoding of the secret. The standard's pair comes first, pairs of one id are adjacent,
// and no pair is repeated. A raw secret may contain colons, so the first colon separates the two.
func ParseBasic(header string) []Credential {
	scheme, param, _ := strings.Cut(header, " ")
	param = strings.Trim(param, " \t")
	if !strings.EqualFold(scheme, "Basic") || len(param) > maxBasic {
		return nil
	}
	var buf [256]byte // long enough for all but the longest credentials
	b, err := base64.StdEncoding.AppendDecode(buf[:0], []byte(param))
	if err != nil {
		if b, err = base64.RawStdEncoding.AppendDecode(buf[:0], []byte(param)); err != nil {
			return nil
		}
	}
	id, secret, ok := strings.Cut(string(b), ":")
	clear(b)
	if !ok || id == "" || secret == "" {
		return nil
	}
	if !strings.ContainsAny(id, "%+") && !strings.ContainsAny(secret, "%+") {
		return []Credential{{id, secret}} // most callers: one allocation
	}
	secrets := decodings(secret)
	candidates := make([]Credential, 0, maxDecodings*maxDecodings)
	for _, i := range decodings(id) {
		for _, s := range secrets {
			candidates = append(candidates, Credential{i, s})
		}
	}
	return candidates
}

// Names reports whether a candidate names the client. It returns true without candidates, because
// malformed credentials do not name another client.
func Names(candidates []Credential, id string) bool {
	return len(candidates) == 0 ||
		slices.ContainsFunc(candidates, func(c Credential) bool { return c.ID == id })
}

// decodings returns the distinct texts that s may encode, the standard's first. All four differ
// only if s has a plus sign, an escaped colon and another escape. In that case it drops the text in
// which only the colon is unescaped.
func decodings(s string) []string {
	list := make([]string, 0, maxDecodings)
	add := func(t string, err error) {
		if err == nil && len(list) < maxDecodings && !slices.Contains(list, t) {
			list = append(list, t)
		}
	}
	add(url.QueryUnescape(s))
	add(url.PathUnescape(s))
	add(s, nil)
	add(strings.NewReplacer("%3A", ":", "%3a", ":").Replace(s), nil)
	return list
}
