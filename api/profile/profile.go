// Package profile serves the profiles of the Go runtime to administrators. They show why a node is
// slow or why its memory grows.
//
// At most one profile over a period runs at a time. Such a profile takes at most a minute and ends
// with its request. A profile has names of functions, counts and addresses, but no content of the
// memory: no token, secret or key. The command line is not served.
package profile

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"runtime/pprof"
	"runtime/trace"
	"strconv"
	"strings"
	"sync"
	"time"

	"revoked"
	"revoked/api/request"
	"revoked/api/stream"
)

// Lengths of a profile over a period, in seconds.
const (
	defaultSeconds = 30
	maxSeconds     = 60
)

// typeProfile is the content type of a profile that `go tool pprof` or `go tool trace` reads.
const typeProfile = "application/octet-stream"

// running is locked while a profile over a period runs. The runtime can record only one profile of
// each kind at a time, and two profiles of different kinds would measure each other.
var running sync.Mutex

// Get serves GET /debug/pprof/{id}. id is "profile" (of the CPU) or "trace", with ?seconds=, or the
// name of a profile of [pprof.Lookup], such as goroutine or heap, with ?debug=.
func Get(r *request.Request) error {
	switch name := r.Param("id"); name {
	case "profile":
		return overTime(r, func(b *bytes.Buffer) error { return pprof.StartCPUProfile(b) }, pprof.StopCPUProfile)
	case "trace":
		return overTime(r, func(b *bytes.Buffer) error { return trace.Start(b) }, trace.Stop)
	default:
		return snapshot(r, pprof.Lookup(name))
	}
}

// snapshot sends a profile of the current moment. p is nil for an unknown name.
func snapshot(r *request.Request, p *pprof.Profile) error {
	if p == nil {
		return fmt.Errorf("%w: want profile, trace, goroutine, heap, allocs, block, mutex or threadcreate",
			revoked.ErrNotFound)
	}
	debug, contentType := 0, typeProfile
	switch text := r.QueryParam("debug"); text {
	case "", "0":
	case "1", "2":
		debug, contentType = int(text[0]-'0'), request.TypeText
	default:
		return fmt.Errorf("%w: query parameter debug: want 0, 1 or 2", revoked.ErrInvalid)
	}
	var b bytes.Buffer
	if err := p.WriteTo(&b, debug); err != nil {
		return err
	}
	if name := p.Name(); debug == 2 && strings.HasPrefix(name, "goroutine") {
		return r.Send(http.StatusOK, contentType, withoutArguments(b.Bytes()))
	}
	return r.Send(http.StatusOK, contentType, b.Bytes())
}

// withoutArguments returns stacks in the format of a crash, without the arguments of the calls. The
// arguments are content of the memory, such as a part of a digest.
func withoutArguments(stacks []byte) []byte {
	out := make([]byte, 0, len(stacks))
	for line := range bytes.Lines(stacks) {
		end := bytes.LastIndexByte(line, '(')
		isCall := line[0] != '\t' && !bytes.HasPrefix(line, []byte("goroutine ")) &&
			!bytes.HasPrefix(line, []byte("created by "))
		if isCall && end > 0 {
			line = append(bytes.Clone(line[:end]), "(...)\n"...)
		}
		out = append(out, line...)
	}
	return out
}

// overTime sends what the runtime records between the calls to start and stop.
func overTime(r *request.Request, start func(*bytes.Buffer) error, stop func()) error {
	seconds := defaultSeconds
	if text := r.QueryParam("seconds"); text != "" {
		var err error
		if seconds, err = strconv.Atoi(text); err != nil || seconds < 1 || seconds > maxSeconds {
			return fmt.Errorf("%w: query parameter seconds: want 1 to %d", revoked.ErrInvalid, maxSeconds)
		}
	}
	if r.Request().Method == http.MethodHead {
		return r.Send(http.StatusOK, typeProfile, nil)
	}
	if !running.TryLock() {
		return fmt.Errorf("%w: another profile is running", revoked.ErrConflict)
	}
	defer running.Unlock()
	length := time.Duration(seconds) * time.Second
	// The handler writes only at the end, and the connection would count as idle until then.
	err := stream.New(r.Response(), r.Request(), stream.Idle).ExtendWrite(length + stream.Idle)
	if err != nil && !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	var b bytes.Buffer
	if err := start(&b); err != nil {
		return fmt.Errorf("%w: %w", revoked.ErrConflict, err)
	}
	ctx, cancel := context.WithTimeout(r.Request().Context(), length)
	<-ctx.Done()
	cancel()
	stop()
	return r.Send(http.StatusOK, typeProfile, b.Bytes())
}
