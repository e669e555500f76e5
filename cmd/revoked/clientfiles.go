package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"

	"github.com/spf13/cobra"
)

// readBounded returns what the file holds, and refuses more than limit bytes.
func readBounded(name string, limit int64) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(b)) > limit {
		return nil, fmt.Errorf("%s %w: at most %d bytes", name, errTooLong, limit)
	}
	return b, nil
}

// maxToken is the longest token that the API takes.
const maxToken = 16 << 10

// readToken reads a token from a file, or from standard input where name is "-".
//
// No error repeats name: whoever types the token itself where its file belongs must not find it in a
// log.
func readToken(cmd *cobra.Command, name string) (string, error) {
	r, err := openTokenSource(cmd, name)
	if err != nil {
		return "", err
	}
	defer r.Close()
	b, err := io.ReadAll(io.LimitReader(r, maxToken+2))
	if err != nil {
		return "", fmt.Errorf("read the token: %w", withoutPath(err))
	}
	token := strings.TrimRight(string(b), "\r\n")
	switch {
	case token == "":
		return "", errors.New("read the token: the file is empty")
	case len(token) > maxToken:
		return "", fmt.Errorf("read the token: it %w: at most %d bytes", errTooLong, maxToken)
	}
	return token, nil
}

func openTokenSource(cmd *cobra.Command, name string) (io.ReadCloser, error) {
	if name == "-" {
		return io.NopCloser(cmd.InOrStdin()), nil
	}
	f, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, errors.New("read the token: there is no such file; a token is read from a file or standard input (-), never from the command line")
	}
	if err != nil {
		return nil, fmt.Errorf("read the token: %w", withoutPath(err))
	}
	return f, nil
}

// withoutPath returns err without the name of the file that it is about.
func withoutPath(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}

// openInput opens a file, or standard input where name is "-".
func openInput(cmd *cobra.Command, name string) (io.ReadCloser, error) {
	if name == "-" {
		return io.NopCloser(cmd.InOrStdin()), nil
	}
	return os.Open(name)
}
