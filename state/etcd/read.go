package etcd

import (
	"context"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/binnacle-project/binnacle/state"
)

func (e *engine) Get(ctx context.Context, key string) (state.KV, error) {
	var resp *clientv3.GetResponse
	err := e.retry(ctx, func(ctx context.Context) (err error) {
		resp, err = e.client.Get(ctx, key)
		return err
	})
	if err != nil {
		return state.KV{}, err
	}
	if len(resp.Kvs) == 0 {
		return state.KV{}, state.ErrNotFound
	}
	kv := resp.Kvs[0]
	return state.KV{Key: key, Value: kv.Value, Version: kv.ModRevision}, nil
}

func (e *engine) Scan(ctx context.Context, from, end string, fn func(state.KV) error) error {
	var rev int64 // that of the first page, for all
	for {
		var resp *clientv3.GetResponse
		err := e.retry(ctx, func(ctx context.Context) (err error) {
			resp, err = e.client.Get(ctx, from, clientv3.WithRange(end), clientv3.WithLimit(scanPage), clientv3.WithRev(rev))
			return err
		})
		if err != nil {
			return err
		}
		for _, kv := range resp.Kvs {
			if err := fn(state.KV{Key: string(kv.Key), Value: kv.Value, Version: kv.ModRevision}); err != nil {
				return err
			}
		}
		if !resp.More {
			return nil
		}
		rev = resp.Header.Revision
		from = string(resp.Kvs[len(resp.Kvs)-1].Key) + "\x00"
	}
}
