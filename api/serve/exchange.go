package serve

import (
	"context"
	"io"
	"net/http"
	"strings"
	"time"
)

const (
	// bodyGrace is how long an answer waits for the rest of a body that the handler did not read. A
	// client may send header and body in two packets.
	bodyGrace = 50 * time.Millisecond
	// maxDiscard bounds the bytes of such a body that are read to keep the connection open.
	maxDiscard = 256 << 10
)

// A Refusal is the reason why a handler must refuse a request.
type Refusal struct {
	Status int    // 431 or 503
	Cause  string // header, requests, address_requests, connections or address_connections
	Text   string // a sentence that begins in lower case, in the characters of RFC 6749 section 5.2
}

// refusals holds the Refusal for each cause.
var refusals = map[string]*Refusal{
	causeHeader:   {http.StatusRequestHeaderFieldsTooLarge, causeHeader, "the request header is too large"},
	causeRequests: {http.StatusServiceUnavailable, causeRequests, "too many requests in progress, retry later"},
	causeAddressRequests: {http.StatusServiceUnavailable, causeAddressRequests,
		"too many requests in progress from this address, retry later"},
	causeConnections: {http.StatusServiceUnavailable, causeConnections, "too many connections, retry later"},
	causeAddressConnections: {http.StatusServiceUnavailable, causeAddressConnections,
		"too many connections from this address, retry later"},
}

type refusalKey struct{}

// Refused returns the reason why the server has no capacity for r, or nil. The handler answers with
// the status of the Refusal, except to probes.
func Refused(r *http.Request) *Refusal {
	f, _ := r.Context().Value(refusalKey{}).(*Refusal)
	return f
}

// An exchange is one request and its answer. It is the ResponseWriter of the handler, and as
// *exchangeBody the body of an HTTP/1 request.
type exchange struct {
	http.ResponseWriter
	server *Server
	conn   *recordingConn // nil: HTTP/2, or not served by a Server
	body   io.ReadCloser  // nil: the request has none

	begun      bool // the final header has been passed to net/http
	fullDuplex bool
	waits      bool // the client sends the body only after 100 Continue
	ended      bool // the body has been read to its end
	close      bool // the connection closes after the answer
}

// ServeHTTP counts a request and calls the handler, with a Refusal if a limit is exceeded. It
// closes an HTTP/1 connection if the body of the request has not arrived at the end of the answer.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	link, _ := r.Context().Value(connKey{}).(*connLink)
	x := &exchange{ResponseWriter: w, server: s}
	cause := ""
	if link != nil {
		if x.conn = link.recording; x.conn != nil {
			x.conn.answering.Store(true)
		}
		addr := s.requests.limitedAddr(link.slot.addr, r)
		if cause = link.slot.refused; cause != "" {
			x.close = true
		} else if cause = s.requests.enter(addr); cause == "" {
			defer s.requests.leave(addr)
		}
	}
	if r.ProtoMajor >= 2 && headerListSize(r) > maxHeaderBytes+headerOverhead {
		cause = causeHeader
		clear(r.Header) // net/http keeps the header until the client has read the answer
	}
	if cause != "" {
		s.metrics.requestsRefused.WithLabelValues(cause).Inc()
		s.rare.warn("request refused at a limit", cause, r.RemoteAddr)
		r = r.WithContext(context.WithValue(r.Context(), refusalKey{}, refusals[cause]))
	}
	if x.conn != nil && r.Body != http.NoBody {
		x.body, x.waits = r.Body, strings.EqualFold(r.Header.Get("Expect"), "100-continue")
		r.Body = (*exchangeBody)(x)
	} else {
		x.readAll()
	}
	defer x.end()
	s.cfg.Handler.ServeHTTP(x, r)
}

// headerListSize returns the size of a header as RFC 9113 section 6.5.2 counts it, in bytes.
func headerListSize(r *http.Request) int {
	const perField, pseudo = 32, len(":method") + len(":path") + len(":authority") + len(":scheme") + len("https")
	n := 4*perField + pseudo + len(r.Method) + len(r.RequestURI) + len(r.Host)
	for name, values := range r.Header {
		for _, v := range values {
			n += len(name) + len(v) + perField
		}
	}
	return n
}

// WriteHeader passes the header to net/http. It first decides whether the connection stays open.
func (x *exchange) WriteHeader(status int) {
	if status >= http.StatusOK && !x.begun {
		x.begun = true
		retiring := x.conn != nil && x.server.retiring.Load() // over HTTP/2 see frameConn.announce
		if x.close || retiring || !x.bodyArrived() {
			x.close = true
			x.Header().Set("Connection", "close") // over HTTP/2 this sends GOAWAY
		}
	}
	x.ResponseWriter.WriteHeader(status)
}

// Write passes a part of the answer to net/http.
func (x *exchange) Write(b []byte) (int, error) {
	if !x.begun {
		x.WriteHeader(http.StatusOK)
	}
	return x.ResponseWriter.Write(b)
}

// EnableFullDuplex lets the answer begin before the body has ended. It also makes an HTTP/1
// connection close after the answer: net/http would read the rest of a malformed body as the next
// request.
func (x *exchange) EnableFullDuplex() error {
	x.fullDuplex, x.close = true, x.close || x.conn != nil
	return http.NewResponseController(x.ResponseWriter).EnableFullDuplex()
}

// Unwrap returns the ResponseWriter of net/http, see [http.ResponseController].
func (x *exchange) Unwrap() http.ResponseWriter { return x.ResponseWriter }

// bodyArrived reports whether the body has ended, or need not end before the answer. It first reads
// the arrived part of a body that the handler did not read to its end. net/http would wait for the
// rest until the read deadline before it sends the header.
func (x *exchange) bodyArrived() bool {
	if x.body == nil || x.ended || x.fullDuplex {
		return true
	}
	r := (*exchangeBody)(x)
	if x.waits {
		return false // reading would request the body from the client
	}
	at := time.Now().Add(bodyGrace) // deadlines of sockets follow the system's clock
	if err := http.NewResponseController(x.ResponseWriter).SetReadDeadline(at); err != nil {
		return false
	}
	_, _ = io.CopyN(io.Discard, r, maxDiscard)
	return x.ended
}

// readAll removes the read deadline of an HTTP/1 request that has arrived completely. From then on
// net/http watches for the end of the connection, and would cancel the request at the deadline.
func (x *exchange) readAll() {
	if x.conn != nil {
		_ = http.NewResponseController(x.ResponseWriter).SetReadDeadline(time.Time{})
	}
}

// end closes an HTTP/1 connection if the body of its request has not ended. Otherwise net/http
// would wait for the rest, or read it as the next request.
func (x *exchange) end() {
	if x.body != nil && !x.ended {
		x.conn.stopReading()
	}
}

// An exchangeBody is the body of an exchange.
type exchangeBody exchange

func (b *exchangeBody) Read(p []byte) (int, error) {
	b.waits = false
	n, err := b.body.Read(p)
	if err == io.EOF && !b.ended {
		b.ended = true
		(*exchange)(b).readAll()
	}
	return n, err
}

func (b *exchangeBody) Close() error { return b.body.Close() }
