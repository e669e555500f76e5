package hostile

import (
	"bytes"
	"compress/lzw"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/binary"
	"io"
	"net"
	"testing"
	"time"
)

// Types of memberlist's messages.
const (
	TypePing, TypeIndirectPing, TypeSuspect, TypeAlive, TypePushPull = 0, 1, 3, 4, 6
	TypeCompound, TypeUser, TypeCompress, TypeEncrypt, TypeCRC       = 7, 8, 9, 10, 12
	TypeLabel                                                        = 244
)

// A Gossip sends messages that are encrypted with a gossip key.
type Gossip struct {
	Key   []byte
	Label string // the id of the cluster
	Addr  string
}

// Seal encrypts as memberlist does.
func (a Gossip) Seal(t testing.TB, version byte, plain, extra []byte) []byte {
	t.Helper()
	block, err := aes.NewCipher(a.Key)
	if err != nil {
		t.Fatal(err)
	}
	gcm, err := cipher.NewGCM(block)
	if err != nil {
		t.Fatal(err)
	}
	nonce := make([]byte, gcm.NonceSize())
	if _, err := rand.Read(nonce); err != nil {
		t.Fatal(err)
	}
	return gcm.Seal(append([]byte{version}, nonce...), nonce, plain, extra)
}

// Header returns the label that precedes each encrypted message.
func (a Gossip) Header() []byte { return append([]byte{TypeLabel, byte(len(a.Label))}, a.Label...) }

// Packet returns a UDP packet with a message.
func (a Gossip) Packet(t testing.TB, plain []byte) []byte {
	t.Helper()
	return append(a.Header(), a.Seal(t, 1, plain, []byte(a.Label))...)
}

// Stream returns the bytes that a TCP connection sends for a message.
func (a Gossip) Stream(t testing.TB, version byte, plain []byte) []byte {
	t.Helper()
	size := len(a.Seal(t, version, plain, nil))
	head := binary.BigEndian.AppendUint32([]byte{TypeEncrypt}, uint32(size))
	sealed := a.Seal(t, version, plain, append(bytes.Clone(head), a.Label...))
	return append(append(a.Header(), head...), sealed...)
}

// SendPackets sends packets and returns after the node has handled them, that is, after it has
// answered a ping that was sent later.
func (a Gossip) SendPackets(t testing.TB, packets ...[]byte) {
	t.Helper()
	c, err := net.Dial("udp", a.Addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	for _, p := range packets {
		if _, err := c.Write(p); err != nil {
			t.Fatal(err)
		}
	}
	for range 100 { // UDP may lose packets
		if _, err := c.Write(a.Packet(t, Message(TypePing, Entry("SeqNo", 7)))); err != nil {
			t.Fatal(err)
		}
		_ = c.SetReadDeadline(time.Now().Add(wait / 100))
		if _, err := c.Read(make([]byte, 1<<16)); err == nil {
			return
		}
	}
	t.Fatal("got no answer to a ping, want the node alive")
}

// SendStream sends a stream and returns after the node has closed it.
func (a Gossip) SendStream(t testing.TB, b []byte) (answer []byte) {
	t.Helper()
	c, err := net.Dial("tcp", a.Addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(wait))
	_, _ = c.Write(b) // the node may close it before it has read everything
	answer, _ = io.ReadAll(c)
	return answer
}

// wait limits every wait for a node.
const wait = 30 * time.Second

// A MapEntry is a key and a value, both encoded as msgpack.
type MapEntry struct{ key, value []byte }

// Text encodes a string.
func Text(s string) []byte { return append([]byte{0xda, byte(len(s) >> 8), byte(len(s))}, s...) }

// Entry encodes an entry of a map: an int, a string, or bytes that are encoded already.
func Entry(key string, value any) MapEntry {
	switch v := value.(type) {
	case int:
		return MapEntry{Text(key), binary.BigEndian.AppendUint32([]byte{0xce}, uint32(v))}
	case string:
		return MapEntry{Text(key), Text(v)}
	case []byte: // encoded already
		return MapEntry{Text(key), v}
	}
	panic("unknown type")
}

// Entries encodes a map.
func Entries(pairs ...MapEntry) []byte {
	b := []byte{0x80 | byte(len(pairs))}
	for _, p := range pairs {
		b = append(append(b, p.key...), p.value...)
	}
	return b
}

// Message encodes a message of memberlist.
func Message(kind byte, pairs ...MapEntry) []byte { return append([]byte{kind}, Entries(pairs...)...) }

// Bomb returns a compressed message of about size bytes that expands by a factor of some thousand.
func Bomb(t testing.TB, size int) []byte {
	t.Helper()
	var packed bytes.Buffer
	w := lzw.NewWriter(&packed, lzw.LSB, 8)
	zeros := make([]byte, 64<<10)
	for packed.Len() < size {
		if _, err := w.Write(zeros); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	buf := binary.BigEndian.AppendUint32([]byte{0xc6}, uint32(packed.Len()))
	return Message(TypeCompress, Entry("Algo", 0), Entry("Buf", append(buf, packed.Bytes()...)))
}

// Compound encodes several messages as one.
func Compound(parts ...[]byte) []byte {
	b := []byte{TypeCompound, byte(len(parts))}
	for _, p := range parts {
		b = binary.BigEndian.AppendUint16(b, uint16(len(p)))
	}
	return append(b, bytes.Join(parts, nil)...)
}
