// Package wire reads OTLP metrics and spans where they lie: in the bytes of the
// request that brought them. A request becomes a flat list of points, or of spans,
// in memory that is used again and again, whose strings, attributes and buckets
// are views of these bytes. Nothing is allocated for a request, and attributes are
// not decoded at all: senders encode a series the same way each time, so that its
// readers know it by the bytes (Point.Key).
//
// It reads the form that encoders write. What is protobuf all the same, but
// odd (a message in two parts, groups, fields nobody knows), is ErrOdd; the
// caller then brings it into the usual form by way of pdata. What pdata would
// refuse is never taken; a fuzz test compares the two.
//
// It leaves to others who the sender is (otlp) and what the points mean
// (telemetry). It has no dependency on either, so that both may use it.
package wire

// Type is the type of a metric's points.
type Type uint8

// The types of points.
const (
	None Type = iota
	Gauge
	Sum
	Histogram
	Exponential
	Summary
)

// Temporality says what the values of a sum or histogram count from.
type Temporality uint8

// The temporalities of OTLP; any other number is Unspecified.
const (
	Unspecified Temporality = iota
	Delta
	Cumulative
)

// Metrics is one request. All it holds, strings too, is valid until the next
// Read or the end of the bytes that were read: whoever keeps a part copies it.
// The zero value is ready. Not safe for concurrent use, but for reading.
type Metrics struct {
	Resources []Resource

	// What the slices above and below lie in.
	attrs     []Attr
	metrics   []Metric
	points    []Point
	exemplars []Exemplar
	quantiles []Quantile
}

// Resource is what one sender says in a request.
type Resource struct {
	// Attrs may be changed: it is the reader's own list.
	Attrs   Attrs
	Metrics []Metric // of all scopes, in order

	raw  []byte // of the ResourceMetrics message
	desc []byte // of the Resource message in it
	// thinned says that points were taken out by RemovePoints.
	thinned bool
}

// Metric is one metric of one scope.
type Metric struct {
	Scope       string // the scope's name
	Name        string
	Description string
	Unit        string
	Type        Type
	Temporality Temporality
	Monotonic   bool
	Points      []Point
}

// Point is one data point of any type. Only the fields of its metric's type are
// set.
type Point struct {
	// Key is the encoded attributes: the identity of the point within its
	// metric. Equal attributes in another order, or otherwise encoded, have
	// other bytes.
	Key PointAttrs
	// Reserved says that a key begins with Binnacle's own prefix.
	Reserved bool
	// NoValue is the flag for no recorded value.
	NoValue bool

	Start, Time uint64 // Unix ns; 0 is unknown

	Value float64 // of numbers

	// Of histograms and summaries. A sum that is not set is 0.
	Count uint64
	Sum   float64

	Counts Fixed64s // of explicit buckets
	Bounds Fixed64s // their upper bounds, as float64

	// Of exponential buckets.
	Scale         int32
	Zero          uint64
	ZeroThreshold float64
	Positive      Buckets
	Negative      Buckets

	Exemplars []Exemplar
	Quantiles []Quantile // of summaries

	// Cell is where a reader that knows the point keeps what another reader
	// found out about it; nil where no reader does. See Cell.
	Cell *Cell
}

// A Cell carries what one reader of points knows of a series from request to
// request, in an entry of another that finds the series by its bytes, for senders
// of one origin and equal resource attributes, scope, metric and type. Who
// reads and writes Of guards it by a lock of its own: requests may share a cell.
type Cell struct{ Of any }

// Buckets is one side of an exponential histogram.
type Buckets struct {
	Offset int32
	Counts Varints
}

// Exemplar is one observation.
type Exemplar struct {
	Time     uint64 // Unix ns; 0 is unknown
	Value    float64
	HasValue bool
	TraceID  []byte // 16 bytes or none
	SpanID   []byte // 8 bytes or none
	Attrs    PointAttrs
}

// Quantile is one value of a summary.
type Quantile struct{ Quantile, Value float64 }

// Points returns how many points m has.
func (m *Metrics) Points() (n int) {
	for i := range m.Resources {
		n += m.Resources[i].Points()
	}
	return n
}

// Points returns how many points r has.
func (r *Resource) Points() (n int) {
	for i := range r.Metrics {
		n += len(r.Metrics[i].Points)
	}
	return n
}

// RemoveResources takes out the resources that f returns true for.
func (m *Metrics) RemoveResources(f func(*Resource) bool) {
	kept := m.Resources[:0]
	for i := range m.Resources {
		if !f(&m.Resources[i]) {
			kept = append(kept, m.Resources[i])
		}
	}
	m.Resources = kept
}

// ReservedKey returns the first reserved key of r's points, or "".
func (r *Resource) ReservedKey() string {
	for i := range r.Metrics {
		for j := range r.Metrics[i].Points {
			if p := &r.Metrics[i].Points[j]; p.Reserved {
				for a := range p.Key.All() {
					if reserved(a.Key) {
						return a.Key
					}
				}
			}
		}
	}
	return ""
}

// RemoveReserved takes the points out that have reserved attributes and returns
// how many there were.
func (r *Resource) RemoveReserved() (removed int) {
	for i := range r.Metrics {
		m := &r.Metrics[i]
		kept := m.Points[:0]
		for j := range m.Points {
			if m.Points[j].Reserved {
				removed++
				continue
			}
			if len(kept) < j {
				kept = append(kept, m.Points[j])
			} else {
				kept = m.Points[:j+1]
			}
		}
		m.Points = kept
	}
	r.thinned = r.thinned || removed > 0
	return removed
}

// reset empties m and keeps its memory.
func (m *Metrics) reset() {
	*m = Metrics{
		Resources: m.Resources[:0],
		attrs:     m.attrs[:0],
		metrics:   m.metrics[:0],
		points:    m.points[:0],
		exemplars: m.exemplars[:0],
		quantiles: m.quantiles[:0],
	}
}

// Bytes returns the size of the memory that m holds for requests to come.
func (m *Metrics) Bytes() int64 {
	return int64(cap(m.Resources))*resourceBytes + int64(cap(m.attrs))*attrBytes + int64(cap(m.metrics))*metricBytes +
		int64(cap(m.points))*pointBytes + int64(cap(m.exemplars))*exemplarBytes + int64(cap(m.quantiles))*quantileBytes
}
