package api

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"revoked"
	"revoked/api/request"
)

// maxAuditPage bounds the query parameter "limit" of GET /v1/audit.
const maxAuditPage = 1_000_000

// getAudit serves GET /v1/audit: the audit log in log order, as NDJSON or server-sent events like
// the feed.
func (a *API) getAudit(r *request.Request) error {
	q, err := readAuditQuery(r)
	if err != nil {
		return err
	}
	b := a.cfg.Backend
	src := &feedSource{
		name: "audit", roles: auditors, wait: b.WaitAudit, current: true, most: q.limit,
		read: func(ctx context.Context, after uint64, limit int) (feedEntries, uint64, error) {
			list, upTo, err := b.Audit(ctx, after, limit)
			return &auditPage{list, q}, upTo, err
		},
	}
	return a.serveFeed(r, src, func(after uint64) (uint64, error) {
		if q.since == 0 {
			return after, nil
		}
		before, err := b.AuditBefore(q.since)
		return max(after, before), err
	})
}

// An auditQuery selects audit entries. Empty fields match any value.
type auditQuery struct {
	since, until  revoked.Time
	kind          revoked.AuditKind
	actor, object string
	limit         int
}

func readAuditQuery(r *request.Request) (q auditQuery, err error) {
	q.kind = revoked.AuditKind(r.QueryParam("kind"))
	q.actor, q.object = r.QueryParam("actor"), r.QueryParam("object")
	if q.kind != "" && !revoked.IsAuditKind(q.kind) {
		return q, fmt.Errorf("%w: query parameter kind: want one of %s", revoked.ErrInvalid, kindNames())
	}
	if q.since, err = readMoment("since", r.QueryParam("since")); err != nil {
		return q, err
	}
	if q.until, err = readMoment("until", r.QueryParam("until")); err != nil {
		return q, err
	}
	if text := r.QueryParam("limit"); text != "" {
		if q.limit, err = strconv.Atoi(text); err != nil || q.limit < 1 || q.limit > maxAuditPage {
			return q, fmt.Errorf("%w: query parameter limit: want 1 to %d", revoked.ErrInvalid, maxAuditPage)
		}
	}
	return q, nil
}

func kindNames() string {
	var names []string
	for _, k := range revoked.AuditKinds() {
		names = append(names, string(k))
	}
	return strings.Join(names, ", ")
}

// readMoment reads Unix seconds or RFC 3339. It returns 0 for an empty text. Its error wraps
// ErrInvalid.
func readMoment(name, text string) (revoked.Time, error) {
	if text == "" {
		return 0, nil
	}
	if n, err := strconv.ParseInt(text, 10, 64); err == nil && 0 <= n && n <= maxSeconds {
		return revoked.Time(n * 1e6), nil
	}
	// In a query, an unescaped "+" of an offset arrives as a space.
	t, err := time.Parse(time.RFC3339, strings.Replace(text, " ", "+", 1))
	if err != nil || t.Unix() < 0 || t.Unix() > maxSeconds {
		return 0, fmt.Errorf("%w: query parameter %s: want Unix seconds or RFC 3339, such as 2026-01-31T12:00:00Z",
			revoked.ErrInvalid, name)
	}
	return revoked.TimeOf(t), nil
}

// maxSeconds is the last second of the year 9999.
const maxSeconds = 253402300799

// matches reports whether q selects e.
func (q *auditQuery) matches(e *revoked.AuditEntry) bool {
	return (q.kind == "" || q.kind == e.Kind) && (q.actor == "" || q.actor == e.Actor) &&
		(q.object == "" || e.Object.Has(q.object)) && (q.since == 0 || e.Time.Unix() >= q.since.Unix())
}

// An auditPage is a page of audit entries, and the query that selects from them.
type auditPage struct {
	list []revoked.AuditEntry
	q    auditQuery
}

func (p *auditPage) count() int { return len(p.list) }

func (p *auditPage) index(i int) uint64 { return p.list[i].Index }

func (p *auditPage) view(i int, _ *revoked.Client) (kind string, view any, ended bool) {
	e := &p.list[i]
	if p.q.until != 0 && e.Time.Unix() > p.q.until.Unix() {
		return "", nil, true
	}
	if p.q.matches(e) {
		view = viewAudit(e)
	}
	return string(e.Kind), view, false
}

// auditView is an audit entry as JSON.
type auditView struct {
	Index        uint64              `json:"index"`
	Time         request.UnixSeconds `json:"time"`
	Kind         revoked.AuditKind   `json:"kind"`
	Actor        string              `json:"actor"`
	ActorVersion uint64              `json:"actor_version"`
	Node         string              `json:"node"`
	RequestID    string              `json:"request_id"`
	Object       auditObjectView     `json:"object"`
	Reason       string              `json:"reason"`
	Outcome      string              `json:"outcome"`
	Detail       string              `json:"detail"`
}

// auditObjectView is the object of an entry. It has only the members that apply.
type auditObjectView struct {
	ClientID     string               `json:"client_id,omitempty"`
	GrantID      string               `json:"grant_id,omitempty"`
	Subject      string               `json:"subject,omitempty"`
	Session      string               `json:"session,omitempty"`
	Issuer       string               `json:"issuer,omitempty"`
	IssuedBefore *request.UnixSeconds `json:"issued_before,omitempty"`
	Digest       string               `json:"digest,omitempty"` // a prefix of the digest
	JTI          string               `json:"jti,omitempty"`
	Count        uint64               `json:"count,omitempty"`
	Name         string               `json:"name,omitempty"`
	Thumbprint   string               `json:"thumbprint,omitempty"`
	Node         string               `json:"node,omitempty"`
	JoinToken    string               `json:"join_token,omitempty"`
}

func viewAudit(e *revoked.AuditEntry) auditView {
	o := &e.Object
	v := auditView{
		Index: e.Index, Time: request.UnixSeconds(e.Time), Kind: e.Kind, Actor: e.Actor, ActorVersion: e.ActorVersion,
		Node: e.Node, RequestID: e.RequestID, Reason: e.Reason, Outcome: "done", Detail: e.Detail,
		Object: auditObjectView{
			ClientID: o.ClientID, GrantID: o.GrantID, Subject: o.Subject, Session: o.Session, Issuer: o.Issuer, JTI: o.JTI,
			Count: o.Count, Name: o.Name, Thumbprint: o.Thumbprint, Node: o.Node, JoinToken: o.JoinToken,
		},
	}
	if e.Refused {
		v.Outcome = "refused"
	}
	if !o.Digest.IsZero() {
		v.Object.Digest = o.Digest.Prefix()
	}
	if o.IssuedBefore != 0 {
		t := request.UnixSeconds(o.IssuedBefore)
		v.Object.IssuedBefore = &t
	}
	return v
}

// FormatAudit returns an entry of an era as one JSON object, without a line feed. It has the id of
// the entry, then the members of GET /v1/audit. An entry of a node that is not in a cluster has no
// era, and so no id.
func FormatAudit(e *revoked.AuditEntry, era string) ([]byte, error) {
	id := ""
	if era != "" {
		id = revoked.Position{Era: era, Index: e.Index}.String()
	}
	return json.Marshal(struct {
		ID string `json:"id,omitempty"`
		auditView
	}{id, viewAudit(e)})
}

// audited maps each call whose refusals leave an audit entry to the kind of the entry. The object
// of the entry has the ids of the path and those that a handler has read.
var audited = map[string]revoked.AuditKind{
	"DELETE /v1/grants/:id":                   revoked.AuditGrantDelete,
	"POST /v1/revocations":                    revoked.AuditCutoffCreate, // or AuditJTIRevoke, depending on the body
	"POST /v1/clients":                        revoked.AuditClientCreate,
	"PATCH /v1/clients/:id":                   revoked.AuditClientUpdate,
	"DELETE /v1/clients/:id":                  revoked.AuditClientDelete,
	"POST /v1/clients/:id/secret":             revoked.AuditClientSecret,
	"POST /v1/issuers":                        revoked.AuditIssuerCreate,
	"PATCH /v1/issuers/:id":                   revoked.AuditIssuerUpdate,
	"DELETE /v1/issuers/:id":                  revoked.AuditIssuerDelete,
	"DELETE /v1/issuers/:id/keys/:thumbprint": revoked.AuditIssuerKeyBan,
	"POST /v1/issuers/:id/refresh":            revoked.AuditIssuerRefresh,
	"PATCH /v1/settings":                      revoked.AuditSettingsUpdate,
	"POST /v1/cluster/join":                   revoked.AuditClusterJoin,
	"POST /v1/cluster/leave":                  revoked.AuditClusterLeave,
	"POST /v1/cluster/remove":                 revoked.AuditClusterRemove,
	"POST /v1/cluster/transfer-leader":        revoked.AuditClusterTransfer,
	"POST /v1/cluster/promote":                revoked.AuditClusterPromote,
	"POST /v1/cluster/demote":                 revoked.AuditClusterDemote,
	"POST /v1/cluster/admit":                  revoked.AuditClusterAdmit,
	"DELETE /v1/cluster/admit/:id":            revoked.AuditClusterBar,
	"POST /v1/cluster/join-tokens":            revoked.AuditClusterToken,
	"DELETE /v1/cluster/join-tokens/:id":      revoked.AuditClusterToken,
}

// noteRefusal records a refused call by an administrator or operator that would have changed
// something if allowed. It waits for the entry as [recorder.Recorder.Record] does.
func (a *API) noteRefusal(r *request.Request, err error) {
	kind, ok := audited[r.Request().Method+" "+a.route(r)]
	if !ok || r.Unaudited || r.Client == nil || !r.Client.HasAny(operators...) {
		return
	}
	f := request.FailureOf(r.Request().URL.Path, err)
	switch f.Status {
	case http.StatusForbidden, http.StatusNotFound, http.StatusConflict, http.StatusUnprocessableEntity:
	default:
		return
	}
	e := revoked.AuditEntry{Kind: kind, Object: r.Object, Refused: true, Detail: f.Outcome}
	if r.Kind != "" {
		e.Kind = r.Kind
	}
	pathObject(r, a.route(r), &e.Object)
	a.recorder.Refused(r.Request().Context(), r.Actor(), e)
}

// pathObject fills in the ids that the path of a route contains.
func pathObject(r *request.Request, route string, o *revoked.AuditObject) {
	if r.Param("id") == "" {
		return
	}
	id, err := r.PathID()
	switch {
	case err != nil: // not a well-formed id
		o.Digest = revoked.DigestToken(r.Param("id"))
	case strings.HasPrefix(route, "/v1/clients/"):
		o.ClientID = id
	case strings.HasPrefix(route, "/v1/grants/"):
		o.GrantID = id
	case strings.HasPrefix(route, "/v1/issuers/"):
		o.Name, o.Thumbprint = id, r.Param("thumbprint")
	case strings.HasPrefix(route, "/v1/cluster/admit/"):
		o.Node = id
	case strings.HasPrefix(route, "/v1/cluster/join-tokens/"):
		o.JoinToken = id
	}
}
