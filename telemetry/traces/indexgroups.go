package traces

// add gives a term more rows.
func (x *indexer) add(h uint64, rows []uint32) {
	if lists, ok := x.common[h]; !ok || lists != nil {
		x.common[h] = append(lists, rows)
	}
}

// groups adds what spans have of their resources and scopes.
func (x *indexer) groups() {
	b := x.b
	resource := x.bucket(len(b.resources), func(s *span) uint32 { return s.resource })
	for i, rows := range resource {
		r := &b.resources[i]
		x.add(serviceTerm(b.strs.list[r.service]), rows)
		for _, a := range b.list(r.attrs) {
			x.add(x.hash(colKey{a.key, a.typ}, a.n), rows)
		}
	}
	scope := x.bucket(len(b.scopes), func(s *span) uint32 { return s.scope })
	for i, rows := range scope {
		x.add(tagHashOf("otel.scope.name", b.strs.list[b.scopes[i].name]), rows)
		x.add(tagHashOf("otel.scope.version", b.strs.list[b.scopes[i].version]), rows)
	}
}

// fields adds what Jaeger shows as tags and OTLP has in fields.
func (x *indexer) fields() {
	b := x.b
	kinds := x.bucket(256, func(s *span) uint32 { return uint32(s.kind | s.status<<4) })
	for i, rows := range kinds {
		if len(rows) == 0 {
			continue
		}
		s := span{kind: uint8(i) & 15, status: uint8(i) >> 4}
		for _, tag := range []string{"error", "span.kind", "otel.status_code"} {
			x.add(tagHashOf(tag, derivedTags[tag](b, &s)), rows)
		}
	}
	messages := map[uint32][]uint32{}
	for row, i := range x.order {
		if m := b.spans[i].message; m != 0 {
			messages[m] = append(messages[m], uint32(row))
		}
	}
	for m, rows := range messages {
		x.add(tagHashOf("otel.status_description", b.strs.list[m]), rows)
	}
}

// both makes terms that are rare as one thing and common as another, such as an
// attribute that some resource has, too, be in any row.
func (x *indexer) both() {
	var maybe [1 << 10]uint64 // by 16 bits of the hashes: most are not
	for h := range x.common {
		maybe[h>>22&1023] |= 1 << (h & 63)
	}
	for _, h := range x.rare {
		if maybe[h>>22&1023]>>(h&63)&1 == 0 {
			continue
		}
		if _, ok := x.common[h]; ok {
			x.common[h] = nil
		}
	}
}

// bucket lists the rows by a number below n.
func (x *indexer) bucket(n int, of func(*span) uint32) [][]uint32 {
	ends := make([]uint32, n+1)
	for i := range x.b.spans {
		ends[of(&x.b.spans[i])+1]++
	}
	for i := 1; i <= n; i++ {
		ends[i] += ends[i-1]
	}
	all := make([]uint32, len(x.order))
	out := make([][]uint32, n)
	for i := range out {
		out[i] = all[ends[i]:ends[i]:ends[i+1]]
	}
	for row, i := range x.order {
		k := of(&x.b.spans[i])
		out[k] = append(out[k], uint32(row))
	}
	return out
}
