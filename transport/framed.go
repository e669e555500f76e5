package transport

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"

	"revoked/transport/frames"
)

// frameLimits returns the limits of a connection that carries frames.
func (cfg Config) frameLimits() frames.Limits {
	return frames.Limits{Silence: cfg.Silence, MaxBody: cfg.MaxBody, MaxCalls: maxStreams}
}

// acceptFrames serves the connections that carry frames. It returns when the listener is closed;
// Close waits for the connections.
func (t *Transport) acceptFrames() {
	for {
		c, err := t.frames.Accept()
		if err != nil {
			return
		}
		t.wg.Go(func() {
			if err := t.serveFrames(c); err != nil && t.ctx.Err() == nil {
				t.log.Debug("connection of a peer ended", "peer", c.RemoteAddr().String(), "error", err)
			}
		})
	}
}

// serveFrames serves one connection until it ends. It returns after its handlers have returned.
func (t *Transport) serveFrames(c net.Conn) error {
	state := c.(*abruptConn).ConnectionState()
	f := &framed{t: t, request: &http.Request{
		Method: http.MethodPost, Proto: "HTTP/2.0", ProtoMajor: 2, RemoteAddr: c.RemoteAddr().String(), TLS: &state,
	}}
	f.node = PeerNode(f.request)
	s := frames.Server{
		Limits: t.cfg.frameLimits(), Begin: f.begin, Add: f.add, End: f.end, Call: f.call, Stream: f.stream,
	}
	return s.Serve(t.ctx, c)
}

// framed passes the calls from one connection to the handler. It presents them as HTTP requests, so
// that a handler is the same for both protocols.
type framed struct {
	t       *Transport
	node    string
	request *http.Request // copied for each call
}

// The methods begin, add and end limit the calls from the peer over all of its connections, see
// loads.
func (f *framed) begin() *frames.Answer {
	if f.t.loads.begin(f.node) {
		return nil
	}
	return &frames.Answer{Status: http.StatusTooManyRequests, Body: []byte(tooManyCalls(f.node))}
}

func (f *framed) add(n int64) *frames.Answer {
	if err := f.t.loads.add(f.node, n); err != nil {
		return &frames.Answer{Status: http.StatusRequestEntityTooLarge, Body: []byte(err.Error())}
	}
	return nil
}

func (f *framed) end(read int64) { f.t.loads.end(f.node, read) }

func (f *framed) call(ctx context.Context, path string, body []byte) (frames.Answer, bool) {
	return f.serve(ctx, path, body, nil)
}

// stream passes a stream to the handler. The stream counts as one call without a body.
func (f *framed) stream(ctx context.Context, path string, accept func() (*frames.Stream, error)) frames.Answer {
	if refusal := f.begin(); refusal != nil {
		return *refusal
	}
	defer f.end(0)
	a, ok := f.serve(ctx, path, nil, accept)
	if !ok {
		a.Status = http.StatusInternalServerError
	}
	return a
}

// serve calls the handler. ok is false if the handler panicked: the outcome is then unknown, so the
// caller gets no answer. The body is already in memory, so the handler never waits for the peer.
func (f *framed) serve(
	ctx context.Context, path string, body []byte, accept func() (*frames.Stream, error),
) (a frames.Answer, ok bool) {
	r := f.request.WithContext(ctx)
	r.URL, r.Header = &url.URL{Path: path}, http.Header{}
	r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	w := &answerWriter{accept: accept, header: http.Header{}}
	if logsPanic(f.t.log, r, func() { f.t.cfg.Handler.ServeHTTP(w, r) }) {
		return frames.Answer{}, false
	}
	code, _ := strconv.ParseUint(w.header.Get(codeHeader), 10, 32)
	return frames.Answer{Status: max(w.status, http.StatusOK), Code: uint32(code), Body: w.body}, true
}

// An answerWriter is the ResponseWriter of a call. It buffers the answer of the handler.
type answerWriter struct {
	accept func() (*frames.Stream, error) // nil if the call is not a stream
	header http.Header
	status int
	body   []byte
}

func (w *answerWriter) Header() http.Header { return w.header }

// WriteHeader keeps the first status, as net/http does.
func (w *answerWriter) WriteHeader(status int) {
	if w.status == 0 {
		w.status = status
	}
}

// Write appends to the answer, which is sent as a whole when the handler returns.
func (w *answerWriter) Write(b []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	w.body = append(w.body, b...)
	return len(b), nil
}
