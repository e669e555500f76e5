package cluster

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"fmt"
	"io"
	"time"
)

// The framing of memberlist:
//
//	packet:  label, sealed message
//	stream:  label, 10, length (4 bytes), sealed message; an answer has no label
//	label:   244, length (1 byte), the id of the cluster
//	sealed:  1 (AES-GCM without padding), nonce (12 bytes), ciphertext, tag (16 bytes)
const (
	labelMagic    = 244
	typeEncrypted = 10
	sealVersion   = 1
	frameHeader   = 5 // type and length
)

// Limits of messages from other nodes.
const (
	headerTimeout  = 2 * time.Second
	messageTimeout = 5 * time.Second // limit for the rest of a message, after the header

	maxPacket = 2 << 10 // bytes; nodes send at most about 1,450
	maxStream = 1 << 20 // bytes of one message; that of 1,024 nodes has about 300 KiB
)

// opener decrypts messages before memberlist does, so that the guard can inspect them first. It is
// safe for concurrent use.
type opener struct {
	label       []byte
	labelHeader []byte
	aead        cipher.AEAD
}

func newOpener(key []byte, label string) (*opener, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, err
	}
	return &opener{
		label: []byte(label), labelHeader: append([]byte{labelMagic, byte(len(label))}, label...), aead: aead,
	}, nil
}

// packet returns the decrypted content of a UDP packet. The label is in clear text and bound to the
// ciphertext as additional data. So a message of another cluster fails even with the same key.
func (o *opener) packet(b []byte) ([]byte, error) {
	if len(b) > maxPacket {
		return nil, fmt.Errorf("%w (got %d bytes, want at most %d)", errOversized, len(b), maxPacket)
	}
	sealed, ok := bytes.CutPrefix(b, o.labelHeader)
	if !ok {
		return nil, errLabel
	}
	return o.open(sealed, o.label)
}

// open decrypts a sealed message. errPlain and errKey differ, because they have different remedies:
// the sender has no key, or another key.
func (o *opener) open(sealed, extra []byte) ([]byte, error) {
	nonce := o.aead.NonceSize()
	if len(sealed) < 1+nonce+o.aead.Overhead() || sealed[0] != sealVersion {
		return nil, errPlain
	}
	plain, err := o.aead.Open(nil, sealed[1:1+nonce], sealed[1+nonce:], extra)
	if err != nil {
		return nil, errKey
	}
	return plain, nil
}

// deadliner sets the deadline of the reads from a connection.
type deadliner interface {
	io.Reader
	SetReadDeadline(time.Time) error
}

// request reads the message that opens a stream, with its label. It returns the bytes as they came
// and the decrypted message. The header must arrive within headerTimeout. request buffers only the
// bytes that have arrived.
func (o *opener) request(r deadliner) (raw, plain []byte, err error) {
	_ = r.SetReadDeadline(time.Now().Add(headerTimeout))
	label := make([]byte, len(o.labelHeader))
	for n := 0; n < len(label); { // the first byte that differs ends the read
		m, err := r.Read(label[n:])
		if !bytes.HasPrefix(o.labelHeader, label[:n+m]) {
			return nil, nil, errLabel
		}
		if n += m; err != nil && n < len(label) {
			return nil, nil, fmt.Errorf("%s (got %d bytes): %w", noMessage, n, err)
		}
	}
	raw, plain, err = o.message(r, func() { _ = r.SetReadDeadline(time.Now().Add(messageTimeout)) })
	return append(label, raw...), plain, err
}

// message reads one message of a stream. It calls onHeader after the header. It reads no byte
// beyond the message, and allocates as the bytes arrive: the announced length alone costs nothing.
func (o *opener) message(r io.Reader, onHeader func()) (raw, plain []byte, err error) {
	head := make([]byte, frameHeader)
	if n, err := io.ReadFull(r, head); err != nil {
		return nil, nil, fmt.Errorf("%s (got %d bytes): %w", noMessage, n, err)
	}
	if head[0] != typeEncrypted {
		return nil, nil, errPlain
	}
	size := binary.BigEndian.Uint32(head[1:])
	if size > maxStream {
		return nil, nil, fmt.Errorf("%w (got %d bytes, want at most %d)", errOversized, size, maxStream)
	}
	onHeader()
	var buf bytes.Buffer
	buf.Write(head)
	if n, err := io.CopyN(&buf, r, int64(size)); err != nil {
		return nil, nil, fmt.Errorf("%s (got %d of %d bytes): %w", noMessage, n, size, err)
	}
	raw = buf.Bytes()
	plain, err = o.open(raw[frameHeader:], append(bytes.Clone(head), o.label...))
	return raw, plain, err
}
