package cli_test

import (
	"testing"

	"revoked/cmd/revoked/internal/cli"
)

func TestShellQuote_MakesOneWord(t *testing.T) {
	for in, want := range map[string]string{"/a/b.pem": "/a/b.pem", "": "''", "a b": "'a b'", "it's": `'it'\''s'`,
		"$HOME": "'$HOME'"} {
		if got := cli.ShellQuote(in); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}
