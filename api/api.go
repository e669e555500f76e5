package api

import (
	"cmp"
	"context"
	"crypto/x509"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"time"

	"github.com/labstack/echo/v4"
	"github.com/prometheus/client_golang/prometheus"

	"revoked"
	"revoked/api/access"
	"revoked/api/console"
	"revoked/api/debug"
	"revoked/api/recorder"
	"revoked/api/request"
	"revoked/api/tokens"
	"revoked/internal/tracing"
)

// A Backend is the node that the API serves; [revoked/node.Node] implements it. Methods must allow
// concurrent calls. Errors wrap the sentinels of package revoked.
//
// A write returns once it is final on every node, a registration once it is committed. On a node
// that is not in a cluster, Client returns the clients of the node's bootstrap files.
type Backend interface {
	tokens.Backend // decisions about presented tokens
	access.Backend // records of the clients that call

	// RevokeJTI revokes the JWTs that have the issuer and the jti of r. It returns ErrUnprocessable
	// if the issuer is not trusted or reuses jti values, and ErrForbidden for a client that may not
	// use the issuer.
	RevokeJTI(ctx context.Context, by revoked.Actor, r revoked.JTIRevocation) (index uint64, err error)
	// RevokeJTIs revokes several JWTs like RevokeJTI, in one log entry. The results are in the
	// order of list. The error applies to the whole list.
	RevokeJTIs(
		ctx context.Context, by revoked.Actor, list []revoked.JTIRevocation,
	) (results []error, index uint64, err error)
	// DeleteGrant revokes the grant with that id. It returns ErrNotFound for an unknown id, and
	// ErrForbidden for an issuer that did not register the grant.
	DeleteGrant(ctx context.Context, by revoked.Actor, id, reason string) (index uint64, err error)
	// RevokeMatching creates a cut-off, unless req.DryRun is set. It returns ErrExpectation if
	// req.Expect is set and differs from the number of grants that match.
	RevokeMatching(ctx context.Context, by revoked.Actor, req revoked.CutoffRequest) (revoked.CutoffResult, error)

	// Register commits the registrations and returns one result for each, in the order of regs. The
	// returned error, such as ErrNoLeader, applies to all of them; an error of one registration is
	// in its result.
	Register(ctx context.Context, by revoked.Actor, regs []revoked.Registration) ([]revoked.RegisterResult, error)
	// RegisterBulk is like Register, but gives way to other requests. It waits for the client's
	// turn until ctx ends. After that, it waits for the commit, at most for the request timeout.
	RegisterBulk(ctx context.Context, by revoked.Actor, regs []revoked.Registration) ([]revoked.RegisterResult, error)
	// Grant returns a grant with its tokens, or ErrNotFound.
	Grant(ctx context.Context, id string) (revoked.GrantView, error)
	// Grants returns a page of the grants that q selects, in the order of their ids. Its work is
	// bounded: a page that is not the last one may have fewer grants than q.Limit, or none.
	Grants(ctx context.Context, q revoked.GrantQuery) (revoked.GrantPage, error)

	// Era returns the era of this node's cluster, see [revoked.EraOf]. Every index belongs to this
	// era. Era returns "" until the node has the state of a cluster. After that, the era never
	// changes.
	Era() string
	// Events returns at most limit events with an index above after, in the order of the log. They
	// are all events with an index above after and up to upTo. Events returns ErrGone if events
	// with an index above after have been deleted.
	Events(ctx context.Context, after uint64, limit int) (events []revoked.Event, upTo uint64, err error)
	// Audit is like Events, and WaitAudit like WaitEvent, but for audit entries.
	Audit(ctx context.Context, after uint64, limit int) (entries []revoked.AuditEntry, upTo uint64, err error)
	WaitAudit(ctx context.Context, after uint64) error
	// AuditBefore returns an index that splits this node's audit log at the second of at. Entries
	// up to the index are from earlier seconds, and later entries are not.
	AuditBefore(at revoked.Time) (index uint64, err error)
	// Note writes an audit entry about a call that has no operation of its own. Of e it uses only
	// Kind, Object, Reason, Detail and Refused. If the call was refused, Note replaces ids that are
	// not in this node's state with digests, because these ids may be secrets. It waits for the
	// commit.
	Note(ctx context.Context, by revoked.Actor, e revoked.AuditEntry) error

	// Newest returns an index that this node has applied and no node had exceeded before the call.
	// It needs a read barrier: with only a lease, another node may have applied, and shown to a
	// reader, entries that are not yet acknowledged. It returns ErrNotCurrent or ErrNoLeader.
	Newest(ctx context.Context) (index uint64, err error)
	// WaitEvent blocks until this node may have applied an event with an index above after, or a
	// change of a client. If ctx ends first, it returns the context's error. Other log entries do
	// not unblock it.
	WaitEvent(ctx context.Context, after uint64) error

	// Client returns this node's own copy of a client, so that authentication works without quorum.
	// The caller must not change the record.
	Client(id string) (*revoked.Client, bool)
	// Current blocks until this node's copy holds everything that was acknowledged before the call.
	// It returns immediately under a lease. It returns ErrNotCurrent or ErrNoLeader.
	Current(ctx context.Context) error
	// ClientsCurrent reports whether this node's copy has been current at least once since the
	// process started. Until then, a client that is missing from the copy may exist.
	ClientsCurrent() bool
	// Clients returns all clients in the order of their ids.
	Clients(ctx context.Context) ([]*revoked.Client, error)
	// CreateClient stores a new client and sets CreatedAt and Version. It returns ErrConflict if
	// the id is taken.
	CreateClient(ctx context.Context, by revoked.Actor, c revoked.Client) (*revoked.Client, uint64, error)
	// UpdateClient replaces the record if its version is c.Version, and returns ErrConflict if it
	// is not. It returns ErrNotFound for an unknown id.
	UpdateClient(ctx context.Context, by revoked.Actor, c revoked.Client) (*revoked.Client, uint64, error)
	// DeleteClient deletes the client and revokes all of its tokens. It returns ErrNotFound for an
	// id that never existed, and succeeds for one that is already deleted.
	DeleteClient(ctx context.Context, by revoked.Actor, id string) (index uint64, err error)

	// Issuers returns this node's own copy of the trusted issuers that are not deleted, in the
	// order of their names. The caller must not change the records.
	Issuers() []*revoked.Issuer
	// CreateIssuer stores a new issuer and sets CreatedAt and Version. It returns ErrConflict if
	// the name or the iss is taken, or was until a short time ago.
	CreateIssuer(ctx context.Context, by revoked.Actor, i revoked.Issuer) (*revoked.Issuer, uint64, error)
	// UpdateIssuer replaces the record if its version is i.Version, and returns ErrConflict if it
	// is not. If i has no JWKSURI, stored keys that i lacks are retired. It returns ErrNotFound for
	// an unknown name.
	UpdateIssuer(ctx context.Context, by revoked.Actor, i revoked.Issuer) (*revoked.Issuer, uint64, error)
	// DeleteIssuer deletes an issuer and revokes its tokens. It returns ErrNotFound for an unknown
	// name, and succeeds for one that is already deleted.
	DeleteIssuer(ctx context.Context, by revoked.Actor, name string) (index uint64, err error)
	// BanIssuerKey bans a key permanently. It returns ErrNotFound for an unknown issuer or key. It
	// is idempotent.
	BanIssuerKey(ctx context.Context, by revoked.Actor, name, thumbprint string) (index uint64, err error)
	// CheckToken verifies a token with the keys of an issuer. The keys are current as of the call.
	// It returns ErrNotFound for an unknown name. It neither keeps nor logs the token.
	CheckToken(ctx context.Context, name, token string) (revoked.TokenCheck, error)
	// RefreshIssuer makes the leader fetch the keys of an issuer now, and reports whether the keys
	// changed. It returns ErrNotFound for an unknown name, ErrUnprocessable for an issuer without a
	// JWKSURI, and ErrQuota if the last fetch began a short time ago.
	RefreshIssuer(ctx context.Context, by revoked.Actor, name string) (index uint64, changed bool, err error)
	// KeyFetches returns the state of the leader's key fetches for each issuer with a JWKSURI. The
	// keys of the map are issuer names.
	KeyFetches(ctx context.Context) (map[string]revoked.KeyFetch, error)
	// ParseKeys reads a JWK set that an operator sends. It returns ErrInvalid for a set with a
	// private, symmetric or malformed key, or without a usable key.
	ParseKeys(set []byte) ([]revoked.IssuerKey, error)
	// ParseAssertion and AssertionUse implement [clientauth.Assertions].
	ParseAssertion(raw, audience string) (
		id string, verify func(*revoked.Client) (v revoked.VerifiedAssertion, problem string, ok bool))
	AssertionUse(key revoked.Digest) (request [16]byte, used bool)
	// FormatKeys returns the JWK set of keys.
	FormatKeys(keys []revoked.IssuerKey) (set []byte, err error)

	// Settings returns this node's copy of the replicated settings.
	Settings() revoked.Settings
	// UpdateSettings replaces the settings if their version is s.Version, and returns ErrConflict
	// if it is not. It returns ErrUnprocessable for a value out of bounds.
	UpdateSettings(ctx context.Context, by revoked.Actor, s revoked.Settings) (revoked.Settings, uint64, error)

	// Members returns the members of the cluster.
	Members(ctx context.Context) ([]revoked.Member, error)
	// NodeStatus returns this node's own view. Fields without a known value are zero.
	NodeStatus(ctx context.Context) revoked.NodeStatus
	// Readiness reports which requests this node can answer now.
	Readiness(ctx context.Context) revoked.Readiness
	// Join makes this node, which is not in a cluster, join the cluster at one of the addresses
	// (cluster port). It returns ErrAlreadyMember, or ErrUnprocessable if no address belongs to a
	// cluster that it may join.
	Join(ctx context.Context, addresses []string) (index uint64, err error)
	// Leave makes this node leave the cluster permanently; the process exits after the response.
	// Leave returns ErrQuorumRisk if the other voters would have no live majority.
	Leave(ctx context.Context, by revoked.Actor) (index uint64, err error)
	// Remove removes another node. It returns ErrNotFound for an unknown node, and ErrQuorumRisk if
	// the other voters would have no live majority. force skips this check and requires a reason.
	// The leader authorizes the actor again, so Remove may return ErrForbidden or ErrActorChanged.
	Remove(ctx context.Context, by revoked.Actor, node string, force bool, reason string) (index uint64, err error)
	// TransferLeader makes node the leader. If node is empty, the leader chooses one. The leader
	// authorizes the actor again.
	TransferLeader(ctx context.Context, by revoked.Actor, node string) (index uint64, err error)

	// Admit allows a node that is not a member to join for ttl. It returns ErrConflict for a member,
	// and ErrUnprocessable if too many nodes are admitted.
	Admit(ctx context.Context, by revoked.Actor, node string, nonVoter bool, ttl time.Duration) (index uint64, err error)
	// WithdrawAdmission ends the admission of a node. It is idempotent. It returns
	// ErrConflict for a member and ErrNotFound for a name without an admission.
	WithdrawAdmission(ctx context.Context, by revoked.Actor, node string) (index uint64, err error)
	// Admitted returns the nodes that may join, that are members, or that are barred, ordered by
	// name.
	Admitted(ctx context.Context) ([]revoked.AdmittedNode, error)
	// ClusterCA returns the SHA-256 of the public key of the cluster's CA, for a join token.
	ClusterCA() ([32]byte, error)
	// CreateJoinToken stores t for ttl and returns it with its times. It returns ErrUnprocessable
	// if there are too many tokens.
	CreateJoinToken(ctx context.Context, by revoked.Actor, t revoked.JoinToken, ttl time.Duration) (
		revoked.JoinToken, error)
	// JoinTokens returns the join tokens that are not deleted, oldest first.
	JoinTokens(ctx context.Context) ([]revoked.JoinToken, error)
	// DeleteJoinToken deletes a join token. It is idempotent. It returns ErrNotFound for
	// an unknown id.
	DeleteJoinToken(ctx context.Context, by revoked.Actor, id string) (index uint64, err error)
	// Promote makes a member a voter. It returns ErrNotFound for an unknown node, and
	// ErrUnprocessable if the member has not caught up.
	Promote(ctx context.Context, by revoked.Actor, node string) (index uint64, err error)
	// Demote makes a member a non-voter. It returns ErrNotFound for an unknown node, and
	// ErrQuorumRisk if the other voters would have no live majority.
	Demote(ctx context.Context, by revoked.Actor, node string) (index uint64, err error)

	// Snapshot writes a verified backup. After the first byte, an error aborts the response.
	Snapshot(ctx context.Context, w io.Writer) error
}

// Config configures an [API]. Backend and Issuer are required.
type Config struct {
	Backend Backend
	Log     *slog.Logger // each line reports a request, or a consequence of one; default: discard
	// RequestLog gets the request lines that may be lost if the process is killed. Their level is
	// below warn, and their callers are not administrators or operators. Default: Log.
	RequestLog *slog.Logger
	Registerer prometheus.Registerer // default: a new registry
	Gatherer   prometheus.Gatherer   // content of /metrics; default: empty
	Now        func() time.Time      // default: time.Now

	// Issuer is the issuer identifier of RFC 8414, an absolute URL without query and fragment.
	Issuer string
	// MetadataExtra is merged into the metadata document. It cannot replace [MetadataMembers].
	MetadataExtra map[string]any

	// ClientCAs returns the CAs that may issue certificates of callers. Its result selects the
	// method of RFC 8705: tls_client_auth with CAs, self_signed_tls_client_auth without. A nil
	// function or a nil pool means no CAs.
	ClientCAs func() *x509.CertPool

	RequireHTTPS bool // a plain HTTP request gets 400 and has no effect
	RequirePost  bool // a GET request to an OAuth endpoint gets 405

	CORSOrigins    []string       // exact origins, or "*"; empty: no CORS
	TrustedProxies []netip.Prefix // peers whose X-Forwarded-Proto and X-Forwarded-For are trusted
	// CheckNetworks are the networks of peers that may call /v1/check without credentials, with the
	// audiences of each. A peer sees the same tokens as a resource server with the audiences of its
	// longest prefix. "*" is every audience. Without audiences, only tokens without an audience
	// pass. Prefixes are masked.
	CheckNetworks map[netip.Prefix][]string

	MetricsOnAPI bool   // also serve /metrics on the API port
	Console      bool   // serve the console at /ui
	NodeID       string // distinguishes the cookies of consoles on one host
	Profiles     bool   // the handler of the metrics also serves profiles to administrators
	// RecentLog returns the newest log lines, EffectiveConfig the configuration in effect as JSON,
	// without secrets. Both are for administrators; nil: 404.
	RecentLog       func() []byte
	EffectiveConfig func() any
	// MetricsNetworks are the networks of callers that may read /metrics without credentials.
	// Others need the role admin, operator or viewer. Prefixes are masked.
	MetricsNetworks []netip.Prefix

	AuthFailuresPerMinute int // failures per client id; default 60
	MissesPerSecond       int // introspections of unknown tokens per caller; default 2000
	FeedLimit             int // open feeds; default 1000
	FeedLimitPerClient    int // default 100
	BulkLimit             int // concurrent bulk registrations; default 16
	BulkLimitPerClient    int // default 4

	// TempDir is the directory for results of bulk registrations that the callers have not read yet.
	// Empty: the system's temporary directory.
	TempDir              string
	SpoolLimit           int64 // bytes of all unread results together; default 512 MiB
	SpoolLimitPerRequest int64 // bytes of the unread results of one request; default 64 MiB

	// PublicRevocationsPerMinute limits the revocations of unknown tokens by one public client from
	// one address; default 30.
	PublicRevocationsPerMinute int
	RequestTimeout             time.Duration // default 5s
	MaxRequestsPerClient       int           // requests in progress per client id; default 5000

	Version string

	Tracer *tracing.Tracer // nil: no tracing
	// TraceNetworks are the networks of callers whose traceparent is continued, including its
	// decision to sample. For every other caller, a new trace begins here. Prefixes are masked.
	TraceNetworks []netip.Prefix
}

// withDefaults returns c with the defaults of absent fields.
func (c Config) withDefaults() Config {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	c.RequestLog = cmp.Or(c.RequestLog, c.Log)
	if c.Registerer == nil {
		c.Registerer = prometheus.NewRegistry()
	}
	if c.Gatherer == nil {
		c.Gatherer = prometheus.NewRegistry()
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	c.AuthFailuresPerMinute = cmp.Or(c.AuthFailuresPerMinute, 60)
	c.MissesPerSecond = cmp.Or(c.MissesPerSecond, 2000)
	c.FeedLimit, c.FeedLimitPerClient = cmp.Or(c.FeedLimit, 1000), cmp.Or(c.FeedLimitPerClient, 100)
	c.BulkLimit, c.BulkLimitPerClient = cmp.Or(c.BulkLimit, 16), cmp.Or(c.BulkLimitPerClient, 4)
	c.SpoolLimit = cmp.Or(c.SpoolLimit, 512<<20)
	c.SpoolLimitPerRequest = cmp.Or(c.SpoolLimitPerRequest, 64<<20)
	c.PublicRevocationsPerMinute = cmp.Or(c.PublicRevocationsPerMinute, 30)
	c.MaxRequestsPerClient = cmp.Or(c.MaxRequestsPerClient, 5000)
	c.RequestTimeout = cmp.Or(c.RequestTimeout, 5*time.Second)
	return c
}

// check returns an error for an invalid value. It runs after withDefaults, which replaces zeros.
func (c Config) check() error {
	invalid := func(problem string) error { return fmt.Errorf("%w: api: %s", revoked.ErrInvalid, problem) }
	switch {
	case c.Backend == nil:
		return invalid("Backend is missing")
	case c.AuthFailuresPerMinute < 0:
		return invalid("AuthFailuresPerMinute is negative")
	case c.MissesPerSecond < 0:
		return invalid("MissesPerSecond is negative")
	case min(c.FeedLimit, c.FeedLimitPerClient, c.BulkLimit, c.BulkLimitPerClient) < 0:
		return invalid("FeedLimit, FeedLimitPerClient, BulkLimit or BulkLimitPerClient is negative")
	case min(c.SpoolLimit, c.SpoolLimitPerRequest) < 0:
		return invalid("SpoolLimit or SpoolLimitPerRequest is negative")
	case c.PublicRevocationsPerMinute < 0:
		return invalid("PublicRevocationsPerMinute is negative")
	case c.MaxRequestsPerClient < 0:
		return invalid("MaxRequestsPerClient is negative")
	case c.RequestTimeout < 0:
		return invalid("RequestTimeout is negative")
	}
	for n := range c.CheckNetworks {
		// Such a network would not contain any address, or would duplicate another entry.
		if !n.IsValid() || n != n.Masked() || n.Addr().Is4In6() {
			return invalid(fmt.Sprintf("CheckNetworks: want a masked IPv4 or IPv6 network, got %v", n))
		}
	}
	return nil
}

// An API answers the HTTP requests of one node.
type API struct {
	cfg        Config
	echo       *echo.Echo
	metrics    *metrics
	streams    *streams
	access     *access.Control
	tokens     *tokens.Endpoints
	debug      *debug.Pages
	console    *console.Console // nil: the console is off
	ids        *request.IDs
	recorder   *recorder.Recorder
	leaderless *sparseLines // log lines of requests without a leader
	metadata   []byte       // the document of RFC 8414
	issuerPath string       // path of the issuer identifier, often empty
	routes     map[string]*routeMetrics
}

// withTimeout returns the request's context, limited to the configured request timeout. Handlers
// that use it answer 503 after that timeout; their writes may still take effect.
func (a *API) withTimeout(r *request.Request) (context.Context, context.CancelFunc) {
	return context.WithTimeout(r.Request().Context(), a.cfg.RequestTimeout)
}

// Close waits until the audit entries of past calls are committed, at most until ctx ends. Call it
// after the last request has ended and before the backend closes.
func (a *API) Close(ctx context.Context) { a.recorder.Close(ctx) }
