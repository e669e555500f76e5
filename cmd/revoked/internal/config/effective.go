package config

import (
	"net/netip"
	"net/url"
	"os"
	"strings"
	"time"
)

// redacted replaces a text that may be a secret.
const redacted = "REDACTED"

// An Effective is a setting in effect, for administrators. It shows no secret.
type Effective struct {
	Key    string `json:"key"`
	Value  any    `json:"value"`  // durations as text, sizes in bytes
	Source string `json:"source"` // flag, variable, file:line or "default"
}

// Effective returns every setting, in the order of the table. It checks whether files exist, so
// call it at the start. It never reads them. In URLs it replaces the password and the query. If the
// value of a setting for a secret file is not a file, Effective hides it, because users have put
// the secret itself there.
func (c *Config) Effective() []Effective {
	var all []Effective
	for _, s := range c.table() {
		all = append(all, Effective{s.Key, s.shown(), c.origin[s.Key]})
	}
	return all
}

// shown returns the value of a setting, without secrets.
func (s Setting) shown() any {
	switch p := s.field.(type) {
	case *string:
		return withoutCredentials(*p)
	case *path:
		if namesSecret(s.Key) && !isFile(string(*p)) {
			return redacted
		}
		return string(*p)
	case *destination:
		return string(*p)
	case choice:
		return *p.field
	case *bool:
		return *p
	case *int:
		return *p
	case *float64:
		return *p
	case *size:
		return int64(*p)
	case *time.Duration:
		return p.String()
	case *[]string:
		shown := make([]string, len(*p))
		for i, text := range *p {
			shown[i] = withoutCredentials(text)
		}
		return shown
	case *[]netip.Prefix:
		return *p
	case *map[netip.Prefix][]string:
		return *p
	case *map[string]any: // metadata_extra, which every node publishes
		return *p
	}
	return redacted
}

// namesSecret reports whether the file of a setting contains a secret.
func namesSecret(key string) bool {
	return strings.HasSuffix(key, "_secret_file") || strings.HasSuffix(key, "_token_file") ||
		strings.HasSuffix(key, "_key_file") || key == "bootstrap_clients_file" || strings.HasSuffix(key, "_key")
}

// isFile reports whether name is empty or exists.
func isFile(name string) bool {
	_, err := os.Stat(name)
	return name == "" || err == nil
}

// withoutCredentials returns text. If text is a URL, its user, password and query are replaced.
func withoutCredentials(text string) string {
	if !strings.Contains(text, "://") {
		return text
	}
	u, err := url.Parse(text)
	if err != nil {
		return redacted
	}
	if u.User != nil {
		u.User = url.User(redacted)
	}
	if u.RawQuery != "" {
		u.RawQuery = redacted
	}
	u.Fragment = ""
	return u.String()
}
