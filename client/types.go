package client

import "encoding/json"

// A Member is one node in the response to GET /v1/members.
type Member struct {
	NodeID        string `json:"node_id"`
	Region        string `json:"region"`
	API           string `json:"api"`
	Cluster       string `json:"cluster"`
	Voter         bool   `json:"voter"`
	Leader        bool   `json:"leader"`
	Alive         bool   `json:"alive"`
	AppliedIndex  uint64 `json:"applied_index"` // 0: the member has not reported to this leader yet
	Behind        uint64 `json:"behind"`
	LastContactMS int64  `json:"last_contact_ms"` // -1: never
	LeaseLeftMS   int64  `json:"lease_left_ms"`
	Version       string `json:"version"`
}

// Members is the response to GET /v1/members.
type Members struct {
	Members []Member `json:"members"`
	Voting  *Voting  `json:"voting"` // nil without voters, and from a node before 0.4
}

// Voting has the number of voters that answer, and how many more may fail.
type Voting struct {
	Voters                 int            `json:"voters"`
	VotersUp               int            `json:"voters_up"`
	Quorum                 int            `json:"quorum"`
	FailureTolerance       int            `json:"failure_tolerance"`        // voters, whichever they are
	RegionFailureTolerance int            `json:"region_failure_tolerance"` // whole regions, whichever they are
	Regions                []RegionVoting `json:"regions"`                  // by name
}

// RegionVoting is the part of [Voting] about one region.
type RegionVoting struct {
	Region     string `json:"region"`
	Voters     int    `json:"voters"`
	VotersUp   int    `json:"voters_up"`
	Survivable bool   `json:"survivable"` // the other voters that answer are a quorum
}

// A Status is the response to GET /v1/status.
type Status struct {
	NodeID    string `json:"node_id"`
	ClusterID string `json:"cluster_id"`
	Version   string `json:"version"`
	Healthy   bool   `json:"healthy"`
	Leader    struct {
		NodeID string `json:"node_id"`
		API    string `json:"api"`
	} `json:"leader"`
	Term         uint64  `json:"term"`
	State        string  `json:"state"`
	CommitIndex  uint64  `json:"commit_index"`
	AppliedIndex uint64  `json:"applied_index"`
	Voters       int     `json:"voters"`
	Quorum       int     `json:"quorum"`
	Voting       *Voting `json:"voting"` // as in [Members]
	Lease        struct {
		Held   bool  `json:"held"`
		LeftMS int64 `json:"left_ms"`
	} `json:"lease"`
	LogHash    string   `json:"log_hash"`
	StateHash  string   `json:"state_hash"`
	HashIndex  uint64   `json:"hash_index"`
	Tokens     uint64   `json:"tokens"`
	Grants     uint64   `json:"grants"`
	WaitingFor []string `json:"waiting_for"` // nodes that a pending revocation waits for
	Reasons    []string `json:"reasons"`     // why the node is not healthy
	Backups    []Backup `json:"backups"`     // scheduled backups of the node, one for each target
}

// Backup has the age of the newest successful backup at a target.
type Backup struct {
	Target string `json:"target"` // "dir" or "s3"
	AgeMS  int64  `json:"age_ms"` // -1: no backup
}

// Applied is the response to a change: the log index at which it was applied.
type Applied struct {
	Index  uint64 `json:"index"`
	Leader string `json:"-"` // of a leadership transfer: the new leader, if a node reported it
}

// A Removal describes POST /v1/cluster/remove.
type Removal struct {
	Force  bool   `json:"force,omitempty"`
	Node   string `json:"node"`
	Reason string `json:"reason,omitempty"`
}

// A Revocation is the response to the revocation of a token.
type Revocation struct {
	// Outcome is "revoked", or "unknown" if no such token is registered and so no grant was revoked.
	// Only an administrator gets it; it is empty for every other caller.
	Outcome string `json:"-"`
}

// An Introspection is the response to an introspection (RFC 7662 section 2.2), all members by name.
type Introspection map[string]json.RawMessage

// Active reports whether the token is active.
func (i Introspection) Active() bool { return string(i["active"]) == "true" }

// A TokenBody is one token of a [Registration]. Times are Unix seconds; 0 is absent.
type TokenBody struct {
	Token     string `json:"token"`
	IssuedAt  int64  `json:"issued_at,omitempty"`
	ExpiresAt int64  `json:"expires_at,omitempty"`
}

// A Registration is the body of POST /v1/grants.
type Registration struct {
	GrantID  string     `json:"grant_id,omitempty"`
	ClientID string     `json:"client_id"`
	Subject  string     `json:"subject,omitempty"`
	Session  string     `json:"session,omitempty"`
	Username string     `json:"username,omitempty"`
	Issuer   string     `json:"issuer,omitempty"`
	Scope    string     `json:"scope,omitempty"`
	Audience []string   `json:"audience,omitempty"`
	Access   *TokenBody `json:"access_token,omitempty"`
	Refresh  *TokenBody `json:"refresh_token,omitempty"`
}

// Registered is the response to a registration.
type Registered struct {
	GrantID string `json:"grant_id"`
	Index   uint64 `json:"index"`
	State   string `json:"state"`
}

// A RegisterLine is one line of the response to a stream of registrations. It is a result, a
// failure (Error is set) or the summary at the end (Lines is set).
type RegisterLine struct {
	GrantID string  `json:"grant_id"`
	State   string  `json:"state"`
	Error   string  `json:"error"`
	Detail  string  `json:"detail"`
	Line    uint64  `json:"line"`
	Lines   *uint64 `json:"lines"`
	RegisterSummary
}

// A RegisterSummary counts the results of a stream.
type RegisterSummary struct {
	Registered uint64 `json:"registered"`
	Known      uint64 `json:"known"`
	Revoked    uint64 `json:"revoked"` // tokens of Registered and Known that are inactive from the start
	Failed     uint64 `json:"failed"`
}

// A JTIRevocation is one line of a deny list: it revokes the JWTs of a trusted issuer that have the
// jti.
type JTIRevocation struct {
	Issuer    string `json:"issuer"`
	JTI       string `json:"jti"`
	ExpiresAt int64  `json:"expires_at,omitempty"` // Unix seconds; 0: as late as the issuer's tokens can
	Reason    string `json:"reason,omitempty"`
}

// A RevokeLine is one line of the response to a deny list. It is a result, a failure (Error is set)
// or the summary at the end (Lines is set).
type RevokeLine struct {
	Index  uint64  `json:"index"`
	Error  string  `json:"error"`
	Detail string  `json:"detail"`
	Line   uint64  `json:"line"`
	Lines  *uint64 `json:"lines"`
	RevokeSummary
}

// A RevokeSummary counts the results of a deny list.
type RevokeSummary struct {
	Revoked uint64 `json:"revoked"`
	Failed  uint64 `json:"failed"`
}

// A ClientRecord is a client as the API shows it.
type ClientRecord struct {
	ClientID              string          `json:"client_id"`
	Type                  string          `json:"type"`
	Roles                 []string        `json:"roles"`
	Audiences             []string        `json:"audiences"`
	Issuers               []string        `json:"issuers"`
	AuthMethods           []string        `json:"auth_methods"`
	AllowPublicRevocation bool            `json:"allow_public_revocation"`
	Disabled              bool            `json:"disabled"`
	CreatedAt             json.RawMessage `json:"created_at"`    // Unix seconds
	Secrets               []ClientSecret  `json:"valid_secrets"` // while old ones are valid; else nil
	JWKS                  json.RawMessage `json:"jwks"`          // public keys; nil: none
	Keys                  []ClientKey     `json:"keys"`          // the same keys, without their material
	CertificateSubject
	WeakSecret   bool   `json:"weak_secret,omitempty"` // a secret has fewer than 32 bytes
	ClientSecret string `json:"client_secret"`         // only when it was created or rotated
}

// A CertificateSubject names the certificate of a client with the method tls_client_auth. At most
// one field is set.
type CertificateSubject struct {
	SubjectDN    string `json:"tls_client_auth_subject_dn,omitempty"`
	SubjectDNS   string `json:"tls_client_auth_san_dns,omitempty"`
	SubjectURI   string `json:"tls_client_auth_san_uri,omitempty"`
	SubjectIP    string `json:"tls_client_auth_san_ip,omitempty"`
	SubjectEmail string `json:"tls_client_auth_san_email,omitempty"`
}

// A ClientKey is a public key of a client.
type ClientKey struct {
	KeyID      string `json:"kid"`
	Thumbprint string `json:"thumbprint"` // RFC 7638
	Algorithm  string `json:"alg"`
}

// A ClientSecret describes one valid secret of a client, not the secret itself.
type ClientSecret struct {
	ExpiresAt *int64 `json:"expires_at"` // Unix seconds; nil: never
}

// Clients is the response to GET /v1/clients.
type Clients struct {
	Clients []ClientRecord `json:"clients"`
}

// A NewClient is the body of POST /v1/clients. Absent fields get the server's defaults.
type NewClient struct {
	AllowPublicRevocation bool     `json:"allow_public_revocation,omitempty"`
	Audiences             []string `json:"audiences,omitempty"`
	AuthMethods           []string `json:"auth_methods,omitempty"`
	ClientID              string   `json:"client_id"`
	ClientSecret          string   `json:"client_secret,omitempty"`
	Imported              bool     `json:"imported,omitempty"`
	Issuers               []string `json:"issuers,omitempty"`
	Roles                 []string `json:"roles,omitempty"`
	Type                  string   `json:"type"`
	// JWKS holds the public keys for private_key_jwt and self_signed_tls_client_auth.
	JWKS json.RawMessage `json:"jwks,omitempty"`
	CertificateSubject
}

// A Cutoff is the body of POST /v1/revocations. All selectors that are set must match.
type Cutoff struct {
	ClientID     string `json:"client_id,omitempty"`
	DryRun       bool   `json:"dry_run,omitempty"`
	Expect       *int   `json:"expect,omitempty"`
	GrantID      string `json:"grant_id,omitempty"`
	IssuedBefore int64  `json:"issued_before,omitempty"` // Unix seconds; 0: now
	Issuer       string `json:"issuer,omitempty"`
	Reason       string `json:"reason,omitempty"`
	Session      string `json:"session,omitempty"`
	Subject      string `json:"subject,omitempty"`
}

// A CutoffResult is the response to a [Cutoff].
type CutoffResult struct {
	Index   uint64 `json:"index"`
	Matched *int   `json:"matched"` // active grants; nil if they were not counted
}
