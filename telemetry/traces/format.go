package traces

// The format of a block on disk. Numbers are uvarints, spans stand in the order
// of their traces:
//
//	+--------+-------+--------+---------+--------------+-----+-----------+--------+
//	| "bst2" | spans | traces | strings | value        | len | raw: ids  | frames |
//	|        |       |        |         | columns      |     |           |        |
//	+--------+-------+--------+---------+--------------+-----+-----------+--------+
//
// Ids are random and do not compress: trace ids (16 bytes each), span ids (8
// each), then parent and link ids. All else stands in columns, each compressed
// alone, so that a search inflates few of them:
//
//	+------+--------+------+--------+---   +---------+---------+---
//	| size | stored | size | stored | …    | frame 0 | frame 1 | …
//	+------+--------+------+--------+---   +---------+---------+---
//
// The frames are the columns in the order of the constants below, then one for
// each pair of attribute key and type in the order of colKeys, then the strings,
// 1,024 to a frame: their lengths, then their bytes. A frame is zstd where that is
// smaller than what it holds; else stored equals size. The strings that many
// spans use, such as names and keys, stand in colNames as well, since most reads
// need no others.
//
// The set of keys and types of a span, its shape, is one number.
const blockMagic = "bst2"

// Columns. The numbers are part of the format.
const (
	colNames     = iota // number, length and bytes of strings that many spans use
	colResources        // service, schema, dropped, shape
	colScopes           // name, version, schema, dropped, shape
	colTraceRows        // spans of each trace
	colStart            // varint: first of a trace against the trace before, others against the first
	colDuration         // varint of end-start, nanoseconds
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

// chunkStrings is the number of strings of a frame, commonUses the number of
// uses from which a string stands in colNames.
const (
	chunkStrings = 1024
	commonUses   = 8
)

type colKey struct {
	key uint32
	typ valueType
}
