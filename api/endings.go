package api

import (
	"context"
	"net/http"
	"sync"

	"revoked"
)

// endings ends the streams that have no end of their own when their server begins to shut down: an
// orderly stop would wait for them otherwise. net/http does not end the context of a request then.
type endings struct {
	mu      sync.Mutex
	servers map[*http.Server]context.Context // ends with the server's first Shutdown
}

func newEndings() *endings { return &endings{servers: make(map[*http.Server]context.Context)} }

// context returns the request's context, ended with [revoked.ErrClosed] as its cause when the request's
// server shuts down.
func (e *endings) context(r *http.Request) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(r.Context())
	srv, ok := r.Context().Value(http.ServerContextKey).(*http.Server)
	if !ok {
		return ctx, func() { cancel(nil) }
	}
	stop := context.AfterFunc(e.of(srv), func() { cancel(revoked.ErrClosed) })
	return ctx, func() {
		stop()
		cancel(nil)
	}
}

func (e *endings) of(srv *http.Server) context.Context {
	e.mu.Lock()
	defer e.mu.Unlock()
	ctx, ok := e.servers[srv]
	if !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithCancel(context.Background())
		srv.RegisterOnShutdown(cancel)
		e.servers[srv] = ctx
	}
	return ctx
}
