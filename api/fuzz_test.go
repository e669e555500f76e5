package api

import (
	"net/url"
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
		if len(list) > 4 {
			t.Errorf("%q: got %d readings", param, len(list))
		}
		for i, c := range list {
			if c.id == "" || c.secret == "" || len(c.id)+len(c.secret) > len(param) {
				t.Errorf("%q: got reading %q", param, c)
			}
			if contains(list[:i], c) {
				t.Errorf("%q: %q twice", param, c)
			}
		}
	})
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
