package api_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"revoked"
	"revoked/api"
)

func TestIntrospect_ConformanceRows_Hold(t *testing.T) {
	const at1 = `{"active":true,"scope":"read write","client_id":"c1","username":"alice@example.org","token_type":"Bearer",` +
		`"exp":1790003600,"iat":1790000000,"sub":"alice","aud":"rs1","iss":"https://as.example","jti":"j1"}`
	const rt1 = `{"active":true,"client_id":"c1","exp":1792592000,"iat":1790000000}`
	const no = `{"active":false}`
	for _, row := range []struct {
		id     string
		call   call
		status int
		body   string // expected body or error code
	}{
		{"IN-01 a resource server of the audience", call{auth: as("rs1"), body: "token=AT1"}, 200, at1},
		{"an administrator", call{auth: as("admin"), body: "token=AT1"}, 200, at1},
		{"IN-02 an unknown token", call{auth: as("rs1"), body: "token=nope"}, 200, no},
		{"IN-03 a resource server of another audience", call{auth: as("rs2"), body: "token=AT1"}, 200, no},
		{"IN-04 a wrong hint", call{auth: as("rs1"), body: "token=AT1&token_type_hint=refresh_token"}, 200, at1},
		{"IN-04 an invalid hint", call{auth: as("rs1"), body: "token=AT1&token_type_hint=banana"}, 200, at1},
		{"IN-04 a hint twice", call{auth: as("rs1"), body: "token=AT1&token_type_hint=a&token_type_hint=b"}, 400,
			"invalid_request"},
		{"IN-05 a refresh token, its client", call{auth: as("c1"), body: "token=RT1"}, 200, rt1},
		{"a refresh token, an administrator", call{auth: as("admin"), body: "token=RT1"}, 200, rt1},
		{"a refresh token, a resource server", call{auth: as("rs1"), body: "token=RT1"}, 200, no},
		{"IN-07 a wrong secret", call{auth: basic("rs1", "wrong"), body: "token=AT1"}, 401, "invalid_client"},
		{"IN-08 no credentials", call{body: "token=AT1"}, 401, "invalid_client"},
		{"IN-09 a public client", call{body: "client_id=pub1&token=ATp"}, 401, "invalid_client"},
		{"IN-10 a client, its own token", call{auth: as("c1"), body: "token=AT1"}, 200, at1},
		{"IN-10 a client, a foreign token", call{auth: as("c1"), body: "token=AT2"}, 200, no},
		{"an issuer", call{auth: as("iss"), body: "token=AT1"}, 200, no},
		{"IN-11 a bearer token", call{auth: "Bearer AT1", body: "token=AT1"}, 401, "invalid_client"},
		{"IN-13 GET", call{method: "GET", path: "?token=AT1", auth: as("rs1")}, 405, "invalid_request"},
		{"IN-22 Accept text/html", call{auth: as("rs1"), body: "token=AT1", header: http.Header{"Accept": {"text/html"}}},
			200, at1},
		{"credentials in the body", call{body: "token=AT1&client_id=rs1&client_secret=rs1-secret"}, 200, at1},
		{"no token", call{auth: as("rs1"), body: "a=b"}, 400, "invalid_request"},
		{"plain HTTP", call{plain: true, auth: as("rs1"), body: "token=AT1"}, 400, "invalid_request"},
	} {
		t.Run(row.id, func(t *testing.T) {
			b := newBench(t)
			var all [2]string
			for i, path := range []string{pathIntrospect, "/invoke/pub.oauth/introspectToken"} {
				c := row.call
				c.path = path + c.path
				w := b.do(c)
				always(t, w)
				all[i] = fmt.Sprint(w.Code, w.Header(), w.Body)
				want := row.body
				if row.status != 200 {
					want = `{"error":"` + want + `"`
				}
				if w.Code != row.status || !strings.HasPrefix(w.Body.String(), want) || row.status == 200 &&
					w.Body.String() != want {
					t.Errorf("got %d %s, want %d %s", w.Code, w.Body, row.status, want)
				}
			}
			if all[0] != all[1] {
				t.Errorf("HP-13: got %s and %s, want the same answer at both paths", all[0], all[1])
			}
		})
	}
}

func TestIntrospect_Response_MatchesRecord(t *testing.T) {
	b := newBench(t)
	iss, _ := b.node.Client("iss")
	_, err := b.node.Register(t.Context(), revoked.ActorOf(iss), []revoked.Registration{
		{GrantID: "bare", ClientID: "c1", Tokens: []revoked.TokenRegistration{{Digest: revoked.DigestToken("bare"),
			Kind: revoked.AccessToken, IssuedAt: 1_790_000_000_900_000}}},
		{GrantID: "full", ClientID: "c1", Subject: "a \"<ü>\" \x01", Audience: []string{"rs2", "rs1"},
			Tokens: []revoked.TokenRegistration{{Digest: revoked.DigestToken("full"),
				Kind: revoked.AccessToken, IssuedAt: 1_790_000_000_000_000, NotBefore: 1_790_000_000_000_000,
				CNF: []byte(`{"x5t#S256":"abc"}`)}}},
		{GrantID: "early", ClientID: "c1", Tokens: []revoked.TokenRegistration{{Digest: revoked.DigestToken("early"),
			Kind: revoked.AccessToken, NotBefore: 1_800_000_000_000_000}}},
		{GrantID: "late", ClientID: "c1", Tokens: []revoked.TokenRegistration{{Digest: revoked.DigestToken("late"),
			Kind: revoked.AccessToken, ExpiresAt: 1_790_000_000_000_001}}},
		{GrantID: "off", ClientID: "cd", Tokens: []revoked.TokenRegistration{{Digest: revoked.DigestToken("off"),
			Kind: revoked.AccessToken}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct{ id, token, want string }{
		{"IN-14 a token that never expires, for every audience", "bare",
			`{"active":true,"client_id":"c1","token_type":"Bearer","iat":1790000000}`},
		{"several audiences, a confirmation, a subject to escape", "full",
			`{"active":true,"client_id":"c1","token_type":"Bearer","iat":1790000000,"nbf":1790000000,` +
				`"sub":"a \"\u003cü\u003e\" \u0001","aud":["rs2","rs1"],"cnf":{"x5t#S256":"abc"}}`},
		{"IN-02 not yet valid", "early", `{"active":false}`},
		{"IN-02 expired", "late", `{"active":false}`},
		{"IN-25 of a disabled client", "off", `{"active":false}`},
	} {
		w := b.do(call{path: pathIntrospect, auth: as("rs1"), body: "token=" + row.token})
		always(t, w)
		if w.Code != 200 || w.Body.String() != row.want {
			t.Errorf("%s: got %d %s, want %s", row.id, w.Code, w.Body, row.want)
		}
		if !json.Valid(w.Body.Bytes()) {
			t.Errorf("%s: got %s, want JSON", row.id, w.Body)
		}
	}
	b.node.editRecord = func(r *revoked.Record) { r.Token.CNF = []byte(`{"x":`) }
	if w := b.do(call{path: pathIntrospect, auth: as("rs1"), body: "token=full"}); w.Code != 503 {
		t.Errorf("malformed confirmation: got %d %s, want 503", w.Code, w.Body)
	}
}

func TestIntrospect_NoReadBarrier_InactiveOnly(t *testing.T) {
	for _, row := range []struct {
		id, who, token string
		status         int
	}{
		{"CL-11 an active token needs a read barrier", "rs1", "AT1", 503},
		{"CL-05 an unknown token needs a read barrier", "rs1", "nope", 503},
		{"a token of another audience", "rs2", "AT1", 200},
		{"a foreign refresh token", "rs1", "RT1", 200},
	} {
		b := newBench(t)
		b.node.onStatus = func(context.Context, revoked.Digest) error { return revoked.ErrNotCurrent }
		w := b.do(call{path: pathIntrospect, auth: as(row.who), body: "token=" + row.token})
		always(t, w)
		if w.Code != row.status || row.status == 200 && w.Body.String() != `{"active":false}` {
			t.Errorf("%s: got %d %s, want %d", row.id, w.Code, w.Body, row.status)
		}
	}
}

// The backend paces the read barriers for unknown tokens per caller, so the API must pass the
// caller to the backend.
func TestIntrospect_OpaqueToken_PassesCaller(t *testing.T) {
	b := newBench(t)
	for _, who := range []string{"rs1", "c1"} {
		b.do(call{path: pathIntrospect, auth: as(who), body: "token=unknown"})
		if got := b.node.caller.Load(); got != who {
			t.Errorf("got caller %v, want %s", got, who)
		}
	}
}

func TestIntrospect_Misses_AreThrottled(t *testing.T) {
	b := newBench(t, func(c *api.Config) { c.MissesPerSecond = 5 })
	codes := map[int]int{}
	for i := range 20 {
		w := b.do(call{path: pathIntrospect, auth: as("rs1"), body: "token=random" + strconv.Itoa(i)})
		always(t, w)
		codes[w.Code]++
	}
	if codes[200] != 5 || codes[429] != 15 {
		t.Errorf("IN-24: got %v, want 5 answers and 15 refusals", codes)
	}
	if n := b.node.statusCalls.Load(); n != 5 {
		t.Errorf("got %d calls to the backend, want 5", n)
	}
	if !b.active(t, "AT1") {
		t.Error("a known token of the same caller: got inactive, want active")
	}
	if w := b.do(call{path: pathIntrospect, auth: as("rs2"), body: "token=random"}); w.Code != 200 {
		t.Errorf("another caller: got %d, want 200", w.Code)
	}
}
