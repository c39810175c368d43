package otlp

import (
	"io"
	"sync"

	"github.com/klauspost/compress/zstd"
	"google.golang.org/grpc/encoding"
)

// gRPC knows compressors by name, for the whole process, and lets them be
// registered in init only. Ours bounds the window of a frame; gRPC itself
// bounds what comes out.
func init() { encoding.RegisterCompressor(ourZstd) }

var ourZstd = &zstdCompressor{}

type zstdCompressor struct{ decoders sync.Pool }

// Name implements encoding.Compressor.
func (*zstdCompressor) Name() string { return "zstd" }

// Compress implements encoding.Compressor, for clients in the same process.
func (*zstdCompressor) Compress(w io.Writer) (io.WriteCloser, error) {
	return zstd.NewWriter(w, zstd.WithEncoderConcurrency(1), zstd.WithEncoderLevel(zstd.SpeedFastest))
}

// Decompress implements encoding.Compressor.
func (c *zstdCompressor) Decompress(r io.Reader) (io.Reader, error) {
	d, _ := c.decoders.Get().(*zstd.Decoder)
	if d == nil {
		var err error
		if d, err = newZstdDecoder(); err != nil {
			return nil, err
		}
	}
	if err := d.Reset(r); err != nil {
		return nil, err
	}
	return &zstdReader{d, c}, nil
}

// zstdReader returns its decoder to the pool when gRPC closes it.
type zstdReader struct {
	*zstd.Decoder
	c *zstdCompressor
}

// Close implements io.Closer.
func (r *zstdReader) Close() error {
	if r.Decoder != nil {
		r.Decoder.Reset(nil)
		r.c.decoders.Put(r.Decoder)
		r.Decoder = nil
	}
	return nil
}
