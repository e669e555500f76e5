package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// The shape of dev.json is part of the contract.
func TestDevFileShape(t *testing.T) {
	c, err := newDevCluster("/d", []string{"127.0.0.1", "127.0.0.1"}, 8443, []devClient{{ClientID: "admin", ClientSecret: "s1"}, {ClientID: "app", ClientSecret: "s2"}})
	if err != nil {
		t.Fatal(err)
	}
	c.ClusterID = "c1"
	c.Nodes[0].PID = 1234
	got, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"cluster_id":"c1","ca":"/d/ca.pem","nodes":[` +
		`{"id":"node1","api":"https://127.0.0.1:8443","cluster":"127.0.0.1:9443","gossip":"127.0.0.1:10443","pid":1234,"data":"/d/node1","config":"/d/node1.yml","log":"/d/node1.log"},` +
		`{"id":"node2","api":"https://127.0.0.1:8444","cluster":"127.0.0.1:9444","gossip":"127.0.0.1:10444","data":"/d/node2","config":"/d/node2.yml","log":"/d/node2.log"}],` +
		`"clients":{"admin":{"client_id":"admin","client_secret":"s1"},"app":{"client_id":"app","client_secret":"s2"}}}`
	if diff := cmp.Diff(want, string(got)); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// A folder whose nodes are members at other addresses is refused before anything in it changes: all at once they
// would not find each other.
func TestDevRefusesAFolderOfOtherPorts(t *testing.T) {
	dir := t.TempDir()
	layOut := func(port, nodes int) *devCluster {
		c, err := newDevCluster(dir, []string{"127.0.0.1", "127.0.0.1"}[:nodes], port, nil)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	made := layOut(20443, 2)
	if err := made.writeConfigs(); err != nil {
		t.Fatal(err)
	}
	if err := layOut(20543, 2).checkMoved(); err != nil {
		t.Errorf("nodes of no cluster yet: got %v, want them to move", err)
	}
	identity := newFile{filepath.Join(made.Nodes[1].Data, "identity.json"), []byte(`{"cluster_id":"c1"}`), privateMode}
	if err := writeFiles(false, identity); err != nil {
		t.Fatal(err)
	}
	if err := made.checkMoved(); err != nil {
		t.Errorf("the same ports: got %v", err)
	}
	if err := layOut(20543, 2).checkMoved(); err == nil || !strings.Contains(err.Error(), "node2 is a member at 127.0.0.1:21444, with its API at 127.0.0.1:20444") {
		t.Errorf("other ports: got %v, want the old ones named", err)
	}
	if err := layOut(20543, 1).checkMoved(); err != nil {
		t.Errorf("one node alone: got %v, want it to move", err)
	}
}

// Half of a CA is not answered with a new one.
func TestDevRefusesHalfACA(t *testing.T) {
	for _, lost := range []string{"ca.pem", "ca-key.pem"} {
		m := devMaterial{dir: t.TempDir()}
		if _, err := m.authority(); err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(m.path(lost)); err != nil {
			t.Fatal(err)
		}
		if _, err := m.authority(); err == nil || !strings.Contains(err.Error(), "is there without "+lost+": put that back") {
			t.Errorf("without %s: got %v, want to be told to put it back", lost, err)
		}
	}
}

func TestDevHosts(t *testing.T) {
	for _, tt := range []struct {
		name  string
		hosts []string
		n     int
		given bool
		want  string
	}{
		{"no hosts means loopback for all", nil, 2, false, "127.0.0.1 127.0.0.1"},
		{"hosts tell how many", []string{"a", " b", "::1", "d"}, 3, false, "a b ::1 d"},
		{"hosts and nodes must agree", []string{"a", "b"}, 3, true, ""},
		{"no node is too few", nil, 0, true, ""},
		{"an empty host", []string{"a", ""}, 3, false, ""},
		{"a URL is no host", []string{"https://a"}, 3, false, ""},
		{"a wildcard is no host", []string{"*.example.org"}, 1, false, ""},
		{"neither name nor address", []string{"foo!bar"}, 1, false, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := devHosts(tt.hosts, tt.n, tt.given)
			if strings.Join(got, " ") != tt.want || (err == nil) != (tt.want != "") {
				t.Errorf("got %q, %v, want %q", got, err, tt.want)
			}
		})
	}
}

func TestCurlLinesQuoteTheFolder(t *testing.T) {
	c, err := newDevCluster("/my folder", []string{"127.0.0.1"}, 8443, devRoles())
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range curlLines(c, "tok", time.Unix(1, 0)) {
		if !strings.HasPrefix(line, "curl -sS --cacert '/my folder/ca.pem' -u ") {
			t.Errorf("got %s", line)
		}
	}
}

func TestChildEnvironmentLeavesOutWhatTheFileSays(t *testing.T) {
	c, err := newDevCluster("/d", []string{"127.0.0.1"}, 8443, nil)
	if err != nil {
		t.Fatal(err)
	}
	got := childEnvironment([]string{"PATH=/bin", "REVOKED_NODE_ID=x", "REVOKED_CONFIG=y", "REVOKED_API_ADVERTISE=z", "REVOKED_LOG_LEVEL=debug"}, c.settings(0))
	if want := []string{"PATH=/bin", "REVOKED_LOG_LEVEL=debug"}; !cmp.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestShellQuote(t *testing.T) {
	for in, want := range map[string]string{"/a/b.pem": "/a/b.pem", "": "''", "a b": "'a b'", "it's": `'it'\''s'`, "$HOME": "'$HOME'"} {
		if got := shellQuote(in); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}
