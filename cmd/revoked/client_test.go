package main

import (
	"bytes"
	"encoding/json"
	"encoding/pem"
	"errors"
	"flag"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var updateGolden = flag.Bool("update-golden", false, "rewrite the golden files of this package")

const (
	testSecret = "canary-secret-3f1b9c5e7a2d4860"
	testToken  = "canary-token-8d2f6b1c9e3a7054"
)

// A fakeNode is a TLS server that remembers what it was asked.
type fakeNode struct {
	*httptest.Server
	mu       sync.Mutex
	requests []recorded
}

type recorded struct {
	method, path, contentType, user, password, body string
}

func newFakeNode(t *testing.T, h http.HandlerFunc) *fakeNode {
	t.Helper()
	n := &fakeNode{}
	n.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		user, password, _ := r.BasicAuth()
		n.mu.Lock()
		n.requests = append(n.requests, recorded{r.Method, r.URL.RequestURI(), r.Header.Get("Content-Type"), user, password, string(b)})
		n.mu.Unlock()
		h(w, r)
	}))
	n.EnableHTTP2 = true
	n.StartTLS()
	t.Cleanup(n.Close)
	return n
}

func (n *fakeNode) asked() []recorded {
	n.mu.Lock()
	defer n.mu.Unlock()
	return append([]recorded(nil), n.requests...)
}

// answering returns a handler that gives the same answer to everything.
func answering(status int, contentType, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", contentType)
		w.WriteHeader(status)
		io.WriteString(w, body)
	}
}

// useNodes sets the environment of a client command: addresses, CA and credentials.
func useNodes(t *testing.T, addrs string, ca *fakeNode) {
	t.Helper()
	for _, name := range []string{"REVOKED_CLIENT_SECRET_FILE", "REVOKED_CLIENT_CERT", "REVOKED_CLIENT_KEY", "REVOKED_OUTPUT", "REVOKED_CACERT"} {
		t.Setenv(name, "")
	}
	t.Setenv("REVOKED_ADDR", addrs)
	t.Setenv("REVOKED_CLIENT_ID", "admin")
	t.Setenv("REVOKED_CLIENT_SECRET", testSecret)
	if ca != nil {
		file := filepath.Join(t.TempDir(), "ca.pem")
		block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.Certificate().Raw})
		if err := os.WriteFile(file, block, 0o600); err != nil {
			t.Fatal(err)
		}
		t.Setenv("REVOKED_CACERT", file)
	}
}

// outcome is what a run of the program left behind.
type outcome struct {
	code           int
	stdout, stderr string
}

func runWith(t *testing.T, stdin string, args ...string) outcome {
	t.Helper()
	var out, errs bytes.Buffer
	code := run(args, strings.NewReader(stdin), &out, &errs)
	for _, text := range []string{out.String(), errs.String()} {
		if strings.Contains(text, testSecret) {
			t.Errorf("%v: the client secret was printed", args)
		}
		if strings.Contains(text, testToken) {
			t.Errorf("%v: a token was printed", args)
		}
	}
	return outcome{code, out.String(), errs.String()}
}

// golden compares got with a file in testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", "client", name+".golden")
	if *updateGolden {
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", file, diff)
	}
}

const (
	membersBody = `{"members":[` +
		`{"node_id":"node1","region":"eu","api":"https://127.0.0.1:8443","cluster":"127.0.0.1:9443","voter":true,"leader":true,"alive":true,"applied_index":120,"behind":0,"last_contact_ms":0,"lease_left_ms":1800,"version":"1.0.0"},` +
		`{"node_id":"node2","region":"us","api":"https://127.0.0.1:8444","cluster":"127.0.0.1:9444","voter":true,"leader":false,"alive":true,"applied_index":118,"behind":2,"last_contact_ms":12,"lease_left_ms":1500,"version":"1.0.0"},` +
		`{"node_id":"node3\u001b[2J","region":"","api":"","cluster":"","voter":false,"leader":false,"alive":false,"applied_index":0,"behind":120,"last_contact_ms":-1,"lease_left_ms":0,"version":""}]}`
	statusBody = `{"node_id":"node1","cluster_id":"c-1","version":"1.0.0","healthy":true,"leader":{"node_id":"node2","api":"https://127.0.0.1:8444"},"term":3,"state":"follower","commit_index":120,"applied_index":119,"voters":3,"quorum":2,"lease":{"held":true,"left_ms":1500},"log_hash":"aa","state_hash":"bb","hash_index":119,"tokens":20,"grants":10}`
	activeBody = `{"active":true,"scope":"read write","client_id":"app","token_type":"Bearer","exp":1790003600,"iat":1790000000,"aud":["rs1","rs2"]}`
	clientBody = `{"client_id":"app","type":"confidential","roles":[],"audiences":[],"issuers":[],"auth_methods":["client_secret_basic","client_secret_post"],"allow_public_revocation":false,"disabled":false,"created_at":1790000000}`
)

func TestClientCommands(t *testing.T) {
	tests := []struct {
		name   string
		args   []string
		stdin  string
		status int
		body   string
		want   recorded // user and password are checked for all
		code   int
	}{
		{"members lists every node", []string{"members"}, "", 200, membersBody, recorded{method: "GET", path: "/v1/members"}, 0},
		{"status of a healthy node", []string{"status"}, "", 200, statusBody, recorded{method: "GET", path: "/v1/status"}, 0},
		{"status of an unhealthy node ends with 2", []string{"status"}, "", 200, strings.Replace(statusBody, `"healthy":true`, `"healthy":false`, 1), recorded{method: "GET", path: "/v1/status"}, 2},
		{"join sends every address", []string{"join", "a:7443,b:7443", "c:7443"}, "", 200, `{"index":7}`, recorded{method: "POST", path: "/v1/cluster/join", contentType: "application/json", body: `{"addresses":["a:7443","b:7443","c:7443"]}`}, 0},
		{"leave", []string{"leave"}, "", 200, `{"index":8}`, recorded{method: "POST", path: "/v1/cluster/leave", contentType: "application/json", body: `{}`}, 0},
		{"remove forced with a reason", []string{"remove", "node3", "--force", "--reason", "burnt"}, "", 200, `{"index":9}`, recorded{method: "POST", path: "/v1/cluster/remove", contentType: "application/json", body: `{"force":true,"node":"node3","reason":"burnt"}`}, 0},
		{"remove that would lose quorum fails", []string{"remove", "node3"}, "", 409, `{"title":"Conflict","status":409,"detail":"would lose quorum"}`, recorded{method: "POST", path: "/v1/cluster/remove", contentType: "application/json", body: `{"node":"node3"}`}, 1},
		{"transfer-leader without a node", []string{"transfer-leader"}, "", 200, `{"index":10}`, recorded{method: "POST", path: "/v1/cluster/transfer-leader", contentType: "application/json", body: `{}`}, 0},
		{"revoke a token from standard input", []string{"token", "revoke", "-", "--hint", "access_token"}, testToken + "\n", 200, `{}`, recorded{method: "POST", path: "/oauth2/revoke", contentType: "application/x-www-form-urlencoded", body: "token=" + testToken + "&token_type_hint=access_token"}, 0},
		{"introspect an active token", []string{"token", "introspect", "-"}, testToken, 200, activeBody, recorded{method: "POST", path: "/oauth2/introspect", contentType: "application/x-www-form-urlencoded", body: "token=" + testToken}, 0},
		{"introspect an inactive token ends with 2", []string{"token", "introspect", "-"}, testToken, 200, `{"active":false}`, recorded{method: "POST", path: "/oauth2/introspect", contentType: "application/x-www-form-urlencoded", body: "token=" + testToken}, 2},
		{"register a body", []string{"token", "register", "-"}, `{"client_id":"app"}`, 201, `{"grant_id":"g-1","index":11,"state":"active"}`, recorded{method: "POST", path: "/v1/grants", contentType: "application/json", body: `{"client_id":"app"}`}, 0},
		{"create a client shows its secret", []string{"client", "create", "app", "--role", "resource_server", "--audience", "rs1"}, "", 201, `{"client_id":"app","client_secret":"made-by-the-server"}`, recorded{method: "POST", path: "/v1/clients", contentType: "application/json", body: `{"audiences":["rs1"],"client_id":"app","roles":["resource_server"],"type":"confidential"}`}, 0},
		{"list the clients", []string{"client", "list"}, "", 200, `{"clients":[` + clientBody + `]}`, recorded{method: "GET", path: "/v1/clients"}, 0},
		{"show a client whose id needs escaping", []string{"client", "show", "a/b?c"}, "", 200, clientBody, recorded{method: "GET", path: "/v1/clients/a%2Fb%3Fc"}, 0},
		{"rotate a secret", []string{"client", "rotate-secret", "app"}, "", 200, `{"client_id":"app","client_secret":"new-one","index":12}`, recorded{method: "POST", path: "/v1/clients/app/secret", contentType: "application/json", body: `{}`}, 0},
		{"disable a client", []string{"client", "disable", "app"}, "", 200, strings.Replace(clientBody, `"disabled":false`, `"disabled":true`, 1), recorded{method: "PATCH", path: "/v1/clients/app", contentType: "application/merge-patch+json", body: `{"disabled":true}`}, 0},
		{"enable a client", []string{"client", "enable", "app"}, "", 200, clientBody, recorded{method: "PATCH", path: "/v1/clients/app", contentType: "application/merge-patch+json", body: `{"disabled":false}`}, 0},
		{"delete a client", []string{"client", "delete", "app"}, "", 200, `{"index":13}`, recorded{method: "DELETE", path: "/v1/clients/app"}, 0},
		{"revoke all of a subject", []string{"revoke-all", "--subject", "alice", "--client", "app", "--issued-before", "2026-01-31T12:00:00Z", "--reason", "stolen"}, "", 200, `{"index":14}`, recorded{method: "POST", path: "/v1/revocations", contentType: "application/json", body: `{"client_id":"app","issued_before":1769860800,"reason":"stolen","subject":"alice"}`}, 0},
		{"a dry run counts", []string{"revoke-all", "--session", "s-1", "--dry-run"}, "", 200, `{"index":14,"matched":3}`, recorded{method: "POST", path: "/v1/revocations", contentType: "application/json", body: `{"dry_run":true,"session":"s-1"}`}, 0},
		{"an expectation of none is sent", []string{"revoke-all", "--grant", "g-1", "--expect", "0"}, "", 409, `{"title":"Conflict","status":409,"detail":"matched 1, not 0"}`, recorded{method: "POST", path: "/v1/revocations", contentType: "application/json", body: `{"expect":0,"grant_id":"g-1"}`}, 1},
		{"bad credentials say what to check", []string{"members"}, "", 401, `{"title":"Unauthorized","status":401}`, recorded{method: "GET", path: "/v1/members"}, 1},
		{"an OAuth error is told", []string{"token", "revoke", "-"}, testToken, 400, `{"error":"invalid_grant","error_description":"token was issued to another client"}`, recorded{method: "POST", path: "/oauth2/revoke", contentType: "application/x-www-form-urlencoded", body: "token=" + testToken}, 1},
		{"what the title says is not said again", []string{"client", "create", "app"}, "", 409, `{"title":"conflict","status":409,"detail":"conflict: client \"app\" exists"}`, recorded{method: "POST", path: "/v1/clients", contentType: "application/json", body: `{"client_id":"app","type":"confidential"}`}, 1},
		{"a detail that is the title is left out", []string{"client", "show", "app"}, "", 404, `{"title":"not found","status":404,"detail":"not found"}`, recorded{method: "GET", path: "/v1/clients/app"}, 1},
		{"a page of HTML is not repeated", []string{"members"}, "", 502, `<html>proxy</html>`, recorded{method: "GET", path: "/v1/members"}, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			contentType := "application/json"
			switch {
			case strings.HasPrefix(tt.body, "<"):
				contentType = "text/html"
			case strings.HasPrefix(tt.body, `{"title"`):
				contentType = "application/problem+json"
			}
			node := newFakeNode(t, answering(tt.status, contentType, tt.body))
			useNodes(t, node.URL, node)

			got := runWith(t, tt.stdin, tt.args...)
			if got.code != tt.code {
				t.Errorf("exit code: got %d, want %d; stderr: %s", got.code, tt.code, got.stderr)
			}
			want := tt.want
			want.user, want.password = "admin", testSecret
			if diff := cmp.Diff([]recorded{want}, node.asked(), cmp.AllowUnexported(recorded{})); diff != "" {
				t.Errorf("requests (-want +got):\n%s", diff)
			}
			text := "exit " + string(rune('0'+got.code)) + "\n--- stdout\n" + got.stdout + "--- stderr\n" + got.stderr
			golden(t, strings.ReplaceAll(tt.name, " ", "-"), strings.ReplaceAll(text, node.URL, "https://NODE"))

			if tt.status/100 == 2 {
				asJSON := runWith(t, tt.stdin, append(tt.args, "-o", "json")...)
				if asJSON.stdout != tt.body+"\n" || asJSON.code != tt.code {
					t.Errorf("-o json: got exit %d and %q, want exit %d and the body of the API", asJSON.code, asJSON.stdout, tt.code)
				}
			}
		})
	}
}

func TestClientUsage(t *testing.T) {
	tests := []struct {
		name string
		args []string
		says string
	}{
		{"revoke-all without a selector", []string{"revoke-all"}, "name what to revoke"},
		{"revoke-all with an empty selector", []string{"revoke-all", "--subject", ""}, "is empty"},
		{"revoke-all with two subjects", []string{"revoke-all", "--subject", "a", "--subject", "b"}, "given twice"},
		{"revoke-all before a wrong date", []string{"revoke-all", "--subject", "a", "--issued-before", "yesterday"}, "Unix seconds"},
		{"remove forced without a reason", []string{"remove", "node1", "--force"}, "--reason"},
		{"remove without a node", []string{"remove"}, "accepts 1 arg"},
		{"join with the URL of an API", []string{"join", "https://node1:8443"}, "cluster addresses"},
		{"a form of output that there is not", []string{"members", "-o", "yaml"}, "output"},
		{"an address in the clear", []string{"members", "--addr", "http://127.0.0.1:1"}, "in the clear"},
		{"a password in an address", []string{"members", "--addr", "https://admin:" + testSecret + "@127.0.0.1:1"}, "no URL of a node"},
		{"leave with two addresses", []string{"leave", "--addr", "127.0.0.1:1,127.0.0.1:2"}, "exactly one"},
		{"a token where a command belongs", []string{"token", testToken}, "unknown command"},
		{"register nothing", []string{"token", "register"}, "--client"},
		{"both tokens from standard input", []string{"token", "register", "--client", "app", "--access-token-file", "-", "--refresh-token-file", "-"}, "standard input"},
		{"a lifetime without its token", []string{"token", "register", "--client", "app", "--access-token-file", "-", "--refresh-expires-in", "1h"}, "needs the file"},
		{"a token that lives for no time", []string{"token", "register", "--client", "app", "--access-token-file", "-", "--expires-in", "0s"}, "--expires-in must be more than 0; without it"},
		{"a refresh token that lives for no time", []string{"token", "register", "--client", "app", "--refresh-token-file", "-", "--refresh-expires-in", "0"}, "--refresh-expires-in must be more than 0"},
		{"a token that ended before", []string{"token", "register", "--client", "app", "--access-token-file", "-", "--expires-in", "-1h"}, "--expires-in must be more than 0"},
		{"a body and a lifetime of zero", []string{"token", "register", "-", "--expires-in", "0s"}, "not from both"},
		{"an unknown flag", []string{"members", "--nope"}, "unknown flag"},
		{"imported without a secret", []string{"client", "create", "x", "--imported"}, "--secret-file"},
		{"a certificate without its key", []string{"members", "--client-cert", "x.pem"}, "go together"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			useNodes(t, "", nil)
			got := runWith(t, "", tt.args...)
			if got.code != exitUsage {
				t.Errorf("exit code: got %d, want %d", got.code, exitUsage)
			}
			if !strings.Contains(got.stderr, tt.says) {
				t.Errorf("stderr: got %q, want it to say %q", got.stderr, tt.says)
			}
			if got.stdout != "" {
				t.Errorf("stdout: got %q, want nothing", got.stdout)
			}
		})
	}
}

func TestClientFailsOver(t *testing.T) {
	good := answering(200, "application/json", `{"members":[]}`)
	busy := answering(503, "application/problem+json", `{"title":"Service Unavailable","status":503,"detail":"no leader"}`)
	broken := func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }
	silent := func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	refused := answering(403, "application/problem+json", `{"title":"Forbidden","status":403}`)

	t.Run("to the next node where the first cannot be reached", func(t *testing.T) {
		node := newFakeNode(t, good)
		useNodes(t, closedAddr(t)+","+node.URL, node)
		if got := runWith(t, "", "members"); got.code != 0 {
			t.Errorf("exit code: got %d, want 0; stderr: %s", got.code, got.stderr)
		}
	})
	for name, first := range map[string]http.HandlerFunc{"where the first answers 503": busy, "where the connection breaks": broken} {
		t.Run("to the next node "+name, func(t *testing.T) {
			one, two := newFakeNode(t, first), newFakeNode(t, good)
			useNodes(t, one.URL+","+two.URL, one)
			if got := runWith(t, "", "members"); got.code != 0 {
				t.Errorf("exit code: got %d, want 0; stderr: %s", got.code, got.stderr)
			}
			if n := len(two.asked()); n != 1 {
				t.Errorf("requests to the second node: got %d, want 1", n)
			}
		})
	}
	t.Run("but not after a refusal", func(t *testing.T) {
		one, two := newFakeNode(t, refused), newFakeNode(t, good)
		useNodes(t, one.URL+","+two.URL, one)
		if got := runWith(t, "", "members"); got.code != exitFailed || !strings.Contains(got.stderr, "lacks the role") {
			t.Errorf("got exit %d and %q, want %d and the reason", got.code, got.stderr, exitFailed)
		}
		if n := len(two.asked()); n != 0 {
			t.Errorf("requests to the second node: got %d, want 0", n)
		}
	})
	t.Run("but never repeats a rotation that may have been done", func(t *testing.T) {
		one, two := newFakeNode(t, busy), newFakeNode(t, good)
		useNodes(t, one.URL+","+two.URL, one)
		if got := runWith(t, "", "client", "rotate-secret", "app"); got.code != exitFailed {
			t.Errorf("exit code: got %d, want %d", got.code, exitFailed)
		}
		if n := len(two.asked()); n != 0 {
			t.Errorf("requests to the second node: got %d, want 0", n)
		}
	})
	t.Run("in time where the first takes connections and is silent", func(t *testing.T) {
		for _, args := range [][]string{{"members"}, {"client", "rotate-secret", "app"}} { // nothing was sent: a rotation may go on too
			node := newFakeNode(t, answering(200, "application/json", `{"members":[],"client_id":"app","client_secret":"s"}`))
			useNodes(t, silentAddr(t)+","+silentAddr(t)+","+node.URL, node)
			got := runWith(t, "", append(args, "--timeout", "12s")...)
			if got.code != 0 || len(node.asked()) != 1 {
				t.Errorf("%v: got exit %d and %d requests to the third node, want 0 and 1; stderr: %s", args, got.code, len(node.asked()), got.stderr)
			}
		}
	})
	t.Run("in time where the first takes a question and is silent", func(t *testing.T) {
		one, two := newFakeNode(t, silent), newFakeNode(t, good)
		useNodes(t, one.URL+","+two.URL, one)
		if got := runWith(t, "", "members", "--timeout", "8s"); got.code != 0 {
			t.Errorf("exit code: got %d, want 0; stderr: %s", got.code, got.stderr)
		}
	})
	t.Run("but not where the first takes its time over a change", func(t *testing.T) {
		slow := func(w http.ResponseWriter, r *http.Request) {
			select {
			case <-time.After(3 * time.Second): // longer than its share of the timeout
				answering(200, "application/json", `{}`)(w, r)
			case <-r.Context().Done():
			}
		}
		one, two := newFakeNode(t, slow), newFakeNode(t, good)
		useNodes(t, one.URL+","+two.URL, one)
		if got := runWith(t, testToken, "token", "revoke", "-", "--timeout", "5s"); got.code != 0 || len(two.asked()) != 0 {
			t.Errorf("got exit %d and %d requests to the second node, want 0 and 0; stderr: %s", got.code, len(two.asked()), got.stderr)
		}
	})
	t.Run("and says which were silent when all are", func(t *testing.T) {
		one, two := silentAddr(t), silentAddr(t)
		useNodes(t, one+","+two, nil)
		got := runWith(t, "", "members", "--timeout", "4s")
		for _, says := range []string{one + ": no answer within 2s (its share of --timeout)", two + ": no answer within 4s (--timeout)"} {
			if got.code != exitFailed || !strings.Contains(got.stderr, says) {
				t.Errorf("got exit %d and %q, want %d and %q", got.code, got.stderr, exitFailed, says)
			}
		}
	})
	t.Run("and names every address when all fail", func(t *testing.T) {
		one, two := newFakeNode(t, busy), newFakeNode(t, busy)
		useNodes(t, one.URL+","+two.URL, one)
		got := runWith(t, "", "members")
		if got.code != exitFailed || !strings.Contains(got.stderr, one.URL) || !strings.Contains(got.stderr, two.URL) || !strings.Contains(got.stderr, "try again") {
			t.Errorf("got exit %d and %q, want %d, both addresses and what to do", got.code, got.stderr, exitFailed)
		}
	})
	t.Run("and follows no redirect, which would carry the secret away", func(t *testing.T) {
		stranger := newFakeNode(t, good)
		node := newFakeNode(t, func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, stranger.URL+"/v1/members", http.StatusTemporaryRedirect)
		})
		useNodes(t, node.URL, node)
		if got := runWith(t, "", "members"); got.code != exitFailed {
			t.Errorf("exit code: got %d, want %d", got.code, exitFailed)
		}
		if n := len(stranger.asked()); n != 0 {
			t.Errorf("requests to the stranger: got %d, want 0", n)
		}
	})
}

// closedAddr returns the URL of a server that has just closed.
func closedAddr(t *testing.T) string {
	t.Helper()
	s := httptest.NewServer(http.NotFoundHandler())
	s.Close()
	return strings.Replace(s.URL, "http:", "https:", 1)
}

// silentAddr returns the URL of a listener whose connections nobody serves, as those of a stopped process.
func silentAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return "https://" + l.Addr().String()
}

func TestClientExplainsTLS(t *testing.T) {
	node := newFakeNode(t, answering(200, "application/json", `{}`))
	t.Run("an unknown authority names the setting", func(t *testing.T) {
		useNodes(t, node.URL, nil)
		got := runWith(t, "", "members")
		if got.code != exitFailed || !strings.Contains(got.stderr, "REVOKED_CACERT") {
			t.Errorf("got exit %d and %q, want %d and REVOKED_CACERT", got.code, got.stderr, exitFailed)
		}
		if len(node.asked()) != 0 {
			t.Error("the node got a request over a connection that was not verified")
		}
	})
	t.Run("an unreachable node says so", func(t *testing.T) {
		useNodes(t, closedAddr(t), nil)
		got := runWith(t, "", "members")
		if got.code != exitFailed || !strings.Contains(got.stderr, "does the node run") {
			t.Errorf("got exit %d and %q, want %d and advice", got.code, got.stderr, exitFailed)
		}
	})
}

func TestSecretSources(t *testing.T) {
	node := newFakeNode(t, answering(200, "application/json", `{"members":[]}`))
	file := filepath.Join(t.TempDir(), "secret")
	if err := os.WriteFile(file, []byte("from: file%\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	useNodes(t, node.URL, node)

	runWith(t, "", "members", "--client-secret-file", file, "--client-id", "other")
	t.Setenv("REVOKED_CLIENT_SECRET", "")
	t.Setenv("REVOKED_CLIENT_SECRET_FILE", file)
	runWith(t, "", "members")
	runWith(t, "", "members", "--client-secret", "from: file%")
	for i, want := range []recorded{{user: "other"}, {user: "admin"}, {user: "admin"}} {
		got := node.asked()[i]
		// RFC 6749 section 2.3.1: form-encoded.
		if got.user != want.user || got.password != "from%3A+file%25" {
			t.Errorf("request %d: got %q and %q, want %q and the file's secret, form-encoded", i, got.user, got.password, want.user)
		}
	}
}

func TestTokenNeverRepeated(t *testing.T) {
	node := newFakeNode(t, answering(200, "application/json", `{}`))
	useNodes(t, node.URL, node)
	for _, args := range [][]string{
		{"token", "revoke", testToken},
		{"token", "introspect", testToken},
		{"token", "register", testToken},
		{"token", "register", "--client", "app", "--access-token-file", testToken},
		{"token", "register", "--ndjson", testToken},
		{"token", "revoke", "-", testToken},
	} {
		// runWith fails the test where the token shows.
		got := runWith(t, "", args...)
		if got.code == 0 || len(node.asked()) != 0 {
			t.Errorf("%v: got exit %d and %d requests, want a refusal before any request", args[:2], got.code, len(node.asked()))
		}
	}
}

func TestSecretOut(t *testing.T) {
	node := newFakeNode(t, answering(201, "application/json", `{"client_id":"app","client_secret":"`+testSecret+`"}`))
	useNodes(t, node.URL, node)
	file := filepath.Join(t.TempDir(), "secret")
	if got := runWith(t, "", "client", "create", "app", "--secret-out", file, "-o", "json"); got.code != 0 || got.stdout != "{\"client_id\":\"app\"}\n" {
		t.Fatalf("got exit %d, stdout %q, stderr %q; want 0 and the record without its secret", got.code, got.stdout, got.stderr)
	}
	b, err := os.ReadFile(file)
	if err != nil || string(b) != testSecret+"\n" {
		t.Errorf("file: got %d bytes and %v, want the secret", len(b), err)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode: got %v and %v, want 0600", info.Mode(), err)
	}
	if got := runWith(t, "", "client", "create", "app", "--secret-out", file); got.code != exitFailed || len(node.asked()) != 1 {
		t.Errorf("over a file that is there: got exit %d and %d requests, want %d and no second request", got.code, len(node.asked()), exitFailed)
	}
}

// A secret that nobody has seen is lost: the client is there, and only another secret helps.
func TestSecretThatCannotBeWritten(t *testing.T) {
	node := newFakeNode(t, answering(201, "application/json", `{"client_id":"app","client_secret":"`+testSecret+`"}`))
	useNodes(t, node.URL, node)
	dir := t.TempDir()
	for _, tt := range []struct {
		name, command string
		more          []string
		says          []string
	}{
		{"a new client", "create", nil, []string{"client app exists", "`revoked client rotate-secret app` makes a new one"}},
		{"a new client as JSON", "create", []string{"-o", "json"}, []string{"client app exists", "`revoked client rotate-secret app` makes a new one"}},
		{"another secret", "rotate-secret", nil, []string{"`revoked client rotate-secret app` makes a new one", "client app has another secret (the one before lives on for secret_grace)"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var stderr bytes.Buffer
			code := run(append([]string{"client", tt.command, "app"}, tt.more...), strings.NewReader(""), fullDisk{}, &stderr)
			got := stderr.String()
			for _, want := range append(tt.says, "its secret could not be written: write /dev/stdout: no space left on device") {
				if code != exitFailed || !strings.Contains(got, want) {
					t.Errorf("got exit %d and %q, want %d and %q", code, got, exitFailed, want)
				}
			}
			if strings.Contains(got, "keep the secret") || strings.Contains(got, testSecret) {
				t.Errorf("got %q, want neither the secret nor to keep it", got)
			}
		})
	}
	t.Run("a file that cannot be written is taken away", func(t *testing.T) {
		name := filepath.Join(dir, "secret")
		if err := os.WriteFile(name, nil, 0o400); err != nil {
			t.Fatal(err)
		}
		f, err := os.Open(name) // for reading: every write fails
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if err := keepSecret(f, testSecret); !errors.Is(err, syscall.EBADF) {
			t.Errorf("got %v, want %v", err, syscall.EBADF)
		}
		if _, err := os.Stat(name); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the file: got %v, want it gone", err)
		}
	})
}

func TestRegisterFromFlags(t *testing.T) {
	node := newFakeNode(t, answering(201, "application/json", `{"grant_id":"g","index":1,"state":"active"}`))
	useNodes(t, node.URL, node)
	got := runWith(t, testToken+"\n", "token", "register", "--client", "app", "--subject", "alice", "--audience", "rs1",
		"--access-token-file", "-", "--expires-in", "1h")
	if got.code != 0 {
		t.Fatalf("exit code: got %d, want 0; stderr: %s", got.code, got.stderr)
	}
	var body struct {
		ClientID string   `json:"client_id"`
		Subject  string   `json:"subject"`
		Audience []string `json:"audience"`
		Access   struct {
			Token     string `json:"token"`
			IssuedAt  int64  `json:"issued_at"`
			ExpiresAt int64  `json:"expires_at"`
		} `json:"access_token"`
		Refresh *struct{} `json:"refresh_token"`
	}
	if err := json.Unmarshal([]byte(node.asked()[0].body), &body); err != nil {
		t.Fatal(err)
	}
	if body.ClientID != "app" || body.Subject != "alice" || len(body.Audience) != 1 || body.Access.Token != testToken ||
		body.Access.ExpiresAt-body.Access.IssuedAt != 3600 || body.Refresh != nil {
		t.Errorf("body: got %+v, want what the flags say", body)
	}
}

func TestRegisterStream(t *testing.T) {
	const input = `{"client_id":"app"}` + "\n" + `bad` + "\n"
	failures := `{"error":"invalid_request","detail":"not JSON","line":2}` + "\n"
	tests := []struct {
		name, answer string
		args         []string
		code         int
		stdout       string
		stderr       string
		path         string
	}{
		{"failures and a count", failures + `{"registered":1,"known":0,"revoked":0,"failed":1,"lines":2}` + "\n", nil, 1,
			"REGISTERED  KNOWN  REVOKED  FAILED\n1           0      0        1\n", "line 2: invalid_request: not JSON", "/v1/grants?results=errors"},
		{"all registered", `{"registered":2,"known":0,"revoked":1,"failed":0,"lines":2}` + "\n", nil, 0,
			"REGISTERED  KNOWN  REVOKED  FAILED\n2           0      1        0\n", "", "/v1/grants?results=errors"},
		{"a failure is said once", `{"error":"conflict","detail":"conflict: token abc belongs to another grant","line":1}` + "\n" + `{"registered":0,"known":0,"revoked":0,"failed":1,"lines":1}` + "\n", nil, 1,
			"REGISTERED  KNOWN  REVOKED  FAILED\n0           0      0        1\n", "line 1: conflict: token abc belongs", "/v1/grants?results=errors"},
		{"an answer cut short is a failure", "", nil, 1, "", "ended before its summary", "/v1/grants?results=errors"},
		{"every result as JSON", `{"grant_id":"g","index":1,"state":"active"}` + "\n" + failures, []string{"-o", "json", "--results", "all"}, 1,
			`{"grant_id":"g","index":1,"state":"active"}` + "\n" + failures, "1 registrations failed", "/v1/grants"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			node := newFakeNode(t, answering(200, "application/x-ndjson", tt.answer))
			useNodes(t, node.URL, node)
			got := runWith(t, input, append([]string{"token", "register", "--ndjson", "-"}, tt.args...)...)
			if got.code != tt.code || got.stdout != tt.stdout || !strings.Contains(got.stderr, tt.stderr) {
				t.Errorf("got exit %d, stdout %q, stderr %q; want %d, %q, %q", got.code, got.stdout, got.stderr, tt.code, tt.stdout, tt.stderr)
			}
			want := recorded{"POST", tt.path, "application/x-ndjson", "admin", testSecret, input}
			if diff := cmp.Diff([]recorded{want}, node.asked(), cmp.AllowUnexported(recorded{})); diff != "" {
				t.Errorf("requests (-want +got):\n%s", diff)
			}
		})
	}
}
