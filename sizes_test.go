package revoked_test

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// Limits on the form of the source.
const (
	maxPackageFiles  = 20  // Go files of a package, without tests
	maxFileLines     = 400 // product files only
	maxFunctionLines = 80  // product functions only
	maxColumns       = 120 // lines of code; a tab counts as one
	maxProseColumns  = 100 // lines that are only a comment
	maxNodeFields    = 14
	maxNodeMethods   = 64 // methods of Node, without those of embedded parts
	maxTestName      = 50
)

// A goFile is a parsed Go file of this module that is not generated.
type goFile struct {
	path  string // path below the root
	test  bool
	src   []byte
	ast   *ast.File
	lines []string
}

func (f goFile) dir() string { return filepath.Dir(f.path) }

func parseModule(t *testing.T) (*token.FileSet, []goFile) {
	t.Helper()
	fset := token.NewFileSet()
	var files []goFile
	err := filepath.WalkDir(".", func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, ".go") {
			return err
		}
		if strings.HasSuffix(path, ".pb.go") || strings.HasSuffix(path, ".qtpl.go") {
			return nil
		}
		src, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		parsed, err := parser.ParseFile(fset, path, src, parser.ParseComments)
		if err != nil {
			return err
		}
		files = append(files, goFile{
			path: path, test: strings.HasSuffix(path, "_test.go"), src: src, ast: parsed,
			lines: strings.Split(string(bytes.TrimRight(src, "\n")), "\n"),
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return fset, files
}

func TestSizes_Packages_AreSmall(t *testing.T) {
	_, files := parseModule(t)
	count := map[string]int{}
	for _, f := range files {
		if !f.test {
			count[f.dir()]++
		}
	}
	for dir, n := range count {
		if n > maxPackageFiles {
			t.Errorf("%s: got %d files, want at most %d", dir, n, maxPackageFiles)
		}
	}
}

// Three files that share a prefix belong in a separate package.
func TestSizes_FileNames_ShareNoPrefix(t *testing.T) {
	_, files := parseModule(t)
	platform := regexp.MustCompile(`_(linux|other|unix|windows|on|off)$`)
	names := map[string][]string{} // per directory, tests separately
	for _, f := range files {
		stem := strings.TrimSuffix(filepath.Base(f.path), ".go")
		key := f.dir()
		if f.test {
			stem, key = strings.TrimSuffix(stem, "_test"), key+" (tests)"
		}
		stem = platform.ReplaceAllString(stem, "")
		if !slices.Contains(names[key], stem) {
			names[key] = append(names[key], stem)
		}
	}
	for dir, stems := range names {
		for _, prefix := range sharedPrefixes(stems) {
			t.Errorf("%s: three or more files begin with %q: make them a package", dir, prefix)
		}
	}
}

// sharedPrefixes returns each five-letter prefix and each whole name with which three names begin.
func sharedPrefixes(stems []string) []string {
	count := map[string]int{}
	for _, s := range stems {
		if len(s) >= 5 {
			count[s[:5]]++
		}
		for _, whole := range stems {
			if len(whole) != 5 && strings.HasPrefix(s, whole) {
				count[whole]++
			}
		}
	}
	var shared []string
	for p, n := range count {
		if n >= 3 {
			shared = append(shared, p)
		}
	}
	slices.Sort(shared)
	return shared
}

func TestSizes_FilesAndFunctions_AreShort(t *testing.T) {
	fset, files := parseModule(t)
	for _, f := range files {
		if f.test {
			continue
		}
		if n := len(f.lines); n > maxFileLines {
			t.Errorf("%s: got %d lines, want at most %d", f.path, n, maxFileLines)
		}
		for _, d := range f.ast.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok {
				continue
			}
			n := fset.Position(fn.End()).Line - fset.Position(fn.Pos()).Line + 1
			if n > maxFunctionLines {
				t.Errorf("%s: %s has %d lines, want at most %d", f.path, fn.Name.Name, n, maxFunctionLines)
			}
		}
	}
}

func TestSizes_Lines_AreShort(t *testing.T) {
	fset, files := parseModule(t)
	for _, f := range files {
		texts := longTexts(fset, f)
		for i, line := range f.lines {
			limit := maxColumns
			if strings.HasPrefix(strings.TrimSpace(line), "// ") && !strings.Contains(line, "https://") {
				limit = maxProseColumns
			}
			if n := len([]rune(line)); n > limit && !texts[i+1] {
				t.Errorf("%s:%d: got %d columns, want at most %d", f.path, i+1, n, limit)
			}
		}
	}
}

// longTexts returns the lines with a string literal that cannot usefully be broken, such as a JSON
// body. It looks at tests and at patches for tests.
func longTexts(fset *token.FileSet, f goFile) map[int]bool {
	lines := map[int]bool{}
	if !f.test && f.dir() != "internal/mutant" {
		return lines
	}
	ast.Inspect(f.ast, func(n ast.Node) bool {
		if lit, ok := n.(*ast.BasicLit); ok && lit.Kind == token.STRING && len(lit.Value) > 60 {
			for l := fset.Position(lit.Pos()).Line; l <= fset.Position(lit.End()).Line; l++ {
				lines[l] = true
			}
		}
		return true
	})
	return lines
}

func TestSizes_Node_HasFewFields(t *testing.T) {
	_, files := parseModule(t)
	found := false
	for _, f := range files {
		if f.dir() != "node" {
			continue
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			spec, ok := n.(*ast.TypeSpec)
			if !ok || spec.Name.Name != "Node" {
				return true
			}
			found = true
			fields := 0
			for _, field := range spec.Type.(*ast.StructType).Fields.List {
				fields += max(1, len(field.Names))
			}
			if fields > maxNodeFields {
				t.Errorf("Node: got %d fields, want at most %d", fields, maxNodeFields)
			}
			return false
		})
	}
	if !found {
		t.Error("package node has no type Node")
	}
}

// A method that one part of Node can have belongs to that part, not to Node.
func TestSizes_Node_HasFewMethods(t *testing.T) {
	_, files := parseModule(t)
	methods := 0
	for _, f := range files {
		if f.dir() != "node" || f.test {
			continue
		}
		for _, d := range f.ast.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok || fn.Recv == nil {
				continue
			}
			star, ok := fn.Recv.List[0].Type.(*ast.StarExpr)
			if !ok {
				continue
			}
			if id, ok := star.X.(*ast.Ident); ok && id.Name == "Node" {
				methods++
			}
		}
	}
	if methods == 0 || methods > maxNodeMethods {
		t.Errorf("Node: got %d methods, want 1 to %d", methods, maxNodeMethods)
	}
}

// A comment must name its subject first.
func TestSizes_Comments_OpenWithASubject(t *testing.T) {
	fset, files := parseModule(t)
	vague := regexp.MustCompile(`^//\s*(What|Who|Whoever|Whom|Nobody|None|Where|Nothing)\b`)
	for _, f := range files {
		for _, group := range f.ast.Comments {
			if first := group.List[0]; vague.MatchString(first.Text) {
				t.Errorf("%s: comment opens with %q: name the subject",
					fset.Position(first.Pos()), vague.FindStringSubmatch(first.Text)[1])
			}
		}
	}
}

// The name of a test is TestUnit_Condition_Result, short enough for a table.
func TestSizes_TestNames_AreShort(t *testing.T) {
	fset, files := parseModule(t)
	for _, f := range files {
		for _, d := range f.ast.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if ok && f.test && strings.HasPrefix(fn.Name.Name, "Test") && len(fn.Name.Name) > maxTestName {
				t.Errorf("%s: got %d letters in %s, want at most %d",
					fset.Position(fn.Pos()), len(fn.Name.Name), fn.Name.Name, maxTestName)
			}
		}
	}
}

// Domain types must not depend on an encoding.
func TestSizes_Root_HasNoStructTags(t *testing.T) {
	fset, files := parseModule(t)
	for _, f := range files {
		if f.dir() != "." || f.test {
			continue
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			if field, ok := n.(*ast.Field); ok && field.Tag != nil {
				t.Errorf("%s: field has the tag %s", fset.Position(field.Pos()), field.Tag.Value)
			}
			return true
		})
	}
}
