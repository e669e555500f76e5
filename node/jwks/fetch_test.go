package jwks_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"revoked/node/jwks"
)

// set returns a key set with one key.
func set(t testing.TB) []byte {
	t.Helper()
	public, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Appendf(nil, `{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"k1","x":%q}]}`,
		base64.RawURLEncoding.EncodeToString(public))
}

var loopback = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128")}

// serve starts a server. It returns the server's URI and a configuration that allows fetches from
// it.
func serve(t testing.TB, h http.HandlerFunc) (string, jwks.Config) {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	t.Cleanup(s.Close)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	if err := os.WriteFile(ca, block, 0o600); err != nil {
		t.Fatal(err)
	}
	return s.URL + "/jwks?key=sesame", jwks.Config{CAFile: ca, Allow: loopback}
}

func TestFetch_Set_IsRead(t *testing.T) {
	keys := set(t)
	uri, cfg := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if got := r.Header.Get("Accept-Encoding"); got != "identity" {
			t.Errorf("Accept-Encoding: got %q, want identity", got)
		}
		w.Header().Set("Cache-Control", "public, max-age=600")
		w.Header().Set("Age", "100")
		_, _ = w.Write(keys)
	})
	got, err := jwks.NewFetcher(cfg).Fetch(t.Context(), uri)
	if err != nil || len(got.Keys) != 1 || got.Keys[0].KeyID != "k1" || got.MaxAge != 500*time.Second {
		t.Errorf("got %+v, %v, want one key for 500 s", got, err)
	}
}

func TestFetch_MaxAge_ComesFromTheResponse(t *testing.T) {
	keys := set(t)
	var header atomic.Value
	uri, cfg := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Cache-Control", header.Load().(string))
		_, _ = w.Write(keys)
	})
	for value, want := range map[string]time.Duration{
		"": 0, "public": 0, "max-age=3600": time.Hour, `MAX-AGE="60"`: time.Minute, "max-age=0": time.Second,
		"no-store": time.Second, "max-age=60, no-cache": time.Second, "max-age=-1": 0, "max-age=x": 0,
		"max-age=99999999999999999999": 0, "s-maxage=5": 0,
	} {
		header.Store(value)
		if got, err := jwks.NewFetcher(cfg).Fetch(t.Context(), uri); err != nil || got.MaxAge != want {
			t.Errorf("%q: got %v, %v, want %v", value, got.MaxAge, err, want)
		}
	}
}

// A fetch from a server that sends a bad set, redirects, sends too much or fails returns an error.
// The error does not contain the URI.
func TestFetch_BadServer_ReturnsError(t *testing.T) {
	keys := set(t)
	private := bytes.Replace(keys, []byte(`"kid"`), []byte(`"d":"AA","kid"`), 1)
	var other atomic.Int32
	write := func(body []byte) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(body) }
	}
	status := func(code int) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code); _, _ = w.Write(keys) }
	}
	for _, tt := range []struct {
		name    string
		handler http.HandlerFunc
		want    string
	}{
		{"empty set", write([]byte(`{"keys":[]}`)), "no usable key"},
		{"private key", write(private), "private members"},
		{"HTML", write([]byte("<html>")), "JSON"},
		{"nothing", write(nil), "JSON"},
		{"too large", write(append(bytes.Repeat([]byte{' '}, 256<<10), keys...)), "262145 bytes"},
		{"grows without an end", func(w http.ResponseWriter, _ *http.Request) {
			for chunk := bytes.Repeat([]byte{' '}, 32<<10); ; {
				if _, err := w.Write(chunk); err != nil {
					return
				}
			}
		}, "262145 bytes"},
		{"ends early", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "1000")
			_, _ = w.Write(keys)
		}, "EOF"},
		{"large header", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X", strings.Repeat("x", 64<<10))
			_, _ = w.Write(keys)
		}, "header"},
		{"not found", status(404), "status 404"},
		{"no content", status(204), "status 204"},
		{"server error", status(500), "status 500"},
		{"redirect", func(w http.ResponseWriter, r *http.Request) {
			if other.Add(1) > 1 {
				_, _ = w.Write(keys)
				return
			}
			http.Redirect(w, r, "/other", http.StatusFound)
		}, "status 302"},
		{"gzip", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			z := gzip.NewWriter(w)
			_, _ = z.Write(keys)
			_ = z.Close()
		}, "content encoding"},
		{"closes", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, "EOF"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			uri, cfg := serve(t, tt.handler)
			got, err := jwks.NewFetcher(cfg).Fetch(t.Context(), uri)
			if err == nil || got.Keys != nil || !strings.Contains(err.Error(), tt.want) {
				t.Fatalf("got %v, %v, want an error with %q", got, err, tt.want)
			}
			if strings.Contains(err.Error(), "sesame") {
				t.Errorf("got the URI in the error: %v", err)
			}
		})
	}
	if other.Load() != 1 {
		t.Errorf("redirect: got %d requests, want 1", other.Load())
	}
}

// A fetch from a server that hangs before or during its response ends when the context ends.
func TestFetch_HangingServer_StopsWithTheContext(t *testing.T) {
	for name, before := range map[string]string{"before the answer": "", "within the body": `{"keys":[`} {
		reached := make(chan struct{})
		uri, cfg := serve(t, func(w http.ResponseWriter, r *http.Request) {
			if before != "" {
				_, _ = w.Write([]byte(before))
				_ = http.NewResponseController(w).Flush()
			}
			close(reached)
			<-r.Context().Done()
		})
		ctx, cancel := context.WithCancelCause(t.Context())
		stopped := errors.New("stopped by the test")
		go func() { <-reached; cancel(stopped) }()
		if _, err := jwks.NewFetcher(cfg).Fetch(ctx, uri); !errors.Is(err, stopped) {
			t.Errorf("%s: got %v, want %v", name, err, stopped)
		}
	}
}

func TestFetch_SilentServer_StopsAtTheTimeLimit(t *testing.T) {
	t.Parallel()
	uri, cfg := serve(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	_, err := jwks.NewFetcher(cfg).Fetch(t.Context(), uri)
	if err == nil || !strings.Contains(err.Error(), "no answer within 5s") {
		t.Errorf("got %v, want an error with the limit", err)
	}
}

func TestFetch_Certificate_IsVerified(t *testing.T) {
	uri, cfg := serve(t, func(http.ResponseWriter, *http.Request) { t.Error("got a request, want none") })
	for name, change := range map[string]func(*jwks.Config){
		"roots of the system":      func(c *jwks.Config) { c.CAFile = "" },
		"no such file":             func(c *jwks.Config) { c.CAFile += ".absent" },
		"file without certificate": func(c *jwks.Config) { c.CAFile = os.DevNull },
	} {
		c := cfg
		change(&c)
		if _, err := jwks.NewFetcher(c).Fetch(t.Context(), uri); err == nil {
			t.Errorf("%s: got success, want an error", name)
		}
	}
	wrongName := strings.Replace(uri, "127.0.0.1", "localhost", 1)
	if _, err := jwks.NewFetcher(cfg).Fetch(t.Context(), wrongName); err == nil {
		t.Error("certificate of another name: got success, want an error")
	}
}

// Fetch checks the address when it connects, after the DNS lookup.
func TestFetch_Address_MustBeAllowed(t *testing.T) {
	uri, cfg := serve(t, func(http.ResponseWriter, *http.Request) { t.Error("got a request, want none") })
	port := uri[strings.LastIndexByte(uri, ':'):]
	cfg.Allow = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	for _, host := range []string{
		"127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0", "[::]", "127.1.2.3", "169.254.169.254",
		"192.168.0.1", "172.16.0.1", "100.64.0.1", "[fd00::1]", "[64:ff9b::7f00:1]", "[2002:7f00:1::]", "224.0.0.1",
	} {
		_, err := jwks.NewFetcher(cfg).Fetch(t.Context(), "https://"+host+port)
		if !errors.Is(err, jwks.ErrAddress) {
			t.Errorf("%s: got %v, want %v", host, err, jwks.ErrAddress)
		}
	}
}

func TestFetch_OtherSchemes_AreRefused(t *testing.T) {
	for _, uri := range []string{"http://127.0.0.1/", "file:///etc/passwd", "", "jwks", "ftp://127.0.0.1/", "https:"} {
		if _, err := jwks.NewFetcher(jwks.Config{Allow: loopback}).Fetch(t.Context(), uri); err == nil {
			t.Errorf("%q: got success, want an error", uri)
		}
	}
}

// Fetch uses only the configured proxy, never one from the environment. A proxy resolves host
// names, but Fetch itself checks a literal address before it connects.
func TestFetch_Proxy_UsesOnlyTheConfiguredProxy(t *testing.T) {
	var connects atomic.Int32
	keys := set(t)
	uri, cfg := serve(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(keys) })
	target := strings.TrimPrefix(uri[:strings.LastIndex(uri, "/")], "https://")
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		connects.Add(1)
		if r.Method != http.MethodConnect || r.Host != target {
			http.Error(w, "want CONNECT", http.StatusBadRequest)
			return
		}
		tunnel(t, w, target)
	}))
	t.Cleanup(proxy.Close)
	t.Setenv("HTTPS_PROXY", proxy.URL)
	t.Setenv("https_proxy", proxy.URL)
	if _, err := jwks.NewFetcher(cfg).Fetch(t.Context(), uri); err != nil || connects.Load() != 0 {
		t.Fatalf("without a proxy: got %v and %d connections to that of the environment", err, connects.Load())
	}
	var err error
	if cfg.Proxy, err = url.Parse(proxy.URL); err != nil {
		t.Fatal(err)
	}
	if _, err := jwks.NewFetcher(cfg).Fetch(t.Context(), uri); err != nil || connects.Load() != 1 {
		t.Errorf("with a proxy: got %v and %d connections, want 1", err, connects.Load())
	}
	cfg.Allow = nil
	if _, err := jwks.NewFetcher(cfg).Fetch(t.Context(), uri); !errors.Is(err, jwks.ErrAddress) || connects.Load() != 1 {
		t.Errorf("literal address: got %v and %d connections, want %v", err, connects.Load(), jwks.ErrAddress)
	}
}

// tunnel serves a CONNECT request: it connects the proxy's client to the target.
func tunnel(t *testing.T, w http.ResponseWriter, target string) {
	up, err := net.Dial("tcp", target)
	if err != nil {
		t.Error(err)
		return
	}
	defer func() { _ = up.Close() }()
	down, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		t.Error(err)
		return
	}
	defer func() { _ = down.Close() }()
	_, _ = down.Write([]byte("HTTP/1.1 200 OK\r\n\r\n"))
	go func() { _, _ = io.Copy(up, buffered) }()
	_, _ = io.Copy(down, up)
}
