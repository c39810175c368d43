package wire

import (
	"strings"

	"github.com/binnacle-project/binnacle"
)

// Tags of KeyValue and AnyValue.
//
// Source: opentelemetry-proto v1, common.
const (
	tagKey      = 1<<3 | bytesType
	tagValue    = 2<<3 | bytesType
	tagKeyIndex = 3<<3 | varintType // of profiles; says nothing here

	tagString = 1<<3 | bytesType
	tagBool   = 2<<3 | varintType
	tagInt    = 3<<3 | varintType
	tagDouble = 4<<3 | fixed64Type
	tagArray  = 5<<3 | bytesType
	tagMap    = 6<<3 | bytesType
	tagBytes  = 7<<3 | bytesType
	tagIndex  = 8<<3 | varintType // of profiles
)

// attrRun notes where the attributes of a message lie: one behind the other, as
// encoders write them, so that they are one view of it. The zero value has none.
type attrRun struct{ n, first, last int }

// take checks the attribute kv, whose field lies from at to next, and returns its
// key. parent says in errors what has too many.
func (a *attrRun) take(c *checker, parent string, kv []byte, at, next int) (key string, err error) {
	if a.n++; a.n > c.lim.Attributes {
		return "", tooManyAttributes(parent, c.lim.Attributes)
	}
	if key, err = c.attribute(kv); err != nil {
		return "", err
	}
	switch {
	case a.n == 1:
		a.first = at
	case a.last != at:
		return "", ErrOdd
	}
	a.last = next
	return key, nil
}

// of returns the attributes of the message b.
func (a *attrRun) of(b []byte) PointAttrs {
	if a.n == 0 {
		return nil
	}
	return PointAttrs(b[a.first:a.last:a.last])
}

// attribute checks a KeyValue message and returns its key.
func (c *checker) attribute(kv []byte) (key string, err error) {
	if key, ok := plainAttribute(kv); ok {
		return key, nil
	}
	return c.keyValue(kv, 0)
}

// reserved says whether a key is in Binnacle's own namespace.
func reserved(key string) bool { return strings.HasPrefix(key, binnacle.AttrPrefix) }

// plainAttribute recognizes, without recursion, what nearly every attribute is:
// a short key and a short value that is a string, a bool or a number.
func plainAttribute(b []byte) (key string, ok bool) {
	key, value, ok := plainParts(b)
	return key, ok && plainValue(value)
}

// plainParts takes a short KeyValue message apart. pdata writes the value
// first.
func plainParts(b []byte) (key string, value []byte, ok bool) {
	if len(b) < 4 || b[1] >= 0x80 {
		return "", nil, false
	}
	split := 2 + int(b[1])
	if split+2 > len(b) || b[split+1] >= 0x80 || split+2+int(b[split+1]) != len(b) {
		return "", nil, false
	}
	first, second := b[2:split], b[split+2:]
	switch {
	case b[0] == tagKey && b[split] == tagValue:
		return view(first), second, true
	case b[0] == tagValue && b[split] == tagKey:
		return view(second), first, true
	}
	return "", nil, false
}

func plainValue(v []byte) bool {
	if len(v) < 2 {
		return false
	}
	switch v[0] {
	case tagString:
		return v[1] < 0x80 && int(v[1]) == len(v)-2
	case tagBool, tagInt:
		for _, c := range v[1 : len(v)-1] {
			if c < 0x80 {
				return false
			}
		}
		return len(v) <= 11 && v[len(v)-1] < 0x80
	case tagDouble:
		return len(v) == 9
	}
	return false
}

// keyValue checks a KeyValue message of any form.
func (c *checker) keyValue(b []byte, depth int) (key string, err error) {
	named, valued := false, false
	w := walk{b: b}
	for w.next() {
		switch {
		case w.tag == tagKeyIndex:
		case w.tag == tagKey && !named:
			key, named = view(w.v), true
		case w.tag == tagValue && !valued:
			valued = true
			if err := c.anyValue(w.v, depth); err != nil {
				return "", err
			}
		default:
			return "", ErrOdd
		}
	}
	return key, w.err()
}

// anyValue checks an AnyValue message: one field or none.
func (c *checker) anyValue(b []byte, depth int) error {
	if len(b) == 0 {
		return nil
	}
	var v []byte
	var next int
	switch b[0] {
	case tagString, tagBytes, tagArray, tagMap:
		v, next = bytesAt(b, 1)
	case tagBool, tagInt, tagIndex:
		_, next = varint(b, 1)
	case tagDouble:
		_, next = fixed64At(b, 1)
	default:
		return ErrOdd
	}
	if next != len(b) {
		return ErrOdd
	}
	if b[0] == tagArray || b[0] == tagMap {
		if depth++; depth > c.lim.Depth {
			return &LimitError{"levels of nested values", c.lim.Depth}
		}
		return c.values(v, b[0] == tagMap, depth)
	}
	return nil
}

// values checks an ArrayValue or KeyValueList message.
func (c *checker) values(b []byte, isMap bool, depth int) error {
	attributes := 0
	w := walk{b: b}
	for w.next() {
		if w.tag != 1<<3|bytesType {
			return ErrOdd
		}
		if !isMap {
			if err := c.anyValue(w.v, depth); err != nil {
				return err
			}
			continue
		}
		if attributes++; attributes > c.lim.Attributes {
			return tooManyAttributes("map", c.lim.Attributes)
		}
		if _, err := c.keyValue(w.v, depth); err != nil {
			return err
		}
	}
	return w.err()
}

func tooManyAttributes(of string, limit int) error {
	return &LimitError{"attributes of one " + of, limit}
}
