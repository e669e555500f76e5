package api

import (
	"context"
	"errors"
	"testing"
	"time"
)

func TestADeadline(t *testing.T) {
	type key struct{}
	parent, cancel := context.WithCancelCause(context.WithValue(t.Context(), key{}, "there"))
	defer cancel(nil)
	t.Run("ends by itself", func(t *testing.T) {
		d := &deadline{Context: parent, after: time.Millisecond}
		defer d.stop()
		<-d.Done()
		if err := d.Err(); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want that the time is over", err)
		}
	})
	t.Run("ends what was made of it", func(t *testing.T) {
		d := &deadline{Context: parent, after: time.Millisecond}
		defer d.stop()
		child, stop := context.WithTimeout(d, time.Hour)
		defer stop()
		<-child.Done()
		if err := child.Err(); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want that the time of its parent is over", err)
		}
	})
	t.Run("begins no timer unless somebody waits", func(t *testing.T) {
		d := &deadline{Context: parent, after: time.Hour}
		d.stop()
		if d.timed != nil {
			t.Error("got a context with a timer, want none")
		}
	})
	t.Run("ends when it is stopped", func(t *testing.T) {
		d := &deadline{Context: parent, after: time.Hour}
		done := d.Done()
		d.stop()
		<-done
		if err := d.Err(); !errors.Is(err, context.Canceled) {
			t.Errorf("got %v, want that it was stopped", err)
		}
	})
	t.Run("ends with the request, keeps its values", func(t *testing.T) {
		d := &deadline{Context: parent, after: time.Hour}
		defer d.stop()
		if got := d.Value(key{}); got != "there" {
			t.Errorf("value: got %v, want the request's", got)
		}
		if at, ok := d.Deadline(); !ok || time.Until(at) > time.Hour {
			t.Errorf("deadline: got %v, %v, want one within the hour", at, ok)
		}
		gone := errors.New("the client went away")
		cancel(gone)
		<-d.Done()
		if got := context.Cause(d); !errors.Is(got, gone) {
			t.Errorf("cause: got %v, want the request's", got)
		}
	})
}
