package node

import (
	"log/slog"
	"time"
)

// longStop bounds every wait of a test.
const longStop = 30 * time.Second

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }
