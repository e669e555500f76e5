package tokens

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"revoked"
	"revoked/api/request"
)

// pastView is the response to GET /v1/audit/token. Members that do not apply are absent. Times are
// precise to the microsecond, because an entry is acknowledged within milliseconds.
type pastView struct {
	Digest string            `json:"digest"`
	At     request.UnixTime  `json:"at"`
	State  revoked.PastState `json:"state"`
	Since  request.UnixTime  `json:"since,omitempty"`
	Until  request.UnixTime  `json:"until,omitempty"`
	Reason revoked.Reason    `json:"reason,omitempty"`
	Index  uint64            `json:"index,omitempty"`
	// AppliedAt is the time by which the leader had applied Index. Before AppliedAt, any node with
	// a read lease may have answered from the older state. From AppliedAt to AcknowledgedAt, only
	// the nodes in WaitedFor may still have answered from it.
	AppliedAt      request.UnixTime `json:"applied_at,omitempty"`
	AcknowledgedAt request.UnixTime `json:"acknowledged_at,omitempty"`
	// AcknowledgedBefore is an upper bound. It is set if AcknowledgedAt was not recorded.
	AcknowledgedBefore request.UnixTime `json:"acknowledged_before,omitempty"`
	WaitedFor          []string         `json:"waited_for,omitempty"`
}

// AsOf serves GET /v1/audit/token: it reports whether a token was active at a given time. The query
// has the digest of the token, never the token.
func (e *Endpoints) AsOf(r *request.Request) error {
	d, err := parseDigest(r.QueryParam("digest"))
	if err != nil {
		return err
	}
	at, err := parseMoment(r.QueryParam("at"))
	if err != nil {
		return err
	}
	if at > revoked.TimeOf(e.cfg.Now()) {
		return fmt.Errorf("%w: at is in the future", revoked.ErrInvalid)
	}
	ctx, cancel := e.withTimeout(r)
	defer cancel()
	a, err := e.cfg.Backend.AsOf(ctx, d, at)
	if err != nil {
		return err
	}
	view := pastView{
		Digest: d.String(), At: request.UnixTime(a.At), State: a.State, Since: request.UnixTime(a.Since),
		Until: request.UnixTime(a.Until), Reason: a.Reason, Index: a.Index,
		AcknowledgedBefore: request.UnixTime(a.FinalBefore),
	}
	if f := a.Final; f != nil {
		view.AppliedAt, view.AcknowledgedAt = request.UnixTime(f.AppliedAt), request.UnixTime(f.At)
		view.WaitedFor = f.WaitedFor
	}
	return r.SendJSON(http.StatusOK, view)
}

// parseDigest parses the base64url form of a digest. Its error does not contain the text, because a
// caller may have sent the token itself.
func parseDigest(text string) (d revoked.Digest, err error) {
	b, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil || len(b) != len(d) {
		return d, fmt.Errorf("%w: digest must be the SHA-256 of the token in base64url without padding, 43 characters",
			revoked.ErrInvalid)
	}
	copy(d[:], b)
	return d, nil
}

// parseMoment parses Unix seconds, with up to six decimals, or an RFC 3339 date and time. It
// returns 0 for an empty text.
func parseMoment(text string) (revoked.Time, error) {
	invalid := fmt.Errorf("%w: at must be Unix seconds or a date and time of RFC 3339", revoked.ErrInvalid)
	if text == "" {
		return 0, nil
	}
	if t, err := time.Parse(time.RFC3339, text); err == nil {
		if at := revoked.TimeOf(t); at > 0 {
			return at, nil
		}
		return 0, invalid
	}
	whole, decimals, _ := strings.Cut(text, ".")
	seconds, err := strconv.ParseUint(whole, 10, 40)
	if err != nil || len(decimals) > 6 || strings.HasSuffix(text, ".") {
		return 0, invalid
	}
	micros, err := strconv.ParseUint((decimals + "000000")[:6], 10, 32)
	if at := revoked.Time(seconds*1e6 + micros); err == nil && at > 0 {
		return at, nil
	}
	return 0, invalid
}
