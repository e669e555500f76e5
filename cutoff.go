package revoked

// A Selector names grants by any of five properties. Those that are set must all match.
type Selector struct {
	ClientID string `json:"client_id,omitempty"`
	Subject  string `json:"subject,omitempty"`
	Session  string `json:"session,omitempty"`
	GrantID  string `json:"grant_id,omitempty"`
	Issuer   string `json:"issuer,omitempty"`
}

// IsZero reports whether nothing is selected.
func (s Selector) IsZero() bool { return s == Selector{} }

// Matches reports whether g has every property that s names. The zero selector matches every grant:
// only restore and recovery may use it.
func (s Selector) Matches(g *Grant) bool {
	return (s.ClientID == "" || s.ClientID == g.ClientID) &&
		(s.Subject == "" || s.Subject == g.Subject) &&
		(s.Session == "" || s.Session == g.Session) &&
		(s.GrantID == "" || s.GrantID == g.ID) &&
		(s.Issuer == "" || s.Issuer == g.Issuer)
}

// A Cutoff ends every token of the selected grants that was issued at or before IssuedBefore.
type Cutoff struct {
	Selector
	IssuedBefore Time
	At           Time // when it was made
	By           string
	Reason       string
	Index        uint64
}

// Covers reports whether the cut-off ends a token t of g: whether it was issued at or before it. Equal
// whole seconds count as before. A token that was there when the cut-off was made was issued by then,
// whatever it says.
func (c *Cutoff) Covers(g *Grant, t *Token) bool {
	iat := t.IssuedAt
	if t.RegisteredAt != 0 && t.RegisteredAt <= c.At {
		iat = min(iat, t.RegisteredAt)
	}
	return iat.Unix() <= c.IssuedBefore.Unix() && c.Matches(g)
}

// A CutoffRequest asks for a cut-off.
type CutoffRequest struct {
	Selector
	IssuedBefore Time // 0: the moment of the entry
	Reason       string
	DryRun       bool
	Expect       *int // refuse with ErrExpectation unless so many live grants match
}

// A CutoffResult tells what was done.
type CutoffResult struct {
	Index   uint64
	Matched *int // live grants, counted when DryRun or Expect asked for it
}
