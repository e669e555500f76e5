package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/dustin/go-humanize"
	yaml "go.yaml.in/yaml/v3"
)

// These field types need their own parser.
type (
	path string // a relative path in a settings file starts from the directory of that file
	// destination is a path, or Stderr.
	destination string
	size        int64 // bytes, with an optional unit
	choice      struct {
		field *string
		of    []string
	}
)

// A value is the text of a setting. The text of a flag or variable is a scalar.
type value struct {
	node  *yaml.Node
	base  string // directory that relative paths start from; empty: the working directory
	where string // flag, variable, file:line or "default"
}

func scalarValue(s, where string) value {
	return value{node: &yaml.Node{Kind: yaml.ScalarNode, Value: s}, where: where}
}

// parse sets field, the field of a [Setting], to v. An empty text sets the zero value.
func (v value) parse(field any) error {
	switch p := field.(type) {
	case *[]string:
		items, err := v.items()
		*p = items
		return err
	case *[]netip.Prefix:
		return v.networks(p)
	case *map[netip.Prefix][]string:
		return v.checkNetworks(p)
	case *map[string]any:
		return v.mapping(p)
	}
	if v.node.Kind != yaml.ScalarNode {
		return errors.New("want a single value")
	}
	return v.scalar(field)
}

func (v value) scalar(field any) (err error) {
	s := v.node.Value
	if err := checkScalar(s); err != nil {
		return err
	}
	want := ""
	switch p := field.(type) {
	case *string:
		*p = s
	case *path:
		if *p = path(s); s != "" && v.base != "" && !filepath.IsAbs(s) {
			*p = path(filepath.Join(v.base, s))
		}
	case *destination:
		if *p = destination(s); s != "" && s != Stderr && v.base != "" && !filepath.IsAbs(s) {
			*p = destination(filepath.Join(v.base, s))
		}
	case *bool:
		*p, want = s == "true" || s == "1", "true or false"
		if !*p && s != "false" && s != "0" {
			err = strconv.ErrSyntax
		}
	case *int:
		var n int64
		n, err = strconv.ParseInt(s, 10, 32)
		*p, want = int(n), "a whole number"
	case *float64:
		*p, err = strconv.ParseFloat(s, 64)
		want = "a number from 0 to 1"
		if err == nil && !(*p >= 0 && *p <= 1) {
			err = strconv.ErrRange
		}
	case *time.Duration:
		*p, err = time.ParseDuration(s)
		want = "a duration such as 500ms, 5s or 24h"
	case *size:
		*p, err = parseSize(s)
		want = "bytes such as 64MiB"
	case choice:
		*p.field, want = s, "one of "+strings.Join(p.of, ", ")
		if !slices.Contains(p.of, s) {
			err = strconv.ErrSyntax
		}
	default:
		return fmt.Errorf("field of type %T", field)
	}
	if err != nil {
		return fmt.Errorf("got %q, want %s", s, want)
	}
	return nil
}

// Stderr is the destination for standard error.
const Stderr = "stderr"

// checkScalar refuses text that looks right to a reader, but that a listener or the file system
// would use literally. Examples are white space around a value and invisible characters.
func checkScalar(s string) error {
	if strings.TrimSpace(s) != s {
		return fmt.Errorf("begins or ends with white space: %q", s)
	}
	for _, r := range s {
		if r != ' ' && !unicode.IsGraphic(r) || unicode.Is(unicode.Cf, r) {
			return fmt.Errorf("has an invisible character (%U): %q", r, s)
		}
	}
	return nil
}

// sizePattern rejects go-humanize forms that settings do not accept: fractions, other units,
// commas.
var sizePattern = regexp.MustCompile(`^(\+?\d+|\s*\+?\d+\s*([KMGT]iB|[kKMGT]B|B))$`)

func parseSize(s string) (size, error) {
	if !sizePattern.MatchString(s) {
		return 0, strconv.ErrSyntax
	}
	n, err := humanize.ParseBytes(strings.TrimPrefix(strings.TrimSpace(s), "+"))
	if err != nil || n > math.MaxInt64 {
		return 0, strconv.ErrRange
	}
	return size(n), nil
}

// items returns the elements of a list, or the parts of a comma-separated text.
func (v value) items() ([]string, error) {
	var items []string
	switch v.node.Kind {
	case yaml.ScalarNode:
		if v.node.Value == "" {
			return nil, nil
		}
		items = strings.Split(v.node.Value, ",")
	case yaml.SequenceNode:
		if v.node.Decode(&items) != nil {
			return nil, errors.New("want a list of plain values")
		}
	default:
		return nil, errors.New("want a list")
	}
	for i := range items {
		if items[i] = strings.TrimSpace(items[i]); items[i] == "" {
			return nil, errors.New("an element of the list is empty")
		}
	}
	return items, nil
}

func (v value) networks(p *[]netip.Prefix) error {
	items, err := v.items()
	if err != nil {
		return err
	}
	*p = nil
	for _, item := range items {
		n, err := parseNetwork(item)
		if err != nil {
			return err
		}
		*p = append(*p, n)
	}
	return nil
}

// parseNetwork returns a masked network, or the network of a single address. An IPv4-mapped IPv6
// network becomes an IPv4 network, because the address of a peer is compared as IPv4.
func parseNetwork(s string) (netip.Prefix, error) {
	n, err := netip.ParsePrefix(s)
	if a, errAddr := netip.ParseAddr(s); errAddr == nil {
		n, err = netip.PrefixFrom(a, a.BitLen()), nil
	}
	if err != nil {
		return n, fmt.Errorf("got %q, want a network such as 10.0.0.0/8 or an address", s)
	}
	if a := n.Addr(); a.Is4In6() && n.Bits() >= 96 {
		n = netip.PrefixFrom(a.Unmap(), n.Bits()-96)
	}
	return n.Masked(), nil
}

func (v value) mapping(p *map[string]any) error {
	*p = nil
	switch {
	case v.node.Kind == yaml.ScalarNode && v.node.Value == "":
		return nil
	case v.node.Kind == yaml.ScalarNode:
		if err := json.Unmarshal([]byte(v.node.Value), p); err != nil {
			return fmt.Errorf("want a JSON object: %w", err)
		}
		return nil
	case v.node.Kind == yaml.MappingNode:
		if err := v.node.Decode(p); err != nil {
			return errors.New(yamlText(err))
		}
		return nil
	}
	return errors.New("want a map")
}

// yamlText returns the text of an error of the YAML library on one line, without its prefix.
func yamlText(err error) string {
	var typeError *yaml.TypeError
	text := err.Error()
	if errors.As(err, &typeError) {
		text = strings.Join(typeError.Errors, "; ")
	}
	return strings.Join(strings.Fields(strings.TrimPrefix(text, "yaml: ")), " ")
}
