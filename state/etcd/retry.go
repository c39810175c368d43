package etcd

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/binnacle-project/binnacle/state"
)

// retry calls try with a short deadline until it gives an answer, the caller's
// context ends, or giveUpAfter has passed.
func (e *engine) retry(ctx context.Context, try func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, giveUpAfter)
	defer cancel()
	for wait := 5 * time.Millisecond; ; wait = min(2*wait, 250*time.Millisecond) {
		one, cancelOne := context.WithTimeout(ctx, tryFor)
		err := try(one)
		cancelOne()
		switch {
		case err == nil:
			return nil
		case errors.Is(err, rpctypes.ErrStopped):
			return fmt.Errorf("%w: %w", state.ErrClosed, err)
		case !retryable(err):
			return err
		}
		if ctx.Err() != nil {
			return fmt.Errorf("%w: %w", state.ErrUnavailable, ctx.Err())
		}
		e.retries.Inc()
		select {
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", state.ErrUnavailable, err)
		case <-time.After(wait):
		}
	}
}

// retryable reports whether the same request may do better in a moment. Timeouts
// and the lack of a leader heal; a full disk, a failed condition and a stopped
// server do not.
func retryable(err error) bool {
	switch {
	case errors.Is(err, rpctypes.ErrStopped), errors.Is(err, rpctypes.ErrNoSpace):
		return false
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, rpctypes.ErrNotLeader), errors.Is(err, rpctypes.ErrTooManyRequests):
		return true
	}
	code := status.Code(err)
	var etcdErr rpctypes.EtcdError
	if errors.As(err, &etcdErr) {
		code = etcdErr.Code()
	}
	return code == codes.Unavailable || code == codes.DeadlineExceeded
}
