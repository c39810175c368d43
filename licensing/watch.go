package licensing

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/binnacle-project/binnacle/events"
	"github.com/binnacle-project/binnacle/state"
)

// watched is a file that is looked at again and again. It is told from its
// former self by time, size and inode first, which costs one system call, and
// by content then.
type watched struct {
	path  string
	limit int64
	last  os.FileInfo // nil when it was not there
	tried string      // hash of the content that was tried last
	begin time.Time   // when that content is worth another try; zero is never
	taken string      // hash of the content that came into force
}

// look reports whether the file may have changed since the last look.
func (w *watched) look() bool {
	info, err := os.Stat(w.path)
	if err != nil {
		changed := w.last != nil
		w.last = nil
		return changed
	}
	old := w.last
	w.last = info
	return old == nil || !os.SameFile(old, info) || !old.ModTime().Equal(info.ModTime()) || old.Size() != info.Size()
}

// Run watches the license file, the issuer keys, the store and the end of the
// license, until ctx ends.
func (k *Keeper) Run(ctx context.Context) error {
	tick := time.NewTicker(k.o.Poll)
	defer tick.Stop()
	stored := k.o.Store.Watch(ctx, keyPrefix)
	for {
		select {
		case <-ctx.Done():
			return nil
		case _, ok := <-stored:
			if !ok {
				stored = nil // the store is closing; ctx ends soon
				continue
			}
			k.reload(ctx)
		case <-tick.C:
			k.look(ctx)
		}
	}
}

// reload takes over what another manager, or this one, has stored.
func (k *Keeper) reload(ctx context.Context) {
	k.mu.Lock()
	defer k.mu.Unlock()
	var err error
	if k.o.KeysFile == "" {
		err = k.loadIssuers(ctx)
	}
	if err = errors.Join(err, k.loadStored(ctx)); err != nil && ctx.Err() == nil {
		k.log.Warn("the stored license could not be read: the one in force stays", "err", err)
	}
}

// look looks at the files and at the calendar.
func (k *Keeper) look(ctx context.Context) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.o.KeysFile != "" && k.keyFile.look() {
		k.checkKeys(ctx)
	}
	if begin := k.license.begin; !begin.IsZero() && !time.Now().Before(begin) {
		k.license.tried = "" // what was not valid yet is now
		k.checkFile(ctx)
	} else if k.o.LicenseFile != "" && k.license.look() {
		k.checkFile(ctx)
	}
	k.notice(ctx)
	k.dropEnded(time.Now())
}

// dropEnded forgets leases that have ended.
func (k *Keeper) dropEnded(now time.Time) {
	k.givenMu.Lock()
	defer k.givenMu.Unlock()
	for id, g := range k.given {
		if g.expires.Before(now) {
			delete(k.given, id)
		}
	}
}

// checkKeys reads the issuer keys again. What was refused may be good now.
func (k *Keeper) checkKeys(ctx context.Context) {
	keys, err := ReadIssuerPublicKeys(k.o.KeysFile)
	if err != nil {
		k.log.Warn("the issuer keys could not be read again: those read before stay", "err", err)
		return
	}
	k.keys = keys
	k.license.tried = ""
	if k.current.Load().license == nil {
		if err := k.loadStored(ctx); err != nil {
			k.log.Warn("the stored license could not be read", "err", err)
		}
	}
	if k.o.LicenseFile != "" {
		k.checkFile(ctx)
	}
}

// checkFile takes the license file's content if it is new and good. The caller
// holds mu.
func (k *Keeper) checkFile(ctx context.Context) {
	w := &k.license
	w.look()
	b, err := readCapped(w.path, w.limit)
	if err != nil {
		hash := "unreadable: " + err.Error()
		if w.tried != hash {
			w.tried, w.begin = hash, time.Time{}
			k.refuse(ctx, fmt.Errorf("the license file cannot be read: %w", err))
		}
		return
	}
	sum := sha256.Sum256(b)
	hash := hex.EncodeToString(sum[:])
	if hash == w.tried || hash == w.taken && k.current.Load().license != nil {
		if hash == w.taken && w.tried != hash { // the good one is back
			w.tried, w.begin = hash, time.Time{}
			k.setProblem("")
		}
		return
	}
	w.tried, w.begin = hash, time.Time{}
	err = k.install(ctx, trimToken(string(b)), "file "+w.path, hash)
	var wrong *wrongLicense
	switch {
	case errors.As(err, &wrong):
		w.begin = wrong.begin
		k.refuse(ctx, wrong)
	case err != nil:
		w.tried = "" // the store failed: try again
		w.last = nil
		k.log.Error("a new license could not be kept: the one in force stays, and it is tried again", "file", w.path, "err", err)
	}
}

// refuse says, once per content, that the license file is not taken.
func (k *Keeper) refuse(ctx context.Context, err error) {
	problem := fmt.Sprintf("%s: %v", k.o.LicenseFile, err)
	k.setProblem(problem)
	k.refused.Inc()
	k.log.Error("the license file is not taken: the license in force stays", "file", k.o.LicenseFile, "err", err)
	k.tell(ctx, events.LicenseRefused, "file "+k.o.LicenseFile, problem)
}

func (k *Keeper) setProblem(problem string) {
	f := *k.current.Load()
	if f.problem != problem {
		f.problem = problem
		k.set(&f)
	}
}

// notice tells ahead, and once, that the license ends, and that it has. In a
// group each notice is told by the manager that stores it first.
func (k *Keeper) notice(ctx context.Context) {
	f := k.current.Load()
	days, due := noticeDue(f.license, f.told, time.Now())
	if !due {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	rec, version, err := state.GetJSON[record](ctx, k.o.Store, keyLicense)
	if err == nil && rec.Token == f.license.Token && rec.Told > days {
		rec.Told = days
		_, err = state.UpdateJSON(ctx, k.o.Store, keyLicense, rec, version)
	}
	if err != nil || rec.Told != days {
		return // told by another, or tried again at the next look
	}
	next := *f
	next.told = days
	k.current.Store(&next)
	if days == 0 {
		k.log.Error("the license has expired: nodes keep their leases, and fall back when these end", "id", f.license.ID, "grace", f.license.Grace)
		k.tell(ctx, events.LicenseExpired, "manager", fmt.Sprintf("license %s has expired at %s: leases are given until %s; install a renewed license by `binnacle license install`", f.license.ID, stamp(f.license.Expires), stamp(f.license.End())))
		return
	}
	k.log.Warn("the license ends soon", "id", f.license.ID, "days", days, "expires", f.license.Expires)
	k.tell(ctx, events.LicenseWarning, "manager", fmt.Sprintf("license %s ends within %d days, at %s: ask its issuer for a renewed one", f.license.ID, days, stamp(f.license.Expires)))
}
