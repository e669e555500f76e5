package console

import (
	"net/http"
	"net/url"
	"time"

	"revoked"
	"revoked/api/request"
)

// pastAnswer is the response to GET /v1/audit/token.
type pastAnswer struct {
	At                 *float64 `json:"at"`
	State              string   `json:"state"`
	Since              *float64 `json:"since"`
	Until              *float64 `json:"until"`
	Reason             string   `json:"reason"`
	Index              uint64   `json:"index"`
	AppliedAt          *float64 `json:"applied_at"`
	AcknowledgedAt     *float64 `json:"acknowledged_at"`
	AcknowledgedBefore *float64 `json:"acknowledged_before"`
	WaitedFor          []string `json:"waited_for"`
}

// inWords returns the class of the notice about the state, the state, and its meaning.
func (a *pastAnswer) inWords() (level, state, meaning string) {
	switch a.State {
	case "active":
		return "good", "Active.", "A resource server that the token is meant for got the answer that it is active."
	case "inactive":
		return "bad", "Not active.", "Introspection answered that the token is not active."
	case "unknown":
		return "warn", "Unknown.", "The token was not registered, and no other record contained its digest."
	case "not_held":
		return "warn", "No records.", "The cluster no longer has the records of that time."
	}
	return "warn", a.State, ""
}

// pastPage is the body of the page of a token in the past.
type pastPage struct {
	At     string
	Answer *pastAnswer
}

const pastTitle = "A token in the past"

func (v *visit) getPast() error {
	return v.showForms("GET /v1/audit/token", pastTitle, &pastPage{})
}

// postPast shows whether a token was active at a given time. The call has only the digest of the
// token.
func (v *visit) postPast() error {
	digest, token := v.field("digest"), v.field("token")
	v.form.Del("token")
	if (digest == "") == (token == "") {
		return request.Malformed("enter the token or its digest")
	}
	if token != "" {
		digest = revoked.DigestToken(token).String()
	}
	query := url.Values{"digest": {digest}}
	p := pastPage{At: v.field("at"), Answer: new(pastAnswer)}
	if p.At != "" {
		query.Set("at", p.At)
	}
	if err := v.call("GET", "/v1/audit/token?"+query.Encode(), nil, p.Answer); err != nil {
		return err
	}
	return v.show(http.StatusOK, pastTitle, &p)
}

// moment returns Unix seconds as a text in UTC with milliseconds, or a dash for none.
func moment(seconds *float64) string {
	if seconds == nil || *seconds == 0 {
		return "-"
	}
	return time.UnixMicro(int64(*seconds * 1e6)).UTC().Format("2006-01-02 15:04:05.000 UTC")
}
