package traces

import (
	"container/list"
	"sync"
)

// blockCache keeps blocks that were read, the least recently used going first
// when they take more than a number of bytes.
type blockCache struct {
	mu    sync.Mutex
	max   int64
	used  int64
	order *list.List // of *cacheEntry, the most recently used first
	byID  map[blockID]*list.Element
}

type blockID struct {
	p   partition
	seq uint32
}

type cacheEntry struct {
	id   blockID
	o    *opened
	size int64
}

func newBlockCache(max int64) *blockCache {
	return &blockCache{max: max, order: list.New(), byID: map[blockID]*list.Element{}}
}

func (c *blockCache) get(id blockID) *opened {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.byID[id]
	if !ok {
		return nil
	}
	c.order.MoveToFront(e)
	return e.Value.(*cacheEntry).o
}

func (c *blockCache) put(id blockID, o *opened) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.byID[id]; ok {
		return
	}
	e := &cacheEntry{id, o, o.bytes()}
	c.byID[id] = c.order.PushFront(e)
	for c.used += e.size; c.used > c.max; {
		c.removeLocked(c.order.Back())
	}
}

// drop forgets the blocks of a partition.
func (c *blockCache) drop(p partition) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for id, e := range c.byID {
		if id.p == p {
			c.removeLocked(e)
		}
	}
}

func (c *blockCache) removeLocked(e *list.Element) {
	entry := c.order.Remove(e).(*cacheEntry)
	delete(c.byID, entry.id)
	c.used -= entry.size
}
