// Package mutant breaks the product on purpose, one rule at a time. A test that has never failed
// proves nothing. Each mutant is a patch of the source that leaves out one rule, and docs/proofs.md
// names the tests that fail under it.
//
// The product has no switch for mutants. [Mutant.Overlay] writes the patched files to another
// directory, and a JSON file for `go build -overlay` and `go test -overlay`. Only a build with that
// flag is broken.
package mutant

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// A Mutant is a named patch of the source.
type Mutant struct {
	Name   string
	Breaks string // fault, for docs/proofs.md
	Edits  []Edit
}

// An Edit replaces Old by New in File, a path below the module's root. Old occurs exactly once.
type Edit struct {
	File, Old, New string
}

// Patch returns the patched content of each file that m edits, by path below root, the module root.
func (m Mutant) Patch(root string) (map[string]string, error) {
	files := map[string]string{}
	for _, e := range m.Edits {
		source, ok := files[e.File]
		if !ok {
			b, err := os.ReadFile(filepath.Join(root, e.File))
			if err != nil {
				return nil, fmt.Errorf("mutant %s: %w", m.Name, err)
			}
			source = string(b)
		}
		if n := strings.Count(source, e.Old); n != 1 {
			return nil, fmt.Errorf("mutant %s: %s: patched text occurs %d times, want 1:\n%s", m.Name, e.File, n, e.Old)
		}
		files[e.File] = strings.Replace(source, e.Old, e.New, 1)
	}
	return files, nil
}

// Overlay writes the patched files into dir and returns the path of the file for the flag -overlay.
func (m Mutant) Overlay(root, dir string) (string, error) {
	root, err := filepath.Abs(root)
	if err != nil {
		return "", err
	}
	files, err := m.Patch(root)
	if err != nil {
		return "", err
	}
	replace := map[string]string{}
	for file, source := range files {
		patched := filepath.Join(dir, strings.ReplaceAll(file, "/", "_"))
		if err := os.WriteFile(patched, []byte(source), 0o600); err != nil {
			return "", err
		}
		replace[filepath.Join(root, file)] = patched
	}
	b, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, m.Name+".json")
	return path, os.WriteFile(path, b, 0o600)
}
