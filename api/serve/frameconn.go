package serve

import (
	"crypto/tls"
	"errors"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// firstRequestTime is how long an HTTP/2 connection may exist without a request.
	firstRequestTime = 10 * time.Second
	// frameTime limits the time in which a frame must arrive, except for the frames of a header.
	frameTime = 10 * time.Second
	// maxBlockBytes bounds the bytes of all incomplete HTTP/2 headers of a port. A byte may decode
	// to a field of 56 bytes in memory.
	maxBlockBytes = 2 << 20

	prefaceLen  = 24 // RFC 9113 section 3.4
	frameHeader = 9  // RFC 9113 section 4.1

	typeHeaders, typeContinuation = 0x1, 0x9
	flagEndHeaders                = 0x4
)

// readHeaderTimeout limits the time for the first byte, for the TLS handshake and for each header.
const readHeaderTimeout = 5 * time.Second

// A frameConn is an HTTP/2 connection above TLS that limits the time of each frame and each header.
// The HTTP/2 server has no such limit. It waits for the rest of a frame, or for the CONTINUATION of
// an incomplete header, until the connection has been idle for idleTimeout.
//
// In the other direction it parses the server's frame headers, so that [frameConn.announce] can put
// a GOAWAY between two frames.
//
// Only the server's reading goroutine calls Read. Write may be called concurrently.
type frameConn struct {
	*tls.Conn
	link    connLink
	blocks  *atomic.Int64 // bytes of incomplete headers on this port
	onError func(cause string)

	buf    []byte // bytes that were read ahead, all of them parsed
	unread []byte // part of buf that Read has not returned yet
	parser frameParser
	limit  time.Time // deadline in force; zero: none

	mu     sync.Mutex
	held   int64 // this connection's part of blocks
	closed bool  // hold has no effect any longer

	writing   sync.Mutex
	sent      frameParser // parser of the bytes that the server has sent
	retiring  bool        // the client must learn that the connection ends
	late      bool        // it began during a shutdown: the announcement follows its first answer
	announced bool
}

func newFrameConn(c *tls.Conn, s *slot, blocks *atomic.Int64, onError func(string)) *frameConn {
	return &frameConn{Conn: c, link: connLink{slot: s}, blocks: blocks, onError: onError,
		buf: make([]byte, 1<<10), parser: frameParser{skip: prefaceLen}}
}

func (c *frameConn) linkOf() *connLink { return &c.link }

// SetReadDeadline does nothing: Read sets the deadlines.
func (c *frameConn) SetReadDeadline(time.Time) error { return nil }

// errBlocks is returned when incomplete headers use too much memory.
var errBlocks = errors.New("too many incomplete headers")

func (c *frameConn) Read(b []byte) (int, error) {
	if len(c.unread) > 0 {
		n := copy(b, c.unread)
		c.unread = c.unread[n:]
		return n, nil
	}
	into := b
	if len(b) < len(c.buf) {
		into = c.buf
	}
	if err := c.setLimit(time.Now()); err != nil {
		return 0, err
	}
	n, err := c.Conn.Read(into)
	c.parser.parse(into[:n])
	c.hold(c.parser.blockBytes)
	switch {
	case c.parser.blockBytes > 0 && c.blocks.Load() > maxBlockBytes:
		c.onError(causeBlocks)
		return 0, errBlocks
	case errors.Is(err, os.ErrDeadlineExceeded):
		c.onError(causeFrame)
	}
	if len(b) < len(c.buf) {
		m := copy(b, into[:n])
		c.unread = into[m:n]
		n = m
	}
	return n, err
}

// setLimit sets the deadline of the next Read. The deadline changes only when a frame or a header
// begins or ends.
func (c *frameConn) setLimit(now time.Time) error {
	p := &c.parser
	began := p.began
	p.began = false
	switch {
	case p.blockBytes > 0 && (began || c.limit.IsZero()):
		c.limit = now.Add(readHeaderTimeout)
	case p.blockBytes > 0:
		return nil
	case p.midFrame() && (began || c.limit.IsZero()):
		c.limit = now.Add(frameTime)
	case p.midFrame():
		return nil
	case !p.request && c.limit.IsZero():
		c.limit = now.Add(firstRequestTime)
	case p.request && !c.limit.IsZero():
		c.limit = time.Time{}
	default:
		return nil
	}
	return c.Conn.SetReadDeadline(c.limit)
}

// hold records that this connection holds n bytes of an incomplete header.
func (c *frameConn) hold(n int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.closed {
		c.blocks.Add(n - c.held)
		c.held = n
	}
}

// Write sends frames of the server. After them it sends the GOAWAY that announce could not send.
func (c *frameConn) Write(b []byte) (int, error) {
	c.writing.Lock()
	defer c.writing.Unlock()
	n, err := c.Conn.Write(b)
	c.sent.parse(b[:n])
	if err == nil {
		err = c.sendNotice()
	}
	return n, err
}

// announce makes the client open no further stream here. Requests that are already on their way
// are served: the announcement names the highest possible stream (RFC 9113 section 6.8). The
// server's own GOAWAY names the last stream that the server has seen, and the server ignores later
// streams. announce blocks while the client accepts no byte.
func (c *frameConn) announce() {
	c.writing.Lock()
	defer c.writing.Unlock()
	c.retiring = true
	_ = c.sendNotice() // the next Write fails too
}

// goAwayNotice is a GOAWAY frame: its header, stream 2^31-1 and NO_ERROR.
var goAwayNotice = []byte{0, 0, 8, 7, 0, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0}

// sendNotice sends the announcement once, between two frames, and not before the first one, which
// is SETTINGS. The caller holds writing.
func (c *frameConn) sendNotice() error {
	if !c.retiring || c.announced || !c.sent.began || c.sent.midFrame() || c.sent.blockBytes > 0 ||
		c.late && !c.sent.request {
		return nil
	}
	c.announced = true
	_, err := c.Conn.Write(goAwayNotice)
	return err
}

// Close may be called twice, and concurrently with Read.
func (c *frameConn) Close() error {
	c.hold(0)
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	return c.Conn.Close()
}

// A frameParser parses the frame headers of one direction. It keeps no content.
type frameParser struct {
	skip       int // bytes of the preface or of a payload that are to come
	header     [frameHeader]byte
	n          int   // bytes in header
	blockBytes int64 // bytes of a header that has begun and not ended; 0: none
	last       bool  // the payload to come ends the header
	block      bool  // the payload to come belongs to a header
	request    bool  // a header has begun at least once
	began      bool  // a frame or header has begun since the flag was cleared
}

// midFrame reports whether a part of a frame is missing.
func (p *frameParser) midFrame() bool { return p.skip > 0 || p.n > 0 }

// parse reads the frames in b, which may begin and end anywhere in a frame. It copies only the
// headers of frames.
func (p *frameParser) parse(b []byte) {
	for len(b) > 0 {
		if p.skip > 0 {
			n := min(p.skip, len(b))
			p.skip -= n
			b = b[n:]
			if p.block {
				p.blockBytes += int64(n)
			}
			p.frameEnds()
			continue
		}
		if p.n == 0 && p.blockBytes == 0 {
			p.began = true
		}
		n := copy(p.header[p.n:], b)
		p.n += n
		b = b[n:]
		if p.n == frameHeader {
			p.frameBegins()
		}
	}
}

// frameBegins reads a complete frame header (RFC 9113 section 4.1).
func (p *frameParser) frameBegins() {
	p.n = 0
	p.skip = int(p.header[0])<<16 | int(p.header[1])<<8 | int(p.header[2])
	kind, flags := p.header[3], p.header[4]
	if p.block = kind == typeHeaders || kind == typeContinuation; p.block {
		p.request, p.last = true, flags&flagEndHeaders != 0
		p.blockBytes++ // an empty frame counts too
	}
	p.frameEnds()
}

// frameEnds runs when the payload of a frame is complete. A block of headers ends with the frame
// that has END_HEADERS (RFC 9113 section 6.10).
func (p *frameParser) frameEnds() {
	if p.skip == 0 && p.block {
		p.block = false
		if p.last {
			p.blockBytes = 0
		}
	}
}
