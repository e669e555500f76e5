package files

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// ErrText is returned when a file or value that holds one secret, token or key is not one line of
// plain text. No error of this file quotes the text.
var ErrText = errors.New("want one line of UTF-8 text")

// Text returns data without a leading UTF-8 byte order mark. It returns ErrText for UTF-16 and
// other bytes that are not UTF-8.
func Text(data []byte) ([]byte, error) {
	switch {
	case bytes.HasPrefix(data, []byte{0xff, 0xfe}), bytes.HasPrefix(data, []byte{0xfe, 0xff}),
		bytes.IndexByte(data, 0) >= 0:
		return nil, fmt.Errorf("%w: text is UTF-16 or binary; save it as UTF-8", ErrText)
	case !utf8.Valid(data):
		return nil, fmt.Errorf("%w: text has bytes that are not UTF-8", ErrText)
	}
	return bytes.TrimPrefix(data, bom), nil
}

// OneLine returns the only line of data: one secret or token. It drops a UTF-8 byte order mark, and
// the line breaks after the line. It returns ErrText for anything else that an editor or a shell
// may add invisibly. Examples are white space around the line, a second line, control characters,
// and characters without width.
func OneLine(data []byte) (string, error) {
	text, err := Text(data)
	if err != nil {
		return "", err
	}
	line := strings.TrimRight(string(text), "\r\n")
	problem := ""
	if line == "" {
		problem = "text is empty"
	} else if strings.ContainsAny(line, "\r\n") {
		problem = "text has more than one line"
	} else if first, _ := utf8.DecodeRuneInString(line); unicode.IsSpace(first) {
		problem = "text has leading white space"
	} else if last, _ := utf8.DecodeLastRuneInString(line); unicode.IsSpace(last) {
		problem = "text has trailing white space"
	} else if i := strings.IndexFunc(line, isInvisible); i >= 0 {
		r, _ := utf8.DecodeRuneInString(line[i:])
		problem = fmt.Sprintf("text has an invisible character (%U at byte %d)", r, i+1)
	}
	if problem != "" {
		return "", fmt.Errorf("%w: %s", ErrText, problem)
	}
	return line, nil
}

func isInvisible(r rune) bool { return r != ' ' && !unicode.IsGraphic(r) || unicode.Is(unicode.Cf, r) }

// KeyPair reads a certificate chain and its key from PEM files. It accepts a byte order mark, after
// which Go's parser would skip the first block.
func KeyPair(certFile, keyFile string) (pair tls.Certificate, err error) {
	cert, err := Read(certFile, maxPEM)
	if err != nil {
		return pair, err
	}
	key, err := Read(keyFile, maxPEM)
	if err != nil {
		return pair, err
	}
	return tls.X509KeyPair(bytes.TrimPrefix(cert, bom), bytes.TrimPrefix(key, bom))
}
