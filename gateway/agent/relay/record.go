package relay

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"time"

	"github.com/binnacle-project/binnacle"
)

// errRecord marks a damaged record.
var errRecord = errors.New("damaged record")

// readRecord returns the payload at offset and where the next record begins,
// io.EOF at size. end is 0 with errRecord when nothing behind can be found.
func readRecord(f io.ReaderAt, offset, size int64) (payload []byte, end int64, err error) {
	if offset == size {
		return nil, 0, io.EOF
	}
	var head [recordHead]byte
	if offset+recordHead > size {
		return nil, 0, fmt.Errorf("%w: %d bytes at the end", errRecord, size-offset)
	}
	if _, err := f.ReadAt(head[:], offset); err != nil {
		return nil, 0, err
	}
	n := int64(binary.LittleEndian.Uint32(head[:]))
	if n == 0 || n > maxRecord || offset+recordHead+n > size {
		return nil, 0, fmt.Errorf("%w: a length of %d at %d of %d", errRecord, n, offset, size)
	}
	payload = make([]byte, n)
	if _, err := f.ReadAt(payload, offset+recordHead); err != nil {
		return nil, 0, err
	}
	end = offset + recordHead + n
	if got, want := crc32.Checksum(payload, crcTable), binary.LittleEndian.Uint32(head[4:]); got != want {
		return nil, end, fmt.Errorf("%w: checksum %08x, want %08x", errRecord, got, want)
	}
	return payload, end, nil
}

// appendRecord appends the payload of an export: path, content type, encoding,
// revision and node, each with its length as a uvarint, the time of receipt in
// Unix milliseconds as a varint, and the body.
func appendRecord(b []byte, e export, node binnacle.NodeID) []byte {
	for _, s := range []string{e.path, e.contentType, e.encoding, e.revision, string(node)} {
		b = binary.AppendUvarint(b, uint64(len(s)))
		b = append(b, s...)
	}
	b = binary.AppendVarint(b, e.received.UnixMilli())
	return append(b, e.body...)
}

// decodeRecord reads what appendRecord wrote. The body shares b's memory.
func decodeRecord(b []byte) (spooled, error) {
	var out spooled
	var node string
	for _, s := range []*string{&out.path, &out.contentType, &out.encoding, &out.revision, &node} {
		n, k := binary.Uvarint(b)
		if k <= 0 || n > uint64(len(b)-k) {
			return spooled{}, fmt.Errorf("%w: a name of %d bytes", errRecord, n)
		}
		*s = string(b[k : k+int(n)])
		b = b[k+int(n):]
	}
	ms, k := binary.Varint(b)
	if k <= 0 {
		return spooled{}, fmt.Errorf("%w: no time", errRecord)
	}
	out.node, out.received, out.body = binnacle.NodeID(node), time.UnixMilli(ms), b[k:]
	return out, nil
}

// compressed returns e with its body as gzip, if that makes it smaller.
func compressed(e export) export {
	if e.encoding != "" || len(e.body) < 512 {
		return e
	}
	var buf bytes.Buffer
	zw, _ := gzip.NewWriterLevel(&buf, gzip.BestSpeed) // the level is valid
	if _, err := zw.Write(e.body); err != nil || zw.Close() != nil || buf.Len() >= len(e.body) {
		return e
	}
	e.body, e.encoding = buf.Bytes(), "gzip"
	return e
}
