package client

import (
	"context"
	"net/http"
	"net/url"
)

// Clients lists the clients (GET /v1/clients).
func (c *Client) Clients(ctx context.Context) (Answer[Clients], error) {
	return call[Clients](ctx, c, get("list the clients", "/v1/clients"))
}

// Client returns one client (GET /v1/clients/{id}).
func (c *Client) Client(ctx context.Context, id string) (Answer[ClientRecord], error) {
	return call[ClientRecord](ctx, c, get("show client "+id, clientPath(id)))
}

// CreateClient creates a client. The response contains its secret, which the server does not keep.
// The call is not retried: the second response would be a conflict without the secret.
func (c *Client) CreateClient(ctx context.Context, n NewClient) (Answer[ClientRecord], error) {
	return c.secretCall(ctx, "create client "+n.ClientID, "/v1/clients", n)
}

// RotateSecret gives a client a new secret. The old one stays valid for secret_grace. The call is
// not retried: a second rotation would end the grace of the secret in use.
func (c *Client) RotateSecret(ctx context.Context, id string) (Answer[ClientRecord], error) {
	return c.secretCall(ctx, "rotate the secret of "+id, clientPath(id)+"/secret", struct{}{})
}

func (c *Client) secretCall(ctx context.Context, name, path string, body any) (Answer[ClientRecord], error) {
	r, err := jsonRequest(name, http.MethodPost, path, body)
	if err != nil {
		return Answer[ClientRecord]{}, err
	}
	r.once = true
	return call[ClientRecord](ctx, c, r)
}

// SetDisabled suspends or enables a client. Its tokens are inactive while it is disabled.
func (c *Client) SetDisabled(ctx context.Context, id string, disabled bool) (Answer[ClientRecord], error) {
	name := map[bool]string{true: "disable client ", false: "enable client "}[disabled] + id
	r, err := jsonRequest(name, http.MethodPatch, clientPath(id), map[string]bool{"disabled": disabled})
	if err != nil {
		return Answer[ClientRecord]{}, err
	}
	r.contentType = "application/merge-patch+json"
	return call[ClientRecord](ctx, c, r)
}

// UpdateClient changes the fields of a client that patch names. patch is a merge patch of the
// client's record (RFC 7396). A field that is null returns to its default.
func (c *Client) UpdateClient(ctx context.Context, id string, patch map[string]any) (Answer[ClientRecord], error) {
	r, err := jsonRequest("update client "+id, http.MethodPatch, clientPath(id), patch)
	if err != nil {
		return Answer[ClientRecord]{}, err
	}
	r.contentType = "application/merge-patch+json"
	return call[ClientRecord](ctx, c, r)
}

// DeleteClient deletes a client. This revokes all of its tokens.
func (c *Client) DeleteClient(ctx context.Context, id string) (Answer[Applied], error) {
	return call[Applied](ctx, c, request{name: "delete client " + id, method: http.MethodDelete, path: clientPath(id)})
}

func clientPath(id string) string { return "/v1/clients/" + url.PathEscape(id) }
