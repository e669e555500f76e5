package revoked

import "slices"

// An AuditKind is the kind of change that an [AuditEntry] records.
type AuditKind string

// The kinds.
const (
	AuditClientCreate    AuditKind = "client.create"
	AuditClientUpdate    AuditKind = "client.update"
	AuditClientDelete    AuditKind = "client.delete"
	AuditClientSecret    AuditKind = "client.secret"
	AuditSettingsUpdate  AuditKind = "settings.update"
	AuditIssuerCreate    AuditKind = "issuer.create"
	AuditIssuerUpdate    AuditKind = "issuer.update"
	AuditIssuerDelete    AuditKind = "issuer.delete"
	AuditIssuerKeyBan    AuditKind = "issuer.key_ban"
	AuditIssuerRefresh   AuditKind = "issuer.refresh"
	AuditGrantDelete     AuditKind = "grant.delete"
	AuditTokenRevoke     AuditKind = "token.revoke"
	AuditCutoffCreate    AuditKind = "cutoff.create"
	AuditJTIRevoke       AuditKind = "jti.revoke"
	AuditClusterJoin     AuditKind = "cluster.join"
	AuditClusterLeave    AuditKind = "cluster.leave"
	AuditClusterRemove   AuditKind = "cluster.remove"
	AuditClusterAdmit    AuditKind = "cluster.admit"
	AuditClusterBar      AuditKind = "cluster.bar" // an admission was withdrawn
	AuditClusterPromote  AuditKind = "cluster.promote"
	AuditClusterDemote   AuditKind = "cluster.demote"
	AuditClusterTransfer AuditKind = "cluster.transfer"
	AuditClusterToken    AuditKind = "cluster.token" // a join token was created or deleted
	AuditSnapshotSave    AuditKind = "snapshot.save"
	AuditRecover         AuditKind = "recover"
	AuditRestore         AuditKind = "restore"
)

// auditKinds lists the kinds in display order. Rows of the state hold the position of a kind, so a
// new kind is appended.
var auditKinds = [...]AuditKind{
	AuditClientCreate, AuditClientUpdate, AuditClientDelete, AuditClientSecret, AuditSettingsUpdate,
	AuditIssuerCreate, AuditIssuerUpdate, AuditIssuerDelete, AuditIssuerKeyBan, AuditIssuerRefresh,
	AuditGrantDelete, AuditTokenRevoke, AuditCutoffCreate, AuditJTIRevoke,
	AuditClusterJoin, AuditClusterLeave, AuditClusterRemove, AuditClusterAdmit, AuditClusterBar,
	AuditClusterPromote, AuditClusterDemote, AuditClusterTransfer, AuditClusterToken,
	AuditSnapshotSave, AuditRecover, AuditRestore,
}

// AuditKinds returns all kinds in display order.
func AuditKinds() []AuditKind { return auditKinds[:] }

// IsAuditKind reports whether k is one of [AuditKinds].
func IsAuditKind(k AuditKind) bool { return slices.Contains(auditKinds[:], k) }

// Actors of changes that no client requested. A client may have the same id, but only these actors
// have version 0.
const (
	ActorBootstrap = "bootstrap" // the first settings and clients of a cluster
	ActorRestore   = "restore"   // a cluster was restored from a backup
	ActorRecover   = "recover"   // a cluster was recovered from the disk of a survivor
	ActorCluster   = "cluster"   // the cluster made the change without a request
)

// Details of entries about calls that changed nothing.
const (
	AuditNoChange = "no change" // the state already had the requested value
	AuditUnknown  = "unknown"   // the token to revoke is unknown
)

// An AuditEntry records one call that changed the state or was refused. Several entries may share
// an index. An entry contains no secret and no token. It contains a subject only if a cut-off
// selects that subject.
type AuditEntry struct {
	Index        uint64
	Time         Time
	Kind         AuditKind
	Actor        string
	ActorVersion uint64 // 0: no client acted
	Node         string // node that received the call; empty: unknown
	RequestID    string // empty: unknown
	Object       AuditObject
	Reason       string // as the caller gave it
	Refused      bool
	Detail       string
}

// An AuditObject names the object of an entry. Fields that do not apply are zero.
type AuditObject struct {
	// The client, grant, session, subject or iss. Subject and Session are set only for a cut-off.
	Selector
	Digest       Digest // digest of a token, or of an unknown id that a refused call named
	JTI          string
	Name         string // name of an issuer's record
	Thumbprint   string
	Node         string
	JoinToken    string // id of a join token
	IssuedBefore Time   // bound of a cut-off
	Count        uint64 // number of tokens that one entry of an import revoked
}

// Has reports whether text is one of the ids in o, its digest, or the prefix of the digest. It
// returns false for an empty text.
func (o *AuditObject) Has(text string) bool {
	if text == "" {
		return false
	}
	for _, id := range [...]string{
		o.ClientID, o.GrantID, o.Subject, o.Session, o.Issuer, o.JTI, o.Name, o.Thumbprint, o.Node, o.JoinToken,
	} {
		if id == text {
			return true
		}
	}
	return !o.Digest.IsZero() && (o.Digest.String() == text || o.Digest.Prefix() == text)
}
