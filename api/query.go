package api

import (
	"errors"
	"fmt"
	"net/url"

	"revoked"
)

// queryNames are the parameters of /v1. Others are ignored, however often they come.
var queryNames = []string{"after", "follow", "reason", "results"}

// checkQuery refuses a query that cannot be read, or says a parameter twice: net/url drops what it does
// not understand, and takes the first of several. The error wraps [revoked.ErrInvalid].
func checkQuery(raw string) error {
	if raw == "" {
		return nil
	}
	values, err := url.ParseQuery(raw)
	var escape url.EscapeError
	switch {
	case errors.As(err, &escape):
		return fmt.Errorf("%w: bad escape in the query", revoked.ErrInvalid)
	case err != nil:
		return fmt.Errorf("%w: semicolon in the query", revoked.ErrInvalid)
	}
	for _, name := range queryNames {
		if len(values[name]) > 1 {
			return fmt.Errorf("%w: %s is repeated in the query", revoked.ErrInvalid, name)
		}
	}
	return nil
}
