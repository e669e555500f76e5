package revoked

import (
	"slices"
	"time"
)

// A Moment is the log entry at which something changed. The zero Moment is earlier than every
// recorded change.
type Moment struct {
	At    Time // stamp of the entry
	Index uint64
}

// An Acknowledgement records when the change at Index became final.
//
// Between the stamp of the entry and AppliedAt, any node may still have used the state before the
// change. From AppliedAt to At, only the nodes in WaitedFor may still have done so.
type Acknowledgement struct {
	Index     uint64
	AppliedAt Time     // the leader had applied the entry
	At        Time     // no node could still use the state before Index
	WaitedFor []string // the nodes that had a read lease and had not reported Index at AppliedAt
}

// A ClientState is the part of a client's state that determines whether its tokens may be active.
type ClientState uint8

// The states. The numbers are part of stored records.
const (
	ClientAbsent ClientState = iota
	ClientEnabled
	ClientDisabled
)

// StateOfClient returns the state of c; nil is an absent client.
func StateOfClient(c *Client) ClientState {
	switch {
	case c == nil:
		return ClientAbsent
	case c.Disabled:
		return ClientDisabled
	}
	return ClientEnabled
}

// A ClientChange is a change between two states of a client.
type ClientChange struct {
	Moment
	Was, Is ClientState
}

// A Gap is a span of time for which the state has no records: between the backup of From and its
// restore at To.
type Gap struct{ From, To Time }

// A History holds the recorded changes that affect one digest. [AsOf] evaluates it.
type History struct {
	// Record is the current record. If its token is not Live, its times are those of the stub.
	Record     Record
	GrantEnded Moment   // when the grant was revoked; set if Record.Grant.Revoked is
	Cutoffs    []Moment // the cut-offs that cover the token, including replaced ones
	Denied     *Moment  // a denial of the jti of a registered token

	// Ended is the denial or the tombstone that revoked a digest that is not registered; nil if
	// neither exists.
	Ended *Moment
	// OneClient reports that Ended is a tombstone for one client only. A registration for another
	// client may have been active and then removed.
	OneClient bool

	Client  ClientState    // current state of the grant's client
	Changes []ClientChange // changes in the order of the log

	Since  Time // the state has complete records from this time on; 0: it has none
	Reaped Time // when the state last dropped a record of a token
	// Before Undenied, a denial that is no longer in the state may have revoked a registered token
	// temporarily. 0: no dropped denial can have had the token's jti.
	Undenied Time
	Gaps     []Gap
}

// A PastState is the state of a token at a time in the past.
type PastState string

// The past states.
const (
	PastActive   PastState = "active"
	PastInactive PastState = "inactive"
	PastUnknown  PastState = "unknown"  // the digest was neither registered nor revoked
	PastNotHeld  PastState = "not_held" // the cluster no longer has the records
)

// A PastAnswer is the state of a token at a time in the past. Since, Reason and Index describe the
// change that led to this state. Index is 0 if no log entry caused the change, as for expiry.
type PastAnswer struct {
	At     Time
	State  PastState
	Reason Reason // empty for PastUnknown and PastNotHeld
	Since  Time   // 0: not known, or PastUnknown and PastNotHeld
	Until  Time   // when the state changed or, through expiry, will change; 0: no change is known
	Index  uint64
	// Final is the acknowledgement of Index. nil: it was not recorded, or Index is 0.
	Final *Acknowledgement
	// FinalBefore is an upper bound on the time at which Index became final. It is 0 if Final is set,
	// or if no bound is known.
	FinalBefore Time
}

// AsOf returns the state of a token at a given time. It calls [Decide] with the record, the
// cut-offs and the client as they were then. Times are stamps of the log: a change takes effect at
// the stamp of its entry. AsOf is pure.
//
// A token that was removed and then registered again is unknown before its second registration.
func AsOf(h *History, at Time) PastAnswer {
	switch {
	case h.Since == 0 || at < h.Since:
		return PastAnswer{At: at, State: PastNotHeld}
	case !h.Record.Found:
		return h.unregistered(at)
	}
	now := h.stateAt(at)
	if now == PastActive && at < h.Undenied {
		return PastAnswer{At: at, State: PastNotHeld}
	}
	for _, g := range h.Gaps {
		// A Dead token stays Dead. A token in any other state may have become inactive in the gap.
		if g.From < at && at < g.To && h.decideAt(g.From).Verdict != Dead {
			return PastAnswer{At: at, State: PastNotHeld}
		}
	}
	out := PastAnswer{At: at, State: now}
	steps := h.steps()
	first, _ := slices.BinarySearch(steps, at+1) // the first step after at
	for _, t := range steps[first:] {
		if h.stateAt(t) != now {
			out.Until = t
			break
		}
	}
	if now == PastInactive && out.Until < h.Undenied { // the token may have been denied by then
		out.Until = 0
	}
	for i := first - 1; i >= 0; i-- {
		if h.stateAt(steps[i]) != now || now == PastActive && steps[i] < h.Since {
			break
		}
		out.Since = steps[i]
	}
	switch {
	case now == PastUnknown:
		out.Since = 0
		return out
	case now == PastActive && out.Since < h.Undenied: // it may have been denied for a while
		out.Since, out.Reason = 0, ReasonActive
		return out
	}
	from := out.Since
	if from == 0 {
		from = h.Since
	}
	out.Reason = h.decideAt(from).Reason
	out.Index = h.indexOf(out.Reason, from)
	return out
}

// unregistered returns the state of a digest without a record.
func (h *History) unregistered(at Time) PastAnswer {
	if e := h.Ended; e != nil && e.At <= at && (!h.OneClient || at >= h.Reaped) {
		return PastAnswer{At: at, State: PastInactive, Reason: ReasonDenied, Since: e.At, Index: e.Index}
	}
	inGap := slices.ContainsFunc(h.Gaps, func(g Gap) bool { return g.From < at && at < g.To })
	if at < h.Reaped || inGap {
		return PastAnswer{At: at, State: PastNotHeld}
	}
	out := PastAnswer{At: at, State: PastUnknown}
	if h.Ended != nil {
		out.Until = h.Ended.At
	}
	return out
}

// stateAt returns the state at a time that the history covers.
func (h *History) stateAt(at Time) PastState {
	switch h.decideAt(at).Verdict {
	case Unknown:
		return PastUnknown
	case Active:
		return PastActive
	}
	return PastInactive
}

// decideAt calls Decide with the token, cut-offs and client as they were at that time.
func (h *History) decideAt(at Time) Decision {
	r := h.Record
	if at < r.Token.RegisteredAt {
		return Decide(&Record{}, DecideInput{})
	}
	if r.Token.State == Expired || at < r.Token.EndedAt {
		r.Token.State = Live // it had not ended by then, unless it had expired
	}
	if at < h.GrantEnded.At {
		r.Grant.Revoked = nil
	}
	in := DecideInput{Now: at, Stamp: at, Denied: h.Denied != nil && h.Denied.At <= at}
	in.Cutoff = func(_ *Grant, _ *Token, _ time.Duration) bool { return h.cutAt(at) }
	if s := h.clientAt(at); s != ClientAbsent {
		in.Client = &Client{Disabled: s == ClientDisabled}
	}
	return Decide(&r, in)
}

// cutAt reports whether a cut-off had revoked the token by that time.
func (h *History) cutAt(at Time) bool {
	return slices.ContainsFunc(h.Cutoffs, func(c Moment) bool { return c.At <= at })
}

// clientAt returns the state of the client after its newest change up to that time. Before the
// first recorded change, it is the state that this change replaced.
func (h *History) clientAt(at Time) ClientState {
	for i := len(h.Changes) - 1; i >= 0; i-- {
		if h.Changes[i].At <= at {
			return h.Changes[i].Is
		}
	}
	if len(h.Changes) > 0 {
		return h.Changes[0].Was
	}
	return h.Client
}

// steps returns the times at which the decision may change, in order and without duplicates. The
// decision may be the same at two consecutive times.
func (h *History) steps() []Time {
	t := &h.Record.Token
	all := []Time{t.RegisteredAt, t.EndedAt, t.NotBefore, t.ExpiresAt, h.GrantEnded.At}
	for i := range h.Cutoffs {
		all = append(all, h.Cutoffs[i].At)
	}
	for i := range h.Changes {
		all = append(all, h.Changes[i].At)
	}
	if h.Denied != nil {
		all = append(all, h.Denied.At)
	}
	all = slices.DeleteFunc(all, func(at Time) bool { return at == 0 })
	slices.Sort(all)
	return slices.Compact(all)
}

// indexOf returns the index of the entry that led to a decision with that reason at a given time.
// It returns 0 if no recorded entry did: time passed, or the entry is older than the history.
func (h *History) indexOf(why Reason, at Time) uint64 {
	t := &h.Record.Token
	ended := Moment{t.EndedAt, t.EndedIndex}
	candidates := []Moment{{t.RegisteredAt, t.RegisteredIndex}}
	switch why {
	case ReasonRevoked:
		candidates = []Moment{h.GrantEnded, ended}
	case ReasonRotated:
		candidates = []Moment{ended}
	case ReasonCutOff:
		candidates = append(slices.Clone(h.Cutoffs), ended)
	case ReasonDenied:
		if h.Denied != nil {
			candidates = append(candidates, *h.Denied)
		}
	case ReasonActive, ReasonClientDisabled, ReasonClientUnknown:
		for i := range h.Changes {
			candidates = append(candidates, h.Changes[i].Moment)
		}
	}
	for i := range candidates {
		if candidates[i].At == at {
			return candidates[i].Index
		}
	}
	return 0
}
