package command_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"flag"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"revoked"
	"revoked/fsm/command"
)

var update = flag.Bool("update", false, "write missing golden files; existing files never change")

const stamp = revoked.Time(1_790_000_000 * 1e6)

type sample struct {
	name string
	c    command.Command
}

// samples are commands with every field set.
func samples() []sample {
	const us = int64(stamp)
	by := revoked.Actor{ClientID: "admin", Version: 7, Admin: true}
	hash := sha256.Sum256([]byte("secret of app"))
	client := &revoked.Client{
		ID: "app", Type: revoked.Confidential, Roles: []revoked.Role{revoked.RoleIssuer},
		AuthMethods: []string{revoked.AuthBasic},
		Audiences:   []string{"x"}, Issuers: []string{"i"}, AllowPublicRevocation: true, Disabled: true, CreatedAt: stamp,
		Version: 9,
		Secrets: []revoked.SecretHash{{Kind: revoked.HashSHA256, Salt: []byte("salt"), Hash: hash[:],
			ExpiresAt: stamp}},
	}
	operator := &revoked.Client{
		ID: "ops", Type: revoked.Confidential, AuthMethods: []string{revoked.AuthBasic},
		Roles: []revoked.Role{revoked.RoleViewer, revoked.RoleIssuer, revoked.RoleOperator, revoked.RoleAuditor},
	}
	asserted := by
	asserted.Assertion = &revoked.AssertionUse{Key: revoked.AssertionKey("admin", "j-1"), ExpiresAt: stamp,
		Request: [16]byte{1, 2, 3}}
	strong := &revoked.Client{
		ID: "robot", Type: revoked.Confidential, AuthMethods: []string{revoked.AuthPrivateKey, revoked.AuthTLS},
		Keys: []revoked.IssuerKey{{KeyID: "k1", Thumbprint: strings.Repeat("t", 43), Algorithm: "ES256",
			Public: []byte("public"), State: revoked.KeyActive}},
		Subject: revoked.CertificateSubject{Kind: revoked.SubjectDN, Value: "CN=robot,O=Example"},
	}
	reg := revoked.Registration{
		GrantID: "g-1", ClientID: "app", Subject: "alice", Session: "s-1", Username: "alice@example.org",
		Issuer: "https://as.example", Scope: "read write", Audience: []string{"rs"},
		Tokens: []revoked.TokenRegistration{
			{
				Digest: revoked.DigestToken("a-1"), Kind: revoked.AccessToken, IssuedAt: stamp, ExpiresAt: stamp.Add(time.Hour),
				NotBefore: stamp, JTI: "jti-a-1", CNF: []byte(`{"jkt":"x"}`),
			},
			{Digest: revoked.DigestToken("r-1"), Kind: revoked.RefreshToken, IssuedAt: stamp,
				ExpiresAt: stamp.Add(24 * time.Hour)},
		},
	}
	issuer := &revoked.Issuer{
		Name: "as1", Issuer: "https://as.example", JWKSURI: "https://as.example/jwks", Algorithms: []string{"RS256"},
		TokenTypes: []string{"JWT"}, RequiredClaims: map[string]string{"typ": "Bearer", "use": "access"},
		ForbiddenClaims: []string{"nonce"}, ClientClaim: "cid", SessionClaim: "sid", GrantClaim: "gid",
		RevokeSession: true, OwnClients: true, RefuseUnknownClients: true, RequireAudience: true, JTI: true,
		MaxLifetime: time.Hour, EarlierLifetime: time.Minute, LifetimeSince: stamp, ClockSkew: 5 * time.Second,
		Disabled: true, CreatedAt: stamp, DeletedAt: stamp, Version: 9, KeysVersion: 8,
		Keys: []revoked.IssuerKey{{
			KeyID: "k1", Thumbprint: strings.Repeat("a", 43), Algorithm: "RS256", Public: []byte("der"),
			State: revoked.KeyRetired, MissingSince: stamp, EndedAt: stamp,
		}},
	}
	jwt := &revoked.JWT{
		Issuer: "https://as.example", JTI: "j-1", ClientID: "app", Subject: "alice", Session: "s-1", GrantID: "g-1",
		Digests:  []revoked.Digest{revoked.DigestToken("jwt"), revoked.DigestToken("its twin")},
		IssuedAt: stamp, ExpiresAt: stamp.Add(time.Hour), Audience: []string{"rs"}, Thumbprint: strings.Repeat("a", 43),
	}
	remapped, remappedJWT := *issuer, *jwt
	remapped.EarlierSkew, remapped.SkewSince, remapped.MappingVersion = time.Second, stamp, 7
	remapped.Earlier = []revoked.EarlierMapping{{Until: stamp, ClaimMapping: revoked.ClaimMapping{
		ClientClaim: "azp", SessionClaim: "session", GrantClaim: "grant", OwnClients: true}}}
	remappedJWT.MappingVersion = 7
	remappedJWT.Earlier = []revoked.Membership{
		{ClientID: "old", Session: "s-0", GrantID: "g-0", OwnClients: true, HasGrants: true}}
	acknowledged := []revoked.Acknowledgement{
		{Index: 70, AppliedAt: stamp, At: stamp.Add(time.Millisecond), WaitedFor: []string{"node2", "node3"}},
		{Index: 72, AppliedAt: stamp.Add(time.Second), At: stamp.Add(2 * time.Second), WaitedFor: []string{"node3"}},
		{Index: 80, AppliedAt: stamp.Add(-time.Second), At: stamp.Add(-time.Second)},
	}
	settings := revoked.DefaultSettings()
	settings.Version, settings.LeaseDuration, settings.LeaseCeiling = 5, 2*time.Second, time.Second
	return []sample{
		{"batch", &command.Batch{Stamp: us, Ops: []*command.Op{
			command.RegisterOp(by, reg), command.RevokeOp(by, revoked.DigestToken("a-1"),
				"why"), command.DeleteGrantOp(by, "g-1", "why"),
			command.CutoffOp(by, revoked.Selector{ClientID: "c", Subject: "s", Session: "n", GrantID: "g",
				Issuer: "i"}, stamp, "why"),
			command.PutClientOp(by, client, 9), command.DeleteClientOp(by, "app"), command.PutSettingsOp(by,
				settings, 5),
		}}},
		{"batch-rules", &command.Batch{Stamp: us, Rules: command.RegisterRules,
			Ops: []*command.Op{command.RegisterOp(by, reg)}}},
		{"batch-jti-rules", &command.Batch{Stamp: us, Rules: command.JTIRules,
			Ops: []*command.Op{command.RegisterOp(by, reg)}}},
		{"membership", &command.Batch{Stamp: us, Ops: []*command.Op{
			command.AdmitNodeOp(by, "node4", true, time.Hour), command.WithdrawNodeOp(by, "node4"),
			command.BarNodeOp(by, "node4", "why"), command.JoinNodeOp("node4", revoked.DigestToken("join token")),
			command.SetVotingOp(by, "node4", true, 0), command.DeleteJoinTokenOp(by, "j-1"),
			command.CreateJoinTokenOp(by, &revoked.JoinToken{
				ID: "j-1", Hash: revoked.DigestToken("join token"), Node: "node4", NonVoter: true,
			}, time.Hour),
		}}},
		{"join-token-keys", &command.Batch{Stamp: us, Ops: []*command.Op{
			command.JoinWithKeyOp("node4", revoked.DigestToken("public key")),
			command.CreateJoinTokenOp(by, &revoked.JoinToken{
				ID: "j-1", Hash: revoked.DigestToken("public key"), HasKey: true, Node: "node4",
			}, time.Hour),
		}}},
		{"enrollment", &command.Batch{Stamp: us, Ops: []*command.Op{
			command.EnrollNodeOp("node4", revoked.DigestToken("public key"), revoked.DigestToken("node key"), "node1"),
		}}},
		{"members", &command.Batch{Stamp: us, Ops: []*command.Op{
			audited(command.SetVotingOp(by, "node4", true, command.VoteAsked)),
			command.MembersOp([]command.NotedMember{
				{Server: "node1/a", Address: "host1:7601", Voter: true}, {Server: "node4/b", Address: "host4:7601"},
			}, 9),
		}}},
		{"acknowledge", &command.Batch{Stamp: us, Ops: []*command.Op{command.AcknowledgeOp(acknowledged)}}},
		{"issuers", &command.Batch{Stamp: us, Ops: []*command.Op{
			command.PutIssuerOp(by, issuer, 9), command.DeleteIssuerOp(by, "as1"),
			command.PutIssuerKeysOp("as1", 11, issuer.Keys), command.BanIssuerKeyOp(by, "as1", issuer.Keys[0].Thumbprint),
			command.RevokeJWTOp(by, jwt, "why"),
			command.RevokeJWTOp(by, &revoked.JWT{Issuer: "https://as.example", JTI: "j-1", ExpiresAt: stamp}, "why"),
		}}},
		{"issuer-mappings", &command.Batch{Stamp: us, Ops: []*command.Op{
			command.PutIssuerOp(by, &remapped, 9), command.RevokeJWTOp(by, &remappedJWT, "why"),
		}}},
		{"operator-roles", &command.Batch{Stamp: us, Ops: []*command.Op{command.PutClientOp(by, operator, 9)}}},
		{"bootstrap-operator-roles", &command.Bootstrap{
			Stamp: us, ClusterId: "c-1", Settings: command.SettingsMessage(settings),
			Clients: []*command.ClientRecord{command.ClientMessage(client), command.ClientMessage(operator)},
		}},
		{"audited", &command.Batch{Stamp: us, Audited: true, Ops: []*command.Op{
			audited(command.RevokeOp(by, revoked.DigestToken("a-1"), "why")),
			audited(command.OnBehalf(command.WithdrawNodeOp(revoked.Actor{}, "node4"), by)),
			command.NoteOp(by, revoked.AuditEntry{
				Kind: revoked.AuditClientUpdate, Reason: "why", Detail: "forbidden", Refused: true,
				Object: revoked.AuditObject{
					Selector: revoked.Selector{ClientID: "c", GrantID: "g", Issuer: "i"}, Name: "as1", Node: "node4",
					Thumbprint: "t", JoinToken: "j-1", Digest: revoked.DigestToken("a-1"),
				},
			}),
		}}},
		{"bootstrap-audited", &command.Bootstrap{
			Stamp: us, ClusterId: "c-1", Settings: command.SettingsMessage(settings), Audited: true,
		}},
		{"assertion", &command.Batch{Stamp: us, Ops: []*command.Op{
			command.RevokeOp(asserted, revoked.DigestToken("a-1"), "why"),
		}}},
		{"strong-methods", &command.Batch{Stamp: us, Ops: []*command.Op{command.PutClientOp(by, strong, 9)}}},
		{"bootstrap-strong-methods", &command.Bootstrap{
			Stamp: us, ClusterId: "c-1", Settings: command.SettingsMessage(settings),
			Clients: []*command.ClientRecord{command.ClientMessage(client), command.ClientMessage(strong)},
		}},
		{"epoch", &command.Epoch{Stamp: us, Term: 3, Node: "node1"}},
		{"epoch-bounded", &command.Epoch{Stamp: us, Term: 3, Node: "node1", Server: "node1/a", OwnLease: 1_200_000}},
		{"epoch-recovered", &command.Epoch{Stamp: us, Term: 3, Node: "node1", EndsBefore: us, Reason: "why"}},
		{"tick", &command.Tick{Stamp: us}},
		{"tick-marks", &command.Tick{Stamp: us, Marks: []*command.Mark{
			{Server: "node1/6b1f", Boot: []byte("boot"), Index: 7},
		}}},
		{"bootstrap", &command.Bootstrap{
			Stamp: us, ClusterId: "c-1", Settings: command.SettingsMessage(settings),
			Clients: []*command.ClientRecord{command.ClientMessage(client)},
		}},
		{"expire", &command.Expire{Stamp: us, Before: us, Limit: 10}},
		{"reap", &command.Compact{Stamp: us, Limit: 10}},
	}
}

// audited fills in the origin of an operation.
func audited(op *command.Op) *command.Op {
	if op.Origin == nil {
		op.Origin = new(command.Origin)
	}
	op.Origin.Node, op.Origin.RequestId, op.Origin.Chunk = "node1", "r-1", true
	return op
}

// golden compares got with the golden file and returns the bytes of the file.
func golden(t *testing.T, name string, got []byte) []byte {
	t.Helper()
	path := filepath.Join("testdata", name)
	want, err := os.ReadFile(path)
	if os.IsNotExist(err) && *update {
		want, err = got, os.WriteFile(path, got, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s: got %x, want %x", name, got, want)
	}
	return want
}

func TestEncode_Sample_GoldenBytes(t *testing.T) {
	for _, s := range samples() {
		t.Run(s.name, func(t *testing.T) {
			b, err := command.Encode(s.c)
			if err != nil {
				t.Fatal(err)
			}
			got, err := command.Decode(golden(t, s.name+".command", b))
			if err != nil || !proto.Equal(got, s.c) {
				t.Errorf("got %v, %v, want %v", got, err, s.c)
			}
		})
	}
}

func TestEncode_NotACommand_Invalid(t *testing.T) {
	if _, err := command.Encode(&command.SnapshotHead{}); !errors.Is(err, revoked.ErrInvalid) {
		t.Errorf("got %v, want %v", err, revoked.ErrInvalid)
	}
}

// The test adds an unknown field to each message of each sample in turn, because CheckKnown lists
// the messages itself.
func TestDecode_UnknownFieldAtAnyDepth_Invalid(t *testing.T) {
	tested := map[protoreflect.FullName]bool{}
	for _, s := range samples() {
		for i := 0; ; i++ {
			c := proto.Clone(s.c).(command.Command)
			n := 0
			var changed protoreflect.FullName
			walk(c.ProtoReflect(), func(m protoreflect.Message) {
				if n == i {
					m.SetUnknown(protowire.AppendVarint(protowire.AppendTag(nil, 500, protowire.VarintType), 1))
					changed = m.Descriptor().FullName()
				}
				n++
			})
			if changed == "" {
				break
			}
			tested[changed] = true
			b, err := command.Encode(c)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := command.Decode(b); !errors.Is(err, revoked.ErrInvalid) {
				t.Errorf("%s: unknown field in %s: got %v, want %v", s.name, changed, err, revoked.ErrInvalid)
			}
		}
	}
	all := command.File_fsm_command_command_proto.Messages()
	for i := range all.Len() {
		if name := all.Get(i).FullName(); !tested[name] && all.Get(i).Name() != "SnapshotHead" {
			t.Errorf("samples: got none with %s, want one", name)
		}
	}
}

func walk(m protoreflect.Message, fn func(protoreflect.Message)) {
	fn(m)
	m.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case fd.Message() == nil:
		case fd.IsList():
			for i := range v.List().Len() {
				walk(v.List().Get(i).Message(), fn)
			}
		default:
			walk(v.Message(), fn)
		}
		return true
	})
}

func FuzzDecode(f *testing.F) {
	for _, s := range samples() {
		b, err := command.Encode(s.c)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte{})
	f.Add([]byte{1, 1, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := command.Decode(b)
		if err != nil {
			return
		}
		again, err := command.Encode(c)
		if err != nil {
			t.Fatalf("encode a decoded command: got %v, want success", err)
		}
		same, err := command.Decode(again)
		if err != nil || !proto.Equal(c, same) {
			t.Fatalf("decode an encoded command: got %v, %v, want %v", same, err, c)
		}
	})
}

// An older member stops at an operation that it does not support.
func TestVersionOf_NewerOps_NeedTheirVersion(t *testing.T) {
	for _, s := range samples() {
		want := max(map[string]uint32{"membership": 2, "issuers": 3, "issuer-mappings": 3, "operator-roles": 4,
			"bootstrap-operator-roles": 4, "bootstrap-audited": 5, "strong-methods": 5, "assertion": 5,
			"bootstrap-strong-methods": 5, "acknowledge": 5, "members": 5,
			"join-token-keys": 7, "enrollment": 8}[s.name], 1)
		if b, ok := s.c.(*command.Bootstrap); ok && b.Version() != want {
			t.Errorf("%s: got version %d, want %d", s.name, b.Version(), want)
		}
		batch, ok := s.c.(*command.Batch)
		if !ok {
			continue
		}
		if batch.Audited {
			if got := batch.Version(); got != command.Audit {
				t.Errorf("%s: got version %d, want %d", s.name, got, command.Audit)
			}
			continue // the leader drops the origin for older members, so it does not raise the version
		}
		for _, op := range batch.Ops {
			if got := command.VersionOf(op); got != want || got > command.Version {
				t.Errorf("%v: got version %d, want %d", op, got, want)
			}
		}
	}
}

// Contract 6, "Audit entry": while a member is older, an operation with an origin is accepted. A
// note is refused, because it has no older form.
func TestVersionOf_Origin_IsIgnored(t *testing.T) {
	by := revoked.Actor{ClientID: "app", RequestID: "r-1"}
	op := command.RevokeOp(by, revoked.DigestToken("a"), "")
	if op.GetOrigin().GetRequestId() != "r-1" || command.VersionOf(op) != 1 {
		t.Errorf("got %v of version %d, want an origin and version 1", op, command.VersionOf(op))
	}
	note := command.NoteOp(by, revoked.AuditEntry{Kind: revoked.AuditClusterTransfer})
	if got := command.VersionOf(note); got != command.Audit {
		t.Errorf("note: got version %d, want %d", got, command.Audit)
	}
	if err := command.Admit(command.NoteOp(by, revoked.AuditEntry{Kind: "other"})); !errors.Is(err, revoked.ErrInvalid) {
		t.Errorf("unknown kind: got %v, want %v", err, revoked.ErrInvalid)
	}
}

// The texts of an entry are limited in length and have no control characters, whatever a caller
// sends.
func TestDescribe_FreeText_IsCleaned(t *testing.T) {
	by := revoked.Actor{ClientID: "admin", Version: 7, RequestID: strings.Repeat("r", 100)}
	long := strings.Repeat("x", 511) + "éé"
	for reason, want := range map[string]string{
		"a\nb\x7f\u2028\x9b": "a?b???", long: strings.Repeat("x", 511), "plain \u00e9": "plain \u00e9",
	} {
		e, ok := command.Describe(command.DeleteGrantOp(by, "g-1", reason))
		if !ok || e.Reason != want || len(e.RequestID) != 64 || e.Object.GrantID != "g-1" || e.ActorVersion != 7 {
			t.Errorf("%q: got %+v, want the reason %q", reason, e, want)
		}
	}
	if e, ok := command.Describe(command.RegisterOp(by, revoked.Registration{})); ok {
		t.Errorf("registration: got %+v, want no entry", e)
	}
}

// BenchmarkDecode decodes entries like those of bulk registrations and revocations. Every member
// decodes every entry.
func BenchmarkDecode(b *testing.B) {
	by := revoked.Actor{ClientID: "issuer"}
	kinds := map[string]*command.Op{
		"registrations": command.RegisterOp(by, revoked.Registration{GrantID: "g", ClientID: "app", Subject: "alice",
			Tokens: []revoked.TokenRegistration{{Kind: revoked.AccessToken}, {Kind: revoked.RefreshToken}}}),
		"revocations": command.RevokeOp(by, revoked.DigestToken("a"), ""),
	}
	for name, op := range kinds {
		b.Run(name, func(b *testing.B) {
			data, err := command.Encode(&command.Batch{Ops: slices.Repeat([]*command.Op{op}, 100)})
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := command.Decode(data); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func TestAdmit_InvalidIssuerOps_AreRefused(t *testing.T) {
	by := revoked.Actor{ClientID: "admin", Version: 7, Admin: true}
	key := revoked.IssuerKey{Thumbprint: strings.Repeat("a", 43), Public: []byte("der"), State: revoked.KeyActive}
	second := key
	second.Thumbprint = strings.Repeat("b", 43)
	issuer := revoked.DefaultIssuer()
	issuer.Name, issuer.Issuer, issuer.JWKSURI = "as1", "https://as.example", "https://as.example/jwks"
	noKeys := issuer
	noKeys.JWKSURI = ""
	d := revoked.DigestToken("jwt")
	seen := revoked.JWT{Issuer: "i", Digests: []revoked.Digest{d}, IssuedAt: 1, ExpiresAt: 2, Thumbprint: "t"}
	revoke := func(change func(*revoked.JWT)) *command.Op {
		j := seen
		change(&j)
		return command.RevokeJWTOp(by, &j, "")
	}
	keys := func(l ...revoked.IssuerKey) *command.Op { return command.PutIssuerKeysOp("as1", 1, l) }
	for _, tt := range []struct {
		name string
		op   *command.Op
		want error
	}{
		{"issuer", command.PutIssuerOp(by, &issuer, 0), nil},
		{"issuer without a source of keys", command.PutIssuerOp(by, &noKeys, 0), revoked.ErrUnprocessable},
		{"no issuer", &command.Op{Actor: command.ActorMessage(by), Kind: &command.Op_PutIssuer{}}, revoked.ErrInvalid},
		{"issuer without an actor", command.PutIssuerOp(revoked.Actor{}, &issuer, 0), revoked.ErrForbidden},
		{"deletion of a malformed name", command.DeleteIssuerOp(by, "As 1"), revoked.ErrInvalid},
		{"ban without a thumbprint", command.BanIssuerKeyOp(by, "as1", ""), revoked.ErrInvalid},
		{"keys of the leader", keys(key, second), nil},
		{"C31: a set without a usable key", keys(), revoked.ErrInvalid},
		{"65 keys", keys(slices.Repeat([]revoked.IssuerKey{key}, 65)...), revoked.ErrInvalid},
		{"a repeated key", keys(key, key), revoked.ErrInvalid},
		{"keys out of order", keys(second, key), revoked.ErrInvalid},
		{"verified token", revoke(func(*revoked.JWT) {}), nil},
		{"a jti", command.RevokeJWTOp(by, &revoked.JWT{Issuer: "i", JTI: "j"}, ""), nil},
		{"neither jti nor digest", command.RevokeJWTOp(by, &revoked.JWT{Issuer: "i"}, ""), revoked.ErrInvalid},
		{"nine earlier memberships", revoke(func(j *revoked.JWT) {
			j.Earlier = make([]revoked.Membership, revoked.MaxEarlierMappings+1)
		}), revoked.ErrInvalid},
		{"long earlier grant", revoke(func(j *revoked.JWT) {
			j.Earlier = []revoked.Membership{{GrantID: strings.Repeat("g", 513)}}
		}), revoked.ErrInvalid},
		{"jti with a mapping", command.RevokeJWTOp(by, &revoked.JWT{Issuer: "i", JTI: "j", MappingVersion: 1}, ""),
			revoked.ErrInvalid},
		{"no issuer of the token", revoke(func(j *revoked.JWT) { j.Issuer = "" }), revoked.ErrInvalid},
		{"claims without a digest", revoke(func(j *revoked.JWT) { j.Digests, j.JTI = nil, "j" }), revoked.ErrInvalid},
		{"three digests", revoke(func(j *revoked.JWT) { j.Digests = []revoked.Digest{d, d, d} }), revoked.ErrInvalid},
		{"zero digest", revoke(func(j *revoked.JWT) { j.Digests = make([]revoked.Digest, 1) }), revoked.ErrInvalid},
		{"no key", revoke(func(j *revoked.JWT) { j.Thumbprint = "" }), revoked.ErrInvalid},
		{"no expiry", revoke(func(j *revoked.JWT) { j.ExpiresAt = 0 }), revoked.ErrInvalid},
		{"time after 9999", revoke(func(j *revoked.JWT) { j.ExpiresAt = revoked.MaxTime }), revoked.ErrInvalid},
		{"long jti", revoke(func(j *revoked.JWT) { j.JTI = strings.Repeat("x", 513) }), revoked.ErrInvalid},
		{"zero byte", revoke(func(j *revoked.JWT) { j.Session = "a\x00b" }), revoked.ErrInvalid},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if err := command.Admit(tt.op); !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
		})
	}
}

// A program before version 4 refuses a record with a newer role, and members must agree on every
// entry. So the record has a field at which that program stops. Without the field, every version
// refuses the role.
func TestCheckClient_NewerRoles_NeedTheField(t *testing.T) {
	for _, role := range revoked.Roles() {
		c := &revoked.Client{ID: "c", Type: revoked.Confidential, Roles: []revoked.Role{role},
			AuthMethods: []string{revoked.AuthBasic}}
		m := command.ClientMessage(c)
		newer := role == revoked.RoleOperator || role == revoked.RoleViewer || role == revoked.RoleAuditor
		if m.OperatorRoles != newer {
			t.Errorf("%s: got field %v, want %v", role, m.OperatorRoles, newer)
		}
		if err := command.CheckClient(m); err != nil {
			t.Errorf("%s: got %v, want success", role, err)
		}
		if got := m.Client().Roles; !slices.Equal(got, c.Roles) {
			t.Errorf("%s: got %v after decoding", role, got)
		}
		m.OperatorRoles = false
		if err := command.CheckClient(m); (err != nil) != newer {
			t.Errorf("%s without the field: got %v, want refused %v", role, err, newer)
		}
	}
	m := command.ClientMessage(&revoked.Client{ID: "c", Type: revoked.Confidential, Roles: []revoked.Role{"root"}})
	m.OperatorRoles = true
	if err := command.CheckClient(m); !errors.Is(err, revoked.ErrInvalid) {
		t.Errorf("unknown role: got %v, want %v", err, revoked.ErrInvalid)
	}
}

func TestAcknowledgements_OfOp_EqualTheList(t *testing.T) {
	want := []revoked.Acknowledgement{
		{Index: 1 << 40, AppliedAt: stamp, At: stamp, WaitedFor: nil},
		{Index: 1<<40 + 1, AppliedAt: stamp - 5, At: stamp + 7, WaitedFor: []string{"node3", "node1"}},
		{Index: 1<<40 + 9, AppliedAt: stamp + 5, At: stamp + 5, WaitedFor: []string{"node3", "node2"}},
	}
	m := command.AcknowledgeOp(want).GetAcknowledge()
	got, ok := m.Acknowledgements()
	if !ok || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v, want %+v", got, ok, want)
	}
	for name, change := range map[string]func(m *command.Acknowledge){
		"a list is shorter":       func(m *command.Acknowledge) { m.Wait = m.Wait[:2] },
		"an index twice":          func(m *command.Acknowledge) { m.Index[1] = 0 },
		"an index that overflows": func(m *command.Acknowledge) { m.Index[1] = math.MaxUint64 },
		"a node without a name":   func(m *command.Acknowledge) { m.Waited[0] = 8 },
		"a time before 1970":      func(m *command.Acknowledge) { m.Applied[1] = -2 * int64(stamp) },
		"a time after 9999":       func(m *command.Acknowledge) { m.Wait[1] = uint64(command.MaxTime) },
		"a wait that overflows":   func(m *command.Acknowledge) { m.Wait[1] = math.MaxUint64 },
		"an invalid node name":    func(m *command.Acknowledge) { m.Nodes[0] = "node 3" },
	} {
		op := command.AcknowledgeOp(want)
		change(op.GetAcknowledge())
		if err := command.Admit(op); !errors.Is(err, revoked.ErrInvalid) {
			t.Errorf("%s: got %v, want ErrInvalid", name, err)
		}
	}
}
