package conformance_test

import (
	"fmt"
	"net/url"
	"strings"
	"testing"
)

func explainScenarios() []scenario {
	return []scenario{
		{"contract", "6 \"POST /v1/explain\"", "every node explains a token before and after its revocation", explainedEverywhere},
		{"contract", "6 \"viewer: no subject, session\"", "a viewer gets an explanation without the user", explainedToViewer},
		{"contract", "6 \"GET /v1/grants\"", "every node lists the grants of a session", listedGrants},
		{"contract", "6 \"Settled\"", "explain with an unknown caller", explainedForUnknown},
	}
}

func explainedEverywhere(t *testing.T, s *stage) {
	w := s.newTokens(t, s.Follower(t))
	token, refresh := w.tokens["AT1"], w.tokens["RT1"]
	explain := func(node int, member, value, as string) map[string]any {
		t.Helper()
		m := s.Members[node]
		body := fmt.Sprintf(`{%q:%q,"as":%q}`, member, value, as)
		doc := admitted(t, "explain "+member, s.json(t, m, "POST", "/v1/explain", "adm", body), 200)
		if doc["node"] != m.ID || doc["applied_index"].(float64) <= 0 || doc["kind"] != "registered" {
			t.Errorf("got %v, want the answer of %s about a registered token", doc, m.ID)
		}
		return doc
	}
	for node := range s.Members {
		for _, row := range []struct{ token, as, reason string }{
			{token, "rs1", "active"}, {token, "c1", "active"}, {token, "c2", "audience"}, {refresh, "c1", "active"},
			{refresh, "rs1", "refresh_token"},
		} {
			for member, value := range map[string]string{"token": row.token, "digest": digestOf(row.token)} {
				doc := explain(node, member, value, row.as)
				if doc["reason"] != row.reason || doc["active"] != (row.reason == "active") || doc["client_id"] != "c1" ||
					doc["revoked"] != nil || doc["cutoff"] != nil || doc["issuer_reason"] != nil {
					t.Errorf("as %s: got %v, want %s", row.as, doc, row.reason)
				}
			}
		}
	}
	s.revoke(t, "c1", refresh)
	for node := range s.Members {
		for _, as := range []string{"rs1", "c1", "c2"} {
			doc := explain(node, "token", token, as)
			end, _ := doc["revoked"].(map[string]any)
			if doc["active"] != false || doc["reason"] != "revoked" || end["by"] != "c1" ||
				end["index"].(float64) > doc["applied_index"].(float64) {
				t.Errorf("after the revocation, as %s: got %v, want it revoked by c1", as, doc)
			}
			keys(t, "revoked", end, "at by index reason")
		}
	}
}

func explainedToViewer(t *testing.T, s *stage) {
	w := s.newTokens(t, s.Follower(t))
	ask := func(status string) {
		t.Helper()
		for _, m := range s.Members {
			r := s.json(t, m, "POST", "/v1/explain", "eye", fmt.Sprintf(`{"token":%q}`, w.tokens["AT1"]))
			doc := admitted(t, "explain", r, 200)
			if doc["reason"] != status || doc["client_id"] != "c1" || strings.Contains(r.Body, w.subject()) ||
				strings.Contains(r.Body, w.session()) {
				t.Errorf("%s: got %s, want %s without a subject and a session", m.ID, r.Body, status)
			}
		}
	}
	ask("active")
	s.call(t, "POST", "/v1/revocations", "adm", fmt.Sprintf(`{"subject":%q,"session":%q}`, w.subject(), w.session()), 200)
	ask("cut_off")
}

func explainedForUnknown(t *testing.T, s *stage) {
	w := s.newTokens(t, s.Follower(t))
	for body, status := range map[string]int{
		fmt.Sprintf(`{"token":%q,"as":"nobody"}`, w.tokens["AT1"]):                          422,
		fmt.Sprintf(`{"token":%q,"digest":%q}`, w.tokens["AT1"], digestOf(w.tokens["AT1"])): 400,
		`{"as":"rs1"}`: 400, fmt.Sprintf(`{"digest":%q}`, digestOf(w.tokens["AT1"])[1:]): 400,
	} {
		s.call(t, "POST", "/v1/explain", "adm", body, status)
	}
	unknown := s.call(t, "POST", "/v1/explain", "adm", fmt.Sprintf(`{"token":%q}`, fresh("unknown")), 200)
	if unknown["active"] != false || unknown["reason"] != "unknown" || unknown["kind"] != "unknown" {
		t.Errorf("unknown token: got %v", unknown)
	}
}

func listedGrants(t *testing.T, s *stage) {
	w := s.newTokens(t, s.Follower(t))
	s.revoke(t, "c1", w.tokens["ATb"])
	for _, m := range s.Members {
		states, after := map[string]string{}, ""
		for {
			path := "/v1/grants?limit=1&session=" + url.QueryEscape(w.session()) + after
			doc := admitted(t, path, s.json(t, m, "GET", path, "adm", ""), 200)
			for _, x := range doc["grants"].([]any) {
				g := x.(map[string]any)
				states[fmt.Sprint(g["grant_id"])] = fmt.Sprint(g["state"])
			}
			next, more := doc["next"].(string)
			if !more {
				break
			}
			after = "&after=" + url.QueryEscape(next)
		}
		if len(states) < 2 || states[w.grants["G"]] != "revoked" {
			t.Errorf("%s: got %v, want several grants, and %s revoked", m.ID, states, w.grants["G"])
		}
	}
}
