package main

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"

	"revoked/client"
	"revoked/cmd/revoked/internal/bench/report"
	"revoked/cmd/revoked/internal/cli"
	"revoked/cmd/revoked/internal/devcluster"
	"revoked/cmd/revoked/internal/files"
)

// actAs sets the environment so that later commands call the cluster as the client with that role.
func actAs(t *testing.T, c devcluster.Cluster, role string) {
	t.Helper()
	var addrs []string
	for _, n := range c.Nodes {
		addrs = append(addrs, n.API)
	}
	useNodes(t, strings.Join(addrs, ","), nil)
	t.Setenv("REVOKED_CACERT", c.CA)
	t.Setenv("REVOKED_CLIENT_ID", c.Clients[role].ClientID)
	t.Setenv("REVOKED_CLIENT_SECRET", c.Clients[role].ClientSecret)
}

// want runs a command and fails the test unless the exit code is code.
func want(t *testing.T, code int, stdin string, args ...string) outcome {
	t.Helper()
	got := runWith(t, stdin, args...)
	if got.code != code {
		t.Fatalf("%v: got exit %d, want %d\nstdout: %s\nstderr: %s", args, got.code, code, got.stdout, got.stderr)
	}
	return got
}

// Every client command works against three real nodes.
func TestCommands_RealCluster_Work(t *testing.T) {
	if testing.Short() {
		t.Skip("runs three nodes")
	}
	dir := t.TempDir()
	p, _ := startCluster(t, dir)
	c := readDevFile(t, dir)

	t.Run("members and status", func(t *testing.T) {
		actAs(t, c, "admin")
		var m client.Members
		if err := json.Unmarshal([]byte(want(t, 0, "", "members", "-o", "json").stdout), &m); err != nil ||
			len(m.Members) != 3 {
			t.Fatalf("members: got %+v and %v, want three", m, err)
		}
		table := want(t, 0, "", "members").stdout
		if lines := strings.Count(table, "\n"); lines != 4 || strings.Count(table, "leader") != 1 {
			t.Errorf("members: got\n%s\nwant a heading, three nodes and one leader", table)
		}
		want(t, 0, "", "status")
		actAs(t, c, "app")
		if got := want(t, 1, "", "members"); !strings.Contains(got.stderr,
			"needs the role admin, operator or viewer") {
			t.Errorf("members as a plain client: got %q, want the reason", got.stderr)
		}
	})
	t.Run("settings", func(t *testing.T) {
		actAs(t, c, "admin")
		if got := want(t, 0, "", "settings", "get", "secret_grace"); got.stdout != "24h\n" {
			t.Errorf("get: got %q, want 24h", got.stdout)
		}
		got := want(t, 0, "", "settings", "set", "secret_grace=48h", "cutoff_retention=9601h")
		if !regexp.MustCompile(`secret_grace +48h`).MatchString(got.stdout) {
			t.Errorf("set: got %q, want 48h", got.stdout)
		}
		if got := want(t, 1, "", "settings", "set", "secret_grace=1h", "lease_duration=1ms"); !strings.Contains(got.stderr,
			"lease_duration must be from 500ms to 1m") {
			t.Errorf("out of bounds: got %q, want the bounds", got.stderr)
		}
		got = want(t, 0, "", "settings", "set", "secret_grace=default", "-o", "json")
		if !strings.Contains(got.stdout, `"secret_grace":"24h"`) ||
			!strings.Contains(got.stdout, `"cutoff_retention":"9601h"`) {
			t.Errorf("default: got %q, want 24h, and the other change kept", got.stdout)
		}
		actAs(t, c, "app")
		if got := want(t, 1, "", "settings", "get"); !strings.Contains(got.stderr,
			"needs the role admin, operator or viewer") {
			t.Errorf("settings as a plain client: got %q, want the reason", got.stderr)
		}
	})
	t.Run("a token from register to revoke", func(t *testing.T) {
		actAs(t, c, "issuer")
		want(t, 0, testToken, "token", "register", "--client", "app", "--subject", "alice", "--access-token-file", "-",
			"--expires-in", "1h")
		actAs(t, c, "resource_server")
		if got := want(t, 0, testToken, "token", "introspect", "-"); !strings.Contains(got.stdout, "alice") {
			t.Errorf("introspect: got %q, want the subject", got.stdout)
		}
		actAs(t, c, "other_app")
		if got := want(t, 1, testToken, "token", "revoke", "-"); !strings.Contains(got.stderr, "invalid_grant") {
			t.Errorf("revoke by another client: got %q, want invalid_grant", got.stderr)
		}
		actAs(t, c, "app")
		want(t, 0, testToken, "token", "revoke", "-")
		want(t, 0, testToken, "token", "revoke", "-", "-o", "json")
		actAs(t, c, "resource_server")
		want(t, 2, testToken, "token", "introspect", "-")
	})
	t.Run("many registrations, one of them bad", func(t *testing.T) {
		actAs(t, c, "issuer")
		line := func(token string) string {
			return `{"client_id":"app","subject":"bob","session":"s-1","access_token":{"token":"` + token + `"}}` + "\n"
		}
		got := want(t, 1, line("bulk-1")+"{\"client_id\":5}\n"+line("bulk-2"), "token", "register", "--ndjson", "-")
		if !strings.Contains(got.stderr, "line 2:") || !strings.Contains(got.stdout, "2           0      0        1") {
			t.Errorf("got stdout %q, stderr %q; want two registered and line 2 failed", got.stdout, got.stderr)
		}
		got = want(t, 0, line("bulk-1")+line("bulk-2"), "token", "register", "--ndjson", "-", "-o", "json", "--results",
			"all")
		if n := strings.Count(got.stdout, `"grant_id"`); n != 2 {
			t.Errorf("all results: got %d, want 2: %s", n, got.stdout)
		}
	})
	t.Run("a cut-off", func(t *testing.T) {
		actAs(t, c, "admin")
		if got := want(t, 0, "", "revoke-all", "--subject", "bob", "--dry-run"); !strings.Contains(got.stdout, "2") {
			t.Errorf("dry run: got %q, want 2 matched", got.stdout)
		}
		if got := want(t, 1, "", "revoke-all", "--subject", "bob", "--expect", "3"); !strings.Contains(got.stderr, "409") {
			t.Errorf("a wrong expectation: got %q, want 409", got.stderr)
		}
		want(t, 0, "bulk-1", "token", "introspect", "-")
		want(t, 0, "", "revoke-all", "--subject", "bob", "--session", "s-1", "--expect", "2", "--reason", "test")
		want(t, 2, "bulk-1", "token", "introspect", "-")
	})
	t.Run("the life of a client", func(t *testing.T) { clientLife(t, c) })
	t.Run("a client with a key", func(t *testing.T) { keyCommands(t, c) })
	t.Run("an operator, a viewer and an auditor", func(t *testing.T) { staffCommands(t, c) })
	t.Run("leadership and membership", func(t *testing.T) {
		actAs(t, c, "admin")
		want(t, 0, "", "transfer-leader")
		if got := want(t, 1, "", "remove", "node9"); !strings.Contains(got.stderr, "404") {
			t.Errorf("remove an unknown node: got %q, want 404", got.stderr)
		}
		if got := want(t, 1, "", "join", c.Nodes[1].Cluster, "--addr", c.Nodes[0].API); !strings.Contains(got.stderr, "409") {
			t.Errorf("join of a member: got %q, want 409", got.stderr)
		}
	})
	t.Run("a backup and its restore", func(t *testing.T) {
		actAs(t, c, "admin")
		backup := filepath.Join(t.TempDir(), "backup")
		want(t, 0, "", "snapshot", "save", backup)
		if got := want(t, 0, "", "snapshot", "inspect", backup, "-o", "json"); !strings.Contains(got.stdout, c.ClusterID) {
			t.Errorf("inspect: got %q, want cluster %s", got.stdout, c.ClusterID)
		}
		data := filepath.Join(t.TempDir(), "node")
		want(t, cli.ExitUsage, "", "snapshot", "restore", backup, "--data-dir", data, "--accept-loss")
		want(t, 0, "", "snapshot", "restore", backup, "--data-dir", data, "--node-id", "node1")
		want(t, 1, "", "snapshot", "restore", backup, "--data-dir", data, "--node-id", "node1")
		got := want(t, 0, "", "snapshot", "restore", backup, "--data-dir", data+"2", "--node-id", "node1", "--accept-loss",
			"--reason", "a drill")
		if !strings.Contains(got.stderr, "no token is revoked") || !strings.Contains(got.stderr, "a drill") {
			t.Errorf("restore that accepts the loss: got %q, want the loss and the reason", got.stderr)
		}
	})
	if err := p.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := p.wait(t); err != nil {
		t.Errorf("dev: got %v, want exit code 0; stderr: %s", err, p.stderr)
	}
}

func clientLife(t *testing.T, c devcluster.Cluster) {
	secrets := t.TempDir()
	first, second := filepath.Join(secrets, "first"), filepath.Join(secrets, "second")
	actAs(t, c, "admin")
	day := func() string { return time.Now().UTC().Format("2006-01-02") }
	created := day()
	want(t, 0, "", "client", "create", "shop", "--secret-out", first)
	if got := want(t, 1, "", "client", "create", "shop"); !strings.Contains(got.stderr, "409") {
		t.Errorf("create it again: got %q, want 409", got.stderr)
	}
	if got := want(t, 0, "", "client", "show", "shop").stdout; !strings.Contains(got, created) &&
		!strings.Contains(got, day()) {
		t.Errorf("show: got %q, want the date of creation", got)
	}
	if got := want(t, 0, "", "client", "list"); !strings.Contains(got.stdout, "shop") {
		t.Errorf("list: got %q, want the client", got.stdout)
	}
	want(t, 0, "shop-token", "token", "register", "--client", "shop", "--access-token-file", "-")
	want(t, 0, "", "client", "rotate-secret", "shop", "--secret-out", second)
	for _, secret := range []string{first, second} { // both are valid for secret_grace
		t.Setenv("REVOKED_CLIENT_SECRET", "")
		want(t, 0, "shop-token", "token", "introspect", "-", "--client-id", "shop", "--client-secret-file", secret)
	}
	actAs(t, c, "admin")
	want(t, 0, "", "client", "disable", "shop")
	want(t, 2, "shop-token", "token", "introspect", "-")
	want(t, 0, "", "client", "enable", "shop")
	want(t, 0, "shop-token", "token", "introspect", "-")
	want(t, 0, "", "client", "delete", "shop")
	want(t, 0, "", "client", "delete", "shop")
	want(t, 2, "shop-token", "token", "introspect", "-")
	if got := want(t, 1, "", "client", "show", "shop"); !strings.Contains(got.stderr, "404") {
		t.Errorf("show after delete: got %q, want 404", got.stderr)
	}
}

// keyCommands creates a client that authenticates with a key, and runs commands as this client.
func keyCommands(t *testing.T, c devcluster.Cluster) {
	dir := t.TempDir()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	write := func(name string, v any) string {
		t.Helper()
		data, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		if err := files.Write(true, files.Private(filepath.Join(dir, name), data)); err != nil {
			t.Fatal(err)
		}
		return filepath.Join(dir, name)
	}
	private := write("robot.jwk", jose.JSONWebKey{Key: key, KeyID: "k1", Algorithm: "ES256"})
	set := write("robot.jwks", jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: key.Public(), KeyID: "k1"}}})
	other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	wrong := write("other.jwk", jose.JSONWebKey{Key: other, KeyID: "k1"})
	actAs(t, c, "admin")
	want(t, 0, "", "client", "create", "robot", "--role", "admin", "--auth-method", "private_key_jwt", "--jwks", set)
	t.Setenv("REVOKED_CLIENT_SECRET", "")
	t.Setenv("REVOKED_CLIENT_ID", "robot")
	t.Setenv("REVOKED_CLIENT_JWT_KEY", private)
	want(t, 0, "robot-token", "token", "register", "--client", "app", "--access-token-file", "-")
	want(t, 0, "robot-token", "token", "introspect", "-")
	want(t, 0, "robot-token", "token", "revoke", "-")
	want(t, 2, "robot-token", "token", "introspect", "-")
	want(t, 0, "", "members")
	want(t, 0, "", "snapshot", "save", filepath.Join(dir, "robot.snap"))
	for _, n := range c.Nodes {
		want(t, 0, "", "client", "show", "robot", "--addr", n.API)
	}
	got := want(t, 1, "", "members", "--client-jwt-key", wrong)
	if !strings.Contains(got.stderr, "401") || !strings.Contains(got.stderr, "and REVOKED_CLIENT_JWT_KEY, and the jwks") {
		t.Errorf("another key: got %q, want 401 and the setting", got.stderr)
	}
	t.Setenv("REVOKED_CLIENT_JWT_KEY", "")
}

// staffCommands creates a client of each further role, and runs the commands that it may use and
// some that it may not.
func staffCommands(t *testing.T, c devcluster.Cluster) {
	dir := t.TempDir()
	actAs(t, c, "issuer")
	want(t, 0, "staff-token", "token", "register", "--client", "app", "--subject", "carol", "--access-token-file", "-")
	for _, row := range []struct {
		role             string
		allowed, refused [][]string
	}{
		{"operator", [][]string{{"members"}, {"status"}, {"settings", "get"}, {"settings", "set", "secret_grace=24h"},
			{"admit", "node9"}, {"admit", "node9", "--withdraw"}, {"admitted"}, {"join-token", "list"}, {"transfer-leader"},
			{"snapshot", "save", filepath.Join(dir, "operator.snap")}},
			[][]string{{"client", "list"}, {"client", "create", "mallory", "--role", "admin"}, {"issuer", "list"},
				{"revoke-all", "--subject", "carol"}, {"grants", "--subject", "carol"}, {"explain", "-"}}},
		{"viewer", [][]string{{"members"}, {"status"}, {"settings", "get"}, {"explain", "-"}},
			[][]string{{"settings", "set", "secret_grace=24h"}, {"admitted"}, {"transfer-leader"},
				{"snapshot", "save", filepath.Join(dir, "viewer.snap")}, {"client", "list"}}},
		{"auditor", nil, [][]string{{"members"}, {"settings", "get"}, {"explain", "-"}, {"client", "list"}}},
	} {
		actAs(t, c, "admin")
		id, secret := "a-"+row.role, filepath.Join(dir, row.role)
		want(t, 0, "", "client", "create", id, "--role", row.role, "--secret-out", secret)
		if got := want(t, 0, "", "client", "show", id).stdout; !strings.Contains(got, row.role) {
			t.Errorf("show %s: got %q, want its role", id, got)
		}
		if got := want(t, 0, "", "client", "list").stdout; !strings.Contains(got, row.role) {
			t.Errorf("list: got %q, want the role %s", got, row.role)
		}
		t.Setenv("REVOKED_CLIENT_ID", id)
		t.Setenv("REVOKED_CLIENT_SECRET", "")
		t.Setenv("REVOKED_CLIENT_SECRET_FILE", secret)
		for _, args := range row.allowed {
			if got := want(t, 0, "staff-token", args...); strings.Contains(got.stdout, "carol") {
				t.Errorf("%q by %s: got %q, want no subject", args, id, got.stdout)
			}
		}
		for _, args := range row.refused {
			if got := want(t, 1, "staff-token", args...); !strings.Contains(got.stderr, "the caller needs the role admin") {
				t.Errorf("%q by %s: got %q, want the roles that may", args, id, got.stderr)
			}
		}
		t.Setenv("REVOKED_CLIENT_SECRET_FILE", "")
	}
}

func TestBench_SmallRun_KeepsPromises(t *testing.T) {
	if testing.Short() {
		t.Skip("runs three nodes")
	}
	p := startProgram(t, "bench", "--dir", t.TempDir(), "--api-port", strconv.Itoa(freeBase(t, 3)), "-o", "json",
		"--pairs", "300", "--deny-entries", "300", "--rounds", "1", "--duration", "150ms", "--lone", "12",
		"--connections", "6", "--kills", "1", "--healthy", "1s",
		"--only", "register,introspect,beside,revoke,lone,size,deny,restart,healthy,failover,comeback,cutoff")
	out, err := p.stdout.ReadBytes('\n')
	ended := p.wait(t)
	if err != nil && strings.Contains(p.stderr.String(), "in memory") {
		t.Skip("the temporary directory is in memory")
	}
	if err != nil {
		t.Fatalf("no report: %v; stderr: %s", err, p.stderr)
	}
	if err := ended; err != nil {
		t.Fatalf("bench: got %v, want exit code 0; stderr: %s", err, p.stderr)
	}
	var r report.Report
	if err := json.Unmarshal(out, &r); err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, m := range r.Measures {
		names = append(names, m.Name)
		busy := strings.Contains(m.FirstFailure, "503") // on a busy machine, the cluster can lose its leader
		wrong := m.Failures != 0 && !busy
		if m.Name == "healthy" { // its figure is the number of failures
			wrong = wrong || m.Value > 0 && !busy
		} else {
			wrong = wrong || m.Value <= 0
		}
		if wrong {
			t.Errorf("%s: got %v with %d failures (%s), want a figure above 0 and no failure", m.Name, m.Value, m.Failures,
				m.FirstFailure)
		}
		if n, ok := m.Details["promise_broken"]; ok && n != 0.0 {
			t.Errorf("%s: got %v active answers for revoked tokens, want none", m.Name, n)
		}
		if compared := slices.Contains([]string{"introspect", "beside", "revoke"}, m.Name); compared &&
			(m.Baseline == nil || *m.Baseline <= 0) {
			t.Errorf("%s: got no baseline, want one", m.Name)
		}
	}
	if got, want := strings.Join(names, " "),
		"register introspect beside revoke lone memory disk deny restart healthy failover comeback cutoff"; got != want {
		t.Errorf("measures: got %s, want %s", got, want)
	}
}

// callNode sends a request to a node as a client, or without credentials if who is empty. In
// header, names and values alternate. callNode returns the status and the body of the answer.
func callNode(t *testing.T, c *devcluster.Cluster, n devcluster.Node, who, method, path, body string,
	header ...string,
) (status int, answer []byte) {
	t.Helper()
	tlsConfig, err := c.TLS()
	if err != nil {
		t.Fatal(err)
	}
	httpClient := &http.Client{Transport: &http.Transport{TLSClientConfig: tlsConfig}}
	defer httpClient.CloseIdleConnections()
	req, err := http.NewRequestWithContext(t.Context(), method, n.API+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if who != "" {
		req.SetBasicAuth(c.Clients[who].ClientID, c.Clients[who].ClientSecret)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := httpClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if answer, err = io.ReadAll(res.Body); err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, answer
}
