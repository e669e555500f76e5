//go:build !mutant

package mutant

// On reports whether the program is to break the rule that m names. It never is.
func On(Name) bool { return false }
