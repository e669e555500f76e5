package config

import (
	"net/netip"
	"path/filepath"

	"github.com/spf13/pflag"
)

// Flags are the command-line flags of the settings.
type Flags struct {
	File   string // --config
	values map[string]*flagValue
}

// A flagValue keeps the text of a flag, which Read parses.
type flagValue struct {
	kind string // "bool", "list" or "value"
	text string
	set  bool
}

var _ pflag.Value = (*flagValue)(nil)

func (f *flagValue) String() string { return f.text }
func (f *flagValue) Type() string   { return f.kind }

// Set sets the text. A repeated list flag appends its elements.
func (f *flagValue) Set(s string) error {
	if f.kind == "list" && f.set {
		s = f.text + "," + s
	}
	f.text, f.set = s, true
	return nil
}

// AddTo adds a flag for the file and one for each setting to fs.
func (f *Flags) AddTo(fs *pflag.FlagSet) {
	fs.StringVar(&f.File, "config", "", "file with the settings, YAML (REVOKED_CONFIG)")
	f.values = map[string]*flagValue{}
	for _, s := range Table() {
		v := &flagValue{kind: "value"}
		help := s.help
		if s.Default != "" && s.Default != "false" && s.Default != "0" {
			help += " (default " + s.Default + ")"
		}
		flag := fs.VarPF(v, s.Flag(), "", help)
		switch s.field.(type) {
		case *bool:
			v.kind, flag.NoOptDefVal = "bool", "true"
		case *[]string, *[]netip.Prefix, *map[netip.Prefix][]string:
			v.kind = "list"
		}
		f.values[s.Key] = v
	}
}

// Read reads the settings and checks each value separately. getenv is os.LookupEnv. The error is an
// [*Error] with every value that cannot be parsed, or another error if the file cannot be read.
// Read returns the config even with an error, so that more can be checked.
func (f *Flags) Read(getenv func(string) (string, bool)) (*Config, error) {
	c := &Config{origin: map[string]string{}}
	name := f.File
	if name == "" {
		name, _ = getenv("REVOKED_CONFIG")
	}
	var file map[string]value
	if name != "" {
		var err error
		if c.File, err = filepath.Abs(name); err != nil {
			return c, err
		}
		if file, c.problems, err = readFile(name, filepath.Dir(c.File)); err != nil {
			return c, err
		}
	}
	for _, s := range c.table() {
		v := f.choose(s, file, getenv)
		c.origin[s.Key] = v.where
		c.add(s.Key, v.parse(s.field))
	}
	return c, c.err()
}

// choose returns the value of s with the highest precedence.
func (f *Flags) choose(s Setting, file map[string]value, getenv func(string) (string, bool)) value {
	if v := f.values[s.Key]; v != nil && v.set {
		return scalarValue(v.text, "--"+s.Flag())
	}
	// An empty variable is treated as absent: compose and unit files often set empty ones.
	if v, ok := getenv(Variable(s.Key)); ok && v != "" {
		return scalarValue(v, Variable(s.Key))
	}
	if v, ok := file[s.Key]; ok {
		return v
	}
	return scalarValue(s.Default, "default")
}
