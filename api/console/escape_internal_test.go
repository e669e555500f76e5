package console

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"golang.org/x/net/html"

	"revoked"
	"revoked/api/clientauth"
	"revoked/api/request"
)

// bodies returns the body of each page.
func bodies() []body {
	return []body{&auditPage{}, &clientsPage{}, &client{}, &cutoffPage{}, &errorPage{&request.Failure{}}, &grantsPage{},
		&grant{}, &issuersPage{}, &issuer{}, &memberPage{}, &membersPage{}, &overviewView{}, &pastPage{}, &secretPage{},
		&settingPage{}, &settingsPage{}, &signInView{}, &tokensPage{}}
}

// fill sets every string in v to text, every bool to flag, and every number to 1.
func fill(v reflect.Value, text string, flag bool) {
	switch v.Kind() {
	case reflect.String:
		v.SetString(text)
	case reflect.Bool:
		v.SetBool(flag)
	case reflect.Int, reflect.Int64:
		v.SetInt(1)
	case reflect.Uint64:
		v.SetUint(1)
	case reflect.Float64:
		v.SetFloat(1)
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), text, flag)
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		for i := range 2 {
			fill(v.Index(i), text, flag)
		}
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		value := reflect.New(v.Type().Elem()).Elem()
		if value.Kind() == reflect.Interface {
			value.Set(reflect.ValueOf(text))
		} else {
			fill(value, text, flag)
		}
		for _, key := range append([]string{"state", text}, selectors...) {
			v.SetMapIndex(reflect.ValueOf(key), value)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			field := v.Type().Field(i)
			if (v.Field(i).CanSet() || field.Anonymous) && field.Type.Kind() != reflect.Interface {
				fill(v.Field(i), text, flag)
			}
		}
	}
}

// render returns the page of a body, with text in every place that can have one.
func render(b body, text string, flag bool) string {
	fill(reflect.ValueOf(b).Elem(), text, flag)
	switch b := b.(type) {
	case *grant:
		b.State = "active" // the page of an active grant shows a form
	case *membersPage:
		b.Admitted[0].State = "admitted"
	}
	all := &revoked.Client{Roles: revoked.Roles()}
	p := &page{Title: text, Nonce: text, Form: text, Host: text, Client: text, Roles: text, Path: text, Notice: text,
		Nav: []link{{text, text, ""}}, Body: b, visit: &visit{session: &session{caller: &clientauth.Caller{Client: all}},
			console: &Console{cfg: Config{Roles: func(string) []revoked.Role { return revoked.Roles() }}}}}
	var page bytes.Buffer
	p.writelayout(&page)
	return page.String()
}

// shape returns the elements of a page with the names of their attributes, and the addresses.
func shape(page string) (elements, addresses []string) {
	for z := html.NewTokenizer(strings.NewReader(page)); z.Next() != html.ErrorToken; {
		t := z.Token()
		if t.Type == html.TextToken {
			continue
		}
		element := fmt.Sprint(t.Type, " ", t.Data)
		for _, a := range t.Attr {
			element += " " + a.Key
			switch a.Key {
			case "href", "src", "action", "formaction", "data-stream":
				addresses = append(addresses, a.Val)
			}
		}
		elements = append(elements, element)
	}
	return elements, addresses
}

// No text changes the structure of a page, wherever the page shows it, and no address leaves the
// console.
func TestPages_HostileTexts_ChangeNothing(t *testing.T) {
	for _, hostile := range []string{
		`"><script>alert(1)</script>`, `' onfocus='alert(1)' x='`, `" autofocus onfocus="alert(1)`, `javascript:alert(1)`,
		`//evil.example`, `https://evil.example/`, `</title></textarea></style></script><img src=x onerror=alert(1)>`,
		`--><svg onload=alert(1)>`, "`${alert(1)}`\x00<b", `&quot;&lt;b&gt;`, `/uix`, `\"><b>`,
	} {
		for i := range bodies() {
			for _, flag := range []bool{true, false} {
				b := bodies()[i]
				plain, _ := shape(render(bodies()[i], "plain", flag))
				page := render(b, hostile, flag)
				got, addresses := shape(page)
				if strings.Join(got, "\n") != strings.Join(plain, "\n") {
					t.Errorf("%T with %q: got the elements %v, want %v", b, hostile, got, plain)
				}
				if !strings.Contains(html.UnescapeString(page), hostile) {
					t.Errorf("%T: the page does not show %q", b, hostile)
				}
				for _, a := range addresses {
					if a != "/ui" && a != "#main" && a != "about:invalid" && !strings.HasPrefix(a, "/ui/") {
						t.Errorf("%T with %q: got the address %q", b, hostile, a)
					}
				}
			}
		}
	}
}

// bodies returns a body for each template, so the test above renders every page.
func TestPages_Bodies_MatchTemplates(t *testing.T) {
	files, err := filepath.Glob("*.qtpl")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		n += strings.Count(string(b), ") content(p *page) %}")
	}
	if n != len(bodies()) {
		t.Errorf("got %d bodies, want the %d of the templates", len(bodies()), n)
	}
}

func TestHref_ForeignAddresses_ReturnAboutInvalid(t *testing.T) {
	for _, own := range []string{"/ui", "/ui/", "/ui/grants/a%2Fb", "/ui/audit/stream?kind=a&x=b"} {
		if got := href(own); got != own {
			t.Errorf("%q: got %q, want the same", own, got)
		}
	}
	for _, other := range []string{"", "/", "/uix", "//ui/", "/v1/clients", "ui/", "javascript:alert(1)",
		"https://evil.example/ui/"} {
		if got := href(other); got != "about:invalid" {
			t.Errorf("%q: got %q, want about:invalid", other, got)
		}
	}
}
