package etcd

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strconv"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/binnacle-project/binnacle/state"
)

// slotPrefix holds the reserved keys of the write slots.
const slotPrefix = "~w/"

// writeSlots is the number of writes under way at once; more wait. Disks give
// their best rate with some tens.
const writeSlots = 64

// slot makes a write exactly once. When the answer to a write is lost, nobody
// knows whether it happened: asking again could meet the condition's own first
// success as a conflict, or, where the first try was only late, undo what
// somebody wrote in between.
//
// So each write takes a slot for itself, writes a fresh id into the slot's key
// in the same transaction, and demands that the key is still as the slot's
// holder knows it. Of all tries of one write only one can succeed, a late try of
// an earlier holder fails, and a try that finds its own id knows that it has
// succeeded before.
type slot struct {
	key string
	rev int64 // revision of key when last seen; 0: absent
}

func (e *engine) openSlots(ctx context.Context) error {
	known := make(map[string]int64)
	err := e.Scan(ctx, slotPrefix, slotPrefix+"\xff", func(kv state.KV) error {
		known[kv.Key] = kv.Version
		return nil
	})
	if err != nil {
		return fmt.Errorf("read write slots: %w", err)
	}
	e.slots = make(chan *slot, writeSlots)
	for i := range writeSlots {
		key := slotPrefix + memberName + "/" + strconv.Itoa(i)
		e.slots <- &slot{key: key, rev: known[key]}
	}
	return nil
}

func (e *engine) Commit(ctx context.Context, conds []state.Cond, ops []state.Op) (int64, error) {
	if err := e.guard.check(); err != nil {
		return 0, err
	}
	var s *slot
	select {
	case s = <-e.slots:
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	defer func() { e.slots <- s }()

	id := rand.Text()
	cmps := make([]clientv3.Cmp, 0, len(conds)+1)
	for _, c := range conds {
		cmps = append(cmps, clientv3.Compare(clientv3.ModRevision(c.Key()), "=", c.Version()))
	}
	then := make([]clientv3.Op, 0, len(ops)+1)
	for _, op := range ops {
		if op.Deletes() {
			then = append(then, clientv3.OpDelete(op.Key()))
		} else {
			then = append(then, clientv3.OpPut(op.Key(), string(op.Value())))
		}
	}
	then = append(then, clientv3.OpPut(s.key, id))
	var rev int64
	err := e.retry(ctx, func(ctx context.Context) (err error) {
		rev, err = e.tryCommit(ctx, s, id, cmps, then)
		return err
	})
	switch {
	case errors.Is(err, rpctypes.ErrNoSpace):
		e.relieveSoon()
		return 0, fmt.Errorf("%w: the quota of %d bytes is used up; history is being compacted, try again in a minute, or raise the quota: %w", state.ErrReadOnly, e.quota, err)
	case err != nil:
		return 0, err
	}
	return rev, nil
}

// tryCommit is one try of the write with this id.
func (e *engine) tryCommit(ctx context.Context, s *slot, id string, cmps []clientv3.Cmp, then []clientv3.Op) (int64, error) {
	for {
		mine := clientv3.Compare(clientv3.ModRevision(s.key), "=", s.rev)
		resp, err := e.client.Txn(ctx).If(append(cmps, mine)...).Then(then...).Else(clientv3.OpGet(s.key)).Commit()
		if err != nil {
			return 0, err
		}
		if resp.Succeeded {
			s.rev = resp.Header.Revision
			return s.rev, nil
		}
		was := s.rev
		s.rev = 0
		if kvs := resp.Responses[0].GetResponseRange().Kvs; len(kvs) > 0 {
			s.rev = kvs[0].ModRevision
			if string(kvs[0].Value) == id {
				return s.rev, nil
			}
		}
		if s.rev == was {
			return 0, state.ErrConflict
		}
		// The slot's last holder gave up on a write that happened after all.
	}
}
