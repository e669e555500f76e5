package main

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"encoding/pem"
	"errors"
	"flag"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"revoked"
	"revoked/cmd/revoked/internal/cli"
	"revoked/cmd/revoked/internal/input"
)

var updateGolden = flag.Bool("update-golden", false, "rewrite the golden files of this package")

const (
	testSecret = "canary-secret-3f1b9c5e7a2d4860"
	testToken  = "canary-token-8d2f6b1c9e3a7054"
)

// testDigest is the digest of testToken, which a command may send.
var testDigest = revoked.DigestToken(testToken).String()

// A fakeNode is a TLS server that records its requests.
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
		n.requests = append(n.requests, recorded{r.Method, r.URL.RequestURI(), r.Header.Get("Content-Type"), user, password,
			string(b)})
		n.mu.Unlock()
		h(w, r)
	}))
	n.EnableHTTP2 = true
	n.StartTLS()
	t.Cleanup(n.Close)
	return n
}

func (n *fakeNode) received() []recorded {
	n.mu.Lock()
	defer n.mu.Unlock()
	return append([]recorded(nil), n.requests...)
}

// answering returns a handler with a constant answer.
func answering(status int, contentType, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", contentType)
		w.WriteHeader(status)
		io.WriteString(w, body)
	}
}

// useNodes sets addresses, CA and credentials in the environment.
func useNodes(t *testing.T, addrs string, ca *fakeNode) {
	t.Helper()
	for _, name := range []string{"REVOKED_CLIENT_SECRET_FILE", "REVOKED_CLIENT_JWT_KEY", "REVOKED_CLIENT_CERT",
		"REVOKED_CLIENT_KEY", "REVOKED_OUTPUT", "REVOKED_CACERT"} {
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

// outcome is the result of a run of the program.
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
	file := filepath.Join("testdata", "calls", name+".golden")
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
	statusBody     = `{"node_id":"node1","cluster_id":"c-1","version":"1.0.0","healthy":true,"leader":{"node_id":"node2","api":"https://127.0.0.1:8444"},"term":3,"state":"follower","commit_index":120,"applied_index":119,"voters":3,"quorum":2,"voting":{"voters":3,"voters_up":2,"quorum":2,"failure_tolerance":0,"region_failure_tolerance":0,"regions":[{"region":"eu","voters":2,"voters_up":2,"survivable":false},{"region":"us\u001b[2J","voters":1,"voters_up":0,"survivable":true}]},"lease":{"held":true,"left_ms":1500},"log_hash":"aa","state_hash":"bb","hash_index":119,"tokens":20,"grants":10}`
	activeBody     = `{"active":true,"scope":"read write","client_id":"app","token_type":"Bearer","exp":1790003600,"iat":1790000000,"aud":["rs1","rs2"]}`
	admittedBody   = `{"nodes":[{"node":"node1","non_voter":false,"state":"member","expires_at":null,"by":""},{"node":"node4\u001b[2J","non_voter":true,"state":"admitted","expires_at":1790003600.25,"by":"admin"}]}`
	joinTokensBody = `{"join_tokens":[{"id":"a1b2","state":"used","node":"node4","non_voter":true,"created_at":1790000000,"expires_at":1790003600,"by":"admin","used_by":"node4","used_at":1790000100},{"id":"c3d4","state":"open","non_voter":false,"created_at":1790000000.5,"expires_at":1790003600.5,"by":"admin","used_at":null}]}`
	clientBody     = `{"client_id":"app","type":"confidential","roles":[],"audiences":[],"issuers":[],"auth_methods":["client_secret_basic","client_secret_post"],"allow_public_revocation":false,"disabled":false,"created_at":1790000000}`
	issuerBody     = `{"name":"as","issuer":"https://as.example\u001b[2J","jwks":{"keys":[]},"algorithms":[],"token_types":["at+jwt",""],"required_claims":{"b":"2","a":"1"},"forbidden_claims":["nonce"],"client_claim":"","session_claim":"sid","grant_claim":"","revoke_session":false,"own_clients":false,"unknown_clients":"allow","require_audience":true,"jti":true,"max_lifetime":"24h","clock_skew":"5s","disabled":true,"created_at":1790000000,"keys":[{"kid":"k1","thumbprint":"tp1","alg":"ES256","state":"active"},{"thumbprint":"tp2","state":"banned"}]}`
	noClusterBody  = `{"node_id":"node1","cluster_id":"","version":"1.0.0","healthy":false,"leader":{"node_id":"","api":""},"term":0,"state":"none","commit_index":0,"applied_index":0,"voters":0,"quorum":0,"lease":{"held":false,"left_ms":0},"log_hash":"00","state_hash":"00","hash_index":0,"tokens":0,"grants":0}`
	rotatedBody    = `{"client_id":"app","type":"confidential","roles":[],"audiences":[],"issuers":[],"auth_methods":["client_secret_basic","client_secret_post"],"allow_public_revocation":false,"disabled":false,"created_at":1790000000,"valid_secrets":[{"expires_at":null},{"expires_at":1790086400}]}`
)

// fetchedBody returns the issuer of issuerBody with keys that the leader fetches.
func fetchedBody(fetch string) string {
	return strings.Replace(issuerBody, `"jwks":{"keys":[]}`, `"jwks_uri":"https://as.example/jwks","fetch":`+fetch, 1)
}

func TestCommands_EachCall_PrintsAnswer(t *testing.T) {
	tests := []struct {
		name   string
		args   []string
		stdin  string
		status int
		body   string
		want   recorded // user and password are checked for all
		code   int
	}{
		{"members lists every node", []string{"members"}, "", 200, membersBody,
			recorded{method: "GET", path: "/v1/members"}, 0},
		{"status of a healthy node", []string{"status"}, "", 200, statusBody, recorded{method: "GET", path: "/v1/status"}, 0},
		{"status of an unhealthy node exits with 2", []string{"status"}, "", 200,
			strings.Replace(statusBody, `"healthy":true`, `"healthy":false,"reasons":["no leader is known","no read lease"]`, 1),
			recorded{method: "GET", path: "/v1/status"}, 2},
		{"join sends every address", []string{"join", "a:7443,b:7443", "c:7443"}, "", 200, `{"index":7}`,
			recorded{method: "POST", path: "/v1/cluster/join", contentType: "application/json",
				body: `{"addresses":["a:7443","b:7443","c:7443"]}`}, 0},
		{"leave", []string{"leave"}, "", 200, `{"index":8}`,
			recorded{method: "POST", path: "/v1/cluster/leave", contentType: "application/json", body: `{}`}, 0},
		{"remove forced with a reason", []string{"remove", "node3", "--force", "--reason", "burnt"}, "", 200, `{"index":9}`,
			recorded{method: "POST", path: "/v1/cluster/remove", contentType: "application/json",
				body: `{"force":true,"node":"node3","reason":"burnt"}`}, 0},
		{"remove that would lose quorum fails", []string{"remove", "node3"}, "", 409,
			`{"title":"Conflict","status":409,"detail":"would lose quorum"}`,
			recorded{method: "POST", path: "/v1/cluster/remove", contentType: "application/json", body: `{"node":"node3"}`}, 1},
		{"transfer-leader without a node", []string{"transfer-leader"}, "", 200, `{"index":10}`,
			recorded{method: "POST", path: "/v1/cluster/transfer-leader", contentType: "application/json", body: `{}`}, 0},
		{"admit a node", []string{"admit", "node4", "--non-voter", "--ttl", "2h"}, "", 200, `{"index":15}`,
			recorded{method: "POST", path: "/v1/cluster/admit", contentType: "application/json",
				body: `{"node":"node4","non_voter":true,"ttl":"2h0m0s"}`}, 0},
		{"withdraw an admission", []string{"admit", "node4", "--withdraw"}, "", 200, `{"index":16}`,
			recorded{method: "DELETE", path: "/v1/cluster/admit/node4"}, 0},
		{"list the admitted nodes", []string{"admitted"}, "", 200, admittedBody,
			recorded{method: "GET", path: "/v1/cluster/admitted"}, 0},
		{"create a join token shows it", []string{"join-token", "create", "--node", "node4"}, "", 201,
			`{"id":"a1b2","token":"made-by-the-server","expires_at":1790003600}`,
			recorded{method: "POST", path: "/v1/cluster/join-tokens", contentType: "application/json",
				body: `{"node":"node4","ttl":"1h0m0s"}`}, 0},
		{"list the join tokens", []string{"join-token", "list"}, "", 200, joinTokensBody,
			recorded{method: "GET", path: "/v1/cluster/join-tokens"}, 0},
		{"delete a join token", []string{"join-token", "delete", "a1b2"}, "", 200, `{"index":17}`,
			recorded{method: "DELETE", path: "/v1/cluster/join-tokens/a1b2"}, 0},
		{"promote a node", []string{"promote", "node4"}, "", 200, `{"index":18}`,
			recorded{method: "POST", path: "/v1/cluster/promote", contentType: "application/json", body: `{"node":"node4"}`}, 0},
		{"demote a node", []string{"demote", "node4"}, "", 200, `{"index":19}`,
			recorded{method: "POST", path: "/v1/cluster/demote", contentType: "application/json", body: `{"node":"node4"}`}, 0},
		{"create an issuer from standard input", []string{"issuer", "create", "-"}, `{"name":"as"}`, 201, issuerBody,
			recorded{method: "POST", path: "/v1/issuers", contentType: "application/json", body: `{"name":"as"}`}, 0},
		{"create an issuer that exists", []string{"issuer", "create", "-"}, `{"name":"as"}`, 409,
			`{"title":"conflict","status":409,"detail":"issuer \"as\" exists"}`,
			recorded{method: "POST", path: "/v1/issuers", contentType: "application/json", body: `{"name":"as"}`}, 1},
		{"list the issuers", []string{"issuer", "list"}, "", 200, `{"issuers":[` + issuerBody + `]}`,
			recorded{method: "GET", path: "/v1/issuers"}, 0},
		{"show an issuer", []string{"issuer", "show", "as"}, "", 200, issuerBody,
			recorded{method: "GET", path: "/v1/issuers/as"}, 0},
		{"update an issuer", []string{"issuer", "update", "as", "-"}, `{"max_lifetime":null}`, 200, issuerBody,
			recorded{method: "PATCH", path: "/v1/issuers/as", contentType: "application/merge-patch+json",
				body: `{"max_lifetime":null}`}, 0},
		{"disable an issuer", []string{"issuer", "disable", "as"}, "", 200, issuerBody,
			recorded{method: "PATCH", path: "/v1/issuers/as", contentType: "application/merge-patch+json",
				body: `{"disabled":true}`}, 0},
		{"delete an issuer", []string{"issuer", "delete", "as"}, "", 200, `{"index":20}`,
			recorded{method: "DELETE", path: "/v1/issuers/as"}, 0},
		{"ban a key of an issuer", []string{"issuer", "ban-key", "as", "a/b"}, "", 200, `{"index":21}`,
			recorded{method: "DELETE", path: "/v1/issuers/as/keys/a%2Fb"}, 0},
		{"show an issuer that is fetched", []string{"issuer", "show", "as"}, "", 200,
			fetchedBody(`{"at":1790000000,"ok":false,"error":"status 500","next_at":1790000030}`),
			recorded{method: "GET", path: "/v1/issuers/as"}, 0},
		{"list issuers that are fetched", []string{"issuer", "list"}, "", 200, `{"issuers":[` + strings.Join([]string{
			issuerBody, fetchedBody(`{"at":1790000000,"ok":true,"next_at":1790000900}`),
			fetchedBody(`{"at":1790000000,"ok":false,"error":"status 500","next_at":1790000030}`),
			fetchedBody(`{"at":null,"ok":false,"next_at":null}`), fetchedBody(`null`)}, ",") + `]}`,
			recorded{method: "GET", path: "/v1/issuers"}, 0},
		{"show an issuer that was not fetched yet", []string{"issuer", "show", "as"}, "", 200,
			fetchedBody(`{"at":null,"ok":false,"next_at":null}`), recorded{method: "GET", path: "/v1/issuers/as"}, 0},
		{"show an issuer without a leader", []string{"issuer", "show", "as"}, "", 200,
			fetchedBody(`null`), recorded{method: "GET", path: "/v1/issuers/as"}, 0},
		{"refresh an issuer", []string{"issuer", "refresh", "as"}, "", 200, `{"index":22,"changed":true}`,
			recorded{method: "POST", path: "/v1/issuers/as/refresh", contentType: "application/json", body: `{}`}, 0},
		{"revoke by jti", []string{"revoke-jti", "--issuer", "https://as.example", "--reason", "leak", "-"}, "j1\r\n\nj<2\n",
			200, `{"lines":2,"revoked":2,"failed":0}`,
			recorded{method: "POST", path: "/v1/revocations?results=errors", contentType: "application/x-ndjson",
				body: `{"issuer":"https://as.example","jti":"j1","reason":"leak"}` + "\n" +
					`{"issuer":"https://as.example","jti":"j<2","reason":"leak"}` + "\n"}, 0},
		{"revoke by jti, one refused", []string{"revoke-jti", "--issuer", "x", "-"}, "j1\n", 200,
			`{"error":"unprocessable","detail":"issuer is not trusted","line":1}` + "\n" + `{"lines":1,"revoked":0,"failed":1}`,
			recorded{method: "POST", path: "/v1/revocations?results=errors", contentType: "application/x-ndjson",
				body: `{"issuer":"x","jti":"j1"}` + "\n"}, 1},
		{"check a token that is verified", []string{"issuer", "check", "as", "-"}, testToken, 200,
			`{"verified":true,"kid":"k1","thumbprint":"tp","client_id":"app","sub":"alice","jti":"j1","iat":1790000000,"exp":1790003600}`,
			recorded{method: "POST", path: "/v1/issuers/as/check", contentType: "application/json",
				body: `{"token":"` + testToken + `"}`}, 0},
		{"check a token that is not verified", []string{"issuer", "check", "as", "-"}, testToken, 200,
			`{"verified":false,"reason":"signature"}`,
			recorded{method: "POST", path: "/v1/issuers/as/check", contentType: "application/json",
				body: `{"token":"` + testToken + `"}`}, 2},
		{"explain an active token", []string{"explain", "-"}, testToken, 200,
			`{"active":true,"reason":"active","kind":"registered","grant_id":"g-1","client_id":"app","subject":"alice\u001b[2J","session":"s-1","issuer":"https://as.example","jti":"j1","issued_at":1790000000.5,"expires_at":1790003600,"audience":["rs1","rs2"],"scope":"read write","node":"node2","applied_index":42,"lease_left_ms":1500}`,
			recorded{method: "POST", path: "/v1/explain", contentType: "application/json",
				body: `{"token":"` + testToken + `"}`}, 0},
		{"explain a revoked token for a caller", []string{"explain", "--as", "rs1", "-"}, testToken, 200,
			`{"active":false,"reason":"revoked","kind":"registered","grant_id":"g-1","client_id":"app","revoked":{"at":1790000100,"by":"admin","reason":"stolen","index":41},"node":"node2","applied_index":42}`,
			recorded{method: "POST", path: "/v1/explain", contentType: "application/json",
				body: `{"as":"rs1","token":"` + testToken + `"}`}, 2},
		{"explain a token that a cut-off revoked", []string{"explain", "-"}, testToken, 200,
			`{"active":false,"reason":"cut_off","kind":"jwt","client_id":"app","cutoff":{"selector":{"subject":"alice"},"issued_before":1790000000,"index":41,"by":"admin","at":1790000100,"reason":""},"node":"node2","applied_index":42}`,
			recorded{method: "POST", path: "/v1/explain", contentType: "application/json",
				body: `{"token":"` + testToken + `"}`}, 2},
		{"explain for an unknown caller", []string{"explain", "--as", "x", "-"}, testToken, 422,
			`{"title":"unknown client","status":422,"detail":"unknown client: as: no such client"}`,
			recorded{method: "POST", path: "/v1/explain", contentType: "application/json",
				body: `{"as":"x","token":"` + testToken + `"}`}, 1},
		{"ask about the past of a token that was active", []string{"audit", "token", "--at", "2026-09-21T14:20:00Z", "-"},
			testToken, 200,
			`{"digest":"` + testDigest + `","at":1790000400,"state":"active","since":1790000000.5,"until":1790003600,"reason":"active","index":40}`,
			recorded{method: "GET", path: "/v1/audit/token?at=2026-09-21T14%3A20%3A00Z&digest=" + testDigest}, 0},
		{"ask about the past of a revoked token", []string{"audit", "token", "-"}, testToken, 200,
			`{"digest":"` + testDigest + `","at":1790000400,"state":"inactive","since":1790000100.25,"reason":"revoked","index":41,"applied_at":1790000100.253,"acknowledged_at":1790000100.2571,"waited_for":["node2","node3"]}`,
			recorded{method: "GET", path: "/v1/audit/token?digest=" + testDigest}, 2},
		{"ask about the past of a removed token", []string{"audit", "token", "--at", "1700000000", "-"},
			testToken, 200, `{"digest":"` + testDigest + `","at":1700000000,"state":"not_held"}`,
			recorded{method: "GET", path: "/v1/audit/token?at=1700000000&digest=" + testDigest}, 2},
		{"list grants", []string{"grants", "--subject", "alice", "--state", "active", "--limit", "2"}, "", 200,
			`{"grants":[{"grant_id":"g-1","state":"active","client_id":"app","subject":"alice","session":"s-1","issuer":"https://as.example","registered_by":"issuer","created_at":1790000000,"created_index":7,"expires_at":null,"token_count":2},{"grant_id":"g\u001b2","state":"active","client_id":"app","subject":"alice","created_at":1790000000,"created_index":8,"expires_at":1790003600,"token_count":1}],"next":"g 2"}`,
			recorded{method: "GET", path: "/v1/grants?limit=2&state=active&subject=alice"}, 0},
		{"members of a node in no cluster", []string{"members"}, "", 200, `{"members":[]}`,
			recorded{method: "GET", path: "/v1/members"}, 0},
		{"status of a node in no cluster", []string{"status"}, "", 200, noClusterBody,
			recorded{method: "GET", path: "/v1/status"}, 2},
		{"join without the secret of the node", []string{"join", "a:7443"}, "", 401, `{"title":"Unauthorized","status":401}`,
			recorded{method: "POST", path: "/v1/cluster/join", contentType: "application/json",
				body: `{"addresses":["a:7443"]}`}, 1},
		{"show a client after a rotation", []string{"client", "show", "app"}, "", 200, rotatedBody,
			recorded{method: "GET", path: "/v1/clients/app"}, 0},
		{"list a resource server", []string{"client", "list"}, "", 200, `{"clients":[` + strings.Replace(clientBody,
			`"roles":[]`, `"roles":["resource_server"]`, 1) + `]}`, recorded{method: "GET", path: "/v1/clients"}, 0},
		{"revoke a token from standard input", []string{"token", "revoke", "-", "--hint", "access_token"}, testToken + "\n",
			200, `{}`, recorded{method: "POST", path: "/oauth2/revoke", contentType: "application/x-www-form-urlencoded",
				body: "token=" + testToken + "&token_type_hint=access_token"}, 0},
		{"introspect an active token", []string{"token", "introspect", "-"}, testToken, 200, activeBody,
			recorded{method: "POST", path: "/oauth2/introspect", contentType: "application/x-www-form-urlencoded",
				body: "token=" + testToken}, 0},
		{"introspect an inactive token exits with 2", []string{"token", "introspect", "-"}, testToken, 200,
			`{"active":false}`, recorded{method: "POST", path: "/oauth2/introspect",
				contentType: "application/x-www-form-urlencoded", body: "token=" + testToken}, 2},
		{"register a body", []string{"token", "register", "-"}, `{"client_id":"app"}`, 201,
			`{"grant_id":"g-1","index":11,"state":"active"}`,
			recorded{method: "POST", path: "/v1/grants", contentType: "application/json", body: `{"client_id":"app"}`}, 0},
		{"create a client shows its secret", []string{"client", "create", "app", "--role", "resource_server", "--audience",
			"rs1"}, "", 201, `{"client_id":"app","client_secret":"made-by-the-server"}`,
			recorded{method: "POST", path: "/v1/clients", contentType: "application/json",
				body: `{"audiences":["rs1"],"client_id":"app","roles":["resource_server"],"type":"confidential"}`}, 0},
		{"list the clients", []string{"client", "list"}, "", 200, `{"clients":[` + clientBody + `]}`,
			recorded{method: "GET", path: "/v1/clients"}, 0},
		{"show a client whose id needs escaping", []string{"client", "show", "a/b?c"}, "", 200, clientBody,
			recorded{method: "GET", path: "/v1/clients/a%2Fb%3Fc"}, 0},
		{"rotate a secret", []string{"client", "rotate-secret", "app"}, "", 200,
			`{"client_id":"app","client_secret":"new-one","index":12}`,
			recorded{method: "POST", path: "/v1/clients/app/secret", contentType: "application/json", body: `{}`}, 0},
		{"disable a client", []string{"client", "disable", "app"}, "", 200,
			strings.Replace(clientBody, `"disabled":false`, `"disabled":true`, 1),
			recorded{method: "PATCH", path: "/v1/clients/app", contentType: "application/merge-patch+json",
				body: `{"disabled":true}`}, 0},
		{"enable a client", []string{"client", "enable", "app"}, "", 200, clientBody,
			recorded{method: "PATCH", path: "/v1/clients/app", contentType: "application/merge-patch+json",
				body: `{"disabled":false}`}, 0},
		{"delete a client", []string{"client", "delete", "app"}, "", 200, `{"index":13}`,
			recorded{method: "DELETE", path: "/v1/clients/app"}, 0},
		{"revoke all of a subject", []string{"revoke-all", "--subject", "alice", "--client", "app", "--issued-before",
			"2026-01-31T12:00:00Z", "--reason", "stolen"}, "", 200, `{"index":14}`,
			recorded{method: "POST", path: "/v1/revocations", contentType: "application/json",
				body: `{"client_id":"app","issued_before":1769860800,"reason":"stolen","subject":"alice"}`}, 0},
		{"a dry run counts", []string{"revoke-all", "--session", "s-1", "--dry-run"}, "", 200, `{"index":14,"matched":3}`,
			recorded{method: "POST", path: "/v1/revocations", contentType: "application/json",
				body: `{"dry_run":true,"session":"s-1"}`}, 0},
		{"expectation of zero is sent", []string{"revoke-all", "--grant", "g-1", "--expect", "0"}, "", 409,
			`{"title":"Conflict","status":409,"detail":"matched 1, not 0"}`,
			recorded{method: "POST", path: "/v1/revocations", contentType: "application/json",
				body: `{"expect":0,"grant_id":"g-1"}`}, 1},
		{"wrong credentials name the settings", []string{"members"}, "", 401, `{"title":"Unauthorized","status":401}`,
			recorded{method: "GET", path: "/v1/members"}, 1},
		{"OAuth error", []string{"token", "revoke", "-"}, testToken, 400,
			`{"error":"invalid_grant","error_description":"token was issued to another client"}`,
			recorded{method: "POST", path: "/oauth2/revoke", contentType: "application/x-www-form-urlencoded",
				body: "token=" + testToken}, 1},
		{"repeated title is printed once", []string{"client", "create", "app"}, "", 409,
			`{"title":"conflict","status":409,"detail":"conflict: client \"app\" exists"}`,
			recorded{method: "POST", path: "/v1/clients", contentType: "application/json",
				body: `{"client_id":"app","type":"confidential"}`}, 1},
		{"detail equal to title is omitted", []string{"client", "show", "app"}, "", 404,
			`{"title":"not found","status":404,"detail":"not found"}`, recorded{method: "GET", path: "/v1/clients/app"}, 1},
		{"HTML page is omitted", []string{"members"}, "", 502, `<html>proxy</html>`,
			recorded{method: "GET", path: "/v1/members"}, 1},
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
			if diff := cmp.Diff([]recorded{want}, node.received(), cmp.AllowUnexported(recorded{})); diff != "" {
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

func TestCommands_WrongUsage_ExitsWith64(t *testing.T) {
	tests := []struct {
		name   string
		args   []string
		stderr string
	}{
		{"revoke-all without a selector", []string{"revoke-all"}, "select what to revoke"},
		{"revoke-all with an empty selector", []string{"revoke-all", "--subject", ""}, "is empty"},
		{"revoke-all with two subjects", []string{"revoke-all", "--subject", "a", "--subject", "b"}, "given twice"},
		{"revoke-all before a wrong date", []string{"revoke-all", "--subject", "a", "--issued-before", "yesterday"},
			"Unix seconds"},
		{"grants without a selector", []string{"grants"}, "select what to list"},
		{"grants with the state of a token", []string{"grants", "--subject", "a", "--state", "rotated"}, "--state must be"},
		{"grants without a limit", []string{"grants", "--subject", "a", "--limit", "0"}, "--limit must be"},
		{"explain without a token", []string{"explain"}, "accepts 1 arg"},
		{"remove forced without a reason", []string{"remove", "node1", "--force"}, "--reason"},
		{"remove without a node", []string{"remove"}, "accepts 1 arg"},
		{"join with the URL of an API", []string{"join", "https://node1:8443"}, "cluster addresses"},
		{"an unknown output format", []string{"members", "-o", "yaml"}, "output"},
		{"an address in the clear", []string{"members", "--addr", "http://127.0.0.1:1"}, "in the clear"},
		{"a password in an address", []string{"members", "--addr", "https://admin:" + testSecret + "@127.0.0.1:1"},
			"invalid node URL"},
		{"leave with two addresses", []string{"leave", "--addr", "127.0.0.1:1,127.0.0.1:2"}, "exactly one"},
		{"a token where a command belongs", []string{"token", testToken}, "unknown command"},
		{"recover without a directory", []string{"recover"}, "--data-dir is required"},
		{"recover that accepts the loss without a reason", []string{"recover", "--data-dir", "x", "--accept-loss"},
			"--accept-loss needs --reason"},
		{"an unknown kind of audit entries", []string{"audit", "--kind", "client.made"}, "client.create, client.update"},
		{"register nothing", []string{"token", "register"}, "--client"},
		{"both tokens from standard input", []string{"token", "register", "--client", "app", "--access-token-file", "-",
			"--refresh-token-file", "-"}, "standard input"},
		{"a lifetime without its token", []string{"token", "register", "--client", "app", "--access-token-file", "-",
			"--refresh-expires-in", "1h"}, "needs --access-token-file"},
		{"a token without a lifetime", []string{"token", "register", "--client", "app", "--access-token-file", "-",
			"--expires-in", "0s"}, "--expires-in must be more than 0; without it"},
		{"a refresh token without a lifetime", []string{"token", "register", "--client", "app", "--refresh-token-file", "-",
			"--refresh-expires-in", "0"}, "--refresh-expires-in must be more than 0"},
		{"a negative lifetime", []string{"token", "register", "--client", "app", "--access-token-file", "-", "--expires-in",
			"-1h"}, "--expires-in must be more than 0"},
		{"a body and a lifetime of zero", []string{"token", "register", "-", "--expires-in", "0s"}, "cannot combine a FILE"},
		{"an unknown flag", []string{"members", "--nope"}, "unknown flag"},
		{"an unknown role", []string{"client", "create", "x", "--role", "boss"},
			"roles: want admin, issuer, resource_server, operator, viewer or auditor"},
		{"an operator that cannot authenticate", []string{"client", "create", "x", "--role", "operator", "--auth-method",
			"client_secret_post"}, "need client_secret_basic"},
		{"a public auditor", []string{"client", "create", "x", "--type", "public", "--role", "auditor"}, "cannot have roles"},
		{"imported without a secret", []string{"client", "create", "x", "--imported"}, "--secret-file"},
		{"a secret and a key", []string{"members", "--client-secret-file", "x", "--client-jwt-key", "y"},
			"set --client-secret-file or --client-jwt-key, not both"},
		{"a certificate without its key", []string{"members", "--client-cert", "x.pem"}, "go together"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			useNodes(t, "", nil)
			got := runWith(t, "", tt.args...)
			if got.code != cli.ExitUsage {
				t.Errorf("exit code: got %d, want %d", got.code, cli.ExitUsage)
			}
			if !strings.Contains(got.stderr, tt.stderr) {
				t.Errorf("stderr: got %q, want %q in it", got.stderr, tt.stderr)
			}
			if got.stdout != "" {
				t.Errorf("stdout: got %q, want nothing", got.stdout)
			}
		})
	}
}

func TestCommands_SeveralNodes_FailOver(t *testing.T) {
	good := answering(200, "application/json", `{"members":[]}`)
	busy := answering(503, "application/problem+json", `{"title":"Service Unavailable","status":503,"detail":"no leader"}`)
	broken := func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }
	silent := func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	refused := answering(403, "application/problem+json",
		`{"title":"forbidden","status":403,"detail":"forbidden: the caller needs the role admin, operator or viewer"}`)

	t.Run("first is unreachable: next node", func(t *testing.T) {
		node := newFakeNode(t, good)
		useNodes(t, closedAddr(t)+","+node.URL, node)
		if got := runWith(t, "", "members"); got.code != 0 {
			t.Errorf("exit code: got %d, want 0; stderr: %s", got.code, got.stderr)
		}
	})
	for name, first := range map[string]http.HandlerFunc{"503": busy, "broken connection": broken} {
		t.Run("first fails with "+name+": next node", func(t *testing.T) {
			one, two := newFakeNode(t, first), newFakeNode(t, good)
			useNodes(t, one.URL+","+two.URL, one)
			if got := runWith(t, "", "members"); got.code != 0 {
				t.Errorf("exit code: got %d, want 0; stderr: %s", got.code, got.stderr)
			}
			if n := len(two.received()); n != 1 {
				t.Errorf("requests to the second node: got %d, want 1", n)
			}
		})
	}
	t.Run("first refuses: no other node", func(t *testing.T) {
		one, two := newFakeNode(t, refused), newFakeNode(t, good)
		useNodes(t, one.URL+","+two.URL, one)
		if got := runWith(t, "", "members"); got.code != cli.ExitFailed ||
			!strings.Contains(got.stderr, "needs the role admin, operator or viewer") {
			t.Errorf("got exit %d and %q, want %d and the reason", got.code, got.stderr, cli.ExitFailed)
		}
		if n := len(two.received()); n != 0 {
			t.Errorf("requests to the second node: got %d, want 0", n)
		}
	})
	t.Run("rotation may have happened: no other node", func(t *testing.T) {
		one, two := newFakeNode(t, busy), newFakeNode(t, good)
		useNodes(t, one.URL+","+two.URL, one)
		if got := runWith(t, "", "client", "rotate-secret", "app"); got.code != cli.ExitFailed {
			t.Errorf("exit code: got %d, want %d", got.code, cli.ExitFailed)
		}
		if n := len(two.received()); n != 0 {
			t.Errorf("requests to the second node: got %d, want 0", n)
		}
	})
	t.Run("first accepts but never answers: next node", func(t *testing.T) {
		for _, args := range [][]string{{"members"},
			{"client", "rotate-secret", "app"}} { // no byte was sent, so a rotation is safe to retry
			node := newFakeNode(t, answering(200, "application/json", `{"members":[],"client_id":"app","client_secret":"s"}`))
			useNodes(t, silentAddr(t)+","+silentAddr(t)+","+node.URL, node)
			got := runWith(t, "", append(args, "--timeout", "12s")...)
			if got.code != 0 || len(node.received()) != 1 {
				t.Errorf("%v: got exit %d and %d requests to the third node, want 0 and 1; stderr: %s", args, got.code,
					len(node.received()), got.stderr)
			}
		}
	})
	t.Run("first reads but never answers: next node", func(t *testing.T) {
		one, two := newFakeNode(t, silent), newFakeNode(t, good)
		useNodes(t, one.URL+","+two.URL, one)
		if got := runWith(t, "", "members", "--timeout", "8s"); got.code != 0 {
			t.Errorf("exit code: got %d, want 0; stderr: %s", got.code, got.stderr)
		}
	})
	t.Run("first is slow to make a change: no other node", func(t *testing.T) {
		slow := func(w http.ResponseWriter, r *http.Request) {
			select {
			case <-time.After(4500 * time.Millisecond): // longer than the share of the timeout that the first node gets
				answering(200, "application/json", `{}`)(w, r)
			case <-r.Context().Done():
			}
		}
		one, two := newFakeNode(t, slow), newFakeNode(t, good)
		useNodes(t, one.URL+","+two.URL, one)
		got := runWith(t, testToken, "token", "revoke", "-", "--timeout", "8s")
		if got.code != 0 || len(two.received()) != 0 {
			t.Errorf("got exit %d and %d requests to the second node, want 0 and 0; stderr: %s", got.code, len(two.received()),
				got.stderr)
		}
	})
	t.Run("no node answers: error names each", func(t *testing.T) {
		one, two := silentAddr(t), silentAddr(t)
		useNodes(t, one+","+two, nil)
		got := runWith(t, "", "members", "--timeout", "4s")
		for _, want := range []string{one + ": no answer within 2s; set", two + ": no answer within 4s; set"} {
			if got.code != cli.ExitFailed || !strings.Contains(got.stderr, want) {
				t.Errorf("got exit %d and %q, want %d and %q", got.code, got.stderr, cli.ExitFailed, want)
			}
		}
	})
	t.Run("all fail: error names each", func(t *testing.T) {
		one, two := newFakeNode(t, busy), newFakeNode(t, busy)
		useNodes(t, one.URL+","+two.URL, one)
		got := runWith(t, "", "members")
		if got.code != cli.ExitFailed || !strings.Contains(got.stderr, one.URL) || !strings.Contains(got.stderr, two.URL) ||
			!strings.Contains(got.stderr, "try again") {
			t.Errorf("got exit %d and %q, want %d, both addresses and advice", got.code, got.stderr, cli.ExitFailed)
		}
	})
	t.Run("redirect is not followed", func(t *testing.T) {
		other := newFakeNode(t, good)
		node := newFakeNode(t, func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, other.URL+"/v1/members", http.StatusTemporaryRedirect)
		})
		useNodes(t, node.URL, node)
		if got := runWith(t, "", "members"); got.code != cli.ExitFailed {
			t.Errorf("exit code: got %d, want %d", got.code, cli.ExitFailed)
		}
		if n := len(other.received()); n != 0 {
			t.Errorf("requests to the other: got %d, want 0", n)
		}
	})
}

// closedAddr returns the URL of a closed server.
func closedAddr(t *testing.T) string {
	t.Helper()
	s := httptest.NewServer(http.NotFoundHandler())
	s.Close()
	return strings.Replace(s.URL, "http:", "https:", 1)
}

// silentAddr returns the URL of a listener that serves no connection, like a stopped process.
func silentAddr(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return "https://" + l.Addr().String()
}

func TestCommands_TLSError_GivesAdvice(t *testing.T) {
	node := newFakeNode(t, answering(200, "application/json", `{}`))
	t.Run("unknown authority", func(t *testing.T) {
		useNodes(t, node.URL, nil)
		got := runWith(t, "", "members")
		if got.code != cli.ExitFailed || !strings.Contains(got.stderr, "REVOKED_CACERT") {
			t.Errorf("got exit %d and %q, want %d and REVOKED_CACERT", got.code, got.stderr, cli.ExitFailed)
		}
		if len(node.received()) != 0 {
			t.Error("the node got a request over a connection that was not verified")
		}
	})
	t.Run("unreachable node", func(t *testing.T) {
		useNodes(t, closedAddr(t), nil)
		got := runWith(t, "", "members")
		if got.code != cli.ExitFailed || !strings.Contains(got.stderr, "is the node running") {
			t.Errorf("got exit %d and %q, want %d and advice", got.code, got.stderr, cli.ExitFailed)
		}
	})
}

// A user may mix up the ports of a node. The error of a call to the wrong port names the right
// port.
func TestCommands_ClusterPort_ErrorNamesAPIPort(t *testing.T) {
	port := httptest.NewUnstartedServer(http.NotFoundHandler())
	port.TLS = &tls.Config{ClientAuth: tls.RequireAnyClientCert, MinVersion: tls.VersionTLS13}
	port.Config.ErrorLog = log.New(io.Discard, "", 0)
	port.StartTLS()
	t.Cleanup(port.Close)
	useNodes(t, port.URL, &fakeNode{Server: port})
	got := runWith(t, "", "members")
	const want = "this looks like a cluster port: set REVOKED_ADDR or --addr to the API address"
	if got.code != cli.ExitFailed || !strings.Contains(got.stderr, want) {
		t.Errorf("got exit %d and %q, want %d and %q", got.code, got.stderr, cli.ExitFailed, want)
	}
}

func TestConnection_SecretSources_InOrder(t *testing.T) {
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
		got := node.received()[i]
		// Client id and secret are form-encoded (RFC 6749 section 2.3.1).
		if got.user != want.user || got.password != "from%3A+file%25" {
			t.Errorf("request %d: got %q and %q, want %q and the file's secret, form-encoded", i, got.user, got.password,
				want.user)
		}
	}
}

func TestToken_OnCommandLine_IsNeverPrinted(t *testing.T) {
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
		// runWith fails the test if the token is printed.
		got := runWith(t, "", args...)
		if got.code == 0 || len(node.received()) != 0 {
			t.Errorf("%v: got exit %d and %d requests, want a refusal before any request",
				args[:2], got.code, len(node.received()))
		}
	}
}

// Text that is not a token would revoke nothing, so the command refuses it before sending.
func TestToken_OtherText_IsRefused(t *testing.T) {
	for text, want := range map[string]string{
		"Bearer " + testToken:                            `begins with "Bearer"`,
		"authorization: Bearer " + testToken:             `begins with "authorization:"`,
		"token=" + testToken:                             `begins with "token="`,
		"access_token=" + testToken:                      `begins with "access_token="`,
		`{"access_token":"` + testToken + `"}`:           "token is JSON",
		`"` + testToken + `"`:                            "in quotes",
		testToken + " " + testToken:                      "has white space",
		testToken + "\n" + testToken:                     "more than one line",
		" " + testToken:                                  "leading white space",
		testToken + "\u200b":                             "invisible character",
		"":                                               "is empty",
		"\xff\xfea\x00":                                  "UTF-16",
		strings.Repeat("a", input.MaxToken+1):            "too long",
		"\ufeff" + strings.Repeat("a", input.MaxToken+1): "too long",
	} {
		for _, command := range []string{"revoke", "introspect"} {
			useNodes(t, "", nil)
			got := runWith(t, text, "token", command, "-")
			if got.code != cli.ExitFailed || !strings.Contains(got.stderr, want) ||
				strings.Contains(got.stderr, testToken) {
				t.Errorf("%s %.20q: got exit code %d and %q, want %d and %q", command, text, got.code, got.stderr,
					cli.ExitFailed, want)
			}
		}
	}
}

func TestSecretOut_NewFile_IsPrivate(t *testing.T) {
	node := newFakeNode(t, answering(201, "application/json", `{"client_id":"app","client_secret":"`+testSecret+`"}`))
	useNodes(t, node.URL, node)
	file := filepath.Join(t.TempDir(), "secret")
	if got := runWith(t, "", "client", "create", "app", "--secret-out", file, "-o", "json"); got.code != 0 ||
		got.stdout != "{\"client_id\":\"app\"}\n" {
		t.Fatalf("got exit %d, stdout %q, stderr %q; want 0 and the record without its secret", got.code, got.stdout,
			got.stderr)
	}
	b, err := os.ReadFile(file)
	if err != nil || string(b) != testSecret+"\n" {
		t.Errorf("file: got %d bytes and %v, want the secret", len(b), err)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode: got %v and %v, want 0600", info.Mode(), err)
	}
	if got := runWith(t, "", "client", "create", "app", "--secret-out", file); got.code != cli.ExitFailed ||
		len(node.received()) != 1 {
		t.Errorf("over an existing file: got exit %d and %d requests, want %d and no second request", got.code,
			len(node.received()), cli.ExitFailed)
	}
}

// The client exists, but its secret is lost: the message names the command for a new one.
func TestSecretOut_FailedWrite_NamesRemedy(t *testing.T) {
	node := newFakeNode(t, answering(201, "application/json", `{"client_id":"app","client_secret":"`+testSecret+`"}`))
	useNodes(t, node.URL, node)
	dir := t.TempDir()
	for _, tt := range []struct {
		name, command string
		more          []string
		stderr        []string
	}{
		{"a new client", "create", nil, []string{"client app was created",
			"`revoked client rotate-secret app` generates a new one"}},
		{"a new client as JSON", "create", []string{"-o", "json"},
			[]string{"client app was created", "`revoked client rotate-secret app` generates a new one"}},
		{"another secret", "rotate-secret", nil,
			[]string{"`revoked client rotate-secret app` generates a new one",
				"client app has a new secret (the old one stays valid for secret_grace)"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var stderr bytes.Buffer
			code := run(append([]string{"client", tt.command, "app"}, tt.more...), strings.NewReader(""), fullDisk{}, &stderr)
			got := stderr.String()
			lost := "its secret could not be written: write /dev/stdout: no space left on device"
			for _, want := range append(tt.stderr, lost) {
				if code != cli.ExitFailed || !strings.Contains(got, want) {
					t.Errorf("got exit %d and %q, want %d and %q", code, got, cli.ExitFailed, want)
				}
			}
			if strings.Contains(got, "keep the secret") || strings.Contains(got, testSecret) {
				t.Errorf("got %q, want neither the secret nor advice to keep it", got)
			}
		})
	}
	t.Run("an unwritable file is removed", func(t *testing.T) {
		name := filepath.Join(dir, "secret")
		if err := os.WriteFile(name, nil, 0o400); err != nil {
			t.Fatal(err)
		}
		f, err := os.Open(name) // for reading: every write fails
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if err := writeSecret(f, testSecret); !errors.Is(err, syscall.EBADF) {
			t.Errorf("got %v, want %v", err, syscall.EBADF)
		}
		if _, err := os.Stat(name); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the file: got %v, want it removed", err)
		}
	})
}

func TestRegister_Flags_BuildBody(t *testing.T) {
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
	if err := json.Unmarshal([]byte(node.received()[0].body), &body); err != nil {
		t.Fatal(err)
	}
	if body.ClientID != "app" || body.Subject != "alice" || len(body.Audience) != 1 || body.Access.Token != testToken ||
		body.Access.ExpiresAt-body.Access.IssuedAt != 3600 || body.Refresh != nil {
		t.Errorf("body: got %+v, want the values of the flags", body)
	}
}

func TestRegister_Stream_ReportsResults(t *testing.T) {
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
			"REGISTERED  KNOWN  REVOKED  FAILED\n1           0      0        1\n", "line 2: invalid_request: not JSON",
			"/v1/grants?results=errors"},
		{"all registered", `{"registered":2,"known":0,"revoked":1,"failed":0,"lines":2}` + "\n", nil, 0,
			"REGISTERED  KNOWN  REVOKED  FAILED\n2           0      1        0\n", "", "/v1/grants?results=errors"},
		{"repeated code is printed once",
			`{"error":"conflict","detail":"conflict: token abc belongs to another grant","line":1}` + "\n" +
				`{"registered":0,"known":0,"revoked":0,"failed":1,"lines":1}` + "\n", nil, 1,
			"REGISTERED  KNOWN  REVOKED  FAILED\n0           0      0        1\n", "line 1: conflict: token abc belongs",
			"/v1/grants?results=errors"},
		{"incomplete answer", "", nil, 1, "", "ended before its summary", "/v1/grants?results=errors"},
		{"every result as JSON", `{"grant_id":"g","index":1,"state":"active"}` + "\n" + failures,
			[]string{"-o", "json", "--results", "all"}, 1,
			`{"grant_id":"g","index":1,"state":"active"}` + "\n" + failures,
			"failed registrations: 1; it is safe", "/v1/grants"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			node := newFakeNode(t, answering(200, "application/x-ndjson", tt.answer))
			useNodes(t, node.URL, node)
			got := runWith(t, input, append([]string{"token", "register", "--ndjson", "-"}, tt.args...)...)
			if got.code != tt.code || got.stdout != tt.stdout || !strings.Contains(got.stderr, tt.stderr) {
				t.Errorf("got exit %d, stdout %q, stderr %q; want %d, %q, %q", got.code, got.stdout, got.stderr, tt.code,
					tt.stdout, tt.stderr)
			}
			want := recorded{"POST", tt.path, "application/x-ndjson", "admin", testSecret, input}
			if diff := cmp.Diff([]recorded{want}, node.received(), cmp.AllowUnexported(recorded{})); diff != "" {
				t.Errorf("requests (-want +got):\n%s", diff)
			}
		})
	}
}

func TestTransferLeader_NoName_PrintsTheNewLeader(t *testing.T) {
	node := newFakeNode(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Revoked-Leader", "node2")
		answering(200, "application/json", `{"index":10}`)(w, r)
	})
	useNodes(t, node.URL, node)
	if got := runWith(t, "", "transfer-leader"); got.stderr != "leadership transferred to node2 (log index 10)\n" {
		t.Errorf("got %+v, want the name of the new leader", got)
	}
}

func TestStatus_ScheduledBackups_ShowsTheirAge(t *testing.T) {
	body := strings.Replace(statusBody, `"grants":10`,
		`"grants":10,"backups":[{"target":"dir","age_ms":90999},{"target":"s3","age_ms":-1}]`, 1)
	node := newFakeNode(t, answering(200, "application/json", body))
	useNodes(t, node.URL, node)
	got := runWith(t, "", "status")
	for _, want := range []string{`(?m)^Backup \(dir\) +1m30s old$`, `(?m)^Backup \(s3\) +none$`} {
		if !regexp.MustCompile(want).MatchString(got.stdout) {
			t.Errorf("got %s, want %s", got.stdout, want)
		}
	}
}

// The command warns about a secret that can be guessed.
func TestClientShow_WeakSecret_Warns(t *testing.T) {
	weak := strings.Replace(clientBody, `"disabled":false`, `"disabled":false,"weak_secret":true`, 1)
	for body, want := range map[string]string{
		clientBody: "", weak: "warning: app has an imported secret of fewer than 32 bytes",
	} {
		node := newFakeNode(t, answering(200, "application/json", body))
		useNodes(t, node.URL, node)
		got := runWith(t, "", "client", "show", "app")
		if got.code != 0 || !strings.HasPrefix(got.stderr, want) || want == "" && got.stderr != "" {
			t.Errorf("got exit %d and %q, want %q", got.code, got.stderr, want)
		}
	}
}

// An administrator must see that a revocation matched no token. Other callers do not see it.
func TestTokenRevoke_Outcome_IsPrinted(t *testing.T) {
	for outcome, want := range map[string]string{
		"unknown": "unknown token: recorded, but nothing was revoked", "revoked": "revoked: no node answers active",
		"": "revoked: no node answers active",
	} {
		node := newFakeNode(t, func(w http.ResponseWriter, r *http.Request) {
			if outcome != "" {
				w.Header().Set("Revoked-Outcome", outcome)
			}
			answering(200, "application/json", "{}")(w, r)
		})
		useNodes(t, node.URL, node)
		got := runWith(t, testToken+"\n", "token", "revoke", "-")
		if got.code != 0 || got.stdout != "" || !strings.HasPrefix(got.stderr, want) ||
			outcome == "unknown" && strings.Contains(got.stderr, "no node answers") {
			t.Errorf("%q: got exit %d, %q and %q, want %q", outcome, got.code, got.stdout, got.stderr, want)
		}
		asJSON := runWith(t, "\ufeff"+testToken+"\r\n", "token", "revoke", "-", "-o", "json")
		warned := strings.Contains(asJSON.stderr, "unknown")
		if asJSON.code != 0 || asJSON.stdout != "{}\n" || warned != (outcome == "unknown") {
			t.Errorf("%q, JSON: got %+v, want {} and a warning only for an unknown token", outcome, asJSON)
		}
		for _, r := range node.received() {
			if r.body != "token="+testToken {
				t.Errorf("got body %q, want the token without byte order mark and line ends", r.body)
			}
		}
	}
}

// For a token that fails a check, the command prints the steps that it passed and the one that it
// failed.
func TestIssuerCheck_NotVerified_ExplainsTheSteps(t *testing.T) {
	for body, want := range map[string]string{
		`{"verified":false,"reason":"format"}`:               "passed: no step; failed: format: ",
		`{"verified":false,"reason":"kid"}`:                  "passed: format, issuer, alg; failed: kid: ",
		`{"verified":false,"reason":"signature"}`:            "passed: format, issuer, alg, kid; failed: signature: ",
		`{"verified":false,"reason":"claims","claim":"nbf"}`: "wrong type (here: nbf)",
		`{"verified":false,"reason":"kid","kid":"k1","thumbprint":"t"}`: "signature, typ, claims; " +
			"failed: state of the key: ",
		`{"verified":false,"reason":"audience","thumbprint":"t"}`: "state of the key, lifetime; failed: audience: ",
		`{"verified":false,"reason":"of a newer server"}`:         "",
		`{"verified":true,"thumbprint":"t"}`:                      "",
	} {
		node := newFakeNode(t, answering(200, "application/json", body))
		useNodes(t, node.URL, node)
		got := runWith(t, testToken+"\n", "issuer", "check", "as", "-")
		if !strings.Contains(got.stderr, want) || want == "" && got.stderr != "" || strings.Contains(got.stderr, testToken) {
			t.Errorf("%s: got %q, want %q, without the token", body, got.stderr, want)
		}
	}
}

// If the byte order mark became part of the first jti, the token would stay active.
func TestRevokeJTI_ByteOrderMark_IsDropped(t *testing.T) {
	node := newFakeNode(t, answering(200, "application/x-ndjson", `{"lines":2,"revoked":2,"failed":0}`))
	useNodes(t, node.URL, node)
	got := runWith(t, "\ufeffj1\r\nj2\r\n", "revoke-jti", "--issuer", "https://as.example", "-")
	const want = `{"issuer":"https://as.example","jti":"j1"}` + "\n" + `{"issuer":"https://as.example","jti":"j2"}` + "\n"
	if calls := node.received(); got.code != 0 || len(calls) != 1 || calls[0].body != want {
		t.Errorf("got exit code %d, %s, sent %+v, want %s", got.code, got.stderr, calls, want)
	}
}

// The error has the number of the first line that is not a jti. A token is never sent to a node.
func TestRevokeJTI_OtherContent_IsRefused(t *testing.T) {
	token := "eyJhbGciOiJFUzI1NiJ9.eyJqdGkiOiJqMSJ9.c2lnbmF0dXJl"
	for name, tc := range map[string]struct {
		stdin, want string
		args        []string
		code        int
	}{
		"no issuer":     {"j1\n", "--issuer", []string{"revoke-jti", "-"}, 64},
		"a token":       {"j1\n" + token + "\n", "line 2 looks like a token", nil, 1},
		"not UTF-8":     {"j1\n\n\xff\n", "line 3 is not UTF-8", nil, 1},
		"a long line":   {strings.Repeat("x", 2000), "too long for a jti", nil, 1},
		"just too long": {strings.Repeat("x", 513) + "\n", "line 1 is too long for a jti", nil, 1},
		"JSON":          {`{"issuer":"https://as.example","jti":"j1"}` + "\n", "line 1 is JSON, not a jti", nil, 1},
		"space at end":  {"j1\nj2 \n", "line 2 begins or ends with white space", nil, 1},
		"tab before":    {"\tj1\n", "line 1 begins or ends with white space", nil, 1},
	} {
		t.Run(name, func(t *testing.T) {
			node := newFakeNode(t, answering(200, "application/x-ndjson", `{"lines":1,"revoked":1,"failed":0}`))
			useNodes(t, node.URL, node)
			args := tc.args
			if args == nil {
				args = []string{"revoke-jti", "--issuer", "https://as.example", "-"}
			}
			got := runWith(t, tc.stdin, args...)
			if got.code != tc.code || !strings.Contains(got.stderr, tc.want) {
				t.Errorf("got exit code %d, %q, want %d, %q", got.code, got.stderr, tc.code, tc.want)
			}
			for _, call := range node.received() {
				if strings.Contains(call.body, token) || strings.Contains(got.stderr, token) {
					t.Errorf("got the token in %+v or %q, want it nowhere", call, got.stderr)
				}
			}
		})
	}
}
