package config

import (
	"fmt"
	"slices"
	"strings"
)

// A Problem is one error in the settings.
type Problem struct {
	Where string // place of the setting, such as a file and a line; may be empty
	Text  string
}

func (p Problem) String() string {
	if p.Where == "" {
		return p.Text
	}
	return p.Where + ": " + p.Text
}

// An Error lists all problems of the settings.
type Error struct{ Problems []Problem }

func (e *Error) Error() string {
	if len(e.Problems) == 1 {
		return e.Problems[0].String()
	}
	text := fmt.Sprintf("%d problems in the configuration:", len(e.Problems))
	for _, p := range e.Problems {
		text += "\n  - " + p.String()
	}
	return text
}

// A Config has the settings of a node and the place where each was set.
type Config struct {
	Settings
	File string // absolute; may be empty
	// OwnCertificate reports that the certificate is below data_dir, where the node stores a
	// certificate that it got with a join token.
	OwnCertificate bool
	origin         map[string]string // by key: "--node-id", "REVOKED_NODE_ID", "/etc/revoked.yml:3" or "default"
	problems       []Problem
}

// Place returns the place of a setting for a message: its flag, variable or line, or otherwise its
// key.
func (c *Config) Place(key string) string {
	switch o := c.origin[key]; {
	case o == "" || o == "default":
		return key
	case strings.HasPrefix(o, "--") || strings.HasPrefix(o, "REVOKED_"):
		return o
	default:
		return o + ": " + key
	}
}

// note adds a problem at a place.
func (c *Config) note(where, format string, args ...any) {
	c.problems = append(c.problems, Problem{where, fmt.Sprintf(format, args...)})
}

// addf adds a problem of a setting.
func (c *Config) addf(key, format string, args ...any) { c.note(c.Place(key), format, args...) }

// add adds a problem of a setting unless err is nil.
func (c *Config) add(key string, err error) {
	if err != nil {
		c.addf(key, "%v", err)
	}
}

func (c *Config) addIf(wrong bool, key, format string, args ...any) {
	if wrong {
		c.addf(key, format, args...)
	}
}

func (c *Config) hasProblem(key string) bool {
	return slices.ContainsFunc(c.problems, func(p Problem) bool { return p.Where == c.Place(key) })
}

func (c *Config) err() error {
	if len(c.problems) == 0 {
		return nil
	}
	return &Error{c.problems}
}
