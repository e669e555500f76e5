package node

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
)

// life is the lifetime of a node. It has the context of the node's goroutines, the group that Close
// waits for, and the error that stopped the node. All methods may be called concurrently.
//
// A life ends in one of three ways. Node.Close stops everything in order. The method end closes
// Done, so that the owner calls Close. The method crash ends the process, because Close might never
// return.
type life struct {
	ctx    context.Context // ends when the node starts to stop
	cancel context.CancelFunc
	wg     sync.WaitGroup
	log    *slog.Logger
	exit   func(error) // ends the process immediately, or nil

	endOnce sync.Once
	done    chan struct{}
	err     error // set before done is closed

	closers   []func() error
	closeOnce sync.Once
	closeErr  error
}

// newLife returns the life of a node. The end of ctx does not end the life, because ctx only bounds
// Open. The life keeps the values of ctx.
func newLife(ctx context.Context, log *slog.Logger, exit func(error)) *life {
	l := &life{log: log, exit: exit, done: make(chan struct{})}
	l.ctx, l.cancel = context.WithCancel(context.WithoutCancel(ctx))
	return l
}

// start runs f in a goroutine that Close waits for. f must return when its context ends.
func (l *life) start(f func(context.Context)) { l.wg.Go(func() { f(l.ctx) }) }

// wait blocks until all goroutines have returned.
func (l *life) wait() error {
	l.wg.Wait()
	return nil
}

// onClose adds a step to close. Only Open calls it.
func (l *life) onClose(f func() error) { l.closers = append(l.closers, f) }

// close ends the context and calls the functions that were passed to onClose, the last one first.
// It continues after an error, so that every step runs.
func (l *life) close() error {
	l.cancel()
	var errs []error
	for _, f := range slices.Backward(l.closers) {
		errs = append(errs, f())
	}
	return errors.Join(errs...)
}

// end closes done. Only the first call counts; err is nil after a clean leave.
func (l *life) end(err error) {
	l.endOnce.Do(func() {
		l.err = err
		close(l.done)
	})
}

// fatal stops the node because of err: its disk or its state can no longer be trusted. The owner
// should call Close and exit. Until then, Readiness reports that the node is stopping.
func (l *life) fatal(err error) {
	l.log.Error("node must stop", "error", err)
	l.end(err)
}

// crash ends the process because of err, without closing anything. Use crash if Close itself would
// hang.
func (l *life) crash(err error) {
	l.log.Error("node must stop", "error", err)
	if l.exit != nil {
		l.exit(err)
	}
	l.end(err)
}

// running reports whether the node has neither stopped nor started to stop.
func (l *life) running() bool {
	select {
	case <-l.done:
		return false
	case <-l.ctx.Done():
		return false
	default:
		return true
	}
}

// cause returns the fatal error if there was one, else err. A failed start often returns only a
// consequence of the fatal error.
func (l *life) cause(err error) error {
	select {
	case <-l.done:
		if l.err != nil {
			return l.err
		}
	default:
	}
	return err
}
