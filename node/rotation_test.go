package node_test

import (
	"bytes"
	"fmt"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"revoked/node"
	"revoked/node/nodetest"
)

// A hostileKeyServer publishes the keys of an issuer at /good, and misbehaves at its other paths.
type hostileKeyServer struct {
	*keyServer
	mu   sync.Mutex
	seen map[string]int // requests by path
}

func newHostileKeyServer(t *testing.T, set string) *hostileKeyServer {
	t.Helper()
	s := &hostileKeyServer{keyServer: newKeyServer(t, set), seen: map[string]int{}}
	mux := http.NewServeMux()
	good := func(w http.ResponseWriter) { _, _ = w.Write([]byte(*s.set.Load())) }
	mux.HandleFunc("/good/", func(w http.ResponseWriter, _ *http.Request) { good(w) })
	mux.HandleFunc("/hangs", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	mux.HandleFunc("/fails", func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusBadGateway)
		good(w)
	})
	mux.HandleFunc("/redirects", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "/stranger", http.StatusFound)
	})
	mux.HandleFunc("/empty", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(`{"keys":[]}`)) })
	mux.HandleFunc("/lies", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>keys</html>")) })
	mux.HandleFunc("/private", func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte(strings.Replace(*s.set.Load(), `"kid"`, `"d":"AA","kid"`, 1)))
	})
	mux.HandleFunc("/grows", func(w http.ResponseWriter, _ *http.Request) {
		for chunk := bytes.Repeat([]byte{' '}, 32<<10); ; {
			if _, err := w.Write(chunk); err != nil {
				return
			}
		}
	})
	s.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		s.seen[r.URL.Path]++
		s.mu.Unlock()
		mux.ServeHTTP(w, r)
	})
	return s
}

func (s *hostileKeyServer) requests(path string) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.seen[path]
}

// A rotatingKey is a key of the issuer, and one token that it signed.
type rotatingKey struct {
	jwtSigner
	token string
	// The issuer is about to remove the key, and the cluster has acknowledged the removal.
	leaving, removed atomic.Bool
	active           atomic.Int64 // answers that its tokens are active
}

// A rotation is an issuer that rotates its keys while callers introspect its tokens at all nodes.
type rotation struct {
	t      *testing.T
	c      *nodetest.Cluster
	server *hostileKeyServer
	iss    string
	path   int // the number of the last good path
	keys   atomic.Pointer[[]*rotatingKey]
	calls  atomic.Int64
	wg     sync.WaitGroup
	stop   chan struct{}
}

func (r *rotation) newKey(kid string) *rotatingKey {
	k := &rotatingKey{jwtSigner: newJWTSigner(r.t, kid)}
	k.token = k.jwtSigner.token(r.iss, "j-"+kid)
	return k
}

// add lets the callers use tokens of k.
func (r *rotation) add(k *rotatingKey) {
	list := append([]*rotatingKey{k}, *r.keys.Load()...)
	r.keys.Store(&list)
}

// load introspects at one node until the end, alternating between a token that was seen before and
// a new one.
func (r *rotation) load(m *nodetest.Member) {
	for n := 0; ; n++ {
		select {
		case <-r.stop:
			return
		default:
		}
		list := *r.keys.Load()
		k := list[n/2%len(list)]
		token := k.token
		if n%2 == 1 {
			token = k.jwtSigner.token(r.iss, fmt.Sprint(m.ID, "-", n))
		}
		removed := k.removed.Load()
		reply := m.Form("/oauth2/introspect", "admin", url.Values{"token": {token}})
		isActive := reply.Status == http.StatusOK && strings.HasPrefix(reply.Body, `{"active":true`)
		isRefused := reply.Status == http.StatusOK && !isActive
		switch {
		case isActive && removed:
			r.t.Errorf("%s: got a token of %s active after its removal was acknowledged", m.ID, k.ID)
		case isRefused && !k.leaving.Load():
			r.t.Errorf("%s: got a token of %s inactive, want it active: %s", m.ID, k.ID, reply.Body)
		case isActive:
			k.active.Add(1)
		}
		r.calls.Add(1)
	}
}

// underLoad waits until the callers have made more calls.
func (r *rotation) underLoad() {
	r.t.Helper()
	from := r.calls.Load()
	r.c.Until("callers have introspected", func() bool { return r.calls.Load() >= from+50 || r.t.Failed() })
}

// begin makes the leader fetch from another path immediately, and returns when that fetch has
// begun. By then, all fetches from the earlier path have ended.
func (r *rotation) begin(path string) {
	r.t.Helper()
	before := r.server.requests(path)
	adminCall(r.t, r.c.Members[0], "PATCH", "/v1/issuers/as2",
		fmt.Sprintf(`{"jwks_uri":%q}`, r.server.URL+path), http.StatusOK)
	r.c.Until("the leader fetches "+path, func() bool { return r.server.requests(path) > before })
}

// fetch calls begin, and returns when the fetch has ended.
func (r *rotation) fetch(path string) shownIssuer {
	r.t.Helper()
	r.begin(path)
	var i shownIssuer
	r.c.Until("the fetch ends", func() bool {
		// Another node may still call the leader before this one, which shows its own fetches.
		i = showIssuer(r.t, r.c.Leader())
		return i.Fetch != nil && (i.Fetch.OK || i.Fetch.Error != "")
	})
	return i
}

// publish publishes keys, and returns when the cluster has acknowledged what it fetched.
func (r *rotation) publish(keys ...*rotatingKey) shownIssuer {
	r.t.Helper()
	jwks := make([]string, 0, len(keys))
	for _, k := range keys {
		jwks = append(jwks, strings.TrimSuffix(strings.TrimPrefix(k.jwks(), `{"keys":[`), "]}"))
	}
	set := `{"keys":[` + strings.Join(jwks, ",") + "]}"
	r.server.set.Store(&set)
	r.path++
	i := r.fetch(fmt.Sprintf("/good/%d", r.path))
	if !i.Fetch.OK {
		r.t.Fatalf("fetch: got %s, want success", i.Fetch.Error)
	}
	return i
}

func (i shownIssuer) state(kid string) string {
	for _, k := range i.Keys {
		if k.KID == kid {
			return k.State
		}
	}
	return ""
}

// C31: an issuer rotates its keys under load while the leader changes. Its server hangs, fails,
// redirects, and serves wrong, growing and empty sets. No node refuses a token whose key the issuer
// still publishes. No node accepts one after the removal of its key was acknowledged.
func TestRotation_HostileServer_LosesNoValidToken(t *testing.T) {
	t.Parallel()
	var ahead atomic.Int64 // of the clocks
	var server *hostileKeyServer
	r := &rotation{t: t, iss: "https://as2.example", stop: make(chan struct{})}
	key := r.newKey("k0")
	server = newHostileKeyServer(t, key.jwks())
	r.server = server
	r.c = nodetest.Start(t, nodetest.Options{Node: func(_ int, conf *node.Config) {
		conf.KeyFetch = node.KeyFetchConfig{CAFile: server.ca, Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}
		conf.Now = func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }
	}})
	adminCall(t, r.c.Members[0], "POST", "/v1/issuers",
		fmt.Sprintf(`{"name":"as2","issuer":%q,"jwks_uri":"%s/good/0"}`, r.iss, server.URL), http.StatusCreated)
	r.c.Until("the keys are fetched", func() bool { return active(t, r.c.Members[0], key.token) == "true" })
	r.keys.Store(&[]*rotatingKey{key})
	for _, m := range r.c.Members {
		for range 2 {
			r.wg.Go(func() { r.load(m) })
		}
	}
	defer r.wg.Wait()
	defer close(r.stop)
	hostile := []string{"/empty", "/redirects", "/lies", "/fails", "/private", "/grows"}
	for round := 1; round <= 2 && !t.Failed(); round++ {
		next := r.newKey(fmt.Sprint("k", round))
		for _, path := range hostile[(round-1)*3 : round*3] {
			if i := r.fetch(path); i.Fetch.OK || i.state(key.ID) != "active" {
				t.Errorf("%s: got %+v, want a failed fetch that keeps the key", path, i)
			}
			r.underLoad()
		}
		r.begin("/hangs")
		r.underLoad()
		if i := r.publish(key, next); i.state(key.ID) != "active" || i.state(next.ID) != "active" {
			t.Fatalf("both keys published: got %+v, want both active", i)
		}
		r.add(next)
		r.underLoad()
		adminCall(t, r.c.Members[0], "POST", "/v1/cluster/transfer-leader", "{}", http.StatusOK)
		if i := r.publish(next); i.state(key.ID) != "active" {
			t.Fatalf("key missing once: got %+v, want it active", i)
		}
		r.underLoad() // one set without the key is a mistake of the server until the second
		ahead.Add(int64(31 * time.Second))
		key.leaving.Store(true)
		if i := r.publish(next); i.state(key.ID) != "retired" || i.state(next.ID) != "active" {
			t.Fatalf("key missing twice: got %+v, want it retired", i)
		}
		key.removed.Store(true)
		for _, m := range r.c.Members {
			if got := active(t, m, key.token); got != "false" {
				t.Errorf("%s: a token of the removed key: got active %s, want false", m.ID, got)
			}
		}
		r.underLoad()
		if key.active.Load() == 0 {
			t.Errorf("%s: got no active token", key.ID)
		}
		if i := r.publish(key, next); i.state(key.ID) != "retired" {
			t.Errorf("key published again: got %+v, want it retired permanently", i)
		}
		key = next
	}
	if n := server.requests("/stranger"); n != 0 {
		t.Errorf("got %d requests behind the redirect, want none", n)
	}
}
