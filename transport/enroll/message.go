package enroll

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Protocol is the ALPN name (RFC 7301).
const Protocol = "revoked-enroll/1"

// maxMessage is the maximum size of a message in bytes, without the length prefix.
const maxMessage = 16 << 10

// A Request is a request for a certificate. On the wire it is
//
//	byte 0..3  length of the rest
//	then node, csr, token key, proof, each as two bytes of length and that many bytes
type Request struct {
	Node     string
	CSR      []byte // DER, RFC 2986
	TokenKey []byte // public key of the join token
	Proof    []byte // jointoken.Token.SignEnrollment for Binding

	// Binding is a value of the connection that only its two ends can compute. It is not sent.
	Binding []byte
}

// An answer is the response to a Request. On the wire it is
//
//	byte 0..3  length of the rest
//	byte 4..7  code, as in revoked.Code; 0 for a certificate
//	then detail and certificate, each as two bytes of length and that many bytes
type answer struct {
	code        uint32
	detail      string
	certificate []byte // DER
}

var errMessage = errors.New("enrollment: malformed message")

// encode returns a message that consists of head and fields.
func encode(head []byte, fields ...[]byte) ([]byte, error) {
	b := append(make([]byte, 4), head...)
	for _, f := range fields {
		if len(f) > maxMessage {
			return nil, fmt.Errorf("enrollment: message is too long (got %d bytes, want at most %d)", len(f), maxMessage)
		}
		b = append(binary.BigEndian.AppendUint16(b, uint16(len(f))), f...)
	}
	if len(b)-4 > maxMessage {
		return nil, fmt.Errorf("enrollment: message is too long (got %d bytes, want at most %d)", len(b)-4, maxMessage)
	}
	binary.BigEndian.PutUint32(b, uint32(len(b)-4))
	return b, nil
}

// read reads a message and returns it without its length. It rejects a message that is too long
// before it reads more than the length.
func read(r io.Reader) ([]byte, error) {
	var size [4]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(size[:])
	if n > maxMessage {
		return nil, fmt.Errorf("enrollment: message is too long (got %d bytes, want at most %d)", n, maxMessage)
	}
	b := make([]byte, n)
	_, err := io.ReadFull(r, b)
	return b, err
}

// fields splits b into exactly n fields.
func fields(b []byte, n int) ([][]byte, error) {
	list := make([][]byte, n)
	for i := range list {
		if len(b) < 2 {
			return nil, errMessage
		}
		size := int(binary.BigEndian.Uint16(b))
		if b = b[2:]; len(b) < size {
			return nil, errMessage
		}
		list[i], b = b[:size:size], b[size:]
	}
	if len(b) != 0 {
		return nil, errMessage
	}
	return list, nil
}

func (r *Request) encode() ([]byte, error) {
	return encode(nil, []byte(r.Node), r.CSR, r.TokenKey, r.Proof)
}

func decodeRequest(b []byte) (*Request, error) {
	f, err := fields(b, 4)
	if err != nil {
		return nil, err
	}
	return &Request{Node: string(f[0]), CSR: f[1], TokenKey: f[2], Proof: f[3]}, nil
}

func (a *answer) encode() ([]byte, error) {
	return encode(binary.BigEndian.AppendUint32(nil, a.code), []byte(a.detail), a.certificate)
}

func decodeAnswer(b []byte) (*answer, error) {
	if len(b) < 4 {
		return nil, errMessage
	}
	f, err := fields(b[4:], 2)
	if err != nil {
		return nil, err
	}
	return &answer{code: binary.BigEndian.Uint32(b), detail: string(f[0]), certificate: f[1]}, nil
}
