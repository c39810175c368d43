package traces

import (
	"cmp"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"
)

const partitionWidth = time.Hour

func partitionOf(t time.Time) partition {
	return partition(max(t.Unix(), 0) / int64(partitionWidth/time.Second))
}

// bounds are the earliest and latest start of the spans of a partition, Unix
// nanoseconds: late spans lie in the hour in which they came.
type bounds struct{ min, max uint64 }

// partitions are the hours on disk. The zero value is ready.
type partitions struct {
	mu sync.RWMutex
	m  map[partition]bounds
}

func (ps *partitions) set(p partition, b bounds) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	if ps.m == nil {
		ps.m = map[partition]bounds{}
	}
	ps.m[p] = b
}

// widened returns the bounds of p with two more starts, and whether they are
// others than before.
func (ps *partitions) widened(p partition, lo, hi uint64) (bounds, bool) {
	ps.mu.RLock()
	defer ps.mu.RUnlock()
	old, ok := ps.m[p]
	if !ok {
		return bounds{lo, hi}, true
	}
	b := bounds{min(old.min, lo), max(old.max, hi)}
	return b, b != old
}

func (ps *partitions) widen(p partition, lo, hi uint64) {
	b, _ := ps.widened(p, lo, hi)
	ps.set(p, b)
}

func (ps *partitions) drop(p partition) {
	ps.mu.Lock()
	defer ps.mu.Unlock()
	delete(ps.m, p)
}

// newestFirst lists the partitions that may have spans starting between lo
// and hi, the newest first.
func (ps *partitions) newestFirst(lo, hi uint64) []partition {
	ps.mu.RLock()
	defer ps.mu.RUnlock()
	var all []partition
	for p, b := range ps.m {
		if b.min <= hi && b.max >= lo {
			all = append(all, p)
		}
	}
	slices.SortFunc(all, func(a, b partition) int { return cmp.Compare(b, a) })
	return all
}

// expired returns the partitions that end before now less retention.
func expired(all []partition, now time.Time, retention time.Duration) []partition {
	limit := partitionOf(now.Add(-retention))
	var out []partition
	for _, p := range all {
		if p < limit {
			out = append(out, p)
		}
	}
	return out
}

// oversized returns the oldest partitions that must go for the sum of sizes to
// fit into maxBytes. The newest never goes.
func oversized(all []partition, size map[partition]uint64, maxBytes uint64) []partition {
	all = slices.Sorted(slices.Values(all))
	var sum uint64
	for _, p := range all {
		sum += size[p]
	}
	var out []partition
	for len(all) > 1 && sum > maxBytes {
		sum -= size[all[0]]
		out, all = append(out, all[0]), all[1:]
	}
	return out
}

// retain drops the partitions whose time is over or whose room is needed.
func (s *Store) retain() {
	all := s.parts.newestFirst(0, math.MaxUint64)
	s.dropAll(expired(all, s.o.now(), s.o.Retention), "age")
	if s.o.MaxBytes <= 0 {
		return
	}
	all = s.parts.newestFirst(0, math.MaxUint64)
	size := map[partition]uint64{}
	for _, p := range all {
		n, err := s.db.EstimateDiskUsage(key(p, 0), key(p, kindAfterAll))
		if err != nil {
			s.log.Warn("size of an hour unknown", "hour", p.time(), "error", err)
			return
		}
		size[p] = n
	}
	s.dropAll(oversized(all, size, uint64(s.o.MaxBytes)), "size")
}

func (s *Store) dropAll(ps []partition, why string) {
	for _, p := range ps {
		// Not synced: a drop that a crash undoes is done again.
		if err := s.db.DeleteRange(key(p, 0), key(p+1, 0), pebble.NoSync); err != nil {
			s.log.Error("hour not dropped, will try again", "hour", p.time(), "error", err)
			return
		}
		s.parts.drop(p)
		s.names.drop(p)
		s.cache.drop(p)
		s.meters.dropped.Inc()
		s.log.Info("hour dropped", "hour", p.time(), "reason", why)
	}
}

func (p partition) time() time.Time {
	return time.Unix(int64(p)*int64(partitionWidth/time.Second), 0).UTC()
}
