package mutant_test

import (
	"go/parser"
	"go/token"
	"testing"

	"revoked/internal/mutant"
)

const root = "../.."

func TestMutants_EveryPatch_Applies(t *testing.T) {
	seen := map[string]bool{}
	for _, m := range mutant.All {
		if seen[m.Name] {
			t.Errorf("%s is listed twice", m.Name)
		}
		seen[m.Name] = true
		files, err := m.Patch(root)
		if err != nil {
			t.Error(err)
		}
		for file, source := range files {
			if _, err := parser.ParseFile(token.NewFileSet(), file, source, 0); err != nil {
				t.Errorf("%s: patched file does not parse: %v", m.Name, err)
			}
		}
	}
}
