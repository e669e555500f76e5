package serve_test

import (
	"crypto/tls"
	"fmt"
	"strings"
	"testing"

	"revoked/api/serve"
	"revoked/internal/await"
	"revoked/internal/hostile"
)

// A malformed request over HTTP/2 ends its own stream. The next request on the connection is
// answered.
func TestHTTP2_BadRequest_EndsItsStreamOnly(t *testing.T) {
	good := hostile.Request("GET", "/")
	with := func(more ...hostile.Field) []hostile.Field { return append(good[:4:4], more...) }
	many := good
	for i := range 5000 {
		many = append(many, hostile.Field{fmt.Sprintf("x-%d", i), "y"})
	}
	rows := []struct {
		name   string
		fields []hostile.Field
		want   string // status, or the code of RST_STREAM
	}{
		{"an upper-case name", with(hostile.Field{"Upper", "x"}), "PROTOCOL_ERROR"},
		{"a bad name", with(hostile.Field{"a b", "x"}), "PROTOCOL_ERROR"},
		{"a bad value", with(hostile.Field{"a", "x\x00"}), "PROTOCOL_ERROR"},
		{"a repeated pseudo header", with(hostile.Field{":path", "/x"}), "PROTOCOL_ERROR"},
		{"an unknown pseudo header", append([]hostile.Field{{":x", "y"}}, good...), "PROTOCOL_ERROR"},
		{"a pseudo header after a field", with(hostile.Field{"a", "b"}, hostile.Field{":path", "/"}), "PROTOCOL_ERROR"},
		{"no path", good[:3], "PROTOCOL_ERROR"},
		{"a header of HTTP/1", with(hostile.Field{"connection", "close"}), "400"},
		{"a large value", with(hostile.Field{"a", strings.Repeat("x", 100<<10)}), "431"},
		{"a large name", with(hostile.Field{strings.Repeat("x", 100<<10), "y"}), "431"},
		{"a large path", hostile.Request("GET", "/"+strings.Repeat("x", 100<<10)), "431"},
		{"a megabyte", with(hostile.Field{"a", strings.Repeat("x", 1<<20)}), "431"},
		{"many fields", many, "431"},
	}
	s := start(t, refusals)
	c, err := tls.Dial("tcp", s.addr, &tls.Config{RootCAs: s.pool, NextProtos: []string{"h2"}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	h, err := hostile.NewH2(c)
	if err != nil {
		t.Fatal(err)
	}
	send := func(fields []hostile.Field) string {
		id, err := h.Open(true, fields...)
		if err != nil {
			t.Fatal(err)
		}
		return h.Answer(id)
	}
	for _, row := range rows {
		if got := send(row.fields); got != row.want {
			t.Errorf("%s: got %s, want %s", row.name, got, row.want)
		}
		if got := send(good); got != "200" {
			t.Fatalf("the next request after %s: got %s, want 200", row.name, got)
		}
	}
}

// One connection may have 50 requests in progress. A further request is refused, which ends only
// its stream.
func TestHTTP2_StreamsOfAConnection_AreLimited(t *testing.T) {
	const limit = 50
	entered, release := make(chan struct{}), make(chan struct{})
	s := start(t, func(c *serve.Config) { c.Handler = refusing(entered, release) })
	c, err := tls.Dial("tcp", s.addr, &tls.Config{RootCAs: s.pool, NextProtos: []string{"h2"}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	h, err := hostile.NewH2(c)
	if err != nil {
		t.Fatal(err)
	}
	var busy []uint32
	for range limit {
		id, err := h.Open(true, hostile.Request("GET", "/busy")...)
		if err != nil {
			t.Fatal(err)
		}
		busy = append(busy, id)
		await.Receive(t, entered, "the request in the handler")
	}
	id, err := h.Open(true, hostile.Request("GET", "/")...)
	if err != nil {
		t.Fatal(err)
	}
	if got := h.Answer(id); got != "REFUSED_STREAM" {
		t.Errorf("request %d of a connection: got %s, want REFUSED_STREAM", limit+1, got)
	}
	close(release)
	for id, got := range h.Answers(busy...) {
		if got != "200" {
			t.Errorf("stream %d: got %s, want 200", id, got)
		}
	}
}
