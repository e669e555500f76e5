// Package cli holds the conventions of all commands: exit codes, the form of tables and JSON, and
// the quoting of text for terminals and shells.
//
// It depends on no command, and the only flag that it reads is -o.
package cli

import "fmt"

// The exit codes.
const (
	ExitOK       = 0
	ExitFailed   = 1
	ExitNegative = 2  // the answer is no: unhealthy, inactive
	ExitUsage    = 64 // EX_USAGE of sysexits.h
)

// An ExitError makes the program exit with Code. If Err is nil, the program prints no message.
type ExitError struct {
	Code int
	Err  error
}

func (e *ExitError) Error() string {
	if e.Err == nil {
		return fmt.Sprintf("exit %d", e.Code)
	}
	return e.Err.Error()
}

func (e *ExitError) Unwrap() error { return e.Err }

// UsageError returns an error that makes the program exit with ExitUsage.
func UsageError(format string, args ...any) error {
	return &ExitError{Code: ExitUsage, Err: fmt.Errorf(format, args...)}
}

// Negative returns an error that makes the program exit with ExitNegative and print no message.
func Negative() error { return &ExitError{Code: ExitNegative} }
