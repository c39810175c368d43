package traces

// copyTraces adds the spans of src whose trace number keep has to b.
func (b *block) copyTraces(src *block, keep []bool) {
	c := copier{from: src, to: b, strs: make([]uint32, len(src.strs.list))}
	c.resources = make([]uint32, len(src.resources))
	c.scopes = make([]uint32, len(src.scopes))
	for i := range src.spans {
		if s := &src.spans[i]; keep[s.trace] {
			c.span(s)
		}
	}
}

// copier numbers anew what one block says in numbers of another. In its tables
// 0 means not yet, other numbers are one more than the new number.
type copier struct {
	from, to                *block
	strs, resources, scopes []uint32
}

func (c *copier) str(i uint32) uint32 {
	if c.strs[i] == 0 {
		c.strs[i] = c.to.strs.add(c.from.strs.list[i]) + 1
	}
	return c.strs[i] - 1
}

func (c *copier) attrs(l attrList) attrList {
	out := attrList{uint32(len(c.to.attrs)), l.n}
	for _, a := range c.from.list(l) {
		a.key = c.str(a.key)
		if a.typ == typeString || a.typ == typeOther {
			a.n = uint64(c.str(uint32(a.n)))
		}
		c.to.attrs = append(c.to.attrs, a)
	}
	return out
}

func (c *copier) resource(i uint32) uint32 {
	if c.resources[i] == 0 {
		r := c.from.resources[i]
		r.attrs, r.service, r.schema = c.attrs(r.attrs), c.str(r.service), c.str(r.schema)
		c.resources[i] = c.to.internResource(r) + 1
	}
	return c.resources[i] - 1
}

func (c *copier) scope(i uint32) uint32 {
	if c.scopes[i] == 0 {
		s := c.from.scopes[i]
		s.attrs, s.name, s.version, s.schema = c.attrs(s.attrs), c.str(s.name), c.str(s.version), c.str(s.schema)
		c.scopes[i] = c.to.internScope(s) + 1
	}
	return c.scopes[i] - 1
}

func (c *copier) span(in *span) {
	s := *in
	s.trace = c.to.internTrace(c.from.traces[in.trace])
	s.resource, s.scope = c.resource(in.resource), c.scope(in.scope)
	s.name, s.state, s.message = c.str(in.name), c.str(in.state), c.str(in.message)
	s.attrs = c.attrs(in.attrs)
	s.events.off = uint32(len(c.to.events))
	for _, e := range c.from.events[in.events.off : in.events.off+in.events.n] {
		e.name, e.attrs = c.str(e.name), c.attrs(e.attrs)
		c.to.events = append(c.to.events, e)
	}
	s.links.off = uint32(len(c.to.links))
	for _, l := range c.from.links[in.links.off : in.links.off+in.links.n] {
		l.state, l.attrs = c.str(l.state), c.attrs(l.attrs)
		c.to.links = append(c.to.links, l)
	}
	c.to.spans = append(c.to.spans, s)
	c.to.note(&s)
}
