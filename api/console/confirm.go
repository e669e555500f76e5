package console

import (
	"fmt"
	"net/http"
	"strings"

	"revoked/api/request"
)

// A confirmation is a form for an action that cannot be undone. The user must type a name first.
type confirmation struct {
	ID                  string
	Action, Label, Text string
	Want                string // the text to type
	Reason              bool   // whether the form has a field for a reason
	Hidden              []hidden
}

type hidden struct{ Name, Value string }

// Confirm returns a form. hiddenPairs are names and values that the form also sends.
func (p *page) Confirm(action, label, want, text string, hiddenPairs ...string) confirmation {
	c := confirmation{ID: p.Next(), Action: action, Label: label, Text: text, Want: want}
	for i := 0; i+1 < len(hiddenPairs); i += 2 {
		c.Hidden = append(c.Hidden, hidden{hiddenPairs[i], hiddenPairs[i+1]})
	}
	return c
}

// WithReason returns c with a field for a reason.
func (c confirmation) WithReason() confirmation {
	c.Reason = true
	return c
}

// confirmed returns a failure unless the person has typed the text that the form requires. It
// ignores spaces at either end of both texts, because a page does not show them.
func (v *visit) confirmed(want string) error {
	if v.field("typed") == strings.TrimSpace(want) && want != "" {
		return nil
	}
	return &request.Failure{Status: http.StatusUnprocessableEntity, Title: "Not confirmed", Outcome: "not_confirmed",
		Detail: fmt.Sprintf("Nothing was done: type %q exactly to confirm.", want)}
}

// done redirects the browser to a page, which shows the text.
func (v *visit) done(to, format string, args ...any) error {
	v.console.sessions.leave(v.session, fmt.Sprintf(format, args...))
	return v.redirect(to)
}
