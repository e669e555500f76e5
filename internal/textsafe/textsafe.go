// Package textsafe checks and cleans text from other machines before it reaches a log or a
// terminal.
package textsafe

import (
	"strings"
	"unicode/utf8"
)

// Printable reports whether s is valid UTF-8 without control characters (ASCII and U+0080 to
// U+009F). It also refuses the separators U+2028 and U+2029, which break a log line.
func Printable[T string | []byte](s T) bool {
	for i := 0; i < len(s); {
		if c := s[i]; c < utf8.RuneSelf {
			if control(rune(c)) {
				return false
			}
			i++
			continue
		}
		r, n := utf8.DecodeRuneInString(string(s[i:min(i+utf8.UTFMax, len(s))]))
		if control(r) || r == utf8.RuneError && n == 1 {
			return false
		}
		i += n
	}
	return true
}

// Clean returns at most limit bytes of s, followed by "..." if s was truncated. Each unprintable
// rune becomes "?".
func Clean(s string, limit int) string {
	cut := ""
	if len(s) > limit {
		s, cut = s[:limit], "..."
	}
	if Printable(s) {
		return s + cut
	}
	return strings.Map(func(r rune) rune {
		if control(r) || r == utf8.RuneError {
			return '?'
		}
		return r
	}, s) + cut
}

func control(r rune) bool {
	return r < ' ' || 0x7f <= r && r <= 0x9f || r == '\u2028' || r == '\u2029'
}
