package config

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// clientKeys are the variables of the program that are not settings of a node, in the form of keys.
var clientKeys = []string{
	"addr", "cacert", "client_id", "client_secret", "client_secret_file", "client_jwt_key", "client_cert", "client_key",
	"output", "config",
}

// ofKubernetes matches the variables that Kubernetes sets in each pod for a service named revoked.
var ofKubernetes = regexp.MustCompile(
	`^REVOKED(_[A-Z0-9_]+)?_(SERVICE_HOST|SERVICE_PORT(_[A-Z0-9_]+)?|PORT|PORT_\d+_[A-Z_]+)$`)

// An UnknownVariable is a variable that begins with REVOKED_ and that the program does not read.
type UnknownVariable struct {
	Name string
	Near []string // variables that resemble it
}

// String returns a warning. The warning never has the value, because that may be a secret.
func (v UnknownVariable) String() string {
	text := fmt.Sprintf("%s is set, but the program has no such variable", v.Name)
	if len(v.Near) > 0 {
		text += "; did you mean " + strings.Join(v.Near, " or ") + "?"
	}
	return text
}

// UnknownVariables returns the unknown variables of environ, in the order of their names. environ
// has the form of os.Environ. An empty variable is treated as absent, as for settings.
func UnknownVariables(environ []string) []UnknownVariable {
	table := Table()
	for _, key := range clientKeys {
		table = append(table, Setting{Key: key})
	}
	var out []UnknownVariable
	for _, entry := range environ {
		name, value, _ := strings.Cut(entry, "=")
		key, ours := strings.CutPrefix(name, "REVOKED_")
		isKnown := slices.ContainsFunc(table, func(s Setting) bool { return Variable(s.Key) == name })
		if !ours || value == "" || isKnown || ofKubernetes.MatchString(name) {
			continue
		}
		v := UnknownVariable{Name: name}
		for _, near := range similar(key, table) {
			v.Near = append(v.Near, Variable(near))
		}
		out = append(out, v)
	}
	slices.SortFunc(out, func(a, b UnknownVariable) int { return strings.Compare(a.Name, b.Name) })
	return out
}
