package client

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"
)

// A StatusError is a response other than 2xx.
type StatusError struct {
	Name   string // the call, for instance "introspect the token"
	Addr   string // address of the node
	Status int
	Code   string // OAuth error code (RFC 6749 section 5.2) or title of the problem (RFC 9457)
	Detail string // may be empty
}

// Error returns name, address, status, code and detail.
func (e *StatusError) Error() string {
	msg := fmt.Sprintf("%s at %s: %d", e.Name, e.Addr, e.Status)
	if e.Code != "" {
		msg += " " + e.Code
	}
	if e.Detail != "" {
		msg += ": " + e.Detail
	}
	return msg
}

// readStatusError parses the body of a response other than 2xx. It ignores a body in another
// format, such as the page of a proxy.
func readStatusError(name, addr string, resp *http.Response) error {
	e := &StatusError{Name: name, Addr: addr, Status: resp.StatusCode, Code: http.StatusText(resp.StatusCode)}
	b, err := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	format, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if err != nil || (format != "application/json" && format != "application/problem+json") {
		return e
	}
	var body struct {
		Error       string `json:"error"`
		Description string `json:"error_description"`
		Title       string `json:"title"`
		Detail      string `json:"detail"`
	}
	if json.Unmarshal(b, &body) != nil {
		return e
	}
	e.Code = cmp.Or(body.Error, body.Title, e.Code)
	e.Detail = trimCode(e.Code, cmp.Or(body.Description, body.Detail))
	return e
}

// trimCode returns detail without a leading repetition of code, in the words of the title or of the
// error behind it.
func trimCode(code, detail string) string {
	if strings.EqualFold(detail, code) {
		return ""
	}
	for _, again := range []string{code, "invalid request", "unprocessable request"} {
		if n := len(again) + len(": "); len(detail) > n && strings.EqualFold(detail[:n], again+": ") {
			return detail[n:]
		}
	}
	return detail
}
