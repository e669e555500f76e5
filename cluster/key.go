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

// maxKeyText bounds a key file, comments included, in bytes.
const maxKeyText = 16 << 10

// ErrBadKey is returned for a text that holds no gossip key. It never contains the text.
var ErrBadKey = errors.New("not a gossip key")

// NewKey draws a gossip key.
func NewKey() ([]byte, error) {
	key := make([]byte, KeySize)
	if _, err := rand.Read(key); err != nil {
		return nil, fmt.Errorf("draw gossip key: %w", err)
	}
	return key, nil
}

// FormatKey returns the file form of a key: a comment and one line of base64.
func FormatKey(key []byte) string {
	return "# gossip key of a revoked cluster: the same on every node, for nobody else\n" +
		base64.StdEncoding.EncodeToString(key) + "\n"
}

// ParseKey reads the file form: one line of base64 of 32 bytes; empty lines and lines that begin
// with # are skipped. The error wraps ErrBadKey.
func ParseKey(text string) ([]byte, error) {
	if len(text) > maxKeyText {
		return nil, fmt.Errorf("%w: the file is too long", ErrBadKey)
	}
	var key []byte
	for n, line := range strings.Split(text, "\n") {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if key != nil {
			return nil, fmt.Errorf("%w: line %d is a second key; a file holds one", ErrBadKey, n+1)
		}
		b, err := base64.StdEncoding.Strict().DecodeString(line)
		if err != nil {
			return nil, fmt.Errorf("%w: line %d is not base64; make a key with `revoked keygen`", ErrBadKey, n+1)
		}
		if len(b) != KeySize {
			return nil, fmt.Errorf("%w: line %d holds %d bytes, want %d; make a key with `revoked keygen`", ErrBadKey, n+1, len(b), KeySize)
		}
		key = b
	}
	if key == nil {
		return nil, fmt.Errorf("%w: the file is empty; make a key with `revoked keygen`", ErrBadKey)
	}
	return key, nil
}
