package otlp

import (
	"errors"
	"time"
)

// ErrUnauthenticated answers 401 or UNAUTHENTICATED: the sender proved nothing.
// It is also the class of an Identify error of no other class.
var ErrUnauthenticated = errors.New("the sender is not authenticated")

// ErrForbidden answers 403 or PERMISSION_DENIED: the sender is known, and may
// not send.
var ErrForbidden = errors.New("the sender may not send telemetry")

// Retry marks err as one that will pass: the sender is asked to send the same
// batch again after the given time (503 with Retry-After, or UNAVAILABLE with
// RetryInfo). Any error with a method RetryAfter() time.Duration means the
// same; a store need not import this package for it.
func Retry(err error, after time.Duration) error { return &retryError{err, after} }

// Permanent marks err as the batch's own fault: it is answered with 400 or
// INVALID_ARGUMENT, and sending it again would not help. Any error with a
// method Permanent() bool that returns true means the same.
func Permanent(err error) error { return &permanentError{err} }

type retryError struct {
	error
	after time.Duration
}

func (e *retryError) Unwrap() error             { return e.error }
func (e *retryError) RetryAfter() time.Duration { return e.after }

type permanentError struct{ error }

func (e *permanentError) Unwrap() error { return e.error }
func (*permanentError) Permanent() bool { return true }

// retryAfter returns how long to wait before a retry, at least a second, or 0
// where err is not retryable.
func retryAfter(err error) time.Duration {
	if r, ok := errors.AsType[interface {
		error
		RetryAfter() time.Duration
	}](err); ok {
		return max(r.RetryAfter(), time.Second)
	}
	return 0
}

func isPermanent(err error) bool {
	p, ok := errors.AsType[interface {
		error
		Permanent() bool
	}](err)
	return ok && p.Permanent()
}
