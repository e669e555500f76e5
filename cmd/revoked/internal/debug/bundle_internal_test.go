package debug

import (
	"archive/tar"
	"compress/gzip"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// fakeNode serves the pages in answers, by path. A path with a nil answer hangs.
func fakeNode(t *testing.T, answers map[string]*string) *httptest.Server {
	t.Helper()
	n := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		text, known := answers[r.URL.Path]
		switch {
		case !known:
			http.Error(w, "404", http.StatusNotFound)
		case text == nil:
			<-r.Context().Done()
		default:
			io.WriteString(w, *text)
		}
	}))
	t.Cleanup(n.Close)
	return n
}

func allPages(text string) map[string]*string {
	object := "{}"
	return map[string]*string{"/v1/status": &object, "/v1/members": &object, "/v1/settings": &object,
		"/v1/debug/config": &object, "/v1/debug/metrics": &text, "/v1/debug/goroutines": &text, "/v1/debug/heap": &text,
		"/v1/debug/log": &text}
}

// useNode sets the CA and the credentials.
func useNode(t *testing.T, n *httptest.Server) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "ca.pem")
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: n.Certificate().Raw})
	if err := os.WriteFile(file, block, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("REVOKED_CACERT", file)
	t.Setenv("REVOKED_CLIENT_ID", "admin")
	t.Setenv("REVOKED_CLIENT_SECRET", "secret-of-admin")
}

// runBundle runs the command and returns its output.
func runBundle(t *testing.T, args ...string) (stdout, stderr string, err error) {
	t.Helper()
	var out, errs strings.Builder
	cmd := &cobra.Command{Use: "revoked", SilenceErrors: true, SilenceUsage: true}
	cmd.AddCommand(Command(map[string]string{"version": "1.2.3"}))
	cmd.SetArgs(append([]string{"debug", "bundle"}, args...))
	cmd.SetOut(&out)
	cmd.SetErr(&errs)
	err = cmd.ExecuteContext(t.Context())
	return out.String(), errs.String(), err
}

// readBundle returns the files of an archive without their common directory, and its manifest.
func readBundle(t *testing.T, name string) (map[string]string, manifest) {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if st, err := f.Stat(); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("got mode %v, %v, want 0600", st.Mode(), err)
	}
	zip, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	for archive := tar.NewReader(zip); ; {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(archive)
		if err != nil {
			t.Fatal(err)
		}
		folder, file, _ := strings.Cut(h.Name, "/")
		if !strings.HasPrefix(folder, "revoked-debug-") || h.Mode != 0o600 {
			t.Errorf("%s: got mode %o, want 600 in a directory revoked-debug-TIME", h.Name, h.Mode)
		}
		found[file] = string(data)
	}
	var m manifest
	if err := json.Unmarshal([]byte(found["manifest.json"]), &m); err != nil {
		t.Fatal(err)
	}
	return found, m
}

// Each node has a directory with every page, and the manifest lists them.
func TestBundle_TwoNodes_HasEveryPage(t *testing.T) {
	a, b := fakeNode(t, allPages("of a")), fakeNode(t, allPages("of b"))
	useNode(t, a)
	name := filepath.Join(t.TempDir(), "out.tar.gz")
	stdout, stderr, err := runBundle(t, "--addr", a.URL+","+b.URL+","+a.URL+"/", "-o", name)
	if err != nil || stdout != name+"\n" || stderr != "" {
		t.Fatalf("got %v, %q, %q, want only the name of the file", err, stdout, stderr)
	}
	files, m := readBundle(t, name)
	if len(m.Nodes) != 2 || m.FormatVersion != 1 || m.CreatedAt.IsZero() ||
		m.Tool.(map[string]any)["version"] != "1.2.3" {
		t.Fatalf("got manifest %+v, want two nodes, format 1, the time and the tool", m)
	}
	for i, want := range []string{"of a", "of b"} {
		n := m.Nodes[i]
		if got := files[n.Folder+"/log.txt"]; got != want || !strings.HasPrefix(n.Folder, []string{"1-", "2-"}[i]) {
			t.Errorf("%s: got log %q, want %q", n.Folder, got, want)
		}
		var names []string
		for _, f := range n.Files {
			names = append(names, f.Name)
			if got := files[n.Folder+"/"+f.Name]; len(got) != f.Bytes || got == "" {
				t.Errorf("%s: got %d bytes, want %d", f.Name, len(got), f.Bytes)
			}
		}
		if want := "status.json members.json settings.json config.json metrics.txt goroutines.txt heap.pprof log.txt"; strings.Join(
			names, " ") != want || len(n.Missing) != 0 {
			t.Errorf("%s: got files %q and missing %v, want %q", n.Folder, names, n.Missing, want)
		}
	}
	if _, _, err := runBundle(t, "--addr", a.URL, "-o", name); err == nil || !strings.Contains(err.Error(), "--force") {
		t.Errorf("a file that exists: got %v, want an error with --force", err)
	}
	if _, _, err := runBundle(t, "--addr", a.URL, "-o", name, "--force"); err != nil {
		t.Errorf("with --force: got %v, want no error", err)
	}
	if _, m := readBundle(t, name); len(m.Nodes) != 1 {
		t.Errorf("with --force: got %d nodes, want the new bundle", len(m.Nodes))
	}
}

// If a page hangs or fails, it is missing, with the reason, and the bundle is still written.
func TestBundle_PagesThatFail_AreListedAsMissing(t *testing.T) {
	pages := allPages("text")
	pages["/v1/members"] = nil
	delete(pages, "/v1/debug/heap")
	n := fakeNode(t, pages)
	useNode(t, n)
	name := filepath.Join(t.TempDir(), "out.tar.gz")
	_, stderr, err := runBundle(t, "--addr", n.URL, "-o", name, "--timeout", "1s")
	if err != nil {
		t.Fatalf("got %v, want no error", err)
	}
	_, m := readBundle(t, name)
	if len(m.Nodes[0].Files) != 6 || len(m.Nodes[0].Missing) != 2 {
		t.Fatalf("got %+v, want six files and two missing", m.Nodes[0])
	}
	for i, want := range []string{"no answer within 1s", "404"} {
		miss := m.Nodes[0].Missing[i]
		if !strings.Contains(miss.Reason, want) || !strings.Contains(stderr, "missing "+miss.Name) {
			t.Errorf("%s: got reason %q and %q, want %q", miss.Name, miss.Reason, stderr, want)
		}
	}
}

// If a node is down or hangs, the bundle still has the answers of the other node.
func TestBundle_UnresponsiveNode_OthersAreWritten(t *testing.T) {
	n := fakeNode(t, allPages("text"))
	hanging := allPages("")
	for path := range hanging {
		hanging[path] = nil
	}
	down := httptest.NewTLSServer(nil)
	down.Close()
	useNode(t, n)
	for what, addr := range map[string]string{"down": down.URL, "hanging": fakeNode(t, hanging).URL} {
		name := filepath.Join(t.TempDir(), "out.tar.gz")
		_, _, err := runBundle(t, "--addr", addr+","+n.URL, "-o", name, "--timeout", "1s")
		if err == nil || !strings.Contains(err.Error(), "received nothing from 1 of 2 nodes") {
			t.Errorf("%s: got %v, want the node that does not answer in the error", what, err)
		}
		files, m := readBundle(t, name)
		if len(m.Nodes[0].Missing) != 8 || len(m.Nodes[1].Files) != 8 || files[m.Nodes[1].Folder+"/log.txt"] != "text" {
			t.Errorf("%s: got %+v, want every page of the second node", what, m)
		}
	}
}

// Text with the form of a secret is replaced, whichever page it is on.
func TestBundle_TextLikeSecrets_IsReplaced(t *testing.T) {
	const core = "canarycanarycanary"
	for _, form := range []string{
		`error="proxyconnect http://user:` + core + `@proxy:3128: refused" after=1`,
		"Authorization: Basic " + core + "Zm9v after=1", "authorization=bearer%20" + core + " after=1",
		"token eyJhbGciOiJub25lIn0.eyJ" + core + "." + core + " after=1",
		`key="-----BEGIN EC PRIVATE KEY-----\n` + core + `\n-----END EC PRIVATE KEY-----" after=1`,
		"-----BEGIN PRIVATE KEY-----\n" + core + "\n-----END PRIVATE KEY-----\nafter=1",
		"-----BEGIN PRIVATE KEY----- " + core + "\nafter=1",
	} {
		n := fakeNode(t, allPages(form))
		useNode(t, n)
		name := filepath.Join(t.TempDir(), "out.tar.gz")
		if _, _, err := runBundle(t, "--addr", n.URL, "-o", name); err != nil {
			t.Fatal(err)
		}
		files, m := readBundle(t, name)
		for _, file := range []string{"log.txt", "goroutines.txt", "metrics.txt"} {
			got := files[m.Nodes[0].Folder+"/"+file]
			if strings.Contains(got, core) || !strings.Contains(got, "REDACTED") || !strings.Contains(got, "after=1") {
				t.Errorf("%s of %q: got %q, want the secret replaced and the rest kept", file, form, got)
			}
		}
	}
	for _, plain := range []string{"msg=request route=/oauth2/revoke outcome=basic remote=10.0.0.1",
		"# HELP revoked_x_total Basic credentials.", "revoked/node/bearer.(*Decider).Status+0x1f /src/bearer.go:12"} {
		if got := string(scrub([]byte(plain))); got != plain {
			t.Errorf("got %q, want %q unchanged", got, plain)
		}
	}
}

func TestFileName_EachAddress_IsOnePathElement(t *testing.T) {
	for addr, want := range map[string]string{"https://node1.example:8443": "node1.example_8443",
		"https://[::1]:8443/../x": "___1__8443_.._x"} {
		if got := fileName(addr); got != want || slices.Contains([]byte(got), '/') {
			t.Errorf("%s: got %q, want %q", addr, got, want)
		}
	}
}
