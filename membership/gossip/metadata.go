package gossip

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/membership/pki"
)

// Metadata is what a member says of itself in gossip. It stands in every
// record of it that travels, so it is small; the rest goes by the poll.
//
// Wire layout, big endian:
//
//	version 1 | flags | revision (8) | first bytes of its SHA-256 (8) |
//	address family 4 or 16 | gossip address (4 or 16) | gossip port (2) |
//	length | traffic address | length | membership certificate |
//	signature by the member's key (64)
//
// The signature is over a line of purpose and all bytes before it. Signing the
// gossip address keeps a holder of the gossip key from moving a member to an
// address of his own.
type Metadata struct {
	// Address is host:port where the member serves traffic, empty for a
	// manager. At most 100 bytes.
	Address string
	// Revision is the configuration applied, with the first 8 bytes of its
	// SHA-256.
	Revision binnacle.Revision
	Hash     [8]byte
	Serving  bool
	Draining bool
	// Leaving is set in the last record before a clean stop: memberlist does
	// not tell a member that left from one that died.
	Leaving bool

	// udpBlocked is set by the member's own Gossip while UDP does not reach it
	// or does not leave it.
	udpBlocked bool
}

const (
	metadataVersion = 1
	// maxMetadata is where memberlist's own limit of 512 bytes, past which it
	// panics, is kept at a distance.
	maxMetadata = 400
	maxAddress  = 100

	flagServing  = 1 << 0
	flagDraining = 1 << 1
	flagLeaving  = 1 << 2
	flagUDP      = 1 << 3 // blocked
)

var errMetadata = errors.New("gossip metadata is malformed")

const metadataPurpose = "binnacle gossip v1\n"

// record is decoded and verified metadata.
type record struct {
	id     binnacle.NodeID
	key    ed25519.PublicKey
	gossip netip.AddrPort
	meta   Metadata
}

// manager reports whether the record is a manager's.
func (r record) manager() bool { return strings.HasPrefix(string(r.id), pki.ManagerPrefix) }

// sealMetadata encodes and signs m.
func sealMetadata(m Metadata, gossip netip.AddrPort, id pki.Identity) ([]byte, error) {
	if len(m.Address) > maxAddress {
		return nil, fmt.Errorf("address %q for gossip has %d bytes; at most %d", m.Address, len(m.Address), maxAddress)
	}
	if !gossip.IsValid() || len(id.Cert) > pki.MaxMemberCert {
		return nil, fmt.Errorf("gossip address %v or the membership certificate (%d bytes) is not valid", gossip, len(id.Cert))
	}
	var flags byte
	for bit, set := range map[byte]bool{flagServing: m.Serving, flagDraining: m.Draining, flagLeaving: m.Leaving, flagUDP: m.udpBlocked} {
		if set {
			flags |= bit
		}
	}
	b := make([]byte, 0, maxMetadata)
	b = append(b, metadataVersion, flags)
	b = binary.BigEndian.AppendUint64(b, uint64(m.Revision))
	b = append(b, m.Hash[:]...)
	ip := gossip.Addr().Unmap().AsSlice()
	b = append(b, byte(len(ip)))
	b = append(b, ip...)
	b = binary.BigEndian.AppendUint16(b, gossip.Port())
	b = append(b, byte(len(m.Address)))
	b = append(b, m.Address...)
	b = append(b, byte(len(id.Cert)))
	b = append(b, id.Cert...)
	b = append(b, ed25519.Sign(id.Key, append([]byte(metadataPurpose), b...))...)
	if len(b) > maxMetadata {
		panic(fmt.Sprintf("BUG: gossip metadata of %d bytes; at most %d", len(b), maxMetadata))
	}
	return b, nil
}

// openMetadata decodes and verifies what sealMetadata made. The result refers
// to none of b.
func openMetadata(b []byte, caPub ed25519.PublicKey, cluster binnacle.ClusterID) (record, error) {
	if len(b) > maxMetadata {
		return record{}, fmt.Errorf("%w: %d bytes, at most %d", errMetadata, len(b), maxMetadata)
	}
	b = append([]byte(nil), b...)
	d := decoder{rest: b}
	version, flags := d.byte(), d.byte()
	rev, hash := d.take(8), d.take(8)
	ip := d.take(int(d.byte()))
	port := d.take(2)
	address := d.take(int(d.byte()))
	cert := d.take(int(d.byte()))
	signed := b[:len(b)-len(d.rest)]
	sig := d.take(ed25519.SignatureSize)
	switch {
	case version != metadataVersion && !d.short:
		return record{}, fmt.Errorf("%w: version %d is not known", errMetadata, version)
	case d.short || len(d.rest) > 0 || len(address) > maxAddress || flags >= flagUDP<<1:
		return record{}, fmt.Errorf("%w: %d bytes", errMetadata, len(b))
	}
	addr, ok := netip.AddrFromSlice(ip)
	if !ok || addr.Is4In6() {
		return record{}, fmt.Errorf("%w: an address of %d bytes", errMetadata, len(ip))
	}
	id, key, err := pki.VerifyMembership(caPub, cluster, cert)
	if err != nil {
		return record{}, err
	}
	if !ed25519.Verify(key, append([]byte(metadataPurpose), signed...), sig) {
		return record{}, fmt.Errorf("member %q: its key did not sign this record: %w", id, errMetadata)
	}
	return record{
		id:     id,
		key:    key,
		gossip: netip.AddrPortFrom(addr, binary.BigEndian.Uint16(port)),
		meta: Metadata{
			Address:  string(address),
			Revision: binnacle.Revision(binary.BigEndian.Uint64(rev)),
			Hash:     [8]byte(hash),
			Serving:  flags&flagServing != 0,
			Draining: flags&flagDraining != 0,
			Leaving:  flags&flagLeaving != 0,

			udpBlocked: flags&flagUDP != 0,
		},
	}, nil
}

// decoder takes bytes off a slice and remembers when there were too few; it
// then gives zeros.
type decoder struct {
	rest  []byte
	short bool
}

func (d *decoder) take(n int) []byte {
	if n > len(d.rest) {
		d.short, d.rest = true, nil
		return make([]byte, n)
	}
	b := d.rest[:n]
	d.rest = d.rest[n:]
	return b
}

func (d *decoder) byte() byte { return d.take(1)[0] }

// verifier remembers verdicts on metadata by its hash, because memberlist asks
// for every record of every exchange, under its lock, and two signatures cost
// some 100 µs.
type verifier struct {
	caPub   ed25519.PublicKey
	cluster binnacle.ClusterID

	mu      sync.Mutex
	verdict map[[sha256.Size]byte]verdict // emptied when full
}

type verdict struct {
	rec record
	err error
}

// maxVerdicts bounds the memory of a verifier to some 8 MiB. It exceeds the
// members of the largest cluster, so that their records stay.
const maxVerdicts = 20_000

func newVerifier(caPub ed25519.PublicKey, cluster binnacle.ClusterID) *verifier {
	return &verifier{caPub: caPub, cluster: cluster, verdict: make(map[[sha256.Size]byte]verdict)}
}

func (v *verifier) open(meta []byte) (record, error) {
	sum := sha256.Sum256(meta)
	v.mu.Lock()
	known, ok := v.verdict[sum]
	v.mu.Unlock()
	if ok {
		return known.rec, known.err
	}
	rec, err := openMetadata(meta, v.caPub, v.cluster)
	v.mu.Lock()
	defer v.mu.Unlock()
	if len(v.verdict) >= maxVerdicts {
		clear(v.verdict)
	}
	v.verdict[sum] = verdict{rec, err}
	return rec, err
}
