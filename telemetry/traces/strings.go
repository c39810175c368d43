package traces

import (
	"hash/maphash"
	"math/bits"
	"slices"
	"strings"
)

// stringTable numbers strings and keeps copies of them. Number 0 is the empty
// one.
type stringTable struct {
	list []string
	// hashes has that of each string, slots the numbers by these, in open addressing,
	// 0 being free. The hash is seeded: strings are of anybody's choice. Both are nil
	// in blocks read back.
	hashes []uint64
	slots  []uint32
	bytes  int
	// recent has the last string added for each value of a hash that costs a
	// tenth of the table's: most strings of spans come again and again.
	recent *[recentStrings]uint32
	text   strings.Builder // what the latest strings lie in
	// Of a block read back: the numbers of the strings that are in list, where it
	// has not all, and whether list is another's.
	some   []uint32
	shared bool
}

const (
	recentStrings = 1 << 10
	// textBytes is the memory taken at once for strings; longer than a quarter of
	// it has memory of its own.
	textBytes = 64 << 10
)

var stringSeed = maphash.MakeSeed()

// newStringTable makes a table with room for n strings.
func newStringTable(n int) stringTable {
	t := stringTable{list: make([]string, 1, n+1), hashes: make([]uint64, 1, n+1), recent: new([recentStrings]uint32)}
	t.resize(max(n, 64))
	return t
}

// resize makes room for n strings.
func (t *stringTable) resize(n int) {
	t.slots = make([]uint32, 1<<bits.Len(uint(2*n)))
	for i := 1; i < len(t.list); i++ {
		*t.slot(t.hashes[i], t.list[i]) = uint32(i)
	}
}

// slot returns where the number of s, whose hash is h, is or would be.
func (t *stringTable) slot(h uint64, s string) *uint32 {
	mask := uint64(len(t.slots) - 1)
	for at := h & mask; ; at = (at + 1) & mask {
		if i := t.slots[at]; i == 0 || t.hashes[i] == h && t.list[i] == s {
			return &t.slots[at]
		}
	}
}

// add returns the number of s, of which it keeps a copy.
func (t *stringTable) add(s string) uint32 {
	if s == "" {
		return 0
	}
	recent := &t.recent[quickHash(s)%recentStrings]
	if i := *recent; i != 0 && t.list[i] == s {
		return i
	}
	h := maphash.String(stringSeed, s)
	slot := t.slot(h, s)
	if *slot == 0 {
		*slot = uint32(len(t.list))
		t.list = append(t.list, t.keep(s))
		t.hashes = append(t.hashes, h)
		t.bytes += len(s) + 48
		if 2*len(t.list) > len(t.slots) {
			*recent = uint32(len(t.list) - 1)
			t.resize(len(t.list))
			return *recent
		}
	}
	*recent = *slot
	return *slot
}

// keep copies s to where many strings share one allocation.
func (t *stringTable) keep(s string) string {
	if len(s) > textBytes/4 {
		return strings.Clone(s)
	}
	if t.text.Len()+len(s) > t.text.Cap() {
		t.text = strings.Builder{}
		t.text.Grow(textBytes)
	}
	t.text.WriteString(s)
	all := t.text.String()
	return all[len(all)-len(s):]
}

// quickHash mixes the length and the ends of s.
func quickHash(s string) uint64 {
	h := uint64(len(s))
	if n := len(s); n >= 8 {
		h ^= uint64(s[0]) | uint64(s[1])<<8 | uint64(s[2])<<16 | uint64(s[3])<<24 | uint64(s[4])<<32 | uint64(s[5])<<40 | uint64(s[6])<<48 | uint64(s[7])<<56
		h *= 0x9e3779b97f4a7c15
		e := s[n-8:]
		h ^= uint64(e[0]) | uint64(e[1])<<8 | uint64(e[2])<<16 | uint64(e[3])<<24 | uint64(e[4])<<32 | uint64(e[5])<<40 | uint64(e[6])<<48 | uint64(e[7])<<56
	} else {
		for i := range n {
			h = h<<8 ^ uint64(s[i])
		}
	}
	h *= 0x9e3779b97f4a7c15
	return h >> 40
}

// find returns the number of a string, or false where no span has it.
func (t *stringTable) find(s string) (uint32, bool) {
	if t.slots != nil {
		i := *t.slot(maphash.String(stringSeed, s), s)
		return i, i != 0 || s == ""
	}
	if t.some != nil {
		for _, i := range t.some {
			if t.list[i] == s {
				return i, true
			}
		}
		return 0, s == ""
	}
	for i, have := range t.list {
		if have == s {
			return uint32(i), true
		}
	}
	return 0, false
}

// own makes the list one that more strings may be written to.
func (t *stringTable) own() {
	if t.shared {
		t.list, t.shared = slices.Clone(t.list), false
	}
	t.some = nil
}
