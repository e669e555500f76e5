package api_test

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"testing"

	"revoked"
	"revoked/api/clientauth"
	"revoked/internal/await"
)

const ndjson = "application/x-ndjson"

func bulkLine(i int) string {
	return fmt.Sprintf(`{"grant_id":"g-%d","client_id":"app","subject":"user-%d","session":"s-%d","username":"user-%d@example.org","issuer":"https://as.example","scope":"read write","audience":["rs1","rs2"],"access_token":{"token":"access-token-%032d","issued_at":1790000000,"expires_at":4102444800,"jti":"j-%d"},"refresh_token":{"token":"refresh-token-%032d","issued_at":1790000000,"expires_at":4102444800}}`, i, i, i, i, i, i, i)
}

// longLine returns a registration whose result is as long as the registration.
func longLine(i int) string {
	return fmt.Sprintf(`{"grant_id":"g-%d,%s","client_id":"app","access_token":{"token":"t-%d"}}`, i,
		strings.Repeat("x", 240), i)
}

// manyLines returns a reader that generates n registrations, one in each line.
func manyLines(n int, line func(int) string) io.Reader {
	r, w := io.Pipe()
	go func() {
		buf := bufio.NewWriterSize(w, 64<<10)
		for i := range n {
			if _, err := fmt.Fprintln(buf, line(i)); err != nil {
				return
			}
		}
		w.CloseWithError(buf.Flush())
	}()
	return r
}

// client returns an HTTP client for one version of HTTP.
func (b *adminBench) client(t testing.TB, h2 bool) *http.Client {
	t.Helper()
	tr := b.http.Transport.(*http.Transport).Clone()
	tr.ForceAttemptHTTP2 = h2
	if !h2 {
		tr.TLSNextProto = map[string]func(string, *tls.Conn) http.RoundTripper{}
		tr.TLSClientConfig.NextProtos = []string{"http/1.1"}
	}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

func TestBulk_Lines_GetResultsInOrder(t *testing.T) {
	b := newAdminBench(t)
	if got := b.do(t, "issuer", "POST", "/v1/grants", "",
		pairBody("g-known", "app", "known", "known-r")); got.status != 201 {
		t.Fatal(got)
	}
	lines := []struct{ line, want string }{
		{bulkLine(1), `{"grant_id":"g-1","index":N,"state":"active"}`},
		{`not json SECRET`, `{"error":"invalid","detail":"invalid request: want an object (byte 0)","line":2}`},
		{``, ``},
		{`{"grant_id":"g-2","client_id":"nobody","access_token":{"token":"t2"}}`,
			`{"error":"unknown_client","detail":"unknown client: ...","line":4}`},
		{strings.Repeat(" ", 70000) + `{}`,
			`{"error":"invalid","detail":"invalid request: the line is longer than 65536 bytes","line":5}`},
		{strings.ReplaceAll(pairBody("g-known", "app", "known", "known-r"), "\n", ""),
			`{"grant_id":"g-known","index":N,"state":"active"}`},
		{`{"grant_id":"g-1","client_id":"other","access_token":{"token":"t3"}}`,
			`{"error":"conflict","detail":"conflict: ...","line":7}`},
		{bulkLine(8) + "\r", `{"grant_id":"g-8","index":N,"state":"active"}`},
	}
	var body, want []string
	for _, l := range lines {
		body = append(body, l.line)
		if l.want != "" {
			want = append(want, l.want)
		}
	}
	got := b.do(t, "issuer", "POST", "/v1/grants", ndjson, strings.Join(body, "\n")) // no newline at the end
	if got.status != 200 || got.header.Get("Content-Type") != ndjson {
		t.Fatalf("got %d %s, want 200 and NDJSON", got.status, got.header)
	}
	answers := strings.Split(strings.TrimSuffix(got.body, "\n"), "\n")
	if len(answers) != len(want) {
		t.Fatalf("got %d results, want %d:\n%s", len(answers), len(want), got.body)
	}
	for i, w := range want {
		a := answers[i]
		if before, after, ok := strings.Cut(strings.Replace(w, "N", "...", 1), "..."); ok {
			if !strings.HasPrefix(a, before) || !strings.HasSuffix(a, after) {
				t.Errorf("got %s, want %s", a, w)
			}
		} else if a != w {
			t.Errorf("got %s, want %s", a, w)
		}
	}
	if strings.Contains(got.body, "SECRET") {
		t.Error("got a result that repeats its line, want none")
	}
	got = b.do(t, "issuer", "POST", "/v1/grants?results=errors", ndjson, strings.Join(body, "\n"))
	answers = strings.Split(strings.TrimSuffix(got.body, "\n"), "\n")
	if sum := answers[len(answers)-1]; len(answers) != 5 ||
		sum != `{"registered":0,"known":3,"revoked":0,"failed":4,"lines":7}` {
		t.Errorf("results=errors: got %s, want 4 errors and the summary", got.body)
	}
	if got := b.do(t, "issuer", "POST", "/v1/grants?results=none", ndjson, bulkLine(1)); got.status != 400 {
		t.Errorf("results=none: got %d, want 400", got.status)
	}
	if got := b.do(t, "issuer", "POST", "/v1/grants", ndjson, ""); got.status != 200 || got.body != "" {
		t.Errorf("empty body: got %d %q, want 200 and nothing", got.status, got.body)
	}
}

func TestBulk_BatchFails_OthersContinue(t *testing.T) {
	b := newAdminBench(t)
	calls := 0
	b.node.mu.Lock()
	b.node.fail = func(m string) error {
		if m != "Register" {
			return nil
		}
		if calls++; calls == 2 {
			return errors.New("raft has stopped")
		}
		return nil
	}
	b.node.mu.Unlock()
	const n = 3000
	got := b.do(t, "issuer", "POST", "/v1/grants", ndjson, readAll(t, manyLines(n, bulkLine)))
	lines := strings.Split(strings.TrimSpace(got.body), "\n")
	failed := 0
	for i, l := range lines {
		if strings.Contains(l, `"error":"temporarily_unavailable"`) && strings.HasSuffix(l, fmt.Sprintf(`"line":%d}`, i+1)) {
			failed++
		} else if !strings.HasPrefix(l, fmt.Sprintf(`{"grant_id":"g-%d",`, i)) {
			t.Fatalf("line %d: got %s, want its grant or an unavailable node", i+1, l)
		}
	}
	if len(lines) != n || failed == 0 || failed > 512 {
		t.Errorf("got %d results, %d failed; want %d results, one batch failed", len(lines), failed, n)
	}
}

// A full queue or a leader change slows a bulk registration down. An error that persists is
// reported.
func TestBulk_Overload_IsRetried(t *testing.T) {
	for _, row := range []struct {
		err   error
		times int // number of consecutive failures
		want  string
	}{
		{revoked.ErrOverloaded, 1, `{"registered":1,"known":0,"revoked":0,"failed":0,"lines":1}`},
		{revoked.ErrNoLeader, 2, `{"registered":1,"known":0,"revoked":0,"failed":0,"lines":1}`},
		{fmt.Errorf("%w: raft", revoked.ErrOutcomeUnknown), 2, `{"registered":1,"known":0,"revoked":0,"failed":0,"lines":1}`},
		{revoked.ErrNoLeader, 1000, `"failed":1,"lines":1}`},
	} {
		b := newAdminBench(t)
		calls := 0
		b.node.mu.Lock()
		b.node.fail = func(m string) error {
			if m != "Register" {
				return nil
			}
			if calls++; calls%(row.times+1) != 0 {
				return row.err
			}
			return nil
		}
		b.node.mu.Unlock()
		got := b.do(t, "issuer", "POST", "/v1/grants?results=errors", ndjson, bulkLine(1))
		if !strings.HasSuffix(got.body, row.want+"\n") {
			t.Errorf("%v %d times: got %s, want %s", row.err, row.times, got.body, row.want)
		}
	}
}

func TestBulk_OneGrant_KeepsLineOrder(t *testing.T) {
	b := newAdminBench(t)
	var body strings.Builder
	const n = 2000
	for i := range n {
		fmt.Fprintf(&body, `{"grant_id":"g","client_id":"app","access_token":{"token":"t-%d"}}`+"\n", i)
	}
	if got := b.do(t, "issuer", "POST", "/v1/grants", ndjson, body.String()); strings.Contains(got.body, "error") {
		t.Fatal(got.body[:200])
	}
	b.node.mu.Lock()
	defer b.node.mu.Unlock()
	for i, d := range b.node.committed {
		if d != revoked.DigestToken(fmt.Sprintf("t-%d", i)) {
			t.Fatalf("got token %d out of order, want the order of the lines", i)
		}
	}
	if len(b.node.batches) > n/4 {
		t.Errorf("got %d calls for %d lines, want them batched", len(b.node.batches), n)
	}
}

func readAll(t testing.TB, r io.Reader) string {
	t.Helper()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// A client may wait for the result of a line before it sends the next.
func TestBulk_SingleLine_IsAnsweredImmediately(t *testing.T) {
	for _, h2 := range []bool{false, true} {
		t.Run(fmt.Sprintf("http/2 is %t", h2), func(t *testing.T) {
			b := newAdminBench(t)
			pr, pw := io.Pipe()
			req := b.request(t, "issuer", "POST", "/v1/grants", pr)
			req.Header.Set("Content-Type", ndjson)
			go fmt.Fprintln(pw, bulkLine(0))
			res, err := b.client(t, h2).Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			results := bufio.NewScanner(res.Body)
			for i := range 5 {
				if !results.Scan() || !strings.HasPrefix(results.Text(), fmt.Sprintf(`{"grant_id":"g-%d",`, i)) {
					t.Fatalf("result %d: got %q %v, want its grant", i, results.Text(), results.Err())
				}
				fmt.Fprintln(pw, bulkLine(i+1))
			}
			pw.Close()
			for results.Scan() {
			}
		})
	}
}

// Contract section 3, "a client that reads nothing before it has sent everything must not
// deadlock". The response is larger than every socket buffer on the way.
func TestBulk_ClientDoesNotRead_NoDeadlock(t *testing.T) {
	const n = 30_000 // with long ids, 8 MB of results
	t.Run("HTTP/1.1", func(t *testing.T) {
		b := newAdminBench(t)
		b.node.discard = true
		conn, err := tls.Dial("tcp", b.addr, b.client(t, false).Transport.(*http.Transport).TLSClientConfig)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		shrink(t, conn)
		req := b.request(t, "issuer", "POST", "/v1/grants", manyLines(n, longLine))
		req.Header.Set("Content-Type", ndjson)
		req.ContentLength = -1
		if err := req.Write(conn); err != nil { // returns when the whole body is sent; no result was read
			t.Fatal(err)
		}
		res, err := http.ReadResponse(bufio.NewReader(conn), req)
		if err != nil {
			t.Fatal(err)
		}
		countResults(t, res.Body, n)
	})
	t.Run("HTTP/2", func(t *testing.T) {
		b := newAdminBench(t)
		b.node.discard = true
		body := &afterwards{r: manyLines(n, longLine), sent: make(chan struct{})}
		req := b.request(t, "issuer", "POST", "/v1/grants", body)
		req.Header.Set("Content-Type", ndjson)
		res, err := b.client(t, true).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		if res.ProtoMajor != 2 {
			t.Fatalf("got %s, want HTTP/2", res.Proto)
		}
		await.Receive(t, body.sent, "the end of the body") // no result is read before the end of the body
		countResults(t, res.Body, n)
		res.Body.Close()
	})
}

// shrink makes the receive buffer too small for the response.
func shrink(t *testing.T, conn *tls.Conn) {
	t.Helper()
	if err := conn.NetConn().(*net.TCPConn).SetReadBuffer(64 << 10); err != nil {
		t.Fatal(err)
	}
}

// An afterwards is a request body that closes sent when its end is read.
type afterwards struct {
	r    io.Reader
	sent chan struct{}
}

func (a *afterwards) Read(p []byte) (int, error) {
	n, err := a.r.Read(p)
	if err != nil {
		close(a.sent)
	}
	return n, err
}

func countResults(t *testing.T, r io.Reader, want int) {
	t.Helper()
	results := bufio.NewScanner(r)
	n := 0
	for results.Scan() {
		if !strings.HasPrefix(results.Text(), fmt.Sprintf(`{"grant_id":"g-%d,`, n)) {
			t.Fatalf("result %d: got %s, want its grant", n, results.Text())
		}
		n++
	}
	if n != want || results.Err() != nil {
		t.Errorf("got %d results and %v, want %d", n, results.Err(), want)
	}
}

// The heap grows neither with the number of lines nor with unread results.
func TestBulk_LongStream_UsesConstantMemory(t *testing.T) {
	b := newAdminBench(t)
	b.node.discard = true
	n := 200_000
	if raceEnabled {
		n = 50_000
	}
	body := &afterwards{r: manyLines(n, longLine), sent: make(chan struct{})}
	req := b.request(t, "issuer", "POST", "/v1/grants", body)
	req.Header.Set("Content-Type", ndjson)
	before := heap()
	res, err := b.client(t, true).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	await.Receive(t, body.sent, "the end of the body")
	const most = 48 << 20 // limit of client and server together; they exchange 60 MB of lines and 55 MB of results
	if grown := heap() - before; grown > most {
		t.Errorf("got %d bytes of heap growth, want at most %d", grown, most)
	}
	countResults(t, res.Body, n)
}

func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// A partial last line is not registered, and the response does not look complete.
func TestBulk_BodyEndsEarly_IsReported(t *testing.T) {
	b := newAdminBench(t)
	conn, err := tls.Dial("tcp", b.addr, b.client(t, false).Transport.(*http.Transport).TLSClientConfig)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	req := b.request(t, "issuer", "POST", "/v1/grants", nil)
	head := fmt.Sprintf("POST /v1/grants HTTP/1.1\r\nHost: x\r\nAuthorization: %s\r\nContent-Type: %s\r\nContent-Length: 5000\r\n\r\n", req.Header.Get("Authorization"), ndjson)
	cut := `{"client_id":"app","access_token":{"token":"cut"}}`
	if _, err := io.WriteString(conn, head+bulkLine(1)+"\n"+cut); err != nil {
		t.Fatal(err)
	}
	if err := conn.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	answer, _ := io.ReadAll(conn)
	if !bytes.Contains(answer, []byte(`"error":"body_unreadable"`)) {
		t.Errorf("got %s, want a last line with body_unreadable", answer)
	}
	if rec, _ := b.node.Peek(revoked.DigestToken("cut")); rec.Found {
		t.Error("got a registered partial body, want none")
	}
}

// A bulkSession is an open bulk registration of the client issuer.
type bulkSession struct {
	body  *io.PipeWriter
	lines *bufio.Scanner
	end   func()
}

// openBulk registers one line and returns after its result.
func openBulk(t *testing.T, b *adminBench, h2 bool, query string) *bulkSession {
	t.Helper()
	r, w := io.Pipe()
	req := b.request(t, "issuer", "POST", "/v1/grants"+query, r)
	req.Header.Set("Content-Type", ndjson)
	go func() { _, _ = io.WriteString(w, bulkLine(0)+"\nnot JSON\n") }()
	res, err := b.client(t, h2).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	s := &bulkSession{body: w, lines: bufio.NewScanner(res.Body), end: func() { w.Close(); res.Body.Close() }}
	for s.lines.Scan() {
		if strings.Contains(s.lines.Text(), `"invalid"`) {
			return s
		}
	}
	t.Fatal("got the end of the answer, want the results of two lines")
	return nil
}

// A stream of registrations ends when its credential becomes invalid, as a feed does.
func TestBulk_CredentialEnds_StreamEnds(t *testing.T) {
	for _, row := range credentialEnds("issuer") {
		for _, h2 := range []bool{false, true} {
			b := newAdminBench(t)
			s := openBulk(t, b, h2, "?results=errors")
			row.change(t, b)
			var rest []string
			for s.lines.Scan() { // the caller sends nothing more
				rest = append(rest, s.lines.Text())
			}
			if err := s.lines.Err(); err != nil {
				t.Errorf("%s, HTTP/2 %t: got %v, want a clean end", row.name, h2, err)
			}
			want := fmt.Sprintf(`{"error":%q,`, row.reason)
			if len(rest) != 2 || !strings.HasPrefix(rest[0], want) || !strings.HasSuffix(rest[0], `"line":3}`) ||
				rest[1] != `{"registered":1,"known":0,"revoked":0,"failed":1,"lines":2}` {
				t.Errorf("%s, HTTP/2 %t: got %q, want a line %s and a summary", row.name, h2, rest, want)
			}
			s.end()
		}
	}
}

// A line that the node has read before the credential becomes invalid is either registered before
// that moment or never.
func TestBulk_CredentialEnds_NoLaterLineIsRegistered(t *testing.T) {
	for _, h2 := range []bool{false, true} {
		b := newAdminBench(t)
		s := openBulk(t, b, h2, "")
		b.node.change("issuer", func(c *revoked.Client) {
			c.Secrets = []revoked.SecretHash{clientauth.HashSecret(secretOf("another"))}
		})
		go func() { _, _ = io.WriteString(s.body, bulkLine(1)+"\n"+bulkLine(2)+"\n") }()
		for s.lines.Scan() {
			if !strings.Contains(s.lines.Text(), `"error":"secret_ended"`) {
				t.Errorf("HTTP/2 %t: got %s, want secret_ended", h2, s.lines.Text())
			}
		}
		s.end()
		if _, err := b.node.Grant(t.Context(), "g-1"); !errors.Is(err, revoked.ErrNotFound) {
			t.Errorf("HTTP/2 %t: got %v, want no grant", h2, err)
		}
	}
}

// A stream continues after changes that leave its credential as it is.
func TestBulk_OtherChanges_StreamContinues(t *testing.T) {
	b := newAdminBench(t)
	s := openBulk(t, b, true, "")
	defer s.end()
	// After this call, both secrets are valid.
	if got := b.do(t, "admin", "POST", "/v1/clients/issuer/secret", "", "{}"); got.status != 200 {
		t.Fatal(got)
	}
	if _, err := io.WriteString(s.body, bulkLine(1)+"\n"); err != nil {
		t.Fatal(err)
	}
	if !s.lines.Scan() || !strings.Contains(s.lines.Text(), `"g-1"`) {
		t.Errorf("got %s, want the line registered", s.lines.Text())
	}
}

// FuzzRegistration sends bodies through a bulk call. Each line gets one valid JSON object, and
// every accepted body is also valid for encoding/json.
func FuzzRegistration(f *testing.F) {
	for _, s := range []string{bulkLine(1), pairBody("g", "app", "a", "r"), `{}`, `[]`,
		`{"client_id":"\ud83d\ude00","access_token":{"token":"\u0000"}}`,
		`{"client_id":"a","access_token":{"token":"x","issued_at":1.79e9,"cnf":{"a":[1,2,{"b":null}]}}}`,
		`{"client_id":"a","audience":[],"refresh_token":{"token":"x"}}`,
		"{\"client_id\":\"\xff\"}", `{"client_id":"a","access_token":{"token":"x","expires_at":99999999999999999999}}`,
		`{"a`, "\n\n", "{}\r\n{}"} {
		f.Add([]byte(s))
	}
	b := newAdminBench(f)
	f.Fuzz(func(t *testing.T, body []byte) {
		got := b.do(t, "issuer", "POST", "/v1/grants", ndjson, string(body))
		if got.status != 200 {
			t.Fatalf("got %d %s, want 200", got.status, got.body)
		}
		sent := nonBlank(body)
		results := strings.Split(strings.TrimSuffix(got.body, "\n"), "\n")
		if got.body == "" {
			results = nil
		}
		if len(results) != len(sent) {
			t.Fatalf("got %d results, want one for each of %d lines", len(results), len(sent))
		}
		for i, r := range results {
			var m map[string]any
			if err := json.Unmarshal([]byte(r), &m); err != nil {
				t.Fatalf("got result %q, want JSON", r)
			}
			if m["error"] == nil && !json.Valid(sent[i]) {
				t.Errorf("got %q accepted, want only JSON accepted", sent[i])
			}
		}
	})
}

func nonBlank(body []byte) (lines [][]byte) {
	for _, l := range bytes.Split(body, []byte("\n")) {
		if len(bytes.Trim(l, " \t\r")) > 0 {
			lines = append(lines, l)
		}
	}
	return lines
}

// BenchmarkBulk measures the registration of a token pair from the socket to Register and back,
// with TLS and the client.
func BenchmarkBulk(b *testing.B) {
	bench := newAdminBench(b)
	bench.node.discard = true
	var body bytes.Buffer
	for i := range 20_000 {
		fmt.Fprintln(&body, bulkLine(i))
	}
	b.ReportAllocs()
	b.ResetTimer()
	done := 0
	for done < b.N {
		req := bench.request(b, "issuer", "POST", "/v1/grants?results=errors", bytes.NewReader(body.Bytes()))
		req.Header.Set("Content-Type", ndjson)
		res, err := bench.http.Do(req)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, res.Body); err != nil {
			b.Fatal(err)
		}
		res.Body.Close()
		done += 20_000
	}
	b.ReportMetric(float64(done)/b.Elapsed().Seconds(), "pairs/s")
}
