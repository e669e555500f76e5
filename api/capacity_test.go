package api_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"

	"revoked"
	"revoked/api"
	"revoked/api/serve"
	"revoked/internal/await"
	"revoked/internal/hostile"
)

// dialH2 opens an HTTP/2 connection that sends single frames.
func dialH2(t testing.TB, addr string) *hostile.H2 {
	t.Helper()
	c, err := tls.Dial("tcp", addr, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	h, err := hostile.NewH2(c)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func memoryInUse() int64 {
	runtime.GC()
	runtime.GC() // the second run also frees the contents of pools
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapInuse + m.StackInuse)
}

// Incomplete requests, over many HTTP/2 connections and over HTTP/1, use memory only if they are
// admitted. The others get 503 immediately, and the probes are served.
func TestCapacity_IncompleteRequests_UseLittleMemory(t *testing.T) {
	const conns, streams, limit = 40, 50, 400
	r := start(t, nil)
	addr := serveLimited(t, r, func(c *serve.Config) { c.MaxRequests, c.MaxRequestsPerAddress = limit, limit })
	open := make([]*hostile.H2, conns)
	for i := range open {
		open[i] = dialH2(t, addr)
		// A connection without any request is closed after a few seconds.
		id, err := open[i].Open(true, hostile.Request(http.MethodGet, "/livez")...)
		if err != nil {
			t.Fatal(err)
		}
		if got := open[i].Answer(id); got != "200" {
			t.Fatalf("/livez: got %s, want 200", got)
		}
	}
	before, goroutines := memoryInUse(), runtime.NumGoroutine()
	for _, h := range open {
		for range streams {
			if err := h.HalfRequest(pathIntrospect, 16000); err != nil {
				t.Fatal(err)
			}
		}
	}
	inFlight := func() float64 { return r.metric(t, "revoked_api_in_flight_requests", nil) }
	status := func(code string) float64 {
		return r.metric(t, "revoked_api_requests_total", map[string]string{"status": code})
	}
	await.Until(t, "each request to reach the handler", func() bool {
		return status("503")+status("400")+inFlight() >= conns*streams
	})
	if n := inFlight(); n > limit {
		t.Errorf("got %v requests in progress, want at most %d", n, limit)
	}
	// A refused request is counted before its goroutine has written the answer and exited.
	await.Until(t, "the goroutine of each refused request to exit", func() bool {
		return runtime.NumGoroutine() <= goroutines+limit
	})
	grown := memoryInUse() - before
	t.Logf("%d incomplete requests: %d KiB, %d bytes each; %v got 503", conns*streams, grown>>10, grown/(conns*streams),
		status("503"))
	if max := int64(32 << 20); grown > max { // 34 KiB for each of 2,000 would be 68 MiB
		t.Errorf("got %d bytes for %d incomplete requests, want at most %d", grown, conns*streams, max)
	}
	if got, least := status("503"), conns*streams-limit-status("400"); got < least || got == 0 {
		t.Errorf("got %v answers 503, want at least %v", got, least)
	}
	for path, want := range map[string]int{"/livez": 200, "/readyz": 200, "/metrics": 200} {
		res, err := r.client(t, false).Get("https://" + addr + path)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != want {
			t.Errorf("%s at the limit: got %d, want %d", path, res.StatusCode, want)
		}
	}
}

// metric returns the sum of a metric over the series with these labels.
func (r *running) metric(t testing.TB, name string, labels map[string]string) (sum float64) {
	t.Helper()
	families, err := r.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
	series:
		for _, m := range f.GetMetric() {
			found := 0
			for _, l := range m.GetLabel() {
				if want, ok := labels[l.GetName()]; ok {
					if l.GetValue() != want {
						continue series
					}
					found++
				}
			}
			if found == len(labels) {
				sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return sum
}

// serveLimited serves the API of r on another port with other limits.
func serveLimited(t testing.TB, r *running, change func(*serve.Config)) (addr string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	cfg := serve.Config{Listener: ln, Handler: r.api.Handler(), TLS: r.tls, RequestTimeout: await.Limit}
	change(&cfg)
	srv := serve.New(cfg)
	done := make(chan error, 1)
	go func() { done <- srv.Serve() }()
	t.Cleanup(func() {
		_ = srv.Close()
		await.Receive(t, done, "the end of Serve")
	})
	return ln.Addr().String()
}

// Beyond each limit, the answer has the format of its endpoint and states the remedy.
func TestCapacity_AtLimit_StatesRemedy(t *testing.T) {
	entered, leave := make(chan struct{}), make(chan struct{})
	r := start(t, nil, func(c *api.Config) { c.MaxRequestsPerClient = 1 })
	r.bench.node.onStatus = func(ctx context.Context, _ revoked.Digest) error {
		entered <- struct{}{}
		<-leave
		return nil
	}
	addr := serveLimited(t, r, func(c *serve.Config) { c.MaxRequests, c.MaxRequestsPerAddress = 100, 3 })
	c := r.client(t, false)
	ask := func(path, auth string) (int, string, http.Header) {
		req, err := http.NewRequest(http.MethodPost, "https://"+addr+path, strings.NewReader("token=AT1"))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", formType)
		req.Header.Set("Authorization", auth)
		if path == "/v1/check" {
			req.Header.Set("Revoked-Authorization", auth)
			req.Header.Set("Authorization", "Bearer AT1")
		}
		res, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		b, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return res.StatusCode, string(b), res.Header
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	defer close(leave)
	hold := func(auth string) {
		wg.Go(func() { _, _, _ = ask(pathIntrospect, auth) })
		await.Receive(t, entered, "the request in the handler")
	}
	want := func(name, path, auth string, status int, text string) {
		t.Helper()
		got, body, h := ask(path, auth)
		if got != status || !strings.Contains(body, text) || h.Get("Retry-After") == "" {
			t.Errorf("%s: got %d %s, Retry-After %q, want %d %s", name, got, body, h.Get("Retry-After"), status, text)
		}
	}
	hold(as("rs1"))
	want("client", pathIntrospect, as("rs1"), 429, "too many requests of this client in progress")
	want("client at /v1/check", "/v1/check", as("rs1"), 503, "too many requests of this client in progress")
	hold(as("rs2"))
	hold(as("c1"))
	want("address, OAuth", pathIntrospect, as("c2"), 503, `{"error":"temporarily_unavailable"`)
	want("address, /v1", "/v1/status", as("admin"), 503, `"title":"too many requests in progress from this address`)
}

// An answer does not wait for a request body that never arrives. The connection closes after it.
func TestServer_MissingBody_AnswersImmediately(t *testing.T) {
	r := start(t, nil)
	for _, tt := range []struct{ request, want string }{
		{"GET /v1/check HTTP/1.1", "403"}, {"POST /v1/check HTTP/1.1", "403"}, {"GET /livez HTTP/1.1", "200"},
		{"POST /v1/status HTTP/1.1", "405"}, {"PUT /none HTTP/1.1", "404"}, {"POST /v1/grants HTTP/1.1", "401"},
		{"POST /oauth2/introspect HTTP/1.1", "400"}, {"GET /oauth2/revoke HTTP/1.1", "405"},
	} {
		for _, length := range []string{"Content-Length: 77", "Content-Length: 1000000", "Transfer-Encoding: chunked",
			"Content-Length: 77\r\nExpect: 100-continue"} {
			ask := func() {
				got := r.raw(t, false, tt.request+"\r\nHost: as.example\r\n"+length+"\r\n\r\n")
				if !strings.HasPrefix(got, tt.want) || !strings.HasSuffix(got, "true") {
					t.Errorf("%s, %s: got %s, want %s and a closed connection", tt.request, length, got, tt.want)
				}
			}
			if !r.beforeDeadline(t, ask) {
				t.Fatalf("%s, %s: got the answer after the deadline for a body, want it before", tt.request, length)
			}
		}
	}
	// A body that arrives keeps the connection open.
	got := r.raw(t, false, "POST /v1/check HTTP/1.1\r\nHost: as.example\r\nContent-Length: 77\r\n\r\n"+strings.Repeat("x", 77))
	if !strings.HasPrefix(got, "403") || !strings.HasSuffix(got, "false") {
		t.Errorf("whole body: got %s, want 403 and an open connection", got)
	}
}

// beforeDeadline reports whether the function do returns before the deadline for a request body. To
// measure this, it opens another connection before the call and completes its header afterwards:
// the deadlines of a header and of a body are equal. A busy machine may delay do, so it gets three
// attempts.
func (r *running) beforeDeadline(t *testing.T, do func()) bool {
	t.Helper()
	for range 3 {
		c, err := net.Dial("tcp", r.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_, _ = io.WriteString(c, "GET /livez HTTP/1.1\r\n")
		do()
		_, _ = io.WriteString(c, "Host: as.example\r\n\r\n") // fails after the deadline
		if b, _ := io.ReadAll(io.LimitReader(c, 1)); len(b) > 0 {
			return true
		}
	}
	return false
}

// A header above 16 KiB gets 431 only on its stream. Requests in progress on the same connection
// are answered.
func TestServer_LargeHeaderHTTP2_EndsItsStreamOnly(t *testing.T) {
	entered, leave := make(chan struct{}), make(chan struct{})
	r := start(t, nil)
	r.bench.node.onStatus = func(context.Context, revoked.Digest) error {
		entered <- struct{}{}
		<-leave
		return nil
	}
	c := r.client(t, true)
	const good = 20
	answers := make(chan string, good)
	for range good {
		go func() {
			res, body, err := r.introspect(c, "https")
			answers <- fmt.Sprint(res != nil && res.StatusCode == 200, body, err)
		}()
		await.Receive(t, entered, "the request in the handler")
	}
	for _, path := range []string{pathIntrospect, "/v1/check"} {
		for _, size := range []int{17 << 10, 40 << 10, 200 << 10, 1 << 20} {
			req, err := http.NewRequest(http.MethodPost, r.url+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Authorization", "Bearer "+strings.Repeat("x", size))
			res, err := c.Do(req)
			if err != nil {
				t.Fatalf("%s, %d bytes: got error %v, want 431", path, size, err)
			}
			body, err := io.ReadAll(res.Body)
			res.Body.Close()
			if res.StatusCode != 431 || err != nil || !strings.Contains(string(body), "the request header is too large") {
				t.Errorf("%s, %d bytes: got %d %s, error %v, want 431", path, size, res.StatusCode, body, err)
			}
		}
	}
	close(leave)
	for range good {
		if got := await.Receive(t, answers, "an answer"); !strings.HasPrefix(got, "true") {
			t.Errorf("request in progress: got %s, want 200", got)
		}
	}
}

// A request that authenticates again, because its client has changed, counts once.
func TestCapacity_ChangedCaller_CountsOnce(t *testing.T) {
	b := newBench(t, func(c *api.Config) { c.MaxRequestsPerClient = 1 })
	changed := func() error { return fmt.Errorf("%w: facts", revoked.ErrActorChanged) }
	b.node.onRevoke = func(context.Context, revoked.Actor, revoked.Digest) error { return changed() }
	b.node.onStatus = func(context.Context, revoked.Digest) error { return changed() }
	for _, path := range []string{pathRevoke, pathIntrospect} {
		for range 2 {
			if w := b.do(call{path: path, auth: as("c1"), body: "token=AT1"}); w.Code != http.StatusServiceUnavailable {
				t.Errorf("%s: got %d %s, want 503", path, w.Code, w.Body)
			}
		}
	}
	b.node.onRevoke, b.node.onStatus = nil, nil
	if w := b.do(call{path: pathRevoke, auth: as("c1"), body: "token=AT1"}); w.Code != http.StatusOK {
		t.Errorf("got %d %s, want 200", w.Code, w.Body)
	}
}
