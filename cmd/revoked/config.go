package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/pflag"
)

// configFlags holds what a command line says about the settings until they are loaded.
type configFlags struct {
	file  string
	texts map[string]*flagText // by key
}

// A flagText is a flag that keeps what was written; the table's value reads it later.
type flagText struct {
	text   string
	isBool bool
	isList bool
	given  bool
}

var _ pflag.Value = (*flagText)(nil)

func (f *flagText) String() string { return f.text }

func (f *flagText) Set(s string) error {
	if f.isList && f.given {
		s = f.text + "," + s
	}
	f.text, f.given = s, true
	return nil
}

func (f *flagText) Type() string {
	switch {
	case f.isBool:
		return "bool"
	case f.isList:
		return "list"
	default:
		return "value"
	}
}

// addFlags gives fs a flag for the file and one for every setting.
func (c *configFlags) addFlags(fs *pflag.FlagSet) {
	fs.StringVar(&c.file, "config", "", "file with the settings, YAML (REVOKED_CONFIG)")
	c.texts = map[string]*flagText{}
	for _, s := range settingsTable() {
		v := s.into(&settings{})
		f := &flagText{isBool: v.isBool, isList: v.isList}
		help := s.help
		if s.def != "" && s.def != "false" && s.def != "0" {
			help += " (default " + s.def + ")"
		}
		flag := fs.VarPF(f, s.flag(), "", help)
		if v.isBool {
			flag.NoOptDefVal = "true"
		}
		c.texts[s.key] = f
	}
}

// A problem is one thing that is wrong with the settings, and where it was written.
type problem struct {
	where string
	text  string
}

func (p problem) String() string {
	if p.where == "" {
		return p.text
	}
	return p.where + ": " + p.text
}

// A configError is everything that is wrong with the settings.
type configError struct{ problems []problem }

func (e *configError) Error() string {
	if len(e.problems) == 1 {
		return e.problems[0].String()
	}
	lines := make([]string, 0, len(e.problems)+1)
	lines = append(lines, fmt.Sprintf("%d things are wrong with the configuration:", len(e.problems)))
	for _, p := range e.problems {
		lines = append(lines, "  - "+p.String())
	}
	return strings.Join(lines, "\n")
}

// A config is the settings of a node and where each came from.
type config struct {
	settings
	file   string            // absolute; empty: none
	origin map[string]string // by key: "--node-id", "REVOKED_NODE_ID", "/etc/revoked.yml:3", "default"
}

// where returns how to name the setting with that key in a message: its origin where somebody wrote
// it, else its key.
func (c *config) where(key string) string {
	if o := c.origin[key]; o != "" && o != "default" {
		if strings.HasPrefix(o, "--") || strings.HasPrefix(o, "REVOKED_") {
			return o
		}
		return o + ": " + key
	}
	return key
}

// load reads the settings: a flag goes before a variable, a variable before the file, the file before
// the default. The error is a *configError with everything that could not be read, and then the config
// is returned beside it, so that more can be checked; or another error when there is no file to read
// from. getenv is os.LookupEnv.
func (c *configFlags) load(getenv func(string) (string, bool)) (*config, error) {
	cfg := &config{origin: map[string]string{}}
	var problems []problem
	fromFile := map[string]fileSetting{}
	file := c.file
	if file == "" {
		file, _ = getenv("REVOKED_CONFIG")
	}
	if file != "" {
		abs, err := filepath.Abs(file)
		if err != nil {
			return cfg, err
		}
		cfg.file = abs
		var bad []problem
		fromFile, bad = readConfigFile(file)
		if fromFile == nil && len(bad) > 0 {
			// Without a file nothing that depends on it is worth saying.
			return cfg, errors.New(bad[0].String())
		}
		problems = append(problems, bad...)
	}
	for _, s := range settingsTable() {
		r, origin := c.choose(s, fromFile, getenv, filepath.Dir(cfg.file))
		cfg.origin[s.key] = origin
		if err := s.into(&cfg.settings).set(r); err != nil {
			problems = append(problems, problem{cfg.where(s.key), err.Error()})
		}
	}
	if len(problems) > 0 {
		return cfg, &configError{problems}
	}
	return cfg, nil
}

// choose returns what was written for s in the place that counts, and the name of that place.
func (c *configFlags) choose(s setting, file map[string]fileSetting, getenv func(string) (string, bool), base string) (raw, string) {
	if f := c.texts[s.key]; f != nil && f.given {
		return raw{text: f.text}, "--" + s.flag()
	}
	// An empty variable counts as absent: compose files and unit files write them so.
	if v, ok := getenv(s.env()); ok && v != "" {
		return raw{text: v}, s.env()
	}
	if f, ok := file[s.key]; ok {
		f.raw.base = base
		return f.raw, f.where
	}
	return raw{text: s.def}, "default"
}

// isNotExist tells a file that is not there from one that cannot be read.
func isNotExist(err error) bool { return errors.Is(err, os.ErrNotExist) }
