package wire

// Traces is one request of spans, as Metrics is one of metrics: all it holds is
// valid until the next Read or the end of the bytes that were read. The zero value
// is ready. Not safe for concurrent use, but for reading.
type Traces struct {
	Resources []ResourceSpans

	// What the slices above and below lie in.
	attrs  []Attr
	scopes []ScopeSpans
	spans  []Span
	events []Event
	links  []Link
}

// ResourceSpans is what one sender says in a request.
type ResourceSpans struct {
	// Attrs may be changed: it is the reader's own list.
	Attrs   Attrs
	Dropped uint32 // attributes
	Schema  string
	Scopes  []ScopeSpans

	raw  []byte // of the ResourceSpans message
	desc []byte // of the Resource message in it
	// thinned says that spans were taken out by RemoveReserved.
	thinned bool
}

// ScopeSpans are the spans of one scope.
type ScopeSpans struct {
	Name, Version string
	Schema        string
	Attrs         PointAttrs
	Dropped       uint32 // attributes
	Spans         []Span
}

// Span is one span. Ids of zeros are those that it does not have.
type Span struct {
	TraceID    [16]byte
	ID, Parent [8]byte
	State      string // tracestate
	Flags      uint32
	Name       string
	Kind       int32
	Start, End uint64 // Unix ns; 0 is unknown
	Status     int32
	Message    string // of the status
	Attrs      PointAttrs
	// Reserved says that a key begins with Binnacle's own prefix.
	Reserved bool
	Events   []Event
	Links    []Link
	Dropped  [3]uint32 // attributes, events, links
}

// Event is one event of a span.
type Event struct {
	Time    uint64 // Unix ns; 0 is unknown
	Name    string
	Attrs   PointAttrs
	Dropped uint32 // attributes
}

// Link is one link of a span to another.
type Link struct {
	TraceID [16]byte
	ID      [8]byte
	State   string
	Flags   uint32
	Attrs   PointAttrs
	Dropped uint32 // attributes
}

// Spans returns how many spans t has.
func (t *Traces) Spans() (n int) {
	for i := range t.Resources {
		n += t.Resources[i].Spans()
	}
	return n
}

// Spans returns how many spans r has.
func (r *ResourceSpans) Spans() (n int) {
	for i := range r.Scopes {
		n += len(r.Scopes[i].Spans)
	}
	return n
}

// RemoveResources takes out the resources that f returns true for.
func (t *Traces) RemoveResources(f func(*ResourceSpans) bool) {
	kept := t.Resources[:0]
	for i := range t.Resources {
		if !f(&t.Resources[i]) {
			kept = append(kept, t.Resources[i])
		}
	}
	t.Resources = kept
}

// ReservedKey returns the first reserved key of r's spans, or "".
func (r *ResourceSpans) ReservedKey() string {
	for i := range r.Scopes {
		for j := range r.Scopes[i].Spans {
			if s := &r.Scopes[i].Spans[j]; s.Reserved {
				for a := range s.Attrs.All() {
					if reserved(a.Key) {
						return a.Key
					}
				}
			}
		}
	}
	return ""
}

// RemoveReserved takes the spans out that have reserved attributes and returns
// how many there were.
func (r *ResourceSpans) RemoveReserved() (removed int) {
	for i := range r.Scopes {
		sc := &r.Scopes[i]
		kept := sc.Spans[:0]
		for j := range sc.Spans {
			if sc.Spans[j].Reserved {
				removed++
				continue
			}
			if len(kept) < j {
				kept = append(kept, sc.Spans[j])
			} else {
				kept = sc.Spans[:j+1]
			}
		}
		sc.Spans = kept
	}
	r.thinned = r.thinned || removed > 0
	return removed
}

// reset empties t and keeps its memory.
func (t *Traces) reset() {
	*t = Traces{
		Resources: t.Resources[:0],
		attrs:     t.attrs[:0],
		scopes:    t.scopes[:0],
		spans:     t.spans[:0],
		events:    t.events[:0],
		links:     t.links[:0],
	}
}

// Bytes returns the size of the memory that t holds for requests to come.
func (t *Traces) Bytes() int64 {
	return int64(cap(t.Resources))*resourceSpansBytes + int64(cap(t.attrs))*attrBytes + int64(cap(t.scopes))*scopeSpansBytes +
		int64(cap(t.spans))*spanBytes + int64(cap(t.events))*eventBytes + int64(cap(t.links))*linkBytes
}
