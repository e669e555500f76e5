//go:build system

package systemtest

import (
	"errors"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	yaml "go.yaml.in/yaml/v3"
)

func readRepository(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(repository, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// The unit file equals the one in the manual, and systemd accepts it.
func TestUnitFile_MatchesManual(t *testing.T) {
	unit := readRepository(t, "deploy/systemd/revoked.service")
	if !strings.Contains(readRepository(t, "docs/install.md"), "```ini\n"+unit+"```") {
		t.Error("deploy/systemd/revoked.service: got a text that differs from docs/install.md")
	}
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		t.Log("systemd-analyze not found: the unit was only compared")
		return
	}
	// This machine has neither the program nor the user of the unit.
	checked := regexp.MustCompile(`(?m)^ExecStart=\S+`).ReplaceAllString(unit, "ExecStart=/bin/true")
	checked = regexp.MustCompile(`(?m)^(User|Group)=revoked$`).ReplaceAllString(checked, "$1=root")
	file := filepath.Join(realDir(t), "revoked.service")
	if err := os.WriteFile(file, []byte(checked), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("systemd-analyze", "verify", "--man=no", file).CombinedOutput()
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, "revoked.service:") {
			t.Errorf("systemd-analyze: %s", line)
		}
	}
	if err != nil {
		t.Logf("systemd-analyze: %v\n%s", err, out)
	}
}

// The alerts equal those in the manual, and a node exports every metric in them.
func TestAlerts_MatchManualAndMetrics(t *testing.T) {
	var file struct {
		Groups []struct {
			Rules []struct {
				Alert string `yaml:"alert"`
				Expr  string `yaml:"expr"`
				For   string `yaml:"for"`
			} `yaml:"rules"`
		} `yaml:"groups"`
	}
	if err := yaml.Unmarshal([]byte(readRepository(t, "deploy/prometheus/alerts.yml")), &file); err != nil {
		t.Fatal(err)
	}
	manual := readRepository(t, "docs/metrics.md")
	c := newCluster(t, 1)
	c.Nodes[0].args = []string{"--backup-schedule=1h", "--backup-dir=" + realDir(t)}
	c.startAll(t)
	c.awaitReady(t, c.Nodes...)
	for range 70 { // some series appear with the first failure
		c.send(c.Nodes[0], request{method: http.MethodPost, path: "/oauth2/revoke", form: url.Values{"token": {"x"}},
			header: http.Header{"Authorization": {"Basic YXBwOndyb25n"}}})
	}
	// Others appear with an issuer whose keys the leader fetches. Loopback is not allowed.
	made := c.send(c.Nodes[0], request{method: http.MethodPost, path: "/v1/issuers", as: "admin",
		json: map[string]any{"name": "as", "issuer": "https://as.example", "jwks_uri": "https://127.0.0.1:1/jwks"}})
	if err := made.want(http.StatusCreated); err != nil {
		t.Fatal(err)
	}
	var a answer
	await(t, "the failed fetch is reported", func() error {
		a = c.send(c.Nodes[0], request{method: http.MethodGet, path: "/metrics"})
		if err := a.want(http.StatusOK); err != nil {
			return err
		}
		if series := `revoked_issuer_fetch_failures{issuer="as"} 1`; !strings.Contains(string(a.body), series) {
			return errors.New("no " + series)
		}
		return nil
	})
	metric := regexp.MustCompile(`revoked_[a-z_]+`)
	rules := 0
	for _, g := range file.Groups {
		for _, r := range g.Rules {
			rules++
			if !strings.Contains(manual, "| `"+r.Expr+"` | "+r.For+" |") {
				t.Errorf("%s: got %s for %s, want a row in docs/metrics.md", r.Alert, r.Expr, r.For)
			}
			for _, name := range metric.FindAllString(r.Expr, -1) {
				if !strings.Contains(string(a.body), "# TYPE "+strings.TrimSuffix(name, "_bucket")+" ") {
					t.Errorf("%s: got no metric %s, want one", r.Alert, name)
				}
			}
		}
	}
	if rules < 10 {
		t.Errorf("got %d alerts, want those of docs/metrics.md, at least 10", rules)
	}
}

// A client that reads no results of a bulk registration fills temp_dir. So temp_dir must not be on
// the volume of the data.
func TestContainerFiles_KeepTempDirOffTheData(t *testing.T) {
	for name, want := range map[string]string{
		"docker-compose.yml": `tmpfs: ["/tmp:`, "deploy/kubernetes/base/nodes.yml": "{name: tmp, emptyDir:", "Dockerfile": "",
	} {
		text := readRepository(t, name)
		if !strings.Contains(text, want) {
			t.Errorf("%s: got no %q, want a separate volume at /tmp", name, want)
		}
		for _, setting := range []string{"TMPDIR", "REVOKED_TEMP_DIR"} {
			if strings.Contains(text, setting) {
				t.Errorf("%s: got %s, want the default: /tmp", name, setting)
			}
		}
	}
}

// The server has a setting for every variable in the container files.
func TestContainerFiles_SetKnownVariables(t *testing.T) {
	code, help, _ := runProgram(t, nil, "", "server", "--help")
	if code != 0 {
		t.Fatalf("server --help: got exit code %d, want 0", code)
	}
	ofClients := []string{"REVOKED_ADDR", "REVOKED_CACERT", "REVOKED_CLIENT_ID", "REVOKED_CLIENT_SECRET_FILE"}
	variable := regexp.MustCompile(`(?m)^\s+(?:- \{name: )?(REVOKED_[A-Z_]+)[:,]`)
	for name, least := range map[string]int{
		"docker-compose.yml": 10, "deploy/kubernetes/base/nodes.yml": 8, "deploy/kubernetes/cert-manager/nodes.yml": 5,
		"deploy/kubernetes/files/nodes.yml": 5, "deploy/kubernetes/five/nodes.yml": 2,
		"deploy/kubernetes/backup/backup.yml": 4,
	} {
		text := readRepository(t, name)
		dec := yaml.NewDecoder(strings.NewReader(text))
		for {
			var document map[string]any
			err := dec.Decode(&document)
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
		}
		found := variable.FindAllStringSubmatch(text, -1)
		if len(found) < least {
			t.Errorf("%s: found %d settings", name, len(found))
		}
		for _, v := range found {
			flag := "--" + strings.ToLower(strings.ReplaceAll(strings.TrimPrefix(v[1], "REVOKED_"), "_", "-")) + " "
			if !strings.Contains(help, flag) && !strings.Contains(strings.Join(ofClients, " "), v[1]) {
				t.Errorf("%s: got variable %s, want a setting of the server", name, v[1])
			}
		}
	}
}
