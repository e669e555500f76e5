package debug

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"revoked/client"
	"revoked/cmd/revoked/internal/call"
)

// formatVersion is the version of the manifest.
const formatVersion = 1

// A source is a page of a node and its file in the bundle.
type source struct {
	file string
	text bool // the page is text, otherwise it is binary
	read func(*client.Client, context.Context) ([]byte, error)
}

func sources() []source {
	page := func(name string) func(*client.Client, context.Context) ([]byte, error) {
		return func(c *client.Client, ctx context.Context) ([]byte, error) { return c.Debug(ctx, name) }
	}
	return []source{
		{"status.json", true, body((*client.Client).Status)},
		{"members.json", true, body((*client.Client).Members)},
		{"settings.json", true, body((*client.Client).Settings)},
		{"config.json", true, page("config")},
		{"metrics.txt", true, page("metrics")},
		{"goroutines.txt", true, page("goroutines")},
		{"heap.pprof", false, page("heap")},
		{"log.txt", true, page("log")},
	}
}

// body returns a function that makes the call and returns the body of the answer.
func body[T any](do func(*client.Client, context.Context) (client.Answer[T], error)) func(
	*client.Client, context.Context) ([]byte, error) {
	return func(c *client.Client, ctx context.Context) ([]byte, error) {
		a, err := do(c, ctx)
		return a.Body, err
	}
}

// A bundle holds the answers of the nodes.
type bundle struct {
	made  time.Time
	tool  any
	nodes []nodePages
}

// nodePages holds the pages of one node in the order of sources.
type nodePages struct {
	addr, folder string
	pages        []file
	missing      []absent
}

type file struct {
	name string
	data []byte
}

type absent struct {
	name string
	err  error
}

// folder returns the name of the directory that contains all files of the archive.
func (b *bundle) folder() string { return "revoked-debug-" + b.made.Format("20060102T150405Z") }

// collect requests all pages from all nodes at the same time. So it takes only as long as the
// slowest answer.
func (b *bundle) collect(ctx context.Context, nodes []call.Node) {
	type answer struct {
		data []byte
		err  error
	}
	list := sources()
	answers := make([][]answer, len(nodes))
	var asking sync.WaitGroup
	for i, n := range nodes {
		answers[i] = make([]answer, len(list))
		for k, s := range list {
			asking.Go(func() {
				data, err := s.read(n.Client, ctx)
				if s.text {
					data = scrub(data)
				}
				answers[i][k] = answer{data, err}
			})
		}
	}
	asking.Wait()
	for i, n := range nodes {
		one := nodePages{addr: n.Addr, folder: fmt.Sprintf("%d-%s", i+1, fileName(n.Addr))}
		for k, a := range answers[i] {
			if a.err != nil {
				one.missing = append(one.missing, absent{list[k].file, a.err})
				continue
			}
			one.pages = append(one.pages, file{list[k].file, a.data})
		}
		b.nodes = append(b.nodes, one)
	}
}

// fileName returns the host and the port of a URL in a form that fits into a file name.
func fileName(addr string) string {
	host := strings.TrimPrefix(addr, "https://")
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '.' || r == '-' {
			return r
		}
		return '_'
	}, host)
}

// A manifest lists the files of a bundle, and those that are missing.
type manifest struct {
	FormatVersion int             `json:"format_version"`
	CreatedAt     time.Time       `json:"created_at"`
	Tool          any             `json:"tool"`
	Nodes         []nodeOfContent `json:"nodes"`
}

type nodeOfContent struct {
	Addr    string        `json:"addr"`
	Folder  string        `json:"folder"`
	Files   []fileContent `json:"files"`
	Missing []missingFile `json:"missing"`
}

type fileContent struct {
	Name  string `json:"name"`
	Bytes int    `json:"bytes"`
}

type missingFile struct {
	Name   string `json:"name"`
	Reason string `json:"reason"`
}

func (b *bundle) manifest() ([]byte, error) {
	m := manifest{FormatVersion: formatVersion, CreatedAt: b.made.Truncate(time.Second), Tool: b.tool}
	for _, n := range b.nodes {
		one := nodeOfContent{Addr: n.addr, Folder: n.folder, Files: []fileContent{}, Missing: []missingFile{}}
		for _, p := range n.pages {
			one.Files = append(one.Files, fileContent{p.name, len(p.data)})
		}
		for _, a := range n.missing {
			one.Missing = append(one.Missing, missingFile{a.name, string(scrub([]byte(a.err.Error())))})
		}
		m.Nodes = append(m.Nodes, one)
	}
	return json.MarshalIndent(m, "", "  ")
}

// write writes the archive, with the manifest first.
func (b *bundle) write(w io.Writer) error {
	m, err := b.manifest()
	if err != nil {
		return err
	}
	zip := gzip.NewWriter(w)
	archive := tar.NewWriter(zip)
	add := func(name string, data []byte) error {
		head := tar.Header{Name: b.folder() + "/" + name, Mode: 0o600, Size: int64(len(data)), ModTime: b.made,
			Typeflag: tar.TypeReg}
		if err := archive.WriteHeader(&head); err != nil {
			return err
		}
		_, err := archive.Write(data)
		return err
	}
	if err := add("manifest.json", append(m, '\n')); err != nil {
		return err
	}
	for _, n := range b.nodes {
		for _, p := range n.pages {
			if err := add(n.folder+"/"+p.name, p.data); err != nil {
				return err
			}
		}
	}
	return errors.Join(archive.Close(), zip.Close())
}
