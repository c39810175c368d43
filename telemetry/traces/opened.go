package traces

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/klauspost/compress/zstd"
	"go.opentelemetry.io/collector/pdata/pcommon"
)

var errBadBlock = errors.New("block is malformed")

// maxPacked bounds the columns of a block when inflated. A block is closed at
// maxBlockBytes, but one batch, of any size a receiver lets in, may go over.
const maxPacked = 256 << 20

// zstdDecoder is safe for concurrent use by DecodeAll.
var zstdDecoder = must(zstd.NewReader(nil, zstd.WithDecoderConcurrency(4), zstd.WithDecoderMaxMemory(maxPacked)))

// opened is a block read back: its dictionaries read, its spans still in
// compressed columns, of which each read inflates what it needs. It never
// changes and is safe for concurrent use.
type opened struct {
	spans, traces, strings int
	ids                    []byte
	frames                 []frame
	types                  []colKey
	shapes                 [][]uint32
	// base has the strings of colNames, the resources and scopes.
	base block
	// groups is the number of values that resources and scopes have in each
	// column; those of spans come after.
	groups []int
}

// frame is a column or some strings.
type frame struct {
	data []byte
	size int // when inflated
}

// inflate returns what the frame holds; buf is for it to lie in.
func (f frame) inflate(buf *[]byte) ([]byte, error) {
	if len(f.data) == f.size {
		return f.data, nil
	}
	out, err := zstdDecoder.DecodeAll(f.data, (*buf)[:0])
	if cap(out) > cap(*buf) {
		*buf = out
	}
	if err == nil && len(out) != f.size {
		err = errShort
	}
	return out, err
}

// openBlock reads what encodeBlock made and keeps no reference to data. Columns
// that are malformed are found when they are read.
func openBlock(data []byte) (*opened, error) {
	o, err := tryOpen(bytes.Clone(data))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errBadBlock, err)
	}
	return o, nil
}

func tryOpen(data []byte) (*opened, error) {
	r := reader{b: data}
	if string(r.take(uint64(len(blockMagic)))) != blockMagic {
		return nil, errors.New("unknown format")
	}
	// Spans and traces have ids; a string or a column has a byte of its own.
	o := &opened{spans: r.count(8), traces: r.count(16)}
	o.strings = int(r.below(maxPacked))
	values := r.count(1)
	o.ids = r.bytes()
	if o.traces > o.spans || 16*o.traces+8*o.spans > len(o.ids) {
		return nil, errors.Join(errShort, r.err)
	}
	chunks := (o.strings + chunkStrings - 1) / chunkStrings
	if numCols+values+chunks > len(r.b)/2 {
		return nil, errShort
	}
	sum := 0
	stored := make([]uint64, numCols+values+chunks)
	o.frames = make([]frame, len(stored))
	for i := range stored {
		o.frames[i].size = int(r.below(maxPacked))
		stored[i] = r.uvarint()
		if sum += o.frames[i].size; sum > maxPacked {
			return nil, errShort
		}
	}
	for i, n := range stored {
		o.frames[i].data = r.take(n)
	}
	if r.err != nil {
		return nil, r.err
	}
	// Each string has a byte in the sizes of its chunk.
	for i := range chunks {
		if o.frames[numCols+values+i].size < min(chunkStrings, o.strings-i*chunkStrings) {
			return nil, errShort
		}
	}
	return o, o.dictionaries(values)
}

// bytes is the memory the block takes, about.
func (o *opened) bytes() int64 {
	n := len(o.ids) + 16*len(o.base.strs.list) + 16*len(o.base.attrs) + 48*len(o.frames)
	for _, f := range o.frames {
		n += len(f.data)
	}
	return int64(n)
}

// dictionaries reads what all spans refer to.
func (o *opened) dictionaries(values int) error {
	o.groups = make([]int, values)
	d := o.cursor()
	defer d.release()
	if err := d.need(colNames, colResources, colScopes, colKeys, colShapes); err != nil {
		return err
	}
	for keys := &d.cols[colKeys]; len(keys.b) > 0; {
		o.types = append(o.types, colKey{keys.below(o.strings), valueType(keys.below(int(numTypes)))})
	}
	if len(o.types) != values {
		return errShort
	}
	for sh := &d.cols[colShapes]; len(sh.b) > 0; {
		shape := make([]uint32, sh.below(maxAttrs+1))
		for i := range shape {
			shape[i] = sh.below(values)
		}
		o.shapes = append(o.shapes, shape)
		if sh.err != nil {
			return sh.err
		}
	}
	if err := d.names(); err != nil {
		return err
	}
	d.grouped = true
	if err := errors.Join(d.readGroups(), d.failed()); err != nil {
		return err
	}
	o.base = *d.b
	o.groups = d.read
	return nil
}

// decodeBlock decodes all spans of a block. The block has what reading needs:
// not the indexes of a block being filled.
func decodeBlock(data []byte) (*block, error) {
	o, err := openBlock(data)
	if err != nil {
		return nil, err
	}
	return o.block()
}

// find returns the number of a trace.
func (o *opened) find(id pcommon.TraceID) (t int, ok bool) {
	for ids := o.ids[:16*o.traces]; len(ids) > 0; ids = ids[16:] {
		if [16]byte(ids) == id {
			return t, true
		}
		t++
	}
	return 0, false
}

// pick decodes the spans of some traces, nil where there are none.
func (o *opened) pick(ids ...pcommon.TraceID) (*block, error) {
	var traces []int
	for _, id := range ids {
		if t, ok := o.find(id); ok {
			traces = append(traces, t)
		}
	}
	if len(traces) == 0 {
		return nil, nil
	}
	slices.Sort(traces)
	return o.rows(slices.Compact(traces)...)
}

// block decodes all spans.
func (o *opened) block() (*block, error) {
	all := make([]int, o.traces)
	for t := range all {
		all[t] = t
	}
	return o.rows(all...)
}

// rows decodes the spans of traces, whose numbers rise.
func (o *opened) rows(traces ...int) (*block, error) {
	b, err := o.tryRows(traces)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errBadBlock, err)
	}
	return b, nil
}

func (o *opened) tryRows(traces []int) (*block, error) {
	d := o.cursor()
	defer d.release()
	if err := d.need(allCols...); err != nil {
		return nil, err
	}
	d.b.minStart = math.MaxUint64
	if len(traces) == o.traces {
		d.b.spans = make([]span, 0, o.spans)
	}
	for _, t := range traces {
		if err := d.skip(t - d.trace); err != nil {
			return nil, err
		}
		if err := d.spans(); err != nil {
			return nil, err
		}
	}
	if err := d.failed(); err != nil {
		return nil, err
	}
	if d.trace == o.traces && d.row != o.spans {
		return nil, errShort
	}
	return d.b, d.texts()
}

var allCols = func() (all []int) {
	for c := colTraceRows; c < colKeys; c++ {
		all = append(all, c)
	}
	return all
}()

func (o *opened) traceID(t int) pcommon.TraceID { return pcommon.TraceID(o.ids[16*t : 16*t+16]) }

// cursor returns a decoder before the first row, without columns.
func (o *opened) cursor() *decoder {
	b := o.base
	if b.strs.shared = b.strs.list != nil; !b.strs.shared {
		b.strs.list = make([]string, o.strings)
	}
	b.attrs = slices.Clip(b.attrs)
	return &decoder{
		o: o, b: &b, raw: reader{b: o.ids[16*o.traces+8*o.spans:]},
		values: make([]reader, len(o.groups)), read: make([]int, len(o.groups)), open: make([]bool, len(o.groups)),
		chunks: make([]bool, (o.strings+chunkStrings-1)/chunkStrings),
	}
}
