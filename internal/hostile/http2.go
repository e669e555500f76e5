package hostile

import (
	"bytes"
	"errors"
	"io"
	"net"
	"slices"
	"strconv"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// A Field is the name and value of a header field.
type Field = [2]string

// An H2 is an HTTP/2 connection that sends single frames. One goroutine may write while another
// reads.
type H2 struct {
	*http2.Framer
	conn  net.Conn
	block bytes.Buffer
	enc   *hpack.Encoder
	next  uint32
}

// maxFrame is the largest payload of a frame that a server must accept (RFC 9113 section 4.2).
const maxFrame = 16 << 10

// NewH2 sends the client's preface with settings. The connection must have negotiated h2.
func NewH2(c net.Conn, settings ...http2.Setting) (*H2, error) {
	if _, err := io.WriteString(c, http2.ClientPreface); err != nil {
		return nil, err
	}
	h := &H2{Framer: http2.NewFramer(c, c), conn: c, next: 1}
	h.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	h.enc, h.AllowIllegalWrites = hpack.NewEncoder(&h.block), true
	return h, h.WriteSettings(settings...)
}

// Close closes the connection without GOAWAY.
func (h *H2) Close() error { return h.conn.Close() }

// Open sends a header and returns the id of its stream.
func (h *H2) Open(end bool, fields ...Field) (id uint32, err error) {
	h.block.Reset()
	for _, f := range fields {
		if err := h.enc.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]}); err != nil {
			return 0, err
		}
	}
	id = h.next
	h.next += 2
	b := h.block.Bytes()
	first := b[:min(maxFrame, len(b))]
	b = b[len(first):]
	err = h.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: first, EndHeaders: len(b) == 0,
		EndStream: end})
	for len(b) > 0 && err == nil {
		part := b[:min(maxFrame, len(b))]
		b = b[len(part):]
		err = h.WriteContinuation(id, len(b) == 0, part)
	}
	return id, err
}

// HalfRequest announces a form of length bytes at path, but sends only its first byte.
func (h *H2) HalfRequest(path string, length int) error {
	id, err := h.Open(false, append(Request("POST", path), Field{"content-type", "application/x-www-form-urlencoded"},
		Field{"content-length", strconv.Itoa(length)})...)
	return errors.Join(err, h.WriteData(id, false, []byte("t")))
}

// Request returns the pseudo header fields of a request.
func Request(method, path string) []Field {
	return []Field{{":method", method}, {":scheme", "https"}, {":authority", "as.example"}, {":path", path}}
}

// Answer reads frames until a stream has an answer, see [H2.Answers].
func (h *H2) Answer(id uint32) string { return h.Answers(id)[id] }

// Answers reads frames until each stream has an answer: its status, or the code with which the
// stream or the connection ended. It drops the bodies.
func (h *H2) Answers(ids ...uint32) map[uint32]string {
	got := map[uint32]string{}
	end := func(text string) map[uint32]string {
		for _, id := range ids {
			if got[id] == "" {
				got[id] = text
			}
		}
		return got
	}
	for waiting := len(ids); waiting > 0; {
		frame, err := h.ReadFrame()
		text := ""
		switch frame := frame.(type) {
		case *http2.MetaHeadersFrame:
			text = frame.PseudoValue("status")
		case *http2.RSTStreamFrame:
			text = frame.ErrCode.String()
		case *http2.GoAwayFrame:
			return end("GOAWAY " + frame.ErrCode.String())
		}
		if err != nil {
			return end(err.Error())
		}
		if id := frame.Header().StreamID; text != "" && got[id] == "" && slices.Contains(ids, id) {
			got[id] = text
			waiting--
		}
	}
	return got
}
