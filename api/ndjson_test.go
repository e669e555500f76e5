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
)

const ndjson = "application/x-ndjson"

func bulkLine(i int) string {
	return fmt.Sprintf(`{"grant_id":"g-%d","client_id":"app","subject":"user-%d","session":"s-%d","username":"user-%d@example.org","issuer":"https://as.example","scope":"read write","audience":["rs1","rs2"],"access_token":{"token":"access-token-%032d","issued_at":1790000000,"expires_at":4102444800,"jti":"j-%d"},"refresh_token":{"token":"refresh-token-%032d","issued_at":1790000000,"expires_at":4102444800}}`, i, i, i, i, i, i, i)
}

// longLine is a body whose result is as long as itself.
func longLine(i int) string {
	return fmt.Sprintf(`{"grant_id":"g-%d,%s","client_id":"app","access_token":{"token":"t-%d"}}`, i, strings.Repeat("x", 240), i)
}

// manyLines is a body of n registrations that is made as it is read.
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
func (b *adminBench) client(t *testing.T, h2 bool) *http.Client {
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

func TestBulk(t *testing.T) {
	b := newAdminBench(t)
	if got := b.do(t, "issuer", "POST", "/v1/grants", "", pairBody("g-known", "app", "known", "known-r")); got.status != 201 {
		t.Fatal(got)
	}
	lines := []struct{ line, want string }{
		{bulkLine(1), `{"grant_id":"g-1","index":N,"state":"active"}`},
		{`not json SECRET`, `{"error":"invalid","detail":"invalid request: want an object (byte 0)","line":2}`},
		{``, ``},
		{`{"grant_id":"g-2","client_id":"nobody","access_token":{"token":"t2"}}`, `{"error":"unknown_client","detail":"unknown client: client_id","line":4}`},
		{strings.Repeat(" ", 70000) + `{}`, `{"error":"invalid","detail":"invalid request: the line is longer than 65536 bytes","line":5}`},
		{strings.ReplaceAll(pairBody("g-known", "app", "known", "known-r"), "\n", ""), `{"grant_id":"g-known","index":N,"state":"active"}`},
		{`{"grant_id":"g-1","client_id":"other","access_token":{"token":"t3"}}`, `{"error":"conflict","detail":"conflict: grant has another client, subject, session or issuer","line":7}`},
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
		t.Fatalf("got %d %s", got.status, got.header)
	}
	answers := strings.Split(strings.TrimSuffix(got.body, "\n"), "\n")
	if len(answers) != len(want) {
		t.Fatalf("got %d results, want %d:\n%s", len(answers), len(want), got.body)
	}
	for i, w := range want {
		a := answers[i]
		if before, after, ok := strings.Cut(w, "N"); ok {
			if !strings.HasPrefix(a, before) || !strings.HasSuffix(a, after) {
				t.Errorf("got %s, want %s", a, w)
			}
		} else if a != w {
			t.Errorf("got %s, want %s", a, w)
		}
	}
	if strings.Contains(got.body, "SECRET") {
		t.Error("a result repeats its line")
	}
	got = b.do(t, "issuer", "POST", "/v1/grants?results=errors", ndjson, strings.Join(body, "\n"))
	answers = strings.Split(strings.TrimSuffix(got.body, "\n"), "\n")
	if sum := answers[len(answers)-1]; len(answers) != 5 || sum != `{"registered":0,"known":3,"revoked":0,"failed":4,"lines":7}` {
		t.Errorf("results=errors: got %s", got.body)
	}
	if got := b.do(t, "issuer", "POST", "/v1/grants?results=none", ndjson, bulkLine(1)); got.status != 400 {
		t.Errorf("results=none: got %d, want 400", got.status)
	}
	if got := b.do(t, "issuer", "POST", "/v1/grants", ndjson, ""); got.status != 200 || got.body != "" {
		t.Errorf("empty body: got %d %q, want 200 and nothing", got.status, got.body)
	}
}

// TestBulkGoesOn: a batch that could not be committed fails its lines only.
func TestBulkGoesOn(t *testing.T) {
	b := newAdminBench(t)
	calls := 0
	b.node.mu.Lock()
	b.node.fail = func(m string) error {
		if m != "Register" {
			return nil
		}
		if calls++; calls == 2 {
			return errors.New("raft has ended")
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
			t.Fatalf("line %d: got %s", i+1, l)
		}
	}
	if len(lines) != n || failed == 0 || failed > 512 {
		t.Errorf("got %d results, %d failed; want %d results, one batch failed", len(lines), failed, n)
	}
}

// TestBulkIsPatient: a full queue or a change of leader slows a bulk registration down and fails none
// of it; what lasts is told.
func TestBulkIsPatient(t *testing.T) {
	for _, row := range []struct {
		err   error
		times int // in a row
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

// TestBulkKeepsTheOrderOfAGrant: bodies of one grant are committed in the order of their lines.
func TestBulkKeepsTheOrderOfAGrant(t *testing.T) {
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
	for i, d := range b.node.members["g"] {
		if d != revoked.DigestToken(fmt.Sprintf("t-%d", i)) {
			t.Fatalf("token %d is out of order", i)
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

// TestBulkInteractive: a client that waits for the result of a line before it sends the next gets it.
func TestBulkInteractive(t *testing.T) {
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
					t.Fatalf("result %d: got %q %v", i, results.Text(), results.Err())
				}
				fmt.Fprintln(pw, bulkLine(i+1))
			}
			pw.Close()
			for results.Scan() {
			}
		})
	}
}

// TestBulkClientThatDoesNotRead: contract section 3, "a client that reads nothing before it has sent
// everything must not deadlock". The answer is larger than every socket buffer on the way.
func TestBulkClientThatDoesNotRead(t *testing.T) {
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
		if err := req.Write(conn); err != nil { // returns when all is sent; nothing was read
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
		<-body.sent // nothing is read before
		countResults(t, res.Body, n)
		res.Body.Close()
	})
}

// shrink makes the receive buffer small, so that the server's answer cannot hide in it.
func shrink(t *testing.T, conn *tls.Conn) {
	t.Helper()
	if err := conn.NetConn().(*net.TCPConn).SetReadBuffer(64 << 10); err != nil {
		t.Fatal(err)
	}
}

// afterwards tells when a body was sent.
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
			t.Fatalf("result %d: got %s", n, results.Text())
		}
		n++
	}
	if n != want || results.Err() != nil {
		t.Errorf("got %d results and %v, want %d", n, results.Err(), want)
	}
}

// TestBulkMemory: the heap does not grow with the number of lines, nor with results that are not read.
func TestBulkMemory(t *testing.T) {
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
	<-body.sent
	const most = 48 << 20 // of 60 MB sent and 55 MB of results; client and server together
	if grown := heap() - before; grown > most {
		t.Errorf("the heap grew by %d bytes, want at most %d", grown, most)
	}
	countResults(t, res.Body, n)
}

func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// TestBulkCutShort: what is not a whole line when the body breaks off is not registered, and the answer
// does not look whole.
func TestBulkCutShort(t *testing.T) {
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
		t.Errorf("got %s, want a last line that says that the body broke off", answer)
	}
	if rec, _ := b.node.Peek(revoked.DigestToken("cut")); rec.Found {
		t.Error("half a body was registered")
	}
}

// FuzzRegistration feeds bodies to the decoder through a bulk call: whatever comes, there is one valid
// JSON object a line, and what is accepted is accepted by encoding/json as well.
func FuzzRegistration(f *testing.F) {
	for _, s := range []string{bulkLine(1), pairBody("g", "app", "a", "r"), `{}`, `[]`, `{"client_id":"\ud83d\ude00","access_token":{"token":"\u0000"}}`,
		`{"client_id":"a","access_token":{"token":"x","issued_at":1.79e9,"cnf":{"a":[1,2,{"b":null}]}}}`, `{"client_id":"a","audience":[],"refresh_token":{"token":"x"}}`,
		"{\"client_id\":\"\xff\"}", `{"client_id":"a","access_token":{"token":"x","expires_at":99999999999999999999}}`, `{"a`, "\n\n", "{}\r\n{}"} {
		f.Add([]byte(s))
	}
	b := newAdminBench(f)
	f.Fuzz(func(t *testing.T, body []byte) {
		got := b.do(t, "issuer", "POST", "/v1/grants", ndjson, string(body))
		if got.status != 200 {
			t.Fatalf("got %d %s", got.status, got.body)
		}
		sent := nonBlank(body)
		results := strings.Split(strings.TrimSuffix(got.body, "\n"), "\n")
		if got.body == "" {
			results = nil
		}
		if len(results) != len(sent) {
			t.Fatalf("got %d results for %d lines", len(results), len(sent))
		}
		for i, r := range results {
			var m map[string]any
			if err := json.Unmarshal([]byte(r), &m); err != nil {
				t.Fatalf("result %q is no JSON", r)
			}
			if m["error"] == nil && !json.Valid(sent[i]) {
				t.Errorf("%q was accepted and is no JSON", sent[i])
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

// BenchmarkBulk is the cost of a pair from the socket to Register and back, TLS and client included.
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
