package client

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
)

const settingsPath = "/v1/settings"

// Settings are the replicated settings by name, such as "lease_duration": "2s".
type Settings map[string]string

// UnmarshalJSON implements [json.Unmarshaler]. A number becomes its text.
func (s *Settings) UnmarshalJSON(b []byte) error {
	var values map[string]any
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	if err := d.Decode(&values); err != nil {
		return err
	}
	*s = make(Settings, len(values))
	for name, v := range values {
		(*s)[name] = fmt.Sprint(v)
	}
	return nil
}

// Settings returns the replicated settings.
func (c *Client) Settings(ctx context.Context) (Answer[Settings], error) {
	return call[Settings](ctx, c, get("read the settings", settingsPath))
}

// UpdateSettings changes replicated settings by a merge patch (RFC 7396). nil restores the default
// of a setting. A setting that is absent from changes keeps its value. The response contains all
// settings.
func (c *Client) UpdateSettings(ctx context.Context, changes map[string]*string) (Answer[Settings], error) {
	r, err := jsonRequest("change the settings", http.MethodPatch, settingsPath, changes)
	if err != nil {
		return Answer[Settings]{}, err
	}
	r.contentType = "application/merge-patch+json"
	return call[Settings](ctx, c, r)
}
