package console

import (
	"bytes"
	"embed"
	"net/http"
	"path"
	"strconv"
	"strings"
	"time"

	"revoked"
	"revoked/api/request"
)

//go:embed static/*
var static embed.FS

// CutOff is the call that creates a cut-off. The revocation of a jti has the same path, but other
// roles.
const CutOff = "POST /v1/revocations of a cut-off"

// A link is a page in the navigation, and the API call whose answer the page shows.
type link struct{ Name, Path, call string }

// navigation lists the pages. A client sees only the pages whose call it may make.
var navigation = []link{
	{"Overview", Root + "/", "GET /v1/status"},
	{"Members", Root + "/members", "GET /v1/members"},
	{"Tokens", Root + "/tokens", "POST /v1/explain"},
	{"Grants", Root + "/grants", "GET /v1/grants"},
	{"Cut-offs", Root + "/cutoffs", CutOff},
	{"Clients", Root + "/clients", "GET /v1/clients"},
	{"Issuers", Root + "/issuers", "GET /v1/issuers"},
	{"Settings", Root + "/settings", "GET /v1/settings"},
	{"Audit", Root + "/audit", "GET /v1/audit"},
	{"Past", Root + "/past", "GET /v1/audit/token"},
}

// href returns an address of the console as it is. For any other text, such as a javascript:
// address, it returns an address that leads nowhere. Each address in a template goes through href.
func href(address string) string {
	if rest, ok := strings.CutPrefix(address, Root); ok && (rest == "" || rest[0] == '/') {
		return address
	}
	return "about:invalid"
}

// joined returns the texts, separated by commas.
func joined(texts []string) string { return strings.Join(texts, ", ") }

// joinedOr is like joined, but returns none if there are no texts.
func joinedOr(texts []string, none string) string {
	if len(texts) == 0 {
		return none
	}
	return joined(texts)
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// states returns the states for which a user can search for grants.
func states() []string {
	return []string{revoked.Live.String(), revoked.Revoked.String(), revoked.Expired.String()}
}

// at returns Unix seconds as a text in UTC, or a dash for none.
func at(seconds *float64) string {
	if seconds == nil || *seconds == 0 {
		return "-"
	}
	return time.Unix(int64(*seconds), 0).UTC().Format("2006-01-02 15:04:05 UTC")
}

// ms returns milliseconds as seconds with two digits.
func ms(n int64) string { return strconv.FormatFloat(float64(n)/1000, 'f', 2, 64) + " s" }

// pathOf escapes an id in a path.
func pathOf(parts ...string) string { return Root + "/" + apiPath(parts...) }

// A page is the data of the layout.
type page struct {
	Title, Nonce, Form string
	Host               string
	Client, Roles      string
	Nav                []link
	Path               string
	Notice             string // result of the previous action
	Body               body

	visit *visit
	ids   int
}

// May reports whether the client may make an API call.
func (p *page) May(call string) bool { return p.visit.may(call) }

// Current reports whether the page is the page of a link, or below it.
func (p *page) Current(l link) bool {
	return p.Path == l.Path || !strings.HasSuffix(l.Path, "/") && strings.HasPrefix(p.Path, l.Path+"/")
}

// Next returns a new id for an element.
func (p *page) Next() string {
	p.ids++
	return "f" + strconv.Itoa(p.ids)
}

// ID returns the last id that Next returned.
func (p *page) ID() string { return "f" + strconv.Itoa(p.ids) }

func (v *visit) may(call string) bool {
	return v.session != nil && v.session.caller.Client.HasAny(v.console.cfg.Roles(call)...)
}

// showForms shows a page of forms to clients that may make the call. The page itself makes no call.
func (v *visit) showForms(call, title string, b body) error {
	if err := v.session.caller.Client.Require(v.console.cfg.Roles(call)...); err != nil {
		return err
	}
	return v.show(http.StatusOK, title, b)
}

// show sends a page.
func (v *visit) show(status int, title string, b body) error {
	p := &page{Title: title, Nonce: v.nonce, Host: v.Request.Request().Host, Body: b, visit: v,
		Path: v.Request.Request().URL.Path}
	if v.session != nil {
		client := v.session.caller.Client
		if !isRefresh(v.Request.Request()) {
			p.Notice = v.console.sessions.take(v.session)
		}
		p.Client, p.Form, p.Roles = client.ID, v.session.form, roleNames(client.Roles)
		for _, n := range navigation {
			if v.may(n.call) {
				p.Nav = append(p.Nav, n)
			}
		}
	}
	var text bytes.Buffer
	p.writelayout(&text)
	return v.Send(status, "text/html; charset=utf-8", text.Bytes())
}

func roleNames(roles []revoked.Role) string {
	names := make([]string, len(roles))
	for i, r := range roles {
		names[i] = string(r)
	}
	return strings.Join(names, ", ")
}

// contentTypes are the content types of the assets, by extension.
var contentTypes = map[string]string{
	".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml",
}

func (v *visit) getAsset() error {
	name := v.http.PathValue("file")
	b, err := static.ReadFile("static/" + name)
	kind, ok := contentTypes[path.Ext(name)]
	if err != nil || !ok {
		return &request.Failure{Status: http.StatusNotFound, Title: "No such file", Outcome: "not_found"}
	}
	return v.Send(http.StatusOK, kind, b)
}
