package engine

import "sync"

// shared keeps what generations with an equal configuration share, so that it
// outlives each of them: it is opened by the first and closed by the last. It
// is safe for concurrent use.
type shared[T any] struct {
	mu    sync.Mutex
	items map[string]*sharedItem[T]
}

type sharedItem[T any] struct {
	value T
	close func()
	users int
}

// acquire returns the value for key, and what gives it back, once. open makes
// it when nobody has it; it runs under the lock and must not wait.
func (s *shared[T]) acquire(key string, open func() (value T, close func())) (T, func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	item := s.items[key]
	if item == nil {
		item = &sharedItem[T]{}
		item.value, item.close = open()
		if s.items == nil {
			s.items = map[string]*sharedItem[T]{}
		}
		s.items[key] = item
	}
	item.users++
	return item.value, sync.OnceFunc(func() { s.release(key, item) })
}

func (s *shared[T]) release(key string, item *sharedItem[T]) {
	s.mu.Lock()
	item.users--
	last := item.users == 0
	if last {
		delete(s.items, key)
	}
	s.mu.Unlock()
	if last {
		item.close()
	}
}
