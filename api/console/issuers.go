package console

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	"revoked/api/request"
)

// An issuer is one trusted issuer in the response to GET /v1/issuers.
type issuer struct {
	Name        string   `json:"name"`
	Issuer      string   `json:"issuer"`
	JWKSURI     string   `json:"jwks_uri"`
	Algorithms  []string `json:"algorithms"`
	TokenTypes  []string `json:"token_types"`
	MaxLifetime string   `json:"max_lifetime"`
	Disabled    bool     `json:"disabled"`
	CreatedAt   *float64 `json:"created_at"`
	Keys        []struct {
		KeyID      string `json:"kid"`
		Thumbprint string `json:"thumbprint"`
		Algorithm  string `json:"alg"`
		State      string `json:"state"`
	} `json:"keys"`
	Fetch *struct {
		At    *float64 `json:"at"`
		OK    bool     `json:"ok"`
		Error string   `json:"error"`
	} `json:"fetch"`
	Record string `json:"-"` // the members that a change may set, as JSON
}

// State returns the state of the issuer in one word.
func (i issuer) State() string { return enabled(i.Disabled) }

// fetched returns a text: when the keys were fetched, or that they were never fetched.
func (i issuer) fetched() string {
	switch f := i.Fetch; {
	case f == nil:
		return "-"
	case !f.OK:
		return "failed"
	default:
		return at(f.At)
	}
}

// issuersPage is the body of the list of issuers.
type issuersPage struct{ Issuers []issuer }

func (v *visit) getIssuers() error {
	var list issuersPage
	if err := v.call("GET", "/v1/issuers", nil, &list); err != nil {
		return err
	}
	return v.show(http.StatusOK, "Issuers", &list)
}

func (v *visit) getIssuer() error {
	var raw json.RawMessage
	if err := v.call("GET", "/v1/issuers/"+apiPath(v.http.PathValue("name")), nil, &raw); err != nil {
		return err
	}
	var i issuer
	var record issuerRecord
	if err := errors.Join(json.Unmarshal(raw, &i), json.Unmarshal(raw, &record)); err != nil {
		return fmt.Errorf("decode issuer: %w", err)
	}
	text, err := json.MarshalIndent(&record, "", "  ")
	if err != nil {
		return fmt.Errorf("encode issuer: %w", err)
	}
	i.Record = string(text)
	return v.show(http.StatusOK, "Issuer "+i.Name, &i)
}

// issuerRecord has the members of an issuer that a change may set.
type issuerRecord struct {
	JWKSURI         string            `json:"jwks_uri,omitempty"`
	JWKS            json.RawMessage   `json:"jwks,omitempty"`
	Algorithms      []string          `json:"algorithms"`
	TokenTypes      []string          `json:"token_types"`
	RequiredClaims  map[string]string `json:"required_claims"`
	ForbiddenClaims []string          `json:"forbidden_claims"`
	ClientClaim     string            `json:"client_claim"`
	SessionClaim    string            `json:"session_claim"`
	GrantClaim      string            `json:"grant_claim"`
	RevokeSession   bool              `json:"revoke_session"`
	OwnClients      bool              `json:"own_clients"`
	UnknownClients  string            `json:"unknown_clients"`
	RequireAudience bool              `json:"require_audience"`
	JTI             bool              `json:"jti"`
	MaxLifetime     string            `json:"max_lifetime"`
	ClockSkew       string            `json:"clock_skew"`
}

// sendRecord sends the record of the form to the API as it is.
func (v *visit) sendRecord(method, path string, out any) error {
	record := v.field("record")
	if record == "" {
		return request.Malformed("the record is missing")
	}
	a := newAnswer(v.Response())
	if err := v.send(v.http.Context(), a, method, path, request.TypeJSON, []byte(record)); err != nil {
		return err
	}
	return a.decode(out)
}

// postIssuers creates an issuer from a record in JSON, as `revoked issuer create` does.
func (v *visit) postIssuers() error {
	var made issuer
	if err := v.sendRecord("POST", "/v1/issuers", &made); err != nil {
		return err
	}
	return v.done(pathOf("issuers", made.Name), "%s is created.", made.Name)
}

func (v *visit) postIssuer() error {
	name, action := v.http.PathValue("name"), v.http.PathValue("action")
	path := "/v1/issuers/" + apiPath(name)
	thumbprint := v.form.Get("thumbprint")
	want := name
	if action == "ban-key" {
		want = thumbprint
	}
	if action != "enable" && action != "refresh" {
		if err := v.confirmed(want); err != nil {
			return err
		}
	}
	switch action {
	case "change":
		if err := v.sendRecord("PATCH", path, nil); err != nil {
			return err
		}
		return v.done(pathOf("issuers", name), "%s is changed.", name)
	case "enable", "disable":
		if err := v.call("PATCH", path, map[string]bool{"disabled": action == "disable"}, nil); err != nil {
			return err
		}
		return v.done(pathOf("issuers", name), "%s is %sd.", name, action)
	case "refresh":
		var got struct{ Changed bool }
		if err := v.call("POST", path+"/refresh", map[string]any{}, &got); err != nil {
			return err
		}
		if got.Changed {
			return v.done(pathOf("issuers", name), "The keys were fetched, and have changed.")
		}
		return v.done(pathOf("issuers", name), "The keys were fetched, and are the same.")
	case "ban-key":
		if err := v.call("DELETE", path+"/keys/"+apiPath(thumbprint), nil, nil); err != nil {
			return err
		}
		return v.done(pathOf("issuers", name), "The key is banned permanently.")
	case "delete":
		if err := v.call("DELETE", path, nil, nil); err != nil {
			return err
		}
		return v.done(Root+"/issuers", "%s is deleted, and its tokens are revoked.", name)
	}
	return noAction(action)
}
