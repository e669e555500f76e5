package revoked_test

import (
	"os"
	"strings"
	"testing"
)

// compatible are the licenses that a product under Apache-2.0 may link.
var compatible = []string{"Apache-2.0", "MIT", "BSD-2-Clause", "BSD-3-Clause", "ISC", "MPL-2.0"}

func TestNotice_LinkedModules_AreListed(t *testing.T) {
	notice, err := os.ReadFile("NOTICE")
	if err != nil {
		t.Fatal(err)
	}
	license := map[string]string{}
	for line := range strings.Lines(string(notice)) {
		if f := strings.Fields(line); len(f) == 2 {
			license[f[0]] = f[1]
		}
	}
	linked := map[string]bool{}
	t.Setenv("CGO_ENABLED", "1") // with cgo the program links more modules
	for module := range strings.Lines(string(runGo(t, "list", "-deps",
		"-f", "{{with .Module}}{{if not .Main}}{{.Path}}{{end}}{{end}}", "./cmd/revoked"))) {
		if module = strings.TrimSpace(module); module != "" {
			linked[module] = true
		}
	}
	if len(linked) == 0 {
		t.Fatal("got no linked modules")
	}
	for module := range linked {
		allowed := false
		for _, l := range compatible {
			allowed = allowed || license[module] == l
		}
		if !allowed {
			t.Errorf("NOTICE: module %s: got license %q, want one of %v", module, license[module], compatible)
		}
	}
	for module := range license {
		if strings.Contains(module, ".") && !linked[module] {
			t.Errorf("NOTICE lists %s, which the program does not link", module)
		}
	}
}
