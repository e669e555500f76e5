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

	"revoked/transport/pki"
)

// codeHeader is the header of an error answer that holds the number of its sentinel error
// (revoked.Code).
const codeHeader = "Revoked-Code"

// newServer returns the HTTP server for calls from peers of version 0.3. It serves HTTP/2 only.
// Connections that carry frames bypass it.
func newServer(cfg Config, handle http.HandlerFunc) *http.Server {
	protocols := new(http.Protocols)
	protocols.SetHTTP2(true)
	return &http.Server{
		Handler:           handle,
		MaxHeaderBytes:    maxHeader,
		ReadHeaderTimeout: cfg.DialTimeout,
		IdleTimeout:       idleTimeout,
		Protocols:         protocols,
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams:          maxStreams,
			MaxReceiveBufferPerConnection: 3 << 20,
			MaxReceiveBufferPerStream:     1 << 20,
			SendPingTimeout:               cfg.Silence / 2,
			PingTimeout:                   cfg.Silence / 2,
			WriteByteTimeout:              cfg.Silence,
		},
		ErrorLog: slog.NewLogLogger(cfg.Log.Handler(), slog.LevelDebug),
	}
}

// serveCall limits the size and the duration of a call and passes it to the handler. The deadlines
// cover the whole call, so a peer that sends one byte per minute cannot keep the call open.
func serveCall(cfg Config, peers *loads, w http.ResponseWriter, r *http.Request) {
	node := PeerNode(r)
	if !peers.begin(node) {
		WriteError(w, http.StatusTooManyRequests, 0, tooManyCalls(node))
		return
	}
	body := &boundedBody{ReadCloser: r.Body, loads: peers, node: node, max: cfg.MaxBody}
	defer func() { peers.end(node, body.read) }()
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		WriteError(w, http.StatusMethodNotAllowed, 0, "calls between nodes must use POST")
		return
	}
	if r.ContentLength > cfg.MaxBody {
		WriteError(w, http.StatusRequestEntityTooLarge, 0, "request is too large")
		return
	}
	until := time.Now().Add(callTimeout)
	control := http.NewResponseController(w)
	if err := errors.Join(control.SetReadDeadline(until), control.SetWriteDeadline(until)); err != nil {
		return // a call without deadlines is not served
	}
	r.Body = body
	if logsPanic(cfg.Log, r, func() { cfg.Handler.ServeHTTP(w, r) }) {
		panic(http.ErrAbortHandler) // net/http resets the call, and the caller does not learn its outcome
	}
}

// tooManyCalls returns the message that refuses a call. The peer logs the message, so the message
// names the peer.
func tooManyCalls(node string) string {
	return fmt.Sprintf("node %s has too many calls in progress", node)
}

// logsPanic runs the handler of r. It logs a panic and returns true.
func logsPanic(log *slog.Logger, r *http.Request, handle func()) (panicked bool) {
	defer func() {
		v := recover()
		panicked = v != nil
		if v != nil && v != http.ErrAbortHandler {
			log.Error("handler of a peer call panicked", "path", r.URL.Path, "peer", PeerNode(r),
				"panic", v, "stack", string(debug.Stack()))
		}
	}()
	handle()
	return false
}

// PeerNode returns the node that made a call, from its verified certificate. It returns "" for a
// request that did not arrive through a Transport.
func PeerNode(r *http.Request) string {
	if r.TLS == nil || len(r.TLS.VerifiedChains) == 0 {
		return ""
	}
	node, err := pki.NodeOf(r.TLS.PeerCertificates[0])
	if err != nil {
		return ""
	}
	return node
}

// WriteError answers a call with an error: the caller gets a *CallError with these values. status
// must not be 200; code is a revoked.Code or 0. message is sent and logged, so it must not contain
// a token or a secret.
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
