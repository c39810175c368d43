package relay

import (
	"errors"
	"io"
	"os"
)

// oldest returns the export that waits longest and leaves it there; false when
// there is none.
func (s *spool) oldest() (spooled, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.head == nil && len(s.segments) > 0 {
		s.readHeadLocked()
	}
	if s.head == nil {
		return spooled{}, false
	}
	return *s.head, true
}

// readHeadLocked reads the next record of the oldest segment, or removes the
// segment when there is no more in it.
func (s *spool) readHeadLocked() {
	g := s.segments[0]
	if s.r == nil {
		f, err := os.Open(s.path(g))
		if err != nil {
			s.lostLocked(g, err)
			return
		}
		s.r = f
	}
	payload, end, err := readRecord(s.r, s.offset, g.size)
	switch {
	case errors.Is(err, errRecord) && end > 0:
		s.offset = end // counted when the segment was scanned, or damaged since
		return
	case errors.Is(err, io.EOF):
		s.removeFirstLocked()
		return
	case err != nil:
		s.lostLocked(g, err)
		return
	}
	rec, err := decodeRecord(payload)
	if err != nil {
		s.offset = end
		return
	}
	rec.end = end
	s.head = &rec
}

// lostLocked gives a segment up that cannot be read.
func (s *spool) lostLocked(g *segment, err error) {
	s.m.damaged.Add(max(g.count, 1))
	s.log.Warn("a segment of the telemetry spool cannot be read; it is dropped", "file", s.path(g), "exports", g.count, "err", err)
	s.removeFirstLocked()
}

// done removes what oldest gave last, if it is still there.
func (s *spool) done(e spooled) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.head == nil || s.head.end != e.end || !s.head.received.Equal(e.received) {
		return // dropped meanwhile
	}
	g := s.segments[0]
	g.count--
	s.count--
	s.offset, s.head = e.end, nil
	if s.offset == g.size {
		s.removeFirstLocked()
	}
	s.writeCursorLocked()
}
