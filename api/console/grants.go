package console

import (
	"net/http"
	"net/url"
	"strconv"

	"github.com/dustin/go-humanize/english"

	"revoked/api/request"
)

// A grant is one grant in the response to GET /v1/grants.
type grant struct {
	GrantID      string   `json:"grant_id"`
	State        string   `json:"state"`
	ClientID     string   `json:"client_id"`
	Subject      string   `json:"subject"`
	Session      string   `json:"session"`
	Issuer       string   `json:"issuer"`
	Scope        string   `json:"scope"`
	RegisteredBy string   `json:"registered_by"`
	CreatedAt    *float64 `json:"created_at"`
	ExpiresAt    *float64 `json:"expires_at"`
	TokenCount   int      `json:"token_count"`
	Revoked      *endView `json:"revoked"`
	Tokens       []struct {
		Kind      string   `json:"kind"`
		Prefix    string   `json:"digest_prefix"`
		State     string   `json:"state"`
		IssuedAt  *float64 `json:"issued_at"`
		ExpiresAt *float64 `json:"expires_at"`
		Scope     string   `json:"scope"`
		Audience  []string `json:"audience"`
	} `json:"tokens"`
}

// selectors are the fields by which grants are found.
var selectors = []string{"client_id", "subject", "session", "issuer"}

// grantsPage is the body of the search for grants.
type grantsPage struct {
	Query  map[string]string
	Found  bool // whether a search was made
	Grants []grant
	Next   string
}

// again returns the fields of the search for the next page.
func (b *grantsPage) again() []hidden {
	var fields []hidden
	for _, name := range append([]string{"state"}, selectors...) {
		if value := b.Query[name]; value != "" {
			fields = append(fields, hidden{name, value})
		}
	}
	return append(fields, hidden{"after", b.Next})
}

func (v *visit) getGrants() error {
	return v.showForms("GET /v1/grants", "Grants", &grantsPage{})
}

// postGrants finds grants. It is a POST, so that no subject gets into a URL.
func (v *visit) postGrants() error {
	p := grantsPage{Query: map[string]string{}, Found: true}
	query := url.Values{"limit": {"50"}}
	for _, name := range append([]string{"state", "after"}, selectors...) {
		if value := v.form.Get(name); value != "" {
			p.Query[name] = value
			query.Set(name, value)
		}
	}
	var list struct {
		Grants []grant
		Next   string
	}
	if err := v.call("GET", "/v1/grants?"+query.Encode(), nil, &list); err != nil {
		return err
	}
	p.Grants, p.Next = list.Grants, list.Next
	return v.show(http.StatusOK, "Grants", &p)
}

func (v *visit) getGrant() error {
	var g grant
	id := v.http.PathValue("id")
	if err := v.call("GET", "/v1/grants/"+apiPath(id), nil, &g); err != nil {
		return err
	}
	return v.show(http.StatusOK, "Grant", &g)
}

func (v *visit) postGrant() error {
	id := v.http.PathValue("id")
	if err := v.confirmed(id); err != nil {
		return err
	}
	reason := url.Values{"reason": {v.field("reason")}}
	if err := v.call("DELETE", "/v1/grants/"+apiPath(id)+"?"+reason.Encode(), nil, nil); err != nil {
		return err
	}
	return v.done(pathOf("grants", id), "The grant is revoked: no node answers active for its tokens.")
}

// cutoffPage is the body of the page of cut-offs.
type cutoffPage struct {
	Query   map[string]string
	Names   []hidden // selectors and values of the dry run; the form shows them and sends them again
	Dry     bool     // whether a dry run was made
	Matched int
}

func (v *visit) getCutoffs() error {
	return v.showForms(CutOff, "Cut-offs", &cutoffPage{})
}

// cutoffBody returns the body of the call, and the fields of the form that it contains.
func (v *visit) cutoffBody() (body map[string]any, fields []hidden, err error) {
	body = map[string]any{}
	for _, name := range append([]string{"grant_id", "reason"}, selectors...) {
		if value := v.form.Get(name); value != "" {
			body[name] = value
			fields = append(fields, hidden{name, value})
		}
	}
	if text := v.field("issued_before"); text != "" {
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return nil, nil, request.Malformed("issued before: want Unix seconds")
		}
		body["issued_before"] = n
		fields = append(fields, hidden{"issued_before", text})
	}
	return body, fields, nil
}

// postDryRun counts the grants of a cut-off and requires a confirmation of the number.
func (v *visit) postDryRun() error {
	body, fields, err := v.cutoffBody()
	if err != nil {
		return err
	}
	body["dry_run"] = true
	var counted struct{ Matched int }
	if err := v.call("POST", "/v1/revocations", body, &counted); err != nil {
		return err
	}
	return v.show(http.StatusOK, "Cut-offs", &cutoffPage{Names: fields, Dry: true, Matched: counted.Matched})
}

// postCutoff creates a cut-off after a dry run has counted its grants. If another number of grants
// matches now, the API does nothing.
func (v *visit) postCutoff() error {
	body, _, err := v.cutoffBody()
	if err != nil {
		return err
	}
	expect, err := strconv.Atoi(v.field("expect"))
	if err != nil || expect < 0 {
		return request.Malformed("the dry run is missing")
	}
	if err := v.confirmed(strconv.Itoa(expect)); err != nil {
		return err
	}
	body["expect"] = expect
	var made struct{ Index uint64 }
	if err := v.call("POST", "/v1/revocations", body, &made); err != nil {
		return err
	}
	return v.done(Root+"/cutoffs", "The cut-off is final at index %d: %s revoked.", made.Index,
		english.Plural(expect, "grant is", "grants are"))
}
