package conformance_test

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"revoked"
	"revoked/api"
	"revoked/api/clientauth"
	"revoked/node"
	"revoked/node/nodetest"
)

// inProcess starts the nodes in this process, with one clock that the tests move.
func inProcess(t *testing.T, o options) *stage {
	t.Helper()
	spy := new(logSpy)
	var ahead atomic.Int64
	now := func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	admin := revoked.Client{ID: "adm", Type: revoked.Confidential, Roles: []revoked.Role{revoked.RoleAdmin},
		Secrets:     []revoked.SecretHash{clientauth.HashSecret(secretFor("adm"))},
		AuthMethods: []string{revoked.AuthBasic, revoked.AuthPost}}
	c := nodetest.Start(t, nodetest.Options{
		Clients: []revoked.Client{admin},
		Log:     slog.NewTextHandler(spy, &slog.HandlerOptions{Level: slog.LevelDebug}),
		Node: func(_ int, c *node.Config) {
			c.Now = now
			// A busy machine must not cause an election. Only the cluster scenarios start elections.
			c.HeartbeatTimeout, c.ElectionTimeout = o.heartbeat, o.heartbeat
		},
		API: func(_ int, c *api.Config) {
			c.Now = now
			o.apply(t, c)
		},
	})
	t.Cleanup(func() { spy.check(t) })
	s := &stage{HTTP: c.HTTP, issuer: "https://as.example" + o.issuerPath, version: "test", now: now,
		advance: func(d time.Duration) { ahead.Add(int64(d)) }}
	s.http1 = withoutHTTP2(t, c.HTTP)
	for _, m := range c.Members {
		s.Members = append(s.Members, &member{ID: m.ID, URL: m.URL, cluster: m.ClusterAddr(),
			data: filepath.Join(m.Dir, "data"), control: inProcessNode{m}})
	}
	return s
}

// apply sets the options in the configuration of an API.
func (o *options) apply(t *testing.T, c *api.Config) {
	c.RequireHTTPS, c.RequirePost = !o.open, !o.open
	c.CORSOrigins = o.cors
	c.Issuer += o.issuerPath
	c.AuthFailuresPerMinute, c.MissesPerSecond = o.authFailures, o.misses
	c.RequestTimeout = o.requestTimeout
	c.CheckNetworks = map[netip.Prefix][]string{}
	for _, n := range o.checkNetworks {
		c.CheckNetworks[netip.MustParsePrefix(n)] = nil
	}
	if o.metadataExtra != "" {
		if err := json.Unmarshal([]byte(o.metadataExtra), &c.MetadataExtra); err != nil {
			t.Error(err)
		}
		c.MetadataExtra["issuer"] = "https://evil.example" // a configuration file cannot set this member
	}
}

// withoutHTTP2 returns a client like c for HTTP/1.1 only.
func withoutHTTP2(t *testing.T, c *http.Client) *http.Client {
	conf := c.Transport.(*http.Transport).TLSClientConfig.Clone()
	conf.NextProtos = []string{"http/1.1"}
	one := &http.Client{Timeout: longStop, CheckRedirect: c.CheckRedirect,
		Transport: &http.Transport{TLSClientConfig: conf, MaxIdleConnsPerHost: 16}}
	t.Cleanup(one.CloseIdleConnections)
	return one
}

// An inProcessNode controls a node of this process.
type inProcessNode struct{ m *nodetest.Member }

func (n inProcessNode) Start(*testing.T)          { n.m.Start() }
func (n inProcessNode) Stop(*testing.T)           { n.m.Stop() }
func (n inProcessNode) StopGracefully(*testing.T) { n.m.StopGracefully() }
func (n inProcessNode) Running() bool             { return n.m.Node != nil }

// A logSpy keeps the log lines that contain a token or a secret.
type logSpy struct {
	mu    sync.Mutex
	found []string
	lines int
}

func (s *logSpy) Write(p []byte) (int, error) {
	if os.Getenv("NODETEST_LOG") != "" {
		fmt.Fprint(os.Stderr, string(p))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lines++
	if line := string(p); holdsSecret(line) {
		s.found = append(s.found, line)
	}
	return len(p), nil
}

// holdsSecret reports whether a log line has a raw token, a secret or Basic credentials.
func holdsSecret(line string) bool {
	return strings.Contains(line, rawMark) || strings.Contains(line, secretMark) || strings.Contains(line, "Basic ")
}

// check fails the test if a line contained a token or a secret.
func (s *logSpy) check(t *testing.T) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, line := range s.found {
		t.Errorf("got a token or a secret in the log, want none: %s", line)
	}
	if s.lines == 0 {
		t.Error("got no log line, want at least one")
	}
}
