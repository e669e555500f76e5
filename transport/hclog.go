package transport

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"slices"
	"strings"
	"syscall"
	"unicode"

	"github.com/hashicorp/go-hclog"
)

// levelTrace is below slog's lowest named level, as hclog's Trace is below its Debug.
const levelTrace = slog.LevelDebug - 4

// A raftLogger gives what Raft and its transport log to a slog.Logger. What is shown is the slog
// handler's decision alone: SetLevel does nothing. The name of a logger is its attribute "logger".
type raftLogger struct {
	base    *slog.Logger // with the implied arguments, without the name
	named   *slog.Logger // base with the name
	name    string
	implied []any
}

var _ hclog.Logger = (*raftLogger)(nil)

// RaftLog returns a logger for raft.Config.Logger and its like that writes to log.
func RaftLog(log *slog.Logger, name string) hclog.Logger {
	return (&raftLogger{base: log}).ResetNamed(name)
}

// Log writes one record. NoLevel counts as Info; Off writes nothing.
func (l *raftLogger) Log(level hclog.Level, msg string, args ...any) {
	if level == hclog.Off {
		return
	}
	if endOfPeer(args) {
		level = min(level, hclog.Debug)
	}
	at := slogLevel(level)
	if !l.named.Enabled(context.Background(), at) {
		return
	}
	l.named.Log(context.Background(), at, msg, plain(args)...)
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

func (l *raftLogger) Trace(msg string, args ...any) { l.Log(hclog.Trace, msg, args...) }
func (l *raftLogger) Debug(msg string, args ...any) { l.Log(hclog.Debug, msg, args...) }
func (l *raftLogger) Info(msg string, args ...any)  { l.Log(hclog.Info, msg, args...) }
func (l *raftLogger) Warn(msg string, args ...any)  { l.Log(hclog.Warn, msg, args...) }
func (l *raftLogger) Error(msg string, args ...any) { l.Log(hclog.Error, msg, args...) }

func (l *raftLogger) IsTrace() bool { return l.shows(hclog.Trace) }
func (l *raftLogger) IsDebug() bool { return l.shows(hclog.Debug) }
func (l *raftLogger) IsInfo() bool  { return l.shows(hclog.Info) }
func (l *raftLogger) IsWarn() bool  { return l.shows(hclog.Warn) }
func (l *raftLogger) IsError() bool { return l.shows(hclog.Error) }

func (l *raftLogger) shows(level hclog.Level) bool {
	return l.named.Enabled(context.Background(), slogLevel(level))
}

func (l *raftLogger) ImpliedArgs() []any { return l.implied }

// With returns a logger that adds args to every record.
func (l *raftLogger) With(args ...any) hclog.Logger {
	m := &raftLogger{base: l.base.With(plain(args)...), implied: slices.Concat(l.implied, args)}
	return m.ResetNamed(l.name)
}

func (l *raftLogger) Name() string { return l.name }

// Named returns a logger whose name is this one's, a dot, and name.
func (l *raftLogger) Named(name string) hclog.Logger {
	if l.name != "" {
		name = l.name + "." + name
	}
	return l.ResetNamed(name)
}

// ResetNamed returns a logger with that name.
func (l *raftLogger) ResetNamed(name string) hclog.Logger {
	m := &raftLogger{base: l.base, named: l.base, name: name, implied: l.implied}
	if name != "" {
		m.named = l.base.With("logger", name)
	}
	return m
}

// SetLevel does nothing, as hclog.Logger allows: the handler of the slog.Logger has the say.
func (l *raftLogger) SetLevel(hclog.Level) {}

// GetLevel returns the lowest level that is shown.
func (l *raftLogger) GetLevel() hclog.Level {
	for level := hclog.Trace; level <= hclog.Error; level++ {
		if l.shows(level) {
			return level
		}
	}
	return hclog.Off
}

func (l *raftLogger) StandardLogger(o *hclog.StandardLoggerOptions) *log.Logger {
	return log.New(l.StandardWriter(o), "", 0)
}

// StandardWriter returns a writer that makes a record of every Write: at the forced level, else at
// that of its prefix, such as "[WARN] ", if levels are to be inferred, else at Info.
func (l *raftLogger) StandardWriter(o *hclog.StandardLoggerOptions) io.Writer {
	if o == nil {
		o = &hclog.StandardLoggerOptions{}
	}
	return &lineWriter{to: l, force: o.ForceLevel, infer: o.InferLevels || o.InferLevelsWithTimestamp}
}

type lineWriter struct {
	to    *raftLogger
	force hclog.Level
	infer bool
}

func (w *lineWriter) Write(p []byte) (int, error) {
	msg, level := strings.TrimRight(string(p), " \t\r\n"), hclog.Info
	// What stands before the bracket may be a time, but not a word.
	if open := strings.IndexByte(msg, '['); w.infer && open >= 0 && !strings.ContainsFunc(msg[:open], unicode.IsLetter) {
		if word, rest, ok := strings.Cut(msg[open+1:], "]"); ok {
			if word == "ERR" {
				word = "ERROR"
			}
			if at := hclog.LevelFromString(word); at != hclog.NoLevel {
				msg, level = strings.TrimSpace(rest), at
			}
		}
	}
	if w.force != hclog.NoLevel {
		level = w.force
	}
	w.to.Log(level, msg)
	return len(p), nil
}

func slogLevel(level hclog.Level) slog.Level {
	switch level {
	case hclog.Trace:
		return levelTrace
	case hclog.Debug:
		return slog.LevelDebug
	case hclog.Warn:
		return slog.LevelWarn
	case hclog.Error:
		return slog.LevelError
	}
	return slog.LevelInfo
}

// plain returns args with hclog's own kinds of value put into words. args is not changed.
func plain(args []any) []any {
	args = slices.Clone(args)
	for i, arg := range args {
		switch v := arg.(type) {
		case hclog.Format:
			if len(v) > 0 {
				args[i] = fmt.Sprintf(fmt.Sprint(v[0]), v[1:]...)
			}
		case hclog.Hex:
			args[i] = fmt.Sprintf("%#x", int(v))
		case hclog.Octal:
			args[i] = fmt.Sprintf("%#o", int(v))
		case hclog.Binary:
			args[i] = fmt.Sprintf("%#b", int(v))
		}
	}
	return args
}
