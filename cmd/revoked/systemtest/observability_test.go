//go:build system

package systemtest

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	yaml "go.yaml.in/yaml/v3"
)

// promtool runs promtool on a file, in the directory of the file.
func promtool(t *testing.T, file string, args ...string) {
	t.Helper()
	cmd := exec.Command("promtool", append(args, filepath.Base(file))...)
	cmd.Dir = filepath.Dir(file)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("promtool %s %s: %v\n%s", strings.Join(args, " "), file, err, out)
	}
}

// Each alert fires in the case of its unit test, and does not fire before. Its runbook is a section
// of the manual.
func TestAlerts_UnitTests_Pass(t *testing.T) {
	need(t, "promtool")
	var rules struct {
		Groups []struct {
			Rules []struct {
				Alert       string            `yaml:"alert"`
				Annotations map[string]string `yaml:"annotations"`
			} `yaml:"rules"`
		} `yaml:"groups"`
	}
	if err := yaml.Unmarshal([]byte(readRepository(t, "deploy/prometheus/alerts.yml")), &rules); err != nil {
		t.Fatal(err)
	}
	tests := readRepository(t, "deploy/prometheus/alerts_test.yml")
	headings := regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllStringSubmatch(readRepository(t, "docs/operate.md"), -1)
	for _, r := range rules.Groups[0].Rules {
		firing := regexp.MustCompile(regexp.QuoteMeta(r.Alert) + `",alertstate="firing"\}\)', eval_time: \w+, exp_samples: \[\{`)
		if !firing.MatchString(tests) {
			t.Errorf("%s: got no unit test in which it fires, want one", r.Alert)
		}
		anchor, ok := strings.CutPrefix(r.Annotations["runbook"], "docs/operate.md#")
		if !ok || !slices.ContainsFunc(headings, func(h []string) bool {
			return strings.ReplaceAll(strings.ToLower(h[1]), " ", "-") == anchor
		}) {
			t.Errorf("%s: got runbook %q, want a section of docs/operate.md", r.Alert, r.Annotations["runbook"])
		}
	}
	promtool(t, filepath.Join(repository, "deploy/prometheus/alerts.yml"), "check", "rules")
	promtool(t, filepath.Join(repository, "deploy/prometheus/alerts_test.yml"), "test", "rules")
}

// A panel is a panel of a dashboard. Rows have no queries.
type panel struct {
	Title, Description, Type string
	Targets                  []struct{ Expr string }
}

// readPanels returns, by dashboard and title, the panels that have queries.
func readPanels(t *testing.T) map[string]panel {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(repository, "deploy/grafana/*.json"))
	if err != nil || len(files) == 0 {
		t.Fatalf("got %d dashboards, %v", len(files), err)
	}
	panels := map[string]panel{}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var board struct{ Panels []panel }
		if err := json.Unmarshal(data, &board); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		for _, p := range board.Panels {
			name := filepath.Base(file) + ": " + p.Title
			if _, twice := panels[name]; twice || p.Type != "row" && (p.Description == "" || len(p.Targets) == 0) {
				t.Errorf("%s: want one panel of this name, with a description and a query", name)
			}
			if p.Type != "row" {
				panels[name] = p
			}
		}
	}
	return panels
}

// A ruleTest is the part of a unit test of promtool that this file needs.
type ruleTest struct {
	Interval    string     `yaml:"interval"`
	InputSeries []series   `yaml:"input_series"`
	Expressions []exprTest `yaml:"promql_expr_test"`
}

type series struct {
	Series string `yaml:"series"`
	Values string `yaml:"values"`
}

type exprTest struct {
	Expr     string   `yaml:"expr"`
	EvalTime string   `yaml:"eval_time"`
	Samples  []sample `yaml:"exp_samples"`
}

type sample struct {
	Labels string  `yaml:"labels"`
	Value  float64 `yaml:"value"`
}

// Each query of each panel is valid PromQL. It has a result for the series that the nodes of a
// cluster under load export. So every metric and label that a panel names exists.
func TestDashboards_EachPanel_HasData(t *testing.T) {
	need(t, "promtool")
	test := ruleTest{Interval: "15s"}
	for name, p := range readPanels(t) {
		for _, target := range p.Targets {
			if !strings.Contains(target.Expr, `{job="$job",instance=~"$instance"`) {
				t.Errorf("%s: got %s, want it to select job and instance", name, target.Expr)
			}
			expr := strings.NewReplacer("$__rate_interval", "1m", "$job", "revoked", "$instance", ".+").Replace(target.Expr)
			test.Expressions = append(test.Expressions, exprTest{Expr: "count(count(" + expr + "))", EvalTime: "10m",
				Samples: []sample{{Labels: "{}", Value: 1}}})
		}
	}
	c := startCluster(t, 3)
	c.load(t)
	names := map[string]bool{}
	for _, m := range c.Nodes {
		a := c.send(m, request{method: http.MethodGet, path: "/metrics"})
		if err := a.want(http.StatusOK); err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(a.body)) {
			at := strings.LastIndexByte(line, ' ')
			if at < 0 || strings.HasPrefix(line, "#") {
				continue
			}
			name, labels, _ := strings.Cut(strings.TrimSuffix(line[:at], "}"), "{")
			if labels != "" {
				labels += ","
			}
			names[name] = true
			test.InputSeries = append(test.InputSeries, series{Values: "1+1x40",
				Series: fmt.Sprintf(`%s{%sjob="revoked",instance=%q}`, name, labels, m.ID)})
		}
	}
	metric := regexp.MustCompile(`\b([a-z_A-Z]+)\{`)
	for name, p := range readPanels(t) {
		for _, target := range p.Targets {
			for _, used := range metric.FindAllStringSubmatch(target.Expr, -1) {
				if !names[used[1]] {
					t.Errorf("%s: no node exports %s", name, used[1])
				}
			}
		}
	}
	if len(test.Expressions) < 40 || len(test.InputSeries) < 1000 {
		t.Fatalf("got %d queries and %d series, want those of two dashboards and three nodes",
			len(test.Expressions), len(test.InputSeries))
	}
	data, err := yaml.Marshal(map[string]any{"tests": []ruleTest{test}, "evaluation_interval": "15s"})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "panels.yml")
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	promtool(t, file, "test", "rules")
}

// load makes the cluster do everything that has its own series. It returns when the leader has
// reported a failed fetch of keys, which comes last.
func (c *cluster) load(t *testing.T) {
	t.Helper()
	gateway := http.Header{"Authorization": {"Bearer at-1"}}
	for i, m := range c.Nodes {
		access := fmt.Sprint("at-", i)
		c.mustRegister(t, m, fmt.Sprint("g-", i), "alice", access, fmt.Sprint("rt-", i))
		c.wantActive(t, access, true, c.Nodes...)
		c.send(m, request{method: http.MethodGet, path: "/v1/check", header: gateway})
		c.send(m, request{method: http.MethodPost, path: "/oauth2/revoke", form: url.Values{"token": {"x"}},
			header: http.Header{"Authorization": {"Basic YXBwOndyb25n"}}})
		c.introspect(m, "resource_server", "unknown")
		c.mustRevoke(t, m, access)
		c.wantActive(t, access, false, c.Nodes...)
	}
	made := c.send(c.Nodes[0], request{method: http.MethodPost, path: "/v1/issuers", as: "admin",
		json: map[string]any{"name": "as", "issuer": "https://as.example", "jwks_uri": "https://127.0.0.1:1/jwks"}})
	if err := made.want(http.StatusCreated); err != nil {
		t.Fatal(err)
	}
	await(t, "the report of the failed fetch", func() error {
		a := c.send(c.leader(t), request{method: http.MethodGet, path: "/metrics"})
		if err := a.want(http.StatusOK); err != nil {
			return err
		}
		if series := `revoked_issuer_fetch_failures{issuer="as"}`; !strings.Contains(string(a.body), series) {
			return errors.New("no " + series)
		}
		return nil
	})
}
