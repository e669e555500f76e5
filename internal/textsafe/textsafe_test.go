package textsafe_test

import (
	"testing"

	"revoked/internal/textsafe"
)

func TestClean_UnsafeText_IsTruncatedAndReplaced(t *testing.T) {
	for _, tt := range []struct {
		name, in string
		limit    int
		want     string
	}{
		{"plain", "client-1", 64, "client-1"},
		{"other scripts", "größe 鍵", 64, "größe 鍵"},
		{"cut", "abcdef", 3, "abc..."},
		{"cut in a rune", "aé", 2, "a?..."},
		{"control characters", "a\x1b[2J\x7f\u0085b", 64, "a?[2J??b"},
		{"line separator", "a\u2028b", 64, "a?b"},
		{"invalid UTF-8", "a\xffb", 64, "a?b"},
	} {
		got := textsafe.Clean(tt.in, tt.limit)
		if got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
		if !textsafe.Printable(got) || !textsafe.Printable([]byte(got)) {
			t.Errorf("%s: got unprintable %q, want it printable", tt.name, got)
		}
		if in := textsafe.Printable(tt.in); in != (tt.name == "plain" || tt.name == "cut" || tt.name == "cut in a rune" ||
			tt.name == "other scripts") {
			t.Errorf("%s: got printable %v for %q", tt.name, in, tt.in)
		}
	}
}
