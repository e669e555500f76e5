package api_test

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"revoked/api"
)

// nowhere is a response writer that keeps nothing.
type nowhere struct {
	h      http.Header
	status int
}

func (n *nowhere) Header() http.Header         { return n.h }
func (n *nowhere) Write(b []byte) (int, error) { return len(b), nil }
func (n *nowhere) WriteHeader(status int)      { n.status = status }

func benchmark(b *testing.B, path, auth, body string) {
	n := newBench(b, func(c *api.Config) { c.Log = nil })
	h := n.api.Handler()
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		reader := bytes.NewReader(nil)
		r := httptest.NewRequest(http.MethodPost, "https://as.example"+path, nil)
		r.Header.Set("Content-Type", formType)
		r.Header.Set("Authorization", auth)
		r.ContentLength = int64(len(body))
		w := &nowhere{h: http.Header{}}
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

func BenchmarkRevoke(b *testing.B) { benchmark(b, pathRevoke, as("c1"), "token=AT1") }

// BenchmarkBare is what the two are measured against: a handler that reads a form and answers.
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
	w := &nowhere{h: http.Header{}}
	for b.Loop() {
		r.Body, r.PostForm, r.Form = io.NopCloser(bytes.NewReader(body)), nil, nil
		h.ServeHTTP(w, r)
	}
}

// benchmarkServer sends requests over kept-alive TLS connections, from this process.
func benchmarkServer(b *testing.B, change func(*api.ServerConfig)) {
	r := start(b, change, func(c *api.Config) { c.Log = nil })
	b.SetParallelism(8)
	b.RunParallel(func(pb *testing.PB) {
		c := r.client(b, false, 0)
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

// BenchmarkServerBare is the same server before a handler that does nothing.
func BenchmarkServerBare(b *testing.B) {
	benchmarkServer(b, func(c *api.ServerConfig) {
		c.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, `{"active":true,"scope":"read write","client_id":"c1"}`)
		})
	})
}
