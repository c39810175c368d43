package licensing

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/binnacle-project/binnacle/api"
	"github.com/binnacle-project/binnacle/events"
)

// Install verifies a license and puts it in force. A license that is not
// valid is an *api.Problem of status 422 that says why and what to do, and
// changes nothing. actor is who installs it, for the event.
func (k *Keeper) Install(ctx context.Context, token, actor string) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	err := k.install(ctx, trimToken(token), actor, k.license.taken)
	var wrong *wrongLicense
	if !errors.As(err, &wrong) {
		return err
	}
	k.refused.Inc()
	k.tell(ctx, events.LicenseRefused, actor, wrong.Error())
	return &api.Problem{Title: "License not taken", Status: http.StatusUnprocessableEntity, Detail: wrong.Error()}
}

// wrongLicense marks an error that lies in the license, not in the manager.
type wrongLicense struct {
	err error
	// begin is when a license that is only not valid yet will be; else zero.
	begin time.Time
}

func (w *wrongLicense) Error() string { return w.err.Error() }
func (w *wrongLicense) Unwrap() error { return w.err }

// install puts token in force, durably first. fileHash names the content of the
// license file that it comes from or comes after. The caller holds mu.
func (k *Keeper) install(ctx context.Context, token, actor, fileHash string) error {
	l, err := ParseLicense(token, k.trusted(), k.o.ClusterFingerprint, time.Now())
	if err != nil {
		wrong := &wrongLicense{err: err}
		if errors.Is(err, ErrNotYetValid) {
			wrong.begin = l.NotBefore
		}
		return wrong
	}
	told := firstNotice
	if days, due := noticeDue(&l, told, time.Now()); due {
		told = days // who installs a license knows when it ends
	}
	rec := record{Token: token, Installed: time.Now().UTC(), Actor: actor, FileHash: fileHash, Told: told}
	if err := k.save(ctx, rec); err != nil {
		return err
	}
	before := k.current.Load().license
	k.set(&inForce{license: &l, installed: rec.Installed, told: told})
	if before == nil || before.Token != token {
		k.log.Info("license in force", "id", l.ID, "plan", l.Plan, "seats", l.Seats, "expires", l.Expires, "actor", actor)
		k.tell(ctx, events.LicenseInstalled, actor, "license "+l.ID+" is in force: "+describe(&l))
	}
	return nil
}

// describe says in one line what a license allows.
func describe(l *License) string {
	seats := "unlimited seats"
	if l.Seats > 0 {
		seats = fmt.Sprintf("%d seats", l.Seats)
	}
	end := "no expiry"
	if !l.Expires.IsZero() {
		end = "until " + stamp(l.Expires)
	}
	return fmt.Sprintf("plan %s, %s, %s", l.Plan, seats, end)
}
