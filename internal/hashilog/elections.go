package hashilog

import (
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
)

// Without a quorum Raft logs the same lines at each election, more than one per second. A line of
// one kind is shown again after repeatKind, and repeated lines of all kinds together once per
// repeatAny. Lines about refused requests have the same rate, so both together are at most one line
// per second.
const (
	repeatKind = 20 * time.Second
	repeatAny  = 2 * time.Second
)

// electionLines are the beginnings of the messages that Raft repeats while it has no leader.
var electionLines = []string{
	"heartbeat timeout reached", "entering candidate state", "entering follower state",
	"pre-vote", "Election timeout reached", "failed to make requestVote RPC", "rejecting vote request",
	"rejecting pre-vote request", "duplicate requestVote", "lost leadership because received a requestVote",
}

// Elections is a Sink that limits the lines of elections. The first line of each kind is always
// shown. A kind is the message, the level and the server. Lines of level Debug are not limited.
// Create it with NewElections. It may be used concurrently.
type Elections struct {
	Sink
	mu         sync.Mutex
	shown      map[string]time.Time // time of the last shown line, by kind
	suppressed map[string]int       // lines since then, by kind
	repeated   time.Time            // time of the last repeated line
}

var _ hclog.SinkAdapter = (*Elections)(nil)

// NewElections returns a sink that passes lines to s.
func NewElections(s Sink) *Elections {
	return &Elections{Sink: s, shown: map[string]time.Time{}, suppressed: map[string]int{}}
}

// Accept implements hclog.SinkAdapter. A repeated line has the number of lines of its kind that
// were not shown, as attribute "suppressed".
func (e *Elections) Accept(name string, level hclog.Level, msg string, args ...any) {
	if level <= hclog.Debug && level != hclog.NoLevel || !isElection(msg) {
		e.Sink.Accept(name, level, msg, args...)
		return
	}
	pass, suppressed := e.take(kindOf(level, msg, args), time.Now())
	if !pass {
		return
	}
	if suppressed > 0 {
		args = append(args[:len(args):len(args)], "suppressed", suppressed)
	}
	e.Sink.Accept(name, level, msg, args...)
}

// take reports whether a line of a kind is shown now, and how many lines of the kind were
// suppressed since the last shown one.
func (e *Elections) take(kind string, now time.Time) (pass bool, suppressed int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if last, known := e.shown[kind]; known {
		if now.Sub(last) < repeatKind || now.Sub(e.repeated) < repeatAny {
			e.suppressed[kind]++
			return false, 0
		}
		e.repeated = now
	}
	e.shown[kind] = now
	suppressed = e.suppressed[kind]
	delete(e.suppressed, kind)
	return true, suppressed
}

func isElection(msg string) bool {
	for _, prefix := range electionLines {
		if strings.HasPrefix(msg, prefix) {
			return true
		}
	}
	return false
}

// kindOf returns the kind of a line. Attributes other than the server, such as the term, do not
// matter.
func kindOf(level hclog.Level, msg string, args []any) string {
	kind := fmt.Sprint(int(level), " ", msg)
	for i := 0; i+1 < len(args); i += 2 {
		switch key, _ := args[i].(string); key {
		case "target", "from", "candidate":
			return kind + " " + fmt.Sprint(args[i+1])
		}
	}
	return kind
}
