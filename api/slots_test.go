package api_test

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"revoked/api"
	"revoked/internal/await"
)

// open sends a request whose answer does not end, and returns a function that closes it.
func (b *adminBench) open(t *testing.T, who, method, path string) (status int, header http.Header, end func()) {
	t.Helper()
	var body io.Reader
	end = func() {}
	if method == http.MethodPost {
		r, w := io.Pipe()
		body, end = r, func() { w.Close() }
		go func() { _, _ = fmt.Fprintln(w, bulkLine(0)) }()
	}
	req := b.request(t, who, method, path, body)
	if body != nil {
		req.Header.Set("Content-Type", ndjson)
	}
	res, err := b.http.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	closeBody := end
	end = func() {
		closeBody()
		res.Body.Close()
	}
	t.Cleanup(end)
	return res.StatusCode, res.Header, end
}

// Each client, and the node as a whole, has a limited number of slots for requests of unbounded
// length.
func TestSlots_Exhausted_Get429(t *testing.T) {
	blocked := make(chan struct{})
	t.Cleanup(func() { close(blocked) })
	for _, row := range []struct {
		name, method, path string
		one, other         string // ids of two clients
		perClient, total   int
	}{
		{"feeds", "GET", "/v1/revocations?follow=true", "rs1", "admin", 2, 3},
		{"bulk registrations", "POST", "/v1/grants", "issuer", "admin", 2, 3},
		{"snapshots", "GET", "/v1/snapshot", "admin", "admin2", 2, 4},
	} {
		t.Run(row.name, func(t *testing.T) {
			b := newAdminBench(t, func(c *api.Config) {
				c.FeedLimitPerClient, c.FeedLimit, c.BulkLimitPerClient, c.BulkLimit = 2, 3, 2, 3
			})
			other, _ := b.node.fsm.Client("admin")
			more := *other
			more.ID = "admin2"
			b.node.put(more)
			b.node.snapshot = func(w io.Writer) error {
				_, err := io.WriteString(w, strings.Repeat("x", 64<<10))
				<-blocked
				return err
			}
			secret := row.other
			if row.other == "admin2" {
				secret = "admin" // admin2 has a copy of its hash
			}
			call := func(who string) (int, http.Header, func()) {
				t.Helper()
				if who == "admin2" {
					return b.openAs(t, who, secret, row.method, row.path)
				}
				return b.open(t, who, row.method, row.path)
			}
			want := func(who string, status int) func() {
				t.Helper()
				got, header, end := call(who)
				if got != status || status == 429 && header.Get("Retry-After") != "5" {
					t.Fatalf("%s: got %d %v, want %d", who, got, header, status)
				}
				return end
			}
			end := want(row.one, 200)
			want(row.one, 200)
			want(row.one, 429)
			for range row.total - row.perClient {
				want(row.other, 200)
			}
			want(row.other, 429)
			if row.name == "snapshots" {
				return
			}
			end()
			await.Until(t, "a free slot", func() bool { // the handler notices the end a little later
				status, _, _ := call(row.one)
				return status == 200
			})
			want(row.one, 429)
		})
	}
}

// openAs is like open, for a client with the secret of another client.
func (b *adminBench) openAs(t *testing.T, who, secret, method, path string) (int, http.Header, func()) {
	t.Helper()
	req := b.request(t, who, method, path, nil)
	req.SetBasicAuth(who, secretOf(secret))
	res, err := b.http.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { res.Body.Close() })
	return res.StatusCode, res.Header, func() { res.Body.Close() }
}

// A spool smaller than the answer slows the body down. It neither loses a result nor delays it
// forever.
func TestBulk_SmallSpool_GetsEveryResult(t *testing.T) {
	const n = 30_000 // 8 MB of results
	for _, h2 := range []bool{false, true} {
		b := newAdminBench(t, func(c *api.Config) { c.TempDir, c.SpoolLimitPerRequest = t.TempDir(), 100_000 })
		b.node.discard = true
		req := b.request(t, "issuer", "POST", "/v1/grants", manyLines(n, longLine))
		req.Header.Set("Content-Type", ndjson)
		res, err := b.client(t, h2).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		countResults(t, res.Body, n)
		res.Body.Close()
	}
}

// Without space for temporary files, only the request that needs it is aborted.
func TestBulk_TempDirFails_AbortsOneRequest(t *testing.T) {
	b := newAdminBench(t, func(c *api.Config) { c.TempDir = filepath.Join(t.TempDir(), "missing") })
	b.node.discard = true
	conn, err := tls.Dial("tcp", b.addr, b.client(t, false).Transport.(*http.Transport).TLSClientConfig)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	shrink(t, conn)
	req := b.request(t, "issuer", "POST", "/v1/grants", manyLines(60_000, longLine))
	req.Header.Set("Content-Type", ndjson)
	req.ContentLength = -1
	_ = req.Write(conn) // fails when the node aborts
	if res, err := http.ReadResponse(bufio.NewReader(conn), req); err == nil {
		if _, err := io.Copy(io.Discard, res.Body); err == nil {
			t.Error("got a whole answer, want an aborted one")
		}
		res.Body.Close()
	}
	if got := b.do(t, "issuer", "POST", "/v1/grants", ndjson, bulkLine(1)); got.status != 200 ||
		!strings.Contains(got.body, `"grant_id"`) {
		t.Errorf("another request: got %d %s, want 200", got.status, got.body)
	}
	await.Until(t, "a log line with the outcome spool_failed", func() bool { // written after the abort
		return strings.Contains(b.log.String(), `"outcome":"spool_failed"`)
	})
}
