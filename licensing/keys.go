package licensing

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"

	"github.com/binnacle-project/binnacle/state/atomicfile"
)

// IssuerKey signs licenses. It belongs to whoever sells or grants them, and
// needs not be where a manager runs.
type IssuerKey struct{ private ed25519.PrivateKey }

// IssuerPublicKey verifies licenses.
type IssuerPublicKey struct{ key ed25519.PublicKey }

// GenerateIssuer makes a new issuer key.
func GenerateIssuer() (IssuerKey, error) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return IssuerKey{}, fmt.Errorf("generate an issuer key: %w", err)
	}
	return IssuerKey{private}, nil
}

// Public returns the key that verifies what k signs.
func (k IssuerKey) Public() IssuerPublicKey {
	if k.private == nil {
		return IssuerPublicKey{}
	}
	return IssuerPublicKey{k.private.Public().(ed25519.PublicKey)}
}

// PEM returns the private key as PKCS #8. Keep it in a file of mode 0600.
func (k IssuerKey) PEM() []byte {
	der, err := x509.MarshalPKCS8PrivateKey(k.private)
	if err != nil {
		panic(fmt.Sprintf("BUG: an Ed25519 key does not marshal: %v", err))
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

// ID returns the key's name in a license's header: 16 hex digits of the
// SHA-256 of its SPKI form.
func (k IssuerPublicKey) ID() string {
	sum := sha256.Sum256(k.der())
	return hex.EncodeToString(sum[:8])
}

// PEM returns the public key in SPKI form. A file for --license-keys holds one
// or several of these, one after the other.
func (k IssuerPublicKey) PEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: k.der()})
}

func (k IssuerPublicKey) der() []byte {
	der, err := x509.MarshalPKIXPublicKey(k.key)
	if err != nil {
		panic(fmt.Sprintf("BUG: an Ed25519 public key does not marshal: %v", err))
	}
	return der
}

// ParseIssuerKey reads what IssuerKey.PEM wrote.
func ParseIssuerKey(b []byte) (IssuerKey, error) {
	block, _ := pem.Decode(b)
	if block == nil {
		return IssuerKey{}, errors.New("this is no issuer key: it holds no PEM block; make one by `binnacle license keygen`")
	}
	if block.Type != "PRIVATE KEY" {
		return IssuerKey{}, fmt.Errorf("this is no issuer key: its PEM block is a %q and should be a \"PRIVATE KEY\"; give the private half", block.Type)
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return IssuerKey{}, fmt.Errorf("read the issuer key: %w", err)
	}
	private, ok := key.(ed25519.PrivateKey)
	if !ok {
		return IssuerKey{}, fmt.Errorf("the issuer key is a %T: only Ed25519 keys sign licenses; make one by `binnacle license keygen`", key)
	}
	return IssuerKey{private}, nil
}

// maxIssuerKeys is how many keys a file may hold: the current and the next one
// of some issuers.
const maxIssuerKeys = 64

// ParseIssuerPublicKeys reads one or several public keys, one PEM block after
// the other.
func ParseIssuerPublicKeys(b []byte) ([]IssuerPublicKey, error) {
	var keys []IssuerPublicKey
	for {
		block, rest := pem.Decode(b)
		if block == nil {
			break
		}
		b = rest
		if block.Type != "PUBLIC KEY" {
			return nil, fmt.Errorf("issuer key %d is a PEM block of type %q and should be a \"PUBLIC KEY\"; never put a private key where a manager runs", len(keys)+1, block.Type)
		}
		key, err := x509.ParsePKIXPublicKey(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("issuer key %d: %w", len(keys)+1, err)
		}
		public, ok := key.(ed25519.PublicKey)
		if !ok {
			return nil, fmt.Errorf("issuer key %d is a %T: only Ed25519 keys verify licenses", len(keys)+1, key)
		}
		if len(keys) == maxIssuerKeys {
			return nil, fmt.Errorf("there are more than %d issuer keys", maxIssuerKeys)
		}
		keys = append(keys, IssuerPublicKey{public})
	}
	if len(bytes.TrimSpace(b)) > 0 {
		return nil, fmt.Errorf("after issuer key %d there is text that is no PEM block", len(keys))
	}
	if len(keys) == 0 {
		return nil, errors.New("there is no issuer key: a file for --license-keys holds PEM blocks of type \"PUBLIC KEY\", as `binnacle license keygen` prints them")
	}
	return keys, nil
}

// maxKeysBytes bounds a file of public keys.
const maxKeysBytes = 64 << 10

// ReadIssuerPublicKeys reads a file for --license-keys.
func ReadIssuerPublicKeys(path string) ([]IssuerPublicKey, error) {
	b, err := readCapped(path, maxKeysBytes)
	if err != nil {
		return nil, fmt.Errorf("read the issuer keys: %w", err)
	}
	keys, err := ParseIssuerPublicKeys(b)
	if err != nil {
		return nil, fmt.Errorf("read the issuer keys in %s: %w", path, err)
	}
	return keys, nil
}

// ReadIssuerKey reads a private key file.
func ReadIssuerKey(path string) (IssuerKey, error) {
	b, err := readCapped(path, maxKeysBytes)
	if err != nil {
		return IssuerKey{}, fmt.Errorf("read the issuer key: %w", err)
	}
	key, err := ParseIssuerKey(b)
	if err != nil {
		return IssuerKey{}, fmt.Errorf("%s: %w", path, err)
	}
	return key, nil
}

// WriteIssuerKey writes a private key to a new file of mode 0600. It does not
// replace one.
func WriteIssuerKey(path string, k IssuerKey) error {
	if err := atomicfile.WriteNew(path, k.PEM(), 0o600); err != nil {
		return fmt.Errorf("keep the issuer key: %w", err)
	}
	return nil
}
