package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	yaml "go.yaml.in/yaml/v3"

	"revoked/cmd/revoked/internal/files"
)

// maxFile limits a file of settings or clients.
const maxFile = 16 << 20

// readFile returns the settings in a file by key, and the problems of its keys. It returns an error
// if the file cannot be read or is not a YAML mapping.
func readFile(name, base string) (map[string]value, []Problem, error) {
	data, err := files.Read(name, maxFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, fmt.Errorf("configuration file %s: does not exist", name)
	}
	if err != nil {
		return nil, nil, fmt.Errorf("read the configuration: %w", err)
	}
	root, err := parseYAML(data)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", name, err)
	}
	if root == nil {
		return nil, nil, nil
	}
	if root.Kind != yaml.MappingNode {
		return nil, nil, fmt.Errorf("%s:%d: want keys and values", name, root.Line)
	}
	values, problems := parseKeys(name, base, root)
	return values, problems, nil
}

// parseYAML returns the root of a YAML document, or nil if the document is empty.
func parseYAML(data []byte) (*yaml.Node, error) {
	var doc, more yaml.Node
	dec := yaml.NewDecoder(bytes.NewReader(data))
	if err := dec.Decode(&doc); errors.Is(err, io.EOF) {
		return nil, nil
	} else if err != nil {
		return nil, errors.New(yamlText(err))
	}
	if err := dec.Decode(&more); !errors.Is(err, io.EOF) {
		return nil, errors.New("more than one YAML document")
	}
	if root := doc.Content[0]; !isNull(root) {
		return root, nil
	}
	return nil, nil
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.Tag == "!!null" }

// parseKeys returns the values of a mapping by key. Unknown and repeated keys are problems.
func parseKeys(name, base string, root *yaml.Node) (map[string]value, []Problem) {
	table := Table()
	known := map[string]bool{}
	for _, s := range table {
		known[s.Key] = true
	}
	values := map[string]value{}
	var problems []Problem
	for i := 0; i+1 < len(root.Content); i += 2 {
		key, node := root.Content[i].Value, root.Content[i+1]
		where := fmt.Sprintf("%s:%d", name, root.Content[i].Line)
		if node.Kind == yaml.AliasNode {
			node = node.Alias
		}
		switch first, repeated := values[key]; {
		case !known[key]:
			problems = append(problems, Problem{where, fmt.Sprintf("unknown key %q%s", key, suggestion(key, table))})
		case repeated:
			problems = append(problems, Problem{where, fmt.Sprintf("%s is set again; first at %s", key, first.where)})
		case !isNull(node): // a key without a value has its default
			values[key] = value{node: node, base: base, where: where}
		}
	}
	return values, problems
}

// suggestion returns a hint with the keys that resemble a misspelled key, or "".
func suggestion(key string, table []Setting) string {
	near := similar(key, table)
	if len(near) == 0 {
		return ""
	}
	return "; did you mean " + strings.Join(near, " or ") + "?"
}

// similar returns at most five keys that resemble a misspelled key. It uses the suggestions of
// cobra, which compares commands. So the function creates a command for every key.
func similar(key string, table []Setting) []string {
	var keys cobra.Command
	keys.SuggestionsMinimumDistance = 2
	for _, s := range table {
		keys.AddCommand(&cobra.Command{Use: s.Key, Run: func(*cobra.Command, []string) {}})
	}
	key = strings.ReplaceAll(strings.ToLower(key), "-", "_")
	near := keys.SuggestionsFor(key)
	if len(near) == 0 {
		near = keysWithWord(key, table)
	}
	if len(near) > 5 {
		return nil
	}
	return near
}

// otherWords are the words that other systems use for a part of a key.
var otherWords = map[string]string{
	"advertised": "advertise", "bind": "addr", "listen": "addr", "address": "addr", "name": "node_id", "peers": "join",
	"seeds": "join", "retry": "join", "tls": "cert", "certificate": "cert", "datadir": "data_dir", "path": "dir",
	"voter": "non_voter", "encrypt": "gossip_key_file", "zone": "region", "datacenter": "region", "memory": "cache_size",
	"expect": "bootstrap_expect", "loglevel": "log_level",
}

// keysWithWord returns the keys that share the most words with key.
func keysWithWord(key string, table []Setting) []string {
	words := strings.Split(key, "_")
	for i, w := range words {
		if other, ok := otherWords[w]; ok {
			words[i] = other
		}
	}
	var near []string
	most := 0
	for _, s := range table {
		shared := 0
		for _, w := range words {
			if s.Key == w || slices.Contains(strings.Split(s.Key, "_"), w) {
				shared++
			}
		}
		if shared > most {
			near, most = nil, shared
		}
		if shared == most && shared > 0 {
			near = append(near, s.Key)
		}
	}
	return near
}
