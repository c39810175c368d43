package traces

// The format of a block on disk. Numbers are uvarints unless said otherwise,
// spans stand in the order of their traces:
//
//	+--------+-------+--------+-----+---------------------------+-------------+
//	| "bst1" | spans | traces | len | raw: trace ids (16 each), | zstd frame: |
//	|        |       |        |     | span ids (8 each), parent | columns     |
//	|        |       |        |     | and link ids              |             |
//	+--------+-------+--------+-----+---------------------------+-------------+
//
// Ids are random and do not compress; all else stands in columns, each a
// length and its bytes, in the order of the constants below, then one column
// for each pair of attribute key and type, in the order of colKeys:
//
//	+-----+----------+-----+----------+---
//	| len | column 0 | len | column 1 | …
//	+-----+----------+-----+----------+---
//
// The set of keys and types of a span, its shape, is one number.
const blockMagic = "bst1"

// Columns. The numbers are part of the format.
const (
	colStringSizes = iota
	colStrings
	colResources // service, schema, dropped, shape
	colScopes    // name, version, schema, dropped, shape
	colTraceRows // spans of each trace
	colStart     // varint: first of a trace against the trace before, others against the first
	colDuration  // varint of end-start, nanoseconds
	colName
	colKind // kind | status<<4, one byte
	colRare // 0, or 1 and flags, state, message, dropped attributes, events, links
	colResource
	colScope
	colParent // 0 none, 1 raw, n+2: the n-th span of the trace
	colShape
	colEvents    // number of events of each span
	colEventTime // varint against the span's start
	colEventName
	colEventRest // dropped, shape
	colLinks     // number of links of each span
	colLinkRest  // state, flags, dropped, shape
	colKeys      // pairs of key and type, one for each value column
	colShapes    // each: number of attributes, then the value column of each
	numCols
)

const (
	parentNone = 0
	parentRaw  = 1
	parentRef  = 2
	// parentScan bounds the search for a parent among the spans of its trace,
	// so that one huge trace does not cost the square of its size.
	parentScan = 64
)

type colKey struct {
	key uint32
	typ valueType
}
