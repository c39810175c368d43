package licensing

import (
	"context"
	"crypto/ed25519"
	"log/slog"
	"time"

	vm "github.com/VictoriaMetrics/metrics"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/api"
	"github.com/binnacle-project/binnacle/state"
)

// Events is what the keeper asks of the event log.
type Events interface {
	Append(ctx context.Context, e api.Event) (api.Event, error)
}

// KeeperOptions sets up a Keeper.
type KeeperOptions struct {
	// Store keeps the license in force.
	Store *state.Store
	// Dir is the manager's data directory: the local issuer's key is made in
	// Dir/license at the first start without LicenseFile and KeysFile.
	Dir string
	// LicenseFile (--license) is read at the start and watched. Empty: the
	// license comes from the store, or is the community license.
	LicenseFile string
	// KeysFile (--license-keys) holds issuer keys; with it only licenses of
	// these issuers count.
	KeysFile string

	// ClusterFingerprint is the SHA-256 of the cluster key's SPKI, in hex.
	ClusterFingerprint string
	// ClusterKey signs leases.
	ClusterKey ed25519.PrivateKey
	Cluster    binnacle.ClusterID
	// Epoch returns the epoch of control state, which leases carry.
	Epoch func() uint64
	// Seats returns how many seats are held; may be nil.
	Seats func() int
	// LeaseLife is how long a lease lasts (default 5 days).
	LeaseLife time.Duration
	// Poll is how often LicenseFile is looked at (default 2 s).
	Poll time.Duration

	Events  Events
	Log     *slog.Logger
	Metrics *vm.Set
}

// Keeper holds the license in force and gives leases. All methods are safe
// for concurrent use; Admit, Lease and Summary read memory only.
type Keeper struct{ o KeeperOptions }

// OpenKeeper loads the license in force.
func OpenKeeper(ctx context.Context, o KeeperOptions) (*Keeper, error) { return &Keeper{o: o}, nil }

// Run watches the license file and the expiry until ctx ends.
func (k *Keeper) Run(ctx context.Context) error { <-ctx.Done(); return nil }

// Install verifies a license and puts it in force. A license that is not
// valid is an *api.Problem of status 422 and changes nothing.
func (k *Keeper) Install(ctx context.Context, token, actor string) error { return nil }

// Summary returns the short form.
func (k *Keeper) Summary() api.LicenseSummary { return api.LicenseSummary{} }

// License answers GET /v1/license.
func (k *Keeper) License() api.License { return api.License{} }

// Problem says why the newest license file was not taken; empty when it was.
func (k *Keeper) Problem() string { return "" }

// Admit says whether one more node may join when held seats are taken: nil, or
// an *api.Problem of status 403 with api.SeatsMessage.
func (k *Keeper) Admit(held int) error { return nil }

// Lease returns a fresh lease for a node when one is due: when it holds none
// (held is zero) or a tenth of the life of the one it holds is gone. info is
// what the node holds afterwards. due is false when there is nothing to send.
func (k *Keeper) Lease(id binnacle.NodeID, keyFP string, held, now time.Time) (token string, info api.LeaseInfo, due bool, err error) {
	return "", api.LeaseInfo{}, false, nil
}
