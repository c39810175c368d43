package forward

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

func rec(n int) record { return record{1, fmt.Appendf(nil, "record %06d", n)} }

func openTestQueue(t *testing.T, dir string, limit int64) *queue {
	t.Helper()
	q, err := openQueue(dir, limit)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { q.close() })
	return q
}

func add(t *testing.T, q *queue, records ...record) int64 {
	t.Helper()
	dropped, err := q.append(records)
	if err != nil {
		t.Fatal(err)
	}
	return dropped
}

// drain reads all that is there; damaged counts the errors on the way.
func drain(q *queue) (bodies []string, damaged int) {
	for {
		r, after, ok, err := q.next()
		if err != nil {
			damaged++
			continue
		}
		if !ok {
			return bodies, damaged
		}
		bodies = append(bodies, string(r.body))
		q.advance(after, r)
	}
}

func names(from, to int) (out []string) {
	for n := from; n < to; n++ {
		out = append(out, string(rec(n).body))
	}
	return out
}

func TestQueueKeepsOrderOverRestarts(t *testing.T) {
	dir := t.TempDir()
	q := openTestQueue(t, dir, 1<<20)
	for n := range 30 {
		add(t, q, rec(n))
	}
	for range 10 {
		r, after, ok, err := q.next()
		if !ok || err != nil {
			t.Fatal(ok, err)
		}
		q.advance(after, r)
	}
	if err := q.close(); err != nil {
		t.Fatal(err)
	}
	q = openTestQueue(t, dir, 1<<20)
	add(t, q, rec(30), rec(31))
	if got, damaged := drain(q); !slices.Equal(got, names(10, 32)) || damaged != 0 {
		t.Errorf("after a restart: got %v, %d damaged; want 10 to 31", got, damaged)
	}
	// Without a position, as after a power failure, all of the segment comes again.
	q.close()
	if err := os.Remove(filepath.Join(dir, "position")); err != nil {
		t.Fatal(err)
	}
	q = openTestQueue(t, dir, 1<<20)
	if got, _ := drain(q); len(got) > 32 || !slices.IsSorted(got) {
		t.Errorf("without a position: got %v", got)
	}
}

func TestQueueDropsOldest(t *testing.T) {
	dir := t.TempDir()
	big := func(n int) record {
		return record{10, append(rec(n).body, make([]byte, segmentBytes/4)...)}
	}
	q := openTestQueue(t, dir, 3*segmentBytes)
	var dropped int64
	for n := range 40 {
		dropped += add(t, q, big(n))
		if q.bytes() > 3*segmentBytes {
			t.Fatalf("the queue holds %d bytes; want at most %d", q.bytes(), 3*segmentBytes)
		}
	}
	got, _ := drain(q)
	if len(got) == 0 || !bytes.HasPrefix([]byte(got[len(got)-1]), rec(39).body) || int64(len(got))*10+dropped != 400 {
		t.Errorf("read %d records, dropped %d items; want 400 in sum and the newest kept", len(got), dropped)
	}
	files, err := filepath.Glob(filepath.Join(dir, "*.queue"))
	if err != nil || len(files) > 1 {
		t.Errorf("after all was read: files %v, %v; want one", files, err)
	}
}

// TestQueueDamage: what is cut or flipped is left out up to the next segment.
func TestQueueDamage(t *testing.T) {
	for name, damage := range map[string]func([]byte) []byte{
		"cut":     func(b []byte) []byte { return b[:len(b)-3] },
		"flipped": func(b []byte) []byte { b[len(b)/2] ^= 1; return b },
		"length":  func(b []byte) []byte { b[0] = 0xff; return b },
		"emptied": func([]byte) []byte { return nil },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			q := openTestQueue(t, dir, 1<<20)
			for n := range 10 {
				add(t, q, rec(n))
			}
			q.close()
			path := filepath.Join(dir, segmentName(1))
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, damage(b), 0o600); err != nil {
				t.Fatal(err)
			}
			q = openTestQueue(t, dir, 1<<20)
			add(t, q, rec(77))
			got, damaged := drain(q)
			if len(got) == 0 || got[len(got)-1] != string(rec(77).body) || len(got) > 10 {
				t.Errorf("got %v", got)
			}
			if name != "emptied" && damaged != 1 {
				t.Errorf("damage told %d times; want once", damaged)
			}
		})
	}
}

func FuzzParseRecord(f *testing.F) {
	f.Add(appendRecord(nil, rec(1)))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, n, err := parseRecord(bytes.NewReader(b))
		if err != nil {
			return
		}
		if again := appendRecord(nil, r); !bytes.Equal(again, b[:n]) {
			t.Fatalf("round trip of %x: got %x", b[:n], again)
		}
	})
}
