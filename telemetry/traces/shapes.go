package traces

// knownShape is the keys and types of the attributes of a span, with the columns
// of their values.
type knownShape struct {
	keys []colKey // nil: none
	cols []uint32
	num  uint32
}

func newShape(attrs []attr, column func(colKey) uint32) knownShape {
	k := knownShape{keys: make([]colKey, len(attrs)), cols: make([]uint32, len(attrs))}
	for i, a := range attrs {
		k.keys[i] = colKey{a.key, a.typ}
		k.cols[i] = column(k.keys[i])
	}
	return k
}

func (k *knownShape) fits(attrs []attr) bool {
	if k.keys == nil || len(k.keys) != len(attrs) {
		return false
	}
	for i := range attrs {
		if k.keys[i].key != attrs[i].key || k.keys[i].typ != attrs[i].typ {
			return false
		}
	}
	return true
}

// shapeCache has the last shapes of a walk over spans, most of which have one of
// few.
type shapeCache struct {
	recent [4]knownShape
	next   int
}

// find returns the shape of attrs, or nil where it is none of the last.
func (c *shapeCache) find(attrs []attr) *knownShape {
	for i := range c.recent {
		if c.recent[i].fits(attrs) {
			return &c.recent[i]
		}
	}
	return nil
}

func (c *shapeCache) put(k knownShape) *knownShape {
	slot := &c.recent[c.next%len(c.recent)]
	c.next++
	*slot = k
	return slot
}
