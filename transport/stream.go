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
	"revoked/transport/frames"
)

// streamType is the content type of both directions of a Stream over HTTP/2.
const streamType = "application/vnd.revoked.frames"

// MaxFrame is the maximum size of a Stream's frame, in bytes.
const MaxFrame = frames.MaxFrame

// Stream is a long-lived call on which both sides send frames of at most MaxFrame bytes. All
// methods may be called concurrently. After an error the stream is unusable: close it and open
// another.
type Stream struct {
	send   sync.Mutex // held while a frame is written
	write  func(frame []byte) error
	closed bool

	recv sync.Mutex
	read func() ([]byte, error)

	once sync.Once
	stop func() // unblocks Send and Recv
}

// Stream opens a stream to a path of the peer at hostport, whose certificate must name wantNode
// (empty: any node). It returns after the peer has accepted the stream, and returns the same errors
// as Call. The stream ends with ctx, with Close, and after the peer has been silent for about
// Config.Silence.
func (t *Transport) Stream(ctx context.Context, hostport, wantNode, path string) (*Stream, error) {
	s, err := t.stream(ctx, hostport, wantNode, path)
	if err != nil {
		return nil, fmt.Errorf("stream %s%s: %w", hostport, path, err)
	}
	return s, nil
}

// stream opens a stream on a separate connection, or over HTTP/2 to a peer of version 0.3.
func (t *Transport) stream(ctx context.Context, hostport, wantNode, path string) (*Stream, error) {
	p, err := t.peerOf(peerKey{wantNode, hostport, false}, path)
	if err != nil {
		return nil, err
	}
	if !p.line.speaksFrames() {
		return t.streamHTTP(ctx, peerKey{wantNode, hostport, true}, path)
	}
	life, cancel := context.WithCancel(ctx)
	s, err := t.openFramed(life, cancel, peerKey{wantNode, hostport, false}, path)
	if err != nil {
		cancel()
	}
	if errors.Is(err, errOlder) {
		p.line.setOlder()
		return t.streamHTTP(ctx, peerKey{wantNode, hostport, true}, path)
	}
	return s, err
}

// openFramed opens a stream on a separate connection. Opening takes at most DialTimeout plus
// Silence. A stream does not share a connection with calls: a large call would delay its frames.
func (t *Transport) openFramed(
	ctx context.Context, cancel context.CancelFunc, key peerKey, path string,
) (*Stream, error) {
	late := time.AfterFunc(t.cfg.DialTimeout+t.cfg.Silence, cancel)
	defer late.Stop()
	conn, err := t.peers.open(ctx, key)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNotSent, err)
	}
	f, refusal, err := frames.OpenStream(ctx, conn, path, t.peers.limits)
	switch {
	case err != nil:
		return nil, err
	case refusal != nil && refusal.Status == http.StatusOK:
		return nil, errors.New("the peer's handler did not accept a stream")
	case refusal != nil:
		return nil, callError(*refusal)
	}
	return &Stream{write: f.Send, read: f.Recv, stop: func() { cancel(); f.Close() }}, nil
}

// streamHTTP opens a stream over HTTP/2.
func (t *Transport) streamHTTP(ctx context.Context, key peerKey, path string) (*Stream, error) {
	ctx, cancel := context.WithCancel(ctx)
	open := time.AfterFunc(t.cfg.DialTimeout+t.cfg.Silence, cancel)
	body, out := io.Pipe()
	resp, err := t.post(ctx, key, path, body, -1)
	if err == nil && !open.Stop() {
		_ = resp.Body.Close()
		err = context.DeadlineExceeded
	}
	if err == nil && resp.Header.Get("Content-Type") != streamType {
		_ = resp.Body.Close()
		err = fmt.Errorf("response is not a stream (got content type %q)", resp.Header.Get("Content-Type"))
	}
	if err != nil {
		open.Stop()
		cancel()
		_ = out.Close()
		return nil, err
	}
	// net/http ignores the context while it waits for the next part of the request.
	context.AfterFunc(ctx, func() {
		_ = out.CloseWithError(revoked.ErrClosed)
		_ = resp.Body.Close()
	})
	return newHTTPStream(resp.Body, func(frame []byte) error {
		// A peer that still answers pings may no longer read the stream.
		late := time.AfterFunc(sendTimeout, cancel)
		defer late.Stop()
		_, err := out.Write(frame)
		return err
	}, cancel), nil
}

// newHTTPStream returns a stream whose frames are read from r and written by write.
func newHTTPStream(r io.Reader, write func(frame []byte) error, stop func()) *Stream {
	var buf []byte
	in := bufio.NewReader(r)
	return &Stream{
		read: func() ([]byte, error) { return frames.Read(in) },
		write: func(payload []byte) error {
			frame, err := frames.Append(buf[:0], payload)
			if err != nil {
				return err
			}
			if cap(frame) <= 64<<10 {
				buf = frame // the buffer of a rare large frame is not kept
			}
			return write(frame)
		},
		stop: stop,
	}
}

// ServeStream accepts a Stream in a handler. The size of each frame is limited, but not the size of
// the body. The handler must call Close before it returns. The stream ends with the request's
// context.
func ServeStream(w http.ResponseWriter, r *http.Request) (*Stream, error) {
	if a, ok := w.(*answerWriter); ok && a.accept != nil {
		f, err := a.accept()
		if err != nil {
			return nil, fmt.Errorf("stream: %w", err)
		}
		return &Stream{write: f.Send, read: f.Recv, stop: f.Close}, nil
	}
	body, ok := r.Body.(*boundedBody)
	if !ok {
		return nil, errors.New("stream: request did not arrive through a Transport")
	}
	control := http.NewResponseController(w)
	if err := errors.Join(control.SetReadDeadline(time.Time{}), control.SetWriteDeadline(time.Time{})); err != nil {
		return nil, fmt.Errorf("stream: %w", err)
	}
	body.unlimited = true
	w.Header().Set("Content-Type", streamType)
	w.WriteHeader(http.StatusOK)
	if err := control.Flush(); err != nil {
		return nil, fmt.Errorf("stream: %w", err)
	}
	return newHTTPStream(body, func(frame []byte) error {
		if err := control.SetWriteDeadline(time.Now().Add(sendTimeout)); err != nil {
			return err
		}
		if _, err := w.Write(frame); err != nil {
			return err
		}
		return control.Flush()
	}, func() {
		now := time.Now()
		_ = control.SetReadDeadline(now)
		_ = control.SetWriteDeadline(now)
	}), nil
}

// Send sends one frame and does not retain it. It blocks until there is room in the send buffer: at
// most about Config.Silence, and 10 s with a peer of version 0.3. It returns ErrTooLarge beyond
// MaxFrame; the stream stays usable.
func (s *Stream) Send(frame []byte) error {
	s.send.Lock()
	defer s.send.Unlock()
	if s.closed {
		return fmt.Errorf("send frame: %w", revoked.ErrClosed)
	}
	if err := s.write(frame); err != nil {
		return fmt.Errorf("send frame: %w", err)
	}
	return nil
}

// Recv returns the next frame, which the caller owns, and io.EOF after the peer has closed. It
// blocks until a frame arrives or the stream ends.
func (s *Stream) Recv() ([]byte, error) {
	s.recv.Lock()
	defer s.recv.Unlock()
	frame, err := s.read()
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("receive frame: %w", err)
	}
	return frame, err
}

// Close ends the stream; a blocked Send or Recv returns an error. It is safe to call twice.
func (s *Stream) Close() {
	s.once.Do(s.stop)
	s.send.Lock()
	defer s.send.Unlock()
	s.closed = true // no write follows, so the handler may return
}
