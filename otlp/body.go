package otlp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// firstRead is the size of the first buffer of a body; most bodies fit.
const firstRead = 64 << 10

// keepBody is the largest buffer that goes back to the pool, so that one large
// request does not pin its memory for good.
const keepBody = 1 << 20

// bodyPool reads bodies, and recycles buffers and decompressors.
type bodyPool struct {
	total, stall time.Duration // bodyTime and stallTime

	buf  sync.Pool // *[]byte
	gzip sync.Pool // *gzip.Reader
	zstd sync.Pool // *zstd.Decoder
}

func (p *bodyPool) get() []byte {
	if b, ok := p.buf.Get().(*[]byte); ok {
		return (*b)[:0]
	}
	return make([]byte, 0, firstRead)
}

func (p *bodyPool) put(b []byte) {
	if cap(b) > 0 && cap(b) <= keepBody {
		p.buf.Put(&b)
	}
}

// read returns the inflated body of req, at most limit bytes on the wire and
// inflated. Its memory comes from the pool and goes back by put.
//
// The share grows with what has come, not with what Content-Length announces:
// a sender that announces much and sends nothing holds nothing.
func (p *bodyPool) read(ctx context.Context, w http.ResponseWriter, req *http.Request, limit int64, sh *share) ([]byte, error) {
	if req.ContentLength > limit {
		return nil, refuse(tooLarge, "the body has %d bytes, more than %d: send smaller batches", req.ContentLength, limit)
	}
	wire := http.MaxBytesReader(w, &movingBody{ReadCloser: req.Body, rc: http.NewResponseController(w), stall: p.stall, end: time.Now().Add(p.total)}, limit)
	switch enc := req.Header.Get("Content-Encoding"); enc {
	case "", "identity":
		return p.readAll(ctx, wire, limit, sh)
	case "gzip":
		return p.readGzip(ctx, wire, limit, sh)
	case "zstd":
		return p.readZstd(ctx, wire, limit, sh)
	default:
		return nil, refuse(badMedia, "Content-Encoding %q is not supported: use gzip, zstd or none", enc)
	}
}

const (
	// bodyTime is how long a body may take: 16 MiB in 30 s ask for 4.5 Mbit/s;
	// slower senders send smaller batches.
	bodyTime = 30 * time.Second
	// stallTime is how long it may stop coming: what has come takes memory that
	// others wait for.
	stallTime = 5 * time.Second
)

// movingBody is a body that must keep coming.
type movingBody struct {
	io.ReadCloser
	rc    *http.ResponseController
	stall time.Duration
	end   time.Time
	set   time.Time // when the deadline was moved last
}

func (b *movingBody) Read(p []byte) (int, error) {
	if now := time.Now(); now.Sub(b.set) > b.stall/5 {
		b.set = now
		by := now.Add(b.stall)
		if by.After(b.end) {
			by = b.end
		}
		_ = b.rc.SetReadDeadline(by) // what has no deadline does not stall
	}
	n, err := b.ReadCloser.Read(p)
	if err == io.EOF {
		// The server reads on, to see the sender leave: that may take longer.
		_ = b.rc.SetReadDeadline(time.Time{})
	}
	return n, err
}

func (p *bodyPool) readGzip(ctx context.Context, wire io.Reader, limit int64, sh *share) ([]byte, error) {
	zr, _ := p.gzip.Get().(*gzip.Reader)
	if zr == nil {
		zr = new(gzip.Reader)
	}
	defer p.gzip.Put(zr)
	if err := zr.Reset(wire); err != nil {
		return nil, readError("gzip", err)
	}
	return p.readAll(ctx, zr, limit, sh)
}

// zstdWindow bounds the memory that one zstd frame may ask for; encoders use at
// most 8 MiB up to level 19.
const zstdWindow = 8 << 20

func newZstdDecoder() (*zstd.Decoder, error) {
	return zstd.NewReader(nil,
		zstd.WithDecoderConcurrency(1), // no goroutines to leak, none to stop
		zstd.WithDecoderMaxWindow(zstdWindow),
		zstd.WithDecoderLowmem(true))
}

func (p *bodyPool) readZstd(ctx context.Context, wire io.Reader, limit int64, sh *share) ([]byte, error) {
	zr, _ := p.zstd.Get().(*zstd.Decoder)
	if zr == nil {
		var err error
		if zr, err = newZstdDecoder(); err != nil {
			return nil, err
		}
	}
	defer p.zstd.Put(zr)
	defer zr.Reset(nil) // let the body go
	if err := zr.Reset(wire); err != nil {
		return nil, readError("zstd", err)
	}
	return p.readAll(ctx, zr, limit, sh)
}

// readAll reads up to limit bytes, doubling its buffer and the share together.
func (p *bodyPool) readAll(ctx context.Context, rd io.Reader, limit int64, sh *share) ([]byte, error) {
	b := p.get()
	if err := sh.grow(ctx, int64(cap(b))); err != nil {
		return nil, err
	}
	for {
		n, err := rd.Read(b[len(b):cap(b)])
		b = b[:len(b)+n]
		if int64(len(b)) > limit {
			return nil, refuse(tooLarge, "the body has more than %d bytes when inflated: send smaller batches", limit)
		}
		if err == io.EOF {
			return b, nil
		}
		if err != nil {
			return nil, readError("body", err)
		}
		if len(b) == cap(b) {
			size := min(2*int64(cap(b)), limit+1) // one more, to see that it is too much
			if err := sh.grow(ctx, size); err != nil {
				return nil, err
			}
			b = append(make([]byte, 0, size), b...)
		}
	}
}

// readError classes an error of reading a body.
func readError(what string, err error) error {
	if over, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return refuse(tooLarge, "the body has more than %d bytes: send smaller batches", over.Limit)
	}
	if errors.Is(err, context.Canceled) {
		return err
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return &refusal{reason: gone, retry: time.Second, err: fmt.Errorf("the body did not come for %s, or not all of it within %s: %w", stallTime, bodyTime, err)}
	}
	return refuse(badRequest, "the %s cannot be read: %w", what, err)
}
