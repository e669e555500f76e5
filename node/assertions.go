package node

import (
	"revoked"
	"revoked/node/jwt"
)

// ParseAssertion implements api.Backend. The clocks of a client and of this node may differ by up
// to max_clock_skew.
func (n *Node) ParseAssertion(raw, audience string) (
	id string, verify func(*revoked.Client) (revoked.VerifiedAssertion, string, bool),
) {
	a, err := jwt.ParseAssertion(raw)
	if err != nil {
		return "", nil
	}
	return a.ClientID(), func(c *revoked.Client) (revoked.VerifiedAssertion, string, bool) {
		return a.Verify(c, audience, revoked.TimeOf(n.cfg.Now()), n.fsm.Settings().MaxClockSkew)
	}
}

// AssertionUse implements api.Backend. It reads this node's copy of the state, which may be stale.
// If the request makes a change, Apply checks the assertion again. If the read fails, AssertionUse
// returns the zero request id and true, so that the request is rejected.
func (n *Node) AssertionUse(key revoked.Digest) (request [16]byte, used bool) {
	request, used, err := n.fsm.AssertionUse(key)
	return request, used || err != nil
}
