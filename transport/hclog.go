package transport

import (
	"context"
	"errors"
	"io"
	"log"
	"log/slog"
	"net"
	"syscall"

	"github.com/hashicorp/go-hclog"
)

// A raftLog hands what Raft logs to slog.
type raftLog struct {
	log  *slog.Logger
	name string
	args []any
}

var _ hclog.Logger = (*raftLog)(nil)

// RaftLog returns a logger for raft.Config.Logger and its like that writes to log. Levels are log's:
// SetLevel does nothing, by hclog's contract for loggers that cannot.
func RaftLog(log *slog.Logger) hclog.Logger { return &raftLog{log: log} }

func levelOf(l hclog.Level) slog.Level {
	switch l {
	case hclog.Trace:
		return slog.LevelDebug - 4
	case hclog.Debug:
		return slog.LevelDebug
	case hclog.Warn:
		return slog.LevelWarn
	case hclog.Error:
		return slog.LevelError
	}
	return slog.LevelInfo
}

func (l *raftLog) Log(level hclog.Level, msg string, args ...any) {
	if level == hclog.Off {
		return
	}
	if endOfPeer(args) {
		level = min(level, hclog.Debug)
	}
	l.log.Log(context.Background(), levelOf(level), msg, args...)
}

// endOfPeer reports whether a line is about a connection that either side has closed: Raft calls that
// an error, but it is how every stop and every restart looks.
func endOfPeer(args []any) bool {
	for _, a := range args {
		if err, ok := a.(error); ok && (errors.Is(err, net.ErrClosed) || errors.Is(err, syscall.ECONNRESET)) {
			return true
		}
	}
	return false
}

func (l *raftLog) Trace(msg string, args ...any) { l.Log(hclog.Trace, msg, args...) }
func (l *raftLog) Debug(msg string, args ...any) { l.Log(hclog.Debug, msg, args...) }
func (l *raftLog) Info(msg string, args ...any)  { l.Log(hclog.Info, msg, args...) }
func (l *raftLog) Warn(msg string, args ...any)  { l.Log(hclog.Warn, msg, args...) }
func (l *raftLog) Error(msg string, args ...any) { l.Log(hclog.Error, msg, args...) }

func (l *raftLog) enabled(level hclog.Level) bool {
	return l.log.Enabled(context.Background(), levelOf(level))
}

func (l *raftLog) IsTrace() bool { return l.enabled(hclog.Trace) }
func (l *raftLog) IsDebug() bool { return l.enabled(hclog.Debug) }
func (l *raftLog) IsInfo() bool  { return l.enabled(hclog.Info) }
func (l *raftLog) IsWarn() bool  { return l.enabled(hclog.Warn) }
func (l *raftLog) IsError() bool { return l.enabled(hclog.Error) }

func (l *raftLog) ImpliedArgs() []any { return l.args }
func (l *raftLog) With(args ...any) hclog.Logger {
	return &raftLog{l.log.With(args...), l.name, append(l.args[:len(l.args):len(l.args)], args...)}
}
func (l *raftLog) Name() string { return l.name }
func (l *raftLog) Named(name string) hclog.Logger {
	if l.name != "" {
		name = l.name + "." + name
	}
	return l.ResetNamed(name)
}
func (l *raftLog) ResetNamed(name string) hclog.Logger { return &raftLog{l.log, name, l.args} }
func (l *raftLog) SetLevel(hclog.Level)                {}

func (l *raftLog) GetLevel() hclog.Level {
	for _, level := range []hclog.Level{hclog.Trace, hclog.Debug, hclog.Info, hclog.Warn} {
		if l.enabled(level) {
			return level
		}
	}
	return hclog.Error
}

func (l *raftLog) StandardLogger(*hclog.StandardLoggerOptions) *log.Logger {
	return slog.NewLogLogger(l.log.Handler(), slog.LevelInfo)
}

func (l *raftLog) StandardWriter(opts *hclog.StandardLoggerOptions) io.Writer {
	return l.StandardLogger(opts).Writer()
}
