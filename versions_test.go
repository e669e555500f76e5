package revoked_test

import (
	"strings"
	"testing"
)

// pins are the modules whose versions were chosen together. `go get -u` would break the set.
var pins = []struct{ module, version, why string }{
	{"github.com/hashicorp/go-metrics", "v0.6.1",
		"0.7.0 dropped the package compat that raft-boltdb/v2 v2.3.1 imports, and raft-boltdb has no newer version"},
	{"github.com/hashicorp/raft", "v1.7.3",
		"1.8.0 needs go-metrics 0.7.0; the wrappers in transport and node were written against 1.7.3 and must be reviewed for any other version"},
	{"github.com/hashicorp/memberlist", "v0.6.0",
		"0.7.0 needs go-metrics 0.7.0; 0.6.0 is the first that bounds remote state and has no data race in the keyring"},
	{"github.com/hashicorp/raft-boltdb/v2", "v2.3.1",
		"the newest version; it requires bbolt 1.3.5, so bbolt is pinned here as well"},
	{"github.com/hashicorp/raft-autopilot", "v0.3.0", "node wraps its removal of servers"},
	{"go.etcd.io/bbolt", "v1.5.0", "fixes since 1.3.5: rollback panics, a protected meta page, power loss"},
	{"github.com/cockroachdb/pebble/v2", "v2.1.7", "the format of the durable store"},
	{"github.com/dgraph-io/ristretto/v2", "v2.4.2", "the unversioned path ends at 0.2.0 and v1 is retracted"},
	{"github.com/labstack/echo/v4", "v4.16.0", "the newest version of v4"},
}

func TestVersions_Pins_AreUsed(t *testing.T) {
	args := []string{"list", "-m", "-f", "{{.Path}} {{with .Replace}}replaced by {{.Path}}{{else}}{{.Version}}{{end}}"}
	for _, p := range pins {
		args = append(args, p.module)
	}
	got := map[string]string{}
	for line := range strings.Lines(string(runGo(t, args...))) {
		module, version, _ := strings.Cut(strings.TrimSpace(line), " ")
		got[module] = version
	}
	for _, p := range pins {
		if got[p.module] != p.version {
			t.Errorf("%s: got %s, want %s: %s", p.module, got[p.module], p.version, p.why)
		}
	}
}
