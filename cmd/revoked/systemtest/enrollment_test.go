//go:build system

package systemtest

import (
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// startWithToken lays out one node more than it starts. The last node has a join token for its name
// and no certificate. The CA's key is on node1 only. create returns another token.
func startWithToken(t *testing.T) (c *cluster, m *member, create func() (id string)) {
	t.Helper()
	c = newCluster(t, 4)
	m = c.Nodes[3]
	token := filepath.Join(c.dir, "join.token")
	c.rewrite(t, c.Nodes[0], func(line string) []string {
		if strings.HasPrefix(line, "cluster_key:") {
			return []string{line, "cluster_ca_key: ca-key.pem"}
		}
		return []string{line}
	})
	for _, n := range c.Nodes {
		c.rewrite(t, n, func(line string) []string {
			switch {
			case n == m && (strings.HasPrefix(line, "cluster_ca:") || strings.HasPrefix(line, "cluster_cert:") ||
				strings.HasPrefix(line, "cluster_key:")):
				return nil
			case n == m && strings.HasPrefix(line, "bootstrap_expect:"):
				return []string{"bootstrap_expect: 0", "join_token_file: join.token"}
			case n != m && strings.HasPrefix(line, "bootstrap_expect:"):
				return []string{"bootstrap_expect: 3"}
			case n != m && strings.HasPrefix(line, "join:"):
				return []string{fmt.Sprintf("join: [%q, %q, %q]", c.Nodes[0].Cluster, c.Nodes[1].Cluster, c.Nodes[2].Cluster)}
			}
			return []string{line}
		})
	}
	for _, n := range c.Nodes[:3] {
		c.start(t, n)
	}
	c.awaitReady(t, c.Nodes[:3]...)
	return c, m, func() (id string) {
		t.Helper()
		await(t, "a join token", func() error {
			var made struct{ ID, Token string }
			a := c.send(c.Nodes[0], request{method: http.MethodPost, path: "/v1/cluster/join-tokens", as: "admin",
				json: map[string]any{"node": m.ID}})
			if err := a.want(http.StatusCreated); err != nil {
				return err
			}
			if err := json.Unmarshal(a.body, &made); err != nil {
				return err
			}
			id = made.ID
			return os.WriteFile(token, []byte("\ufeff"+made.Token+" \r\n"), 0o600)
		})
		return id
	}
}

// rewrite changes the lines of a node's settings file.
func (c *cluster) rewrite(t *testing.T, m *member, change func(line string) []string) {
	t.Helper()
	data, err := os.ReadFile(m.Config)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, line := range strings.Split(string(data), "\n") {
		out = append(out, change(line)...)
	}
	if err := os.WriteFile(m.Config, []byte(strings.Join(out, "\n")), 0o600); err != nil {
		t.Fatal(err)
	}
}

// awaitRenewal waits until the first certificate of m, which expires with its token, is replaced.
func awaitRenewal(t *testing.T, m *member) {
	t.Helper()
	await(t, "the renewal", func() error {
		if left := time.Until(certificateEnd(m)); left < 80*24*time.Hour {
			return fmt.Errorf("got a certificate for %v, want about 90 days", left)
		}
		return nil
	})
}

// certificateEnd returns the expiry of a node's certificate, zero if there is none yet.
func certificateEnd(m *member) (end time.Time) {
	data, _ := os.ReadFile(filepath.Join(m.Data, "tls", "node.crt"))
	if block, _ := pem.Decode(data); block != nil {
		if cert, err := x509.ParseCertificate(block.Bytes); err == nil {
			end = cert.NotAfter
		}
	}
	return end
}

// A node with only a join token is killed at each step of its enrollment, joins, and renews its
// certificate. Its key stays the same.
func TestEnrollment_Killed_JoinsAndRenews(t *testing.T) {
	c, m, create := startWithToken(t)
	create()
	tls := filepath.Join(m.Data, "tls")
	for _, name := range []string{"node.key", "node.crt"} { // before and after the member has signed
		c.start(t, m)
		await(t, name, func() error { _, err := os.Stat(filepath.Join(tls, name)); return err })
		m.proc.Kill()
		m.proc.exit(t)
	}
	key, err := os.ReadFile(filepath.Join(tls, "node.key"))
	if err != nil {
		t.Fatal(err)
	}
	c.start(t, m)
	c.awaitReady(t, m)
	c.awaitVoters(t, 4, c.Nodes...)
	awaitRenewal(t, m)
	if now, err := os.ReadFile(filepath.Join(tls, "node.key")); err != nil || !slices.Equal(now, key) {
		t.Errorf("got %v, same key %t, want the same", err, slices.Equal(now, key))
	}
	for _, name := range []string{"ca.crt", "node.crt", "node.key"} {
		if st, err := os.Stat(filepath.Join(tls, name)); err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("%s: got %v, want mode 0600", name, err)
		}
	}
}

// A node is killed after a member has signed its certificate and before the node has stored it. By
// then its key is durable on disk. So the node gets another certificate with the same token.
func TestEnrollment_SignedNotStored_RequestsAgain(t *testing.T) {
	needTracer(t)
	c, m, create := startWithToken(t)
	create()
	tls, trace := filepath.Join(m.Data, "tls"), filepath.Join(t.TempDir(), "trace")
	m.within = []string{"strace", "-f", "-y", "-qq", "-o", trace, "-P", m.Data,
		"-P", filepath.Join(tls, "node.crt"), "-e", "trace=fsync,renameat,renameat2",
		"-e", "inject=renameat,renameat2:error=EIO:signal=KILL"}
	c.start(t, m)
	if code := m.proc.exit(t); code != -1 {
		t.Fatalf("got exit code %d, want the process killed; log:\n%s", code, tail(m.Log, 20))
	}
	text, err := os.ReadFile(trace)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(text), "fsync(") || !strings.Contains(string(text), "<"+m.Data+">") {
		t.Errorf("got trace:\n%s\nwant a sync of %s, which contains the entry of the directory", text, m.Data)
	}
	await(t, "the use of the token", func() error {
		a := c.send(c.Nodes[0], request{method: http.MethodGet, path: "/v1/cluster/join-tokens", as: "admin"})
		if err := a.want(http.StatusOK); err != nil || strings.Contains(string(a.body), `"state":"used"`) {
			return err
		}
		return fmt.Errorf("got %s", a.body)
	})
	if !certificateEnd(m).IsZero() {
		t.Fatal("got a certificate on disk, want none")
	}
	before, err := os.ReadFile(filepath.Join(tls, "node.key"))
	if err != nil {
		t.Fatal(err)
	}
	m.within = nil
	c.start(t, m)
	c.awaitReady(t, m)
	c.awaitVoters(t, 4, c.Nodes...)
	if now, err := os.ReadFile(filepath.Join(tls, "node.key")); err != nil || !slices.Equal(now, before) {
		t.Errorf("got %v, same key %t, want the same", err, slices.Equal(now, before))
	}
}

// The first token is deleted before the node joins. Its certificate is valid, but the cluster would
// not renew it. With another token, the node gets a new one for the same key.
func TestEnrollment_AnotherToken_JoinsAndRenews(t *testing.T) {
	needTracer(t)
	c, m, create := startWithToken(t)
	id := create()
	m.within = []string{"strace", "-f", "-qq", "-o", os.DevNull, "-P", filepath.Join(m.Data, "identity.json"),
		"-e", "inject=renameat,renameat2:error=EIO:signal=KILL"} // the node joins only after this
	c.start(t, m)
	if code := m.proc.exit(t); code != -1 || certificateEnd(m).IsZero() {
		t.Fatalf("got exit code %d, certificate until %v, want the process killed with a certificate; log:\n%s",
			code, certificateEnd(m), tail(m.Log, 20))
	}
	await(t, "the deletion", func() error {
		return c.send(c.Nodes[0], request{method: http.MethodDelete, path: "/v1/cluster/join-tokens/" + id, as: "admin"}).
			want(http.StatusOK)
	})
	create()
	m.within = nil
	c.start(t, m)
	c.awaitReady(t, m)
	c.awaitVoters(t, 4, c.Nodes...)
	awaitRenewal(t, m)
}

// A deleted token is refused permanently: the process exits with code 1 and the reason.
func TestEnrollment_DeletedToken_StopsTheNode(t *testing.T) {
	c, m, create := startWithToken(t)
	id := create()
	await(t, "the deletion", func() error {
		return c.send(c.Nodes[0], request{method: http.MethodDelete, path: "/v1/cluster/join-tokens/" + id, as: "admin"}).
			want(http.StatusOK)
	})
	c.start(t, m)
	if code := m.proc.exit(t); code != 1 {
		t.Errorf("got exit code %d, want 1", code)
	}
	const want = "join token: unknown, deleted or expired: create another"
	if log := tail(m.Log, 20); !strings.Contains(log, want) {
		t.Errorf("got log %q, want %q", log, want)
	}
	if !certificateEnd(m).IsZero() {
		t.Error("got a certificate, want none")
	}
}

// A node that waits for a certificate survives SIGHUP, stops like any other, and logs the reason
// once.
func TestEnrollment_NoMemberYet_StopsCleanly(t *testing.T) {
	c, m, create := startWithToken(t)
	create()
	for _, n := range c.Nodes[:3] {
		n.proc.Kill()
		n.proc.exit(t)
	}
	c.start(t, m)
	for _, line := range []string{"cannot obtain a certificate yet", "requesting the certificate again after SIGHUP"} {
		await(t, line, func() error {
			if log := tail(m.Log, 20); !strings.Contains(log, line) {
				return fmt.Errorf("got log %q", log)
			}
			return nil
		})
		m.proc.Signal(syscall.SIGHUP)
	}
	m.proc.Signal(syscall.SIGTERM)
	if code := m.proc.exit(t); code != 0 {
		t.Errorf("got exit code %d, want 0", code)
	}
	if n := strings.Count(tail(m.Log, 100), "cannot obtain a certificate yet"); n != 1 {
		t.Errorf("got the reason %d times, want once:\n%s", n, tail(m.Log, 100))
	}
}
