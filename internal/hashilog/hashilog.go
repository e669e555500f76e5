// Package hashilog passes the logs of HashiCorp's libraries to log/slog. The slog handler alone
// decides which lines are shown: SetLevel does nothing.
package hashilog

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"syscall"

	"github.com/hashicorp/go-hclog"
)

// New returns a logger for Raft and other HashiCorp libraries. Each line has the logger's name as
// attribute "logger", unless it is empty.
func New(log *slog.Logger, name string) hclog.Logger { return NewFor(Sink{log}, name) }

// NewFor returns a logger that passes every line to sink.
func NewFor(sink hclog.SinkAdapter, name string) hclog.Logger {
	l := hclog.NewInterceptLogger(&hclog.LoggerOptions{Name: name, Level: hclog.Off, Output: io.Discard})
	l.RegisterSink(sink)
	return l
}

// Sink passes lines to Log.
type Sink struct{ Log *slog.Logger }

var _ hclog.SinkAdapter = Sink{}

// Accept implements hclog.SinkAdapter. A line about a connection that either side has closed is
// logged at Debug at most. Raft logs it as an error, but every restart of a peer causes one.
func (s Sink) Accept(name string, level hclog.Level, msg string, args ...any) {
	if level == hclog.Off {
		return
	}
	for i, arg := range args {
		switch v := arg.(type) {
		case hclog.Format:
			if len(v) > 0 {
				args[i] = fmt.Sprintf(fmt.Sprint(v[0]), v[1:]...)
			}
		case error:
			if errors.Is(v, net.ErrClosed) || errors.Is(v, syscall.ECONNRESET) {
				level = min(level, hclog.Debug)
			}
		}
	}
	if name != "" {
		args = append([]any{"logger", name}, args...)
	}
	s.Log.Log(context.Background(), slogLevel(level), msg, args...)
}

// slogLevel returns the slog level of level. Trace is as far below Debug as Debug is below Info,
// and NoLevel is Info.
func slogLevel(level hclog.Level) slog.Level {
	if level == hclog.NoLevel {
		return slog.LevelInfo
	}
	return slog.LevelInfo + slog.Level(level-hclog.Info)*(slog.LevelWarn-slog.LevelInfo)
}
