package licensing

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/binnacle-project/binnacle/state"
)

// Keys in control state.
const (
	keyPrefix  = "licensing/"
	keyLicense = keyPrefix + "license"
	keyIssuers = keyPrefix + "issuers/" // by key id: a local issuer's public key
)

// record is the license in force as the store keeps it.
type record struct {
	Token     string    `json:"token"`
	Installed time.Time `json:"installed"`
	Actor     string    `json:"actor"`
	// FileHash is the SHA-256 of the license file's content that it came from or
	// came after: a file that did not change since does not replace it.
	FileHash string `json:"file_hash,omitempty"`
	// Told is the last notice given of the end.
	Told int `json:"told"`
}

// storeTimeout bounds a write to control state.
const storeTimeout = 10 * time.Second

func (k *Keeper) save(ctx context.Context, rec record) error {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	if _, err := state.PutJSON(ctx, k.o.Store, keyLicense, rec); err != nil {
		return fmt.Errorf("keep the license: %w", err)
	}
	k.license.taken = rec.FileHash
	return nil
}

// loadStored puts the stored license in force, if it is good here. One that
// has expired is: nothing better is known, and its grace may still run.
func (k *Keeper) loadStored(ctx context.Context) error {
	rec, _, err := state.GetJSON[record](ctx, k.o.Store, keyLicense)
	if errors.Is(err, state.ErrNotFound) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the stored license: %w", err)
	}
	k.license.taken = rec.FileHash
	l, err := ParseLicense(rec.Token, k.trusted(), k.o.ClusterFingerprint, time.Now())
	if err != nil && !IsExpired(err) {
		k.log.Error("the stored license does not count any more", "err", err)
		k.set(&inForce{problem: "the stored license does not count any more: " + err.Error()})
		return nil
	}
	now := k.current.Load()
	if now.license == nil || now.license.Token != rec.Token {
		k.set(&inForce{license: &l, installed: rec.Installed, told: rec.Told})
	} else if now.told != rec.Told {
		next := *now
		next.told = rec.Told
		k.current.Store(&next)
	}
	return nil
}

// openLocalIssuer loads or makes the local issuer, whose key stands in the
// data directory and whose public half is in control state, so that all
// managers of a group know it.
func (k *Keeper) openLocalIssuer(ctx context.Context) error {
	path := filepath.Join(k.o.Dir, "license", "issuer.key")
	issuer, err := ReadIssuerKey(path)
	if errors.Is(err, os.ErrNotExist) {
		if err = os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return fmt.Errorf("make the local issuer: %w", err)
		}
		if issuer, err = GenerateIssuer(); err == nil {
			err = WriteIssuerKey(path, issuer)
		}
	}
	if err != nil {
		return fmt.Errorf("open the local issuer: %w", err)
	}
	public := issuer.Public()
	if _, err := k.o.Store.Put(ctx, keyIssuers+public.ID(), public.PEM()); err != nil && !errors.Is(err, state.ErrReadOnly) {
		return fmt.Errorf("keep the local issuer: %w", err)
	}
	k.local = []IssuerPublicKey{public}
	return k.loadIssuers(ctx)
}

// loadIssuers reads the local issuers of all managers.
func (k *Keeper) loadIssuers(ctx context.Context) error {
	stored, err := k.o.Store.List(ctx, keyIssuers)
	if err != nil {
		return fmt.Errorf("read the local issuers: %w", err)
	}
	for _, kv := range stored {
		keys, err := ParseIssuerPublicKeys(kv.Value)
		if err != nil {
			return fmt.Errorf("read local issuer %s: %w", strings.TrimPrefix(kv.Key, keyIssuers), err)
		}
		for _, key := range keys {
			if !containsKey(k.local, key) {
				k.local = append(k.local, key)
			}
		}
	}
	return nil
}

func containsKey(keys []IssuerPublicKey, key IssuerPublicKey) bool {
	for _, k := range keys {
		if k.key.Equal(key.key) {
			return true
		}
	}
	return false
}

// community issues and installs the license of a first start.
func (k *Keeper) community(ctx context.Context) error {
	issuer, err := ReadIssuerKey(filepath.Join(k.o.Dir, "license", "issuer.key"))
	if err != nil {
		return fmt.Errorf("issue the community license: %w", err)
	}
	rate := DefaultFallbackRate
	token, err := Issue(issuer, Claims{
		Issuer: "local", Customer: "community", Plan: PlanCommunity,
		Cluster: k.o.ClusterFingerprint, FallbackRate: &rate,
	})
	if err != nil {
		return fmt.Errorf("issue the community license: %w", err)
	}
	return k.install(ctx, token, "manager", "")
}

func trimToken(s string) string { return strings.TrimSpace(s) }
