package rollout

import (
	"bytes"
	"compress/gzip"
	"container/list"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/VictoriaMetrics/metrics"
	"golang.org/x/sync/singleflight"

	"github.com/binnacle-project/binnacle/state"
)

// Configurations are kept compressed, in chunks, below the hash of their
// compressed bytes:
//
//	rollout/blobs/<sha256 of the compressed bytes>/<n>    chunk n
//
// That of the configuration itself would not do: two versions of a compressor
// give different bytes for it, and chunks of both must not mix.
const (
	keyBlobs = "rollout/blobs/"
	// chunkBytes leaves room for the key in a value of the largest size.
	chunkBytes = state.MaxValueBytes - 64<<10
	// maxConfigBytes bounds a configuration as pushed.
	maxConfigBytes = 8 << 20
	// cacheBytes holds some hundred compressed configurations of 200 kB.
	cacheBytes = 32 << 20
)

type blobRef struct {
	SHA256 string `json:"sha256"`
	Bytes  int    `json:"bytes"`
	Chunks int    `json:"chunks"`
}

func (r blobRef) key(chunk int) string { return fmt.Sprintf("%s%s/%04d", keyBlobs, r.SHA256, chunk) }

// blobs stores compressed configurations and keeps those in use in memory: a
// thousand nodes that ask for one cost a single read.
type blobs struct {
	store        *state.Store
	flight       singleflight.Group
	hits, misses *metrics.Counter

	mu     sync.Mutex // guards what follows
	byHash map[string]*list.Element
	recent *list.List // of cachedBlob, newest first
	bytes  int
}

type cachedBlob struct {
	hash string
	data []byte
}

func newBlobs(store *state.Store, set *metrics.Set) *blobs {
	return &blobs{
		store:  store,
		hits:   set.NewCounter(`binnacle_config_cache_hits_total`),
		misses: set.NewCounter(`binnacle_config_cache_misses_total`),
		byHash: make(map[string]*list.Element),
		recent: list.New(),
	}
}

// put compresses and stores config. Doing it twice is harmless: a chunk's key
// says its content.
func (b *blobs) put(ctx context.Context, config []byte) (blobRef, error) {
	data := compress(config)
	sum := sha256.Sum256(data)
	ref := blobRef{SHA256: hex.EncodeToString(sum[:]), Bytes: len(data)}
	for rest := data; len(rest) > 0; ref.Chunks++ {
		n := min(chunkBytes, len(rest))
		if _, err := b.store.Put(ctx, ref.key(ref.Chunks), rest[:n]); err != nil {
			return ref, fmt.Errorf("store the configuration: %w", err)
		}
		rest = rest[n:]
	}
	b.remember(ref.SHA256, data)
	return ref, nil
}

// get returns the compressed bytes, shared by all callers: nobody may change
// them.
func (b *blobs) get(ctx context.Context, ref blobRef) ([]byte, error) {
	if data := b.cached(ref.SHA256); data != nil {
		b.hits.Inc()
		return data, nil
	}
	b.misses.Inc()
	data, err, _ := b.flight.Do(ref.SHA256, func() (any, error) {
		// One caller's end must not be the others'.
		data, err := b.read(context.WithoutCancel(ctx), ref)
		if err == nil {
			b.remember(ref.SHA256, data)
		}
		return data, err
	})
	if err != nil {
		return nil, err
	}
	return data.([]byte), nil
}

func (b *blobs) read(ctx context.Context, ref blobRef) ([]byte, error) {
	var data []byte
	for i := range ref.Chunks {
		kv, err := b.store.Get(ctx, ref.key(i))
		if err != nil {
			return nil, fmt.Errorf("read the configuration: %w", err)
		}
		data = append(data, kv.Value...)
	}
	if sum := sha256.Sum256(data); hex.EncodeToString(sum[:]) != ref.SHA256 {
		return nil, fmt.Errorf("read the configuration: the %d stored bytes are not those of %s", len(data), ref.SHA256)
	}
	return data, nil
}

// drop returns the writes that remove a blob.
func (r blobRef) drop() []state.Op {
	ops := make([]state.Op, r.Chunks)
	for i := range ops {
		ops[i] = state.OpDelete(r.key(i))
	}
	return ops
}

func (b *blobs) cached(hash string) []byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	el := b.byHash[hash]
	if el == nil {
		return nil
	}
	b.recent.MoveToFront(el)
	return el.Value.(cachedBlob).data
}

func (b *blobs) remember(hash string, data []byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.byHash[hash] != nil {
		return
	}
	b.byHash[hash] = b.recent.PushFront(cachedBlob{hash, data})
	b.bytes += len(data)
	for b.bytes > cacheBytes && b.recent.Len() > 1 {
		old := b.recent.Remove(b.recent.Back()).(cachedBlob)
		delete(b.byHash, old.hash)
		b.bytes -= len(old.data)
	}
}

// compress is done once per revision, so the best level is cheap.
func compress(config []byte) []byte {
	var buf bytes.Buffer
	w, err := gzip.NewWriterLevel(&buf, gzip.BestCompression)
	if err == nil {
		_, err = w.Write(config)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		panic(fmt.Sprintf("BUG: compressing into memory failed: %v", err))
	}
	return buf.Bytes()
}

func decompress(data []byte) ([]byte, error) {
	r, err := gzip.NewReader(bytes.NewReader(data))
	if err != nil {
		return nil, fmt.Errorf("decompress the configuration: %w", err)
	}
	config, err := io.ReadAll(io.LimitReader(r, maxConfigBytes+1))
	if err != nil {
		return nil, fmt.Errorf("decompress the configuration: %w", err)
	}
	if len(config) > maxConfigBytes {
		return nil, errors.New("decompress the configuration: it is larger than any that was stored")
	}
	return config, nil
}
