package api

import (
	"bufio"
	"errors"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/labstack/echo/v4"
)

const (
	typeNDJSON = "application/x-ndjson"
	// streamIdle is how long a stream may stand still: nothing read, nothing written.
	streamIdle = time.Minute
)

// A lineReader splits a stream into lines of bounded length. A line ends with LF, CR LF or the end of
// the stream.
type lineReader struct {
	br    *bufio.Reader
	limit int
	n     int // number of the line read last, from 1
}

func newLineReader(r io.Reader, limit int) *lineReader {
	return &lineReader{br: bufio.NewReaderSize(r, limit+2), limit: limit}
}

// next returns the next line without its end; it is good until the next call. tooLong: the line had
// more than limit bytes and was skipped. The error is io.EOF after the last line, or that of the
// stream; what was read of a line when the stream broke is no line.
func (l *lineReader) next() (line []byte, tooLong bool, err error) {
	line, err = l.br.ReadSlice('\n')
	l.n++
	for errors.Is(err, bufio.ErrBufferFull) {
		tooLong = true
		_, err = l.br.ReadSlice('\n')
	}
	if err != nil && (!errors.Is(err, io.EOF) || len(line) == 0 && !tooLong) {
		return nil, false, err
	}
	if tooLong {
		return nil, true, nil
	}
	line = trimLineEnd(line)
	return line, len(line) > l.limit, nil
}

func trimLineEnd(b []byte) []byte {
	if n := len(b); n > 0 && b[n-1] == '\n' {
		b = b[:n-1]
	}
	if n := len(b); n > 0 && b[n-1] == '\r' {
		b = b[:n-1]
	}
	return b
}

func blank(line []byte) bool {
	for _, c := range line {
		if c != ' ' && c != '\t' && c != '\r' {
			return false
		}
	}
	return true
}

// A stream is a request whose body and answer have no end in sight. Its deadlines move on as long as
// something moves. They are the operating system's, so they follow time.Now and not Config.Now.
type stream struct {
	c    echo.Context
	rc   *http.ResponseController
	idle time.Duration
	hold *hold // nil: parts of the answer are sent as they come
}

func newStream(c echo.Context) *stream {
	return &stream{c: c, rc: http.NewResponseController(c.Response()), idle: streamIdle}
}

// Read reads the body. Reading is progress of the answer too: a client that sends need not read yet.
func (s *stream) Read(p []byte) (int, error) {
	at := time.Now().Add(s.idle)
	if err := s.rc.SetReadDeadline(at); err != nil {
		return 0, err
	}
	s.hold.reading()
	n, err := s.c.Request().Body.Read(p)
	s.hold.read(err)
	if n > 0 {
		if derr := s.rc.SetWriteDeadline(time.Now().Add(s.idle)); derr != nil {
			return n, derr
		}
	}
	return n, err
}

// Write sends a part of the answer.
func (s *stream) Write(p []byte) (int, error) {
	s.hold.wait(len(p))
	if err := s.rc.SetWriteDeadline(time.Now().Add(s.idle)); err != nil {
		return 0, err
	}
	return s.c.Response().Write(p)
}

// flush sends what was written.
func (s *stream) flush() error { return s.rc.Flush() }

// stopReading makes a Read that waits return.
func (s *stream) stopReading() { _ = s.rc.SetReadDeadline(time.Now().Add(-time.Second)) }

// Bounds of a hold.
const (
	holdFree    = 32 << 10 // bytes that every client's window takes (RFC 9113 section 6.9.2: 65,535)
	holdSilence = 250 * time.Millisecond
)

// A hold keeps parts of an HTTP/2 answer back while the body is still coming. In net/http's HTTP/2 the
// updates of the client's sending window wait behind data of the same stream that the client's own
// window does not take: client and server would wait for each other for good. So no more than
// holdFree bytes are sent before the body has ended, unless the client has been silent for holdSilence
// after all that it sent was read: it may be waiting for results. A client that is slow, sends more than
// the window after that, and reads nothing, runs into the idle timeout; HTTP/1.1 has no such limit.
//
// The methods of a nil hold do nothing.
type hold struct {
	mu    sync.Mutex
	sent  int
	since time.Time     // a Read of the body waits since then; zero: none does
	ended chan struct{} // closed when the body has ended
}

func newHold() *hold { return &hold{ended: make(chan struct{})} }

func (h *hold) reading() {
	if h == nil {
		return
	}
	h.mu.Lock()
	h.since = time.Now()
	h.mu.Unlock()
}

func (h *hold) read(err error) {
	if h == nil {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.since = time.Time{}
	if err == nil {
		return
	}
	select {
	case <-h.ended:
	default:
		close(h.ended)
	}
}

// wait returns when n bytes may be sent.
func (h *hold) wait(n int) {
	if h == nil {
		return
	}
	tick := time.NewTicker(holdSilence / 5)
	defer tick.Stop()
	for {
		h.mu.Lock()
		ok := h.sent+n <= holdFree || !h.since.IsZero() && time.Since(h.since) >= holdSilence
		if ok {
			h.sent += n
		}
		h.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-h.ended:
			return
		case <-tick.C:
		}
	}
}
