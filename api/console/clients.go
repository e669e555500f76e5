package console

import (
	"errors"
	"fmt"
	"net/http"
	"strings"

	"revoked/api/request"
)

// A client is one client in the response to GET /v1/clients.
type client struct {
	ClientID    string   `json:"client_id"`
	Type        string   `json:"type"`
	Roles       []string `json:"roles"`
	Audiences   []string `json:"audiences"`
	Issuers     []string `json:"issuers"`
	AuthMethods []string `json:"auth_methods"`
	Public      bool     `json:"allow_public_revocation"`
	Disabled    bool     `json:"disabled"`
	CreatedAt   *float64 `json:"created_at"`
	WeakSecret  bool     `json:"weak_secret"`
	Secrets     []struct {
		ExpiresAt *float64 `json:"expires_at"`
	} `json:"valid_secrets"`
	Keys []struct {
		KeyID      string `json:"kid"`
		Thumbprint string `json:"thumbprint"`
	} `json:"keys"`
}

// State returns the state of the client in one word.
func (c client) State() string { return enabled(c.Disabled) }

func enabled(disabled bool) string {
	if disabled {
		return "disabled"
	}
	return "enabled"
}

// UsesSecret reports whether the client may authenticate by a secret.
func (c client) UsesSecret() bool {
	return strings.Contains(strings.Join(c.AuthMethods, " "), "client_secret_")
}

// clientsPage is the body of the list of clients.
type clientsPage struct {
	Clients []client
	Many    bool // whether there are too many clients to list
}

// getClients lists the clients, or redirects to the client whose id is in the query.
func (v *visit) getClients() error {
	if id := v.http.URL.Query().Get("id"); id != "" {
		return v.redirect(pathOf("clients", id))
	}
	var p clientsPage
	err := v.call("GET", "/v1/clients", nil, &p)
	if p.Many = errors.Is(err, errTooLong); err != nil && !p.Many {
		return err
	}
	return v.show(http.StatusOK, "Clients", &p)
}

func (v *visit) getClient() error {
	var c client
	if err := v.call("GET", "/v1/clients/"+apiPath(v.http.PathValue("id")), nil, &c); err != nil {
		return err
	}
	return v.show(http.StatusOK, "Client "+c.ClientID, &c)
}

// newClient is the body of a new client.
type newClient struct {
	ClientID  string   `json:"client_id"`
	Type      string   `json:"type"`
	Roles     []string `json:"roles"`
	Audiences []string `json:"audiences"`
}

// postClients creates a client and shows its secret once.
func (v *visit) postClients() error {
	c := newClient{v.form.Get("client_id"), v.field("type"), append([]string{}, v.form["role"]...),
		append([]string{}, strings.Fields(v.field("audiences"))...)}
	var made struct {
		ClientID string `json:"client_id"`
		Secret   string `json:"client_secret"`
	}
	if err := v.call("POST", "/v1/clients", c, &made); err != nil {
		return err
	}
	if made.Secret == "" {
		return v.done(pathOf("clients", made.ClientID), "%s is created.", made.ClientID)
	}
	return v.show(http.StatusCreated, "New client", &secretPage{"Client secret", made.ClientID, made.Secret,
		pathOf("clients", made.ClientID), "Give it to the client now."})
}

func (v *visit) postClient() error {
	id, action := v.http.PathValue("id"), v.http.PathValue("action")
	path := "/v1/clients/" + apiPath(id)
	if action != "enable" {
		if err := v.confirmed(id); err != nil {
			return err
		}
	}
	switch action {
	case "enable", "disable":
		if err := v.call("PATCH", path, map[string]bool{"disabled": action == "disable"}, nil); err != nil {
			return err
		}
		return v.done(pathOf("clients", id), "%s is %sd.", id, action)
	case "delete":
		if err := v.call("DELETE", path, nil, nil); err != nil {
			return err
		}
		return v.done(Root+"/clients", "%s is deleted, and its tokens are revoked.", id)
	case "secret":
		var made struct {
			Secret string `json:"client_secret"`
		}
		if err := v.call("POST", path+"/secret", map[string]any{}, &made); err != nil {
			return err
		}
		return v.show(http.StatusOK, "New secret", &secretPage{"Client secret", id, made.Secret,
			pathOf("clients", id), "The old secret stays valid for secret_grace. If this is your own client, sign in again."})
	}
	return noAction(action)
}

func noAction(action string) error {
	return &request.Failure{Status: http.StatusNotFound, Title: "No such action", Outcome: "not_found",
		Detail: fmt.Sprintf("There is no action %q.", action)}
}
