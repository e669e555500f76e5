package console

import (
	"fmt"
	"net/http"
	"strings"

	"revoked"
	"revoked/api/clientauth"
	"revoked/api/request"
)

// staff are the roles that may see a page.
var staff = []revoked.Role{revoked.RoleAdmin, revoked.RoleOperator, revoked.RoleViewer, revoked.RoleAuditor}

// A signInView is the body of the sign-in page.
type signInView struct {
	ID, Problem string
	StaffRoles  string
}

func newSignIn(id, problem string) *signInView {
	var names []string
	for _, r := range staff {
		names = append(names, string(r))
	}
	return &signInView{id, problem, strings.Join(names, ", ")}
}

func (v *visit) getSignIn() error {
	if v.session != nil {
		return v.redirect(Root) // getRoot chooses a page that the client's roles allow
	}
	return v.show(http.StatusOK, "Sign in", newSignIn("", ""))
}

// postSignIn begins a session. Guesses are limited as at every other endpoint.
func (v *visit) postSignIn() error {
	control, ctx := v.console.cfg.Access, v.Request.Request().Context()
	id, secret := v.form.Get("client_id"), v.form.Get("client_secret")
	v.form.Del("client_secret")
	current := control.CatchUp(ctx) == nil
	caller, err := control.Authenticate(ctx, clientauth.Attempt{
		Candidates: []clientauth.Credential{{ID: id, Secret: secret}}, Method: revoked.AuthBasic, // as under /v1
		From: control.Addr(v.Request)})
	if err != nil {
		f := request.FailureOf("", err)
		v.Outcome, v.Err = f.Outcome, f.Cause
		if f.RetryAfter > 0 {
			v.Response().Header().Set("Retry-After", retrySeconds(f.RetryAfter))
		}
		problem := f.Title + ", try again later"
		if f.Status == http.StatusUnauthorized {
			problem = "The client id or the secret is wrong."
		}
		return v.show(f.Status, "Sign in", newSignIn(clip(id), problem))
	}
	if err := control.Admit(v.Request, caller.Client); err != nil {
		return err
	}
	switch refused := caller.Client.Require(staff...); {
	case refused != nil && !current:
		return fmt.Errorf("%w: this node may not know the roles of the client yet", revoked.ErrNotCurrent)
	case refused != nil:
		v.Outcome = "forbidden"
		return v.show(http.StatusForbidden, "Sign in",
			newSignIn(clip(id), "This client has no role that may see a page."))
	}
	v.console.sessions.end(v.cookie) // the browser's previous session, if any
	v.setCookie(v.console.sessions.begin(caller))
	v.Outcome = "signed_in"
	return v.redirect(Root)
}

// clip bounds a text from a form that a page shows again.
func clip(s string) string {
	if len(s) > revoked.MaxClientID {
		return ""
	}
	return s
}

func (v *visit) postSignOut() error {
	v.console.sessions.end(v.cookie)
	v.setCookie("")
	v.Response().Header().Set("Clear-Site-Data", `"cache"`)
	return v.redirect(Root + "/sign-in")
}

// askToSignIn answers a request without a session. A script gets a status, a user gets the page.
func (v *visit) askToSignIn() error {
	v.Outcome = "signed_out"
	req := v.Request.Request()
	if isRefresh(req) || req.Method == http.MethodPost {
		return &request.Failure{Status: http.StatusUnauthorized, Title: "You are signed out", Outcome: "signed_out",
			Detail: "The session has ended, or belongs to another node. Nothing was done. Sign in again."}
	}
	return v.redirect(Root + "/sign-in")
}

// getRoot redirects to the first page that the client's roles allow.
func (v *visit) getRoot() error {
	for _, n := range navigation {
		if v.may(n.call) {
			return v.redirect(n.Path)
		}
	}
	return v.redirect(Root + "/")
}

// redirect makes the browser load another page of the console with GET.
func (v *visit) redirect(to string) error {
	v.Response().Header().Set("Location", to)
	v.Response().WriteHeader(http.StatusSeeOther)
	return nil
}
