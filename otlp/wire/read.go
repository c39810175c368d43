package wire

import (
	"errors"
	"fmt"
	"slices"
)

// ErrOdd says that a request is not in the form that encoders write, or no
// OTLP at all: pdata knows which.
var ErrOdd = errors.New("the request is not in the usual form")

// LimitError says which limit a request is over.
type LimitError struct {
	What  string
	Limit int
}

func (e *LimitError) Error() string { return fmt.Sprintf("more than %d %s", e.Limit, e.What) }

// Limits bound one request. All are inclusive.
type Limits struct {
	Elements   int // resources, scopes, metrics, points, exemplars …
	Attributes int // of one parent
	Events     int // events and links of one span
	Depth      int // of nested values
	// Memory is asked before the request takes more memory; total is all that
	// it takes then. Its error ends the reading.
	Memory func(total int64) error
}

// Wire types. The tag of a field is its number and its type.
const (
	varintType  = 0
	fixed64Type = 1
	bytesType   = 2
	fixed32Type = 5
)

// Read reads an ExportMetricsServiceRequest. After an error m is empty.
func (m *Metrics) Read(b []byte, lim Limits) error {
	m.reset()
	r := reader{checker: checker{lim: lim, held: m.Bytes()}, m: m}
	err := r.request(b)
	if err != nil {
		m.reset()
	}
	return err
}

// reader walks one request: it counts, checks and notes where things lie.
//
// Source: opentelemetry-proto v1, metrics.
type reader struct {
	checker
	m *Metrics
}

// checker counts and checks what requests of both signals have.
type checker struct {
	lim      Limits
	elements int
	held     int64 // bytes of memory that the request takes
}

// element counts a message.
func (c *checker) element() error {
	if c.elements++; c.elements > c.lim.Elements {
		return &LimitError{"elements (resources, scopes, metrics, points, spans …)", c.lim.Elements}
	}
	return nil
}

// take asks for more memory.
func (c *checker) take(more int64) error {
	c.held += more
	if c.lim.Memory == nil {
		return nil
	}
	return c.lim.Memory(c.held)
}

// room makes room for n more elements of a list, with leave.
func room[T any](c *checker, list *[]T, n int, size int64) error {
	if len(*list)+n <= cap(*list) {
		return nil
	}
	more := max(n, cap(*list), 16)
	if err := c.take(int64(more) * size); err != nil {
		return err
	}
	*list = slices.Grow(*list, more)
	return nil
}

func (r *reader) request(b []byte) error {
	w := walk{b: b}
	for w.next() {
		if w.tag != 1<<3|bytesType {
			return ErrOdd
		}
		if err := r.resourceMetrics(w.v); err != nil {
			return err
		}
	}
	return w.err()
}

func (r *reader) resourceMetrics(b []byte) error {
	if err := r.element(); err != nil {
		return err
	}
	m := r.m
	if err := room(&r.checker, &m.Resources, 1, resourceBytes); err != nil {
		return err
	}
	res := Resource{raw: b}
	from := len(m.metrics)
	described := false
	w := walk{b: b}
	for w.next() { // pdata writes the resource last, protobuf first
		var err error
		switch w.tag {
		case 1<<3 | bytesType:
			if described {
				return ErrOdd
			}
			described = true
			res.desc = w.v
			res.Attrs, _, err = r.resource(&m.attrs, w.v)
		case 2<<3 | bytesType:
			err = r.scopeMetrics(w.v)
		case 3<<3 | bytesType: // schema URL
		default:
			err = ErrOdd
		}
		if err != nil {
			return err
		}
	}
	res.Metrics = m.metrics[from:len(m.metrics):len(m.metrics)]
	m.Resources = append(m.Resources, res)
	return w.err()
}

// spareAttrs is how many attributes the receiver adds to a resource.
const spareAttrs = 4

// resource reads a Resource message, whose attributes it puts into list.
func (c *checker) resource(list *[]Attr, b []byte) (attrs Attrs, dropped uint32, err error) {
	from := len(*list)
	w := walk{b: b}
	for w.next() {
		switch w.tag {
		case 1<<3 | bytesType:
			if len(*list)-from >= c.lim.Attributes {
				return nil, 0, tooManyAttributes("resource", c.lim.Attributes)
			}
			if _, err := c.attribute(w.v); err != nil {
				return nil, 0, err
			}
			if err := room(c, list, 1, attrBytes); err != nil {
				return nil, 0, err
			}
			a, ok := parseAttr(w.v)
			if !ok {
				return nil, 0, ErrOdd
			}
			*list = append(*list, a)
		case 2<<3 | varintType: // attributes that were dropped
			dropped = uint32(w.n)
		case 3<<3 | bytesType:
			if err := c.entityRef(w.v); err != nil {
				return nil, 0, err
			}
		default:
			return nil, 0, ErrOdd
		}
	}
	if err := w.err(); err != nil {
		return nil, 0, err
	}
	if err := room(c, list, spareAttrs, attrBytes); err != nil {
		return nil, 0, err
	}
	to := len(*list)
	*list = (*list)[:to+spareAttrs]
	return Attrs((*list)[from : to : to+spareAttrs]), dropped, nil
}

// entityRef has strings only: schema URL, type, keys.
func (c *checker) entityRef(b []byte) error {
	if err := c.element(); err != nil {
		return err
	}
	w := walk{b: b}
	for w.next() {
		switch w.tag {
		case 1<<3 | bytesType, 2<<3 | bytesType, 3<<3 | bytesType, 4<<3 | bytesType:
		default:
			return ErrOdd
		}
	}
	return w.err()
}

func (r *reader) scopeMetrics(b []byte) error {
	if err := r.element(); err != nil {
		return err
	}
	from := len(r.m.metrics)
	scope, described := "", false
	w := walk{b: b}
	for w.next() {
		var err error
		switch w.tag {
		case 1<<3 | bytesType:
			if described {
				return ErrOdd
			}
			described = true
			scope, err = r.scope(w.v)
		case 2<<3 | bytesType:
			err = r.metric(w.v)
		case 3<<3 | bytesType: // schema URL
		default:
			err = ErrOdd
		}
		if err != nil {
			return err
		}
	}
	for i := range r.m.metrics[from:] {
		r.m.metrics[from+i].Scope = scope
	}
	return w.err()
}

// scope returns the name of a scope.
func (r *reader) scope(b []byte) (name string, err error) {
	attributes := 0
	w := walk{b: b}
	for w.next() {
		switch w.tag {
		case 1<<3 | bytesType:
			name = view(w.v)
		case 2<<3 | bytesType: // version
		case 3<<3 | bytesType:
			if attributes++; attributes > r.lim.Attributes {
				return "", tooManyAttributes("scope", r.lim.Attributes)
			}
			if _, err := r.attribute(w.v); err != nil {
				return "", err
			}
		case 4<<3 | varintType: // attributes that were dropped
		default:
			return "", ErrOdd
		}
	}
	return name, w.err()
}

// typeOf says which field of a Metric holds points of which type.
var typeOf = [16]Type{5: Gauge, 7: Sum, 9: Histogram, 10: Exponential, 11: Summary}

func (r *reader) metric(b []byte) error {
	if err := r.element(); err != nil {
		return err
	}
	m := r.m
	if err := room(&r.checker, &m.metrics, 1, metricBytes); err != nil {
		return err
	}
	met := Metric{}
	attributes := 0
	var data []byte
	w := walk{b: b}
	for w.next() {
		switch field := w.tag >> 3; {
		case w.tag&7 != bytesType:
			return ErrOdd
		case field == 1:
			met.Name = view(w.v)
		case field == 2:
			met.Description = view(w.v)
		case field == 3:
			met.Unit = view(w.v)
		case field == 12: // metadata
			if attributes++; attributes > r.lim.Attributes {
				return tooManyAttributes("metric", r.lim.Attributes)
			}
			if _, err := r.attribute(w.v); err != nil {
				return err
			}
		case typeOf[field] == None || met.Type != None:
			return ErrOdd
		default:
			met.Type, data = typeOf[field], w.v
		}
	}
	if err := w.err(); err != nil {
		return err
	}
	if met.Type != None {
		if err := r.data(&met, data); err != nil {
			return err
		}
	}
	m.metrics = append(m.metrics, met)
	return nil
}

// data reads the points of a metric, in whose type the message data is.
func (r *reader) data(met *Metric, b []byte) error {
	if err := r.element(); err != nil {
		return err
	}
	from := len(r.m.points)
	w := walk{b: b}
	for w.next() {
		switch w.tag {
		case 1<<3 | bytesType:
			if err := r.point(met.Type, w.v); err != nil {
				return err
			}
		case 2<<3 | varintType:
			if met.Type == Gauge || met.Type == Summary {
				return ErrOdd
			}
			met.Temporality = Unspecified
			if t := int32(w.n); t == int32(Delta) || t == int32(Cumulative) {
				met.Temporality = Temporality(t)
			}
		case 3<<3 | varintType:
			if met.Type != Sum {
				return ErrOdd
			}
			met.Monotonic = w.n != 0
		default:
			return ErrOdd
		}
	}
	met.Points = r.m.points[from:len(r.m.points):len(r.m.points)]
	return w.err()
}
