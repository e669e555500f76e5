package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/labstack/echo/v4"

	"revoked"
)

// maxAhead is how far issued_before may lie ahead of the node's clock. A cut-off cannot be taken back:
// one far ahead would lock its client, subject or issuer out for as long.
const maxAhead = 5 * time.Minute

var cutoffFields = []string{"client_id", "subject", "session", "grant_id", "issuer", "issued_before", "reason", "dry_run", "expect"}

// decodeCutoff reads the body of POST /v1/revocations.
func decodeCutoff(c echo.Context) (req revoked.CutoffRequest, err error) {
	err = decodeBody(c, false, []string{typeJSON}, cutoffFields, func(r *jsonReader, k int) (err error) {
		if r.null() {
			return nil
		}
		switch k {
		case 0:
			req.ClientID, err = r.words(maxID)
		case 1:
			req.Subject, err = r.words(maxID)
		case 2:
			req.Session, err = r.words(maxID)
		case 3:
			req.GrantID, err = r.words(maxID)
		case 4:
			req.Issuer, err = r.words(maxURI)
		case 5:
			req.IssuedBefore, err = r.seconds()
		case 6:
			req.Reason, err = r.reason()
		case 7:
			req.DryRun, err = r.boolean()
		case 8:
			var n uint64
			n, err = r.count(1 << 40)
			expect := int(n)
			req.Expect = &expect
		}
		return err
	})
	if err == nil && req.Selector.IsZero() {
		err = fmt.Errorf("%w: give at least one of client_id, subject, session, grant_id, issuer", revoked.ErrInvalid)
	}
	return req, err
}

// postRevocations is POST /v1/revocations: a cut-off.
func (a *API) postRevocations(c echo.Context) error {
	req, err := decodeCutoff(c)
	if err != nil {
		return a.refuse(c, err)
	}
	if req.IssuedBefore > revoked.TimeOf(a.cfg.Now()).Add(maxAhead) {
		return a.problem(c, fmt.Errorf("%w: issued_before lies ahead of now", revoked.ErrUnprocessable))
	}
	ctx, cancel := a.slowly(c)
	defer cancel()
	res, err := a.cfg.Backend.RevokeMatching(ctx, revoked.ActorOf(a.caller(c)), req)
	if errors.Is(err, revoked.ErrExpectation) {
		return a.unexpected(c, err, res.Matched)
	}
	if err != nil {
		return a.problem(c, err)
	}
	return a.reply(c, http.StatusOK, indexAnswer{Index: res.Index, Matched: res.Matched})
}

// unexpected answers 409 and says how many grants match.
func (a *API) unexpected(c echo.Context, err error, matched *int) error {
	a.note(c, "expectation")
	body, jerr := json.Marshal(struct {
		problemBody
		Matched *int `json:"matched,omitempty"`
	}{problemBody{Type: "about:blank", Title: "another number of grants matches", Status: http.StatusConflict, Detail: err.Error()}, matched})
	if jerr != nil {
		return a.problem(c, err)
	}
	return write(c, http.StatusConflict, typeProblem, body)
}

// slowly returns the request's context with the timeout of calls that may take long, and keeps the
// connection open for it.
func (a *API) slowly(c echo.Context) (context.Context, context.CancelFunc) {
	at := time.Now().Add(slowTimeout + 10*time.Second) // the deadline of a socket
	// Without it the server's own write timeout ends the answer earlier, nothing else.
	_ = http.NewResponseController(c.Response()).SetWriteDeadline(at)
	return context.WithTimeout(c.Request().Context(), slowTimeout)
}
