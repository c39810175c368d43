package wire

// walk reads the fields of one message, one after the other:
//
//	w := walk{b: b}
//	for w.next() {
//		switch w.tag { … }
//	}
//	return w.err()
//
// Messages of which there are many in a request, or that hold them (points, spans
// and their scopes), are read by loops of their own.
type walk struct {
	b  []byte
	at int // of the next field; negative after an odd one

	from int    // where the field begins
	tag  byte   // of the field that was read: its number and wire type
	v    []byte // its value, where its type is bytesType
	n    uint64 // its value, where it is another
}

// next reads a field and reports whether there was one in the usual form.
func (w *walk) next() bool {
	if w.at >= len(w.b) || w.at < 0 {
		return false
	}
	w.from, w.tag = w.at, w.b[w.at]
	switch w.tag & 0x87 { // a tag of two bytes is odd
	case bytesType:
		w.v, w.at = bytesAt(w.b, w.at+1)
	case varintType:
		w.n, w.at = varint(w.b, w.at+1)
	case fixed64Type:
		w.n, w.at = fixed64At(w.b, w.at+1)
	case fixed32Type:
		var n uint32
		n, w.at = fixed32At(w.b, w.at+1)
		w.n = uint64(n)
	default:
		w.at = -1
	}
	return w.at >= 0
}

// err says whether the message was read to its end.
func (w *walk) err() error {
	if w.at < 0 {
		return ErrOdd
	}
	return nil
}
