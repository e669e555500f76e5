package api

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"revoked"
	"revoked/api/request"
	"revoked/api/stream"
	"revoked/api/strictjson"
)

// maxAddresses limits the addresses of a join. One address that answers is enough.
const maxAddresses = 64

// getMembers serves GET /v1/members. The states of other members are as old as their last report,
// so two nodes may answer differently.
func (a *API) getMembers(r *request.Request) error {
	ctx, cancel := a.withTimeout(r)
	defer cancel()
	members, err := a.cfg.Backend.Members(ctx)
	if err != nil {
		return err
	}
	view := viewMembers(members)
	view.Voting = viewVoting(members)
	return r.SendJSON(http.StatusOK, view)
}

// membersView is the JSON body of GET /v1/members.
type membersView struct {
	Members []memberView `json:"members"`
	Voting  *votingView  `json:"voting,omitempty"` // absent if no member votes
}

// memberView is one member as the answering node, or the leader, sees it. Durations are
// milliseconds.
type memberView struct {
	NodeID        string `json:"node_id"`
	Region        string `json:"region"`
	API           string `json:"api"`
	Cluster       string `json:"cluster"`
	Voter         bool   `json:"voter"`
	Leader        bool   `json:"leader"`
	Alive         bool   `json:"alive"`
	AppliedIndex  uint64 `json:"applied_index"`
	Behind        uint64 `json:"behind"`
	LastContactMS int64  `json:"last_contact_ms"` // -1: never in contact
	LeaseLeftMS   int64  `json:"lease_left_ms"`
	Version       string `json:"version"`
}

// viewMembers returns the JSON form. A member that was never in contact has last_contact_ms -1,
// because 0 would mean just now.
func viewMembers(members []revoked.Member) membersView {
	v := membersView{Members: make([]memberView, len(members))}
	for i, m := range members {
		contact := int64(-1)
		if m.LastContact >= 0 {
			contact = m.LastContact.Milliseconds()
		}
		v.Members[i] = memberView{
			NodeID: m.NodeID, Region: m.Region, API: m.API, Cluster: m.Cluster,
			Voter: m.Voter, Leader: m.Leader, Alive: m.Alive, AppliedIndex: m.AppliedIndex, Behind: m.Behind,
			LastContactMS: contact, LeaseLeftMS: m.LeaseLeft.Milliseconds(), Version: m.Version,
		}
	}
	return v
}

// getStatus serves GET /v1/status. It needs neither a leader nor a lease: it must answer when the
// cluster cannot.
func (a *API) getStatus(r *request.Request) error {
	ctx, cancel := a.withTimeout(r)
	defer cancel()
	view := viewStatus(a.cfg.Backend.NodeStatus(ctx))
	if members, err := a.cfg.Backend.Members(ctx); err == nil {
		view.Voting = viewVoting(members)
	}
	if !view.Healthy {
		view.Reasons = a.cfg.Backend.Readiness(ctx).Reasons
	}
	return r.SendJSON(http.StatusOK, view)
}

// statusView is the JSON body of GET /v1/status: the view of the answering node alone.
type statusView struct {
	NodeID       string      `json:"node_id"`
	ClusterID    string      `json:"cluster_id"`
	Version      string      `json:"version"`
	Healthy      bool        `json:"healthy"`
	Leader       leaderView  `json:"leader"`
	Term         uint64      `json:"term"`
	State        string      `json:"state"`
	CommitIndex  uint64      `json:"commit_index"`
	AppliedIndex uint64      `json:"applied_index"`
	Voters       int         `json:"voters"`
	Quorum       int         `json:"quorum"`
	Voting       *votingView `json:"voting,omitempty"` // as the leader sees it, or this node if no leader answers
	Lease        leaseView   `json:"lease"`
	LogHash      string      `json:"log_hash"`
	StateHash    string      `json:"state_hash"`
	HashIndex    uint64      `json:"hash_index"`
	Tokens       uint64      `json:"tokens"`
	Grants       uint64      `json:"grants"`
	WaitingFor   []string    `json:"waiting_for,omitempty"`
	Reasons      []string    `json:"reasons,omitempty"` // why the node is not healthy

	Backups []backupView `json:"backups,omitempty"` // one for each target that is set
}

// viewStatus returns the JSON form without the reasons, which require a readiness check.
func viewStatus(s revoked.NodeStatus) statusView {
	return statusView{
		NodeID: s.NodeID, ClusterID: s.ClusterID, Version: s.Version, Healthy: s.Healthy,
		Leader: leaderView(s.Leader), Term: s.Term, State: s.State,
		CommitIndex: s.CommitIndex, AppliedIndex: s.AppliedIndex, Voters: s.Voters, Quorum: s.Quorum,
		Lease:   leaseView{Held: s.Lease.Held, LeftMS: s.Lease.Left.Milliseconds()},
		LogHash: s.LogHash, StateHash: s.StateHash, HashIndex: s.HashIndex,
		Tokens: s.Tokens, Grants: s.Grants, WaitingFor: s.WaitingFor, Backups: viewBackups(s.Backups),
	}
}

// postJoin serves POST /v1/cluster/join: this node joins the cluster that it finds at the
// addresses. The caller is a client of this node's bootstrap files: a node that is not in a cluster
// has no other clients.
func (a *API) postJoin(r *request.Request) error {
	var addresses []string
	err := r.Decode(request.TypesJSON, request.Field{Name: "addresses", Read: func(j *strictjson.Reader) (err error) {
		addresses, err = j.Names(maxAddresses, request.MaxID)
		for _, addr := range addresses {
			if err == nil && !isHostPort(addr) {
				err = j.Fail("want host:port, the cluster address of a node")
			}
		}
		return err
	}})
	if err == nil && len(addresses) == 0 {
		err = fmt.Errorf("%w: addresses is missing or empty", revoked.ErrInvalid)
	}
	if err != nil {
		return err
	}
	ctx, cancel := r.WithSlowTimeout()
	defer cancel()
	return r.SendIndex(a.cfg.Backend.Join(ctx, addresses))
}

// isHostPort reports whether addr has a host and a port to dial. It does not use DNS.
func isHostPort(addr string) bool {
	host, port, err := net.SplitHostPort(addr)
	if err != nil || host == "" {
		return false
	}
	n, err := strconv.ParseUint(port, 10, 16)
	return err == nil && n > 0
}

// postLeave serves POST /v1/cluster/leave: this node leaves the cluster permanently. The process
// exits after the response. A caller that loses the response must request the members from another
// node.
func (a *API) postLeave(r *request.Request) error {
	if err := r.DecodeOptional(); err != nil {
		return err
	}
	ctx, cancel := r.WithSlowTimeout()
	defer cancel()
	return r.SendIndex(a.cfg.Backend.Leave(ctx, r.Actor()))
}

// postRemove serves POST /v1/cluster/remove. It waits until the removed node cannot hold a lease,
// even with force. force removes a running node and skips the quorum check, so it requires a
// reason.
func (a *API) postRemove(r *request.Request) error {
	var node, reason string
	var force bool
	err := r.Decode(request.TypesJSON,
		request.Into("node", &node, request.Name(request.MaxID)),
		request.Into("force", &force, (*strictjson.Reader).Bool),
		request.Into("reason", &reason, request.ReadReason))
	switch {
	case err != nil:
		return err
	case node == "":
		return errNoNode
	case force && strings.TrimSpace(reason) == "":
		r.Object.Node = node
		return fmt.Errorf("%w: reason is missing: force requires it", revoked.ErrUnprocessable)
	}
	r.Object.Node = node
	ctx, cancel := r.WithSlowTimeout()
	defer cancel()
	return r.SendIndex(a.cfg.Backend.Remove(ctx, r.Actor(), node, force, reason))
}

// postTransferLeader serves POST /v1/cluster/transfer-leader. Without a node the leader chooses
// one.
func (a *API) postTransferLeader(r *request.Request) error {
	var node string
	if err := r.DecodeOptional(request.Into("node", &node, request.Name(request.MaxID))); err != nil {
		return err
	}
	r.Object.Node = node
	ctx, cancel := r.WithSlowTimeout()
	defer cancel()
	index, err := a.cfg.Backend.TransferLeader(ctx, r.Actor(), node)
	if err != nil {
		return err
	}
	if leader := a.leaderName(ctx); leader != "" {
		r.Response().Header().Set("Revoked-Leader", leader)
	}
	return r.SendIndex(index, nil)
}

// leaderName returns the node id of the leader, or "" if this node does not learn of it within a
// quarter of the request timeout. A node learns of a new leader from its first heartbeat.
func (a *API) leaderName(ctx context.Context) string {
	ctx, cancel := context.WithTimeout(ctx, a.cfg.RequestTimeout/4)
	defer cancel()
	for {
		members, err := a.cfg.Backend.Members(ctx)
		i := slices.IndexFunc(members, func(m revoked.Member) bool { return m.Leader })
		if err == nil && i >= 0 {
			return members[i].NodeID
		}
		select {
		case <-ctx.Done():
			return ""
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// A snapshotWriter begins the response with the first byte of the snapshot, so an error before that
// byte can still set the status.
type snapshotWriter struct {
	r     *request.Request
	s     *stream.Stream
	begun bool
}

// Write implements [io.Writer]. It blocks until the client reads, at most for the idle time of the
// stream.
func (w *snapshotWriter) Write(p []byte) (int, error) {
	if !w.begun {
		w.begin()
	}
	return w.s.Write(p)
}

// begin sends the header. After that, an error can only abort the response.
func (w *snapshotWriter) begin() {
	w.begun = true
	h := w.r.Response().Header()
	h.Set(echo.HeaderContentType, echo.MIMEOctetStream)
	h.Set(echo.HeaderContentDisposition, `attachment; filename="revoked.snapshot"`)
	w.r.Response().WriteHeader(http.StatusOK)
}

// getSnapshot serves GET /v1/snapshot. If it fails midway, it closes the connection, so that the
// client does not mistake the partial file for a backup.
func (a *API) getSnapshot(r *request.Request) error {
	w := &snapshotWriter{r: r, s: stream.New(r.Response(), r.Request(), stream.Idle)}
	if r.Request().Method == http.MethodHead {
		w.begin()
		return nil
	}
	release, err := a.streams.snapshots.take(r.Client.ID)
	if err != nil {
		return err
	}
	defer release()
	// The first byte comes only after the node has written the snapshot to disk.
	_ = w.s.ExtendWrite(request.SlowTimeout)
	err = a.cfg.Backend.Snapshot(r.Request().Context(), w)
	if err == nil && !w.begun {
		err = fmt.Errorf("%w: the snapshot is empty", revoked.ErrOutcomeUnknown)
	}
	if !w.begun {
		return err
	}
	e := revoked.AuditEntry{Kind: revoked.AuditSnapshotSave}
	if err != nil {
		e.Detail = "aborted"
	}
	// Record the entry before the response ends, so that a caller with the whole backup finds it.
	a.recorder.Record(r.Request().Context(), r.Actor(), e)
	if err == nil {
		return nil
	}
	r.Outcome = "aborted"
	a.cfg.Log.Warn("snapshot download aborted", "error", err)
	panic(http.ErrAbortHandler)
}

// getSettings serves GET /v1/settings.
func (a *API) getSettings(r *request.Request) error {
	return r.Send(http.StatusOK, request.TypeJSON, viewSettings(a.cfg.Backend.Settings()))
}

// viewSettings returns the settings as JSON.
func viewSettings(s revoked.Settings) []byte {
	out := []byte{'{'}
	for i, rule := range revoked.SettingRules() {
		if i > 0 {
			out = append(out, ',')
		}
		out = append(strictjson.AppendString(out, rule.Name), ':')
		value := rule.Format(rule.Value(&s))
		if rule.IsCount() {
			out = append(out, value...)
		} else {
			out = strictjson.AppendString(out, value)
		}
	}
	return append(out, "}\n"...)
}

// patchSettings serves PATCH /v1/settings: a merge patch (RFC 7396). null restores a default.
// Bounds that depend on two settings are checked when the change is applied.
func (a *API) patchSettings(r *request.Request) error {
	apply, err := decodeSettings(r)
	if err != nil {
		return err
	}
	ctx, cancel := a.withTimeout(r)
	defer cancel()
	var made revoked.Settings
	err = request.RetryConflict(ctx, func() (err error) {
		next := a.cfg.Backend.Settings()
		apply(&next)
		made, _, err = a.cfg.Backend.UpdateSettings(ctx, r.Actor(), next)
		return err
	})
	if err != nil {
		return err
	}
	return r.Send(http.StatusOK, request.TypeJSON, viewSettings(made))
}

// decodeSettings returns a function that applies the changes of the body. A malformed field (400)
// takes precedence over a value out of bounds (422), as for clients and issuers.
func decodeSettings(r *request.Request) (apply func(*revoked.Settings), err error) {
	var fields []request.Field
	var outOfBounds error
	change, defaults := make(map[*revoked.SettingRule]int64), revoked.DefaultSettings()
	rules := revoked.SettingRules()
	for i := range rules {
		rule := &rules[i]
		fields = append(fields, request.Field{Name: rule.Name, Read: func(j *strictjson.Reader) error {
			v := rule.Value(&defaults)
			if !j.Null() {
				var err error
				if v, err = readSetting(j, rule); err != nil {
					return err
				}
			}
			if err := rule.Validate(v); err != nil && outOfBounds == nil {
				outOfBounds = err // 422, returned only if no field is malformed (400)
			}
			change[rule] = v
			return nil
		}})
	}
	if err := r.Decode(request.TypesPatch, fields...); err != nil {
		return nil, err
	}
	return func(s *revoked.Settings) {
		for rule, v := range change {
			rule.Set(s, v)
		}
	}, outOfBounds
}

// readSetting reads a duration, or a count as a number or a string of digits.
func readSetting(j *strictjson.Reader, rule *revoked.SettingRule) (int64, error) {
	if !rule.IsCount() {
		d, err := request.ReadDuration(j)
		return int64(d), err
	}
	raw, err := j.Raw(request.MaxID)
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseInt(strings.Trim(string(raw), `"`), 10, 64)
	if err != nil {
		return 0, j.Fail("want a whole number")
	}
	return n, nil
}
