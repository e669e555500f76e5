//go:build system

package systemtest

import (
	"cmp"
	"encoding/xml"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A node copies its backups to a real S3 server over TLS: Versity's gateway, which is the program
// in REVOKED_S3_SERVER or versitygw in the PATH. The bucket keeps the newest three. A restore from
// the newest object succeeds, and every token that was revoked before it is inactive.
func TestScheduledBackups_S3Server_LastRestores(t *testing.T) {
	program := cmp.Or(os.Getenv("REVOKED_S3_SERVER"), "versitygw")
	if _, err := exec.LookPath(program); err != nil {
		t.Logf("NOT RUN: %s is not installed; the tests of cmd/revoked/internal/backup use a server of their own", program)
		return
	}
	need(t, "curl")
	c := newCluster(t, 1)
	m, s := c.Nodes[0], startS3(t, c, program)
	dir := filepath.Join(c.dir, "backup")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	writeFile(t, c.dir, "s3-access", s3Access+"\n")
	writeFile(t, c.dir, "s3-secret", s3Secret+"\n")
	m.args = []string{"--backup-schedule=1s", "--backup-dir=" + dir, "--backup-keep=3", "--backup-s3-endpoint=" + s.url,
		"--backup-s3-bucket=backups", "--backup-s3-prefix=node1", "--backup-s3-ca-file=" + c.CA,
		"--backup-s3-access-key-file=" + filepath.Join(c.dir, "s3-access"),
		"--backup-s3-secret-key-file=" + filepath.Join(c.dir, "s3-secret")}
	c.startAll(t)
	c.awaitReady(t, m)
	l := startLoad(t, c, 2, 50)
	awaitWrites(t, l, 20)
	first := s.awaitNewer(t, "")
	newest := first
	for range 4 {
		newest = s.awaitNewer(t, newest)
	}
	await(t, "the bucket to keep three", func() error {
		if got := s.list(t); len(got) != 3 || got[0] <= first {
			return fmt.Errorf("got %q", got)
		}
		return nil
	})
	l.end(t, m)
	ended := time.Now()
	newest = s.awaitNewer(t, s.awaitNewer(t, s.list(t)[2]))
	m.proc.Kill()
	file := filepath.Join(c.dir, "from-the-bucket.snap")
	s.call(t, newest, "-o", file)
	t.Logf("the bucket has %q; restore the last", s.list(t))
	c.restoreLast(t, file, l.revokedBefore(ended))
}

// The keys of the S3 server.
const (
	s3Access = "AKIAREVOKEDTEST"
	s3Secret = "a-secret-key-of-this-test-only"
)

// An s3Server is a running S3 server with the bucket "backups".
type s3Server struct{ url, ca string }

// startS3 starts the server with the API certificate of the first node.
func startS3(t *testing.T, c *cluster, program string) s3Server {
	t.Helper()
	dir, addr := realDir(t), freeAddress(t)
	for _, name := range []string{"root", "meta"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	startProcess(t, filepath.Join(dir, "log"), nil, program, "--access", s3Access, "--secret", s3Secret, "--port", addr,
		"--cert", filepath.Join(c.dir, "node1-api.pem"), "--key", filepath.Join(c.dir, "node1-api-key.pem"),
		"posix", "--sidecar", filepath.Join(dir, "meta"), filepath.Join(dir, "root"))
	s := s3Server{"https://" + addr, c.CA}
	await(t, "the bucket", func() error {
		_, err := s.try("", "-X", "PUT")
		return err
	})
	return s
}

// try calls the server with a signature. The path is below the bucket.
func (s s3Server) try(path string, args ...string) (string, error) {
	line := append([]string{"-sS", "--fail-with-body", "--cacert", s.ca, "--aws-sigv4", "aws:amz:us-east-1:s3", "-u",
		s3Access + ":" + s3Secret, "-H", "x-amz-content-sha256: UNSIGNED-PAYLOAD"}, args...)
	out, err := exec.Command("curl", append(line, strings.TrimSuffix(s.url+"/backups/"+path, "/"))...).CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("%w: %s", err, out)
	}
	return string(out), nil
}

func (s s3Server) call(t *testing.T, path string, args ...string) string {
	t.Helper()
	out, err := s.try(path, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// list returns the names of the objects, oldest first.
func (s s3Server) list(t *testing.T) []string {
	t.Helper()
	var result struct {
		Contents []struct{ Key string }
	}
	if err := xml.Unmarshal([]byte(s.call(t, "?list-type=2&prefix=node1%2F")), &result); err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, o := range result.Contents {
		names = append(names, o.Key)
	}
	return names
}

// awaitNewer waits until there is a newer object than before, and returns its name.
func (s s3Server) awaitNewer(t *testing.T, before string) (newest string) {
	t.Helper()
	await(t, "a newer object", func() error {
		all := s.list(t)
		if len(all) == 0 || all[len(all)-1] <= before {
			return errors.New("none")
		}
		newest = all[len(all)-1]
		return nil
	})
	return newest
}
