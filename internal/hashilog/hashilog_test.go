package hashilog_test

import (
	"bytes"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"revoked/internal/hashilog"
)

// textLogger returns a logger that shows level and above, and its output.
func textLogger(level slog.Level) (hclog.Logger, *bytes.Buffer) {
	var b bytes.Buffer
	return hashilog.New(slog.New(slog.NewTextHandler(&b, &slog.HandlerOptions{
		Level: level,
		ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		},
	})), "raft"), &b
}

func TestNew_WritesToSlog(t *testing.T) {
	infer := &hclog.StandardLoggerOptions{InferLevels: true}
	tests := []struct {
		name string
		do   func(hclog.Logger)
		want string
	}{
		{"trace", func(l hclog.Logger) { l.Trace("m") }, "level=DEBUG-4 msg=m logger=raft"},
		{"debug", func(l hclog.Logger) { l.Debug("m", "k", 1) }, "level=DEBUG msg=m logger=raft k=1"},
		{"info", func(l hclog.Logger) { l.Info("m") }, "level=INFO msg=m logger=raft"},
		{"warn", func(l hclog.Logger) { l.Warn("m", "error", io.EOF) }, "level=WARN msg=m logger=raft error=EOF"},
		{"error", func(l hclog.Logger) { l.Error("m") }, "level=ERROR msg=m logger=raft"},
		{"no level", func(l hclog.Logger) { l.Log(hclog.NoLevel, "m") }, "level=INFO msg=m logger=raft"},
		{"off", func(l hclog.Logger) { l.Log(hclog.Off, "m") }, ""},
		{"format", func(l hclog.Logger) { l.Info("m", "k", hclog.Fmt("%d / %d", 1, 2)) },
			`level=INFO msg=m logger=raft k="1 / 2"`},
		{"closed connection", func(l hclog.Logger) { l.Error("m", "error", net.ErrClosed) },
			`level=DEBUG msg=m logger=raft error="use of closed network connection"`},
		{"implied arguments", func(l hclog.Logger) { l.With("a", 1).With("b", 2).Info("m") },
			"level=INFO msg=m logger=raft a=1 b=2"},
		{"joined names", func(l hclog.Logger) { l.Named("net").With("a", 1).Info("m") },
			"level=INFO msg=m logger=raft.net a=1"},
		{"replaced name", func(l hclog.Logger) { l.Named("net").ResetNamed("x").Info("m") }, "level=INFO msg=m logger=x"},
		{"no name", func(l hclog.Logger) { l.ResetNamed("").Info("m") }, "level=INFO msg=m"},
		{"standard logger", func(l hclog.Logger) { l.StandardLogger(nil).Printf("m %d", 1) },
			`level=INFO msg="m 1" logger=raft`},
		{"standard logger with levels", func(l hclog.Logger) { l.StandardLogger(infer).Print("[ERR] m") },
			"level=ERROR msg=m logger=raft"},
		{"brackets without a level", func(l hclog.Logger) { l.StandardLogger(infer).Print("to [::1]:80") },
			`level=INFO msg="to [::1]:80" logger=raft`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			l, out := textLogger(slog.LevelDebug - 4)
			test.do(l)
			if got := strings.TrimSpace(out.String()); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

func TestNew_SetLevel_DoesNothing(t *testing.T) {
	l, out := textLogger(slog.LevelWarn)
	l.SetLevel(hclog.Trace)
	l.Info("m")
	if out.Len() > 0 {
		t.Errorf("got %q, want no line", out)
	}
	l.SetLevel(hclog.Off)
	if l.Warn("m"); out.Len() == 0 {
		t.Error("got no line, want the warning")
	}
}

// A transport that hides raft.WithPreVote disables pre-vote, and only this log line reports that.
func TestNew_PreVoteDisabled_IsLogged(t *testing.T) {
	_, trans := raft.NewInmemTransport("a")
	l, out := textLogger(slog.LevelWarn)
	conf := raft.DefaultConfig()
	conf.LocalID, conf.Logger = "a", l
	r, err := raft.NewRaft(conf, &raft.MockFSM{}, raft.NewInmemStore(), raft.NewInmemStore(), raft.NewInmemSnapshotStore(),
		struct{ raft.Transport }{trans})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Shutdown().Error(); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out.String(), "pre-vote is disabled") {
		t.Errorf("got %q, want the warning that pre-vote is disabled", out)
	}
}
