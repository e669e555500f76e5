package bench

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"revoked/cmd/revoked/internal/bench/host"
	"revoked/cmd/revoked/internal/bench/load"
	"revoked/cmd/revoked/internal/bench/report"
	"revoked/cmd/revoked/internal/cli"
)

func TestTenths_Seconds_AreCountedByTenth(t *testing.T) {
	if got, want := tenths([]float64{1.29, 0.98, 1.2, 1.31}), "0.9: 1, 1.2: 2, 1.3: 1"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := tenths(nil); got != "" {
		t.Errorf("got %q, want nothing", got)
	}
}

func TestPairReader_ReadsOneBodyPerLine(t *testing.T) {
	made := tokens{run: "0123456789ab", clientID: "app", issued: 1_790_000_000, subjects: 5}
	var sent atomic.Uint64
	out, err := io.ReadAll(&pairReader{tokens: made, low: 3, high: 400, sent: &sent})
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSuffix(string(out), "\n"), "\n")
	if len(lines) != 397 || sent.Load() != 397 {
		t.Fatalf("got %d lines, %d counted, want 397", len(lines), sent.Load())
	}
	type token struct {
		Token     string `json:"token"`
		IssuedAt  int64  `json:"issued_at"`
		ExpiresAt int64  `json:"expires_at"`
	}
	for i, line := range lines {
		var body struct {
			ClientID string `json:"client_id"`
			Subject  string `json:"subject"`
			Scope    string `json:"scope"`
			Access   token  `json:"access_token"`
			Refresh  token  `json:"refresh_token"`
		}
		d := json.NewDecoder(strings.NewReader(line))
		d.DisallowUnknownFields()
		if err := d.Decode(&body); err != nil {
			t.Fatalf("line %d: %v", i, err)
		}
		n := uint64(3 + i)
		if want := strings.TrimPrefix(string(form(made.access(), n)), "token="); body.Access.Token != want ||
			len(want) != tokenLength {
			t.Fatalf("line %d: got the token %q, want that of the requests, %q, of %d bytes", i, body.Access.Token, want,
				tokenLength)
		}
		if body.Subject != made.subject(n) || body.ClientID != "app" || body.Access.Token == body.Refresh.Token {
			t.Fatalf("line %d: got %+v, want client, subject and two tokens", i, body)
		}
	}
}

// Otherwise the second of two equal loads would measure the caches.
func TestAnyOf_SecondLoad_GetsOtherNumbers(t *testing.T) {
	first, second := anyOf(1<<62)(0), anyOf(1<<62)(0)
	a, _ := first()
	b, _ := second()
	if a == b {
		t.Errorf("got %d from both loads, want two numbers", a)
	}
}

func TestTokens_WithExpiry_ExpireWithinAMinute(t *testing.T) {
	made := tokens{run: "0123456789ab", clientID: "app", issued: 1_790_000_000, ends: 1_790_000_500}
	count := map[int64]int{}
	for n := range uint64(600) {
		var body struct {
			Access struct {
				ExpiresAt int64 `json:"expires_at"`
			} `json:"access_token"`
			Refresh struct {
				ExpiresAt int64 `json:"expires_at"`
			} `json:"refresh_token"`
		}
		if err := json.Unmarshal(made.registration(nil, n), &body); err != nil {
			t.Fatal(err)
		}
		at := body.Access.ExpiresAt
		if at < made.ends || at >= made.ends+60 || body.Refresh.ExpiresAt != at {
			t.Fatalf("pair %d: got %d and %d, want both in the minute after %d", n, at, body.Refresh.ExpiresAt, made.ends)
		}
		count[at]++
	}
	if len(count) != 60 {
		t.Errorf("seconds with tokens that expire: got %d, want 60", len(count))
	}
}

func TestGrowth_SlowerAtEnd_MissesGoal(t *testing.T) {
	first := registered{pairs: 100_000, took: 10 * time.Second, cpu: 8 * time.Second}
	for seconds, met := range map[time.Duration]bool{10: true, 15: true, 16: false} {
		took := seconds * time.Second
		m := growth(first, registered{pairs: 100_000, took: took, cpu: 12 * time.Second})
		if *m.Met != met || *m.Baseline != 10_000 || m.Details["processor_us_per_pair_last"] != 120.0 {
			t.Errorf("last pairs in %v: got %+v, want goal met: %v", took, m, met)
		}
	}
}

// serveBaseline runs ServeBaseline in this process.
func serveBaseline(t *testing.T, bodies map[string]string) load.Target {
	t.Helper()
	inR, inW := io.Pipe()
	outR, outW := io.Pipe()
	done := make(chan error, 1)
	go func() { done <- ServeBaseline(context.Background(), inR, outW) }()
	t.Cleanup(func() {
		inW.Close()
		if err := <-done; err != nil {
			t.Errorf("baseline: %v", err)
		}
	})
	b, err := askBaseline(inW, outR, bodies)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// loadOf returns a load of revocations at path.
func loadOf(b load.Target, connections int, path string, p *pool) load.Load {
	return load.Load{
		Targets: []load.Target{b}, Connections: connections, Duration: time.Minute,
		Request: load.NewRequest(path, b.Addr, "YTpi", formType), Good: isRevoked,
		Bodies: forms(tokens{run: "0123456789ab"}.refresh(), p.each),
	}
}

func TestLoad_AgainstBaseline_CountsRequests(t *testing.T) {
	b := serveBaseline(t, map[string]string{revokePath: `{}`})
	for name, lean := range map[string]bool{ClientLean: true, "nethttp": false} {
		b.Lean = lean
		t.Run(name, func(t *testing.T) { testLoad(t, b) })
	}
}

func testLoad(t *testing.T, b load.Target) {
	t.Run("each token of a pool is sent once", func(t *testing.T) {
		got, err := loadOf(b, 4, revokePath, &pool{low: 10, high: 510}).Run(t.Context())
		if err != nil || got.Requests != 500 || got.Failures != 0 || got.Latency.Count != 500 {
			t.Errorf("got %+v, error %v; want 500 requests and times, no failure", got, err)
		}
		if !strings.HasPrefix(got.Protocol, "HTTP/1.1, TLS 1.3, ") {
			t.Errorf("got protocol %q, want HTTP/1.1 over TLS 1.3", got.Protocol)
		}
	})
	t.Run("a wrong answer is a failure", func(t *testing.T) {
		got, err := loadOf(b, 1, "/elsewhere", &pool{high: 3}).Run(t.Context())
		if err != nil || got.Requests != 0 || got.Failures != 3 || !strings.Contains(got.FirstFailure, "404") {
			t.Errorf("got %d requests, %d failures, %q, error %v; want 0, 3, the status, none", got.Requests, got.Failures,
				got.FirstFailure, err)
		}
	})
	t.Run("the end of the context is an error", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		asked := 0
		l := loadOf(b, 1, revokePath, &pool{})
		l.Bodies = func(int) func() ([]byte, bool) {
			return func() ([]byte, bool) {
				if asked++; asked == 100 {
					cancel()
				}
				return form("x", uint64(asked)), true
			}
		}
		if _, err := l.Run(ctx); err == nil {
			t.Error("got no error, want that of the context")
		}
	})
}

func TestLoad_FixedRate_SendsWhenDue(t *testing.T) {
	b := serveBaseline(t, map[string]string{revokePath: `{}`})
	b.Lean = true
	start := func(t *testing.T, path string, p *pool, perSecond float64) *load.Running {
		t.Helper()
		l := loadOf(b, 3, path, p)
		l.PerSecond = perSecond
		run, err := l.Start(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return run
	}
	t.Run("each token is sent once", func(t *testing.T) {
		run := start(t, revokePath, &pool{low: 7, high: 107}, 1e6)
		run.Wait() // until the pool is empty
		if got := run.Stop(); got.Requests != 100 || got.Failures != 0 || got.Latency.Count != 100 {
			t.Errorf("got %d requests, %d failures, %d times; want 100, 0, 100", got.Requests, got.Failures, got.Latency.Count)
		}
	})
	t.Run("a wrong answer is a failure", func(t *testing.T) {
		run := start(t, "/elsewhere", &pool{high: 4}, 1e6)
		run.Wait()
		if got := run.Stop(); got.Requests != 0 || got.Failures != 4 || !strings.Contains(got.FirstFailure, "404") {
			t.Errorf("got %d requests, %d failures, %q; want 0, 4, the status", got.Requests, got.Failures, got.FirstFailure)
		}
	})
	t.Run("nothing is sent before it is due", func(t *testing.T) {
		p := &pool{high: 1000}
		run := start(t, revokePath, p, 1.0/3600) // the first is due immediately, the others after hours
		for p.taken.Load() == 0 {
			runtime.Gosched()
		}
		if got := run.Stop(); got.Requests+got.Failures > 1 || p.taken.Load() != 1 {
			t.Errorf("got %d requests, %d failures, %d tokens taken; want at most one of each", got.Requests, got.Failures,
				p.taken.Load())
		}
	})
}

func TestOptions_Invalid_IsUsageError(t *testing.T) {
	valid := Options{
		Parameters: report.Parameters{Nodes: 3, Pairs: 1000, DenyEntries: 100, Connections: 1, Rounds: 1, Client: ClientLean},
		Duration:   time.Second, Lone: 10, Kills: 1, Healthy: time.Second,
	}
	if err := valid.Check(); err != nil {
		t.Errorf("got %v for valid options", err)
	}
	for name, change := range map[string]func(*Options){
		"an unknown measure": func(o *Options) { o.Only = []string{"introspect", "nope"} },
		"too few pairs":      func(o *Options) { o.Pairs = 1 },
		"no connection":      func(o *Options) { o.Connections = 0 },
		"no kill":            func(o *Options) { o.Kills = 0 },
		"healthy for 1 hour": func(o *Options) { o.Healthy = time.Hour },
		"a turn of a day":    func(o *Options) { o.Duration = 24 * time.Hour },
		"an unknown client":  func(o *Options) { o.Client = "curl" },
		"two directories":    func(o *Options) { o.DevJSON, o.Dir = "x", "y" },
	} {
		o := valid
		change(&o)
		var usage *cli.ExitError
		if err := o.Check(); !errors.As(err, &usage) || usage.Code != cli.ExitUsage {
			t.Errorf("%s: got %v, want a usage error", name, err)
		}
	}
}

func TestRun_DirectoryInMemory_IsUsageError(t *testing.T) {
	if _, inMemory, err := host.Filesystem("/dev/shm"); err != nil || !inMemory {
		t.Skip("this machine has no file system in memory")
	}
	_, err := Run(t.Context(), &Options{Dir: "/dev/shm"}, io.Discard)
	var usage *cli.ExitError
	if !errors.As(err, &usage) || usage.Code != cli.ExitUsage || !strings.Contains(err.Error(), "in memory") {
		t.Errorf("got %v, want a usage error with the reason", err)
	}
}
