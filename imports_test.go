package revoked_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// A floor is what a package may import. Tests may import more: see testOf.
type floor struct {
	ours []string // packages of this module
	libs []string // prefixes of third-party import paths; nil: the standard library only
	any  bool     // any third-party library
}

// everywhere is what every floor above the root may use.
var everywhere = []string{
	"github.com/prometheus/client_golang/", "github.com/prometheus/client_model/", "golang.org/x/",
}

// floors is the import graph: the root below four siblings that never import each other, node above
// three of them, the program on top. api stands beside node: it declares the interfaces that it needs.
var floors = map[string]floor{
	switches:      {},
	"revoked":     {},
	"revoked/fsm": {ours: []string{"revoked"}, libs: []string{"github.com/hashicorp/raft", "github.com/cockroachdb/pebble/v2", "google.golang.org/protobuf/"}},
	"revoked/transport": {ours: []string{"revoked"}, libs: []string{
		"github.com/hashicorp/raft", "github.com/hashicorp/go-hclog", // Raft's transport logs through it
	}},
	"revoked/cluster": {ours: []string{"revoked"}, libs: []string{"github.com/hashicorp/memberlist"}},
	"revoked/api":     {ours: []string{"revoked"}, libs: []string{"github.com/labstack/"}},
	"revoked/node": {ours: []string{"revoked", "revoked/fsm", "revoked/transport", "revoked/cluster"}, libs: []string{
		"github.com/hashicorp/raft", "github.com/hashicorp/raft-boltdb/v2", "github.com/hashicorp/raft-autopilot",
		"github.com/hashicorp/go-hclog", "go.etcd.io/bbolt", "github.com/dgraph-io/ristretto/v2", "google.golang.org/protobuf/",
	}},
	// The test kit runs whole nodes, with their API where a test needs it.
	"revoked/node/nodetest": {ours: []string{"revoked", "revoked/api", "revoked/fsm", "revoked/transport", "revoked/cluster", "revoked/node"}, any: true},
	// Runs the built program; knows nothing of its inside.
	"revoked/cmd/revoked/systemtest": {},
	"revoked/cmd/revoked":            {ours: []string{"revoked", "revoked/fsm", "revoked/transport", "revoked/cluster", "revoked/api", "revoked/node"}, any: true},
}

// switches break the product where a build tag asks for it; in every build that ships they are constantly
// false. Every floor above the root may have one.
const switches = "revoked/internal/mutant"

// testKit may be imported by files named _test.go, and by nothing else.
const testKit = "revoked/node/nodetest"

// testOf names what the tests of a package may import of this module beside what the package itself
// may, and itself.
var testOf = map[string][]string{
	"revoked/api":         {"revoked/node", testKit},
	"revoked/node":        {"revoked/api", testKit},
	"revoked/cmd/revoked": {testKit},
}

type pkg struct {
	ImportPath                         string
	Imports, TestImports, XTestImports []string
}

func TestImports(t *testing.T) {
	for _, p := range listPackages(t) {
		f, ok := floors[p.ImportPath]
		if !ok {
			if strings.HasPrefix(p.ImportPath, "revoked/scripts/") {
				continue // tools of the repository: not part of the program
			}
			t.Errorf("%s is not in the table of imports_test.go: give it a floor", p.ImportPath)
			continue
		}
		for _, path := range p.Imports {
			if !f.allows(path) {
				t.Errorf("%s imports %s, which its floor does not", p.ImportPath, path)
			}
		}
		for _, path := range slices.Concat(p.TestImports, p.XTestImports) {
			// Libraries for tests are a matter of taste; the graph of this module is not.
			if ours(path) && path != p.ImportPath && !f.allows(path) && !slices.Contains(testOf[p.ImportPath], path) {
				t.Errorf("a test of %s imports %s, which it may not", p.ImportPath, path)
			}
		}
		if slices.Contains(p.Imports, testKit) {
			t.Errorf("%s imports the test kit outside of its tests", p.ImportPath)
		}
	}
}

// The table itself must hold what the design says, or it holds nothing.
func TestSiblingsNeverImportEachOther(t *testing.T) {
	siblings := []string{"revoked/fsm", "revoked/transport", "revoked/cluster", "revoked/api"}
	for _, s := range siblings {
		if got := floors[s].ours; !slices.Equal(got, []string{"revoked"}) {
			t.Errorf("%s may import %v of this module, want the root alone", s, got)
		}
	}
	if f := floors["revoked"]; f.any || len(f.libs) > 0 || len(f.ours) > 0 {
		t.Error("the root may import more than the standard library")
	}
}

func (f floor) allows(path string) bool {
	if ours(path) {
		return slices.Contains(f.ours, path) || path == switches && f.ours != nil
	}
	if standard(path) || f.any {
		return true
	}
	if f.ours == nil {
		return false // the root
	}
	return slices.ContainsFunc(slices.Concat(everywhere, f.libs), func(prefix string) bool {
		return path == prefix || strings.HasPrefix(path, strings.TrimSuffix(prefix, "/")+"/")
	})
}

func ours(path string) bool { return path == "revoked" || strings.HasPrefix(path, "revoked/") }

// standard reports whether path is in the standard library: its first element has no dot.
func standard(path string) bool {
	first, _, _ := strings.Cut(path, "/")
	return !strings.Contains(first, ".")
}

func listPackages(t *testing.T) []pkg {
	t.Helper()
	dec := json.NewDecoder(bytes.NewReader(runGo(t, "list", "-json=ImportPath,Imports,TestImports,XTestImports", "./...")))
	var all []pkg
	for {
		var p pkg
		err := dec.Decode(&p)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
	if len(all) == 0 {
		t.Fatal("no packages")
	}
	return all
}

func runGo(t *testing.T, args ...string) []byte {
	t.Helper()
	cmd := exec.Command("go", args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go %s: %v\n%s", strings.Join(args, " "), err, &stderr)
	}
	return out
}
