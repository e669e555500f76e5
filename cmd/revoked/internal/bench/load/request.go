package load

import (
	"encoding/binary"
	"fmt"
	"net/http"
	"time"

	"revoked/cmd/revoked/internal/cli"
)

// requestTime limits one request.
const requestTime = 30 * time.Second

// maxAnswer limits the body of an answer, in bytes.
const maxAnswer = 1 << 20

// A Request is a POST with any body. Baseline and subject get the same bytes.
type Request struct {
	path, host string
	header     http.Header
	head       string // lean conn: everything before the length of the body
}

// NewRequest returns a request with HTTP Basic credentials, which basic has in base64.
func NewRequest(path, host, basic, contentType string) *Request {
	return &Request{
		path: path, host: host,
		header: http.Header{"Authorization": {"Basic " + basic}, "Content-Type": {contentType}},
		head: fmt.Sprintf("POST %s HTTP/1.1\r\nHost: %s\r\nAuthorization: Basic %s\r\nContent-Type: %s\r\nContent-Length: ",
			path, host, basic, contentType),
	}
}

// A Call is a unary call that a gRPC target answers once the target is ready.
type Call struct {
	Path    string
	Message []byte // encoded message, without the length prefix
}

// FrameGRPC appends a message with its prefix: no compression, and the length (gRPC over HTTP/2,
// "Length-Prefixed-Message").
func FrameGRPC(b, message []byte) []byte {
	b = append(b, 0)
	b = binary.BigEndian.AppendUint32(b, uint32(len(message)))
	return append(b, message...)
}

// NewGRPC returns a request of a unary call.
func NewGRPC(path string) *Request {
	return &Request{path: path, header: http.Header{"Content-Type": {"application/grpc"}, "Te": {"trailers"}}}
}

// Describe returns a short text of an answer that was not expected.
func Describe(status int, body []byte) string {
	return fmt.Sprintf("status %d: %s", status, cli.Clean(string(body)))
}
