//go:build system

package systemtest

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	mrand "math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"revoked/internal/hostile"
)

// A fuzzed request has names in lower case, so that it can be sent over both protocols.
type fuzzed struct {
	method, path string
	fields       []hostile.Field
	body         []byte
}

func pick[T any](r *mrand.Rand, from ...T) T { return from[r.IntN(len(from))] }

// request returns a random request. A request that would remove a member or a client of the test
// has no administrator's credentials.
func (f *fuzz) request(r *mrand.Rand) fuzzed {
	token := fmt.Sprintf("fz.%s.%d", f.core, r.IntN(5000))
	q := fuzzed{method: pick(r, "POST", "POST", "POST", "GET", "GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE",
		"PROPFIND", "get")}
	id := pick(r, "fuzz-1", "fuzz-2", "fuzz-"+strconv.Itoa(r.IntN(5000)), "%00", "..", "a%2Fb",
		strings.Repeat("x", 1+r.IntN(3000)))
	admin := true // the administrator may send it
	switch r.IntN(10) {
	case 0, 1:
		q.path = pick(r, "/oauth2/revoke", "/invoke/pub.oauth/revokeToken")
	case 2, 3:
		q.path = pick(r, "/oauth2/introspect", "/invoke/pub.oauth/introspectToken")
	case 4:
		q.path = "/v1/grants"
	case 5:
		q.path = pick(r, "/v1/check", "/v1/check/a/b", "/v1/revocations", "/v1/grants/"+id, "/v1/grants/"+id)
	case 6:
		q.path = pick(r, "/livez", "/readyz", "/metrics", "/.well-known/oauth-authorization-server", "/", "/v1", "/v1/none",
			"//", "/oauth2", "/"+id, "*", "/v1/members", "/v1/status", "/v1/clients", "/v1/cluster/admitted",
			"/v1/cluster/join-tokens", "/v1/cluster/join-tokens/"+id, "/v1/cluster/admit/"+id)
	case 7:
		q.path, admin = pick(r, "/v1/clients/"+id, "/v1/clients/app", "/v1/clients/"+id+"/secret", "/v1/settings",
			"/v1/snapshot", "/v1/cluster/admit", "/v1/cluster/leave", "/v1/cluster/remove", "/v1/cluster/join",
			"/v1/cluster/promote", "/v1/cluster/demote", "/v1/cluster/transfer-leader"), false
	default:
		q.path = pick(r, "/oauth2/introspect", "/v1/check", "/v1/grants")
	}
	if r.IntN(4) > 0 {
		q.method = "GET"
		if strings.HasPrefix(q.path, "/oauth2") || strings.HasPrefix(q.path, "/invoke") || q.path == "/v1/grants" {
			q.method = "POST"
		}
	}
	if r.IntN(4) == 0 {
		q.path += pick(r, "?", "?verbose", "?revoke&verbose", "?after=0", "?after=-1", "?after=99999999999",
			"?results=errors", "?token="+token, "?a=%zz", "?a;b", "?after=1&after=2", "?reason=x",
			"?"+strings.Repeat("a=b&", r.IntN(3000)))
	}
	q.body = f.body(r, q.path, token)
	add := func(name, value string) { q.fields = append(q.fields, hostile.Field{name, value}) }
	f.credentials(r, admin, token, add)
	add("content-type", f.contentType(r, q.path))
	if r.IntN(3) == 0 {
		add(pick(r, "accept", "origin", "x-forwarded-for", "accept-encoding", "range", "if-none-match", "traceparent",
			"x-forwarded-proto", "cookie", "user-agent", "last-event-id", "content-encoding", "x-request-id"),
			pick(r, "*/*", "text/event-stream", "https://evil.example", "192.0.2.7:4711", "[2001:db8::7", "gzip", "bytes=0-1",
				"*", "\"x\"", "00-x-y-z", token, strings.Repeat(",", 300), "\xff\xfe", "a\tb"))
	}
	if r.IntN(12) == 0 {
		add("x-fill", strings.Repeat("x", pick(r, 1000, 15000, 17000, 21000, 60000, 300000, 1040000, 1100000)))
	}
	if r.IntN(20) == 0 {
		for i := range r.IntN(1500) {
			add("x-"+strconv.Itoa(i), "")
		}
	}
	return q
}

func (f *fuzz) contentType(r *mrand.Rand, path string) string {
	if r.IntN(6) == 0 {
		return pick(r, "", "text/plain", "application/json; charset=latin1", "application/x-www-form-urlencoded; a=\"",
			"multipart/form-data; boundary=x", "application/merge-patch+json", ";", "application/json, text/html")
	}
	switch {
	case strings.HasPrefix(path, "/v1/grants") && r.IntN(2) == 0:
		return "application/x-ndjson"
	case strings.HasPrefix(path, "/v1"):
		return "application/json"
	}
	return "application/x-www-form-urlencoded"
}

// credentials adds those of a client, or malformed ones.
func (f *fuzz) credentials(r *mrand.Rand, admin bool, token string, add func(name, value string)) {
	basic := func(id, secret string) string {
		return "Basic " + base64.StdEncoding.EncodeToString([]byte(id+":"+secret))
	}
	right := func(name string) string {
		cl := f.c.Clients[name]
		return basic(cl.ClientID, cl.ClientSecret)
	}
	name := pick(r, "app", "issuer", "resource_server")
	if admin && r.IntN(4) == 0 {
		name = "admin"
	}
	switch r.IntN(20) {
	case 0:
	case 1:
		add("authorization", basic(pick(r, "app", "nobody", "", "fuzz-1"), token))
	case 2:
		add("authorization", pick(r, "Basic", "Basic !", "Basic "+token, "Bearer", "Digest x", token, "basic  ",
			"Basic Og=="))
	case 3:
		add("authorization", right(name))
		add("authorization", right("app"))
	case 4, 5:
		add("authorization", "Bearer "+token)
		add("revoked-authorization", right("resource_server"))
	case 6:
		add("authorization", "Bearer "+token)
	default:
		add("authorization", right(name))
	}
}

// body returns a body that fits the path, often damaged.
func (f *fuzz) body(r *mrand.Rand, path, token string) []byte {
	var b []byte
	switch n := strconv.Itoa(r.IntN(5000)); {
	case strings.HasPrefix(path, "/v1/grants"):
		for range 1 + r.IntN(8) {
			reg := registration("fuzz-"+n, "mallory", token, token+"r")
			for _, kind := range []string{"access_token", "refresh_token"} {
				reg[kind].(map[string]any)["expires_at"] = time.Now().Unix() + int64(r.IntN(60)) - 5
			}
			line, _ := json.Marshal(reg)
			b = append(append(b, line...), '\n')
			token += "x"
			if r.IntN(3) > 0 {
				break
			}
		}
	case strings.HasPrefix(path, "/v1/revocations"):
		b, _ = json.Marshal(map[string]any{"subject": "mallory", "dry_run": r.IntN(2) == 0, "reason": "fuzz"})
	case strings.HasPrefix(path, "/v1/clients"):
		b, _ = json.Marshal(map[string]any{"client_id": "fuzz-" + strconv.Itoa(r.IntN(16)),
			"type": pick(r, "public", "x", "confidential")})
	case strings.HasPrefix(path, "/v1/cluster"):
		b, _ = json.Marshal(map[string]any{"node": "fuzz-" + strconv.Itoa(r.IntN(16)), "ttl": "1s"})
	default:
		b = []byte(url.Values{"token": {token}}.Encode())
	}
	switch r.IntN(12) {
	case 0:
		b = b[:r.IntN(len(b)+1)]
	case 1:
		b = append([]byte("\xef\xbb\xbf"), b...)
	case 2:
		b[r.IntN(len(b))] = byte(r.Uint32())
	case 3:
		b = bytes.Repeat(b, 1+r.IntN(40))
	case 4:
		b = append(b, pick(r, "&token=b", "&client_id=app&client_secret=x", "&%zz", "\x00", "}", "\n[", "&a=&a")...)
	case 5:
		var packed bytes.Buffer
		w := gzip.NewWriter(&packed)
		_, _ = w.Write(b)
		_ = w.Close()
		b = packed.Bytes()
	case 6:
		b = nil
	case 7:
		b = bytes.Repeat([]byte{pick(r, byte('['), '{', 'a', 0, '\n', '&')}, pick(r, 100, 16<<10, 17<<10, 70<<10, 200<<10))
	}
	return b
}

// run sends random requests until ctx ends, each time over a connection of a random kind.
func (f *fuzz) run(ctx context.Context, t *testing.T, r *mrand.Rand) {
	var open []net.Conn // left with half a request
	defer func() {
		for _, c := range open {
			_ = c.Close()
		}
	}()
	for f.pace.Wait(ctx) == nil {
		m := pick(r, f.c.Nodes...)
		proto := pick(r, "http/1.1", "h2")
		raw, err := net.Dial("tcp", strings.TrimPrefix(m.API, "https://"))
		if err != nil {
			if m.proc.Running() {
				continue
			}
			t.Errorf("%s exited: %v", m.ID, m.proc.Err())
			return
		}
		c := tls.Client(raw, &tls.Config{RootCAs: f.c.pool, NextProtos: []string{proto}, ServerName: "127.0.0.1"})
		_ = c.SetDeadline(time.Now().Add(longStop / 4))
		stop := context.AfterFunc(ctx, func() { _ = raw.Close() })
		var keep bool
		if proto == "h2" {
			keep = f.exchange2(ctx, t, r, c)
		} else {
			keep = f.exchange1(ctx, t, r, c)
		}
		stop()
		if r.IntN(2) == 0 {
			_ = raw.(*net.TCPConn).SetLinger(0) // a reset instead of a FIN
		}
		if !keep {
			_ = raw.Close()
			continue
		}
		if open = append(open, raw); len(open) > 20 {
			_ = open[0].Close()
			open = open[1:]
		}
	}
}

// exchange1 sends up to eight requests over HTTP/1.1. It returns true if it abandoned one halfway.
func (f *fuzz) exchange1(ctx context.Context, t *testing.T, r *mrand.Rand, c *tls.Conn) (half bool) {
	answers := bufio.NewReader(c)
	for range 1 + r.IntN(8) {
		q := f.request(r)
		text := q.http1(r)
		if r.IntN(8) == 0 {
			_, _ = c.Write(text[:r.IntN(len(text))])
			return r.IntN(2) == 0
		}
		if strings.Contains(q.path, "follow") {
			return false
		}
		if _, err := c.Write(text); err != nil && r.IntN(2) == 0 {
			return false // otherwise read the answer that was sent before the end
		}
		resp, err := readResponse(answers, q.method)
		if err != nil {
			return false
		}
		body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
		if err != nil {
			return false
		}
		f.check(t, "HTTP/1.1", q, resp.StatusCode, resp.Header, body)
		if resp.Close || f.pace.Wait(ctx) != nil {
			return false
		}
	}
	return false
}

// readResponse reads a final response.
func readResponse(b *bufio.Reader, method string) (*http.Response, error) {
	for {
		resp, err := http.ReadResponse(b, &http.Request{Method: method})
		if err != nil || resp.StatusCode >= 200 {
			return resp, err
		}
	}
}

// http1 returns a request as bytes, sometimes with a framing that is wrong.
func (q fuzzed) http1(r *mrand.Rand) []byte {
	var b bytes.Buffer
	end := "\r\n"
	if r.IntN(20) == 0 {
		end = "\n"
	}
	version := "HTTP/1.1"
	if r.IntN(15) == 0 {
		version = pick(r, "HTTP/1.0", "HTTP/2.0", "HTTP/1.2", "HTTP/0.9", "http/1.1", "", "HTTP/9.9")
	}
	fmt.Fprintf(&b, "%s %s %s%s", q.method, q.path, version, end)
	if r.IntN(20) > 0 {
		fmt.Fprintf(&b, "Host: as.example%s", end)
	}
	for _, f := range q.fields {
		fmt.Fprintf(&b, "%s: %s%s", f[0], f[1], end)
	}
	if r.IntN(15) == 0 {
		b.WriteString(pick(r, "Expect: 100-continue", "Expect: x", "Transfer-Encoding: gzip", "Connection: close",
			"Connection: x", "Upgrade: h2c", "TE: trailers", "no colon", " folded", "Bad Name: x", "X: \x00",
			"Host: b", "Trailer: a") + end)
	}
	body := q.body
	switch r.IntN(12) {
	case 0, 1:
		var chunks bytes.Buffer
		for len(body) > 0 {
			n := 1 + r.IntN(len(body))
			fmt.Fprintf(&chunks, "%x%s\r\n%s\r\n", n, pick(r, "", ";x=y"), body[:n])
			body = body[n:]
		}
		chunks.WriteString(pick(r, "0\r\n\r\n", "0\r\na: b\r\n\r\n", "z\r\n"))
		b.WriteString("Transfer-Encoding: chunked" + end)
		body = chunks.Bytes()
	case 2:
		b.WriteString(pick(r, "Content-Length: -1", "Content-Length: x", "Content-Length: 99999999999999999999",
			"Content-Length: 5\r\nContent-Length: 6", "Content-Length: 5\r\nTransfer-Encoding: chunked") + end)
	case 3:
		fmt.Fprintf(&b, "Content-Length: %d%s", len(body)/2, end)
	default:
		fmt.Fprintf(&b, "Content-Length: %d%s", len(body), end)
	}
	b.WriteString(end)
	b.Write(body)
	return b.Bytes()
}

// A stream is a request over HTTP/2 with its answer.
type stream struct {
	fuzzed
	header http.Header
	status int
	body   []byte
}

// exchange2 sends up to sixteen requests concurrently over HTTP/2. It returns true if it abandoned
// one halfway.
func (f *fuzz) exchange2(ctx context.Context, t *testing.T, r *mrand.Rand, c *tls.Conn) (half bool) {
	h, err := hostile.NewH2(c, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 24})
	if err != nil {
		return false
	}
	_ = h.WriteWindowUpdate(0, 1<<24)
	waiting := map[uint32]*stream{}
	for range 1 + r.IntN(16) {
		q := f.request(r)
		fields := append(hostile.Request(q.method, q.path), q.fields...)
		if r.IntN(15) == 0 {
			fields = append(fields, pick(r, hostile.Field{"Upper", "x"}, hostile.Field{"a b", "x"},
				hostile.Field{"connection", "close"}, hostile.Field{":path", "/x"}, hostile.Field{"content-length", "7"},
				hostile.Field{"te", "gzip"},
				hostile.Field{"transfer-encoding", "chunked"},
				hostile.Field{"expect", "100-continue"}, hostile.Field{"a", "\x00"}))
		}
		if r.IntN(30) == 0 {
			i := r.IntN(4)
			fields = append(fields[:i:i], fields[i+1:]...)
		}
		id, err := h.Open(len(q.body) == 0, fields...)
		if err != nil {
			break
		}
		for body := q.body; len(body) > 0; {
			n := min(1+r.IntN(len(body)), 16<<10)
			_ = h.WriteData(id, n == len(body), body[:n])
			if body = body[n:]; r.IntN(15) == 0 {
				if r.IntN(2) == 0 {
					_ = h.WriteRSTStream(id, http2.ErrCodeCancel)
				}
				id = 0 // no answer
				break
			}
		}
		if r.IntN(30) == 0 {
			_ = pick(r, func() error { return h.WritePing(false, [8]byte{1}) },
				func() error { return h.WriteWindowUpdate(id, 0) },
				func() error { return h.WriteRawFrame(http2.FrameType(r.IntN(20)), 0, id, make([]byte, r.IntN(40))) },
				func() error { return h.WritePriority(id, http2.PriorityParam{StreamDep: id, Weight: 3}) },
				func() error { return h.WriteSettings(http2.Setting{ID: http2.SettingMaxFrameSize, Val: 1}) },
				func() error { return h.WriteGoAway(0, http2.ErrCodeNo, nil) })()
		}
		if id > 0 {
			waiting[id] = &stream{fuzzed: q}
		} else {
			half = true
		}
		if f.pace.Wait(ctx) != nil {
			return false
		}
	}
	if r.IntN(8) == 0 {
		return r.IntN(2) == 0 // without reading an answer
	}
	f.readStreams(t, h, waiting)
	return half
}

// readStreams reads the answers on a connection until each stream has one, or the connection ends.
func (f *fuzz) readStreams(t *testing.T, h *hostile.H2, waiting map[uint32]*stream) {
	for len(waiting) > 0 {
		frame, err := h.ReadFrame()
		if err != nil {
			if _, ok := err.(http2.StreamError); ok {
				continue
			}
			return
		}
		id := frame.Header().StreamID
		s := waiting[id]
		switch frame := frame.(type) {
		case *http2.MetaHeadersFrame:
			if s == nil {
				continue
			}
			s.status, _ = strconv.Atoi(frame.PseudoValue("status"))
			s.header = http.Header{}
			for _, field := range frame.RegularFields() {
				s.header.Add(field.Name, field.Value)
			}
		case *http2.DataFrame:
			if s != nil {
				s.body = append(s.body, frame.Data()...)
			}
		case *http2.RSTStreamFrame:
			delete(waiting, id)
		case *http2.GoAwayFrame:
			if frame.ErrCode != http2.ErrCodeNo {
				return
			}
		}
		if s != nil && s.status >= 200 && frame.Header().Flags.Has(http2.FlagDataEndStream) {
			delete(waiting, id)
			f.check(t, "HTTP/2", s.fuzzed, s.status, s.header, s.body)
		}
	}
}
