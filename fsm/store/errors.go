package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"

	"github.com/cockroachdb/pebble/v2"

	"revoked"
)

// pebbleError adds the failed action to an error of Pebble. The result wraps revoked.ErrDamaged for
// corruption and missing files.
func pebbleError(action string, err error) error {
	err = oneLine{err}
	if pebble.IsCorruptionError(err) || errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%w: store: %s: %w", revoked.ErrDamaged, action, err)
	}
	return fmt.Errorf("store: %s: %w", action, err)
}

// oneLine puts the text of an error of Pebble on one line, without Pebble's placeholder.
type oneLine struct{ error }

func (e oneLine) Error() string {
	var lines []string
	for line := range strings.Lines(e.error.Error()) {
		if line = strings.TrimSpace(line); line != "" && line != "<corruption detail carrier>" {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "; ")
}

func (e oneLine) Unwrap() error { return e.error }

// backgroundError keeps the first error of Pebble's background work.
type backgroundError struct {
	fatal func(error)
	once  sync.Once
	done  chan struct{}
	err   error // valid once done is closed
}

// report keeps the first error, wakes Flush, and passes every error to fatal.
func (b *backgroundError) report(err error) {
	b.once.Do(func() {
		b.err = err
		close(b.done)
	})
	b.fatal(err)
}

// logger passes Pebble's log lines to slog. Informational lines appear at debug level only.
type logger struct {
	log   *slog.Logger
	fatal func(error)
	crash func(error)
}

var _ pebble.Logger = logger{}

func (l logger) Infof(format string, args ...any) {
	if l.log.Enabled(context.Background(), slog.LevelDebug) {
		l.log.Debug("store event", "event", fmt.Sprintf(format, args...))
	}
}

func (l logger) Errorf(format string, args ...any) {
	l.log.Error("store failed", "error", fmt.Sprintf(format, args...))
}

func (l logger) Fatalf(format string, args ...any) {
	err := fmt.Errorf("store: "+format, args...)
	l.fatal(err)
	l.crash(err) // Pebble must not continue after Fatalf
}

// quietLogger discards the log lines of a checkpoint, because its errors are returned to the
// reader.
type quietLogger struct{}

func (quietLogger) Infof(string, ...any)  {}
func (quietLogger) Errorf(string, ...any) {}
func (quietLogger) Fatalf(format string, args ...any) {
	panic(fmt.Sprintf(format, args...))
}
