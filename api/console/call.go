package console

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"revoked"
	"revoked/api/access"
	"revoked/api/clientauth"
	"revoked/api/request"
)

// errTooLong is returned for an answer that is longer than maxAnswer.
var errTooLong = fmt.Errorf("%w: the answer is longer than %d bytes", revoked.ErrUnprocessable, maxAnswer)

// maxAnswer limits the answer of a call that a page holds in memory, in bytes.
const maxAnswer = 16 << 20

// An answer is the response of the API to a call from the console. It implements
// [http.ResponseWriter].
type answer struct {
	outer  http.ResponseWriter // the response to the browser, for its deadlines; may be nil
	header http.Header
	status int
	body   bytes.Buffer
	write  func([]byte) // receives the body of a 200 instead of the field body; may be nil
	full   bool         // whether the body was too long
}

func newAnswer(outer http.ResponseWriter) *answer {
	return &answer{outer: outer, header: make(http.Header)}
}

func (a *answer) Header() http.Header { return a.header }

func (a *answer) WriteHeader(status int) {
	if a.status == 0 {
		a.status = status
	}
}

func (a *answer) Write(p []byte) (int, error) {
	a.WriteHeader(http.StatusOK)
	switch {
	case a.status == http.StatusOK && a.write != nil:
		a.write(p)
	case a.full:
	case a.body.Len()+len(p) > maxAnswer:
		a.full, a.body = true, bytes.Buffer{}
	default:
		a.body.Write(p)
	}
	return len(p), nil
}

// Flush implements [http.Flusher]. It does nothing, because the answer does not go to the browser.
func (a *answer) Flush() {}

// Unwrap lets a slow call extend the deadline of the browser's connection.
func (a *answer) Unwrap() http.ResponseWriter { return a.outer }

// decode reads the JSON of a success into out, or returns the failure.
func (a *answer) decode(out any) error {
	switch {
	case a.full:
		return errTooLong
	case a.status == http.StatusUnauthorized:
		return clientauth.ErrUnauthenticated // the client has changed since the session was found
	case a.status >= http.StatusBadRequest:
		return a.failure()
	case out == nil:
		return nil
	}
	if err := json.Unmarshal(a.body.Bytes(), out); err != nil {
		return fmt.Errorf("decode answer of the API: %w", err)
	}
	return nil
}

// failure returns the answer as the failure that it describes: a problem document, or the error of
// an OAuth endpoint.
func (a *answer) failure() *request.Failure {
	var p struct {
		Title, Detail string
		Description   string `json:"error_description"`
		Matched       *int
	}
	_ = json.Unmarshal(a.body.Bytes(), &p) // an answer may have only a status and no body
	f := &request.Failure{Status: a.status, Title: p.Title, Detail: p.Detail, Outcome: "refused", Matched: p.Matched}
	if f.Title == "" {
		f.Title = p.Description
	}
	if f.Title == "" {
		f.Title = http.StatusText(a.status)
	}
	if n, err := strconv.Atoi(a.header.Get("Retry-After")); err == nil {
		f.RetryAfter = time.Duration(n) * time.Second
	}
	return f
}

// call makes an API call as the client of the session. body is sent as JSON unless it is nil;
// out gets the JSON of the answer and may be nil.
func (v *visit) call(method, path string, body, out any) error {
	var b []byte
	if body != nil {
		var err error
		if b, err = json.Marshal(body); err != nil {
			return fmt.Errorf("encode API call: %w", err)
		}
	}
	a := newAnswer(v.Response())
	if err := v.send(v.http.Context(), a, method, path, request.TypeJSON, b); err != nil {
		return err
	}
	return a.decode(out)
}

// send makes an API call, which writes its answer to w. The call has the address, the
// connection and the request id of the browser's request, and none of its other headers.
func (v *visit) send(
	ctx context.Context, w http.ResponseWriter, method, path, contentType string, body []byte, header ...string,
) error {
	ctx = request.WithInner(access.WithCaller(ctx, v.session.caller), v.inner)
	req, err := http.NewRequestWithContext(ctx, method, path, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("%w: the API has no such call", revoked.ErrInvalid)
	}
	outer := v.http
	req.Host, req.RemoteAddr, req.TLS = outer.Host, outer.RemoteAddr, outer.TLS
	req.RequestURI = req.URL.RequestURI()
	for _, name := range []string{"X-Forwarded-For", "X-Forwarded-Proto"} {
		req.Header[name] = outer.Header[name]
	}
	req.Header.Set("X-Request-Id", v.ID())
	if len(body) > 0 {
		req.Header.Set("Content-Type", contentType)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	v.console.cfg.API.ServeHTTP(w, req)
	return nil
}

// An openAnswer is an answer of the API that is streamed to the browser.
type openAnswer struct{ http.ResponseWriter }

// WriteHeader omits the header WWW-Authenticate, for which a browser would prompt for a password.
func (a openAnswer) WriteHeader(status int) {
	a.Header().Del("WWW-Authenticate")
	a.ResponseWriter.WriteHeader(status)
}

// Unwrap lets the API flush, and set deadlines of the connection.
func (a openAnswer) Unwrap() http.ResponseWriter { return a.ResponseWriter }

func contextWith(r *http.Request, v *visit) context.Context {
	return context.WithValue(r.Context(), visitKey{}, v)
}

// retrySeconds returns a Retry-After value, at least 1.
func retrySeconds(d time.Duration) string {
	return strconv.FormatInt(max(1, int64((d+time.Second-1)/time.Second)), 10)
}

// apiPath escapes ids and joins them into a path.
func apiPath(parts ...string) string {
	escaped := make([]string, len(parts))
	for i, p := range parts {
		escaped[i] = url.PathEscape(p)
	}
	return strings.Join(escaped, "/")
}
