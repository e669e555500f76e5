//go:build mutant

package mutant

import (
	"fmt"
	"os"
	"slices"
)

// chosen never changes: a process is one mutant, or none.
var chosen = choose(Name(os.Getenv("REVOKED_MUTANT")))

func choose(m Name) Name {
	if m != "" && !slices.Contains(All(), m) {
		panic(fmt.Sprintf("REVOKED_MUTANT: no mutant is named %q; there are %q", m, All()))
	}
	return m
}

// On reports whether the program is to break the rule that m names.
func On(m Name) bool { return m == chosen }
