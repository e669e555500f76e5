package frames

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"

	"revoked"
)

const (
	// maxUnread limits the frames that have arrived on a stream and that Recv has not returned, in
	// bytes. Beyond it, the stream reads nothing more from the connection.
	maxUnread = 1 << 20
	perFrame  = 64 // bytes that a frame counts in addition to its payload
)

// A Stream carries frames of at most MaxFrame bytes both ways. All methods may be called
// concurrently. After an error the stream is unusable.
type Stream struct {
	*link
	mu     sync.Mutex
	change sync.Cond // signals a change of the fields below
	unread [][]byte
	bytes  int
	failed error // the reason why the stream ended
}

// newStream starts to read the frames of l. The stream owns l.
func newStream(l *link) *Stream {
	s := &Stream{link: l}
	s.change.L = &s.mu
	l.wg.Go(s.receive)
	return s
}

// OpenStream opens a stream on a connection that [Accepted] has checked. It owns conn. If the peer
// refuses the stream, OpenStream returns the peer's answer. The stream ends with ctx.
func OpenStream(ctx context.Context, conn net.Conn, path string, limits Limits) (*Stream, *Answer, error) {
	l := newLink(conn, limits)
	stop := context.AfterFunc(ctx, func() { l.end(context.Cause(ctx)) })
	_, err := l.write(&message{kind: kindStream, path: path})
	var m message
	if err == nil {
		m, err = l.next()
	}
	switch {
	case err != nil:
	case m.kind == kindAccept:
		return newStream(l), nil, nil
	case m.kind == kindAnswer && m.size == len(m.body):
		stop()
		answer := &Answer{Status: m.status, Code: m.code, Body: append([]byte{}, m.body...)}
		l.close()
		return nil, answer, nil
	default:
		err = fmt.Errorf("%w: unexpected kind %d (want an acceptance)", errMalformed, m.kind)
	}
	stop()
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	l.close()
	return nil, nil, err
}

// Send sends one frame and does not retain payload. It blocks until the peer accepts the frame, at
// most about Silence. It returns ErrTooLarge beyond MaxFrame; the stream stays usable.
func (s *Stream) Send(payload []byte) error {
	if len(payload) > MaxFrame {
		return fmt.Errorf("%w: frame (got %d bytes, want at most %d)", ErrTooLarge, len(payload), MaxFrame)
	}
	_, err := s.write(&message{kind: kindFrame, body: payload})
	return err
}

// Recv returns the next frame, which the caller owns, and io.EOF after the peer has closed.
func (s *Stream) Recv() ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.unread) == 0 && s.failed == nil {
		s.change.Wait()
	}
	if len(s.unread) == 0 {
		return nil, s.failed
	}
	frame := s.unread[0]
	s.unread = s.unread[1:]
	s.bytes -= len(frame) + perFrame
	s.change.Broadcast()
	return frame, nil
}

// Close ends the stream; a blocked Send or Recv returns an error. It is safe to call twice.
func (s *Stream) Close() {
	s.end(fmt.Errorf("%w: stream", revoked.ErrClosed))
	s.fail(fmt.Errorf("%w: stream", revoked.ErrClosed)) // receive may be waiting until Recv makes room
	s.wg.Wait()
}

// receive queues the frames of the peer until the connection ends.
func (s *Stream) receive() {
	for {
		m, err := s.next()
		if err == nil && m.kind != kindFrame {
			err = fmt.Errorf("%w: unexpected kind %d on a stream", errMalformed, m.kind)
		}
		if err != nil {
			s.end(err)
			if !errors.Is(err, io.EOF) {
				err = s.err()
			}
			s.fail(err)
			return
		}
		if !s.queue(m.body) {
			return
		}
	}
}

// queue adds a copy of a frame once there is room. It returns false after Close. While it waits,
// nothing is read, and the peer's Send blocks. This is the flow control.
func (s *Stream) queue(frame []byte) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.bytes > maxUnread && s.failed == nil {
		s.change.Wait()
	}
	if s.failed != nil {
		return false
	}
	s.unread = append(s.unread, append([]byte{}, frame...))
	s.bytes += len(frame) + perFrame
	s.change.Broadcast()
	return true
}

// fail makes Recv return err once Recv has returned all frames that have arrived. Only the first
// error counts.
func (s *Stream) fail(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.failed == nil {
		s.failed = err
	}
	s.change.Broadcast()
}
