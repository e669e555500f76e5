package api

import (
	"encoding/base64"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"
)

func FuzzForm(f *testing.F) {
	for _, s := range []string{"token=a", "token=a&token=b", "t%6Fken=%41", "token=%zz", "a;b", "=&&=", "token=a+b%20c", "token_type_hint=&client_id=x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		var got form
		err := got.decode([]byte(raw))
		want, stdErr := url.ParseQuery(raw)
		if (err != nil) != (stdErr != nil) {
			t.Fatalf("%q: got %v, the standard library says %v", raw, err, stdErr)
		}
		if err != nil {
			return
		}
		for n, name := range []string{"token", "token_type_hint", "client_id", "client_secret", "client_assertion", "client_assertion_type"} {
			if got.seen[n] != len(want[name]) {
				t.Errorf("%q: %s: got %d, want %d", raw, name, got.seen[n], len(want[name]))
			}
			if got.seen[n] == 1 && string(got.values[n]) != want.Get(name) {
				t.Errorf("%q: %s: got %q, want %q", raw, name, got.values[n], want.Get(name))
			}
		}
	})
}

func FuzzBasic(f *testing.F) {
	for _, s := range []string{"Y2wlM0FpZW50OnMlMjVjJTJCcit0", "Y2w6aWVudDpzJWMrciB0", "!!!", "", "YWJj", "Og==", "YTo=", "czNCOnMlM0Erci8="} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, param string) {
		list := decodeBasic(param)
		if len(list) > 9 {
			t.Errorf("%q: got %d readings", param, len(list))
		}
		ids := 0
		for i, c := range list {
			if c.id == "" || c.secret == "" || len(c.id)+len(c.secret) > len(param) {
				t.Errorf("%q: got reading %q", param, c)
			}
			if slices.Contains(list[:i], c) {
				t.Errorf("%q: %q twice", param, c)
			}
			if i == 0 || list[i-1].id != c.id {
				ids++
			}
		}
		distinct := map[string]bool{}
		for _, c := range list {
			distinct[c.id] = true
		}
		if ids != len(distinct) {
			t.Errorf("%q: the readings of an id do not stand together: %q", param, list)
		}
		id, secret, ok := rawPair(param)
		if !ok {
			return
		}
		if raw := (credential{id, secret}); !slices.Contains(list, raw) {
			t.Errorf("%q: got %q, want %q among them", param, list, raw)
		}
		formID, err1 := url.QueryUnescape(id)
		formSecret, err2 := url.QueryUnescape(secret)
		if want := (credential{formID, formSecret}); err1 == nil && err2 == nil && list[0] != want {
			t.Errorf("%q: got %q first, want the standard's reading %q", param, list[0], want)
		}
	})
}

// rawPair is the plain text of Basic credentials, where they are not malformed.
func rawPair(param string) (id, secret string, ok bool) {
	b, err := base64.StdEncoding.DecodeString(param)
	if err != nil || len(param) > maxBasic {
		return "", "", false
	}
	id, secret, ok = strings.Cut(string(b), ":")
	return id, secret, ok && id != "" && secret != ""
}

// TestBasicTakesEverySpelling: id and secret may each be spelt in any way, whatever the other is.
func TestBasicTakesEverySpelling(t *testing.T) {
	percent := func(s string) string {
		var b strings.Builder
		for i := range len(s) {
			fmt.Fprintf(&b, "%%%02X", s[i])
		}
		return b.String()
	}
	spellings := map[string]func(string) string{
		"form-encoded": url.QueryEscape, "percent-encoded": percent, "path-escaped": url.PathEscape,
		"raw": func(s string) string { return s }, "with only the colon escaped": strings.NewReplacer(":", "%3A").Replace,
	}
	names := []string{"app", "a b", "a+b", "50%", "a%41", "a:b", "a+b c%2F", "100%25:x", "a+b:c", "ü/ö", "+", "%"}
	for _, id := range names {
		for _, secret := range names {
			for how, spellID := range spellings {
				for howSecret, spellSecret := range spellings {
					spelt := spellID(id)
					if strings.Contains(spelt, ":") {
						continue // no way to spell this id
					}
					param := base64.StdEncoding.EncodeToString([]byte(spelt + ":" + spellSecret(secret)))
					if got, want := decodeBasic(param), (credential{id, secret}); !slices.Contains(got, want) {
						t.Errorf("id %q %s, secret %q %s: got %q", id, how, secret, howSecret, got)
					}
				}
			}
		}
	}
}

func FuzzBearer(f *testing.F) {
	for _, s := range []string{"Bearer a", "bearer  a ", "Bearer", "Basic x", "Bearer a b", "Bearer \x00", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, header string) {
		token, found, ok := bearer([]string{header})
		if ok && (!found || token == "" || strings.ContainsAny(token, " \t\r\n\x00") || !strings.Contains(header, token)) {
			t.Errorf("%q: got %q", header, token)
		}
	})
}
