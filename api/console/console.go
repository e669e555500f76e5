package console

import (
	"crypto/rand"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"revoked"
	"revoked/api/access"
	"revoked/api/clientauth"
	"revoked/api/request"
)

// Root is the path of the first page. Every page is below it.
const Root = "/ui"

// Config configures a [Console]. All fields are required.
type Config struct {
	NodeID string // distinguishes the cookies of nodes on one host
	Access *access.Control
	API    http.Handler // serves /v1 and the OAuth endpoints
	// Roles returns the roles that may make an API call, such as "GET /v1/members". They decide
	// which links and forms a page has; the API itself decides about each call.
	Roles  func(call string) []revoked.Role
	Secure func(*http.Request) bool // reports whether the browser uses TLS
	Now    func() time.Time
}

// A Console serves the pages. Its methods may be called concurrently. It starts no goroutine that
// outlives a request, and needs no Close.
type Console struct {
	cfg      Config
	mux      *http.ServeMux
	sessions *sessions
	origins  *http.CrossOriginProtection
	cookie   string // name of the session cookie
}

// New returns a console without sessions.
func New(cfg Config) *Console {
	c := &Console{cfg: cfg, cookie: cookieName(cfg.NodeID), mux: http.NewServeMux(),
		origins:  http.NewCrossOriginProtection(),
		sessions: &sessions{byKey: make(map[sessionKey]*session), now: cfg.Now, lasts: cfg.Access.Lasts}}
	for pattern, h := range c.routes() {
		c.mux.HandleFunc(pattern, func(_ http.ResponseWriter, r *http.Request) {
			v := r.Context().Value(visitKey{}).(*visit)
			v.http = r
			v.err = h(v)
		})
	}
	return c
}

// open lists the patterns that need no session.
var open = map[string]bool{
	"GET /ui/sign-in": true, "POST /ui/sign-in": true, "GET /ui/static/{file}": true,
}

func (c *Console) routes() map[string]func(*visit) error {
	return map[string]func(*visit) error{
		"GET /ui/static/{file}": (*visit).getAsset,
		"GET /ui/sign-in":       (*visit).getSignIn,
		"POST /ui/sign-in":      (*visit).postSignIn,
		"POST /ui/sign-out":     (*visit).postSignOut,

		"GET /ui":     (*visit).getRoot,
		"GET /ui/{$}": (*visit).getOverview,

		"GET /ui/members":                  (*visit).getMembers,
		"GET /ui/members/{node}":           (*visit).getMember,
		"POST /ui/members/{node}/{action}": (*visit).postMember,
		"POST /ui/admissions/{action}":     (*visit).postAdmission,

		"GET /ui/tokens":          (*visit).getTokens,
		"POST /ui/tokens/explain": (*visit).postExplain,
		"POST /ui/tokens/revoke":  (*visit).postRevoke,

		"GET /ui/grants":           (*visit).getGrants,
		"POST /ui/grants":          (*visit).postGrants,
		"GET /ui/grants/{id}":      (*visit).getGrant,
		"POST /ui/grants/{id}/end": (*visit).postGrant,
		"GET /ui/cutoffs":          (*visit).getCutoffs,
		"POST /ui/cutoffs/dry-run": (*visit).postDryRun,
		"POST /ui/cutoffs":         (*visit).postCutoff,

		"GET /ui/clients":                  (*visit).getClients,
		"POST /ui/clients":                 (*visit).postClients,
		"GET /ui/clients/{id}":             (*visit).getClient,
		"POST /ui/clients/{id}/{action}":   (*visit).postClient,
		"GET /ui/issuers":                  (*visit).getIssuers,
		"GET /ui/issuers/{name}":           (*visit).getIssuer,
		"POST /ui/issuers":                 (*visit).postIssuers,
		"POST /ui/issuers/{name}/{action}": (*visit).postIssuer,

		"GET /ui/settings":         (*visit).getSettings,
		"GET /ui/settings/{name}":  (*visit).getSetting,
		"POST /ui/settings/{name}": (*visit).postSetting,

		"GET /ui/past":         (*visit).getPast,
		"POST /ui/past":        (*visit).postPast,
		"GET /ui/audit":        (*visit).getAudit,
		"GET /ui/audit/stream": (*visit).getAuditStream,
	}
}

type visitKey struct{}

// A visit is one request to the console. Only the goroutine of its request uses it.
type visit struct {
	*request.Request
	console *Console
	http    *http.Request // the request with the values of its path
	cookie  string        // value of the session cookie
	session *session      // nil: not signed in
	inner   request.Inner // value for the API calls that the page makes
	nonce   string
	form    url.Values // form of a POST
	err     error
}

// Serve answers a request to /ui or below it.
func (c *Console) Serve(r *request.Request) error {
	v := c.newVisit(r)
	if err := c.serve(v); err != nil {
		v.fail(err)
	}
	return nil
}

// Owns reports whether the console answers requests to path.
func Owns(path string) bool { return path == Root || strings.HasPrefix(path, Root+"/") }

// Fail sends the page of an error that was found before [Console.Serve].
func (c *Console) Fail(r *request.Request, err error) { c.newVisit(r).fail(err) }

func (c *Console) newVisit(r *request.Request) *visit {
	v := &visit{Request: r, console: c, nonce: rand.Text()}
	v.setHeaders()
	return v
}

func (c *Console) serve(v *visit) error {
	req := v.Request.Request()
	if !c.cfg.Secure(req) {
		return &request.Failure{Status: http.StatusBadRequest, Title: "The console needs HTTPS", Outcome: "plain_http",
			Detail: "A secret must not cross the network in the clear. Open the same address with https://."}
	}
	if err := c.origins.Check(req); err != nil {
		return &request.Failure{Status: http.StatusForbidden, Title: "Request from another site", Outcome: "cross_origin",
			Detail: "The console accepts forms from its own pages only."}
	}
	h, pattern := c.mux.Handler(req)
	if pattern == "" {
		return c.unrouted(h, req)
	}
	v.signedIn()
	if v.session == nil && !open[pattern] {
		return v.askToSignIn()
	}
	if req.Method == http.MethodPost {
		if err := v.readForm(!open[pattern]); err != nil {
			return err
		}
	}
	v.Quiet = req.Method != http.MethodPost
	c.mux.ServeHTTP(v.Response(), req.WithContext(contextWith(req, v)))
	return v.err
}

// unrouted answers a path that has no page, or only pages for other methods.
func (c *Console) unrouted(h http.Handler, req *http.Request) error {
	a := newAnswer(nil)
	h.ServeHTTP(a, req)
	if a.status == http.StatusMethodNotAllowed {
		return &request.Failure{Status: a.status, Title: "Method not allowed", Allow: a.header.Get("Allow"),
			Outcome: "method_not_allowed"}
	}
	return &request.Failure{Status: http.StatusNotFound, Title: "No such page", Outcome: "not_found"}
}

// setHeaders sets the headers of every page. The middleware has set no-store and nosniff.
func (v *visit) setHeaders() {
	h := v.Response().Header()
	h.Set("Content-Security-Policy", "default-src 'none'; script-src 'nonce-"+v.nonce+"'; style-src 'nonce-"+v.nonce+
		"'; img-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'; "+
		"require-trusted-types-for 'script'; trusted-types 'none'")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("X-Frame-Options", "DENY")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Permissions-Policy", "camera=(), geolocation=(), microphone=()")
}

// isRefresh reports whether a script sent the request, to update an open page. Such a request does
// not keep a session alive. Otherwise the session of an unattended page would not end.
func isRefresh(r *http.Request) bool { return r.Header.Get("Revoked-Refresh") != "" }

// maxForm limits the body of a form, in bytes. It exceeds the longest token.
const maxForm = 64 << 10

// readForm reads the form of a POST. If owned is set, it checks the token that every page of a
// session has in its forms.
func (v *visit) readForm(owned bool) error {
	req := v.Request.Request()
	if _, err := request.MediaType(req, "application/x-www-form-urlencoded"); err != nil {
		return err
	}
	body, err := request.ReadBody(req, maxForm)
	if err != nil {
		return err
	}
	v.form, err = url.ParseQuery(string(body))
	clear(body)
	if err != nil {
		return request.Malformed("the form cannot be read")
	}
	if owned && !v.session.owns(v.form.Get("form")) {
		return &request.Failure{Status: http.StatusForbidden, Title: "The form is from another session", Outcome: "form",
			Detail: "Open the page again, and send the form from there."}
	}
	return nil
}

// field returns a field of the form without spaces around it. It is not for names: they may begin
// and end with spaces, so take them from the form as they are.
func (v *visit) field(name string) string { return strings.TrimSpace(v.form.Get(name)) }

// sentence returns the title of a failure with a capital first letter.
func sentence(title string) string {
	first, size := utf8.DecodeRuneInString(title)
	return string(unicode.ToUpper(first)) + title[size:]
}

// errorPage is the body of the page of an error.
type errorPage struct{ *request.Failure }

// fail sends the page of an error.
func (v *visit) fail(err error) {
	if v.Response().Committed {
		v.Err = err
		return
	}
	if errors.Is(err, clientauth.ErrUnauthenticated) && v.session != nil {
		v.console.sessions.end(v.cookie) // the client has changed
		v.session = nil
		if err = v.askToSignIn(); err == nil {
			return
		}
	}
	f := request.FailureOf("", err)
	v.Outcome, v.Err = f.Outcome, f.Cause
	h := v.Response().Header()
	if f.Allow != "" {
		h.Set("Allow", f.Allow)
	}
	if f.RetryAfter > 0 {
		h.Set("Retry-After", retrySeconds(f.RetryAfter))
	}
	if f.Status != http.StatusUnauthorized { // browsers would prompt for a password
		request.SetStatusHeaders(h, f.Status)
	}
	_ = v.show(f.Status, sentence(f.Title), &errorPage{f})
}
