package node

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"revoked"
)

func TestNode_FailedStart_ReportsFatalCause(t *testing.T) {
	n := &Node{life: newLife(context.Background(), quiet(), nil), cfg: Config{Log: quiet(), DataDir: "/data"}}
	if err := n.life.cause(revoked.ErrClosed); !errors.Is(err, revoked.ErrClosed) {
		t.Errorf("got %v, want %v", err, revoked.ErrClosed)
	}
	n.stateConfig(nil).Fatal(fmt.Errorf("%w: store: a block", revoked.ErrDamaged))
	if err := n.life.cause(revoked.ErrClosed); err == nil || !strings.Contains(err.Error(), "/data/state (") {
		t.Errorf("got %v, want the damaged state", err)
	}
}
