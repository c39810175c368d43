package engine

import (
	"context"
	"io"
	"net/http"
	"sync"

	"github.com/luraproject/lura/v2/proxy"
)

// copyBuffers are those of answers that pass as they are, 32 KiB each as
// io.Copy's own.
var copyBuffers = sync.Pool{New: func() any { return new([32 << 10]byte) }}

// passThrough makes the response of a no-op backend: the answer as it is. It
// is Lura's, but for a goroutine and a buffer per request.
//
// Source: luraproject/lura, proxy/http_response.go, NoOpHTTPResponseParser.
func passThrough(ctx context.Context, resp *http.Response) (*proxy.Response, error) {
	b := &passingBody{body: resp.Body}
	// The request's end closes what nobody read to its end.
	b.stop = context.AfterFunc(ctx, func() { b.body.Close() })
	return &proxy.Response{
		Data: map[string]any{}, IsComplete: true, Io: b,
		Metadata: proxy.Metadata{StatusCode: resp.StatusCode, Headers: resp.Header},
	}, nil
}

// passingBody is the body of an answer that passes. Readers do not close it.
type passingBody struct {
	body io.ReadCloser
	stop func() bool
}

// Read closes the body at its end.
func (b *passingBody) Read(p []byte) (int, error) {
	n, err := b.body.Read(p)
	if err != nil && b.stop() {
		b.body.Close()
	}
	return n, err
}

// WriteTo spares io.Copy a buffer.
func (b *passingBody) WriteTo(w io.Writer) (int64, error) {
	buf := copyBuffers.Get().(*[32 << 10]byte)
	defer copyBuffers.Put(buf)
	return io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{b}, buf[:])
}
