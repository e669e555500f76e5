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

// The unit file is the one that the manual shows, and systemd takes it.
func TestUnitIsThatOfTheManual(t *testing.T) {
	unit := readRepository(t, "deploy/systemd/revoked.service")
	if !strings.Contains(readRepository(t, "docs/install.md"), "```ini\n"+unit+"```") {
		t.Error("deploy/systemd/revoked.service and docs/install.md differ")
	}
	if _, err := exec.LookPath("systemd-analyze"); err != nil {
		t.Log("no systemd-analyze on this machine: the unit was only compared")
		return
	}
	// The program is not installed where the unit names it, and its user is not there.
	checked := regexp.MustCompile(`(?m)^ExecStart=\S+`).ReplaceAllString(unit, "ExecStart=/bin/true")
	checked = regexp.MustCompile(`(?m)^(User|Group)=revoked$`).ReplaceAllString(checked, "$1=root")
	file := filepath.Join(realFolder(t), "revoked.service")
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

// The alerts are those of the manual, and every number in them is one that a node tells.
func TestAlertsAreThoseOfTheManual(t *testing.T) {
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
	c := startCluster(t, 1)
	for range 70 { // some numbers begin with the first failure
		c.send(c.Nodes[0], request{method: http.MethodPost, path: "/oauth2/revoke", form: url.Values{"token": {"x"}},
			header: http.Header{"Authorization": {"Basic YXBwOndyb25n"}}})
	}
	a := c.send(c.Nodes[0], request{method: http.MethodGet, path: "/metrics"})
	if err := a.want(http.StatusOK); err != nil {
		t.Fatal(err)
	}
	number := regexp.MustCompile(`revoked_[a-z_]+`)
	rules := 0
	for _, g := range file.Groups {
		for _, r := range g.Rules {
			rules++
			if !strings.Contains(manual, "| `"+r.Expr+"` | "+r.For+" |") {
				t.Errorf("%s: docs/metrics.md has no such row: %s for %s", r.Alert, r.Expr, r.For)
			}
			for _, name := range number.FindAllString(r.Expr, -1) {
				if !strings.Contains(string(a.body), "# TYPE "+strings.TrimSuffix(name, "_bucket")+" ") {
					t.Errorf("%s: a node tells no %s", r.Alert, name)
				}
			}
		}
	}
	if rules < 10 {
		t.Errorf("got %d alerts, want those of docs/metrics.md", rules)
	}
}

// Every variable in the files for containers is a setting that the server knows.
func TestContainersSetWhatThereIs(t *testing.T) {
	code, help, _ := runProgram(t, nil, "", "server", "--help")
	if code != 0 {
		t.Fatalf("server --help: exit code %d", code)
	}
	ofClients := []string{"REVOKED_ADDR", "REVOKED_CACERT", "REVOKED_CLIENT_ID", "REVOKED_CLIENT_SECRET_FILE"}
	variable := regexp.MustCompile(`(?m)^\s+(?:- \{name: )?(REVOKED_[A-Z_]+)[:,]`)
	for _, name := range []string{"docker-compose.yml", "deploy/kubernetes/revoked.yml"} {
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
		if len(found) < 10 {
			t.Errorf("%s: found %d settings", name, len(found))
		}
		for _, v := range found {
			flag := "--" + strings.ToLower(strings.ReplaceAll(strings.TrimPrefix(v[1], "REVOKED_"), "_", "-")) + " "
			if !strings.Contains(help, flag) && !strings.Contains(strings.Join(ofClients, " "), v[1]) {
				t.Errorf("%s sets %s, which the server does not know", name, v[1])
			}
		}
	}
}
