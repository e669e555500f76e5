package serve

import (
	"bytes"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// refusalHeader follows the status line when net/http refuses a request that it cannot parse. An
// answer of a handler has more headers, sorted, so it never begins with these.
var refusalHeader = []byte("Content-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n")

// jsonRefusal returns the JSON error (RFC 6749 section 5.2) that replaces b, if b is a refusal of
// net/http itself, else nil. The contract requires JSON and no-store in every error of an OAuth
// endpoint, and no handler sees these requests. If Go rewords its refusals, they pass unchanged.
//
// The answer has the headers of forward authentication, with empty values. Every answer of
// /v1/check needs them, and the path of such a request is unknown here.
func jsonRefusal(b []byte) []byte {
	const digits = len("HTTP/1.1 ")
	if len(b) < digits+3 || b[digits] < '4' || b[digits] > '5' || !bytes.HasPrefix(b, []byte("HTTP/1.")) {
		return nil
	}
	_, rest, _ := bytes.Cut(b, []byte("\r\n"))
	status, err := strconv.Atoi(string(b[digits : digits+3]))
	// A 417 has no body, and no handler answers with it.
	if err != nil || status != http.StatusExpectationFailed && !bytes.HasPrefix(rest, refusalHeader) {
		return nil
	}
	text := http.StatusText(status)
	body := fmt.Sprintf(`{"error":"invalid_request","error_description":"%s"}`, strings.ToLower(text))
	return fmt.Appendf(nil, "HTTP/1.1 %d %s\r\nCache-Control: no-store\r\nConnection: close\r\nContent-Length: %d\r\n"+
		"Content-Type: application/json\r\nDate: %s\r\nPragma: no-cache\r\nRevoked-Client-Id: \r\nRevoked-Scope: \r\n"+
		"Revoked-Subject: \r\nX-Content-Type-Options: nosniff\r\n\r\n%s",
		status, text, len(body), time.Now().UTC().Format(http.TimeFormat), body)
}
