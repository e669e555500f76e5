package revoked

import (
	"fmt"
	"time"
)

// A Selector selects grants by up to five properties. Every property that is set must match.
type Selector struct {
	ClientID string
	Subject  string
	Session  string
	GrantID  string
	Issuer   string
}

// IsZero reports whether no property is set.
func (s Selector) IsZero() bool { return s == Selector{} }

// Matches reports whether g has every property that s sets. The zero selector matches every grant:
// only restore and recovery may use it.
func (s Selector) Matches(g *Grant) bool {
	return (s.ClientID == "" || s.ClientID == g.ClientID) &&
		(s.Subject == "" || s.Subject == g.Subject) &&
		(s.Session == "" || s.Session == g.Session) &&
		(s.GrantID == "" || s.GrantID == g.ID) &&
		(s.Issuer == "" || s.Issuer == g.Issuer)
}

// A Cutoff revokes every token of the selected grants that was issued at or before IssuedBefore.
type Cutoff struct {
	Selector
	IssuedBefore Time
	At           Time // when it was created
	By           string
	Reason       string
	Index        uint64
}

// Covers reports whether the cut-off revokes token t of grant g, that is, whether t was issued at
// or before IssuedBefore. If both are in the same whole second, the token is covered. A token that
// was registered before the cut-off was created is treated as issued at its registration, even if
// its IssuedAt is later. skew is how far the clock of the issuer may be ahead: 0 for registered
// tokens.
func (c *Cutoff) Covers(g *Grant, t *Token, skew time.Duration) bool {
	iat := t.IssuedAt
	if t.RegisteredAt != 0 && t.RegisteredAt <= c.At {
		iat = min(iat, t.RegisteredAt)
	}
	return iat.Unix() <= c.IssuedBefore.Add(skew).Unix() && c.Matches(g)
}

// A CutoffRequest describes a new cut-off.
type CutoffRequest struct {
	Selector
	IssuedBefore Time // 0: when the log entry is applied
	Reason       string
	DryRun       bool
	Expect       *int // fail with ErrExpectation unless exactly this many active grants match
}

// A CutoffResult is the outcome of a [CutoffRequest].
type CutoffResult struct {
	Index   uint64
	Matched *int // active grants; nil unless DryRun or Expect was set
}

// CheckIssuedBefore returns [ErrUnprocessable] if a cut-off is in the future by more than
// MaxClockSkew, the tolerated difference between clocks. A cut-off cannot be undone. One in the far
// future would lock out its client, subject or issuer until then.
func (s *Settings) CheckIssuedBefore(before, now Time) error {
	if before <= now.Add(s.MaxClockSkew) {
		return nil
	}
	return fmt.Errorf("%w: issued_before is in the future by more than max_clock_skew, %s",
		ErrUnprocessable, FormatDuration(s.MaxClockSkew))
}
