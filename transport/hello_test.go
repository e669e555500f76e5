package transport_test

import (
	"bytes"
	"testing"
	"testing/iotest"

	"revoked/transport"
)

// FuzzReadHello checks that no bytes make readHello panic, that it returns what it read, and that
// the size of its reads does not matter.
func FuzzReadHello(f *testing.F) {
	f.Add([]byte("\x16\x03\x01\x00\x05\x01\x00\x00\x01\x03more"))
	f.Add([]byte("GET / HTTP/1.1\r\n"))
	f.Add([]byte("\x16\x03\x01\x40\x01\x01"))
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := transport.ReadHello(bytes.NewReader(b))
		if err == nil && !bytes.HasPrefix(b, got) {
			t.Errorf("got %x, want a prefix of %x", got, b)
		}
		slow, slowErr := transport.ReadHello(iotest.OneByteReader(bytes.NewReader(b)))
		if (err == nil) != (slowErr == nil) || !bytes.Equal(got, slow) {
			t.Errorf("byte by byte: got %x, %v, want %x, %v", slow, slowErr, got, err)
		}
	})
}
