package transport_test

import (
	"bytes"
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"

	"github.com/hashicorp/go-hclog"
	"github.com/hashicorp/raft"

	"revoked/transport"
)

// textLogger returns a logger for Raft that shows level and above, and what it wrote.
func textLogger(level slog.Level) (hclog.Logger, *bytes.Buffer) {
	var b bytes.Buffer
	return transport.RaftLog(slog.New(slog.NewTextHandler(&b, &slog.HandlerOptions{
		Level: level,
		ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey {
				return slog.Attr{}
			}
			return a
		},
	})), "raft"), &b
}

func TestRaftLoggerWritesToSlog(t *testing.T) {
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
		{"no level is info", func(l hclog.Logger) { l.Log(hclog.NoLevel, "m") }, "level=INFO msg=m logger=raft"},
		{"off is nothing", func(l hclog.Logger) { l.Log(hclog.Off, "m") }, ""},
		{"formats are put into words", func(l hclog.Logger) { l.Info("m", "k", hclog.Fmt("%d / %d", 1, 2)) },
			`level=INFO msg=m logger=raft k="1 / 2"`},
		{"other bases as well", func(l hclog.Logger) { l.Info("m", "x", hclog.Hex(255), "o", hclog.Octal(8), "b", hclog.Binary(5)) },
			"level=INFO msg=m logger=raft x=0xff o=010 b=0b101"},
		{"a closed connection is no error", func(l hclog.Logger) { l.Error("m", "error", net.ErrClosed) },
			`level=DEBUG msg=m logger=raft error="use of closed network connection"`},
		{"implied arguments", func(l hclog.Logger) { l.With("a", 1).With("b", 2).Info("m") }, "level=INFO msg=m a=1 b=2 logger=raft"},
		{"names are joined", func(l hclog.Logger) { l.Named("net").With("a", 1).Info("m") }, "level=INFO msg=m a=1 logger=raft.net"},
		{"names are replaced", func(l hclog.Logger) { l.Named("net").ResetNamed("x").Info("m") }, "level=INFO msg=m logger=x"},
		{"a standard logger", func(l hclog.Logger) { l.StandardLogger(nil).Printf("m %d", 1) }, `level=INFO msg="m 1" logger=raft`},
		{"a standard logger with levels", func(l hclog.Logger) {
			l.StandardLogger(&hclog.StandardLoggerOptions{InferLevels: true}).Print("[ERR] m")
		}, "level=ERROR msg=m logger=raft"},
		{"a standard logger with a level forced", func(l hclog.Logger) {
			l.StandardLogger(&hclog.StandardLoggerOptions{ForceLevel: hclog.Warn}).Print("[m")
		}, `level=WARN msg=[m logger=raft`},
		{"a standard logger with a time and a level", func(l hclog.Logger) {
			l.StandardLogger(&hclog.StandardLoggerOptions{InferLevels: true}).Print("2026/11/24 08:00:00 [WARN] m")
		}, "level=WARN msg=m logger=raft"},
		{"a level in the middle stays", func(l hclog.Logger) {
			l.StandardLogger(&hclog.StandardLoggerOptions{InferLevels: true}).Print("peer said [WARN] m")
		}, `level=INFO msg="peer said [WARN] m" logger=raft`},
		{"brackets that are no level stay", func(l hclog.Logger) {
			l.StandardLogger(&hclog.StandardLoggerOptions{InferLevels: true}).Print("to [::1]:80")
		}, `level=INFO msg="to [::1]:80" logger=raft`},
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

func TestTheSlogHandlerDecidesWhatIsShown(t *testing.T) {
	l, out := textLogger(slog.LevelWarn)
	l.SetLevel(hclog.Trace)
	l.Info("m")
	if out.Len() > 0 {
		t.Errorf("got %q, want nothing", out)
	}
	if l.IsInfo() || !l.IsWarn() || !l.IsError() || l.IsDebug() || l.IsTrace() {
		t.Error("got other levels shown than Warn and Error")
	}
	if got := l.GetLevel(); got != hclog.Warn {
		t.Errorf("got level %v, want %v", got, hclog.Warn)
	}
}

func TestImpliedArgumentsAndNameAreTold(t *testing.T) {
	l, _ := textLogger(slog.LevelInfo)
	l = l.Named("net").With("a", 1)
	if got := l.Name(); got != "raft.net" {
		t.Errorf("got name %q, want raft.net", got)
	}
	if got := l.ImpliedArgs(); len(got) != 2 || got[0] != "a" {
		t.Errorf("got implied arguments %v, want a=1", got)
	}
}

// A transport that hides WithPreVote turns pre-vote off, and only this line tells.
func TestThatPreVoteIsOffIsSeen(t *testing.T) {
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
