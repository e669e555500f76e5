package cluster

import (
	"log"
	"log/slog"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/time/rate"

	"revoked/internal/hashilog"
)

// adviceInterval is the shortest time between two log lines with the same advice.
const adviceInterval = time.Minute

// advice maps a part of a line of memberlist to its meaning for an operator. The first entry whose
// part occurs in a line applies. The parts are texts of this package, except one of memberlist's.
var advice = []struct{ contains, means string }{
	{errKey.Error(),
		"a node with another gossip key sends messages to this node; put the same key into gossip_key_file on every node"},
	{errPlain.Error(),
		"a process without the gossip key sends messages to this node; put the same key into gossip_key_file on every node"},
	{errLabel.Error(),
		"a node of another cluster sends messages to this node; gossip addresses of the two clusters are mixed up"},
	{errCompressed.Error(), forged}, {errType.Error(), forged}, {errMalformed.Error(), forged},
	{errIndirect.Error(), forged},
	{errOversized.Error(), "a process sends larger messages than any node; restrict the gossip port to the nodes"},
	{errNodes.Error(), "gossip lists as many nodes as it can; the gossip key may be stolen, put a new one on every node"},
	{errDisplaced.Error(), "many processes connect to the gossip port and send nothing; restrict the port to the nodes"},
	{errFull.Error(), "many nodes wait concurrently for a gossip response; the gossip key may be stolen"},
	{noMessage, "a process connects to the gossip port and sends nothing, such as a health check or a port scanner"},
	{"Conflicting address",
		"two processes use the same node identity; " +
			"a node at a new address is accepted within about a minute"},
}

// forged is the advice for messages that are encrypted with the key, but that no node sends.
const forged = "a process that has the gossip key sends messages that no node sends; put a new key on every node"

// adviser passes the log of memberlist to the next sink. It replaces lines that indicate a wrong
// key or another cluster with advice, and logs the same advice at most once a minute.
type adviser struct {
	next   hclog.SinkAdapter
	limits []*rate.Sometimes // one limit for each advice
}

// newLogger returns a logger for memberlist. memberlist writes lines of text with a level in
// brackets, which the logger infers.
func newLogger(to *slog.Logger) *log.Logger {
	a := &adviser{next: hashilog.Sink{Log: to}}
	for range advice {
		a.limits = append(a.limits, &rate.Sometimes{First: 1, Interval: adviceInterval})
	}
	return hashilog.NewFor(a, "").StandardLogger(&hclog.StandardLoggerOptions{InferLevels: true})
}

// Accept implements hclog.SinkAdapter.
func (a *adviser) Accept(name string, level hclog.Level, msg string, args ...any) {
	msg = strings.TrimPrefix(msg, "memberlist: ")
	for i, x := range advice {
		if strings.Contains(msg, x.contains) {
			a.limits[i].Do(func() { a.next.Accept(name, hclog.Warn, "gossip: "+x.means, "detail", msg) })
			return
		}
	}
	a.next.Accept(name, level, "gossip: "+msg, args...)
}
