package console

import (
	"net/http"
	"slices"

	"revoked/api/request"
)

// memberActions maps each action on a member to the API call that the action makes.
var memberActions = map[string]string{
	"transfer-leader": "POST /v1/cluster/transfer-leader", "promote": "POST /v1/cluster/promote",
	"demote": "POST /v1/cluster/demote", "remove": "POST /v1/cluster/remove", "leave": "POST /v1/cluster/leave",
}

// admittedNode is one node in the response to GET /v1/cluster/admitted.
type admittedNode struct {
	Node      string   `json:"node"`
	NonVoter  bool     `json:"non_voter"`
	State     string   `json:"state"`
	ExpiresAt *float64 `json:"expires_at"`
	By        string   `json:"by"`
}

// joinToken is one token in the response to GET /v1/cluster/join-tokens.
type joinToken struct {
	ID        string   `json:"id"`
	State     string   `json:"state"`
	Node      string   `json:"node"`
	NonVoter  bool     `json:"non_voter"`
	ExpiresAt *float64 `json:"expires_at"`
	By        string   `json:"by"`
	UsedBy    string   `json:"used_by"`
}

// membersPage is the body of the list of members.
type membersPage struct {
	Members  []member
	Admitted []admittedNode
	Tokens   []joinToken
	Problem  string // why the admissions could not be read
}

func (v *visit) getMembers() error {
	v.inner.Repeated = isRefresh(v.http)
	var list membersView
	if err := v.call("GET", "/v1/members", nil, &list); err != nil {
		return err
	}
	p := membersPage{Members: list.Members}
	if v.may("GET /v1/cluster/admitted") {
		var nodes struct{ Nodes []admittedNode }
		var tokens struct {
			JoinTokens []joinToken `json:"join_tokens"`
		}
		err := v.call("GET", "/v1/cluster/admitted", nil, &nodes)
		if err == nil {
			err = v.call("GET", "/v1/cluster/join-tokens", nil, &tokens)
		}
		if err != nil {
			p.Problem = err.Error()
		}
		p.Admitted, p.Tokens = nodes.Nodes, tokens.JoinTokens
	}
	return v.show(http.StatusOK, "Members", &p)
}

// memberPage is the body of the page of one member.
type memberPage struct {
	member
	Here bool // whether the member is the node that serves the page
}

func (v *visit) getMember() error {
	var list membersView
	var status statusView
	if err := v.call("GET", "/v1/members", nil, &list); err != nil {
		return err
	}
	if err := v.call("GET", "/v1/status", nil, &status); err != nil {
		return err
	}
	id := v.http.PathValue("node")
	i := slices.IndexFunc(list.Members, func(m member) bool { return m.NodeID == id })
	if i < 0 {
		return &request.Failure{Status: http.StatusNotFound, Title: "No such member", Outcome: "not_found"}
	}
	return v.show(http.StatusOK, "Member "+id, &memberPage{list.Members[i], id == status.NodeID})
}

func (v *visit) postMember() error {
	node, action := v.http.PathValue("node"), v.http.PathValue("action")
	if memberActions[action] == "" {
		return &request.Failure{Status: http.StatusNotFound, Title: "No such action", Outcome: "not_found"}
	}
	if err := v.confirmed(node); err != nil {
		return err
	}
	body := map[string]any{"node": node}
	switch action {
	case "remove":
		body["force"], body["reason"] = v.field("force") != "", v.field("reason")
	case "leave":
		body = map[string]any{} // the node that serves the page leaves
		if !v.may(memberActions[action]) {
			break // the API refuses the call, and records it in the audit log
		}
		var status statusView
		if err := v.call("GET", "/v1/status", nil, &status); err != nil {
			return err
		}
		if status.NodeID != node {
			return &request.Failure{Status: http.StatusConflict, Title: "Another node", Outcome: "conflict",
				Detail: "A node can leave only from its own console. This is the console of " + status.NodeID + "."}
		}
	}
	if err := v.call("POST", "/v1/cluster/"+action, body, nil); err != nil {
		return err
	}
	return v.done(Root+"/members", "Action: %s %s.", action, node)
}

// secretPage shows a secret that cannot be shown again.
type secretPage struct{ Kind, Of, Secret, Back, Text string }

// postAdmission admits a node, creates a join token, withdraws an admission, or deletes a join
// token.
func (v *visit) postAdmission() error {
	node, id := v.form.Get("node"), v.form.Get("id")
	body := map[string]any{"non_voter": v.field("non_voter") != ""}
	if ttl := v.field("ttl"); ttl != "" {
		body["ttl"] = ttl
	}
	if node != "" {
		body["node"] = node
	}
	switch v.http.PathValue("action") {
	case "admit":
		if err := v.call("POST", "/v1/cluster/admit", body, nil); err != nil {
			return err
		}
		return v.done(Root+"/members", "%s may join.", node)
	case "withdraw":
		if err := v.confirmed(node); err != nil {
			return err
		}
		if err := v.call("DELETE", "/v1/cluster/admit/"+apiPath(node), nil, nil); err != nil {
			return err
		}
		return v.done(Root+"/members", "%s may no longer join.", node)
	case "create-token":
		var made struct{ ID, Token string }
		if err := v.call("POST", "/v1/cluster/join-tokens", body, &made); err != nil {
			return err
		}
		return v.show(http.StatusCreated, "New join token", &secretPage{"Join token", made.ID, made.Token,
			Root + "/members", "Write it to the file that join_token_file sets on the new node."})
	case "delete-token":
		if err := v.call("DELETE", "/v1/cluster/join-tokens/"+apiPath(id), nil, nil); err != nil {
			return err
		}
		return v.done(Root+"/members", "The join token %s is deleted.", id)
	}
	return &request.Failure{Status: http.StatusNotFound, Title: "No such action", Outcome: "not_found"}
}
