package manager

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"path/filepath"
	"time"

	"github.com/binnacle-project/binnacle/state"
	"github.com/binnacle-project/binnacle/state/etcd"
)

// backupTimeout bounds one backup: the control state of a large fleet is some
// hundred MiB.
const backupTimeout = 5 * time.Minute

// handleBackup sends a snapshot of the control state. It ends with a checksum,
// so that a cut download is found when it is restored.
func (m *Manager) handleBackup(w http.ResponseWriter, r *http.Request) error {
	if err := http.NewResponseController(w).SetWriteDeadline(time.Now().Add(backupTimeout)); err != nil {
		return err
	}
	h := w.Header()
	h.Set("Content-Type", "application/octet-stream")
	h.Set("Cache-Control", "no-store")
	h.Set("Content-Disposition", fmt.Sprintf("attachment; filename=%q", "binnacle-"+time.Now().UTC().Format("20060102-150405")+".snapshot"))
	return m.store.Snapshot(r.Context(), w)
}

// Restore makes the control state of a manager that does not run from a
// snapshot. The folder state below dataDir must be empty or missing. The new
// state has a higher epoch, so that nodes take its plans although they are older
// than what they hold.
func Restore(ctx context.Context, dataDir string, from io.Reader, log *slog.Logger) (state.Restored, error) {
	return etcd.Restore(ctx, etcd.Options{Dir: filepath.Join(dataDir, "state"), Log: log}, from)
}
