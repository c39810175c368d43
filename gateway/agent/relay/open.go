package relay

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// openSpool reads what earlier runs left in dir, verifying all of it.
func openSpool(dir string, limit int64, log *slog.Logger, m *spoolMetrics) (*spool, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("telemetry spool %s: %w", dir, err)
	}
	s := &spool{dir: dir, max: limit, log: log, m: m}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("telemetry spool %s: %w", dir, err)
	}
	for _, e := range entries {
		hex, ok := strings.CutSuffix(e.Name(), ".seg")
		id, err := strconv.ParseUint(hex, 16, 64)
		if !ok || err != nil || len(hex) != 16 {
			continue
		}
		s.segments = append(s.segments, &segment{id: id})
	}
	slices.SortFunc(s.segments, func(a, b *segment) int {
		if a.id < b.id {
			return -1
		}
		return 1
	})
	if s.cursor, err = os.OpenFile(filepath.Join(dir, cursorName), os.O_RDWR|os.O_CREATE, 0o600); err != nil {
		return nil, fmt.Errorf("telemetry spool %s: %w", dir, err)
	}
	at, offset := s.readCursor()
	s.segments = slices.DeleteFunc(s.segments, func(g *segment) bool {
		var from int64
		if g.id == at {
			from = offset
		}
		if g.id >= at && s.scan(g, from) {
			return false
		}
		s.removeFile(g) // sent, or nothing in it can be used
		return true
	})
	for _, g := range s.segments {
		s.bytes += g.size
		s.count += g.count
	}
	if len(s.segments) > 0 && s.segments[0].id == at {
		s.offset = max(offset, int64(len(spoolMagic)))
	} else {
		s.offset = int64(len(spoolMagic))
	}
	s.trimLocked(0)
	return s, nil
}

// scan measures a segment and counts the whole records from offset from on. It
// reports whether there are any.
func (s *spool) scan(g *segment, from int64) bool {
	f, err := os.Open(s.path(g))
	if err != nil {
		s.log.Warn("a segment of the telemetry spool cannot be read", "err", err)
		return false
	}
	defer f.Close()
	fi, err := f.Stat()
	if err != nil {
		return false
	}
	magic := make([]byte, len(spoolMagic))
	if _, err := io.ReadFull(f, magic); err != nil || string(magic) != spoolMagic {
		s.m.damaged.Inc()
		return false
	}
	g.size = int64(len(spoolMagic))
	for {
		payload, end, err := readRecord(f, g.size, fi.Size())
		if errors.Is(err, errRecord) && end > 0 {
			s.m.damaged.Inc()
			g.size = end
			continue
		}
		if err != nil {
			if !errors.Is(err, io.EOF) {
				s.m.damaged.Inc()
				s.log.Warn("the end of a segment of the telemetry spool is damaged; what stands before it is kept", "file", f.Name(), "err", err)
			}
			return g.count > 0
		}
		if _, err := decodeRecord(payload); err == nil && g.size >= from {
			g.count++
		}
		g.size = end
	}
}
