package etcd

import (
	"context"
	"fmt"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/binnacle-project/binnacle/state"
)

// startWatch opens the one watch over all callers' keys and gives it to
// the feed until ctx ends. It returns when the watch has begun.
func (e *engine) startWatch(open, ctx context.Context) error {
	var rev int64
	err := e.retry(open, func(ctx context.Context) error {
		resp, err := e.client.Get(ctx, state.Reserved)
		if err == nil {
			rev = resp.Header.Revision
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("begin to watch: %w", err)
	}
	e.wg.Go(func() { e.watch(ctx, rev+1) })
	return nil
}

// watch follows the store from revision rev on. When etcd ends the watch, it
// begins a new one and tells all readers to read again.
func (e *engine) watch(ctx context.Context, rev int64) {
	for ctx.Err() == nil {
		for resp := range e.client.Watch(ctx, state.FirstKey, clientv3.WithRange(state.Reserved), clientv3.WithRev(rev)) {
			if err := resp.Err(); err != nil {
				if ctx.Err() == nil {
					e.log.Warn("watch of control state broke; all readers read again", "err", err)
				}
				rev = 0
				break
			}
			if len(resp.Events) == 0 {
				continue
			}
			changes := make([]state.Change, len(resp.Events))
			for i, ev := range resp.Events {
				changes[i] = state.Change{
					KV:      state.KV{Key: string(ev.Kv.Key), Value: ev.Kv.Value, Version: ev.Kv.ModRevision},
					Deleted: ev.Type == clientv3.EventTypeDelete,
				}
			}
			rev = resp.Header.Revision + 1
			e.feed.Publish(changes)
		}
		if ctx.Err() != nil {
			return
		}
		if rev == 0 {
			e.feed.Resync()
		}
		select { // a watch that ends at once must not spin
		case <-ctx.Done():
		case <-time.After(100 * time.Millisecond):
		}
	}
}
