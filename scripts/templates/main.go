// Templates compiles the templates of the console. Run it in the root of the repository.
package main

import (
	"bytes"
	"fmt"
	"go/format"
	"os"
	"path/filepath"

	"github.com/valyala/quicktemplate/parser"
)

func main() {
	if err := compile("api/console"); err != nil {
		fmt.Fprintln(os.Stderr, "templates:", err)
		os.Exit(1)
	}
}

// compile writes the Go file of each template in a directory.
func compile(dir string) error {
	files, err := filepath.Glob(filepath.Join(dir, "*.qtpl"))
	if err != nil {
		return err
	}
	if len(files) == 0 {
		return fmt.Errorf("%s has no templates", dir)
	}
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		var raw bytes.Buffer
		if err := parser.ParseNoLineComments(&raw, bytes.NewReader(text), name, filepath.Base(dir)); err != nil {
			return fmt.Errorf("compile %s: %w", name, err)
		}
		code, err := format.Source(raw.Bytes())
		if err != nil {
			return fmt.Errorf("format %s: %w", name, err)
		}
		if err := os.WriteFile(name+".go", code, 0o644); err != nil {
			return err
		}
	}
	return nil
}
