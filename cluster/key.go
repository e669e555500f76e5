package cluster

import (
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
)

// KeySize is the length of a gossip key in bytes: AES-256.
const KeySize = 32

// maxKeyText limits a key file, comments included, in bytes.
const maxKeyText = 16 << 10

// ErrBadKey is returned for a text without a gossip key. The error never contains the text.
var ErrBadKey = errors.New("not a gossip key")

// NewKey returns a random gossip key.
func NewKey() ([]byte, error) {
	key := make([]byte, KeySize)
	if _, err := rand.Read(key); err != nil {
		return nil, fmt.Errorf("generate gossip key: %w", err)
	}
	return key, nil
}

// FormatKey returns the file form of a key: a comment and one line of base64. The comment begins
// with #, so ParseKey accepts the whole text.
func FormatKey(key []byte) string {
	return "# gossip key of a revoked cluster: the same on every node; keep it secret\n" +
		base64.StdEncoding.EncodeToString(key) + "\n"
}

// ParseKey reads the file form: one line with the base64 of 32 bytes, without white space around
// it. It skips empty lines and lines that begin with #. The error wraps ErrBadKey. White space at
// either end of the line is an error, because other tools that read the file may treat it as part
// of the key.
func ParseKey(text string) ([]byte, error) {
	if len(text) > maxKeyText {
		return nil, fmt.Errorf("%w: the file is too long", ErrBadKey)
	}
	var key []byte
	for n, line := range strings.Split(text, "\n") {
		line = strings.TrimSuffix(line, "\r")
		bare := strings.TrimSpace(line)
		switch {
		case bare == "" || strings.HasPrefix(bare, "#"):
			continue
		case bare != line:
			return nil, fmt.Errorf("%w: line %d begins or ends with white space", ErrBadKey, n+1)
		}
		if key != nil {
			return nil, fmt.Errorf("%w: line %d is a second key; a file contains one", ErrBadKey, n+1)
		}
		b, err := base64.StdEncoding.Strict().DecodeString(line)
		if err != nil {
			return nil, fmt.Errorf("%w: line %d is not base64; generate a key with `revoked keygen`", ErrBadKey, n+1)
		}
		if len(b) != KeySize {
			return nil, fmt.Errorf("%w: line %d has %d bytes, want %d; generate a key with `revoked keygen`",
				ErrBadKey, n+1, len(b), KeySize)
		}
		key = b
	}
	if key == nil {
		return nil, fmt.Errorf("%w: the file is empty; generate a key with `revoked keygen`", ErrBadKey)
	}
	return key, nil
}
