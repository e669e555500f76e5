package api_test

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"revoked"
	"revoked/api"
)

// A discardWriter is a response writer that discards everything.
type discardWriter struct {
	h      http.Header
	status int
}

func (n *discardWriter) Header() http.Header         { return n.h }
func (n *discardWriter) Write(b []byte) (int, error) { return len(b), nil }
func (n *discardWriter) WriteHeader(status int)      { n.status = status }

// A fixedNode returns constant answers, so that a benchmark measures only the API.
type fixedNode struct {
	*hookedNode
	status revoked.TokenStatus
}

func (n *fixedNode) Status(context.Context, revoked.Digest, string) (revoked.TokenStatus, error) {
	return n.status, nil
}

func (n *fixedNode) Revoke(context.Context, revoked.Actor, revoked.Digest) (revoked.RevokeResult, error) {
	return revoked.RevokeResult{Index: 1}, nil
}

func withFixedNode(c *api.Config) {
	n := &fixedNode{hookedNode: c.Backend.(*hookedNode)}
	n.status, _ = n.hookedNode.Status(context.Background(), revoked.DigestToken("AT1"), "")
	c.Backend, c.Log = n, nil
}

func benchmark(b *testing.B, path, auth, body string) {
	benchmarkHandler(b, newBench(b, withFixedNode).api.Handler(), path, auth, body)
}

func benchmarkHandler(b *testing.B, h http.Handler, path, auth, body string) {
	b.Helper()
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		reader := bytes.NewReader(nil)
		r := httptest.NewRequest(http.MethodPost, "https://as.example"+path, nil)
		r.Header.Set("Content-Type", formType)
		r.Header.Set("Authorization", auth)
		r.ContentLength = int64(len(body))
		w := &discardWriter{h: http.Header{}}
		for pb.Next() {
			reader.Reset([]byte(body))
			r.Body = io.NopCloser(reader)
			clear(w.h)
			h.ServeHTTP(w, r)
			if w.status != 200 {
				b.Errorf("got %d", w.status)
				return
			}
		}
	})
}

func BenchmarkIntrospect(b *testing.B) { benchmark(b, pathIntrospect, as("rs1"), "token=AT1") }

// A cachedNode answers from its state through the record cache, as a node with a lease does.
type cachedNode struct{ *hookedNode }

func (n *cachedNode) Status(ctx context.Context, d revoked.Digest, _ string) (revoked.TokenStatus, error) {
	return n.tokens.Status(ctx, &revoked.PresentedToken{Digest: d})
}

func (n *cachedNode) StatusOf(ctx context.Context, p revoked.PresentedToken) (revoked.TokenStatus, error) {
	return n.tokens.Status(ctx, &p)
}

// BenchmarkIntrospectCached compares a JWT that the node has seen with a registered opaque token.
func BenchmarkIntrospectCached(b *testing.B) {
	n := newBench(b, func(c *api.Config) { c.Backend, c.Log = &cachedNode{c.Backend.(*hookedNode)}, nil })
	jwt := n.node.trust(b, nil).sign(nil)
	b.Run("opaque", func(b *testing.B) { benchmarkHandler(b, n.api.Handler(), pathIntrospect, as("rs1"), "token=AT1") })
	b.Run("jwt", func(b *testing.B) { benchmarkHandler(b, n.api.Handler(), pathIntrospect, as("rs1"), "token="+jwt) })
}

func BenchmarkRevoke(b *testing.B) { benchmark(b, pathRevoke, as("c1"), "token=AT1") }

// BenchmarkBare is the baseline of the handler benchmarks: it reads a form and answers.
func BenchmarkBare(b *testing.B) {
	body := []byte("token=AT1")
	b.ReportAllocs()
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := r.ParseForm(); err != nil {
			b.Error(err)
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(`{"active":false}`))
	})
	r := httptest.NewRequest(http.MethodPost, "https://as.example/", nil)
	r.Header.Set("Content-Type", formType)
	w := &discardWriter{h: http.Header{}}
	for b.Loop() {
		r.Body, r.PostForm, r.Form = io.NopCloser(bytes.NewReader(body)), nil, nil
		h.ServeHTTP(w, r)
	}
}

// benchmarkServer sends requests over kept-alive TLS connections, from this process.
func benchmarkServer(b *testing.B, handler http.Handler) {
	r := start(b, handler, func(c *api.Config) { c.Log = nil })
	b.SetParallelism(8)
	b.RunParallel(func(pb *testing.PB) {
		c := r.client(b, false)
		for pb.Next() {
			res, _, err := r.introspect(c, "https")
			if err != nil || res.StatusCode != 200 {
				b.Error(res, err)
				return
			}
		}
	})
}

func BenchmarkServerIntrospect(b *testing.B) { benchmarkServer(b, nil) }

// BenchmarkServerBare is the baseline of the server benchmarks: its handler is empty.
func BenchmarkServerBare(b *testing.B) {
	benchmarkServer(b, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"active":true,"scope":"read write","client_id":"c1"}`)
	}))
}
