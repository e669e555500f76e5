package debug

import "regexp"

// A secretForm is a form in which secrets appear in text, and the text that replaces a match.
type secretForm struct {
	form *regexp.Regexp
	with string
}

// secretForms are forms that only secrets have. Nodes do not write such texts. The list is an
// additional safeguard, for texts of other programs in the log, such as errors of a proxy.
func secretForms() []secretForm {
	return []secretForm{
		{regexp.MustCompile(`(?s)-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----.*?-----END [A-Z0-9 ]*PRIVATE KEY-----`),
			"REDACTED KEY"},
		{regexp.MustCompile(`-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----[^\n]*`), "REDACTED KEY"},
		{regexp.MustCompile(`(?i)\b(basic|bearer)(\s|%20|\+)+[A-Za-z0-9+/_.~=%-]{16,}`), "$1 REDACTED"},
		{regexp.MustCompile(`\beyJ[A-Za-z0-9_-]{5,}\.[A-Za-z0-9_-]{2,}\.[A-Za-z0-9_-]*`), "REDACTED JWT"},
		{regexp.MustCompile(`://[^/\s"'<>]*@`), "://REDACTED@"},
	}
}

// scrub returns text in which everything with the form of a secret is replaced.
func scrub(text []byte) []byte {
	for _, s := range secretForms() {
		text = s.form.ReplaceAll(text, []byte(s.with))
	}
	return text
}
