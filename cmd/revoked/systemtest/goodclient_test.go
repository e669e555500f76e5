//go:build system

package systemtest

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/time/rate"
)

// A goodClient registers, revokes and introspects at every node while others attack.
type goodClient struct {
	c      *cluster
	nodes  []*member // with its own connections; every second one over HTTP/2
	core   string    // part of its tokens
	rounds atomic.Int64
	busy   atomic.Int64 // answers 503
	failed atomic.Int64 // requests without an answer
}

// newGoodClient returns a client with a source address; empty: any.
func newGoodClient(c *cluster, core, source string) *goodClient {
	g := &goodClient{c: c, core: core}
	for i, m := range c.Nodes {
		own := *m
		own.client = c.httpClient()
		tr := own.client.Transport.(*http.Transport)
		tr.ForceAttemptHTTP2 = i%2 == 1
		if source != "" {
			tr.DialContext = dialerOf(source).DialContext
		}
		g.nodes = append(g.nodes, &own)
	}
	return g
}

// dialerOf returns a dialer with a source address.
func dialerOf(source string) *net.Dialer {
	return &net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(source)}, Timeout: longStop / 4}
}

func (g *goodClient) String() string {
	return fmt.Sprintf("%d complete rounds, %d answers 503, %d requests without an answer", g.rounds.Load(), g.busy.Load(),
		g.failed.Load())
}

// run works until ctx ends. A request is retried while it gets 503, or no answer. Every other
// answer must be right.
func (g *goodClient) run(ctx context.Context, t *testing.T, pace *rate.Limiter) {
	defer func() {
		for _, m := range g.nodes {
			m.client.CloseIdleConnections()
		}
	}()
	for n := 0; ctx.Err() == nil && (pace == nil || pace.WaitN(ctx, 4) == nil); n++ {
		id := fmt.Sprintf("good-%s-%d", g.core[:4], n)
		body := registration(id, "carol", "at."+g.core+id, "rt."+g.core+id)
		for _, kind := range []string{"access_token", "refresh_token"} {
			body[kind].(map[string]any)["expires_at"] = time.Now().Unix() + 600
		}
		at := func(k int) *member { return g.nodes[(n+k)%len(g.nodes)] }
		ok := g.ask(ctx, t, at(0), "register", func(m *member) answer {
			a := g.c.send(m, request{method: http.MethodPost, path: "/v1/grants", as: "issuer", json: body})
			if a.status == http.StatusCreated { // otherwise the request is a retry
				a.status = http.StatusOK
			}
			return a
		}, "")
		ok = ok && g.ask(ctx, t, at(1), "introspect before the revocation",
			func(m *member) answer { return g.c.introspect(m, "app", "at."+g.core+id) }, `"active":true`)
		ok = ok && g.ask(ctx, t, at(2), "revoke",
			func(m *member) answer { return g.c.revoke(m, "app", "at."+g.core+id) }, "{}")
		for k := range g.nodes {
			ok = ok && g.ask(ctx, t, at(k), "introspect after the revocation",
				func(m *member) answer { return g.c.introspect(m, "app", "rt."+g.core+id) }, `{"active":false}`)
		}
		if !ok {
			return
		}
		g.rounds.Add(1)
	}
}

// ask sends a request until it has an answer other than 503, and checks that answer. It returns
// false if ctx or the test ended.
func (g *goodClient) ask(ctx context.Context, t *testing.T, m *member, what string, send func(*member) answer,
	want string) bool {
	begun := time.Now()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		a := send(m)
		switch {
		case a.err != nil:
			g.failed.Add(1)
		case a.status == http.StatusServiceUnavailable && a.header.Get("Retry-After") != "":
			g.busy.Add(1)
		case a.status != http.StatusOK || !strings.Contains(string(a.body), want):
			t.Errorf("well-behaved client, %s at %s: got %d %s, want 200 %s", what, m.ID, a.status, a.body, want)
			return false
		default:
			return true
		}
		if time.Since(begun) > longStop {
			t.Errorf("well-behaved client, %s at %s: got no answer but 503 in %v: %v", what, m.ID, longStop, a.want(http.StatusOK))
			return false
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return false
		}
	}
}

// awaitRounds waits until n more rounds have begun and ended.
func (g *goodClient) awaitRounds(t *testing.T, n int64) {
	t.Helper()
	least := g.rounds.Load() + n + 1 // the current one began before
	await(t, "rounds of the well-behaved client", func() error {
		if t.Failed() {
			t.FailNow()
		}
		if got := g.rounds.Load(); got < least {
			return fmt.Errorf("got %d rounds, want %d: %v", got, least, g)
		}
		return nil
	})
}
