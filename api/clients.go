package api

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/labstack/echo/v4"

	"revoked"
)

const (
	maxClientList = 64 // elements of a list in a client record
	maxSecrets    = 4  // stored hashes: the present one and those in their grace
	// clientRetries is how often a change is made anew after somebody else changed the record.
	clientRetries = 5
)

// clientAnswer is a client record as JSON.
type clientAnswer struct {
	ClientID              string         `json:"client_id"`
	Type                  string         `json:"type"`
	Roles                 []revoked.Role `json:"roles"`
	Audiences             []string       `json:"audiences"`
	Issuers               []string       `json:"issuers"`
	AuthMethods           []string       `json:"auth_methods"`
	AllowPublicRevocation bool           `json:"allow_public_revocation"`
	Disabled              bool           `json:"disabled"`
	CreatedAt             unixTime       `json:"created_at"`
	ClientSecret          string         `json:"client_secret,omitempty"` // in the answer that made it
}

func viewClient(c *revoked.Client) clientAnswer {
	return clientAnswer{
		ClientID: c.ID, Type: string(c.Type), Roles: append([]revoked.Role{}, c.Roles...),
		Audiences: append([]string{}, c.Audiences...), Issuers: append([]string{}, c.Issuers...),
		AuthMethods: append([]string{}, c.AuthMethods...), AllowPublicRevocation: c.AllowPublicRevocation,
		Disabled: c.Disabled, CreatedAt: unixTime(c.CreatedAt),
	}
}

func (a *API) getClients(c echo.Context) error {
	ctx, cancel := a.within(c)
	defer cancel()
	list, err := a.cfg.Backend.Clients(ctx)
	if err != nil {
		return a.problem(c, err)
	}
	out := make([]clientAnswer, 0, len(list))
	for _, cl := range list {
		out = append(out, viewClient(cl))
	}
	return a.reply(c, http.StatusOK, map[string][]clientAnswer{"clients": out})
}

func (a *API) getClient(c echo.Context) error {
	id, err := pathID(c)
	if err != nil {
		return a.problem(c, err)
	}
	ctx, cancel := a.within(c)
	defer cancel()
	if err := a.cfg.Backend.Current(ctx); err != nil {
		return a.problem(c, err)
	}
	cl, ok := a.cfg.Backend.Client(id)
	if !ok {
		return a.problem(c, fmt.Errorf("%w: no such client", revoked.ErrNotFound))
	}
	return a.reply(c, http.StatusOK, viewClient(cl))
}

// postClients is POST /v1/clients. The answer is the only one that shows the secret.
func (a *API) postClients(c echo.Context) error {
	p, err := decodeClient(c, typeJSON)
	if err != nil {
		return a.refuse(c, err)
	}
	cl, secret, err := p.create()
	if err != nil {
		return a.problem(c, err)
	}
	ctx, cancel := a.within(c)
	defer cancel()
	made, _, err := a.cfg.Backend.CreateClient(ctx, revoked.ActorOf(a.caller(c)), cl)
	if err != nil {
		return a.problem(c, err)
	}
	out := viewClient(made)
	out.ClientSecret = secret
	return a.reply(c, http.StatusCreated, out)
}

// patchClient is PATCH /v1/clients/{id}: a merge patch (RFC 7396). A patch that changes nothing is
// committed like any other: its answer is as final.
func (a *API) patchClient(c echo.Context) error {
	p, err := decodeClient(c, typeMergePatch, typeJSON)
	if err != nil {
		return a.refuse(c, err)
	}
	cl, _, err := a.changeClient(c, p.apply)
	if err != nil {
		return a.problem(c, err)
	}
	return a.reply(c, http.StatusOK, viewClient(cl))
}

func (a *API) deleteClient(c echo.Context) error {
	id, err := pathID(c)
	if err != nil {
		return a.problem(c, err)
	}
	ctx, cancel := a.within(c)
	defer cancel()
	index, err := a.cfg.Backend.DeleteClient(ctx, revoked.ActorOf(a.caller(c)), id)
	if err != nil {
		return a.problem(c, err)
	}
	return a.reply(c, http.StatusOK, indexAnswer{Index: index})
}

// secretAnswer is the answer of POST /v1/clients/{id}/secret.
type secretAnswer struct {
	ClientID     string `json:"client_id"`
	ClientSecret string `json:"client_secret"`
	Index        uint64 `json:"index"`
}

// postSecret is POST /v1/clients/{id}/secret: a new secret; the old ones live on for secret_grace.
func (a *API) postSecret(c echo.Context) error {
	if err := decodeBody(c, true, []string{typeJSON}, nil, nil); err != nil {
		return a.refuse(c, err)
	}
	secret := NewSecret()
	hash := HashSecret(secret)
	cl, index, err := a.changeClient(c, func(cl *revoked.Client) error {
		if cl.Type == revoked.Public {
			return fmt.Errorf("%w: a public client has no secret", revoked.ErrUnprocessable)
		}
		cl.Secrets = rotate(cl.Secrets, hash, revoked.TimeOf(a.cfg.Now()), a.cfg.Backend.Settings().SecretGrace)
		return nil
	})
	if err != nil {
		return a.problem(c, err)
	}
	return a.reply(c, http.StatusOK, secretAnswer{ClientID: cl.ID, ClientSecret: secret, Index: index})
}

// rotate puts a new secret before those that have not ended. None of the old ones lives longer than
// grace from now.
func rotate(old []revoked.SecretHash, made revoked.SecretHash, now revoked.Time, grace time.Duration) []revoked.SecretHash {
	out := []revoked.SecretHash{made}
	end := now.Add(grace)
	for _, s := range old {
		if s.ExpiresAt == 0 || s.ExpiresAt > end {
			s.ExpiresAt = end
		}
		if s.ExpiresAt > now && len(out) < maxSecrets {
			out = append(out, s)
		}
	}
	return out
}

// changeClient applies change to the record named in the path. When somebody else has changed it
// meanwhile the change is made anew on what they left.
func (a *API) changeClient(c echo.Context, change func(*revoked.Client) error) (*revoked.Client, uint64, error) {
	id, err := pathID(c)
	if err != nil {
		return nil, 0, err
	}
	ctx, cancel := a.within(c)
	defer cancel()
	actor := revoked.ActorOf(a.caller(c))
	var last error
	for try := range clientRetries {
		if try > 0 && !pause(ctx, time.Duration(try)*20*time.Millisecond) {
			break
		}
		cur, ok := a.cfg.Backend.Client(id)
		if !ok {
			return nil, 0, fmt.Errorf("%w: no such client", revoked.ErrNotFound)
		}
		next := copyClient(cur)
		if err := change(&next); err != nil {
			return nil, 0, err
		}
		made, index, err := a.cfg.Backend.UpdateClient(ctx, actor, next)
		if !errors.Is(err, revoked.ErrConflict) {
			return made, index, err
		}
		last = err
	}
	return nil, 0, last
}

// pause waits for d, for this node to learn what the leader knows. It reports whether ctx still runs.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// copyClient returns a copy that shares no list with c.
func copyClient(c *revoked.Client) revoked.Client {
	out := *c
	out.Roles = slices.Clone(c.Roles)
	out.Audiences = slices.Clone(c.Audiences)
	out.Issuers = slices.Clone(c.Issuers)
	out.AuthMethods = slices.Clone(c.AuthMethods)
	out.Secrets = slices.Clone(c.Secrets)
	return out
}
