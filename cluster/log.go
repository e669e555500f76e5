package cluster

import (
	"context"
	"log"
	"log/slog"
	"strings"
	"sync"
	"time"
)

// hintEvery is how often the same advice is logged, at most.
const hintEvery = time.Minute

// A logBridge takes the lines of memberlist and hands them to slog at their level. Lines that mean a
// wrong key or a foreign cluster become advice.
type logBridge struct {
	log   *slog.Logger
	mu    sync.Mutex
	hints map[string]time.Time // when each was logged last
	now   func() time.Time
}

func newLogBridge(log *slog.Logger) *logBridge {
	return &logBridge{log: log, hints: make(map[string]time.Time), now: time.Now}
}

// logger returns a logger whose lines end here.
func (b *logBridge) logger() *log.Logger { return log.New(b, "", 0) }

// advice is what a line of memberlist means to an operator.
var advice = []struct{ contains, means string }{
	{"no installed keys could decrypt",
		"a node with another gossip key is talking to this one; put the same key into gossip_key_file on every node"},
	{"encryption is configured but remote state is not encrypted",
		"something without the gossip key is talking to this node; put the same key into gossip_key_file on every node"},
	{"with unacceptable label",
		"a node of another cluster is talking to this one; gossip addresses of the two clusters are mixed up"},
	{"Conflicting address",
		"two processes use the same node identity; if one is the same node at a new address, it is accepted within a minute or so"},
}

// Write takes one line.
func (b *logBridge) Write(p []byte) (int, error) {
	level, msg := splitLine(strings.TrimSpace(string(p)))
	for _, a := range advice {
		if strings.Contains(msg, a.contains) {
			if b.due(a.contains) {
				b.log.Warn("gossip: "+a.means, "detail", msg)
			}
			return len(p), nil
		}
	}
	b.log.Log(context.Background(), level, "gossip: "+msg)
	return len(p), nil
}

// due reports whether a hint may be logged now, and notes that it was.
func (b *logBridge) due(hint string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.now()
	if last, ok := b.hints[hint]; ok && now.Sub(last) < hintEvery {
		return false
	}
	b.hints[hint] = now
	return true
}

// splitLine reads "[WARN] memberlist: text". Lines without a level are errors: memberlist writes
// them in its rarest branches.
func splitLine(line string) (slog.Level, string) {
	level := slog.LevelError
	if rest, ok := strings.CutPrefix(line, "["); ok {
		if name, text, ok := strings.Cut(rest, "]"); ok {
			switch name {
			case "DEBUG":
				level = slog.LevelDebug
			case "INFO":
				level = slog.LevelInfo
			case "WARN":
				level = slog.LevelWarn
			}
			line = strings.TrimSpace(text)
		}
	}
	return level, strings.TrimPrefix(line, "memberlist: ")
}
