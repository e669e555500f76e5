package debug

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/labstack/echo/v4"

	"revoked/api/request"
)

func newRequest(ctx context.Context, w http.ResponseWriter) *request.Request {
	r := httptest.NewRequestWithContext(ctx, "GET", "/v1/debug/goroutines", nil)
	return &request.Request{Context: echo.New().NewContext(r, w)}
}

// A slowReader does not accept an answer until may is closed.
type slowReader struct {
	*httptest.ResponseRecorder
	begun, may chan struct{}
}

func (s *slowReader) Write(p []byte) (int, error) {
	close(s.begun)
	<-s.may
	return s.ResponseRecorder.Write(p)
}

// A caller that reads slowly does not block the profiles of other callers.
func TestPages_SlowReader_OthersAreAnswered(t *testing.T) {
	p := New(Config{})
	slow := &slowReader{httptest.NewRecorder(), make(chan struct{}), make(chan struct{})}
	done := make(chan error)
	go func() { done <- p.GetGoroutines(newRequest(t.Context(), slow)) }()
	<-slow.begun
	other := httptest.NewRecorder()
	if err := p.GetGoroutines(newRequest(t.Context(), other)); err != nil || other.Body.Len() == 0 {
		t.Errorf("during the profile: got %v and %d bytes, want stacks", err, other.Body.Len())
	}
	close(slow.may)
	if err := <-done; err != nil || slow.Body.Len() == 0 {
		t.Errorf("the slow one: got %v and %d bytes, want stacks", err, slow.Body.Len())
	}
}

// A caller that disconnects stops waiting for its turn.
func TestPages_CallerGone_ReturnsError(t *testing.T) {
	p := New(Config{})
	p.profiling <- struct{}{}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := p.GetGoroutines(newRequest(ctx, httptest.NewRecorder())); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want %v", err, context.Canceled)
	}
}
