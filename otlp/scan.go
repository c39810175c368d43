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
	for i := 0; i < len(b); {
		num, typ, n := consumeTag(b[i:])
		if n < 0 {
			return malformed(sch.name, protowire.ParseError(n))
		}
		i += n
		s.cost += sch.perField
		if typ != protowire.BytesType {
			n = consumeNumber(num, typ, b[i:])
			if n < 0 {
				return malformed(sch.name, protowire.ParseError(n))
			}
			if sch.numbers != 0 {
				s.cost += 16 // a number outside a packed list, in a growing slice
			}
			i += n
			continue
		}
		size, n := consumeSize(b[i:])
		if n < 0 {
			return malformed(sch.name, protowire.ParseError(n))
		}
		i += n
		v := b[i : i+size]
		i += size
		child := children[k][childSlot(num)]
		if child == none {
			s.leaf(sch.numbers, sch.strings, num, len(v))
			if s.cost > s.lim.cost {
				return tooCostly(s.lim.cost)
			}
			continue
		}
		d := depth
		switch child {
		case keyValue:
			if attributes++; attributes > s.lim.attributes {
				return tooMany("attributes of one "+sch.name, s.lim.attributes)
			}
			if plainAttribute(v) {
				s.cost += schema[keyValue].cost + schema[anyValue].perField
				continue // at most limits.attributes of them between two looks at the cost
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

// plainAttribute recognizes, without recursion, what nearly every attribute is:
// a short key and then a short value that is a string, a bool or a number.
func plainAttribute(b []byte) bool {
	const keyTag, valueTag = 1<<3 | 2, 2<<3 | 2
	if len(b) < 2 || b[0] != keyTag || b[1] >= 0x80 || 2+int(b[1])+2 > len(b) {
		return false
	}
	v := b[2+int(b[1]):]
	if v[0] != valueTag || v[1] >= 0x80 || int(v[1]) != len(v)-2 || len(v) < 4 {
		return false
	}
	switch v = v[2:]; v[0] {
	case 1<<3 | 2: // string
		return v[1] < 0x80 && int(v[1]) == len(v)-2
	case 2 << 3, 3 << 3: // bool, int
		for _, c := range v[1 : len(v)-1] {
			if c < 0x80 {
				return false
			}
		}
		return len(v) <= 11 && v[len(v)-1] < 0x80
	case 4<<3 | 1: // double
		return len(v) == 9
	}
	return false
}

// consumeTag, consumeSize and consumeNumber do what protowire does, with the
// short forms that make up nearly all of a request inlined: they run for every
// field.

func consumeTag(b []byte) (protowire.Number, protowire.Type, int) {
	if b[0] < 0x80 && b[0] >= 8 {
		return protowire.Number(b[0] >> 3), protowire.Type(b[0] & 7), 1
	}
	return protowire.ConsumeTag(b)
}

// consumeSize returns the size of the bytes that follow the first n of b, all
// of which are there, or n < 0.
func consumeSize(b []byte) (size, n int) {
	if len(b) > 0 && b[0] < 0x80 {
		size, n = int(b[0]), 1
	} else {
		v, m := protowire.ConsumeVarint(b)
		if m < 0 {
			return 0, m
		}
		if v > uint64(len(b)) {
			return 0, errCodeTruncated
		}
		size, n = int(v), m
	}
	if size > len(b)-n {
		return 0, errCodeTruncated
	}
	return size, n
}

// errCodeTruncated is what protowire.ParseError turns into io.ErrUnexpectedEOF.
const errCodeTruncated = -1

func consumeNumber(num protowire.Number, typ protowire.Type, b []byte) int {
	switch {
	case typ == protowire.Fixed64Type && len(b) >= 8:
		return 8
	case typ == protowire.VarintType && len(b) > 0 && b[0] < 0x80:
		return 1
	}
	return protowire.ConsumeFieldValue(num, typ, b)
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
		return tooCostly(s.lim.cost)
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

func tooCostly(limit int64) error {
	return refuse(tooLarge, "the request would take more than %d bytes to decode: send smaller batches", limit)
}

func tooMany(what string, limit int) error {
	return refuse(tooLarge, "the request has more than %d %s: send smaller batches", limit, what)
}

func malformed(where string, err error) error {
	return refuse(badRequest, "the request is not OTLP protobuf: %w", fmt.Errorf("%s: %w", where, err))
}
