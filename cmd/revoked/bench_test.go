package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestHistogramQuantiles(t *testing.T) {
	h := &histogram{}
	rng := rand.New(rand.NewPCG(1, 2))
	var all []time.Duration
	for range 20_000 {
		d := time.Duration(rng.ExpFloat64() * float64(3*time.Millisecond))
		all = append(all, d)
		h.add(d)
	}
	slices.Sort(all)
	for _, q := range []float64{0, 0.5, 0.9, 0.99, 0.999, 1} {
		exact := all[min(int(q*float64(len(all))), len(all)-1)]
		got := h.quantile(q)
		if off := float64(got-exact) / float64(max(exact, 1)); q > 0 && (off > 0.02 || off < -0.02) {
			t.Errorf("quantile %v: got %v, want %v within 2 %%", q, got, exact)
		}
	}
	if h.quantile(1) != all[len(all)-1] {
		t.Errorf("the largest: got %v, want %v exactly", h.quantile(1), all[len(all)-1])
	}
}

func TestHistogramBuckets(t *testing.T) {
	last := -1
	for d := time.Duration(0); d < 1<<40; d += d/100 + 1 {
		b := bucketOf(d)
		if b < last {
			t.Fatalf("bucket of %d: got %d, want at least %d", d, b, last)
		}
		if up := upperBound(b); up < d {
			t.Fatalf("bucket of %d: got the upper bound %d, want no less", d, up)
		}
		last = b
	}
	if b := bucketOf(time.Duration(1<<63 - 1)); b >= len(histogram{}.buckets) {
		t.Errorf("bucket of the longest duration: got %d, want one of the histogram", b)
	}
	if (&histogram{}).quantile(0.5) != 0 {
		t.Error("the median of nothing: got more, want 0")
	}
}

// FuzzRawAnswer reads answers of a server that may be anything.
func FuzzRawAnswer(f *testing.F) {
	f.Add([]byte("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"))
	f.Add([]byte("HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"))
	f.Add([]byte("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"))
	f.Add([]byte("HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n"))
	f.Add([]byte("HTTP/1.1 20"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c := &rawConn{r: bufio.NewReaderSize(bytes.NewReader(data), 8<<10)}
		status, body, err := c.answer()
		if err == nil && (len(body) > maxRawAnswer || status < -99 || status > 999) {
			t.Errorf("got status %d and %d bytes, want both bounded", status, len(body))
		}
	})
}

func TestPairLines(t *testing.T) {
	tokens := benchTokens{run: "0123456789ab", clientID: "app", issued: 1_790_000_000, subjects: 5}
	out, err := io.ReadAll(newPairReader(tokens, 3, 400))
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSuffix(string(out), "\n"), "\n")
	if len(lines) != 397 {
		t.Fatalf("lines: got %d, want 397", len(lines))
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
		request := string(formTemplate("/x", "h", "b", tokens.access()).number(n))
		if want := request[strings.Index(request, "token=")+len("token="):]; body.Access.Token != want || len(want) != tokenLength {
			t.Fatalf("line %d: got the token %q, want that of the requests, %q, of %d bytes", i, body.Access.Token, want, tokenLength)
		}
		if body.Subject != tokens.subject(n) || body.ClientID != "app" || body.Access.Token == body.Refresh.Token {
			t.Fatalf("line %d: got %+v, want client, subject and two tokens", i, body)
		}
	}
}

// baseline starts the baseline server in this process.
func baseline(t *testing.T, bodies map[string]string) *baselineServer {
	t.Helper()
	inR, inW := io.Pipe()
	outR, outW := io.Pipe()
	done := make(chan error, 1)
	go func() { done <- serveBaseline(context.Background(), inR, outW) }()
	t.Cleanup(func() {
		inW.Close()
		if err := <-done; err != nil {
			t.Errorf("baseline: %v", err)
		}
	})
	if err := json.NewEncoder(inW).Encode(baselineRequest{Bodies: bodies}); err != nil {
		t.Fatal(err)
	}
	var ready baselineReady
	if err := json.NewDecoder(outR).Decode(&ready); err != nil {
		t.Fatal(err)
	}
	cfg, err := rawTLS([]byte(ready.CA))
	if err != nil {
		t.Fatal(err)
	}
	return &baselineServer{addr: ready.Addr, tls: cfg}
}

func TestLoadAgainstBaseline(t *testing.T) {
	b := baseline(t, map[string]string{revokePath: `{}`, introspectPath: `{"active":true,"client_id":"app"}`})
	for name, lean := range map[string]bool{"lean": true, "net/http": false} {
		t.Run(name, func(t *testing.T) { testLoad(t, b, lean) })
	}
}

func testLoad(t *testing.T, b *baselineServer, lean bool) {
	tokens := benchTokens{run: "0123456789ab"}
	t.Run("hands out every token of a pool once", func(t *testing.T) {
		pool := &tokenPool{low: 10, high: 510}
		got, err := load{
			targets: []string{b.addr}, tls: b.tls, lean: lean, connections: 4, duration: time.Minute,
			template: formTemplate(revokePath, b.addr, "YTpi", tokens.refresh()), next: pool.each, good: isRevoked,
		}.run(t.Context())
		if err != nil || got.requests != 500 || got.failures != 0 || got.latency.count != 500 {
			t.Errorf("got %d requests, %d failures, %d times, error %v; want 500, 0, 500, none", got.requests, got.failures, got.latency.count, err)
		}
	})
	t.Run("counts a wrong answer as a failure, and says which", func(t *testing.T) {
		pool := &tokenPool{high: 3}
		got, err := load{
			targets: []string{b.addr}, tls: b.tls, lean: lean, connections: 1, duration: time.Minute,
			template: formTemplate("/elsewhere", b.addr, "YTpi", tokens.refresh()), next: pool.each, good: isRevoked,
		}.run(t.Context())
		if err != nil || got.requests != 0 || got.failures != 3 || !strings.Contains(got.firstBad, "404") {
			t.Errorf("got %d requests, %d failures, %q, error %v; want 0, 3, the status, none", got.requests, got.failures, got.firstBad, err)
		}
	})
	t.Run("ends when it is told to", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		asked := 0
		_, err := load{
			targets: []string{b.addr}, tls: b.tls, lean: lean, connections: 1, duration: time.Hour,
			template: formTemplate(introspectPath, b.addr, "YTpi", tokens.access()), good: isActive,
			next: func(int) func() (uint64, bool) {
				return func() (uint64, bool) {
					if asked++; asked == 100 {
						cancel()
					}
					return uint64(asked), true
				}
			},
		}.run(ctx)
		if err == nil {
			t.Error("got no error, want that of the context")
		}
	})
}

func TestPacedLoadAgainstBaseline(t *testing.T) {
	b := baseline(t, map[string]string{revokePath: `{}`})
	start := func(t *testing.T, path string, pool *tokenPool, perSecond float64) *pacedRun {
		t.Helper()
		template := formTemplate(path, b.addr, "YTpi", benchTokens{run: "0123456789ab"}.refresh())
		run, err := pacedLoad{
			targets: []string{b.addr}, tls: b.tls, connections: 3, perSecond: perSecond, next: numbered(template, pool.each), good: isRevoked,
		}.start(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return run
	}
	t.Run("sends each once", func(t *testing.T) {
		run := start(t, revokePath, &tokenPool{low: 7, high: 107}, 1e6)
		run.wg.Wait() // until the pool is empty
		if got := run.stop(); got.requests != 100 || got.failures != 0 || got.latency.count != 100 {
			t.Errorf("got %d requests, %d failures, %d times; want 100, 0, 100", got.requests, got.failures, got.latency.count)
		}
	})
	t.Run("counts a wrong answer", func(t *testing.T) {
		run := start(t, "/elsewhere", &tokenPool{high: 4}, 1e6)
		run.wg.Wait()
		if got := run.stop(); got.requests != 0 || got.failures != 4 || !strings.Contains(got.firstBad, "404") {
			t.Errorf("got %d requests, %d failures, %q; want 0, 4, the status", got.requests, got.failures, got.firstBad)
		}
	})
	t.Run("sends nothing before it is due, and stops when it is told to", func(t *testing.T) {
		pool := &tokenPool{high: 1000}
		run := start(t, revokePath, pool, 1.0/3600) // the first at once, the others in hours
		for pool.taken.Load() == 0 {
			runtime.Gosched()
		}
		got := run.stop()
		if got.requests+got.failures > 1 || pool.taken.Load() != 1 {
			t.Errorf("got %d requests, %d failures, %d tokens taken; want one of each at most", got.requests, got.failures, pool.taken.Load())
		}
	})
}

func TestBenchReport(t *testing.T) {
	base, ratio := 10_000.0, 0.91
	m := &benchMeasure{
		Name: "introspect", What: "introspections of live tokens, one follower", Unit: "1/s", Value: 9_100, Baseline: &base, Ratio: &ratio,
		Rounds: []benchRound{{Subject: 9_100, Baseline: 10_000, Latency: benchLatency{P50: 5, P99: 12.5, Max: 20}, SubjectCPUUS: 61, BaselineCPUUS: 52}},
	}
	m.goal("ratio >= 0.85", true)
	m.detail("cache_hit_ratio", 0.97)
	r := &benchReport{
		FormatVersion: 1, Version: "1.0.0", StartedAt: "2026-01-31T12:00:00Z", TookSeconds: 60,
		Host:       benchHost{CPUs: 2, Platform: "linux/amd64", Go: "go1.26", Filesystem: "ext4", FsyncP50US: 250, FsyncP99US: 900, FsyncProbes: 300, LoadAverage: 0.25},
		Parameters: benchParameters{Nodes: 3, Pairs: 100_000, Connections: 64, Rounds: 3, DurationS: 5, Client: "lean", OwnCluster: true},
		Measures:   []*benchMeasure{m, {Name: "size", What: "resident memory", Unit: "MiB", Value: 151.4, Failures: 1, FirstFailure: "status 503"}},
	}
	for name, asJSON := range map[string]bool{"bench-table": false, "bench-json": true} {
		var out bytes.Buffer
		if err := r.print(&out, asJSON); err != nil {
			t.Fatal(err)
		}
		golden(t, name, out.String())
	}
}

func TestBenchUsage(t *testing.T) {
	for name, args := range map[string][]string{
		"a measure that there is not": {"--only", "introspect,nope"},
		"too few pairs":               {"--pairs", "1"},
		"no connection":               {"--connections", "0"},
		"no kill":                     {"--kills", "0"},
		"an hour of health":           {"--healthy", "1h"},
		"a day":                       {"--duration", "24h"},
		"two folders":                 {"--dev-json", "x", "--dir", "y"},
	} {
		if got := runWith(t, "", append([]string{"bench"}, args...)...); got.code != exitUsage {
			t.Errorf("%s: got exit %d and %q, want %d", name, got.code, got.stderr, exitUsage)
		}
	}
	if _, inMemory, err := filesystemOf("/dev/shm"); err != nil || !inMemory {
		t.Skip("there is no file system in memory here")
	}
	if got := runWith(t, "", "bench", "--dir", "/dev/shm"); got.code != exitUsage || !strings.Contains(got.stderr, "in memory") {
		t.Errorf("a folder in memory: got exit %d and %q, want %d and the reason", got.code, got.stderr, exitUsage)
	}
}
