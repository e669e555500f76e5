package transport

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"revoked"
)

// streamType is the content type of both directions of a Stream.
const streamType = "application/vnd.revoked.frames"

// A Stream is a long-lived call on which both sides send frames of at most MaxFrame bytes. Send and
// Recv may be used at once. Any error ends the stream: close it and open another.
type Stream struct {
	send   sync.Mutex // held while a frame is written
	buf    []byte
	write  func(frame []byte) error
	closed bool

	recv sync.Mutex
	r    *bufio.Reader

	once sync.Once
	stop func() // unblocks Send and Recv
}

// Stream opens a stream to a path of the peer at hostport, whose certificate must name wantNode
// (empty: any node). It returns when the peer has accepted; errors are those of Call. The stream ends with
// ctx, with Close, and when the peer has been silent for about Config.Silence.
func (t *Transport) Stream(ctx context.Context, hostport, wantNode, path string) (*Stream, error) {
	ctx, cancel := context.WithCancel(ctx)
	open := time.AfterFunc(t.cfg.DialTimeout+t.cfg.Silence, cancel)
	body, out := io.Pipe()
	resp, err := t.post(ctx, peerKey{wantNode, hostport, true}, path, body, -1)
	if err == nil && !open.Stop() {
		_ = resp.Body.Close()
		err = context.DeadlineExceeded
	}
	if err == nil && resp.Header.Get("Content-Type") != streamType {
		_ = resp.Body.Close()
		err = errors.New("peer did not answer with a stream")
	}
	if err != nil {
		open.Stop()
		cancel()
		_ = out.Close()
		return nil, fmt.Errorf("stream %s%s: %w", hostport, path, err)
	}
	// While net/http waits for the next piece of the request it does not look at the context.
	context.AfterFunc(ctx, func() {
		_ = out.CloseWithError(revoked.ErrClosed)
		_ = resp.Body.Close()
	})
	return &Stream{
		r: bufio.NewReader(resp.Body),
		write: func(frame []byte) error {
			// The peer may be alive and yet read nothing: then the frame does not leave.
			late := time.AfterFunc(sendTimeout, cancel)
			defer late.Stop()
			_, err := out.Write(frame)
			return err
		},
		stop: cancel,
	}, nil
}

// ServeStream accepts a Stream in a handler: the body's bound is lifted, each frame has its own. The
// handler must call Close before it returns. The stream ends with the request's context.
func ServeStream(w http.ResponseWriter, r *http.Request) (*Stream, error) {
	body, ok := r.Body.(*boundedBody)
	if !ok {
		return nil, errors.New("stream: the request did not come straight from a Transport")
	}
	control := http.NewResponseController(w)
	if err := errors.Join(control.SetReadDeadline(time.Time{}), control.SetWriteDeadline(time.Time{})); err != nil {
		return nil, fmt.Errorf("stream: %w", err)
	}
	body.lifted = true
	w.Header().Set("Content-Type", streamType)
	w.WriteHeader(http.StatusOK)
	if err := control.Flush(); err != nil {
		return nil, fmt.Errorf("stream: %w", err)
	}
	return &Stream{
		r: bufio.NewReader(body),
		write: func(frame []byte) error {
			if err := control.SetWriteDeadline(time.Now().Add(sendTimeout)); err != nil {
				return err
			}
			if _, err := w.Write(frame); err != nil {
				return err
			}
			return control.Flush()
		},
		stop: func() {
			now := time.Now()
			_ = control.SetReadDeadline(now)
			_ = control.SetWriteDeadline(now)
		},
	}, nil
}

// Send sends one frame; frame may be used again afterwards. It waits for room, at most 10 s.
// ErrTooLarge beyond MaxFrame leaves the stream as it is.
func (s *Stream) Send(frame []byte) error {
	s.send.Lock()
	defer s.send.Unlock()
	if s.closed {
		return fmt.Errorf("send frame: %w", revoked.ErrClosed)
	}
	buf, err := appendFrame(s.buf[:0], frame)
	if err != nil {
		return err
	}
	if cap(buf) <= 64<<10 {
		s.buf = buf // a rare large frame is not kept
	}
	if err := s.write(buf); err != nil {
		return fmt.Errorf("send frame: %w", err)
	}
	return nil
}

// Recv returns the next frame, which is the caller's. io.EOF when the peer has closed.
func (s *Stream) Recv() ([]byte, error) {
	s.recv.Lock()
	defer s.recv.Unlock()
	frame, err := readFrame(s.r)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("receive frame: %w", err)
	}
	return frame, err
}

// Close ends the stream; a Send or Recv that waits returns an error. Safe twice.
func (s *Stream) Close() {
	s.once.Do(s.stop)
	s.send.Lock()
	defer s.send.Unlock()
	s.closed = true // after this nothing is written: a handler may return
}
