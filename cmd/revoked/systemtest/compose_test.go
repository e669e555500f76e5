//go:build system

package systemtest

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	yaml "go.yaml.in/yaml/v3"
)

// hasCompose reports whether this machine can run the stack. If not, it logs which other tests
// cover the same behavior.
func hasCompose(t *testing.T) bool {
	t.Helper()
	missing := ""
	if exec.Command("docker", "version").Run() != nil {
		missing = "no Docker engine answers"
	} else if _, err := exec.LookPath(composeCommand()[0]); err != nil {
		missing = "no compose tool"
	}
	if missing == "" {
		return true
	}
	t.Logf("NOT RUN: %s. TestComposeFiles_GrantLeastPrivilege checks the files, TestNetworkPartitions_MajorityContinues "+
		"has the same faults, TestInstallPage_FiveNodes_PasteWorks the same five nodes", missing)
	return false
}

// mostImage is the size limit of the image, in bytes.
const mostImage = 30_000_000

// In the profile of five nodes in three regions, the first three nodes admit the others and all
// become healthy. A revocation in one region is effective in all regions. Then two nodes leave, as
// the file explains.
func TestComposeStack_FiveNodes_GrowAndShrink(t *testing.T) {
	if !hasCompose(t) {
		return
	}
	s := startStack(t, 5, "--profile", "five")
	size := s.imageSize(t)
	t.Logf("the image has %.1f MB", float64(size)/1e6)
	if size > mostImage {
		t.Errorf("image: got %d bytes, want at most %d", size, mostImage)
	}
	s.awaitAnswering(t, s.Nodes...)
	await(t, "five voters in three regions", func() error {
		out := s.mustDocker(t, "exec", s.container(t, "node1"), "revoked", "status")
		if !strings.Contains(out, "ap 1 of 1 up, eu 2 of 2 up, us 2 of 2 up; whole regions that may fail: 1") {
			return errors.New(out)
		}
		return nil
	})
	s.mustRegister(t, s.Nodes[3], "g-1", "alice", "access-1", "refresh-1")
	s.wantActive(t, "access-1", true, s.Nodes...)
	s.mustRevoke(t, s.Nodes[4], "refresh-1")
	s.wantActive(t, "access-1", false, s.Nodes...)
	s.mustCompose(t, "up", "-d") // the nodes are members already
	for _, id := range []string{"node5", "node4"} {
		s.mustDocker(t, "exec", s.container(t, id), "revoked", "leave")
	}
	s.mustCompose(t, "rm", "--stop", "--force", "node4", "node5", "admit4", "admit5")
	s.awaitAnswering(t, s.Nodes[:3]...)
	if st, err := s.status(s.Nodes[0]); err != nil || st.Voters != 3 {
		t.Errorf("got %d voters (error %v), want 3", st.Voters, err)
	}
	s.wantActive(t, "access-1", false, s.Nodes[:3]...)
}

// imageSize returns the size of the image in bytes.
func (s *stack) imageSize(t *testing.T) int {
	t.Helper()
	out := s.mustDocker(t, "image", "inspect", "--format", "{{.Size}}", s.image)
	n, err := strconv.Atoi(strings.TrimSpace(out))
	if err != nil {
		t.Fatalf("size of the image: %v", err)
	}
	return n
}

// The compose tool accepts the compose files. No service has rights that it does not need.
func TestComposeFiles_GrantLeastPrivilege(t *testing.T) {
	data, err := os.ReadFile(filepath.Join(repository, composeFiles[0]))
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		Services map[string]struct {
			ReadOnly    bool     `yaml:"read_only"`
			CapDrop     []string `yaml:"cap_drop"`
			SecurityOpt []string `yaml:"security_opt"`
			Privileged  bool     `yaml:"privileged"`
			Volumes     []string `yaml:"volumes"`
		} `yaml:"services"`
	}
	if err := yaml.Unmarshal(data, &file); err != nil {
		t.Fatal(err)
	}
	if len(file.Services) != 8 {
		t.Errorf("got %d services, want certs, five nodes and the admissions of two", len(file.Services))
	}
	for name, s := range file.Services {
		if !s.ReadOnly || s.Privileged || fmt.Sprint(s.CapDrop) != "[ALL]" ||
			fmt.Sprint(s.SecurityOpt) != "[no-new-privileges:true]" {
			t.Errorf("service %s: got rights %+v, want the least", name, s)
		}
		for _, v := range s.Volumes {
			if volume, _, _ := strings.Cut(v, ":"); strings.ContainsAny(volume, "/.") {
				t.Errorf("service %s: got mount %s, want only volumes", name, v)
			}
		}
	}
	compose := composeCommand()
	if _, err := exec.LookPath(compose[0]); err != nil {
		t.Log("no compose tool: the files were only parsed")
		return
	}
	for _, files := range [][]string{composeFiles[:1], composeFiles} {
		args := append([]string{}, compose[1:]...)
		for _, f := range files {
			args = append(args, "-f", filepath.Join(repository, f))
		}
		if _, err := tool(t, cleanEnvironment(), compose[0], append(args, "config")...); err != nil {
			t.Errorf("%v: %v", files, err)
		}
	}
}
