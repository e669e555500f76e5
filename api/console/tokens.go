package console

import (
	"net/http"
	"net/url"

	"revoked/api/request"
)

// selectorView is the selector of a cut-off.
type selectorView struct {
	ClientID string `json:"client_id,omitempty"`
	Subject  string `json:"subject,omitempty"`
	Session  string `json:"session,omitempty"`
	GrantID  string `json:"grant_id,omitempty"`
	Issuer   string `json:"issuer,omitempty"`
}

// endView is the end of a grant.
type endView struct {
	At     *float64 `json:"at"`
	By     string   `json:"by"`
	Reason string   `json:"reason"`
	Index  uint64   `json:"index"`
	Cutoff bool     `json:"cutoff"`
}

// explanation is the response to POST /v1/explain.
type explanation struct {
	Active       bool     `json:"active"`
	Reason       string   `json:"reason"`
	Kind         string   `json:"kind"`
	GrantID      string   `json:"grant_id"`
	ClientID     string   `json:"client_id"`
	Subject      string   `json:"subject"`
	Session      string   `json:"session"`
	Issuer       string   `json:"issuer"`
	IssuedAt     *float64 `json:"issued_at"`
	ExpiresAt    *float64 `json:"expires_at"`
	Audience     []string `json:"audience"`
	Scope        string   `json:"scope"`
	Revoked      *endView `json:"revoked"`
	IssuerReason string   `json:"issuer_reason"`
	Node         string   `json:"node"`
	AppliedIndex uint64   `json:"applied_index"`
	LeaseLeftMS  int64    `json:"lease_left_ms"`
	Cutoff       *struct {
		Selector     selectorView `json:"selector"`
		Withheld     bool         `json:"withheld"`
		IssuedBefore *float64     `json:"issued_before"`
		At           *float64     `json:"at"`
		By           string       `json:"by"`
		Reason       string       `json:"reason"`
	} `json:"cutoff"`
}

// tokensPage is the body of the page of tokens.
type tokensPage struct {
	As     string
	Answer *explanation
}

func (v *visit) getTokens() error {
	return v.showForms("POST /v1/explain", "Tokens", &tokensPage{})
}

// postExplain explains a token, or the digest that the browser has made of it. The page does not
// show either again.
func (v *visit) postExplain() error {
	body := map[string]string{}
	for _, name := range []string{"token", "digest"} {
		if value := v.field(name); value != "" {
			body[name] = value
		}
	}
	if as := v.form.Get("as"); as != "" {
		body["as"] = as
	}
	v.form.Del("token")
	p := tokensPage{As: body["as"], Answer: new(explanation)}
	if err := v.call("POST", "/v1/explain", body, p.Answer); err != nil {
		return err
	}
	return v.show(http.StatusOK, "Tokens", &p)
}

// postRevoke revokes a token through the endpoint of RFC 7009.
func (v *visit) postRevoke() error {
	token := v.field("token")
	v.form.Del("token")
	if token == "" {
		return request.Malformed("the token is missing")
	}
	if err := v.confirmed("revoke"); err != nil {
		return err
	}
	a := newAnswer(v.Response())
	body := []byte(url.Values{"token": {token}}.Encode())
	err := v.send(v.http.Context(), a, "POST", "/oauth2/revoke", "application/x-www-form-urlencoded", body)
	if err != nil {
		return err
	}
	if err := a.decode(nil); err != nil {
		return err
	}
	if a.header.Get("Revoked-Outcome") == "unknown" {
		return v.done(Root+"/tokens", "The token is not registered. A later registration is inactive from the start.")
	}
	return v.done(Root+"/tokens", "Revoked: no node answers active for a token of this grant.")
}
