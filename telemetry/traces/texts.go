package traces

import (
	"go.opentelemetry.io/collector/pdata/pcommon"
)

// names reads the strings that many spans use.
func (d *decoder) names() error {
	for r := &d.cols[colNames]; len(r.b) > 0; {
		i := r.below(d.o.strings)
		s := string(r.bytes())
		if r.err != nil {
			return r.err
		}
		d.b.strs.list[i] = s
		d.b.strs.bytes += len(s)
		d.b.strs.some = append(d.b.strs.some, i)
	}
	return nil
}

// text reads the frame of a string, unless it was read.
func (d *decoder) text(i uint32) error {
	n := int(i) / chunkStrings
	if d.chunks[n] {
		return nil
	}
	d.chunks[n] = true
	data, err := d.inflate(numCols + len(d.values) + n)
	if err != nil {
		return err
	}
	d.b.strs.own()
	list := d.b.strs.list[n*chunkStrings : min((n+1)*chunkStrings, d.o.strings)]
	r := reader{b: data}
	sizes := make([]uint64, len(list))
	for i := range sizes {
		sizes[i] = r.uvarint()
	}
	all := string(r.b) // backs all of them
	for i, size := range sizes {
		if size > uint64(len(all)) || r.err != nil {
			return errShort
		}
		list[i], all = all[:size], all[size:]
	}
	d.b.strs.bytes += len(r.b)
	return nil
}

// seek looks for a string among all, without keeping any.
func (d *decoder) seek(s string) (number uint32, ok bool, err error) {
	buf := buffers.Get().(*[]byte)
	defer giveBack(buf)
	for n := range d.chunks {
		data, err := d.o.frames[numCols+len(d.values)+n].inflate(buf)
		if err != nil {
			return 0, false, err
		}
		sizes := reader{b: data}
		count := min(chunkStrings, d.o.strings-n*chunkStrings)
		at := uint64(0)
		sizes.skip(count)
		texts := sizes.b
		sizes = reader{b: data, err: sizes.err}
		for i := range count {
			size := sizes.uvarint()
			if size > uint64(len(texts))-at || sizes.err != nil {
				return 0, false, errShort
			}
			if size == uint64(len(s)) && string(texts[at:at+size]) == s {
				return uint32(n*chunkStrings + i), true, nil
			}
			at += size
		}
	}
	return 0, false, nil
}

// texts reads the strings that what was decoded refers to.
func (d *decoder) texts() (err error) {
	b := d.b
	use := func(all ...uint32) {
		for _, i := range all {
			if i != 0 && err == nil {
				err = d.text(i)
			}
		}
	}
	for i := range b.attrs {
		a := &b.attrs[i]
		if use(a.key); a.typ == typeString || a.typ == typeOther {
			use(uint32(a.n))
		}
	}
	for i := range b.spans {
		use(b.spans[i].name, b.spans[i].state, b.spans[i].message)
	}
	for _, e := range b.events {
		use(e.name)
	}
	for _, l := range b.links {
		use(l.state)
	}
	for _, r := range b.resources {
		use(r.service, r.schema)
	}
	for _, s := range b.scopes {
		use(s.name, s.version, s.schema)
	}
	for i := range b.attrs {
		if a := &b.attrs[i]; a.typ == typeOther && err == nil {
			_, err = consumeValue(pcommon.NewValueEmpty(), []byte(b.strs.list[a.n]), 0)
		}
	}
	return err
}
