package otlp

import (
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
)

// This file counts what a protobuf request would become, before it becomes it.
//
// Two bytes on the wire, an empty Span, are two hundred in memory: a size limit
// alone lets 4 MiB allocate 660. The scan walks the tags of a request, which
// allocates nothing and costs a twentieth of decoding, counts its elements and
// estimates the memory that decoding will take.

// limits bounds one request. All are inclusive.
type limits struct {
	elements   int   // resources, scopes, metrics, points, spans, events, links, exemplars …
	attributes int   // of one parent
	events     int   // events and links of one span
	depth      int   // of nested values
	cost       int64 // bytes of memory, estimated
}

// tally is what a scan found.
type tally struct {
	elements int
	items    int // data points or spans
	cost     int64
}

// kind is one message type of the OTLP schema.
type kind uint8

const (
	none kind = iota
	metricsRequest
	tracesRequest
	resourceMetrics
	resourceSpans
	resource
	entityRef
	scopeMetrics
	scopeSpans
	scope
	metric
	gauge
	sum
	histogram
	expHistogram
	summary
	numberPoint
	histogramPoint
	expHistogramPoint
	expBuckets
	summaryPoint
	quantile
	exemplar
	span
	event
	link
	status
	keyValue
	anyValue
	arrayValue
	kvList
	numKinds
)

// schema says, for each kind, what one costs and which fields hold messages or
// numbers that grow when decoded. Costs are the sizes of the decoded structs,
// with the pointer to them, and for those that stand in slices by value twice
// that, since a growing slice is copied.
//
// Source: opentelemetry-proto v1, and the structs of collector/pdata v1.68.
var schema = [numKinds]struct {
	name    string
	cost    int64
	element bool // counts towards limits.elements
	item    bool // is a data point or a span
	// perField is the cost of each field of the message, for oneofs that
	// allocate for every occurrence.
	perField int64
	// numbers is the field, if any, whose bytes may each become an 8-byte
	// number.
	numbers protowire.Number
	// strings are the fields of repeated strings, 16 bytes each and more.
	strings [2]protowire.Number
	child   map[protowire.Number]kind // only read at init, see children
}{
	metricsRequest:  {name: "request", child: fields{1: resourceMetrics}},
	tracesRequest:   {name: "request", child: fields{1: resourceSpans}},
	resourceMetrics: {name: "resource", cost: 160, element: true, child: fields{1: resource, 2: scopeMetrics, 1000: scopeMetrics}},
	resourceSpans:   {name: "resource", cost: 160, element: true, child: fields{1: resource, 2: scopeSpans, 1000: scopeSpans}},
	resource:        {name: "resource", child: fields{1: keyValue, 3: entityRef}},
	entityRef:       {name: "entity reference", cost: 104, element: true, strings: [2]protowire.Number{3, 4}},
	scopeMetrics:    {name: "scope", cost: 152, element: true, child: fields{1: scope, 2: metric}},
	scopeSpans:      {name: "scope", cost: 152, element: true, child: fields{1: scope, 2: span}},
	scope:           {name: "scope", child: fields{3: keyValue}},
	metric:          {name: "metric", cost: 112, element: true, child: fields{5: gauge, 7: sum, 9: histogram, 10: expHistogram, 11: summary, 12: keyValue}},
	gauge:           {name: "gauge", cost: 40, element: true, child: fields{1: numberPoint}},
	sum:             {name: "sum", cost: 48, element: true, child: fields{1: numberPoint}},
	histogram:       {name: "histogram", cost: 48, element: true, child: fields{1: histogramPoint}},
	expHistogram:    {name: "exponential histogram", cost: 48, element: true, child: fields{1: expHistogramPoint}},
	summary:         {name: "summary", cost: 40, element: true, child: fields{1: summaryPoint}},
	numberPoint:     {name: "data point", cost: 128, element: true, item: true, perField: 8, child: fields{7: keyValue, 5: exemplar}},
	histogramPoint:  {name: "data point", cost: 192, element: true, item: true, child: fields{9: keyValue, 8: exemplar}},
	// Its buckets stand in it by value: fields of 8 and 9 cost nothing more.
	expHistogramPoint: {name: "data point", cost: 256, element: true, item: true, child: fields{1: keyValue, 8: expBuckets, 9: expBuckets, 11: exemplar}},
	expBuckets:        {name: "buckets", numbers: 2},
	summaryPoint:      {name: "data point", cost: 120, element: true, item: true, child: fields{7: keyValue, 6: quantile}},
	quantile:          {name: "quantile", cost: 32, element: true},
	exemplar:          {name: "exemplar", cost: 192, element: true, perField: 8, child: fields{7: keyValue}},
	span:              {name: "span", cost: 240, element: true, item: true, child: fields{9: keyValue, 11: event, 13: link, 15: status}},
	event:             {name: "event", cost: 80, element: true, child: fields{3: keyValue}},
	link:              {name: "link", cost: 96, element: true, child: fields{4: keyValue}},
	status:            {name: "status"},
	keyValue:          {name: "attribute", cost: 96, child: fields{2: anyValue}},
	anyValue:          {name: "value", perField: 32, child: fields{5: arrayValue, 6: kvList}},
	arrayValue:        {name: "array", cost: 24, child: fields{1: anyValue}},
	kvList:            {name: "map", cost: 24, child: fields{1: keyValue}},
}

type fields = map[protowire.Number]kind

// children is schema's child maps as arrays, since the scan looks one up for
// every field. Field 1000, of requests older than 2022, has the last place.
var children = func() (c [numKinds][18]kind) {
	for k, s := range schema {
		for n, child := range s.child {
			c[k][childSlot(n)] = child
		}
	}
	return c
}()

func childSlot(n protowire.Number) int {
	switch {
	case n < 17:
		return int(n)
	case n == 1000:
		return 17
	}
	return 0
}

// arrayElementCost is added for values in arrays, which stand there by value.
const arrayElementCost = 40

// scan walks one request of kind root (metricsRequest or tracesRequest) and
// returns what it found. A request over a limit is a refusal with status 413,
// one that is not protobuf a refusal with status 400. It keeps no reference to
// b and allocates nothing but errors.
func scan(b []byte, root kind, lim limits) (tally, error) {
	s := scanner{lim: lim}
	s.cost = int64(len(b)) // strings and bytes are copied
	err := s.message(b, root, 0)
	return s.tally, err
}

type scanner struct {
	tally
	lim limits
}

// message scans the fields of one message. Recursion is bounded by the schema,
// and by depth where values nest.
func (s *scanner) message(b []byte, k kind, depth int) error {
	var (
		sch        = &schema[k]
		attributes int
		events     int
	)
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return malformed(sch.name, protowire.ParseError(n))
		}
		b = b[n:]
		if sch.perField != 0 {
			s.cost += sch.perField
		}
		if typ != protowire.BytesType {
			n = protowire.ConsumeFieldValue(num, typ, b)
			if n < 0 {
				return malformed(sch.name, protowire.ParseError(n))
			}
			if sch.numbers != 0 {
				s.cost += 16 // a number outside a packed list, in a growing slice
			}
			b = b[n:]
			continue
		}
		v, n := protowire.ConsumeBytes(b)
		if n < 0 {
			return malformed(sch.name, protowire.ParseError(n))
		}
		b = b[n:]
		child := children[k][childSlot(num)]
		if child == none {
			s.leaf(sch.numbers, sch.strings, num, len(v))
			if s.cost > s.lim.cost {
				return s.tooCostly()
			}
			continue
		}
		d := depth
		switch child {
		case keyValue:
			if attributes++; attributes > s.lim.attributes {
				return tooMany("attributes of one "+sch.name, s.lim.attributes)
			}
		case event, link:
			if events++; events > s.lim.events {
				return tooMany("events and links of one span", s.lim.events)
			}
		case arrayValue, kvList:
			if d++; d > s.lim.depth {
				return tooMany("levels of nested values", s.lim.depth)
			}
		case anyValue:
			if k == arrayValue {
				s.cost += arrayElementCost
			}
		}
		if err := s.count(child); err != nil {
			return err
		}
		if err := s.message(v, child, d); err != nil {
			return err
		}
	}
	return nil
}

// count books one message.
func (s *scanner) count(k kind) error {
	sch := &schema[k]
	s.cost += sch.cost
	if sch.item {
		s.items++
	}
	if sch.element {
		if s.elements++; s.elements > s.lim.elements {
			return tooMany("elements (resources, scopes, metrics, points, spans …)", s.lim.elements)
		}
	}
	if s.cost > s.lim.cost {
		return s.tooCostly()
	}
	return nil
}

// leaf books a field of bytes that holds no message.
func (s *scanner) leaf(numbers protowire.Number, strings [2]protowire.Number, num protowire.Number, size int) {
	switch {
	case numbers == num:
		s.cost += int64(size) * 8
	case strings[0] == num || strings[1] == num:
		s.cost += 48
	}
}

func (s *scanner) tooCostly() error {
	return refuse(tooLarge, "the request would take more than %d bytes to decode: send smaller batches", s.lim.cost)
}

func tooMany(what string, limit int) error {
	return refuse(tooLarge, "the request has more than %d %s: send smaller batches", limit, what)
}

func malformed(where string, err error) error {
	return refuse(badRequest, "the request is not OTLP protobuf: %w", fmt.Errorf("%s: %w", where, err))
}
