package client_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"revoked/client"
)

const secret = "canary-secret-3f1b9c5e7a2d4860"

// A fakeNode counts its requests.
type fakeNode struct {
	*httptest.Server
	requests atomic.Int32
}

func newNode(t *testing.T, h http.HandlerFunc) *fakeNode {
	t.Helper()
	n := &fakeNode{}
	n.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n.requests.Add(1)
		h(w, r)
	}))
	n.EnableHTTP2 = true
	n.StartTLS()
	t.Cleanup(n.Close)
	return n
}

func answer(status int, contentType, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", contentType)
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

func newClient(t *testing.T, nodes ...*fakeNode) *client.Client {
	t.Helper()
	roots := x509.NewCertPool()
	var addrs []string
	for _, n := range nodes {
		roots.AddCert(n.Certificate())
		addrs = append(addrs, n.URL)
	}
	c, err := client.New(client.Config{
		Addrs: addrs, ID: "admin", Secret: secret, Timeout: 8 * time.Second,
		TLS: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
	})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

const problem = "application/problem+json"

func TestClient_FirstNodeFails_TriesNext(t *testing.T) {
	good := answer(200, "application/json", `{"members":[{"node_id":"node2"}],"client_id":"app","client_secret":"s"}`)
	busy := answer(503, problem, `{"title":"no leader","status":503}`)
	broken := func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }
	silent := func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	forbidden := answer(403, problem, `{"title":"forbidden","status":403}`)
	members := func(ctx context.Context, c *client.Client) error {
		_, err := c.Members(ctx)
		return err
	}
	rotate := func(ctx context.Context, c *client.Client) error {
		_, err := c.RotateSecret(ctx, "app")
		return err
	}
	for _, tt := range []struct {
		name   string
		first  http.HandlerFunc
		call   func(context.Context, *client.Client) error
		second int32 // requests to the second node
	}{
		{"a read after 503", busy, members, 1},
		{"a read after a broken connection", broken, members, 1},
		{"a read after silence", silent, members, 1},
		{"no read after 403", forbidden, members, 0},
		{"no rotation after 503", busy, rotate, 0},
		{"no rotation after a broken connection", broken, rotate, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			first, second := newNode(t, tt.first), newNode(t, good)
			err := tt.call(t.Context(), newClient(t, first, second))
			if got := second.requests.Load(); got != tt.second {
				t.Errorf("got %d requests to the second node, want %d", got, tt.second)
			}
			if (err == nil) != (tt.second == 1) {
				t.Errorf("got error %v", err)
			}
			if err != nil && strings.Contains(err.Error(), secret) {
				t.Errorf("error contains the secret: %v", err)
			}
		})
	}
}

func TestClient_UnreachableNode_TriesNextForAnyCall(t *testing.T) {
	down, good := newNode(t, nil), newNode(t, answer(200, "application/json", `{"client_id":"app"}`))
	c := newClient(t, down, good)
	down.Close()
	if _, err := c.RotateSecret(t.Context(), "app"); err != nil {
		t.Errorf("got %v, want an answer of the second node", err)
	}
}

func TestClient_LocalCall_NeedsOneNode(t *testing.T) {
	one, two := newNode(t, answer(200, "application/json", `{"index":1}`)), newNode(t, nil)
	if _, err := newClient(t, one, two).Leave(t.Context()); !errors.Is(err, client.ErrOneNode) {
		t.Errorf("got %v, want %v", err, client.ErrOneNode)
	}
	a, err := newClient(t, one).Leave(t.Context())
	if err != nil || a.Value.Index != 1 || string(a.Body) != `{"index":1}` {
		t.Errorf("got %+v and %v, want index 1 and its body", a, err)
	}
}

func TestClient_Timeout_IsTheCause(t *testing.T) {
	n := newNode(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	roots := x509.NewCertPool()
	roots.AddCert(n.Certificate())
	c, err := client.New(client.Config{
		Addrs: []string{n.URL}, Timeout: 50 * time.Millisecond,
		TLS: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
	})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Status(t.Context()); !errors.Is(err, client.ErrTimeout) {
		t.Errorf("got %v, want %v", err, client.ErrTimeout)
	}
}

func TestStatusError_Bodies_AreParsed(t *testing.T) {
	for _, tt := range []struct {
		name, contentType, body string
		code, detail            string
	}{
		{"OAuth error", "application/json", `{"error":"invalid_grant","error_description":"of another client"}`,
			"invalid_grant", "of another client"},
		{"problem", problem, `{"title":"conflict","detail":"client \"app\" exists"}`, "conflict", `client "app" exists`},
		{"detail that repeats the title", problem, `{"title":"conflict","detail":"conflict: client exists"}`, "conflict",
			"client exists"},
		{"detail that repeats the title in other words", problem,
			`{"title":"cannot be processed","detail":"unprocessable request: ttl is too long"}`,
			"cannot be processed", "ttl is too long"},
		{"detail that is the title", problem, `{"title":"not found","detail":"Not found"}`, "not found", ""},
		{"page of a proxy", "text/html", `<html>`, "Conflict", ""},
		{"malformed JSON", problem, `{`, "Conflict", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n := newNode(t, answer(409, tt.contentType, tt.body))
			_, err := newClient(t, n).Members(t.Context())
			var got *client.StatusError
			if !errors.As(err, &got) {
				t.Fatalf("got %v, want a StatusError", err)
			}
			if got.Status != 409 || got.Code != tt.code || got.Detail != tt.detail || got.Addr != n.URL {
				t.Errorf("got %+v, want code %q and detail %q", got, tt.code, tt.detail)
			}
		})
	}
}

func TestParseAddrs_List_IsNormalized(t *testing.T) {
	got, err := client.ParseAddrs(" node1:8443 ,https://node2:8443/,")
	if err != nil || strings.Join(got, " ") != "https://node1:8443 https://node2:8443" {
		t.Errorf("got %v and %v", got, err)
	}
	for _, bad := range []string{"", ",", "http://node1", "https://", "https://u:" + secret + "@node1",
		"https://node1?q", "https://node1#f"} {
		got, err := client.ParseAddrs(bad)
		if !errors.Is(err, client.ErrAddr) {
			t.Errorf("got %v and %v for an invalid list, want %v", got, err, client.ErrAddr)
		}
		if err != nil && strings.Contains(err.Error(), secret) {
			t.Errorf("error contains the password: %v", err)
		}
	}
}

func TestRegisterStream_Results_ArriveInOrder(t *testing.T) {
	lines := `{"grant_id":"g","index":1,"state":"active"}` + "\n\n" +
		`{"error":"conflict","detail":"conflict: token exists","line":2}` + "\n" +
		`{"registered":1,"known":0,"revoked":0,"failed":1,"lines":2}` + "\n"
	n := newNode(t, answer(200, "application/x-ndjson", lines))
	var got []client.RegisterLine
	err := newClient(t, n).RegisterStream(t.Context(), strings.NewReader("{}\n{}\n"), false,
		func(l client.RegisterLine, _ []byte) error {
			got = append(got, l)
			return nil
		})
	if err != nil || len(got) != 3 || got[0].GrantID != "g" || got[1].Detail != "token exists" || got[2].Lines == nil ||
		got[2].Failed != 1 {
		t.Errorf("got %+v and %v, want a result, a failure and a summary", got, err)
	}
}

// If the node of a reader of the audit log fails, the reader continues at the next node. It does
// not skip or repeat an entry, even between entries with the same index.
func TestFollowAudit_NodeFails_ResumesWithoutRepeat(t *testing.T) {
	line := func(index int, object string) string {
		return fmt.Sprintf(`{"index":%d,"kind":"client.create","object":{"client_id":%q}}`+"\n", index, object)
	}
	asked := make(chan string, 10)
	node := func(body string, then func()) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			asked <- r.URL.Query().Get("after")
			w.Header().Set("Revoked-Era", "era")
			w.WriteHeader(http.StatusOK)
			_, _ = w.Write([]byte(body))
			_ = http.NewResponseController(w).Flush()
			then()
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var calls atomic.Int32
	first := newNode(t, func(w http.ResponseWriter, r *http.Request) {
		switch calls.Add(1) {
		case 1: // it fails between two entries of index 7
			node(line(5, "a")+line(7, "b"), func() { panic(http.ErrAbortHandler) })(w, r)
		case 2:
			node(line(7, "b")+line(7, "c")+`{"index":9,"kind":"heartbeat"}`+"\n",
				func() { panic(http.ErrAbortHandler) })(w, r)
		default:
			node(line(12, "d"), func() { <-r.Context().Done() })(w, r)
		}
	})
	var got []string
	err := newClient(t, first).FollowAudit(ctx, client.AuditQuery{}, func(e client.AuditEntry, raw []byte) error {
		if got = append(got, fmt.Sprint(e.Object["client_id"])); len(got) == 4 {
			cancel()
		}
		return nil
	})
	if !errors.Is(err, context.Canceled) || strings.Join(got, "") != "abcd" {
		t.Errorf("got %q, %v, want abcd and the end of the context", got, err)
	}
	for _, want := range []string{"", "era.5", "era.9"} {
		if after := <-asked; after != want {
			t.Errorf("got after=%q, want %q", after, want)
		}
	}
	failed := errors.New("failed")
	err = newClient(t, newNode(t, node(line(1, "a"), func() {}))).Audit(t.Context(), client.AuditQuery{},
		func(client.AuditEntry, []byte) error { return failed })
	if !errors.Is(err, failed) {
		t.Errorf("an error of the function: got %v, want %v", err, failed)
	}
}

// The credential ended: no node serves the reader any longer, so FollowAudit returns.
func TestFollowAudit_Refused_Returns(t *testing.T) {
	n := newNode(t, answer(403, "application/problem+json", `{"title":"forbidden","status":403}`))
	err := newClient(t, n).FollowAudit(t.Context(), client.AuditQuery{}, nil)
	var status *client.StatusError
	if !errors.As(err, &status) || status.Status != 403 {
		t.Errorf("got %v, want 403", err)
	}
}
