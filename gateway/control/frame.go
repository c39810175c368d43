package control

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
)

// A frame:
//
//	+-------+---------+-------+-----------------+------------------+
//	| magic | version | files | length, big end | JSON of a message |
//	| "BN"  | 1 byte  | 1 byte| 4 bytes         | length bytes      |
//	+-------+---------+-------+-----------------+------------------+
//
// When files is not 0, that many descriptors ride as SCM_RIGHTS beside the
// first byte of the header. A unix stream socket keeps them with that byte:
// who reads exactly the header gets exactly these descriptors.
const (
	frameVersion = 1
	headerBytes  = 8
	// MaxFrame is the longest message: a configuration of 8 MiB in base64,
	// with space to spare.
	MaxFrame = 16 << 20
	// maxFiles bounds the descriptors of one frame; a node has one or two
	// listening sockets.
	maxFiles = 16
)

// ErrFrame is returned for bytes that are no frame of this protocol. The
// connection is of no further use.
var ErrFrame = errors.New("not a control frame")

// message is the JSON of a frame: a call (Method set) or its answer.
type message struct {
	// ID matches an answer to its call on one connection.
	ID     uint64          `json:"id"`
	Method string          `json:"method,omitempty"`
	Body   json.RawMessage `json:"body,omitempty"`
	Error  string          `json:"error,omitempty"`
	// Code classes an error for the caller, see the Code constants.
	Code string `json:"code,omitempty"`

	files []*os.File
}

type header struct {
	length int
	files  int
}

func appendHeader(b []byte, h header) []byte {
	b = append(b, 'B', 'N', frameVersion, byte(h.files))
	return binary.BigEndian.AppendUint32(b, uint32(h.length))
}

func parseHeader(b []byte) (header, error) {
	if len(b) != headerBytes || b[0] != 'B' || b[1] != 'N' {
		return header{}, fmt.Errorf("begins with %x: %w", b, ErrFrame)
	}
	if b[2] != frameVersion {
		return header{}, fmt.Errorf("version %d of the control protocol, this is version %d; use one binary for agent and worker: %w", b[2], frameVersion, ErrFrame)
	}
	h := header{files: int(b[3]), length: int(binary.BigEndian.Uint32(b[4:]))}
	if h.length > MaxFrame || h.files > maxFiles {
		return header{}, fmt.Errorf("%d bytes and %d files, the limits are %d and %d: %w", h.length, h.files, MaxFrame, maxFiles, ErrFrame)
	}
	return h, nil
}

// encode returns the whole frame of m.
func encode(m *message) ([]byte, error) {
	body, err := json.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("encode a control message: %w", err)
	}
	if len(body) > MaxFrame || len(m.files) > maxFiles {
		return nil, fmt.Errorf("a control message of %d bytes and %d files, the limits are %d and %d", len(body), len(m.files), MaxFrame, maxFiles)
	}
	b := appendHeader(make([]byte, 0, headerBytes+len(body)), header{length: len(body), files: len(m.files)})
	return append(b, body...), nil
}

// decode reads one frame without descriptors from r.
func decode(r io.Reader) (*message, error) {
	var hb [headerBytes]byte
	if _, err := io.ReadFull(r, hb[:]); err != nil {
		return nil, err
	}
	h, err := parseHeader(hb[:])
	if err != nil {
		return nil, err
	}
	return decodeBody(r, h)
}

func decodeBody(r io.Reader, h header) (*message, error) {
	// Read in steps, so that a header alone costs no memory.
	body, err := io.ReadAll(io.LimitReader(r, int64(h.length)))
	if err != nil {
		return nil, err
	}
	if len(body) < h.length {
		return nil, io.ErrUnexpectedEOF
	}
	m := new(message)
	if err := json.Unmarshal(body, m); err != nil {
		return nil, fmt.Errorf("a control message that is no JSON: %w", errors.Join(ErrFrame, err))
	}
	return m, nil
}

// readMessage reads one frame with its descriptors. The caller owns the files.
func readMessage(c *net.UnixConn) (*message, error) {
	var hb [headerBytes]byte
	oob := make([]byte, syscall.CmsgSpace(maxFiles*4))
	n, oobn, flags, _, err := c.ReadMsgUnix(hb[:], oob)
	if err != nil {
		return nil, err
	}
	if n == 0 {
		return nil, io.EOF
	}
	files, err := parseFiles(oob[:oobn])
	if err != nil {
		return nil, err
	}
	fail := func(err error) (*message, error) {
		for _, f := range files {
			f.Close()
		}
		return nil, err
	}
	if flags&syscall.MSG_CTRUNC != 0 {
		return fail(fmt.Errorf("descriptors were cut off: %w", ErrFrame))
	}
	if _, err := io.ReadFull(c, hb[n:]); err != nil {
		return fail(err)
	}
	h, err := parseHeader(hb[:])
	if err != nil {
		return fail(err)
	}
	if h.files != len(files) {
		return fail(fmt.Errorf("the header tells of %d files, %d came: %w", h.files, len(files), ErrFrame))
	}
	m, err := decodeBody(c, h)
	if err != nil {
		return fail(err)
	}
	m.files = files
	return m, nil
}

func parseFiles(oob []byte) ([]*os.File, error) {
	if len(oob) == 0 {
		return nil, nil
	}
	msgs, err := syscall.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, fmt.Errorf("ancillary data: %w", errors.Join(ErrFrame, err))
	}
	var files []*os.File
	for _, m := range msgs {
		fds, err := syscall.ParseUnixRights(&m)
		if err != nil {
			continue // credentials and the like are of no interest
		}
		for _, fd := range fds {
			syscall.CloseOnExec(fd)
			files = append(files, os.NewFile(uintptr(fd), "control"))
		}
	}
	return files, nil
}

// writeMessage writes the frame and its descriptors. One writer at a time.
func writeMessage(c *net.UnixConn, m *message) error {
	b, err := encode(m)
	if err != nil {
		return err
	}
	if len(m.files) == 0 {
		_, err = c.Write(b)
		return err
	}
	fds := make([]int, len(m.files))
	for i, f := range m.files {
		fds[i] = int(f.Fd())
	}
	// The descriptors go with the header alone: Linux attaches them to the
	// bytes of this call, and the reader asks for exactly that many.
	n, _, err := c.WriteMsgUnix(b[:headerBytes], syscall.UnixRights(fds...), nil)
	if err != nil {
		return err
	}
	_, err = c.Write(b[n:])
	return err
}
