//go:build system

package systemtest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// recipe returns the blocks of certificates.md with a mark, joined.
func recipe(t *testing.T, mark string) string {
	t.Helper()
	blocks := regexp.MustCompile("(?ms)^<!-- test: "+regexp.QuoteMeta(mark)+" -->\n```[a-z]+\n(.*?)^```$").
		FindAllStringSubmatch(readRepository(t, "docs/certificates.md"), -1)
	if len(blocks) == 0 {
		t.Fatalf("docs/certificates.md: got no block %q", mark)
	}
	var out strings.Builder
	for _, b := range blocks {
		out.WriteString(b[1])
	}
	return out.String()
}

// runRecipe runs commands in a directory, as a reader would paste them.
func runRecipe(t *testing.T, dir string, env []string, commands string) {
	t.Helper()
	sh := startProcess(t, "", func(c *exec.Cmd) {
		c.Dir, c.Env = dir, append(c.Env, env...)
	}, "bash", "-ec", commands)
	if code := sh.exit(t); code != 0 {
		t.Fatalf("got exit code %d, want 0:\n%s\noutput:\n%s", code, commands, sh.out.String())
	}
}

// checkRecipe runs the program's check on the files of a recipe. As node 1, it must accept them
// without a warning. As node 2, it must refuse them.
func checkRecipe(t *testing.T, dir string) {
	t.Helper()
	runRecipe(t, dir, nil, "revoked keygen --force -f gossip.key")
	settings := `node_id: %s
api_advertise: node1.example.org:8443
cluster_advertise: node1.example.org:7443
issuer: https://revoked.example.org
data_dir: data
join: [node2.example.org:7443]
api_cert: api.pem
api_key: api-key.pem
cluster_ca: ca.pem
cluster_cert: node.pem
cluster_key: node-key.pem
gossip_key_file: gossip.key
`
	for _, id := range []string{"node1", "node2"} {
		file := filepath.Join(dir, id+".yml")
		if err := os.WriteFile(file, fmt.Appendf(nil, settings, id), 0o600); err != nil {
			t.Fatal(err)
		}
		code, out, messages := runProgram(t, nil, "", "server", "--config", file, "--check-config")
		switch {
		case id == "node1" && (code != 0 || messages != ""):
			t.Errorf("%s: got exit code %d, want 0 and no warning: %s%s", id, code, out, messages)
		case id == "node2" && !strings.Contains(messages, "node1"):
			t.Errorf("%s with the files of node1: got exit code %d and %q, want node1 in the error", id, code, messages)
		}
	}
}

// The recipe for openssl makes files that the program accepts.
func TestCertificates_OpenSSL_Accepted(t *testing.T) {
	need(t, "openssl")
	dir := t.TempDir()
	runRecipe(t, dir, nil, recipe(t, "openssl"))
	checkRecipe(t, dir)
}

// The recipe has only fields of cert-manager's API. It requests the certificate of node 1.
func TestCertificates_CertManager_NamesNode(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"kustomization.yml": "resources: [node1.yml]\n", "node1.yml": recipe(t, "cert-manager"),
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	objects, err := build(t, dir)
	if err != nil {
		t.Fatal(err)
	}
	c := find(t, objects, "Certificate", "node1")
	for member, want := range map[string]string{
		"uris": "[revoked://node/node1]", "usages": "[digital signature server auth client auth]",
	} {
		if got := c.text("spec", member); got != want {
			t.Errorf("%s: got %s, want %s", member, got, want)
		}
	}
}

// step-ca issues the files of the recipe to a node that has only tokens. The test replaces host and
// port of the recipe.
func TestCertificates_StepCA_Accepted(t *testing.T) {
	for _, name := range []string{"step", "step-ca"} {
		if _, err := exec.LookPath(name); err != nil {
			t.Logf("NOT RUN: %s is not installed; TestCertificates_OpenSSL_Accepted checks the same names", name)
			return
		}
	}
	dir := t.TempDir()
	address := fmt.Sprintf("127.0.0.1:%d", freePorts(t, 1))
	own := strings.NewReplacer("ca.example.org:9000", address, "ca.example.org", "127.0.0.1", ":9000", address)
	env := []string{"STEPPATH=" + filepath.Join(dir, "step")}
	if err := os.WriteFile(filepath.Join(dir, "password"), []byte("a password of a test"), 0o600); err != nil {
		t.Fatal(err)
	}
	runRecipe(t, dir, env, own.Replace(recipe(t, "step")))
	server := startProcess(t, "", func(c *exec.Cmd) {
		c.Dir, c.Env = dir, append(c.Env, env...)
	}, "bash", "-ec", "exec "+recipe(t, "step server"))
	await(t, "step-ca", func() error {
		if !server.Running() {
			t.Fatalf("step-ca exited: %s", server.out.String())
		}
		_, err := tool(t, append(cleanEnvironment(), env...), "step", "ca", "health")
		return err
	})
	runRecipe(t, dir, env, own.Replace(recipe(t, "step node")))
	checkRecipe(t, dir)
	env = append(env, "STEP_CA_URL=https://"+address, "STEP_ROOT=ca.pem")
	runRecipe(t, dir, env, "step ca renew --force node.pem node-key.pem && step ca renew --force api.pem api-key.pem")
	checkRecipe(t, dir)
}
