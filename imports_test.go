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

// A floor lists the imports that a package may have. Tests may import more: see testOf.
type floor struct {
	ours []string // packages of this module
	libs []string // prefixes of third-party import paths; nil: the standard library only
	any  bool     // any third-party library
}

// everywhere lists the imports that every floor above the root may have.
var everywhere = []string{
	"github.com/prometheus/client_golang/", "github.com/prometheus/client_model/", "golang.org/x/",
}

// floors is the import graph: the root below four siblings that never import each other, node above
// three of them, the program on top. api and node are on one level: api declares the interfaces
// that it needs.
var floors = map[string]floor{
	// Patches of the source for tests; no product package imports them.
	"revoked/internal/mutant":         {},
	"revoked/internal/mutant/overlay": {ours: []string{"revoked/internal/mutant"}},
	"revoked/internal/broadcast":      {},
	"revoked/internal/durable":        {},
	"revoked/internal/fair":           {},
	"revoked/internal/filewatch":      {},
	"revoked/internal/hashilog":       {ours: []string{}, libs: []string{"github.com/hashicorp/go-hclog"}},
	"revoked/internal/jointoken":      {},
	"revoked/internal/retry":          {},
	"revoked/internal/slots":          {},
	"revoked/internal/tracing": {ours: []string{}, libs: []string{
		"go.opentelemetry.io/otel/attribute", "go.opentelemetry.io/otel/codes", "go.opentelemetry.io/otel/propagation",
		"go.opentelemetry.io/otel/trace"}},
	// Attack programs; imported by tests only.
	hostile: {ours: []string{}},
	// Polling and waiting for tests; imported by tests only.
	awaits: {},
	// Signed JWTs for tests; imported by tests only.
	testJWTs: {ours: []string{"revoked"}},
	// Tests of whole clusters through the API; imported by tests only.
	scenarios:                   {},
	"revoked/internal/textsafe": {},
	"revoked":                   {},

	"revoked/fsm": {
		ours: []string{"revoked", "revoked/fsm/command", "revoked/fsm/lookup", "revoked/fsm/memory",
			"revoked/fsm/progress", "revoked/fsm/rows", "revoked/fsm/rules", "revoked/fsm/snapshot", "revoked/fsm/store"},
		libs: []string{"github.com/hashicorp/raft", "github.com/cockroachdb/pebble/v2", "google.golang.org/protobuf/"},
	},
	// The rules of Apply: no Raft, no Pebble, no clock.
	"revoked/fsm/rules": {ours: []string{"revoked", "revoked/fsm/command", "revoked/fsm/lookup", "revoked/fsm/memory",
		"revoked/fsm/rows", "revoked/fsm/store"}},
	"revoked/fsm/memory":   {ours: []string{"revoked", "revoked/fsm/rows", "revoked/fsm/store"}},
	"revoked/fsm/lookup":   {ours: []string{"revoked", "revoked/fsm/rows"}},
	"revoked/fsm/progress": {ours: []string{}},
	"revoked/fsm/command":  {ours: []string{"revoked"}, libs: []string{"google.golang.org/protobuf/"}},
	"revoked/fsm/rows": {ours: []string{"revoked", "revoked/fsm/command"},
		libs: []string{"google.golang.org/protobuf/"}},
	"revoked/fsm/snapshot": {ours: []string{"revoked", "revoked/fsm/command", "revoked/fsm/rows"},
		libs: []string{"google.golang.org/protobuf/"}},
	"revoked/fsm/store": {ours: []string{"revoked"}, libs: []string{"github.com/cockroachdb/pebble/v2"}},

	"revoked/transport/enroll": {ours: []string{"revoked", "revoked/transport/pki"}},
	"revoked/transport": {ours: []string{"revoked", "revoked/transport/enroll", "revoked/transport/frames",
		"revoked/transport/pki",
		"revoked/transport/saferaft"}, libs: []string{"github.com/hashicorp/raft"}},
	"revoked/transport/saferaft": {ours: []string{}, libs: []string{"github.com/hashicorp/raft"}},
	"revoked/transport/frames":   {ours: []string{"revoked"}},
	"revoked/transport/pki":      {ours: []string{"revoked"}},
	"revoked/cluster": {ours: []string{"revoked"},
		libs: []string{"github.com/hashicorp/memberlist", "github.com/hashicorp/go-hclog"}},
	"revoked/node/nodepb": {ours: []string{"revoked", "revoked/fsm/command"},
		libs: []string{"google.golang.org/protobuf/"}},
	"revoked/node/jwt":  {ours: []string{"revoked"}, libs: []string{"github.com/go-jose/go-jose/v4"}},
	"revoked/node/jwks": {ours: []string{"revoked", "revoked/node/jwt"}},
	"revoked/node/bearer": {ours: []string{"revoked", "revoked/internal/fair", "revoked/node/cache",
		"revoked/node/jwt"}},
	"revoked/node/certify": {ours: []string{"revoked", "revoked/fsm/command", "revoked/node/nodepb",
		"revoked/transport/enroll", "revoked/transport/pki"}},
	"revoked/node/lease":            {ours: []string{}},
	"revoked/node/lease/leasecheck": {ours: []string{}}, // imported by tests only
	"revoked/node/cache":            {ours: []string{"revoked"}, libs: []string{"github.com/dgraph-io/ristretto/v2"}},
	"revoked/node/datadir": {ours: []string{"revoked", "revoked/node/raftstore"},
		libs: []string{"github.com/hashicorp/raft"}},
	"revoked/node/recovery": {ours: []string{"revoked", "revoked/fsm", "revoked/fsm/command", "revoked/fsm/snapshot",
		"revoked/transport", "revoked/transport/pki", "revoked/node/datadir", "revoked/node/raftstore"},
		libs: []string{"github.com/hashicorp/raft"}},
	"revoked/node/liveness": {ours: []string{"revoked", "revoked/transport"},
		libs: []string{"github.com/hashicorp/raft"}},
	"revoked/node/rounds": {ours: []string{}},
	"revoked/node/propose": {ours: []string{"revoked", "revoked/fsm", "revoked/fsm/command",
		"revoked/internal/fair", "revoked/node/nodepb"},
		libs: []string{
			"github.com/hashicorp/raft", "google.golang.org/protobuf/",
		}},
	"revoked/node/raftstore": {ours: []string{"revoked", "revoked/fsm", "revoked/fsm/command"}, libs: []string{
		"github.com/hashicorp/raft", "github.com/hashicorp/raft-boltdb/v2", "go.etcd.io/bbolt",
	}},
	"revoked/node/roster": {ours: []string{"revoked", "revoked/fsm", "revoked/fsm/command", "revoked/transport",
		"revoked/transport/pki", "revoked/cluster", "revoked/node/lease", "revoked/node/nodepb", "revoked/node/propose"},
		libs: []string{
			"github.com/hashicorp/raft", "github.com/hashicorp/raft-autopilot", "google.golang.org/protobuf/",
		}},
	"revoked/node": {ours: []string{"revoked", "revoked/fsm", "revoked/fsm/command", "revoked/fsm/snapshot",
		"revoked/transport", "revoked/transport/enroll", "revoked/transport/pki", "revoked/cluster",
		"revoked/node/bearer",
		"revoked/node/cache", "revoked/node/certify", "revoked/node/datadir", "revoked/node/jwks", "revoked/node/jwt",
		"revoked/node/lease", "revoked/node/liveness",
		"revoked/node/nodepb", "revoked/node/propose", "revoked/node/raftstore", "revoked/node/roster",
		"revoked/node/rounds"}, libs: []string{
		"github.com/hashicorp/raft", "google.golang.org/protobuf/",
	}},

	"revoked/client": {}, // linked into programs of users, so the standard library only
	"revoked/api": {
		ours: []string{"revoked", "revoked/api/access", "revoked/api/clientauth", "revoked/api/console",
			"revoked/api/debug", "revoked/api/openapi", "revoked/api/profile", "revoked/api/registration",
			"revoked/api/recorder", "revoked/api/request", "revoked/api/serve", "revoked/api/stream",
			"revoked/api/strictjson", "revoked/api/tokens"},
		libs: []string{"github.com/labstack/"},
	},
	"revoked/api/tokens": {ours: []string{"revoked", "revoked/api/access", "revoked/api/clientauth",
		"revoked/api/registration", "revoked/api/request", "revoked/api/strictjson"}},
	"revoked/api/access": {ours: []string{"revoked", "revoked/api/clientauth", "revoked/api/request",
		"revoked/api/serve"}},
	"revoked/api/console": {ours: []string{"revoked", "revoked/api/access", "revoked/api/clientauth",
		"revoked/api/request"}, libs: []string{"github.com/dustin/go-humanize/english", "github.com/valyala/quicktemplate"}},
	"revoked/api/request": {ours: []string{"revoked", "revoked/api/clientauth", "revoked/api/registration",
		"revoked/api/serve", "revoked/api/strictjson"}, libs: []string{"github.com/labstack/"}},
	"revoked/api/recorder":     {ours: []string{"revoked", "revoked/api/clientauth"}},
	"revoked/api/clientauth":   {ours: []string{"revoked"}},
	"revoked/api/registration": {ours: []string{"revoked", "revoked/api/stream", "revoked/api/strictjson"}},
	"revoked/api/serve":        {ours: []string{"revoked"}},
	"revoked/api/debug":        {ours: []string{"revoked", "revoked/api/request"}},
	"revoked/api/openapi":      {ours: []string{}},
	"revoked/api/profile":      {ours: []string{"revoked", "revoked/api/request", "revoked/api/stream"}},
	"revoked/api/stream":       {ours: []string{}},
	"revoked/api/strictjson":   {ours: []string{"revoked"}},
	// Tests only.
	"revoked/api/conformance": {ours: []string{"revoked"}},

	// Simulated network and disk, for node's tests only.
	"revoked/node/internal/simkit": {ours: []string{"revoked/node/raftstore"}, any: true},
	// The test kit runs whole nodes, with their API where a test needs it.
	"revoked/node/nodetest": {ours: []string{"revoked", "revoked/api", "revoked/api/clientauth", "revoked/api/serve",
		"revoked/fsm", "revoked/fsm/command", "revoked/transport", "revoked/transport/pki", "revoked/cluster",
		"revoked/node"}, any: true},
	// Runs the built program as a black box.
	"revoked/cmd/revoked/systemtest":     {ours: []string{scenarios, hostile, "revoked/cmd/revoked/internal/devcluster"}},
	"revoked/cmd/revoked/internal/cli":   {ours: []string{}, any: true},
	"revoked/cmd/revoked/internal/files": {ours: []string{}},
	"revoked/cmd/revoked/internal/input": {ours: []string{"revoked/cmd/revoked/internal/files"}, any: true},
	"revoked/cmd/revoked/internal/call": {ours: []string{
		"revoked", "revoked/client", "revoked/cmd/revoked/internal/cli", "revoked/cmd/revoked/internal/files",
	}, any: true},
	"revoked/cmd/revoked/internal/dev": {ours: []string{
		"revoked/client", "revoked/cmd/revoked/internal/cli", "revoked/cmd/revoked/internal/config",
		"revoked/cmd/revoked/internal/devcluster", "revoked/cmd/revoked/internal/devfolder",
	}, any: true},
	"revoked/cmd/revoked/internal/config": {ours: []string{
		"revoked", "revoked/transport", "revoked/transport/pki", "revoked/cluster", "revoked/api", "revoked/api/clientauth",
		"revoked/api/serve", "revoked/node/jwt",
		"revoked/cmd/revoked/internal/backup", "revoked/cmd/revoked/internal/backup/schedule",
		"revoked/cmd/revoked/internal/files", "revoked/cmd/revoked/internal/traces",
	}, any: true},
	"revoked/cmd/revoked/internal/debug": {ours: []string{
		"revoked/client", "revoked/cmd/revoked/internal/call", "revoked/cmd/revoked/internal/cli",
		"revoked/cmd/revoked/internal/files"}, any: true},
	"revoked/cmd/revoked/internal/audit": {ours: []string{
		"revoked", "revoked/client", "revoked/cmd/revoked/internal/call", "revoked/cmd/revoked/internal/cli"}, any: true},
	"revoked/cmd/revoked/internal/rotateca": {ours: []string{
		"revoked/client", "revoked/cmd/revoked/internal/call", "revoked/cmd/revoked/internal/cli",
		"revoked/cmd/revoked/internal/files", "revoked/transport/pki"}, any: true},
	"revoked/cmd/revoked/internal/offline": {ours: []string{
		"revoked", "revoked/node/recovery", "revoked/cmd/revoked/internal/cli"}, any: true},
	// Uses the program only from outside, as its tests do.
	"revoked/cmd/revoked/internal/devcluster": {ours: []string{"revoked/client", "revoked/cmd/revoked/internal/files"}},
	"revoked/cmd/revoked/internal/devfolder": {ours: []string{
		"revoked", "revoked/transport", "revoked/transport/pki", "revoked/cluster", "revoked/api/clientauth",
		"revoked/cmd/revoked/internal/cli", "revoked/cmd/revoked/internal/config", "revoked/cmd/revoked/internal/devcluster",
		"revoked/cmd/revoked/internal/files",
	}},
	"revoked/cmd/revoked/internal/bench/plot": {},
	"revoked/cmd/revoked/internal/bench/load": {ours: []string{"revoked/cmd/revoked/internal/cli"}},
	"revoked/cmd/revoked/internal/bench/host": {ours: []string{"revoked/cmd/revoked/internal/cli"},
		libs: []string{"github.com/prometheus/procfs"}},
	"revoked/cmd/revoked/internal/bench/report": {ours: []string{
		"revoked/cmd/revoked/internal/bench/host", "revoked/cmd/revoked/internal/bench/load",
		"revoked/cmd/revoked/internal/bench/plot", "revoked/cmd/revoked/internal/cli",
	}},
	"revoked/cmd/revoked/internal/bench": {ours: []string{
		"revoked/client", "revoked/transport/pki", "revoked/cmd/revoked/internal/bench/host",
		"revoked/cmd/revoked/internal/bench/load", "revoked/cmd/revoked/internal/bench/report",
		"revoked/cmd/revoked/internal/cli", "revoked/cmd/revoked/internal/devcluster",
		"revoked/cmd/revoked/internal/devfolder",
	}, libs: []string{"google.golang.org/protobuf/encoding/protowire"}},
	"revoked/cmd/revoked/internal/auditlog": {
		ours: []string{"revoked", "revoked/api", "revoked/internal/retry"},
		libs: []string{"github.com/prometheus/client_golang/prometheus"},
	},
	"revoked/cmd/revoked/internal/traces": {
		ours: []string{"revoked/cmd/revoked/internal/files"},
		libs: []string{"go.opentelemetry.io/", "google.golang.org/protobuf/"},
	},
	"revoked/cmd/revoked/internal/backup/schedule": {ours: []string{}, libs: []string{"github.com/robfig/cron/v3"}},
	"revoked/cmd/revoked/internal/backup": {
		ours: []string{"revoked", "revoked/fsm/snapshot", "revoked/cmd/revoked/internal/backup/schedule",
			"revoked/cmd/revoked/internal/files"},
		libs: []string{"github.com/minio/minio-go/v7"},
	},
	"revoked/cmd/revoked/internal/server": {ours: []string{
		"revoked", "revoked/api", "revoked/api/serve", "revoked/node", "revoked/node/certify", "revoked/node/datadir",
		"revoked/transport/enroll",
		"revoked/transport/pki", "revoked/cmd/revoked/internal/auditlog", "revoked/cmd/revoked/internal/backup",
		"revoked/cmd/revoked/internal/backup/schedule",
		"revoked/cmd/revoked/internal/cli", "revoked/cmd/revoked/internal/config", "revoked/cmd/revoked/internal/traces",
	}, any: true},
	"revoked/cmd/revoked": {ours: []string{
		"revoked", "revoked/client", "revoked/fsm", "revoked/fsm/snapshot", "revoked/transport", "revoked/transport/pki",
		"revoked/cluster", "revoked/api", "revoked/api/clientauth", "revoked/api/serve", "revoked/node",
		"revoked/node/jwt", "revoked/node/recovery",
		"revoked/cmd/revoked/internal/cli", "revoked/cmd/revoked/internal/files", "revoked/cmd/revoked/internal/config",
		"revoked/cmd/revoked/internal/devcluster", "revoked/cmd/revoked/internal/devfolder",
		"revoked/cmd/revoked/internal/bench", "revoked/cmd/revoked/internal/bench/report",
		"revoked/cmd/revoked/internal/audit", "revoked/cmd/revoked/internal/auditlog",
		"revoked/cmd/revoked/internal/backup",
		"revoked/cmd/revoked/internal/call", "revoked/cmd/revoked/internal/debug", "revoked/cmd/revoked/internal/dev",
		"revoked/cmd/revoked/internal/rotateca",
		"revoked/cmd/revoked/internal/input",
		"revoked/cmd/revoked/internal/offline", "revoked/cmd/revoked/internal/server",
		"revoked/cmd/revoked/internal/traces",
	}, any: true},
}

// shared lists packages that import nothing else of this module. Every package but the root may
// import them.
var shared = []string{
	"revoked/internal/broadcast", "revoked/internal/durable", "revoked/internal/filewatch", "revoked/internal/hashilog",
	"revoked/internal/jointoken",
	"revoked/internal/retry", "revoked/internal/slots", "revoked/internal/textsafe",
	"revoked/internal/tracing",
}

// scenarios are tests of whole clusters. Only the tests that run them may import them.
const scenarios = "revoked/internal/scenario"

// hostile contains attack programs. Only tests may import it.
const hostile = "revoked/internal/hostile"

// awaits lets tests poll and wait. Only tests may import it.
const awaits = "revoked/internal/await"

// testJWTs signs JWTs. Only tests may import it.
const testJWTs = "revoked/internal/testjwt"

// testKit may be imported only by files named _test.go.
const testKit = "revoked/node/nodetest"

// testOf lists additional packages of this module that the tests of a package may import.
var testOf = map[string][]string{
	"revoked/api": {"revoked/fsm", "revoked/fsm/command", "revoked/node/bearer",
		"revoked/node/cache", "revoked/node/jwt", hostile},
	"revoked/api/serve":       {hostile},
	"revoked/cluster":         {hostile},
	"revoked/api/conformance": {"revoked/api", "revoked/api/clientauth", "revoked/node", testKit},
	"revoked/node": {"revoked/api", "revoked/node/internal/simkit", "revoked/node/lease/leasecheck",
		"revoked/node/recovery", scenarios, testKit},
	"revoked/node/bearer":    {"revoked/fsm", "revoked/fsm/command"},
	"revoked/node/lease":     {"revoked/node/lease/leasecheck"},
	"revoked/node/raftstore": {"revoked/fsm/command", testKit},
	"revoked/node/roster":    {"revoked/node/rounds"},
	"revoked/cmd/revoked":    {testKit},
}

type pkg struct {
	ImportPath                         string
	Imports, TestImports, XTestImports []string
}

func TestImports_EachPackage_FollowsFloors(t *testing.T) {
	for _, p := range listPackages(t) {
		f, ok := floors[p.ImportPath]
		if !ok {
			if strings.HasPrefix(p.ImportPath, "revoked/scripts/") {
				continue // tools of the repository: not part of the program
			}
			t.Errorf("%s is not in the table floors: add it", p.ImportPath)
			continue
		}
		for _, path := range p.Imports {
			if path == "html/template" || path == "text/template" {
				t.Errorf("%s imports %s, which makes the linker keep every exported method", p.ImportPath, path)
			}
			if !f.allows(path) {
				t.Errorf("%s imports %s, which its floor does not allow", p.ImportPath, path)
			}
		}
		for _, path := range slices.Concat(p.TestImports, p.XTestImports) {
			// The test checks only packages of this module here: tests may use any library.
			if ours(path) && path != p.ImportPath && path != awaits && path != testJWTs && !f.allows(path) &&
				!slices.Contains(testOf[p.ImportPath], path) {
				t.Errorf("a test of %s imports %s, which testOf does not allow", p.ImportPath, path)
			}
		}
		if slices.Contains(p.Imports, testKit) {
			t.Errorf("%s imports the test kit outside of its tests", p.ImportPath)
		}
	}
}

// The table itself must follow the design.
func TestImports_Siblings_AreIndependent(t *testing.T) {
	siblings := []string{"revoked/fsm", "revoked/transport", "revoked/cluster", "revoked/api"}
	for _, s := range siblings {
		for _, path := range floors[s].ours {
			if path != "revoked" && !strings.HasPrefix(path, s+"/") {
				t.Errorf("%s may import %s, want only the root and its own subpackages", s, path)
			}
		}
	}
	if f := floors["revoked"]; f.any || len(f.libs) > 0 || len(f.ours) > 0 {
		t.Error("the root may import more than the standard library")
	}
}

func (f floor) allows(path string) bool {
	if ours(path) {
		return slices.Contains(f.ours, path) || f.ours != nil && slices.Contains(shared, path)
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
