package traces

import (
	"errors"
	"os"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// checkSpace turns writes off and on by the space that is left.
func (s *Store) checkSpace() {
	if s.o.MinFreeBytes < 0 {
		return
	}
	u, err := s.o.fs.GetDiskUsage(s.o.Dir)
	if err != nil {
		if !errors.Is(err, vfs.ErrUnsupported) && !errors.Is(err, os.ErrNotExist) {
			s.log.Warn("free space unknown", "dir", s.o.Dir, "error", err)
		}
		return
	}
	s.setFull(u.AvailBytes < uint64(s.o.MinFreeBytes), u.AvailBytes)
}

func (s *Store) setFull(full bool, free uint64) {
	s.mu.Lock()
	was := s.full
	s.full = full
	switch {
	case full && !was:
		close(s.halted)
	case was && !full:
		s.halted = make(chan struct{})
	}
	s.mu.Unlock()
	switch {
	case full && !was:
		s.log.Error("disk is full: spans are refused until space returns", "dir", s.o.Dir, "free", free, "need", s.o.MinFreeBytes)
	case was && !full:
		s.log.Info("space has returned: spans are taken again", "dir", s.o.Dir, "free", free)
	}
}

// spacePoll is how often a write that found no space looks for some.
const spacePoll = 250 * time.Millisecond

// awaitSpace holds every write of Pebble from the first that found the disk full
// until there is space again: an error in its log or manifest is one that Pebble
// cannot go on after. Meanwhile spans are refused and all that is written is read
// as ever. Close ends the wait.
func (s *Store) awaitSpace() {
	s.setFull(true, 0)
	poll := time.NewTicker(spacePoll)
	defer poll.Stop()
	for {
		select {
		case <-s.closing:
			return
		case <-poll.C:
			u, err := s.o.fs.GetDiskUsage(s.o.Dir)
			if err != nil || u.AvailBytes < uint64(max(s.o.MinFreeBytes, 1<<20)) {
				continue
			}
			s.setFull(false, u.AvailBytes)
			return
		}
	}
}
