package frames

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"revoked"
)

// Limits bound one connection. All fields are required.
type Limits struct {
	// Silence is how long the peer may send nothing, not even the answer to a ping. It is also how
	// long the peer may accept nothing of a message.
	Silence  time.Duration
	MaxBody  int64 // limit for the body of a call and of its answer, in bytes
	MaxCalls int   // maximum number of calls in progress
}

// errSilent ends a connection whose peer is silent.
var errSilent = errors.New("the peer is silent")

// A link is one connection: it writes messages, reads them, and ends when the peer is silent. All
// methods may be called concurrently, except read.
type link struct {
	conn   net.Conn
	limits Limits
	start  time.Time // the times below are durations since then

	send    chan struct{} // holds a value while a message is written
	buf     []byte
	writing atomic.Int64 // when the write in progress began; 0 if none is in progress
	ponging atomic.Bool  // a pong waits to be written

	reader  *bufio.Reader
	scratch []byte
	reading atomic.Bool  // a read waits for the peer
	heard   atomic.Int64 // when the newest read ended or began

	once   sync.Once
	ended  chan struct{} // closed by end
	reason error         // set before ended is closed
	wg     sync.WaitGroup
}

// newLink returns the link of a connection and starts the goroutine that watches the peer. The
// method close ends that goroutine.
func newLink(conn net.Conn, limits Limits) *link {
	l := &link{conn: conn, limits: limits, start: time.Now(), send: make(chan struct{}, 1), ended: make(chan struct{})}
	l.reader = bufio.NewReaderSize((*linkReader)(l), 16<<10)
	l.wg.Go(l.watch)
	return l
}

// now returns the time since the start, which is never 0.
func (l *link) now() int64 { return int64(time.Since(l.start)) + 1 }

// end closes the connection for a reason. Later calls do nothing.
func (l *link) end(reason error) {
	l.once.Do(func() {
		l.reason = reason
		close(l.ended)
		_ = l.conn.Close()
	})
}

// isEnded reports whether the link has ended.
func (l *link) isEnded() bool {
	select {
	case <-l.ended:
		return true
	default:
		return false
	}
}

// err returns why the link has ended. The link must have ended.
func (l *link) err() error { return fmt.Errorf("connection ended: %w", l.reason) }

// write writes one message. It blocks until the peer accepts it, at most about Silence. sent is
// false if the link had already ended, so that the peer cannot have received any of the message.
// Concurrent writes never mix their messages. A write that fails may have sent a part of its
// message, so it ends the connection.
func (l *link) write(m *message) (sent bool, err error) {
	l.send <- struct{}{}
	defer func() { <-l.send }()
	if l.isEnded() {
		return false, l.err()
	}
	buf := m.append(l.buf[:0])
	if cap(buf) <= 2*maxPart {
		l.buf = buf // the buffer of a rare large message is not kept
	}
	l.writing.Store(l.now())
	_, err = l.conn.Write(buf)
	l.writing.Store(0)
	if err != nil {
		l.end(err)
		return true, l.err()
	}
	return true, nil
}

// read returns the next message. The body of the message is valid until the next call of read.
func (l *link) read() (message, error) {
	n, err := readLength(l.reader, maxMessage)
	if err == nil {
		l.scratch, err = readInto(l.scratch, l.reader, n)
	}
	if err != nil {
		return message{}, err
	}
	m, err := parse(l.scratch)
	if cap(l.scratch) > 2*maxPart {
		l.scratch = nil
	}
	return m, err
}

// next returns the next message other than pings and pongs. It answers pings.
func (l *link) next() (message, error) {
	for {
		m, err := l.read()
		switch {
		case err != nil:
			return m, err
		case m.kind == kindPing:
			l.pong()
		case m.kind != kindPong:
			return m, nil
		}
	}
}

// pong answers a ping. It does not block: if the readers of both sides blocked on a write, neither
// would read again.
func (l *link) pong() {
	if !l.ponging.CompareAndSwap(false, true) {
		return // another pong is being written
	}
	l.wg.Go(func() {
		defer l.ponging.Store(false)
		_, _ = l.write(&message{kind: kindPong})
	})
}

// watch ends the link when its peer is silent or accepts nothing. It sends a ping after half of
// Silence. While no read is in progress, watch only checks for a blocked write.
func (l *link) watch() {
	tick := time.NewTicker(max(l.limits.Silence/4, time.Millisecond))
	defer tick.Stop()
	pinged := false
	for {
		select {
		case <-tick.C:
		case <-l.ended:
			return
		}
		now, silence := l.now(), int64(l.limits.Silence)
		quiet := now - l.heard.Load()
		if !l.reading.Load() {
			quiet = 0
		}
		if since := l.writing.Load(); since != 0 && now-since > silence || quiet > silence {
			l.end(errSilent)
			return
		}
		if quiet < silence/2 {
			pinged = false
		} else if !pinged {
			pinged = true
			l.wg.Go(func() { _, _ = l.write(&message{kind: kindPing}) })
		}
	}
}

// close ends the link and waits for its goroutines.
func (l *link) close() {
	l.end(fmt.Errorf("%w: connection", revoked.ErrClosed))
	l.wg.Wait()
}

// A linkReader reads from the connection and records when bytes last arrived.
type linkReader link

func (r *linkReader) Read(p []byte) (int, error) {
	l := (*link)(r)
	l.heard.Store(l.now())
	l.reading.Store(true)
	n, err := l.conn.Read(p)
	l.reading.Store(false)
	l.heard.Store(l.now())
	return n, err
}
