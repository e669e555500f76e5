package devfolder

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"revoked/cmd/revoked/internal/devcluster"
	"revoked/cmd/revoked/internal/files"
)

// The shape of dev.json is part of the contract.
func TestLayout_DevFile_HasShapeOfContract(t *testing.T) {
	c := Folder{Dir: "/d", Hosts: []string{"127.0.0.1", "127.0.0.1"}, APIPort: 8443}.layout()
	c.Clients["admin"] = devcluster.Credential{ClientID: "admin", ClientSecret: "s1"}
	c.Clients["app"] = devcluster.Credential{ClientID: "app", ClientSecret: "s2"}
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

// Members that all move at the same time would not find each other.
func TestCheckMoved_MembersAtOtherPorts_AreRefused(t *testing.T) {
	dir := t.TempDir()
	hosts := []string{"127.0.0.1", "127.0.0.1"}
	check := func(port, nodes int) error {
		f := Folder{Dir: dir, Hosts: hosts[:nodes], APIPort: port}
		return f.checkMoved(f.layout().Nodes)
	}
	made := Folder{Dir: dir, Hosts: hosts, APIPort: 20443}.layout()
	if err := writeConfigs(made.Nodes); err != nil {
		t.Fatal(err)
	}
	if err := check(20543, 2); err != nil {
		t.Errorf("nodes that are not members: got %v, want no error", err)
	}
	identity := files.Private(filepath.Join(made.Nodes[1].Data, "identity.json"), []byte(`{"cluster_id":"c1"}`))
	if err := files.Write(false, identity); err != nil {
		t.Fatal(err)
	}
	if err := check(20443, 2); err != nil {
		t.Errorf("the same ports: got %v", err)
	}
	if err := check(20543, 2); err == nil || !strings.Contains(err.Error(),
		"node2 is a member at 127.0.0.1:21444, with its API at 127.0.0.1:20444") {
		t.Errorf("other ports: got %v, want an error with the old ones", err)
	}
	if err := check(20543, 1); err != nil {
		t.Errorf("a single node: got %v, want no error", err)
	}
}

func TestFolder_MissingCAFile_IsRefused(t *testing.T) {
	for _, lost := range []string{"ca.pem", "ca-key.pem"} {
		m := Folder{Dir: t.TempDir()}
		if _, err := m.ca(); err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(m.path(lost)); err != nil {
			t.Fatal(err)
		}
		if _, err := m.ca(); err == nil || !strings.Contains(err.Error(), "exists without "+lost+": restore the") {
			t.Errorf("without %s: got %v, want an error with the missing file", lost, err)
		}
	}
}

func TestHosts_Flags_AreCheckedOrDefaulted(t *testing.T) {
	for _, tt := range []struct {
		name  string
		hosts []string
		n     int
		given bool
		want  string
	}{
		{"no hosts means loopback for all", nil, 2, false, "127.0.0.1 127.0.0.1"},
		{"hosts without nodes", []string{"a", " b", "::1", "d"}, 3, false, "a b ::1 d"},
		{"hosts and nodes must agree", []string{"a", "b"}, 3, true, ""},
		{"no node", nil, 0, true, ""},
		{"an empty host", []string{"a", ""}, 3, false, ""},
		{"a URL", []string{"https://a"}, 3, false, ""},
		{"a wildcard", []string{"*.example.org"}, 1, false, ""},
		{"neither name nor address", []string{"foo!bar"}, 1, false, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Hosts(tt.hosts, tt.n, tt.given)
			if strings.Join(got, " ") != tt.want || (err == nil) != (tt.want != "") {
				t.Errorf("got %q, %v, want %q", got, err, tt.want)
			}
		})
	}
}

func TestEnvironment_DropsSettingsOfTheFile(t *testing.T) {
	got := Environment([]string{"PATH=/bin", "REVOKED_NODE_ID=x", "REVOKED_CONFIG=y", "REVOKED_API_ADVERTISE=z",
		"REVOKED_LOG_LEVEL=debug"})
	if want := []string{"PATH=/bin", "REVOKED_LOG_LEVEL=debug"}; !cmp.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestAddNode_MoreNodes_KeepFilesOfOthers(t *testing.T) {
	dir := t.TempDir()
	f := func(n int) Folder {
		return Folder{Dir: dir, Hosts: slices.Repeat([]string{"127.0.0.1"}, n), APIPort: 20443}
	}
	if _, err := f(2).Prepare(); err != nil {
		t.Fatal(err)
	}
	read := func(name string) string {
		t.Helper()
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	names := []string{"ca.pem", "node1.yml", "node2.yml", "node1.pem", "node1-api.pem", "gossip.key", "clients.json"}
	before := map[string]string{}
	for _, name := range names {
		before[name] = read(name)
	}
	for n, join := range map[int][]string{3: {"127.0.0.1:21443"}, 4: nil} {
		got, err := f(n).AddNode(join)
		if err != nil || got.ID != nodeName(n-1) {
			t.Fatalf("node %d: got %+v, %v", n, got, err)
		}
		text := read(got.ID + ".yml")
		list, err := json.Marshal(slices.Concat([]string{}, join))
		if err != nil {
			t.Fatal(err)
		}
		wants := []string{"bootstrap_expect: 0\n", "join: " + string(list) + "\n", "node_id: \"" + got.ID + "\"\n"}
		for _, want := range wants {
			if !strings.Contains(text, want) {
				t.Errorf("settings of node %d: got\n%swant %q", n, text, want)
			}
		}
		read(got.ID + ".pem")
	}
	for _, name := range names {
		if read(name) != before[name] {
			t.Errorf("%s: got other content, want it unchanged", name)
		}
	}
}
