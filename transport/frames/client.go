package frames

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"revoked"
)

// ErrNotSent is returned for a call if the peer cannot have received any part of it. Only such a
// call may be retried even if it is not idempotent.
var ErrNotSent = errors.New("not sent")

// An Answer is the response to a call, or the refusal of a stream.
type Answer struct {
	Status int    // HTTP status
	Code   uint32 // revoked.Code of an error, 0 for none
	Body   []byte
}

// A Client makes calls over one connection. All methods may be called concurrently.
type Client struct {
	*link
	mu      sync.Mutex
	newest  uint64 // id of the newest call
	waiting map[uint64]*waiting
	retired bool
}

// waiting is a call that awaits the rest of its answer. done is closed once answer or err is set.
type waiting struct {
	body   body
	answer Answer
	err    error
	done   chan struct{}
}

// NewClient returns a client on a connection that [Accepted] has checked. It owns conn. The client
// ends with the connection; see Ended.
func NewClient(conn net.Conn, limits Limits) *Client {
	c := &Client{link: newLink(conn, limits), waiting: map[uint64]*waiting{}}
	c.wg.Go(c.receive)
	return c
}

// Accepted waits for the hello of the accepting side, at most for the duration wait. It reads
// nothing after the hello.
func Accepted(conn net.Conn, wait time.Duration) error {
	if err := conn.SetReadDeadline(time.Now().Add(wait)); err != nil {
		return err
	}
	b, err := Read(conn)
	if err != nil {
		return err
	}
	if m, err := parse(b); err != nil || m.kind != kindHello {
		return fmt.Errorf("%w: first message is not a hello", errMalformed)
	}
	return conn.SetReadDeadline(time.Time{})
}

// Ended reports whether the connection has ended. After that, every call fails.
func (c *Client) Ended() bool { return c.isEnded() }

// Retire ends the connection once no call is in progress. It does not block. The caller must not
// make further calls.
func (c *Client) Retire() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.retired = true
	c.endRetired()
}

// endRetired ends the connection if it is retired and has no calls in progress. The caller holds
// mu.
func (c *Client) endRetired() {
	if c.retired && len(c.waiting) == 0 {
		c.end(fmt.Errorf("%w: connection", revoked.ErrClosed))
	}
}

// Close ends the connection and the calls in progress, and waits for the client's goroutines.
func (c *Client) Close() { c.close() }

// Call makes one call. It blocks until the answer arrives, ctx ends or the connection ends. The
// error wraps ErrNotSent if the peer cannot have received the call, and ErrTooLarge if the answer
// is larger than MaxBody.
//
// Other calls are written between the parts of a long body. When ctx ends, Call returns immediately
// and sends a cancellation, which ends the context of the peer's handler.
func (c *Client) Call(ctx context.Context, path string, b []byte) (Answer, error) {
	if err := ctx.Err(); err != nil {
		return Answer{}, fmt.Errorf("%w: %w", ErrNotSent, err)
	}
	if len(path) > maxPath || int64(len(b)) > c.limits.MaxBody {
		return Answer{}, fmt.Errorf("%w: %w: request", ErrNotSent, ErrTooLarge)
	}
	w := &waiting{done: make(chan struct{})}
	id := c.add(w)
	defer c.forget(id)
	first := b[:min(len(b), maxPart)]
	sent, err := c.write(&message{kind: kindCall, id: id, path: path, size: len(b), body: first})
	for rest := b[len(first):]; err == nil && len(rest) > 0; {
		select {
		case <-w.done: // refused
			return w.answer, w.err
		default:
		}
		part := rest[:min(len(rest), maxPart)]
		rest = rest[len(part):]
		_, err = c.write(&message{kind: kindPart, id: id, body: part})
	}
	if err != nil {
		if !sent {
			err = fmt.Errorf("%w: %w", ErrNotSent, err)
		}
		return Answer{}, err
	}
	select {
	case <-w.done:
		return w.answer, w.err
	case <-ctx.Done():
		go func() { _, _ = c.write(&message{kind: kindCancel, id: id}) }() // ends with the connection
		return Answer{}, context.Cause(ctx)
	case <-c.ended:
	}
	select {
	case <-w.done: // the answer arrived just before the connection ended
		return w.answer, w.err
	default:
		return Answer{}, c.err()
	}
}

// add assigns the next id to a call. Ids are never reused on a connection, so a late answer never
// belongs to another call.
func (c *Client) add(w *waiting) (id uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.newest++
	c.waiting[c.newest] = w
	return c.newest
}

// forget removes a call whose caller returns. An answer that arrives later is ignored.
func (c *Client) forget(id uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.waiting, id)
	c.endRetired()
}

// receive handles the messages of the peer until the connection ends.
func (c *Client) receive() {
	for {
		m, err := c.next()
		if err == nil {
			err = c.handle(&m)
		}
		if err != nil {
			c.end(err)
			return
		}
	}
}

// handle handles one message. It ignores messages about calls that have already returned. An error
// ends the connection.
func (c *Client) handle(m *message) error {
	if m.kind != kindAnswer && m.kind != kindPart && m.kind != kindAborted {
		return fmt.Errorf("%w: unexpected kind %d from the accepting side", errMalformed, m.kind)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	w := c.waiting[m.id]
	if w == nil {
		return nil
	}
	whole := true
	var err error
	switch {
	case m.kind == kindAborted:
		w.err = errors.New("the peer's handler gave no answer")
	case m.kind == kindAnswer && int64(m.size) > c.limits.MaxBody:
		w.err = fmt.Errorf("%w: answer (got %d bytes, want at most %d)", ErrTooLarge, m.size, c.limits.MaxBody)
	default:
		if m.kind == kindAnswer {
			w.answer, w.body = Answer{Status: m.status, Code: m.code}, body{size: m.size}
		}
		whole, err = w.body.add(m.body)
		w.answer.Body = w.body.bytes
	}
	if whole {
		delete(c.waiting, m.id)
		close(w.done)
	}
	return err
}
