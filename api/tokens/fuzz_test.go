package tokens

import (
	"net/url"
	"strings"
	"testing"
)

func FuzzForm(f *testing.F) {
	for _, s := range []string{"token=a", "token=a&token=b", "t%6Fken=%41", "token=%zz", "a;b", "=&&=", "token=a+b%20c",
		"token_type_hint=&client_id=x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, raw string) {
		var got form
		ok := got.decode([]byte(raw))
		want, err := url.ParseQuery(raw)
		if ok != (err == nil) {
			t.Fatalf("%q: got %t, want %v as in net/url", raw, ok, err)
		}
		if !ok {
			return
		}
		for n, name := range []string{"token", "token_type_hint", "client_id", "client_secret", "client_assertion",
			"client_assertion_type"} {
			if got.seen[n] != len(want[name]) {
				t.Errorf("%q: %s: got %d, want %d", raw, name, got.seen[n], len(want[name]))
			}
			if got.seen[n] == 1 && string(got.values[n]) != want.Get(name) {
				t.Errorf("%q: %s: got %q, want %q", raw, name, got.values[n], want.Get(name))
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
