package revoked_test

import (
	"net/url"
	"testing"

	"revoked"
)

func TestParsePosition_EraAndIndex_AreSeparated(t *testing.T) {
	era := revoked.EraOf("a")
	for _, tt := range []struct {
		text string
		want revoked.Position
		ok   bool
	}{
		{"0", revoked.Position{}, true},
		{"18446744073709551615", revoked.Position{Index: 1<<64 - 1}, true},
		{era + ".7", revoked.Position{Era: era, Index: 7}, true},
		{era + ".0", revoked.Position{Era: era}, true},
		{"18446744073709551616", revoked.Position{}, false},
		{"", revoked.Position{}, false},
		{"x", revoked.Position{}, false},
		{"-1", revoked.Position{}, false},
		{"+1", revoked.Position{}, false},
		{"1.5", revoked.Position{}, false},
		{".5", revoked.Position{}, false},
		{era, revoked.Position{}, false},
		{era + ".", revoked.Position{}, false},
		{era + ".+1", revoked.Position{}, false},
		{era + ".1.1", revoked.Position{}, false},
		{era + "a.1", revoked.Position{}, false},
		{era[1:] + ".1", revoked.Position{}, false},
		{era[1:] + " .1", revoked.Position{}, false},
	} {
		got, err := revoked.ParsePosition(tt.text)
		if got != tt.want || (err == nil) != tt.ok {
			t.Errorf("%q: got %v, %v, want %v, ok %t", tt.text, got, err, tt.want, tt.ok)
		}
	}
}

func TestPosition_IsOf_OnlyItsEra(t *testing.T) {
	a, b := revoked.EraOf("a"), revoked.EraOf("b")
	if p := (revoked.Position{Index: 1}); !p.IsOf(a) || !p.IsOf(b) {
		t.Error("position without an era: got one era, want every era")
	}
	if p := (revoked.Position{Era: a, Index: 1}); !p.IsOf(a) || p.IsOf(b) {
		t.Error("position with an era: got another era, want only its own")
	}
}

// Members of all versions derive the era, so the derivation must never change.
func TestEraOf_ClusterID_NeverChanges(t *testing.T) {
	for id, want := range map[string]string{
		"":                                 "",
		"0123456789abcdef0123456789abcdef": "uW7_x6MwrQIdHuzsYQFA2A",
		"any text":                         "N2WsPU1SgcAGIBYRLwDqXA",
	} {
		got := revoked.EraOf(id)
		if got != want {
			t.Errorf("%q: got %q, want %q", id, got, want)
		}
		if id != "" && (!revoked.IsEra(got) || url.QueryEscape(got) != got) {
			t.Errorf("%q: got %q, want an era that is safe in a URL", id, got)
		}
	}
}

// A position that parses is safe in a URL and in a line of an event stream, and its text parses to
// the same position.
func FuzzParsePosition(f *testing.F) {
	for _, s := range []string{"0", "7", revoked.EraOf("a") + ".7", "+1", "1.5", ".1", "a.\n1", "0x1", "1_0", "00"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		p, err := revoked.ParsePosition(s)
		if err != nil {
			if p != (revoked.Position{}) {
				t.Errorf("%q: got %v with an error, want the zero position", s, p)
			}
			return
		}
		if url.QueryEscape(s) != s {
			t.Errorf("%q: got a position, want an error", s)
		}
		if again, err := revoked.ParsePosition(p.String()); err != nil || again != p {
			t.Errorf("%q: got %v, %v from its text %q, want %v", s, again, err, p, p)
		}
	})
}
