package conformance_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A proof is a row that a test of another package covers. The source of the test contains mark. If
// another test of that package contains mark, this test must be a proof with the same mark.
type proof struct{ id, level, title, dir, test, mark string }

func (p *proof) entry() entry {
	return entry{p.id, p.level, p.title, p.test + " in " + strings.Replace(p.dir, ".", "the root", 1)}
}

// proofs lists the rules of trusted issuers and the attacks of RFC 8725. Their tests do not need a
// cluster, or need one with a fault.
func proofs() []proof {
	const attacks = "TestVerify_ForgedTokens_AreRejected"
	const claims = "TestPrivateKeyJWT_Claims_DecideStatus"
	const certificates = "TestTLSClientAuth_Certificate_MustMatchRecord"
	list := []proof{
		{"CA-21", "RFC 10070", "an assertion for the issuer", "api", claims, "CA-21"},
		{"CA-22", "RFC 10070", "an assertion for a list of the issuer", "api", claims, "CA-22"},
		{"CA-23", "RFC 10070", "an assertion for the endpoint", "api", claims, "CA-23"},
		{"CA-25", "RFC 10070", "an assertion with a second audience", "api", claims, "CA-25"},
		{"CA-26", "RFC 10070", "types of an assertion", "api", claims, "CA-26"},
		{"CA-27", "RFC 8725 3.11", "types of other tokens", "api", claims, "CA-27"},
		{"CA-28", "RFC 7523 3", "an assertion that has expired, or never expires", "api", claims, "CA-28"},
		{"CA-29", "RFC 7523 3", "an assertion that expires too late", "api", claims, "CA-29"},
		{"CA-31", "RFC 7523 3", "an assertion that names two clients", "api", claims, "CA-31"},
		{"CA-33", "contract 6", "one assertion at three nodes concurrently", "node",
			"TestAssertion_ConcurrentReplays_OneSucceeds", "CA-33"},
		{"CA-34", "RFC 8725 2.1", "assertions with forged signatures", "api", "TestPrivateKeyJWT_Attacks_Get401", "CA-34"},
		{"CA-35", "RFC 8725 3.10", "assertions that bring their key", "node/jwt",
			"TestAssertion_Forged_IsRejected", "CA-35"},
		{"CA-33", "RFC 7518 3.4", "another encoding of a used assertion", "api",
			"TestPrivateKeyJWT_OtherEncoding_IsOneUse", "CA-33: another encoding of a used assertion"},
		{"CA-34", "RFC 8725 2.1, 3.1", "no variant of none, no public key as a secret", "node/jwt",
			"TestAssertion_AlgorithmConfusion_IsNotVerified", "sections 2.1 and 3.1, on assertions"},
		{"CA-35", "RFC 8725 3.10", "kid chooses only among the keys of the client", "node/jwt",
			"TestAssertion_KeyIDConfusion_IsNotVerified", "section 3.10, on assertions"},
		{"CA-34", "RFC 8725 2.4", "claims and parameters that come twice", "node/jwt",
			"TestAssertion_RepeatedMembers_AreNotVerified", "section 2.4 and RFC 7519 section 4, on assertions"},
		{"CA-34", "contract 6", "texts that are too long or too deep", "node/jwt",
			"TestAssertion_HugeTexts_AreRefused", "Contract 6: an assertion above the length limit is refused"},
		{"CA-39", "RFC 8705 2.1", "the certificate of the client", "api", certificates, "CA-39"},
		{"CA-39", "RFC 8705 2.1", "certificates through a TLS handshake", "api",
			"TestTLSClientAuth_Handshake_AcceptsConfiguredCAs", "CA-39"},
		{"CA-39", "RFC 8705 2.2", "self-signed certificates through a TLS handshake", "api",
			"TestSelfSignedTLSClientAuth_Handshake_KeyMustMatch", "Without api_client_ca, any certificate passes the handshake"},
		{"CA-41", "contract 6", "an open connection after a change of the record", "api",
			"TestTLSClientAuth_OpenConnection_UsesCurrentRecord", "An open connection does not authenticate its requests"},
		{"CA-41", "contract 6", "a removed CA: open connections, resumed sessions, streams", "api",
			"TestClientCAs_CARemoved_CertificatesAreRejected", "a resumed session (RFC 8446 section 2.2)"},
		{"CA-41", "RFC 8705 2.1", "another certificate, or no certificate", "api", certificates, "CA-41 headers of a proxy"},
		{"CA-42", "contract 6", "Basic on a connection with a certificate", "api", certificates, "CA-42 Basic, too"},
		{"contract", "6 \"Audit entry\"", "random calls to every route leave exactly the entries of the model", "node",
			"TestAuditComplete_RandomCalls_MatchTheModel", "random calls to every route that may change something"},
		{"contract", "6 \"Audit entry\"", "what the cluster does by itself leaves one entry", "node",
			"TestAudit_ClusterActs_OneEntryEach", "one entry for each change that it makes by itself"},
		{"contract", "6 \"Audit entry\"", "a leader that fails before the entry of a change leaves one", "node",
			"TestAudit_LeaderFailsBeforeTheEntry_OneEntry", "writes the entry exactly once"},
		{"contract", "6 \"Audit entry\"", "refused calls at a node that is not in a cluster", "node",
			"TestAudit_NoCluster_RefusalsStayLocal", "A node that is not in a cluster has no audit log"},
		{"contract", "6 \"GET /v1/audit/token\"", "answers about the past are those of introspection then", "fsm",
			"TestAsOf_RandomHistories_MatchIntrospection", "the past states match what introspection returned at that time"},
		{"CL-18", "contract 6", "the same assertion after a 503", "api", "TestPrivateKeyJWT_Replay_OneSucceeds", "CL-18"},
		{"JW-11", "contract 4", "an entry for a jti outlives the token and both clock skews, and no longer", "fsm",
			"TestRevokeJWT_Denial_LastsUntilTokenExpiry", "JW-11"},
		{"C25", "contract 4", "an increase of max_lifetime affects only later tokens", "fsm",
			"TestPutIssuer_RaisedLifetime_AffectsLaterTokens", "C25"},
		{"C26", "RFC 7515 2", "any changed character makes another token", "node/jwt",
			"TestVerify_AnyCharacterChanged_IsNotVerified", "C26 and JW-10: a token with any character changed"},
		{"C26", "RFC 7518 3.4", "both forms of an ECDSA signature are one token", "fsm",
			"TestRevokeJWT_OtherSignature_IsRevoked", "C26"},
		{"C27", "contract 4", "only iat counts against the cut-offs of a restore and of a deleted client", "fsm",
			"TestCutoff_Whole_CoversJWTsByIssuedAt", "C27"},
		{"C28", "contract 4", "a registration that expires before its JWT does not revive it", "fsm",
			"TestExpire_RegisteredJWT_StaysInactive", "C28"},
		{"C29", "contract 4", "503 while the keys cannot be fetched", "node",
			"TestKeyFetch_AddressNotAllowed_IsShown", "C29"},
		{"C30", "contract 4", "a cut-off covers iat up to issued_before plus clock_skew", ".",
			"TestDecide_JWT_ChecksRecordKeyAndClient", "C30"},
		{"C31", "RFC 7517 5", "a set without a usable key is a failed fetch", "node/jwt",
			"TestParseKeys_Sets_AreBounded", "C31"},
		{"C31", "contract 4", "a key that is missing from two fetches is retired", "fsm",
			"TestPutIssuerKeys_MissingTwice_Retired", "C31"},
		{"C31", "contract 4", "rotation under load with a hostile server", "node",
			"TestRotation_HostileServer_LosesNoValidToken", "C31"},
		{"C32", "contract 4", "a client of that id at the issuer is not ours", "api",
			"TestRevoke_JWT_ConformanceRows_Hold", "C32: the client of that id, not ours"},
		{"C33", "contract 4", "a caller that gets no turn to verify gets 503", "node/bearer",
			"TestCheck_NoTurn_ReturnsOverloaded", "C33"},
		{"C34", "contract 4", "a cached JWT is as new as the state", "node/bearer",
			"TestStatus_Change_EndsCachedJWT", "C34"},
		{"C35", "contract 4", "a revoked grant or session revokes later tokens, too", "fsm",
			"TestRevokeJWT_GrantOrSession_EndsLaterTokens", "C35"},
		{"C36", "contract 4", "the tokens of a deleted issuer stay revoked", "fsm",
			"TestDeleteIssuer_Tokens_StayInactive", "C36"},
		{"C37", "RFC 8725 3.12", "claims distinguish access tokens from ID tokens", "node/jwt",
			"TestVerify_OptionsOfTheIssuer_Decide", "C37"},
		{"C38", "RFC 8725 3.10", "claims of another type or out of bounds", "node/jwt",
			"TestVerify_Claims_AreStrict", "C38"},
		{"C39", "contract 4", "tokens of a deleted client are inactive", "fsm",
			"TestDeleteClient_JWTsOfClient_StayInactive", "C39"},
		{"C40", "RFC 8725 3.4", "keys that are weak, private, malformed or of another kind", "node/jwt",
			"TestParseKeys_EachKey_IsUsedIgnoredOrRefused", "C40"},
		{"C41", "contract 4", "only an issuer that names the iss may revoke by jti", "api",
			"TestRevocations_JTI_RevokesTheToken", "C41: an empty list does not contain any issuer"},
		{"JWT", "RFC 8725 2.1, 3.1", "no signature, HMAC with a public key, another algorithm", "node/jwt", attacks,
			"Section 2.1: weak signatures"},
		{"JWT", "RFC 8725 2.2, 3.5", "weak and symmetric keys", "node/jwt",
			"TestParseKeys_EachKey_IsUsedIgnoredOrRefused", "RFC 8725 sections 2.2"},
		{"JWT", "RFC 8725 2.3, 3.3", "nested and encrypted tokens", "node/jwt", attacks, "sections 2.3 and 3.3"},
		{"JWT", "RFC 8725 2.6, 3.7", "several encodings of one JSON text", "node/jwt",
			"TestParse_OtherForms_AreRefused", "RFC 8725 section 2.6"},
		{"JWT", "RFC 8725 2.7, 3.8", "a token of another issuer with the same key", "node/jwt",
			"TestVerify_OtherIssuer_IsNotVerified", "RFC 8725 sections 2.7 and 3.8"},
		{"JWT", "RFC 8725 3.9", "a token for another audience", "api",
			"TestIntrospect_JWT_SeenByAudienceAndOwner", "RFC 8725 section 3.9"},
		{"JWT", "RFC 8725 2.8, 3.11", "tokens of other kinds of the same issuer", "node/jwt", attacks,
			"sections 2.8, 3.11 and 3.12"},
		{"JWT", "RFC 8725 2.9, 3.10", "keys that the token brings along", "node/jwt", attacks,
			"Sections 2.9 and 3.10: keys that the token itself contains"},
	}
	for _, shape := range []string{"RFC 9068", "Keycloak", "Microsoft Entra", "Okta", "Auth0", "Cognito", "Hydra",
		"node-oidc-provider", "Spring Authorization Server"} {
		list = append(list, proof{"JWT", "contract 4", "tokens as documented: " + shape, "node/jwt",
			"TestVerify_TokensOfProducts_AreRead", `name: "` + shape})
	}
	return list
}

// Each test in the list exists, and its source contains the mark. A mark that other tests of the
// package also contain would not show which test covers the row.
func TestProofs_EachTest_NamesItsRow(t *testing.T) {
	source := map[string]string{} // source of each test, by package and name
	for _, p := range proofs() {
		if _, done := source[p.dir]; !done {
			source[p.dir] = "read"
			readTests(t, p.dir, source)
		}
		if text := source[p.dir+" "+p.test]; !strings.Contains(text, p.mark) {
			t.Errorf("%s %s: got no test %s in %s with %q in its source", p.id, p.level, p.test, p.dir, p.mark)
		}
	}
	marked := map[string]bool{} // pairs of a test and its mark
	for _, p := range proofs() {
		marked[p.dir+" "+p.test+" "+p.mark] = true
	}
	for _, p := range proofs() {
		for name, text := range source {
			if strings.HasPrefix(name, p.dir+" ") && strings.Contains(text, p.mark) && !marked[name+" "+p.mark] {
				t.Errorf("%s %s: got the mark %q in %s too, want it in %s only", p.id, p.level, p.mark, name, p.test)
			}
		}
	}
}

// readTests adds the source of each test of a package to the map, with the comment of the test.
func readTests(t *testing.T, dir string, to map[string]string) {
	t.Helper()
	names, err := filepath.Glob(filepath.Join("../..", dir, "*_test.go"))
	if err != nil || len(names) == 0 {
		t.Fatalf("%s: got tests %v, %v", dir, names, err)
	}
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		fset := token.NewFileSet()
		file, err := parser.ParseFile(fset, name, text, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range file.Decls {
			f, ok := d.(*ast.FuncDecl)
			if !ok || !strings.HasPrefix(f.Name.Name, "Test") {
				continue
			}
			from := f.Pos()
			if f.Doc != nil {
				from = f.Doc.Pos()
			}
			to[dir+" "+f.Name.Name] = string(text[fset.Position(from).Offset:fset.Position(f.End()).Offset])
		}
	}
}
