package nodepb

import (
	"fmt"

	"revoked"
)

// DecodeError rebuilds the error that revoked.Code and revoked.Detail encoded, so that errors.Is
// finds its sentinel. Code 0 is nil.
func DecodeError(code uint32, detail string) error {
	err := revoked.FromCode(code)
	if err == nil || detail == "" {
		return err
	}
	return fmt.Errorf("%w: %s", err, detail)
}
