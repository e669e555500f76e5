package jwt_test

import (
	"strings"
	"testing"
	"time"

	"revoked"
)

// The test verifies tokens with the headers and claims that the products document. The times, names
// and signatures are made up.
func TestVerify_TokensOfProducts_AreRead(t *testing.T) {
	rs := keys()["RS256"]
	type issuer = revoked.Issuer
	for _, tt := range []struct {
		name            string
		issuer          func(*issuer)
		header, payload string
		client, subject string
		session, scope  string
		username, jti   string
		audience        string
		idToken         string // payload of an ID token with the same header, which must be refused
	}{
		{
			name: "RFC 9068 section 2.3", issuer: func(i *issuer) { i.Issuer = "https://authorization-server.example.com/" },
			header: `{"typ":"at+JWT","alg":"RS256","kid":"RjEwOwOA"}`,
			payload: `{"iss":"https://authorization-server.example.com/","sub":"5ba552d67","aud":"https://rs.example.com/",
				"exp":1790003600,"iat":1790000000,"jti":"dbe39bf3a3ba4238a513f51d6e1691c4","client_id":"s6BhdRkqt3",
				"scope":"openid profile reademail"}`,
			client: "s6BhdRkqt3", subject: "5ba552d67", scope: "openid profile reademail",
			jti: "dbe39bf3a3ba4238a513f51d6e1691c4", audience: "https://rs.example.com/",
		},
		{
			name: "Keycloak", issuer: func(i *issuer) {
				i.Issuer, i.TokenTypes = "https://sso.example/realms/main", []string{"JWT"}
				i.RequiredClaims = map[string]string{"typ": "Bearer"}
			},
			header: `{"alg":"RS256","typ":"JWT","kid":"RjEwOwOA"}`,
			payload: `{"exp":1790000300,"iat":1790000000,"auth_time":1789999990,"jti":"onrtac:4b2bd6a1-90d7-4c7a-9a9f-1f4d8a9ee1f7",
				"iss":"https://sso.example/realms/main","aud":["api","account"],"sub":"f:4cbb:alice","typ":"Bearer","azp":"web",
				"sid":"8f0e6f5c-0d3a-4d67-8c16-3c61d6c0e5a1","acr":"1","allowed-origins":["https://app.example"],
				"realm_access":{"roles":["offline_access","uma_authorization"]},
				"resource_access":{"account":{"roles":["manage-account","view-profile"]}},
				"scope":"openid email profile","email_verified":true,"name":"Alice Doe","preferred_username":"alice",
				"given_name":"Alice","family_name":"Doe","email":"alice@example.org"}`,
			client: "web", subject: "f:4cbb:alice", session: "8f0e6f5c-0d3a-4d67-8c16-3c61d6c0e5a1",
			scope: "openid email profile", username: "alice", jti: "onrtac:4b2bd6a1-90d7-4c7a-9a9f-1f4d8a9ee1f7",
			audience: "api account",
			idToken: `{"exp":1790000300,"iat":1790000000,"jti":"a","iss":"https://sso.example/realms/main","aud":"web",
				"sub":"f:4cbb:alice","typ":"ID","azp":"web","sid":"8f0e6f5c","at_hash":"x"}`,
		},
		{
			name: "Microsoft Entra, version 2", issuer: func(i *issuer) {
				i.Issuer = "https://login.microsoftonline.com/72f988bf-86f1-41af-91ab-2d7cd011db47/v2.0"
				i.TokenTypes, i.ForbiddenClaims = []string{"JWT"}, []string{"nonce", "at_hash"}
				i.RequiredClaims = map[string]string{"ver": "2.0"}
			},
			header: `{"typ":"JWT","alg":"RS256","kid":"RjEwOwOA"}`,
			payload: `{"aud":"6e74172b-be56-4843-9ff4-e66a39bb12e3",
				"iss":"https://login.microsoftonline.com/72f988bf-86f1-41af-91ab-2d7cd011db47/v2.0","iat":1790000000,
				"nbf":1790000000,"exp":1790004500,"aio":"AXQAi/8IAAAA","azp":"6e74172b-be56-4843-9ff4-e66a39bb12e3","azpacr":"0",
				"name":"Abe Lincoln","oid":"690222be-ff1a-4d56-abd1-7e4f7d38e474","preferred_username":"abeli@example.com",
				"rh":"I","scp":"access_as_user","sub":"HKZpfaHyWadeOouYlitjrI-KffTm222X5rrV3xDqfKQ",
				"tid":"72f988bf-86f1-41af-91ab-2d7cd011db47","uti":"fqiBqXLPj0eQa82S-IYFAA","ver":"2.0"}`,
			client: "6e74172b-be56-4843-9ff4-e66a39bb12e3", subject: "HKZpfaHyWadeOouYlitjrI-KffTm222X5rrV3xDqfKQ",
			scope: "access_as_user", username: "abeli@example.com", audience: "6e74172b-be56-4843-9ff4-e66a39bb12e3",
			idToken: `{"ver":"2.0","iss":"https://login.microsoftonline.com/72f988bf-86f1-41af-91ab-2d7cd011db47/v2.0",
				"sub":"s","aud":"6e74172b","exp":1790004500,"iat":1790000000,"nbf":1790000000,"nonce":"123523","aio":"x"}`,
		},
		{
			name: "Okta", issuer: func(i *issuer) {
				i.Issuer, i.TokenTypes = "https://example.okta.com/oauth2/default", []string{""}
				i.ClientClaim, i.ForbiddenClaims = "cid", []string{"nonce", "at_hash", "amr"}
			},
			header: `{"kid":"RjEwOwOA","alg":"RS256"}`,
			payload: `{"ver":1,"jti":"AT.0mP4JKAZX1iACIT4vbEDF7LpvDVjxypPMf0D7uX39RE","iss":"https://example.okta.com/oauth2/default",
				"aud":"api://default","iat":1790000000,"exp":1790003600,"cid":"0oa1nkas9l2VCq1Bl1d7","uid":"00ujmkLgagxeRrAg20g3",
				"scp":["openid","profile"],"auth_time":1789999000,"sub":"john.doe@example.com"}`,
			client: "0oa1nkas9l2VCq1Bl1d7", subject: "john.doe@example.com", scope: "openid profile",
			jti: "AT.0mP4JKAZX1iACIT4vbEDF7LpvDVjxypPMf0D7uX39RE", audience: "api://default",
			idToken: `{"ver":1,"sub":"00uid4","iss":"https://example.okta.com/oauth2/default","aud":"0oa1","iat":1790000000,
				"exp":1790003600,"jti":"ID.4eAWJ","amr":["pwd"],"nonce":"n","preferred_username":"john"}`,
		},
		{
			name: "Auth0", issuer: func(i *issuer) {
				i.Issuer, i.TokenTypes = "https://example.eu.auth0.com/", []string{"JWT"}
				i.ForbiddenClaims = []string{"nonce", "sid", "at_hash"}
			},
			header: `{"alg":"RS256","typ":"JWT","kid":"RjEwOwOA"}`,
			payload: `{"iss":"https://example.eu.auth0.com/","sub":"auth0|123456","aud":["my-api-identifier",
				"https://example.eu.auth0.com/userinfo"],"azp":"my_client_id","exp":1790086400,"iat":1790000000,
				"scope":"openid profile read:admin"}`,
			client: "my_client_id", subject: "auth0|123456", scope: "openid profile read:admin",
			audience: "my-api-identifier https://example.eu.auth0.com/userinfo",
			idToken: `{"iss":"https://example.eu.auth0.com/","sub":"auth0|123456","aud":"my_client_id","iat":1790000000,
				"exp":1790036000,"sid":"s","nonce":"n"}`,
		},
		{
			name: "Cognito", issuer: func(i *issuer) {
				i.Issuer = "https://cognito-idp.us-west-2.amazonaws.com/us-west-2_example"
				i.TokenTypes, i.RequiredClaims = []string{""}, map[string]string{"token_use": "access"}
				i.RequireAudience, i.GrantClaim = false, "origin_jti"
			},
			header: `{"kid":"RjEwOwOA","alg":"RS256"}`,
			payload: `{"sub":"aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee","device_key":"aaaaaaaa","cognito:groups":["testgroup"],
				"iss":"https://cognito-idp.us-west-2.amazonaws.com/us-west-2_example","version":2,"client_id":"xxxxxxxxxxxxexample",
				"origin_jti":"aaaaaaaa-bbbb","event_id":"bbbbbbbb","token_use":"access",
				"scope":"phone openid aws.cognito.signin.user.admin","auth_time":1790000000,"exp":1790003600,"iat":1790000000,
				"jti":"aaaaaaaa-cccc","username":"janedoe@example.com"}`,
			client: "xxxxxxxxxxxxexample", subject: "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee",
			scope: "phone openid aws.cognito.signin.user.admin", username: "janedoe@example.com", jti: "aaaaaaaa-cccc",
			idToken: `{"sub":"aaaaaaaa","iss":"https://cognito-idp.us-west-2.amazonaws.com/us-west-2_example",
				"aud":"xxxxxxxxxxxxexample","token_use":"id","auth_time":1790000000,"exp":1790003600,"iat":1790000000}`,
		},
		{
			name: "Hydra", issuer: func(i *issuer) {
				i.Issuer, i.TokenTypes = "https://hydra.example.org", []string{"JWT"}
				i.ForbiddenClaims = []string{"sid", "nonce", "at_hash", "rat", "events"}
				i.SessionClaim = "login_session"
			},
			header: `{"alg":"RS256","kid":"RjEwOwOA","typ":"JWT"}`,
			payload: `{"aud":["https://api.example.org"],"client_id":"4e2f-web","exp":1790003600,"ext":{},"iat":1790000000,
				"iss":"https://hydra.example.org","jti":"6b21f0a2-0f6c-4a3b-8b0c-9a0b0a6a2f11","login_session":"ls-1",
				"nbf":1790000000,"scp":["openid","offline"],"sub":"foo@bar.com"}`,
			client: "4e2f-web", subject: "foo@bar.com", session: "ls-1", scope: "openid offline",
			jti: "6b21f0a2-0f6c-4a3b-8b0c-9a0b0a6a2f11", audience: "https://api.example.org",
			idToken: `{"at_hash":"x","aud":["4e2f-web"],"auth_time":1790000000,"exp":1790003600,"iat":1790000000,
				"iss":"https://hydra.example.org","jti":"i","rat":1790000000,"sid":"s","sub":"foo@bar.com"}`,
		},
		{
			name: "node-oidc-provider", issuer: func(i *issuer) {
				i.Issuer, i.GrantClaim = "https://op.example.org", "grant_id"
			},
			header: `{"alg":"RS256","typ":"at+jwt","kid":"RjEwOwOA"}`,
			payload: `{"jti":"tJmGwGx6uPVEiLqCzIQvZ","sub":"23121d3c","iat":1790000000,"exp":1790003600,"scope":"api:read",
				"client_id":"foo","iss":"https://op.example.org","aud":"https://api.example.org","grant_id":"gr-1","sid":"s-1"}`,
			client: "foo", subject: "23121d3c", session: "s-1", scope: "api:read", jti: "tJmGwGx6uPVEiLqCzIQvZ",
			audience: "https://api.example.org",
		},
		{
			name: "Spring Authorization Server", issuer: func(i *issuer) {
				i.Issuer, i.SessionClaim, i.GrantClaim = "https://as.example.org", "", "grant_id"
			},
			header: `{"kid":"RjEwOwOA","typ":"at+jwt","alg":"RS256"}`,
			payload: `{"sub":"user1","aud":["https://api.example.org"],"nbf":1790000000,"scope":["message.read","message.write"],
				"iss":"https://as.example.org","exp":1790000300,"iat":1790000000,"jti":"8d9b0f2e-77f2-4bd2-9b51-6b8f9d9c0a0e",
				"client_id":"messaging-client","grant_id":"gr-2"}`,
			client: "messaging-client", subject: "user1", scope: "message.read message.write",
			jti: "8d9b0f2e-77f2-4bd2-9b51-6b8f9d9c0a0e", audience: "https://api.example.org",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			i := newIssuer(t, rs.jwk(`"kid":"RjEwOwOA","use":"sig","alg":"RS256","x5t":"AA","x5c":["AA=="]`))
			tt.issuer(i)
			if err := revoked.ValidateIssuer(i); err != nil {
				t.Fatal(err)
			}
			r := verify(t, i, rs.sign(tt.header, tt.payload))
			if !r.Verified || r.Reason != "" {
				t.Fatalf("got %+v, want it verified", r)
			}
			tok := &r.JWT
			for what, pair := range map[string][2]string{
				"client": {tok.ClientID, tt.client}, "subject": {tok.Subject, tt.subject}, "session": {tok.Session, tt.session},
				"scope": {tok.Scope, tt.scope}, "username": {tok.Username, tt.username}, "jti": {tok.JTI, tt.jti},
				"audience": {strings.Join(tok.Audience, " "), tt.audience}, "issuer": {tok.Issuer, i.Issuer},
			} {
				if pair[0] != pair[1] {
					t.Errorf("%s: got %q, want %q", what, pair[0], pair[1])
				}
			}
			if tok.IssuedAt.Std() != time.Unix(iat, 0).UTC() {
				t.Errorf("issued at: got %v, want %v", tok.IssuedAt.Std(), time.Unix(iat, 0).UTC())
			}
			if tt.idToken == "" {
				return
			}
			if r := verify(t, i, rs.sign(tt.header, tt.idToken)); r.Verified || r.Reason != revoked.RefusedClaims {
				t.Errorf("ID token: got %+v, want reason %q", r, revoked.RefusedClaims)
			}
		})
	}
}
