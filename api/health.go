package api

import (
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"

	"revoked"
	"revoked/api/request"
)

// getLive answers 200 as long as the process serves requests. It does not query the node:
// otherwise a supervisor would restart nodes without a leader and make an outage longer.
func (a *API) getLive(r *request.Request) error {
	r.Quiet = true
	return r.Send(http.StatusOK, request.TypeText, []byte("ok\n"))
}

// getReady answers 200 if the node can answer introspections with a current state, else 503. With
// ?revoke, it must also have a leader. ?verbose lists the checks.
func (a *API) getReady(r *request.Request) error {
	r.Quiet = true
	ctx, cancel := a.withTimeout(r)
	defer cancel()
	state := a.cfg.Backend.Readiness(ctx)
	query := r.Request().URL.Query()
	ok := state.CanAnswer
	if query.Has("revoke") {
		ok = ok && state.CanRevoke
	}
	var b strings.Builder
	if query.Has("verbose") {
		for _, check := range state.Checks {
			mark, word := "[+]", " ok"
			if !check.OK {
				mark, word = "[-]", " failed"
			}
			b.WriteString(mark + check.Name + word)
			if check.Detail != "" {
				b.WriteString(": " + check.Detail)
			}
			b.WriteByte('\n')
		}
		for _, reason := range state.Reasons {
			if !slices.ContainsFunc(state.Checks, func(c revoked.Check) bool { return c.Detail == reason }) {
				b.WriteString(reason + "\n")
			}
		}
	}
	if ok {
		b.WriteString("ready\n")
		return r.Send(http.StatusOK, request.TypeText, []byte(b.String()))
	}
	// This outcome separates probes of a node that is not ready from failed requests in the metrics.
	r.Outcome = "not_ready"
	b.WriteString("not ready\n")
	request.SetStatusHeaders(r.Response().Header(), http.StatusServiceUnavailable)
	return r.Send(http.StatusServiceUnavailable, request.TypeText, []byte(b.String()))
}

// showMetrics returns a handler that shows the metrics to every caller. It bounds the number of
// scrapes.
func (a *API) showMetrics() request.Handler {
	page := promhttp.HandlerFor(a.cfg.Gatherer, promhttp.HandlerOpts{MaxRequestsInFlight: 4, Timeout: 10 * time.Second})
	return func(r *request.Request) error {
		r.Quiet = true
		page.ServeHTTP(r.Response(), r.Request())
		return nil
	}
}

// metricsPage returns the handler of /metrics. Callers in MetricsNetworks need no credentials.
// Other callers need a role that may read the metrics.
func (a *API) metricsPage() request.Handler {
	show := a.showMetrics()
	authenticated := a.access.Require(show, viewers...)
	return func(r *request.Request) error {
		if inside(a.cfg.MetricsNetworks, a.access.Addr(r)) {
			return show(r)
		}
		return authenticated(r)
	}
}

// leaderView is the leader as this node sees it. It is empty if this node knows no leader.
type leaderView struct {
	NodeID string `json:"node_id"`
	API    string `json:"api"`
}

// backupView is the newest successful backup at a target.
type backupView struct {
	Target string `json:"target"`
	AgeMS  int64  `json:"age_ms"` // -1: no backup has succeeded yet
}

func viewBackups(all []revoked.BackupStatus) []backupView {
	var views []backupView
	for _, b := range all {
		age := int64(-1)
		if b.Age >= 0 {
			age = b.Age.Milliseconds()
		}
		views = append(views, backupView{b.Target, age})
	}
	return views
}

// leaseView is the read lease of a node.
type leaseView struct {
	Held   bool  `json:"held"`
	LeftMS int64 `json:"left_ms"`
}

// votingView describes the voters in GET /v1/members and GET /v1/status.
type votingView struct {
	Voters                 int          `json:"voters"`
	VotersUp               int          `json:"voters_up"`
	Quorum                 int          `json:"quorum"`
	FailureTolerance       int          `json:"failure_tolerance"`
	RegionFailureTolerance int          `json:"region_failure_tolerance"`
	Regions                []regionView `json:"regions"`
}

// regionView describes the voters of one region.
type regionView struct {
	Region     string `json:"region"`
	Voters     int    `json:"voters"`
	VotersUp   int    `json:"voters_up"`
	Survivable bool   `json:"survivable"` // whether the voters that answer in other regions are a quorum
}

// viewVoting returns the JSON form, or nil without voters.
func viewVoting(members []revoked.Member) *votingView {
	v := revoked.VotingOf(members)
	if v.Voters == 0 {
		return nil
	}
	out := &votingView{
		Voters: v.Voters, VotersUp: v.Up, Quorum: v.Quorum, FailureTolerance: v.FailureTolerance,
		RegionFailureTolerance: v.RegionTolerance, Regions: make([]regionView, len(v.Regions)),
	}
	for i, r := range v.Regions {
		out.Regions[i] = regionView{r.Region, r.Voters, r.Up, r.Survivable}
	}
	return out
}
