package api

import (
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"revoked"
)

const maxAddresses = 64

func (a *API) getMembers(c echo.Context) error {
	ctx, cancel := a.within(c)
	defer cancel()
	members, err := a.cfg.Backend.Members(ctx)
	if err != nil {
		return a.problem(c, err)
	}
	if members == nil {
		members = []revoked.Member{}
	}
	return a.reply(c, http.StatusOK, map[string][]revoked.Member{"members": members})
}

func (a *API) getStatus(c echo.Context) error {
	ctx, cancel := a.within(c)
	defer cancel()
	return a.reply(c, http.StatusOK, a.cfg.Backend.NodeStatus(ctx))
}

// postJoin is POST /v1/cluster/join: the node that is asked joins the cluster found at the addresses.
func (a *API) postJoin(c echo.Context) error {
	var addresses []string
	err := decodeBody(c, false, []string{typeJSON}, []string{"addresses"}, func(r *jsonReader, _ int) (err error) {
		addresses, err = r.list(maxAddresses, maxID)
		for _, addr := range addresses {
			if err == nil && !hostPort(addr) {
				err = r.fail("want host:port, the cluster address of a node")
			}
		}
		return err
	})
	if err == nil && len(addresses) == 0 {
		err = fmt.Errorf("%w: addresses is missing or empty", revoked.ErrInvalid)
	}
	if err != nil {
		return a.refuse(c, err)
	}
	ctx, cancel := a.slowly(c)
	defer cancel()
	index, err := a.cfg.Backend.Join(ctx, addresses)
	return a.indexOr(c, index, err)
}

func hostPort(addr string) bool {
	host, port, err := net.SplitHostPort(addr)
	if err != nil || host == "" {
		return false
	}
	n, err := strconv.ParseUint(port, 10, 16)
	return err == nil && n > 0
}

// postLeave is POST /v1/cluster/leave: the node that is asked leaves for good.
func (a *API) postLeave(c echo.Context) error {
	if err := decodeBody(c, true, []string{typeJSON}, nil, nil); err != nil {
		return a.refuse(c, err)
	}
	ctx, cancel := a.slowly(c)
	defer cancel()
	index, err := a.cfg.Backend.Leave(ctx)
	return a.indexOr(c, index, err)
}

// postRemove is POST /v1/cluster/remove.
func (a *API) postRemove(c echo.Context) error {
	var node, reason string
	var force bool
	err := decodeBody(c, false, []string{typeJSON}, []string{"node", "force", "reason"}, func(r *jsonReader, k int) (err error) {
		if r.null() {
			return nil
		}
		switch k {
		case 0:
			node, err = r.words(maxID)
		case 1:
			force, err = r.boolean()
		case 2:
			reason, err = r.reason()
		}
		return err
	})
	switch {
	case err != nil:
		return a.refuse(c, err)
	case node == "":
		return a.problem(c, fmt.Errorf("%w: node is missing", revoked.ErrInvalid))
	case force && strings.TrimSpace(reason) == "":
		return a.problem(c, fmt.Errorf("%w: force needs a reason", revoked.ErrUnprocessable))
	}
	ctx, cancel := a.slowly(c)
	defer cancel()
	index, err := a.cfg.Backend.Remove(ctx, node, force, reason)
	return a.indexOr(c, index, err)
}

// postTransferLeader is POST /v1/cluster/transfer-leader. Without a node the leader chooses.
func (a *API) postTransferLeader(c echo.Context) error {
	var node string
	err := decodeBody(c, true, []string{typeJSON}, []string{"node"}, func(r *jsonReader, _ int) (err error) {
		if !r.null() {
			node, err = r.words(maxID)
		}
		return err
	})
	if err != nil {
		return a.refuse(c, err)
	}
	ctx, cancel := a.slowly(c)
	defer cancel()
	index, err := a.cfg.Backend.TransferLeader(ctx, node)
	return a.indexOr(c, index, err)
}

func (a *API) indexOr(c echo.Context, index uint64, err error) error {
	if err != nil {
		return a.problem(c, err)
	}
	return a.reply(c, http.StatusOK, indexAnswer{Index: index})
}

// A snapshotWriter begins the answer with the first byte of the snapshot: until then an error can still
// be told.
type snapshotWriter struct {
	s     *stream
	begun bool
}

func (w *snapshotWriter) Write(p []byte) (int, error) {
	if !w.begun {
		w.begin()
	}
	return w.s.Write(p)
}

func (w *snapshotWriter) begin() {
	w.begun = true
	h := w.s.c.Response().Header()
	h.Set(echo.HeaderContentType, echo.MIMEOctetStream)
	h.Set(echo.HeaderContentDisposition, `attachment; filename="revoked.snapshot"`)
	w.s.c.Response().WriteHeader(http.StatusOK)
}

// getSnapshot is GET /v1/snapshot. An answer that could not be finished is broken off, so that nobody
// takes it for a backup.
func (a *API) getSnapshot(c echo.Context) error {
	w := &snapshotWriter{s: newStream(c)}
	if c.Request().Method == http.MethodHead {
		w.begin()
		return nil
	}
	// Making the snapshot takes its time before the first byte.
	_ = w.s.rc.SetWriteDeadline(time.Now().Add(slowTimeout))
	err := a.cfg.Backend.Snapshot(c.Request().Context(), w)
	switch {
	case err == nil && !w.begun:
		return a.problem(c, fmt.Errorf("%w: the snapshot is empty", revoked.ErrOutcomeUnknown))
	case err == nil:
		return nil
	case !w.begun:
		return a.problem(c, err)
	}
	a.note(c, "aborted")
	a.cfg.Log.Warn("snapshot broken off", "error", err)
	panic(http.ErrAbortHandler)
}
