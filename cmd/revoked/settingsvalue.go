package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// A raw is a setting as it was written: exactly one of text, items and tree counts, by shape.
type raw struct {
	shape shape
	text  string
	items []string
	tree  map[string]any
	base  string // directory that relative paths start from; empty: the working directory
}

// A shape is how a raw setting was written.
type shape uint8

const (
	shapeText shape = iota
	shapeList
	shapeMap
)

// A value takes what was written into a field, or says what is wrong with it. An empty text leaves
// the zero value.
type value struct {
	set    func(raw) error
	isBool bool // the flag alone means true
	isList bool // the flag may be repeated
}

// scalar makes a value of a parser of one text.
func scalar(parse func(s string) error) value {
	return value{set: func(r raw) error {
		if r.shape != shapeText {
			return errors.New("want a single value")
		}
		return parse(r.text)
	}}
}

func text(p *string) value {
	return scalar(func(s string) error { *p = s; return nil })
}

// path is a text that, where it is relative, starts from the directory of the file it stands in.
func path(p *string) value {
	return value{set: func(r raw) error {
		if r.shape != shapeText {
			return errors.New("want a single value")
		}
		*p = r.text
		if r.text != "" && r.base != "" && !filepath.IsAbs(r.text) {
			*p = filepath.Join(r.base, r.text)
		}
		return nil
	}}
}

func choice(p *string, of ...string) value {
	return scalar(func(s string) error {
		if !slices.Contains(of, s) {
			return fmt.Errorf("want one of %s, not %q", strings.Join(of, ", "), s)
		}
		*p = s
		return nil
	})
}

func boolean(p *bool) value {
	v := scalar(func(s string) error {
		switch s {
		case "true", "1":
			*p = true
		case "false", "0":
			*p = false
		default:
			return fmt.Errorf("want true or false, not %q", s)
		}
		return nil
	})
	v.isBool = true
	return v
}

func integer(p *int) value {
	return scalar(func(s string) error {
		n, err := strconv.ParseInt(s, 10, 32)
		if err != nil {
			return fmt.Errorf("want a whole number, not %q", s)
		}
		*p = int(n)
		return nil
	})
}

func duration(p *time.Duration) value {
	return scalar(func(s string) error {
		d, err := time.ParseDuration(s)
		if err != nil {
			return fmt.Errorf("want a duration such as 500ms, 5s or 24h, not %q", s)
		}
		*p = d
		return nil
	})
}

// size takes bytes: a number, or one with KiB, MiB, GiB (1024) or kB, MB, GB (1000).
func size(p *int64) value {
	return scalar(func(s string) error {
		n, ok := parseSize(s)
		if !ok {
			return fmt.Errorf("want bytes such as 64MiB, not %q", s)
		}
		*p = n
		return nil
	})
}

func parseSize(s string) (int64, bool) {
	units := []struct {
		suffix string
		factor int64
	}{
		{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40},
		{"kB", 1e3}, {"KB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"TB", 1e12}, {"B", 1},
	}
	factor := int64(1)
	for _, u := range units {
		if rest, ok := strings.CutSuffix(s, u.suffix); ok {
			s, factor = strings.TrimSpace(rest), u.factor
			break
		}
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 || n > math.MaxInt64/factor {
		return 0, false
	}
	return n * factor, true
}

// list takes a list of the file, or a text with commas.
func list(p *[]string) value {
	return value{isList: true, set: func(r raw) error {
		items, err := r.list()
		*p = items
		return err
	}}
}

// networks takes a list of CIDR prefixes or single addresses.
func networks(p *[]netip.Prefix) value {
	return value{isList: true, set: func(r raw) error {
		items, err := r.list()
		if err != nil {
			return err
		}
		nets := make([]netip.Prefix, 0, len(items))
		for _, item := range items {
			n, err := parseNetwork(item)
			if err != nil {
				return err
			}
			nets = append(nets, n)
		}
		*p = nets
		return nil
	}}
}

func parseNetwork(s string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(s); err == nil {
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	n, err := netip.ParsePrefix(s)
	if err != nil {
		return n, fmt.Errorf("want a network such as 10.0.0.0/8 or an address, not %q", s)
	}
	return n.Masked(), nil
}

func (r raw) list() ([]string, error) {
	items := r.items
	switch r.shape {
	case shapeMap:
		return nil, errors.New("want a list")
	case shapeText:
		if r.text == "" {
			return nil, nil
		}
		items = strings.Split(r.text, ",")
	}
	out := make([]string, 0, len(items))
	for _, item := range items {
		item = strings.TrimSpace(item)
		if item == "" {
			return nil, errors.New("an entry of the list is empty")
		}
		out = append(out, item)
	}
	return out, nil
}

// mapping takes a map of the file, or a JSON object.
func mapping(p *map[string]any) value {
	return value{set: func(r raw) error {
		switch r.shape {
		case shapeMap:
			*p = r.tree
			return nil
		case shapeText:
			if r.text == "" {
				return nil
			}
			var m map[string]any
			if err := json.Unmarshal([]byte(r.text), &m); err != nil {
				return fmt.Errorf("want a JSON object: %w", err)
			}
			*p = m
			return nil
		default:
			return errors.New("want a map")
		}
	}}
}
