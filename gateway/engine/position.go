package engine

import (
	"bytes"
	"encoding/json"
	"strconv"
	"strings"
)

// positions maps the JSON pointer (RFC 6901) of every value of a document to
// the offset of its first byte.
type positions struct {
	raw []byte
	at  map[string]int
}

// locate walks raw, which must be valid JSON.
func locate(raw []byte) positions {
	p := positions{raw: raw, at: map[string]int{}}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	p.value(d, "")
	return p
}

func (p positions) value(d *json.Decoder, pointer string) {
	p.at[pointer] = p.skip(int(d.InputOffset()))
	t, err := d.Token()
	if err != nil {
		return
	}
	switch t {
	case json.Delim('{'):
		for d.More() {
			key, err := d.Token()
			if err != nil {
				return
			}
			p.value(d, pointer+"/"+escapePointer(key.(string)))
		}
		_, _ = d.Token() // the closing brace; raw is valid
	case json.Delim('['):
		for i := 0; d.More(); i++ {
			p.value(d, pointer+"/"+strconv.Itoa(i))
		}
		_, _ = d.Token()
	}
}

// skip moves from the end of the last token to the next value.
func (p positions) skip(offset int) int {
	for offset < len(p.raw) && strings.IndexByte(" \t\r\n:,", p.raw[offset]) >= 0 {
		offset++
	}
	return offset
}

// lineColumn returns the 1-based position of a value, or of its nearest known
// parent.
func (p positions) lineColumn(pointer string) (line, column int) {
	for {
		if at, ok := p.at[pointer]; ok {
			return lineColumn(p.raw, at)
		}
		i := strings.LastIndexByte(pointer, '/')
		if i < 0 {
			return 0, 0
		}
		pointer = pointer[:i]
	}
}

// lineColumn counts lines and bytes from 1, as editors do.
func lineColumn(raw []byte, offset int) (line, column int) {
	offset = min(max(offset, 0), len(raw))
	before := raw[:offset]
	return bytes.Count(before, []byte("\n")) + 1, offset - bytes.LastIndexByte(before, '\n')
}

func escapePointer(key string) string {
	return strings.NewReplacer("~", "~0", "/", "~1").Replace(key)
}
