package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	yaml "go.yaml.in/yaml/v3"
)

// maxConfigFile is how many bytes a file of settings or clients may have.
const maxConfigFile = 16 << 20

// A fileSetting is a setting as the file has it.
type fileSetting struct {
	raw   raw
	where string // file:line
}

// readConfigFile reads the file's settings by key. Unknown and repeated keys are problems that name
// their line; what can be read is returned beside them.
func readConfigFile(name string) (map[string]fileSetting, []problem) {
	data, err := readBounded(name, maxConfigFile)
	if isNotExist(err) {
		return nil, []problem{{"", fmt.Sprintf("no configuration file %s", name)}}
	}
	if err != nil {
		return nil, []problem{{"", fmt.Sprintf("cannot read the configuration: %v", err)}}
	}
	return parseConfig(name, data)
}

// parseConfig reads the settings of the YAML document data; name is for messages.
func parseConfig(name string, data []byte) (map[string]fileSetting, []problem) {
	var doc yaml.Node
	dec := yaml.NewDecoder(strings.NewReader(string(data)))
	if err := dec.Decode(&doc); errors.Is(err, io.EOF) {
		return nil, nil
	} else if err != nil {
		return nil, []problem{{name, plainYAML(wrongLine(data, err))}}
	}
	var more yaml.Node
	if err := dec.Decode(&more); !errors.Is(err, io.EOF) {
		return nil, []problem{{name, "holds more than one YAML document"}}
	}
	root := doc.Content[0]
	if root.Kind == yaml.ScalarNode && root.Tag == "!!null" {
		return nil, nil
	}
	if root.Kind != yaml.MappingNode {
		return nil, []problem{{fmt.Sprintf("%s:%d", name, root.Line), "want keys and values"}}
	}
	return settingsOf(name, root)
}

// settingsOf reads the pairs of a mapping.
func settingsOf(name string, root *yaml.Node) (map[string]fileSetting, []problem) {
	known := map[string]bool{}
	var keys []string
	for _, s := range settingsTable() {
		known[s.key] = true
		keys = append(keys, s.key)
	}
	out := map[string]fileSetting{}
	var problems []problem
	for i := 0; i+1 < len(root.Content); i += 2 {
		key, node := root.Content[i], root.Content[i+1]
		where := fmt.Sprintf("%s:%d", name, key.Line)
		if !known[key.Value] {
			text := fmt.Sprintf("unknown key %q", key.Value)
			if near := nearest(key.Value, keys); near != "" {
				text += fmt.Sprintf("; did you mean %s?", near)
			}
			problems = append(problems, problem{where, text})
			continue
		}
		if first, dup := out[key.Value]; dup {
			problems = append(problems, problem{where, fmt.Sprintf("%s is there a second time; first at %s", key.Value, first.where)})
			continue
		}
		if node.Kind == yaml.ScalarNode && node.Tag == "!!null" {
			continue // a key without a value: the default
		}
		r, err := rawOf(node)
		if err != nil {
			problems = append(problems, problem{where, fmt.Sprintf("%s: %v", key.Value, err)})
			continue
		}
		out[key.Value] = fileSetting{raw: r, where: where}
	}
	return out, problems
}

// rawOf returns a node as a setting.
func rawOf(node *yaml.Node) (raw, error) {
	if node.Kind == yaml.AliasNode {
		node = node.Alias
	}
	switch node.Kind {
	case yaml.ScalarNode:
		return raw{text: node.Value}, nil
	case yaml.SequenceNode:
		var items []string
		if err := node.Decode(&items); err != nil {
			return raw{}, errors.New("want a list of plain values")
		}
		return raw{shape: shapeList, items: items}, nil
	case yaml.MappingNode:
		tree := map[string]any{}
		if err := node.Decode(&tree); err != nil {
			return raw{}, errors.New(plainYAML(err))
		}
		return raw{shape: shapeMap, tree: tree}, nil
	default:
		return raw{}, errors.New("want a value")
	}
}

// What wrongLine tries at most: it reads the text once for each line.
const maxLinesTried, maxBytesTried = 1000, 64 << 10

// wrongLine returns the parser's error with the line at which the text goes wrong: the one after the longest
// beginning that can be read. The parser names the line at which the block begins.
func wrongLine(data []byte, err error) error {
	_, text, ok := strings.Cut(err.Error(), ": ")
	if i := strings.Index(text, ": "); strings.HasPrefix(text, "line ") && i > 0 {
		text = text[i+2:]
	}
	lines := bytes.SplitAfter(data, []byte("\n"))
	if !ok || len(lines) > maxLinesTried || len(data) > maxBytesTried {
		return err
	}
	good, end := 0, 0
	for i, line := range lines {
		end += len(line)
		if yaml.Unmarshal(data[:end], new(yaml.Node)) == nil {
			good = i + 1
		}
	}
	return fmt.Errorf("line %d: %s", min(good+1, len(lines)), text)
}

// plainYAML returns the library's message without its prefix, in one line.
func plainYAML(err error) string {
	s := strings.TrimPrefix(err.Error(), "yaml: ")
	return strings.Join(strings.Fields(s), " ")
}

// nearest returns the word of words that s is most likely a misspelling of; empty: none is near.
func nearest(s string, words []string) string {
	best, least := "", len(s)/3+1
	for _, w := range words {
		if d := distance(strings.ReplaceAll(strings.ToLower(s), "-", "_"), w); d <= least && (best == "" || d < least) {
			best, least = w, d
		}
	}
	return best
}

// distance is the number of letters to insert, drop or change to make b of a.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			change := diagonal
			if a[i] != b[j] {
				change++
			}
			diagonal = row[j+1]
			row[j+1] = min(change, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

// isWorldReadable tells whether others than the owner's group may read the file.
func isWorldReadable(st os.FileInfo) bool { return st.Mode().Perm()&0o004 != 0 }
