package relay

import (
	"encoding/binary"
	"hash/crc32"
)

func (s *spool) writeCursorLocked() {
	var b [cursorBytes]byte
	if len(s.segments) > 0 {
		binary.LittleEndian.PutUint64(b[:], s.segments[0].id)
		binary.LittleEndian.PutUint64(b[8:], uint64(s.offset))
	}
	binary.LittleEndian.PutUint32(b[16:], crc32.Checksum(b[:16], crcTable))
	if _, err := s.cursor.WriteAt(b[:], 0); err != nil {
		s.m.errors.Inc() // some exports will be sent twice
	}
}

// readCursor returns zeros when there is none that can be used.
func (s *spool) readCursor() (id uint64, offset int64) {
	var b [cursorBytes]byte
	if _, err := s.cursor.ReadAt(b[:], 0); err != nil {
		return 0, 0
	}
	if crc32.Checksum(b[:16], crcTable) != binary.LittleEndian.Uint32(b[16:]) {
		return 0, 0
	}
	return binary.LittleEndian.Uint64(b[:]), int64(binary.LittleEndian.Uint64(b[8:]))
}
