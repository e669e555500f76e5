package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/labstack/echo/v4"

	"revoked"
	"revoked/api/clientauth"
	"revoked/api/request"
)

// A Backend is the node that the API serves; [revoked/node.Node] implements it. Methods must allow
// concurrent calls. Errors wrap the sentinels of package revoked.
//
// A write returns once it is final on every node, a registration once it is committed. A node that
// is not in a cluster answers Client from its bootstrap files.
type Backend interface {
	// Revoke ends the grant of the token. It records a tombstone for an unknown token, and succeeds
	// for a dead one. It returns ErrForeignToken, ErrQuota or ErrActorChanged.
	Revoke(ctx context.Context, by revoked.Actor, d revoked.Digest) (revoked.RevokeResult, error)
	// RevokeToken is Revoke for a token that may be a JWT of a trusted issuer. It also ends the grant
	// or the session of a JWT, as the record of the issuer asks. It returns ErrOverloaded if the turn
	// of its caller to have a signature verified does not come.
	RevokeToken(ctx context.Context, by revoked.Actor, p revoked.PresentedToken) (revoked.RevokeResult, error)
	// RevokeJTI ends the JWTs of an issuer with a jti. It returns ErrUnprocessable if the issuer is
	// not trusted or reuses jti, and ErrForbidden for a client whose Issuers do not name it.
	RevokeJTI(ctx context.Context, by revoked.Actor, r revoked.JTIRevocation) (index uint64, err error)
	// RevokeJTIs is RevokeJTI for several, in one entry. The results are in the order of list; the
	// last error is of all of them.
	RevokeJTIs(
		ctx context.Context, by revoked.Actor, list []revoked.JTIRevocation,
	) (results []error, index uint64, err error)
	// DeleteGrant ends the grant with that id. It returns ErrNotFound, or ErrForbidden for an issuer
	// that did not register it.
	DeleteGrant(ctx context.Context, by revoked.Actor, id, reason string) (index uint64, err error)
	// RevokeMatching creates a cut-off, unless req.DryRun is set. It returns ErrExpectation.
	RevokeMatching(ctx context.Context, by revoked.Actor, req revoked.CutoffRequest) (revoked.CutoffResult, error)

	// Status returns the status of the token at some moment after the call began. A verdict other than
	// Dead requires a lease or a read barrier; without either, Status returns ErrNotCurrent or
	// ErrNoLeader. It bounds its own wait by the request timeout.
	Status(ctx context.Context, d revoked.Digest) (revoked.TokenStatus, error)
	// StatusOf is Status for a token that may be a JWT of a trusted issuer. It returns ErrOverloaded
	// if the turn of its caller to have a signature verified does not come.
	StatusOf(ctx context.Context, p revoked.PresentedToken) (revoked.TokenStatus, error)
	// Explain returns the status of a token like StatusOf, and why it is so. With the digest alone, it
	// knows a JWT only if a denial or a tombstone has its digest. It returns the errors of StatusOf.
	Explain(ctx context.Context, p revoked.PresentedToken) (revoked.Explanation, error)
	// Peek returns this node's own copy, which may be stale.
	Peek(d revoked.Digest) (revoked.Record, error)

	// Register commits the registrations and returns one result for each, in the order of regs. The
	// error concerns the whole call, such as ErrNoLeader; an error of one registration is in its
	// result.
	Register(ctx context.Context, by revoked.Actor, regs []revoked.Registration) ([]revoked.RegisterResult, error)
	// RegisterBulk is like Register, for registrations that may wait for other requests. It waits for
	// the turn of the client as long as ctx lasts, and then at most for the request timeout.
	RegisterBulk(ctx context.Context, by revoked.Actor, regs []revoked.Registration) ([]revoked.RegisterResult, error)
	// Grant returns a grant with its tokens, or ErrNotFound.
	Grant(ctx context.Context, id string) (revoked.GrantView, error)
	// Grants returns a page of the grants that q selects, in the order of their ids. Its work is
	// bounded: a page that is not the last one may have fewer grants than q.Limit, or none.
	Grants(ctx context.Context, q revoked.GrantQuery) (revoked.GrantPage, error)

	// Events returns at most limit events with an index above after, in the order of the log. upTo is
	// the index up to which they cover the log. It returns ErrGone if events after that index have
	// been deleted.
	Events(ctx context.Context, after uint64, limit int) (events []revoked.Event, upTo uint64, err error)
	// Newest returns an index that this node has applied and no node had exceeded before the call. It
	// needs a read barrier: under a lease alone, another node may have applied, and shown to a reader,
	// entries that are not yet acknowledged. It returns ErrNotCurrent or ErrNoLeader.
	Newest(ctx context.Context) (index uint64, err error)
	// WaitEvent blocks until this node may have applied an event, or a change of a client, with an
	// index above after, or returns the context's error. Other entries do not end the wait.
	WaitEvent(ctx context.Context, after uint64) error

	// Client returns this node's own copy of a client, so that authentication works without quorum.
	// The caller must not change the record.
	Client(id string) (*revoked.Client, bool)
	// Current blocks until this node's copy holds everything that was acknowledged before the call. It
	// returns at once under a lease. It returns ErrNotCurrent or ErrNoLeader.
	Current(ctx context.Context) error
	// ClientsCurrent reports whether this node's copy has been current at least once since the start.
	// Until then, a client that is missing from the copy may exist.
	ClientsCurrent() bool
	// Clients returns all clients in the order of their ids.
	Clients(ctx context.Context) ([]*revoked.Client, error)
	// CreateClient stores a new client and sets CreatedAt and Version. It returns ErrConflict if the
	// id is taken.
	CreateClient(ctx context.Context, by revoked.Actor, c revoked.Client) (*revoked.Client, uint64, error)
	// UpdateClient replaces the record if its version is c.Version, and returns ErrConflict if it is
	// not. It returns ErrNotFound for an unknown id.
	UpdateClient(ctx context.Context, by revoked.Actor, c revoked.Client) (*revoked.Client, uint64, error)
	// DeleteClient ends the client and all of its tokens. It returns ErrNotFound for an id that never
	// existed, and succeeds for one that is already deleted.
	DeleteClient(ctx context.Context, by revoked.Actor, id string) (index uint64, err error)

	// Issuers returns this node's own copy of the trusted issuers that are not deleted, in the order
	// of their names. The caller must not change the records.
	Issuers() []*revoked.Issuer
	// CreateIssuer stores a new issuer and sets CreatedAt and Version. It returns ErrConflict if the
	// name or the iss is taken, or was until a short time ago.
	CreateIssuer(ctx context.Context, by revoked.Actor, i revoked.Issuer) (*revoked.Issuer, uint64, error)
	// UpdateIssuer replaces the record if its version is i.Version, and returns ErrConflict if it is
	// not. Without JWKSURI, keys that i lacks are retired. It returns ErrNotFound for an unknown name.
	UpdateIssuer(ctx context.Context, by revoked.Actor, i revoked.Issuer) (*revoked.Issuer, uint64, error)
	// DeleteIssuer deletes an issuer and ends its tokens. It returns ErrNotFound for an unknown name,
	// and succeeds for one that is already deleted.
	DeleteIssuer(ctx context.Context, by revoked.Actor, name string) (index uint64, err error)
	// BanIssuerKey bans a key for good. It returns ErrNotFound for an unknown issuer or key. A repeat
	// is not an error.
	BanIssuerKey(ctx context.Context, by revoked.Actor, name, thumbprint string) (index uint64, err error)
	// CheckToken verifies a token with the keys of an issuer, current as of the call. It returns
	// ErrNotFound for an unknown name. It neither keeps nor logs the token.
	CheckToken(ctx context.Context, name, token string) (revoked.TokenCheck, error)
	// RefreshIssuer makes the leader fetch the keys of an issuer now, and reports whether they
	// changed. It returns ErrNotFound, ErrUnprocessable for an issuer whose keys were given, or
	// ErrQuota if the last fetch began a short time ago.
	RefreshIssuer(ctx context.Context, name string) (index uint64, changed bool, err error)
	// KeyFetches returns the leader's fetches of each issuer with a JWKSURI, by name.
	KeyFetches(ctx context.Context) (map[string]revoked.KeyFetch, error)
	// ParseKeys reads a JWK set that an operator gives. It returns ErrInvalid for a set with a
	// private, symmetric or malformed key, or without a usable one.
	ParseKeys(set []byte) ([]revoked.IssuerKey, error)
	// FormatKeys returns the JWK set of keys.
	FormatKeys(keys []revoked.IssuerKey) (set []byte, err error)

	// Settings returns this node's copy of the replicated settings.
	Settings() revoked.Settings
	// UpdateSettings replaces the settings if their version is s.Version, and returns ErrConflict if
	// it is not. It returns ErrUnprocessable for a value out of bounds.
	UpdateSettings(ctx context.Context, by revoked.Actor, s revoked.Settings) (revoked.Settings, uint64, error)

	// Members returns the members of the cluster.
	Members(ctx context.Context) ([]revoked.Member, error)
	// NodeStatus returns this node's own view. Fields that it does not know are zero.
	NodeStatus(ctx context.Context) revoked.NodeStatus
	// Readiness reports which requests this node can answer now.
	Readiness(ctx context.Context) revoked.Readiness
	// Join makes this node, which is not in a cluster, join the cluster at one of the addresses
	// (cluster port). It returns ErrAlreadyMember, or ErrUnprocessable if no address belongs to a
	// cluster that it may join.
	Join(ctx context.Context, addresses []string) (index uint64, err error)
	// Leave makes this node leave the cluster permanently; the process ends after the response. It
	// returns ErrQuorumRisk.
	Leave(ctx context.Context) (index uint64, err error)
	// Remove removes another node. It returns ErrNotFound, or ErrQuorumRisk unless force is set, which
	// requires a reason. The leader checks by again: ErrForbidden, ErrActorChanged.
	Remove(ctx context.Context, by revoked.Actor, node string, force bool, reason string) (index uint64, err error)
	// TransferLeader makes node the leader. If node is empty, the leader chooses one. The leader
	// checks by again.
	TransferLeader(ctx context.Context, by revoked.Actor, node string) (index uint64, err error)

	// Admit lets a node that is not a member join for ttl. It returns ErrConflict for a member, and
	// ErrUnprocessable if too many nodes are admitted.
	Admit(ctx context.Context, by revoked.Actor, node string, nonVoter bool, ttl time.Duration) (index uint64, err error)
	// WithdrawAdmission ends the admission of a node. It returns ErrConflict for a member and
	// ErrNotFound for a name without an admission. A repeat is not an error.
	WithdrawAdmission(ctx context.Context, by revoked.Actor, node string) (index uint64, err error)
	// Admitted returns the nodes that may join, that are members, or that are barred, by name.
	Admitted(ctx context.Context) ([]revoked.AdmittedNode, error)
	// CreateJoinToken stores t for ttl and returns it with its times. It returns ErrUnprocessable if
	// there are too many tokens.
	CreateJoinToken(ctx context.Context, by revoked.Actor, t revoked.JoinToken, ttl time.Duration) (
		revoked.JoinToken, error)
	// JoinTokens returns the join tokens that are not deleted, the oldest first.
	JoinTokens(ctx context.Context) ([]revoked.JoinToken, error)
	// DeleteJoinToken deletes a join token. It returns ErrNotFound for an unknown id. A repeat is not
	// an error.
	DeleteJoinToken(ctx context.Context, by revoked.Actor, id string) (index uint64, err error)
	// Promote lets a member vote. It returns ErrNotFound, or ErrUnprocessable if the member has not
	// caught up.
	Promote(ctx context.Context, by revoked.Actor, node string) (index uint64, err error)
	// Demote takes the vote of a member until it is promoted. It returns ErrNotFound or ErrQuorumRisk.
	Demote(ctx context.Context, by revoked.Actor, node string) (index uint64, err error)

	// Snapshot writes a verified backup. After the first byte, an error aborts the response.
	Snapshot(ctx context.Context, w io.Writer) error
}

// An API answers the HTTP requests of one node. It starts no goroutine and needs no Close.
type API struct {
	cfg        Config
	echo       *echo.Echo
	metrics    *metrics
	streams    *streams
	auth       *clientauth.Authenticator
	misses     *clientauth.Limiter // introspections of unknown tokens, by caller
	anonymous  *clientauth.Limiter // revocations of unknown tokens by public clients, by client and address
	perClient  *clientCounter
	ids        *request.IDs
	leaderless *sparseLines // log lines of requests without a leader
	metadata   []byte       // the document of RFC 8414
	issuerPath string       // path of the issuer identifier, often empty
	forms      *sync.Pool   // of *oauthRequest
	routes     map[string]*routeMetrics
}

// withTimeout returns the request's context, limited to the configured request timeout.
func (a *API) withTimeout(r *request.Request) (context.Context, context.CancelFunc) {
	return context.WithTimeout(r.Request().Context(), a.cfg.RequestTimeout)
}

// authorize returns h for callers that authenticate by HTTP Basic and have one of the roles. It
// answers others with 401, 403, 429 or 503, and a malformed query with 400.
func (a *API) authorize(h request.Handler, roles ...revoked.Role) request.Handler {
	return func(r *request.Request) error {
		values := r.Request().Header["Authorization"]
		if len(values) > 1 {
			return request.Malformed("more than one Authorization header")
		}
		// The handlers show clients and settings from this node's copy, so bring it up to date. Without a
		// leader, they show the copy as it is. A handler that needs a current state runs its own read
		// barrier.
		current := a.auth.CatchUp(r.Request().Context()) == nil || a.cfg.Backend.ClientsCurrent()
		caller, err := a.authenticateBasic(r, values)
		if err != nil {
			return err
		}
		r.Caller = caller
		if err := a.admit(r, caller.Client); err != nil {
			return err
		}
		switch allowed := slices.ContainsFunc(roles, r.Client.Has); {
		case !allowed && !current: // the role may have been granted since
			return fmt.Errorf("%w: roles not known yet", revoked.ErrNotCurrent)
		case !allowed:
			return request.Forbidden("the caller lacks the role for this")
		}
		if err := request.CheckQuery(r.Request().URL.RawQuery); err != nil {
			return err
		}
		return h(r)
	}
}

// authenticateBasic returns the caller that the Authorization header identifies. values has at most
// one element.
func (a *API) authenticateBasic(r *request.Request, values []string) (*clientauth.Caller, error) {
	if len(values) == 0 {
		return nil, a.noCredentials()
	}
	caller, err := a.auth.Authenticate(r.Request().Context(), clientauth.Attempt{
		Candidates: clientauth.ParseBasic(values[0]), Method: revoked.AuthBasic, From: a.callerAddr(r)})
	if errors.Is(err, revoked.ErrNotCurrent) && a.cfg.Backend.NodeStatus(r.Request().Context()).ClusterID == "" {
		return nil, errNoRecords
	}
	return caller, err
}

// errNoRecords answers credentials that a node of no cluster does not know.
var errNoRecords = &request.Failure{Status: http.StatusServiceUnavailable, Code: request.CodeUnavailable,
	Outcome:    "no_cluster",
	Title:      "this node is in no cluster yet: only the secret of its own bootstrap file counts",
	RetryAfter: time.Second}

// noCredentials counts a caller without credentials and returns [clientauth.ErrUnauthenticated].
func (a *API) noCredentials() error {
	a.metrics.authFailures.WithLabelValues("none").Inc()
	return clientauth.ErrUnauthenticated
}
