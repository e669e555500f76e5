package frames

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
)

// A Server serves the accepting side of connections. All fields but Limits are functions; they are
// called concurrently.
type Server struct {
	Limits
	// Begin counts a call before its body is read. Add counts bytes of its body. If Begin or Add
	// returns an answer, the call is refused with it. End ends the call; read is the number of bytes
	// of its body that have arrived.
	Begin func() *Answer
	Add   func(n int64) *Answer
	End   func(read int64)
	// Call handles a call. ok is false if there is no answer to send. ctx ends when the caller gives
	// up or the connection ends.
	Call func(ctx context.Context, path string, body []byte) (a Answer, ok bool)
	// Stream serves a stream until it returns. It calls accept at most once. If it does not call
	// accept, its answer refuses the stream. ctx ends with the connection.
	Stream func(ctx context.Context, path string, accept func() (*Stream, error)) Answer
}

// A serving is one connection of a Server.
type serving struct {
	*link
	*Server
	ctx     context.Context
	partial map[uint64]*partial // calls whose body has not arrived completely; used only by the goroutine of Serve

	mu      sync.Mutex
	running map[uint64]context.CancelFunc
	calls   sync.WaitGroup
}

// partial is a call whose body has not arrived completely.
type partial struct {
	path    string
	body    body
	refused bool // the rest of its body is dropped
	left    int  // if refused, number of bytes of the body that have not arrived
}

// Serve serves conn, which it owns, until the connection or ctx ends. It returns after the handlers
// have returned.
func (s *Server) Serve(ctx context.Context, conn net.Conn) error {
	// The connection ends before the handlers' contexts, so that an answer that a canceled context has
	// caused is never sent.
	handlers, cancel := context.WithCancel(context.WithoutCancel(ctx))
	c := &serving{
		link: newLink(conn, s.Limits), Server: s, ctx: handlers,
		partial: map[uint64]*partial{}, running: map[uint64]context.CancelFunc{},
	}
	stop := context.AfterFunc(ctx, func() { c.end(context.Cause(ctx)) })
	defer stop()
	err := c.serve()
	c.end(err)
	cancel()
	for _, p := range c.partial {
		if !p.refused {
			s.End(int64(len(p.body.bytes)))
		}
	}
	c.calls.Wait()
	c.close()
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// serve sends the hello and handles messages. The first message decides whether the connection is
// for calls or for a stream.
func (c *serving) serve() error {
	if _, err := c.write(&message{kind: kindHello}); err != nil {
		return err
	}
	for first := true; ; first = false {
		m, err := c.next()
		if err != nil {
			return err
		}
		if m.kind == kindStream && first {
			return c.serveStream(m.path)
		}
		if err := c.handle(&m); err != nil {
			return err
		}
	}
}

// handle handles one message of a connection of calls. An error ends the connection.
func (c *serving) handle(m *message) error {
	switch m.kind {
	case kindCall:
		return c.begin(m)
	case kindPart:
		p := c.partial[m.id]
		if p == nil {
			return fmt.Errorf("%w: part of an unknown call", errMalformed)
		}
		return c.add(m.id, p, m.body)
	case kindCancel:
		c.mu.Lock()
		defer c.mu.Unlock()
		if cancel := c.running[m.id]; cancel != nil {
			cancel()
		}
		return nil
	}
	return fmt.Errorf("%w: unexpected kind %d from the dialing side", errMalformed, m.kind)
}

// begin handles the first message of a call. A call beyond MaxCalls ends the connection, while a
// refusal by Begin affects only one call.
func (c *serving) begin(m *message) error {
	c.mu.Lock()
	running, repeated := len(c.running), c.running[m.id] != nil
	c.mu.Unlock()
	if repeated || c.partial[m.id] != nil {
		return fmt.Errorf("%w: duplicate call id", errMalformed)
	}
	if len(c.partial)+running >= c.MaxCalls {
		return fmt.Errorf("%w: more than %d calls in progress", ErrTooLarge, c.MaxCalls)
	}
	p := &partial{path: m.path, body: body{size: m.size}}
	refusal := c.Begin()
	if refusal == nil && int64(m.size) > c.MaxBody {
		c.End(0)
		refusal = &Answer{Status: http.StatusRequestEntityTooLarge, Body: []byte("request is too large")}
	}
	if refusal != nil {
		return c.refuse(m.id, p, len(m.body), refusal)
	}
	return c.add(m.id, p, m.body)
}

// add adds a part to the body of a call, and runs the call when the body is complete.
func (c *serving) add(id uint64, p *partial, part []byte) error {
	if p.refused {
		if p.left -= len(part); p.left <= 0 {
			delete(c.partial, id)
		}
		return nil
	}
	whole, err := p.body.add(part)
	if err != nil {
		c.partial[id] = p // Serve calls End for it
		return err
	}
	refusal := c.Add(int64(len(part)))
	switch {
	case refusal != nil:
		c.End(int64(len(p.body.bytes)))
		return c.refuse(id, p, len(p.body.bytes), refusal)
	case !whole:
		c.partial[id] = p
		return nil
	}
	delete(c.partial, id)
	c.run(id, p)
	return nil
}

// refuse answers a call whose body has not arrived completely. The rest of the body is dropped.
func (c *serving) refuse(id uint64, p *partial, arrived int, with *Answer) error {
	*p = partial{refused: true, left: p.body.size - arrived}
	delete(c.partial, id)
	if p.left > 0 {
		c.partial[id] = p
	}
	return c.answer(id, with)
}

// run runs the handler of a call in a goroutine. The call stays counted until its handler returns,
// even if its caller has given up.
func (c *serving) run(id uint64, p *partial) {
	ctx, cancel := context.WithCancel(c.ctx)
	c.mu.Lock()
	c.running[id] = cancel
	c.mu.Unlock()
	c.calls.Go(func() {
		defer cancel()
		a, ok := c.Call(ctx, p.path, p.body.bytes)
		c.End(int64(len(p.body.bytes)))
		c.mu.Lock()
		delete(c.running, id)
		c.mu.Unlock()
		if !ok {
			_, _ = c.write(&message{kind: kindAborted, id: id})
			return
		}
		_ = c.answer(id, &a) // a failed write has ended the connection
	})
}

// answer writes the answer to a call.
func (c *serving) answer(id uint64, a *Answer) error {
	first := a.Body[:min(len(a.Body), maxPart)]
	_, err := c.write(&message{
		kind: kindAnswer, id: id, status: a.Status, code: a.Code, size: len(a.Body), body: first,
	})
	for rest := a.Body[len(first):]; err == nil && len(rest) > 0; {
		part := rest[:min(len(rest), maxPart)]
		rest = rest[len(part):]
		_, err = c.write(&message{kind: kindPart, id: id, body: part})
	}
	return err
}

// serveStream runs the handler of a stream. A connection that carries a stream carries no calls.
func (c *serving) serveStream(path string) error {
	var stream *Stream
	a := c.Stream(c.ctx, path, func() (*Stream, error) {
		if _, err := c.write(&message{kind: kindAccept}); err != nil {
			return nil, err
		}
		stream = newStream(c.link)
		return stream, nil
	})
	if stream != nil {
		stream.Close()
		return nil
	}
	return c.answer(0, &a)
}
