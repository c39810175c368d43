package etcd

import (
	"context"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/binnacle-project/binnacle/state"
	"github.com/binnacle-project/binnacle/state/diskspace"
)

const (
	maintainEvery = 10 * time.Minute
	// A database file is rewritten when it is larger than defragAbove and less
	// than half of it is in use. Compaction frees pages but never shrinks it.
	defragAbove = 64 << 20
)

// maintain keeps the database file small until ctx ends. History itself is
// compacted by etcd, hourly.
func (e *engine) maintain(ctx context.Context) {
	tick := time.NewTicker(maintainEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			backend := e.server.Server.Backend()
			if size, used := backend.Size(), backend.SizeInUse(); size > defragAbove && used < size/2 {
				e.defrag()
			}
		case <-e.relieve:
			e.makeRoom(ctx)
		}
	}
}

// relieveSoon asks for makeRoom without waiting for it.
func (e *engine) relieveSoon() {
	select {
	case e.relieve <- struct{}{}:
	default: // asked for already
	}
}

// makeRoom drops all history, rewrites the file, and ends the read-only state
// that etcd fell into at its quota, if that helped.
func (e *engine) makeRoom(ctx context.Context) {
	resp, err := e.client.Get(ctx, state.Reserved)
	if err == nil {
		_, err = e.client.Compact(ctx, resp.Header.Revision, clientv3.WithCompactPhysical())
	}
	if err != nil {
		e.log.Warn("compacting the history of control state failed", "err", err)
	}
	e.defrag()
	if used := e.server.Server.Backend().SizeInUse(); used > e.quota/10*9 {
		e.log.Error("control state is read-only: its quota is used up by living keys; raise the quota", "used_bytes", used, "quota_bytes", e.quota)
		return
	}
	if _, err := e.client.AlarmDisarm(ctx, &clientv3.AlarmMember{}); err != nil {
		e.log.Error("control state stays read-only: the alarm could not be ended", "err", err)
		return
	}
	e.log.Info("control state is writable again after compaction")
}

// defrag rewrites the database file if the disk has room for the copy. Writes
// wait meanwhile, some milliseconds per 10 MB. (The client's own Defragment
// panics in process: it wants a health service.)
func (e *engine) defrag() {
	backend := e.server.Server.Backend()
	before := backend.Size()
	if free, err := diskspace.Free(e.guard.dir); err == nil && free < uint64(before)+e.guard.min {
		e.log.Warn("no room to rewrite the file of control state", "file_bytes", before, "free_bytes", free)
		return
	}
	if err := backend.Defrag(); err != nil {
		e.log.Warn("rewriting the file of control state failed", "err", err)
		return
	}
	e.log.Info("rewrote the file of control state", "before_bytes", before, "after_bytes", backend.Size())
}
