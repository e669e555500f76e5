package request

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"revoked"
	"revoked/api/strictjson"
)

// Content types of responses.
const (
	TypeText    = "text/plain; charset=utf-8"
	typeProblem = "application/problem+json"
)

// Header values of failures, unless the failure sets its own.
const (
	challenge  = `Basic realm="revoked"`
	retryAfter = "1" // seconds, for 429 and 503
)

// jsonType is a header value that all responses share. It must not be changed.
var jsonType = []string{TypeJSON}

// Send sends a whole response. net/http drops the body of a response to HEAD.
func (r *Request) Send(status int, contentType string, body []byte) error {
	value := jsonType
	if contentType != TypeJSON {
		value = []string{contentType}
	}
	r.Response().Header()["Content-Type"] = value
	r.Response().WriteHeader(status)
	_, err := r.Response().Write(body)
	return err
}

// SendJSON sends v as a JSON document.
func (r *Request) SendJSON(status int, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode response: %w", err)
	}
	return r.Send(status, TypeJSON, append(b, '\n'))
}

// IndexView is the response to most writes.
type IndexView struct {
	Index   uint64 `json:"index"`
	Matched *int   `json:"matched,omitempty"`
}

// SendIndex sends the log index of a write. If err is not nil, it only returns err.
func (r *Request) SendIndex(index uint64, err error) error {
	if err != nil {
		return err
	}
	return r.SendJSON(http.StatusOK, IndexView{Index: index})
}

// UnixSeconds is a time of the server as JSON: whole Unix seconds, null for the zero time.
type UnixSeconds revoked.Time

// MarshalJSON implements [json.Marshaler].
func (t UnixSeconds) MarshalJSON() ([]byte, error) {
	if t == 0 {
		return []byte("null"), nil
	}
	return strconv.AppendInt(nil, revoked.Time(t).Unix(), 10), nil
}

// UnixTime is a time as JSON: Unix seconds, null for the zero time.
type UnixTime revoked.Time

// MarshalJSON implements [json.Marshaler].
func (t UnixTime) MarshalJSON() ([]byte, error) {
	if t == 0 {
		return []byte("null"), nil
	}
	return strictjson.AppendTime(nil, revoked.Time(t)), nil
}

// RevocationView is the end of a grant, as grants and explanations show it.
type RevocationView struct {
	At     UnixSeconds `json:"at"`
	By     string      `json:"by"`
	Reason string      `json:"reason"`
	Index  uint64      `json:"index"`
	Cutoff bool        `json:"cutoff,omitempty"` // a cut-off has revoked the grant
}

// SelectorView is the selector of a cut-off, as the feed and explanations show it. It converts from
// [revoked.Selector].
type SelectorView struct {
	ClientID string `json:"client_id,omitempty"`
	Subject  string `json:"subject,omitempty"`
	Session  string `json:"session,omitempty"`
	GrantID  string `json:"grant_id,omitempty"`
	Issuer   string `json:"issuer,omitempty"`
}

// problemBody is an RFC 9457 problem document.
type problemBody struct {
	Type    string `json:"type"`
	Title   string `json:"title"`
	Status  int    `json:"status"`
	Detail  string `json:"detail,omitempty"`
	Matched *int   `json:"matched,omitempty"`
}

// Fail sends the response to err in the shape of the request's path, and records its outcome. If a
// response has begun, it only records err. The text of a 5xx cause goes only to the log. No other
// function writes an error.
func (r *Request) Fail(err error) {
	if r.Response().Committed {
		r.Err = err
		return
	}
	path := r.Request().URL.Path
	f := FailureOf(path, err)
	r.Outcome, r.Err = f.Outcome, cmp.Or(f.Cause, r.Err)
	h := r.Response().Header()
	if f.Allow != "" {
		h.Set("Allow", f.Allow)
	}
	if f.Challenge != "" {
		h.Set("WWW-Authenticate", f.Challenge)
	}
	if f.RetryAfter > 0 {
		h.Set("Retry-After", retrySeconds(f.RetryAfter))
	}
	SetStatusHeaders(h, f.Status)
	if isOAuth(path) || f.Unrouted && !strings.HasPrefix(path, "/v1/") {
		_ = r.Send(f.Status, TypeJSON, appendOAuthError(make([]byte, 0, 96), cmp.Or(f.Code, CodeInvalidRequest), f.Title))
		return
	}
	body, err := json.Marshal(problemBody{Type: "about:blank", Title: f.Title, Status: f.Status,
		Detail: strings.ToValidUTF8(f.Detail, "?"), Matched: f.Matched})
	if err != nil {
		return
	}
	_ = r.Send(f.Status, typeProblem, body)
}

// appendOAuthError appends the error object of RFC 6749 section 5.2. description is a constant of
// this package, in the characters that the section allows.
func appendOAuthError(b []byte, code, description string) []byte {
	b = append(b, `{"error":"`...)
	b = append(b, code...)
	b = append(b, `","error_description":"`...)
	b = append(b, description...)
	return append(b, `"}`...)
}

// SetStatusHeaders sets the headers that a status requires, unless they are already set.
func SetStatusHeaders(h http.Header, status int) {
	switch status {
	case http.StatusUnauthorized:
		if h.Get("WWW-Authenticate") == "" {
			h["Www-Authenticate"] = []string{challenge}
		}
	case http.StatusTooManyRequests, http.StatusServiceUnavailable:
		if h.Get("Retry-After") == "" {
			h["Retry-After"] = []string{retryAfter}
		}
	}
}

// retrySeconds returns a Retry-After value, at least 1.
func retrySeconds(d time.Duration) string {
	return strconv.FormatInt(max(1, int64((d+time.Second-1)/time.Second)), 10)
}
