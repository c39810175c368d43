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
	for i := 0; i < len(b); {
		if b[i] != 1<<3|bytesType {
			return ErrOdd
		}
		v, next := bytesAt(b, i+1)
		if next < 0 {
			return ErrOdd
		}
		i = next
		if err := r.resourceMetrics(v); err != nil {
			return err
		}
	}
	return nil
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
	for i := 0; i < len(b); { // pdata writes the resource last, protobuf first
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
			res.desc = v
			res.Attrs, _, err = r.resource(&m.attrs, v)
		case 2<<3 | bytesType:
			err = r.scopeMetrics(v)
		case 3<<3 | bytesType: // schema URL
		default:
			return ErrOdd
		}
		if err != nil {
			return err
		}
		i = next
	}
	res.Metrics = m.metrics[from:len(m.metrics):len(m.metrics)]
	m.Resources = append(m.Resources, res)
	return nil
}

// spareAttrs is how many attributes the receiver adds to a resource.
const spareAttrs = 4

// resource reads a Resource message, whose attributes it puts into list.
func (c *checker) resource(list *[]Attr, b []byte) (attrs Attrs, dropped uint32, err error) {
	from := len(*list)
	for i := 0; i < len(b); {
		if b[i] == 2<<3|varintType { // attributes that were dropped
			var n uint64
			if n, i = varint(b, i+1); i < 0 {
				return nil, 0, ErrOdd
			}
			dropped = uint32(n)
			continue
		}
		v, next := bytesAt(b, i+1)
		if next < 0 {
			return nil, 0, ErrOdd
		}
		switch b[i] {
		case 1<<3 | bytesType:
			if len(*list)-from >= c.lim.Attributes {
				return nil, 0, tooManyAttributes("resource", c.lim.Attributes)
			}
			if _, err := c.attribute(v); err != nil {
				return nil, 0, err
			}
			if err := room(c, list, 1, attrBytes); err != nil {
				return nil, 0, err
			}
			a, ok := parseAttr(v)
			if !ok {
				return nil, 0, ErrOdd
			}
			*list = append(*list, a)
		case 3<<3 | bytesType:
			if err := c.entityRef(v); err != nil {
				return nil, 0, err
			}
		default:
			return nil, 0, ErrOdd
		}
		i = next
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
	for i := 0; i < len(b); {
		switch b[i] {
		case 1<<3 | bytesType, 2<<3 | bytesType, 3<<3 | bytesType, 4<<3 | bytesType:
		default:
			return ErrOdd
		}
		if _, i = bytesAt(b, i+1); i < 0 {
			return ErrOdd
		}
	}
	return nil
}

func (r *reader) scopeMetrics(b []byte) error {
	if err := r.element(); err != nil {
		return err
	}
	from := len(r.m.metrics)
	scope, described := "", false
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
			scope, err = r.scope(v)
		case 2<<3 | bytesType:
			err = r.metric(v)
		case 3<<3 | bytesType: // schema URL
		default:
			return ErrOdd
		}
		if err != nil {
			return err
		}
		i = next
	}
	for i := range r.m.metrics[from:] {
		r.m.metrics[from+i].Scope = scope
	}
	return nil
}

// scope returns the name of a scope.
func (r *reader) scope(b []byte) (name string, err error) {
	attributes := 0
	for i := 0; i < len(b); {
		if b[i] == 4<<3|varintType { // attributes that were dropped
			if _, i = varint(b, i+1); i < 0 {
				return "", ErrOdd
			}
			continue
		}
		v, next := bytesAt(b, i+1)
		if next < 0 {
			return "", ErrOdd
		}
		switch b[i] {
		case 1<<3 | bytesType:
			name = view(v)
		case 2<<3 | bytesType: // version
		case 3<<3 | bytesType:
			if attributes++; attributes > r.lim.Attributes {
				return "", tooManyAttributes("scope", r.lim.Attributes)
			}
			if _, err := r.attribute(v); err != nil {
				return "", err
			}
		default:
			return "", ErrOdd
		}
		i = next
	}
	return name, nil
}

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
	for i := 0; i < len(b); {
		v, next := bytesAt(b, i+1)
		if next < 0 {
			return ErrOdd
		}
		var of Type
		switch b[i] {
		case 1<<3 | bytesType:
			met.Name = view(v)
		case 2<<3 | bytesType:
			met.Description = view(v)
		case 3<<3 | bytesType:
			met.Unit = view(v)
		case 5<<3 | bytesType:
			of = Gauge
		case 7<<3 | bytesType:
			of = Sum
		case 9<<3 | bytesType:
			of = Histogram
		case 10<<3 | bytesType:
			of = Exponential
		case 11<<3 | bytesType:
			of = Summary
		case 12<<3 | bytesType: // metadata
			if attributes++; attributes > r.lim.Attributes {
				return tooManyAttributes("metric", r.lim.Attributes)
			}
			if _, err := r.attribute(v); err != nil {
				return err
			}
		default:
			return ErrOdd
		}
		if of != None {
			if met.Type != None {
				return ErrOdd
			}
			met.Type, data = of, v
		}
		i = next
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
	for i := 0; i < len(b); {
		switch tag := b[i]; tag {
		case 1<<3 | bytesType:
			v, next := bytesAt(b, i+1)
			if next < 0 {
				return ErrOdd
			}
			i = next
			if err := r.point(met.Type, v); err != nil {
				return err
			}
		case 2<<3 | varintType, 3<<3 | varintType:
			var n uint64
			if n, i = varint(b, i+1); i < 0 {
				return ErrOdd
			}
			switch {
			case met.Type == Gauge || met.Type == Summary || tag == 3<<3 && met.Type != Sum:
				return ErrOdd
			case tag == 3<<3:
				met.Monotonic = n != 0
			case int32(n) == int32(Delta) || int32(n) == int32(Cumulative):
				met.Temporality = Temporality(n)
			default:
				met.Temporality = Unspecified
			}
		default:
			return ErrOdd
		}
	}
	met.Points = r.m.points[from:len(r.m.points):len(r.m.points)]
	return nil
}
