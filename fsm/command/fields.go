package command

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"revoked"
)

// Limits of an operation, in bytes or as a count. They limit the size of rows and log entries. A
// limit may change only together with Version: see the package comment.
const (
	maxID      = 512
	maxReason  = 1024
	maxScope   = 8192
	maxValues  = 64 // limit for audience, audiences, issuers
	maxJTI     = 512
	maxCNF     = 4096
	maxTokens  = 64
	maxSecrets = 8
	maxHash    = 128

	maxClientKeys = 16
	maxMembers    = 256 // maximum number of servers in a configuration; four times what the leader allows
)

// MaxTime is the latest time that a command may contain: the last second of the year 9999.
const MaxTime = revoked.Time(253402300799 * 1e6)

// CheckReason returns an error that wraps ErrInvalid for a reason that is too long or not plain
// UTF-8.
func CheckReason(s string) error { return checkTexts(maxReason, "reason", s) }

// checkID checks that an id has 1 to maxID bytes, so that a key that contains it stays short.
func checkID(name, s string) error {
	if s == "" {
		return invalid(name, "empty")
	}
	return checkTexts(maxID, name, s)
}

// checkList checks a list of at most maxValues ids. An empty list is valid.
func checkList(name string, l []string) error {
	if n := len(l); n > maxValues {
		return invalid(name, "got %d values, want at most %d", n, maxValues)
	}
	for _, s := range l {
		if err := checkID(name, s); err != nil {
			return err
		}
	}
	return nil
}

// checkTexts checks pairs of a name and a value. A value may be empty, and has at most limit bytes.
func checkTexts(limit int, pairs ...string) error {
	for i := 0; i < len(pairs); i += 2 {
		switch name, s := pairs[i], pairs[i+1]; {
		case len(s) > limit:
			return invalid(name, "got %d bytes, want at most %d", len(s), limit)
		case !utf8.ValidString(s) || strings.IndexByte(s, 0) >= 0:
			return invalid(name, "not UTF-8, or has a zero byte")
		}
	}
	return nil
}

// checkTime checks microseconds since the Unix epoch, 0 for none. Times within MaxTime can be added
// to a duration without an overflow.
func checkTime(name string, t int64) error {
	if t < 0 || revoked.Time(t) > MaxTime {
		return invalid(name, "not a time between 1970 and 9999")
	}
	return nil
}

// invalid returns an ErrInvalid about one field. problem is a format for args.
func invalid(field, problem string, args ...any) error {
	return fmt.Errorf("%w: %s: "+problem, append([]any{revoked.ErrInvalid, field}, args...)...)
}
