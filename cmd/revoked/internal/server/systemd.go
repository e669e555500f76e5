package server

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strconv"
	"time"
)

// Messages to systemd, see sd_notify(3).
const (
	stateReady    = "READY=1"
	stateStopping = "STOPPING=1"
	stateAlive    = "WATCHDOG=1"
)

// A supervisor reports the state of this process to systemd (Type=notify). Outside systemd it does
// nothing.
type supervisor struct {
	conn     net.Conn      // nil: outside systemd
	watchdog time.Duration // the longest time between two messages; 0: systemd expects none
	log      *slog.Logger
}

// findSupervisor reads NOTIFY_SOCKET, WATCHDOG_USEC and WATCHDOG_PID. If the socket cannot be used,
// it logs that and returns a supervisor that does nothing.
func findSupervisor(log *slog.Logger) *supervisor {
	s := &supervisor{log: log}
	name := os.Getenv("NOTIFY_SOCKET")
	if name == "" {
		return s
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		log.Warn("cannot connect to the notify socket of systemd", "error", err)
		return s
	}
	s.conn = conn
	if pid := os.Getenv("WATCHDOG_PID"); pid == "" || pid == strconv.Itoa(os.Getpid()) {
		usec, _ := strconv.ParseInt(os.Getenv("WATCHDOG_USEC"), 10, 64)
		s.watchdog = time.Duration(max(usec, 0)) * time.Microsecond
	}
	return s
}

// report sends a state to systemd.
func (s *supervisor) report(state string) {
	if s.conn == nil {
		return
	}
	if _, err := s.conn.Write([]byte(state)); err != nil {
		s.log.Warn("cannot notify systemd", "error", fmt.Errorf("%s: %w", state, err))
	}
}

// run notifies the watchdog twice in each of its periods, until ctx ends. It shows that the system
// still runs this process, not that the node is ready. A node that lacks a quorum, or reads a large
// snapshot, must not be restarted.
func (s *supervisor) run(ctx context.Context) {
	if s.conn == nil || s.watchdog == 0 {
		return
	}
	t := time.NewTicker(max(s.watchdog/2, time.Millisecond))
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			s.report(stateAlive)
		}
	}
}
