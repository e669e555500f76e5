//go:build system

package systemtest

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	mrand "math/rand/v2"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/time/rate"
)

// The test sends random requests over HTTP/1.1 and HTTP/2. Some are whole, some are broken,
// abandoned, or mixed with valid ones. Each answer has the form that the contract promises, and
// valid requests get correct answers. No secret reaches a log. Afterwards heap and goroutines of
// each node are as before. REVOKED_FUZZ is the length (default 10s), REVOKED_FUZZ_RATE the maximum
// of exchanges a second (default 500), REVOKED_SEED the seed of the requests.
func TestFuzz_MixedRequests_HeapStaysFlat(t *testing.T) {
	length := 10 * time.Second
	if v := os.Getenv("REVOKED_FUZZ"); v != "" {
		var err error
		if length, err = time.ParseDuration(v); err != nil {
			t.Fatalf("REVOKED_FUZZ: %v", err)
		}
	}
	seed := number(t, "REVOKED_SEED", int(time.Now().Unix()))
	t.Logf("REVOKED_SEED=%d", seed)
	c := newCluster(t, 3)
	for _, m := range c.Nodes { // caches that are full from the start
		m.args = append(m.args, "--cache-size=1MiB", "--store-cache-size=1MiB", "--heartbeat-timeout=3s",
			"--election-timeout=3s")
	}
	c.startAll(t)
	c.awaitReady(t, c.Nodes...)
	f := &fuzz{
		c: c, core: rand.Text()[:20], answers: map[string]int{},
		pace: rate.NewLimiter(rate.Limit(number(t, "REVOKED_FUZZ_RATE", 500)), 50),
	}
	f.sample(t)
	base := f.samples[0]

	ctx, cancel := context.WithTimeout(t.Context(), length)
	defer cancel()
	f.good = newGoodClient(c, f.core, "")
	var wg sync.WaitGroup
	goodCtx, endGood := context.WithCancel(t.Context())
	defer endGood()
	var good sync.WaitGroup
	good.Go(func() { f.good.run(goodCtx, t, f.pace) })
	const workers = 10
	for w := range workers {
		wg.Go(func() { f.run(ctx, t, mrand.New(mrand.NewPCG(uint64(seed), uint64(w)))) })
	}
	f.watch(ctx, t, length)
	wg.Wait()
	f.good.awaitRounds(t, 1) // the attacks are over: the well-behaved client is served
	endGood()
	good.Wait()

	t.Logf("answers: %v; %v", f.answers, f.good)
	f.checkHeap(t)
	f.checkAfter(t, base)
}

// A fuzz is the state that the workers of one run share.
type fuzz struct {
	c    *cluster
	core string // part of every token and secret that the fuzz invents
	pace *rate.Limiter
	good *goodClient

	mu      sync.Mutex
	answers map[string]int // by protocol and status
	bad     atomic.Int64   // answers against the contract
	samples [][]footprint  // of each node
}

// A footprint is the usage of a node at one moment.
type footprint struct{ heap, goroutines float64 }

// sample adds the usage of each node. The heap is the live heap after the last garbage collection:
// the next one is due at twice that size. A node that does not answer is retried.
func (f *fuzz) sample(t testing.TB) {
	var all []footprint
	for _, m := range f.c.Nodes {
		var u footprint
		await(t, "metrics of "+m.ID, func() (err error) {
			if u.heap, err = f.c.readMetric(m, "go_memstats_next_gc_bytes"); err == nil {
				u.heap /= 2
				u.goroutines, err = f.c.readMetric(m, "go_goroutines")
			}
			return err
		})
		all = append(all, u)
	}
	f.samples = append(f.samples, all)
}

// watch samples until ctx ends, and logs twelve times.
func (f *fuzz) watch(ctx context.Context, t testing.TB, length time.Duration) {
	const lines, each = 12, 5
	tick := time.NewTicker(length / (lines * each))
	defer tick.Stop()
	begun := time.Now()
	for n := 1; ; n++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		f.sample(t)
		if n%each != 0 {
			continue
		}
		line := fmt.Sprintf("after %v:", time.Since(begun).Round(time.Second/10))
		for i, u := range f.lowest(len(f.samples)-each, len(f.samples)) {
			line += fmt.Sprintf(" %s heap %.1f MiB, %.0f goroutines;", f.c.Nodes[i].ID, u.heap/(1<<20), u.goroutines)
		}
		t.Log(line, f.good)
	}
}

// lowest returns the lowest usage of each node in some samples.
func (f *fuzz) lowest(from, to int) []footprint {
	least := slices.Clone(f.samples[from])
	for _, all := range f.samples[from:to] {
		for i, u := range all {
			least[i] = footprint{min(least[i].heap, u.heap), min(least[i].goroutines, u.goroutines)}
		}
	}
	return least
}

// checkHeap compares the heap in the middle of the run with that at its end.
func (f *fuzz) checkHeap(t *testing.T) {
	t.Helper()
	n := len(f.samples)
	middle, end := f.lowest(n*2/5, n*3/5+1), f.lowest(n*4/5, n)
	for i, m := range f.c.Nodes {
		t.Logf("%s: heap %.1f MiB at the start, %.1f in the middle, %.1f at the end", m.ID,
			f.samples[0][i].heap/(1<<20), middle[i].heap/(1<<20), end[i].heap/(1<<20))
		if most := 1.5*middle[i].heap + 32<<20; end[i].heap > most {
			t.Errorf("%s: got a heap of %.0f bytes at the end, want at most %.0f", m.ID, end[i].heap, most)
		}
	}
}

// checkAfter waits until each node has as many goroutines as before, and reads the logs.
func (f *fuzz) checkAfter(t *testing.T, base []footprint) {
	t.Helper()
	c := f.c
	for i, m := range c.Nodes {
		if !m.proc.Running() {
			t.Fatalf("%s: exited: %v", m.ID, m.proc.Err())
		}
		await(t, m.ID+" to end the goroutines of the requests", func() error {
			got, err := c.readMetric(m, "go_goroutines")
			if err == nil && got > base[i].goroutines+20 {
				err = fmt.Errorf("got %v goroutines, want about the %v of the start", got, base[i].goroutines)
			}
			return err
		})
		if n := c.metric(t, m, "revoked_api_panics_total"); n > 0 {
			t.Errorf("%s: got %v panics, want 0", m.ID, n)
		}
	}
	c.checkAgreement(t, c.Nodes...)
	k := &canaries{cores: map[string]string{f.core: "in random requests"}}
	for name, cl := range c.Clients {
		k.add("as the secret of "+name, cl.ClientSecret)
	}
	for _, m := range c.Nodes {
		file, err := os.Open(m.Log)
		if err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(file)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() && !t.Failed() {
			k.search(t, m.Log, lines.Bytes())
			if bytes.Contains(lines.Bytes(), []byte("panic")) {
				t.Errorf("%s: got %q, want no panic", m.ID, lines.Bytes())
			}
		}
		if err := lines.Err(); err != nil {
			t.Error(err)
		}
		file.Close()
	}
}

// ownRefusals are the beginnings of the answers that the library for HTTP/2 writes itself, see
// docs/api.md.
var ownRefusals = []string{`request header "`, "<h1>HTTP Error 431</h1>"}

// check compares an answer with the contract.
func (f *fuzz) check(t *testing.T, proto string, r fuzzed, status int, h http.Header, body []byte) {
	f.mu.Lock()
	f.answers[fmt.Sprintf("%s %d", proto, status)]++
	f.mu.Unlock()
	bad := func(problem string) {
		if f.bad.Add(1) > 20 {
			return
		}
		t.Errorf("%s %s %.300s %.300s: got %d %v %.300q: %s", proto, r.method, r.path, fmt.Sprint(r.fields), status, h,
			body, problem)
	}
	switch status {
	case http.StatusServiceUnavailable, http.StatusTooManyRequests:
		if h.Get("Retry-After") == "" && !strings.HasPrefix(r.path, "/readyz") {
			bad("want Retry-After")
		}
	case http.StatusNotImplemented, http.StatusHTTPVersionNotSupported:
		if proto != "HTTP/1.1" {
			bad("want no such status")
		}
	default:
		if status >= 500 || status < 200 || status >= 300 && status < 400 {
			bad("want no such status")
		}
	}
	if status < 400 || r.method == http.MethodHead {
		return
	}
	kind := h.Get("Content-Type")
	for _, text := range ownRefusals {
		if proto == "HTTP/2" && strings.HasPrefix(string(body), text) {
			return
		}
	}
	if kind != "application/json" && kind != "application/problem+json" {
		if !strings.HasPrefix(r.path, "/readyz") {
			bad("want JSON")
		}
		return
	}
	var object map[string]any
	if err := json.Unmarshal(body, &object); err != nil {
		bad(err.Error())
	}
	if kind == "application/json" && object["error"] == nil || kind != "application/json" && object["title"] == nil {
		bad("want an error")
	}
}
