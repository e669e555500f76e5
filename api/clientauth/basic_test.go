package clientauth_test

import (
	"encoding/base64"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"

	"revoked/api/clientauth"
)

func parse(param string) []clientauth.Credential { return clientauth.ParseBasic("Basic " + param) }

func encode(pair string) string { return base64.StdEncoding.EncodeToString([]byte(pair)) }

func TestParseBasic_EachEncoding_IsFound(t *testing.T) {
	percent := func(s string) string {
		var b strings.Builder
		for i := range len(s) {
			fmt.Fprintf(&b, "%%%02X", s[i])
		}
		return b.String()
	}
	encodings := map[string]func(string) string{
		"form-encoded": url.QueryEscape, "percent-encoded": percent, "path-escaped": url.PathEscape,
		"raw": func(s string) string { return s }, "only the colon escaped": strings.NewReplacer(":", "%3A").Replace,
	}
	names := []string{"app", "a b", "a+b", "50%", "a%41", "a:b", "a+b c%2F", "100%25:x", "a+b:c", "ü/ö", "+", "%"}
	for _, id := range names {
		for _, secret := range names {
			for how, encodeID := range encodings {
				for howSecret, encodeSecret := range encodings {
					encoded := encodeID(id)
					if strings.Contains(encoded, ":") {
						continue // this id cannot be sent raw
					}
					got := parse(encode(encoded + ":" + encodeSecret(secret)))
					want := clientauth.Credential{ID: id, Secret: secret}
					if !slices.Contains(got, want) {
						t.Errorf("id %q %s, secret %q %s: got %q, want the pair among them", id, how, secret, howSecret, got)
					}
				}
			}
		}
	}
}

func TestParseBasic_OtherHeader_ReturnsNoCandidate(t *testing.T) {
	for _, header := range []string{
		"", "Basic", "Basic ", "Bearer " + encode("a:b"), "Basic " + encode("ab"), "Basic " + encode(":b"),
		"Basic " + encode("a:"), "Basic !", "Basic " + strings.Repeat("YTpi", 2049),
	} {
		if got := clientauth.ParseBasic(header); got != nil {
			t.Errorf("%.40q: got %q, want no candidate", header, got)
		}
	}
}

func FuzzParseBasic(f *testing.F) {
	for _, s := range []string{
		"Y2wlM0FpZW50OnMlMjVjJTJCcit0", "Y2w6aWVudDpzJWMrciB0", "!!!", "", "YWJj", "Og==", "YTo=", "czNCOnMlM0Erci8=",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, param string) {
		list := parse(param)
		if len(list) > 9 {
			t.Errorf("%q: got %d candidates, want at most 9", param, len(list))
		}
		blocks := 0
		ids := map[string]bool{}
		for i, c := range list {
			if c.ID == "" || c.Secret == "" || len(c.ID)+len(c.Secret) > len(param) {
				t.Errorf("%q: got candidate %q, want two texts out of the header", param, c)
			}
			if slices.Contains(list[:i], c) {
				t.Errorf("%q: got %q twice, want it once", param, c)
			}
			if i == 0 || list[i-1].ID != c.ID {
				blocks++
			}
			ids[c.ID] = true
		}
		if blocks != len(ids) {
			t.Errorf("%q: got %q, want candidates of one id adjacent", param, list)
		}
		id, secret, ok := rawPair(param)
		if !ok {
			return
		}
		if raw := (clientauth.Credential{ID: id, Secret: secret}); !slices.Contains(list, raw) {
			t.Errorf("%q: got %q, want %q among them", param, list, raw)
		}
		formID, err1 := url.QueryUnescape(id)
		formSecret, err2 := url.QueryUnescape(secret)
		if want := (clientauth.Credential{ID: formID, Secret: formSecret}); err1 == nil && err2 == nil && list[0] != want {
			t.Errorf("%q: got %q first, want the standard's decoding %q", param, list[0], want)
		}
	})
}

// rawPair decodes the base64 of well-formed credentials and returns the raw id and secret.
func rawPair(param string) (id, secret string, ok bool) {
	b, err := base64.StdEncoding.DecodeString(param)
	if err != nil || len(param) > 8<<10 {
		return "", "", false
	}
	id, secret, ok = strings.Cut(string(b), ":")
	return id, secret, ok && id != "" && secret != ""
}
