package transport

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strconv"
	"strings"
	"time"
)

// codeHeader carries the number of the sentinel (revoked.Code) of an answer other than 200.
const codeHeader = "Revoked-Code"

func (t *Transport) newServer() *http.Server {
	protocols := new(http.Protocols)
	protocols.SetHTTP2(true)
	return &http.Server{
		Handler:           http.HandlerFunc(t.handle),
		MaxHeaderBytes:    maxHeader,
		ReadHeaderTimeout: t.cfg.DialTimeout,
		IdleTimeout:       idleTimeout,
		Protocols:         protocols,
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams:          maxStreams,
			MaxReceiveBufferPerConnection: 3 << 20,
			MaxReceiveBufferPerStream:     1 << 20,
			SendPingTimeout:               t.cfg.Silence / 2,
			PingTimeout:                   t.cfg.Silence / 2,
			WriteByteTimeout:              t.cfg.Silence,
		},
		ErrorLog: slog.NewLogLogger(t.log.Handler(), slog.LevelDebug),
	}
}

// handle bounds a call in size and time and passes it to the handler.
func (t *Transport) handle(w http.ResponseWriter, r *http.Request) {
	t.mu.Lock()
	if t.closed {
		t.mu.Unlock()
		return
	}
	t.wg.Add(1)
	t.mu.Unlock()
	defer t.wg.Done()
	defer t.confess(r)
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		WriteError(w, http.StatusMethodNotAllowed, 0, "calls between nodes are POST")
		return
	}
	if r.ContentLength > t.cfg.MaxBody {
		WriteError(w, http.StatusRequestEntityTooLarge, 0, "request is too large")
		return
	}
	until := time.Now().Add(callTimeout)
	control := http.NewResponseController(w)
	if err := errors.Join(control.SetReadDeadline(until), control.SetWriteDeadline(until)); err != nil {
		return // an unbounded call is not served
	}
	r.Body = &boundedBody{ReadCloser: r.Body, max: t.cfg.MaxBody, left: t.cfg.MaxBody}
	t.cfg.Handler.ServeHTTP(w, r)
}

// confess logs a panic of the handler as the defect that it is; net/http then breaks the call off and
// the caller learns nothing of its outcome.
func (t *Transport) confess(r *http.Request) {
	v := recover()
	if v == nil {
		return
	}
	if v != http.ErrAbortHandler {
		t.log.Error("a call from another node made the handler panic", "path", r.URL.Path, "peer", PeerNode(r),
			"panic", v, "stack", string(debug.Stack()))
	}
	panic(http.ErrAbortHandler)
}

// A boundedBody fails with ErrTooLarge beyond its limit, until ServeStream lifts it.
type boundedBody struct {
	io.ReadCloser
	max, left int64
	lifted    bool
}

func (b *boundedBody) Read(p []byte) (int, error) {
	if b.lifted {
		return b.ReadCloser.Read(p)
	}
	if b.left < 0 {
		return 0, fmt.Errorf("%w: body, at most %d bytes", ErrTooLarge, b.max)
	}
	if int64(len(p)) > b.left+1 {
		p = p[:b.left+1]
	}
	n, err := b.ReadCloser.Read(p)
	b.left -= int64(n)
	if b.left < 0 {
		return max(n-1, 0), fmt.Errorf("%w: body, at most %d bytes", ErrTooLarge, b.max)
	}
	return n, err
}

// PeerNode returns the node that made a call, out of its verified certificate. It is empty for a
// request that did not come through a Transport.
func PeerNode(r *http.Request) string {
	if r.TLS == nil || len(r.TLS.VerifiedChains) == 0 {
		return ""
	}
	node, err := nodeOf(r.TLS.PeerCertificates[0])
	if err != nil {
		return ""
	}
	return node
}

// WriteError answers a call with an error: the caller gets a *CallError with these values. The
// status must not be 200; code is a revoked.Code or 0. The message crosses the wire: no token, no
// secret.
func WriteError(w http.ResponseWriter, status int, code uint32, message string) {
	if len(message) > maxMessage {
		message = strings.ToValidUTF8(message[:maxMessage], "")
	}
	h := w.Header()
	h.Set("Content-Type", "text/plain; charset=utf-8")
	if code != 0 {
		h.Set(codeHeader, strconv.FormatUint(uint64(code), 10))
	}
	w.WriteHeader(status)
	_, _ = io.WriteString(w, message)
}
