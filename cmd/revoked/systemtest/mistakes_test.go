//go:build system

package systemtest

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// A node with a mistake in its settings or files exits with 1 before it changes anything. Its log
// lines name the mistake, the place and the remedy.
func TestSettings_Mistakes_NodeExits(t *testing.T) {
	c := newCluster(t, 2)
	other := newCluster(t, 1)
	m := c.Nodes[0]
	good, err := os.ReadFile(m.Config)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Count(string(good), "\n")
	for _, tt := range []struct {
		name     string
		key      string // replaced or added
		value    string
		want     []string
		lastLine bool // the mistake is in the added line
	}{
		{name: "an unknown key", key: "lease_durration", value: "2s", want: []string{"lease_durration", "lease_duration"},
			lastLine: true},
		{name: "an invalid duration", key: "lease_duration", value: "soon",
			want: []string{"lease_duration", "soon", "500ms"}, lastLine: true},
		{name: "a negative duration", key: "request_timeout", value: "-5s", want: []string{"request_timeout"},
			lastLine: true},
		{name: "an invalid size", key: "cache_size", value: "much", want: []string{"cache_size", "much"}, lastLine: true},
		{name: "invalid YAML", key: "x: [", value: "", want: []string{m.Config}},
		{name: "an address without a port", key: "api_addr", value: "127.0.0.1",
			want: []string{"api_addr", "127.0.0.1", "port"}},
		{name: "a missing certificate", key: "api_cert", value: "nothing.pem",
			want: []string{"api_cert", "nothing.pem", "no such file"}},
		{name: "a key of another certificate", key: "api_key", value: "node2-api-key.pem",
			want: []string{"api_cert", "does not match"}},
		{name: "a CA file without a certificate", key: "cluster_ca", value: "gossip.key",
			want: []string{"cluster_ca", "gossip.key"}},
		{name: "the certificate of another node", key: "cluster_cert", value: "node2.pem\ncluster_key: node2-key.pem",
			want: []string{"node2", "node1"}},
		{name: "the CA of another cluster", key: "cluster_ca", value: other.CA,
			want: []string{"cluster_ca", "cluster_cert", "not valid under the CA", other.CA}},
		{name: "an invalid gossip key", key: "gossip_key_file", value: m.Config,
			want: []string{"gossip_key_file", "revoked keygen"}},
		{name: "a directory as secret file", key: "bootstrap_admin_secret_file", value: c.dir,
			want: []string{"bootstrap_admin_secret_file", c.dir, "is a directory"}, lastLine: true},
		{name: "an empty secret", key: "bootstrap_admin_secret_file", value: "/dev/null",
			want: []string{"bootstrap_admin_secret_file", "/dev/null"}, lastLine: true},
		{name: "a file as data directory", key: "data_dir", value: m.Config, want: []string{m.Config, "not a directory"}},
		{name: "an unknown log level", key: "log_level", value: "verbose", want: []string{"log_level", "verbose", "debug"},
			lastLine: true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			text := replaceKey(string(good), tt.key, tt.value)
			if err := os.WriteFile(m.Config, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			code, stdout, words := runProgram(t, nil, "", "server", "--config", m.Config)
			if code != 1 {
				t.Errorf("got exit code %d, want 1", code)
			}
			if tt.lastLine {
				tt.want = append(tt.want, fmt.Sprintf("%s:%d", m.Config, lines+1))
			}
			for _, want := range tt.want {
				if !strings.Contains(words, want) {
					t.Errorf("got output %s%s\nwant %q in it", stdout, words, want)
				}
			}
			if strings.Contains(words, "goroutine ") || strings.Contains(words, "Usage:") {
				t.Errorf("got log %s\nwant only the mistake", words)
			}
			if _, err := os.Stat(filepath.Join(m.Data, "raft.db")); err == nil {
				t.Error("got a data directory, want none")
			}
		})
	}
}

// replaceKey changes a key of a settings file, or adds it as the last line.
func replaceKey(text, key, value string) string {
	var out strings.Builder
	found := false
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, key+":") {
			line, found = key+": "+value+"\n", true
		}
		out.WriteString(line)
	}
	if !found {
		fmt.Fprintf(&out, "%s: %s\n", key, value)
	}
	return out.String()
}

// Mistakes of an operator with running nodes do not change the cluster.
func TestCluster_Mistakes_ChangeNothing(t *testing.T) {
	c := newCluster(t, 4)
	stranger := c.Nodes[3] // has the same CA but is in another cluster
	c.rewriteConfig(t, stranger, "bootstrap_expect: 1")
	three := c.Nodes[:3]
	for _, m := range three {
		var join []string
		for _, o := range three {
			join = append(join, `"`+o.Cluster+`"`)
		}
		c.rewriteConfig(t, m, "bootstrap_expect: 3", "join: ["+strings.Join(join, ", ")+"]")
	}
	c.startAll(t)
	c.awaitReady(t, c.Nodes...)
	c.mustRegister(t, three[0], "g-live", "alice", "at-live", "rt-live")
	c.mustRegister(t, three[0], "g-dead", "alice", "at-dead", "rt-dead")
	c.mustRevoke(t, three[1], "rt-dead")
	intact := func(t *testing.T) {
		t.Helper()
		c.awaitReady(t, three...)
		c.wantActive(t, "at-live", true, three...)
		c.wantActive(t, "at-dead", false, three...)
	}

	t.Run("a second process on a data directory", func(t *testing.T) {
		free := freePorts(t, 1)
		at := func(offset int) string { return net.JoinHostPort("127.0.0.1", fmt.Sprint(free+offset)) }
		code, _, words := runProgram(t, nil, "", "server", "--config", three[0].Config, "--api-addr", at(0),
			"--cluster-addr", at(1000), "--gossip-addr", at(2000))
		if code != 1 || !strings.Contains(words, three[0].Data+" is in use by another process") {
			t.Errorf("got exit code %d and %q, want 1 and the directory in use", code, words)
		}
		intact(t)
	})
	t.Run("a member joins another cluster", func(t *testing.T) {
		code, _, words := runProgram(t, c.tool("admin", stranger), "", "join", three[0].Cluster)
		if code != 1 || !strings.Contains(words, "member of a cluster") {
			t.Errorf("got exit code %d and %q, want 1 and a refusal of a member", code, words)
		}
		intact(t)
	})
	t.Run("data of one cluster, settings of another", func(t *testing.T) {
		stop(t, stranger)
		c.rewriteConfig(t, stranger, fmt.Sprintf("join: [%q]", three[0].Cluster))
		before := clusterID(t, c, three[0])
		c.start(t, stranger)
		c.awaitReady(t, stranger) // it is still in its own cluster
		if id := clusterID(t, c, stranger); id == before {
			t.Errorf("got cluster %s, want the previous one", id)
		}
		stop(t, stranger)
		intact(t)
	})
	t.Run("another gossip key", func(t *testing.T) {
		m := three[1]
		stop(t, m)
		code, key, words := runProgram(t, nil, "", "keygen")
		if code != 0 {
			t.Fatal(words)
		}
		name := filepath.Join(c.dir, "other.key")
		if err := os.WriteFile(name, []byte(key), 0o600); err != nil {
			t.Fatal(err)
		}
		m.args = []string{"--gossip-key-file", name}
		c.start(t, m)
		intact(t) // answers do not depend on gossip
		c.mustRevoke(t, m, "revoked-without-gossip")
		await(t, "a line about the key", func() error {
			if text := tail(m.Log, 1000) + tail(three[0].Log, 1000); !strings.Contains(text,
				"a node with another gossip key sends messages to this node") {
				return fmt.Errorf("got %s", text)
			}
			return nil
		})
		stop(t, m)
		m.args = nil
		c.start(t, m)
		intact(t)
	})
	t.Run("a certificate of another CA", func(t *testing.T) {
		// With the other CA as well the node is consistent in itself, but the others do not trust it.
		other, m := newCluster(t, 2), three[1]
		stop(t, m)
		at := func(name string) string { return filepath.Join(other.dir, name) }
		m.args = []string{"--cluster-ca", other.CA, "--cluster-cert", at("node2.pem"), "--cluster-key", at("node2-key.pem")}
		c.start(t, m)
		await(t, "a line about the certificate", func() error {
			if text := tail(m.Log, 1000) + tail(three[0].Log, 1000); !strings.Contains(text,
				"certificate signed by unknown authority") {
				return fmt.Errorf("got %s", text)
			}
			return nil
		})
		c.awaitReady(t, three[0], three[2])
		if a := c.introspect(m, "app", "at-live"); a.status != http.StatusServiceUnavailable {
			t.Errorf("untrusted node: got %d %s, want 503", a.status, a.body)
		}
		stop(t, m)
		m.args = nil
		c.start(t, m)
		intact(t)
	})
	c.checkAgreement(t, three...)
}

// stop shuts a node down cleanly.
func stop(t testing.TB, m *member) {
	t.Helper()
	m.proc.Signal(syscall.SIGTERM)
	if code := m.proc.exit(t); code != 0 {
		t.Fatalf("%s: got exit code %d after SIGTERM, want 0; end of its log:\n%s", m.ID, code, tail(m.Log, 10))
	}
}

func clusterID(t testing.TB, c *cluster, m *member) (id string) {
	t.Helper()
	await(t, "the status of "+m.ID, func() error {
		s, err := c.status(m)
		id = s.ClusterID
		return err
	})
	return id
}
