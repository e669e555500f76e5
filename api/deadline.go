package api

import (
	"context"
	"sync"
	"time"
)

// A deadline is a context with a timeout that begins when somebody first waits for it. Most requests
// are answered without waiting for anything, and a timer costs as much as finding their answer.
type deadline struct {
	context.Context // the request's
	after           time.Duration

	once   sync.Once
	timed  context.Context
	cancel context.CancelFunc
}

var _ context.Context = (*deadline)(nil)

func (d *deadline) begin() context.Context {
	d.once.Do(func() { d.timed, d.cancel = context.WithTimeout(d.Context, d.after) })
	return d.timed
}

// Deadline implements [context.Context].
func (d *deadline) Deadline() (time.Time, bool) { return d.begin().Deadline() }

// Done implements [context.Context].
func (d *deadline) Done() <-chan struct{} { return d.begin().Done() }

// Err implements [context.Context].
func (d *deadline) Err() error { return d.begin().Err() }

// Value implements [context.Context]. Contexts that are made of this one find what ends it here.
func (d *deadline) Value(key any) any { return d.begin().Value(key) }

// stop ends the context and frees its timer, if it has begun. Nobody may use it afterwards.
func (d *deadline) stop() {
	if d.once.Do(func() {}); d.cancel != nil {
		d.cancel()
	}
}
