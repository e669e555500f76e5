package cli

import (
	"context"
	"os"
	"os/signal"
)

// StopSignals returns a context that ends with the first of the signals. The next signal kills the
// process as if no handler had been installed.
func StopSignals(ctx context.Context, signals ...os.Signal) (context.Context, context.CancelFunc) {
	ctx, cancel := signal.NotifyContext(ctx, signals...)
	context.AfterFunc(ctx, cancel)
	return ctx, cancel
}
