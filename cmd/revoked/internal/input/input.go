// Package input reads the tokens and files of commands, from a file or from standard input, never
// from the command line.
//
// An error contains neither the token nor the name of the file: a user may have typed the token
// there.
package input

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"revoked/cmd/revoked/internal/files"
)

// MaxToken is the longest token that the API accepts for a revocation, in bytes. New tokens are
// shorter.
const MaxToken = 16 << 10

// Token reads a token from a file, or from standard input if name is "-". It refuses text that
// cannot be a token: a node would record the revocation of that text and revoke nothing.
//
// Its errors do not contain name: a user may have typed the token itself there.
func Token(cmd *cobra.Command, name string) (string, error) {
	const around = 16 // room for a byte order mark and line ends
	b, err := Read(cmd, name, MaxToken+around)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", errors.New("read the token: file does not exist; " +
			"pass a token in a file or on standard input (-), never on the command line")
	case err != nil:
		return "", fmt.Errorf("read the token: %w", err)
	case len(b) == MaxToken+around:
		return "", errTokenTooLong
	}
	token, err := files.OneLine(b)
	if err != nil {
		return "", fmt.Errorf("read the token: %w", err)
	}
	if len(token) > MaxToken {
		return "", errTokenTooLong
	}
	if err := checkToken(token); err != nil {
		return "", fmt.Errorf("read the token: %w", err)
	}
	return token, nil
}

var errTokenTooLong = fmt.Errorf("read the token: %w (want at most %d bytes)", files.ErrTooLong, MaxToken)

// schemes are the prefixes of a token in an Authorization header, in lower case.
var schemes = []string{"authorization:", "bearer ", "dpop ", "basic ", "token ", "token=", "access_token=",
	"refresh_token="}

// checkToken refuses text that no authorization server issues as a token. The syntax is that of RFC
// 6749 appendix A.12 without the space, which RFC 6750 section 2.1 excludes. Letters outside ASCII
// pass, because the API registers such tokens too.
func checkToken(token string) error {
	lower := strings.ToLower(token)
	for _, scheme := range schemes {
		if strings.HasPrefix(lower, scheme) {
			return fmt.Errorf("token begins with %q: pass only the token", strings.TrimSpace(token[:len(scheme)]))
		}
	}
	switch first, last := token[0], token[len(token)-1]; {
	case first == '{' || first == '[':
		return errors.New("token is JSON: pass only the token, for instance jq -r .access_token")
	case (first == '"' || first == '\'') && first == last:
		return errors.New("token is in quotes: pass only the token")
	}
	if !utf8.ValidString(token) {
		return errors.New("token is not valid UTF-8")
	}
	for _, r := range token {
		switch {
		case unicode.IsSpace(r):
			return errors.New("token has white space, which RFC 6750 section 2.1 excludes")
		case !unicode.IsPrint(r):
			return errors.New("token has invisible characters, which RFC 6749 appendix A.12 excludes")
		}
	}
	return nil
}

// Read reads up to limit bytes from a file, or from standard input if name is "-". Its errors
// do not contain name.
func Read(cmd *cobra.Command, name string, limit int64) ([]byte, error) {
	r, err := Open(cmd, name)
	if err != nil {
		return nil, WithoutPath(err)
	}
	defer r.Close()
	b, err := io.ReadAll(io.LimitReader(r, limit))
	return b, WithoutPath(err)
}

// Open opens a file, or standard input if name is "-". Closing the result leaves standard input
// open.
func Open(cmd *cobra.Command, name string) (io.ReadCloser, error) {
	if name == "-" {
		return io.NopCloser(cmd.InOrStdin()), nil
	}
	return os.Open(name)
}

// WithoutPath returns err without the name of the file. Use it for the errors of Open.
func WithoutPath(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}
