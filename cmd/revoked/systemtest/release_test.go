//go:build system

package systemtest

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// Two checkouts of one commit produce the same release, byte for byte. The archive has a program
// that reports its commit, and the licenses of its modules. The package has a unit with the path of
// its program.
func TestRelease_TwoCheckouts_SameBytes(t *testing.T) {
	t.Parallel() // see doc.go
	for _, name := range []string{"nfpm", "cyclonedx-gomod", "dpkg-deb", "git"} {
		need(t, name)
	}
	tree, err := filepath.Abs(repository)
	if err != nil {
		t.Fatal(err)
	}
	run := func(env []string, command ...string) string {
		t.Helper()
		out, err := tool(t, append(os.Environ(), env...), command[0], command[1:]...)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	if out, err := exec.Command("git", "-C", tree, "rev-parse", "HEAD").CombinedOutput(); err != nil {
		t.Skipf("NOT RUN: this copy has no history: %s", out)
	}
	commit := strings.TrimSpace(run(nil, "git", "-C", tree, "rev-parse", "HEAD"))
	dir := t.TempDir()
	var releases []string
	for _, name := range []string{"one", "another folder"} {
		checkout, out := filepath.Join(dir, name), filepath.Join(dir, name+".release")
		run(nil, "git", "clone", "-q", tree, checkout)
		run([]string{"VERSION=1.2.3", "PLATFORMS=linux/" + runtime.GOARCH},
			filepath.Join(checkout, "scripts/release.sh"), out)
		releases = append(releases, out)
	}
	run(nil, "diff", "-r", releases[0], releases[1])

	base := "revoked_1.2.3_linux_" + runtime.GOARCH
	archive := filepath.Join(releases[0], base+".tar.gz")
	unpacked := t.TempDir()
	run(nil, "tar", "-C", unpacked, "-xzf", archive)
	if got := run(nil, filepath.Join(unpacked, base, "revoked"), "version"); !strings.Contains(got, "revoked 1.2.3\n") ||
		!strings.Contains(got, commit) || strings.Contains(got, "modified") {
		t.Errorf("got version\n%s\nwant 1.2.3 of commit %s, unmodified", got, commit)
	}
	bill, err := os.ReadFile(filepath.Join(releases[0], base+".cdx.json"))
	if err != nil {
		t.Fatal(err)
	}
	for _, module := range []string{"github.com/hashicorp/raft", "github.com/labstack/echo/v4"} {
		if !strings.Contains(string(bill), "pkg:golang/"+module+"@") {
			t.Errorf("the bill of materials: got no %s", module)
		}
		files, err := filepath.Glob(filepath.Join(unpacked, base, "licenses", module, "LICENSE*"))
		if err != nil || len(files) == 0 {
			t.Errorf("the archive: got no license of %s (%v)", module, err)
		}
	}
	run(nil, "sh", "-c", `cd "$1" && sha256sum --quiet -c SHA256SUMS`, "sh", releases[0])

	root := t.TempDir()
	run(nil, "dpkg-deb", "-x", filepath.Join(releases[0], "revoked_1.2.3_"+runtime.GOARCH+".deb"), root)
	unit, err := os.ReadFile(filepath.Join(root, "usr/lib/systemd/system/revoked.service"))
	if err != nil {
		t.Fatal(err)
	}
	manual := strings.Replace(readRepository(t, "deploy/systemd/revoked.service"), "/usr/local/bin/", "/usr/bin/", 1)
	if string(unit) != manual {
		t.Errorf("the unit of the package: got\n%s\nwant that of the manual with /usr/bin", unit)
	}
	if got := run(nil, filepath.Join(root, "usr/bin/revoked"), "version"); !strings.Contains(got, commit) {
		t.Errorf("the program of the package: got\n%s\nwant commit %s", got, commit)
	}
}
