package console_test

import (
	"bytes"
	"go/format"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/valyala/quicktemplate/parser"
	"golang.org/x/net/html"
)

// templates returns the texts of the templates by file name.
func templates(t *testing.T) map[string]string {
	t.Helper()
	files, err := filepath.Glob("*.qtpl")
	if err != nil || len(files) < 8 {
		t.Fatalf("got %v, %v, want the templates", files, err)
	}
	texts := make(map[string]string)
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		texts[name] = string(b)
	}
	return texts
}

// The .qtpl.go files are the result of compiling the current templates.
func TestTemplates_GoFiles_AreCompiled(t *testing.T) {
	for name, text := range templates(t) {
		var raw bytes.Buffer
		if err := parser.ParseNoLineComments(&raw, strings.NewReader(text), name, "console"); err != nil {
			t.Fatal(err)
		}
		want, err := format.Source(raw.Bytes())
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if got, err := os.ReadFile(name + ".go"); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s.go differs from its template (%v): run go run ./scripts/templates", name, err)
		}
	}
}

// Placeholders of values while a template is read as HTML.
const (
	valueMark   = "xvaluex"
	addressMark = "xaddressx" // a value that href has checked
	partMark    = "xpartx"    // another template
)

// plainAttributes are the attributes in which a template may write any value. A browser uses their
// value as a text, a number, a name or a class, never as an address, a script or a style.
var plainAttributes = strings.Fields("aria-label class cx cy d data-after for height id name nonce value " +
	"viewbox width x y")

// addressAttributes are the attributes in which a template may write an address of the console.
var addressAttributes = []string{"action", "data-stream", "href"}

var (
	tag      = regexp.MustCompile(`(?s)\{%.*?%\}`)
	control  = regexp.MustCompile(`^\{% *(if|else|elseif|endif|for|endfor|switch|case|default|endswitch|code|import) ?`)
	function = regexp.MustCompile(`(?s)\{% func .*?%\}(.*?)\{% endfunc %\}`)
	unquoted = regexp.MustCompile(`=[^"\s>]*x(value|address|part)x`)
)

// misplaced returns the faults of a template: values that quicktemplate does not escape, and values
// where escaping does not help.
func misplaced(template string) []string {
	var faults []string
	for _, body := range function.FindAllStringSubmatch(template, -1) {
		text := tag.ReplaceAllStringFunc(body[1], func(s string) string {
			switch {
			case control.MatchString(s):
				return ""
			case strings.HasPrefix(s, "{%= "):
				return partMark
			case strings.HasPrefix(s, "{%s href(") && strings.HasSuffix(s, ") %}"):
				return addressMark
			case strings.HasPrefix(s, "{%s "), strings.HasPrefix(s, "{%d "), strings.HasPrefix(s, "{%dul "):
				return valueMark
			}
			faults = append(faults, "not allowed: "+s)
			return ""
		})
		faults = append(faults, misplacedMarks(text)...)
	}
	return faults
}

// misplacedMarks returns the faults of an HTML text that has marks in place of values.
func misplacedMarks(text string) []string {
	var faults []string
	marked := regexp.MustCompile(`x(value|address|part)x`)
	raw := "" // name of the open element whose content is not HTML
	for z := html.NewTokenizer(strings.NewReader(text)); z.Next() != html.ErrorToken; {
		source := string(z.Raw())
		token := z.Token()
		if !marked.MatchString(source) {
			if token.Type == html.StartTagToken && slices.Contains([]string{"script", "style"}, token.Data) {
				raw = token.Data
			}
			continue
		}
		switch token.Type {
		case html.TextToken:
			if raw != "" || strings.Contains(source, addressMark) {
				faults = append(faults, "in a text: "+source)
			}
			continue
		case html.StartTagToken, html.SelfClosingTagToken:
		default:
			faults = append(faults, "in a comment or an end: "+source)
			continue
		}
		if unquoted.MatchString(source) || marked.MatchString(token.Data) {
			faults = append(faults, "without quotes: "+source)
		}
		for _, a := range token.Attr {
			address, value := strings.Contains(a.Val, addressMark), strings.Contains(a.Val, valueMark)
			switch {
			case marked.MatchString(a.Key), strings.Contains(a.Val, partMark),
				value && !slices.Contains(plainAttributes, a.Key),
				address && (a.Val != addressMark || !slices.Contains(addressAttributes, a.Key)):
				faults = append(faults, "in the attribute "+a.Key+": "+source)
			}
		}
	}
	return faults
}

// The compiler of the templates escapes values for HTML, without regard to their place. So a value
// may be only where that is enough: in a text, or in an attribute that is neither an address nor a
// script. An address must go through href.
func TestTemplates_Values_AreWhereEscapingHolds(t *testing.T) {
	values := 0
	for name, text := range templates(t) {
		values += strings.Count(text, "{%s ")
		for _, fault := range misplaced(text) {
			t.Errorf("%s: %s", name, fault)
		}
	}
	if values < 100 {
		t.Errorf("got %d values, want all of the pages", values)
	}
}

// misplaced finds the fault in each bad template. Otherwise the test above would prove nothing.
func TestTemplates_Rules_FindFaults(t *testing.T) {
	for _, body := range []string{
		`{%s= x %}`, `{%v x %}`, `{%z= x %}`, `{%u x %}`, `{%j x %}`, `{%=h f() %}`, `{% cat "x" %}`,
		`<a href="{%s x %}">`, `<a href="/ui/{%s href(x) %}">`, `<a href={%s href(x) %}>`, `<form action="{%s x %}">`,
		`<p class={%s x %}>`, `<p class='{%s x %}'>`, `<p {%s x %}>`, `<p {%s x %}="1">`, `<{%s x %}>`,
		`<p onclick="{%s x %}">`, `<p style="{%s x %}">`, `<iframe srcdoc="{%s x %}">`, `<img src="{%s href(x) %}">`,
		`<script>{%s x %}</script>`, `<style>{%s x %}</style>`, `<!-- {%s x %} -->`, `<p class="{%= f() %}">`,
		`{%s href(x) %}`,
	} {
		if len(misplaced("{% func f() %}"+body+"{% endfunc %}")) == 0 {
			t.Errorf("%s: got no fault", body)
		}
	}
}
