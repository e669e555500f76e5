package api

import (
	"bytes"
	"net/http"
	"strconv"
	"time"
)

// refusalHeaders are what follows the status line where net/http refuses a request that it cannot read.
// Answers of handlers have more, in the order of the alphabet, and this never first.
var refusalHeaders = []byte("Content-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n")

// refusal returns what is sent in place of b, the first bytes of an answer, where they are a refusal of
// net/http itself; else nil. No handler has seen the request, and its path may not be known: so it has the
// shape of RFC 6749 section 5.2 everywhere. Should net/http word its refusals in another way, they are sent as
// they are.
func refusal(b []byte, now time.Time) []byte {
	const digits = len("HTTP/1.1 ")
	if len(b) < digits+3 || b[digits] < '4' || b[digits] > '5' || !bytes.HasPrefix(b, []byte("HTTP/1.")) {
		return nil
	}
	_, rest, _ := bytes.Cut(b, []byte("\r\n"))
	status, err := strconv.Atoi(string(b[digits : digits+3]))
	// The answer to an unknown expectation has no body, and no handler gives that status.
	if err != nil || status != http.StatusExpectationFailed && !bytes.HasPrefix(rest, refusalHeaders) {
		return nil
	}
	body := appendOAuthError(nil, codeInvalidRequest, refusalReason(status))
	out := append(make([]byte, 0, 512), "HTTP/1.1 "...)
	out = strconv.AppendInt(out, int64(status), 10)
	out = append(append(out, ' '), http.StatusText(status)...)
	out = append(out, "\r\nCache-Control: no-store\r\nConnection: close\r\nContent-Length: "...)
	out = strconv.AppendInt(out, int64(len(body)), 10)
	out = append(out, "\r\nContent-Type: application/json\r\nDate: "...)
	out = now.UTC().AppendFormat(out, http.TimeFormat)
	out = append(out, "\r\nPragma: no-cache\r\nX-Content-Type-Options: nosniff\r\n\r\n"...)
	return append(out, body...)
}

func refusalReason(status int) string {
	switch status {
	case http.StatusExpectationFailed:
		return "no expectation but 100-continue is supported"
	case http.StatusRequestHeaderFieldsTooLarge:
		return "the header is too large"
	case http.StatusNotImplemented:
		return "the transfer encoding is not supported"
	case http.StatusHTTPVersionNotSupported:
		return "this version of HTTP is not supported"
	}
	return "the request is not well-formed HTTP"
}
