package wire

import "unsafe"

const (
	resourceSpansBytes = int64(unsafe.Sizeof(ResourceSpans{}))
	scopeSpansBytes    = int64(unsafe.Sizeof(ScopeSpans{}))
	spanBytes          = int64(unsafe.Sizeof(Span{}))
	eventBytes         = int64(unsafe.Sizeof(Event{}))
	linkBytes          = int64(unsafe.Sizeof(Link{}))
)

// Read reads an ExportTraceServiceRequest. After an error t is empty.
func (t *Traces) Read(b []byte, lim Limits) error {
	t.reset()
	r := spanReader{checker: checker{lim: lim, held: t.Bytes()}, t: t}
	err := r.request(b)
	if err != nil {
		t.reset()
	}
	return err
}

// spanReader walks one request of spans, as reader does one of metrics.
//
// Source: opentelemetry-proto v1, trace.
type spanReader struct {
	checker
	t *Traces
}

func (r *spanReader) request(b []byte) error {
	w := walk{b: b}
	for w.next() {
		if w.tag != 1<<3|bytesType {
			return ErrOdd
		}
		if err := r.resourceSpans(w.v); err != nil {
			return err
		}
	}
	return w.err()
}

func (r *spanReader) resourceSpans(b []byte) error {
	if err := r.element(); err != nil {
		return err
	}
	t := r.t
	if err := room(&r.checker, &t.Resources, 1, resourceSpansBytes); err != nil {
		return err
	}
	res := ResourceSpans{raw: b}
	from := len(t.scopes)
	described := false
	w := walk{b: b}
	for w.next() {
		var err error
		switch w.tag {
		case 1<<3 | bytesType:
			if described {
				return ErrOdd
			}
			described = true
			res.desc = w.v
			res.Attrs, res.Dropped, err = r.resource(&t.attrs, w.v)
		case 2<<3 | bytesType:
			err = r.scopeSpans(w.v)
		case 3<<3 | bytesType:
			res.Schema = view(w.v)
		default:
			return ErrOdd
		}
		if err != nil {
			return err
		}
	}
	if err := w.err(); err != nil {
		return err
	}
	if !described { // the receiver may add attributes all the same
		var err error
		if res.Attrs, _, err = r.resource(&t.attrs, nil); err != nil {
			return err
		}
	}
	res.Scopes = t.scopes[from:len(t.scopes):len(t.scopes)]
	t.Resources = append(t.Resources, res)
	return nil
}

func (r *spanReader) scopeSpans(b []byte) error {
	if err := r.element(); err != nil {
		return err
	}
	t := r.t
	if err := room(&r.checker, &t.scopes, 1, scopeSpansBytes); err != nil {
		return err
	}
	var sc ScopeSpans
	from := len(t.spans)
	described := false
	for i := 0; i < len(b); {
		v, next := bytesAt(b, i+1)
		if next < 0 {
			return ErrOdd
		}
		var err error
		switch b[i] {
		case 1<<3 | bytesType:
			if described {
				return ErrOdd
			}
			described = true
			err = r.scope(&sc, v)
		case 2<<3 | bytesType:
			err = r.span(v)
		case 3<<3 | bytesType:
			sc.Schema = view(v)
		default:
			return ErrOdd
		}
		if err != nil {
			return err
		}
		i = next
	}
	sc.Spans = t.spans[from:len(t.spans):len(t.spans)]
	t.scopes = append(t.scopes, sc)
	return nil
}

func (r *spanReader) scope(sc *ScopeSpans, b []byte) error {
	var attrs attrRun
	w := walk{b: b}
	for w.next() {
		switch w.tag {
		case 1<<3 | bytesType:
			sc.Name = view(w.v)
		case 2<<3 | bytesType:
			sc.Version = view(w.v)
		case 3<<3 | bytesType:
			if _, err := attrs.take(&r.checker, "scope", w.v, w.from, w.at); err != nil {
				return err
			}
		case 4<<3 | varintType:
			sc.Dropped = uint32(w.n)
		default:
			return ErrOdd
		}
	}
	sc.Attrs = attrs.of(b)
	return w.err()
}

func (r *spanReader) span(b []byte) error {
	if err := r.element(); err != nil {
		return err
	}
	t := r.t
	if err := room(&r.checker, &t.spans, 1, spanBytes); err != nil {
		return err
	}
	t.spans = t.spans[:len(t.spans)+1]
	s := &t.spans[len(t.spans)-1]
	*s = Span{}
	var (
		attrs  attrRun
		events = len(t.events)
		links  = len(t.links)
		status bool
	)
	for i := 0; i < len(b); {
		tag := b[i]
		switch tag & 7 {
		case bytesType:
			v, next := bytesAt(b, i+1)
			if next < 0 {
				return ErrOdd
			}
			ok := true
			switch tag >> 3 {
			case 1:
				ok = id(s.TraceID[:], v)
			case 2:
				ok = id(s.ID[:], v)
			case 3:
				s.State = view(v)
			case 4:
				ok = id(s.Parent[:], v)
			case 5:
				s.Name = view(v)
			case 9:
				key, err := attrs.take(&r.checker, "span", v, i, next)
				if err != nil {
					return err
				}
				if reserved(key) {
					s.Reserved = true
				}
			case 11, 13:
				if len(t.events)-events+len(t.links)-links >= r.lim.Events {
					return &LimitError{"events and links of one span", r.lim.Events}
				}
				read := r.event
				if tag>>3 == 13 {
					read = r.link
				}
				if err := read(v); err != nil {
					return err
				}
			case 15:
				ok = !status && s.status(v)
				status = true
			default:
				ok = false
			}
			if !ok {
				return ErrOdd
			}
			i = next
		case fixed64Type:
			n, next := fixed64At(b, i+1)
			if next < 0 {
				return ErrOdd
			}
			switch tag >> 3 {
			case 7:
				s.Start = n
			case 8:
				s.End = n
			default:
				return ErrOdd
			}
			i = next
		case varintType:
			n, next := varint(b, i+1)
			if next < 0 {
				return ErrOdd
			}
			switch tag >> 3 {
			case 6:
				s.Kind = int32(n)
			case 10:
				s.Dropped[0] = uint32(n)
			case 12:
				s.Dropped[1] = uint32(n)
			case 14:
				s.Dropped[2] = uint32(n)
			default:
				return ErrOdd
			}
			i = next
		case fixed32Type:
			// The flags are field 16, the first whose tag takes two bytes.
			n, next := fixed32At(b, i+2)
			if tag != 16<<3&0x7f|0x80|fixed32Type || next < 0 || b[i+1] != 1 {
				return ErrOdd
			}
			s.Flags, i = n, next
		default:
			return ErrOdd
		}
	}
	s.Attrs = attrs.of(b)
	if len(t.events) > events {
		s.Events = t.events[events:len(t.events):len(t.events)]
	}
	if len(t.links) > links {
		s.Links = t.links[links:len(t.links):len(t.links)]
	}
	return nil
}

// id reads an id of the size of dst, or none.
func id(dst, v []byte) bool {
	if len(v) == 0 {
		clear(dst)
		return true
	}
	return len(v) == copy(dst, v) && len(v) == len(dst)
}

// status reads a Status message.
func (s *Span) status(b []byte) bool {
	w := walk{b: b}
	for w.next() {
		switch w.tag {
		case 2<<3 | bytesType:
			s.Message = view(w.v)
		case 3<<3 | varintType:
			s.Status = int32(w.n)
		default:
			return false
		}
	}
	return w.err() == nil
}

func (r *spanReader) event(b []byte) error {
	if err := r.element(); err != nil {
		return err
	}
	if err := room(&r.checker, &r.t.events, 1, eventBytes); err != nil {
		return err
	}
	var e Event
	var attrs attrRun
	w := walk{b: b}
	for w.next() {
		switch w.tag {
		case 1<<3 | fixed64Type:
			e.Time = w.n
		case 2<<3 | bytesType:
			e.Name = view(w.v)
		case 3<<3 | bytesType:
			if _, err := attrs.take(&r.checker, "event", w.v, w.from, w.at); err != nil {
				return err
			}
		case 4<<3 | varintType:
			e.Dropped = uint32(w.n)
		default:
			return ErrOdd
		}
	}
	e.Attrs = attrs.of(b)
	r.t.events = append(r.t.events, e)
	return w.err()
}

func (r *spanReader) link(b []byte) error {
	if err := r.element(); err != nil {
		return err
	}
	if err := room(&r.checker, &r.t.links, 1, linkBytes); err != nil {
		return err
	}
	var l Link
	var attrs attrRun
	w := walk{b: b}
	for w.next() {
		ok := true
		switch w.tag {
		case 1<<3 | bytesType:
			ok = id(l.TraceID[:], w.v)
		case 2<<3 | bytesType:
			ok = id(l.ID[:], w.v)
		case 3<<3 | bytesType:
			l.State = view(w.v)
		case 4<<3 | bytesType:
			if _, err := attrs.take(&r.checker, "link", w.v, w.from, w.at); err != nil {
				return err
			}
		case 5<<3 | varintType:
			l.Dropped = uint32(w.n)
		case 6<<3 | fixed32Type:
			l.Flags = uint32(w.n)
		default:
			ok = false
		}
		if !ok {
			return ErrOdd
		}
	}
	l.Attrs = attrs.of(b)
	r.t.links = append(r.t.links, l)
	return w.err()
}
