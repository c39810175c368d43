package e2e

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/binnacle-project/binnacle"
	"github.com/binnacle-project/binnacle/api"
)

var defaultClient = &http.Client{Timeout: 5 * time.Second}

// browser starts headless Chromium, or skips where there is none.
func browser(t *testing.T, width, height int) context.Context {
	t.Helper()
	if _, err := exec.LookPath("chromium"); err != nil {
		t.Skip("chromium is not installed: `make test` installs it where it can")
	}
	opts := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath("chromium"), chromedp.NoSandbox, chromedp.WindowSize(width, height),
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-component-update", true))
	alloc, cancel := chromedp.NewExecAllocator(t.Context(), opts...)
	t.Cleanup(cancel)
	ctx, cancel := chromedp.NewContext(alloc)
	t.Cleanup(cancel)
	ctx, cancel = context.WithTimeout(ctx, 90*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// checkPage logs in with a one-time link and holds the numbers on the page
// against those of the API.
func checkPage(t *testing.T, c *cluster, b *backends) {
	ctx := browser(t, 1280, 900)
	code, err := c.client.LoginCode(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var problems []string
	if err := chromedp.Listen(ctx, consoleErrors(&problems)); err != nil {
		t.Fatal(err)
	}
	if _, err := chromedp.Run(ctx, chromedp.Navigate(c.base+"/login?code="+code.Code)); err != nil {
		t.Fatalf("open the page: %v", err)
	}
	visible := func(selector string) {
		t.Helper()
		if _, err := chromedp.Run(ctx, chromedp.WaitVisible(selector)); err != nil {
			t.Fatalf("wait for %s on the page: %v", selector, err)
		}
	}
	visible(`[data-testid="sentence"]`)
	// raw reads the number behind what a person sees.
	raw := func(selector string) (float64, error) {
		v, err := chromedp.Run(ctx, chromedp.Evaluate[string](fmt.Sprintf("document.querySelector(%q)?.dataset.value ?? ''", selector)))
		if err != nil {
			return 0, err
		}
		if v == "" {
			return 0, fmt.Errorf("%s is not on the page", selector)
		}
		return strconv.ParseFloat(v, 64)
	}
	eventually(t, 40*time.Second, "the page shows what the API gives", func() error {
		nodes, err := c.client.Nodes(t.Context())
		if err != nil {
			return err
		}
		for _, n := range nodes {
			sel := fmt.Sprintf(`[data-testid="node-row-%s"] [data-col="requests_total"]`, n.ID)
			got, err := raw(sel)
			if err != nil {
				return err
			}
			if n.Activity == nil || uint64(got) != n.Activity.RequestsTotal {
				return fmt.Errorf("%s: the page says %v, the API %+v", n.Name, got, n.Activity)
			}
		}
		list, err := c.client.Backends(t.Context())
		if err != nil {
			return err
		}
		byID := map[binnacle.BackendID]*api.Activity{}
		for _, x := range list {
			byID[x.ID] = x.Activity
			got, err := raw(fmt.Sprintf(`[data-testid="backend-row-%s"] [data-col="requests_total"]`, x.ID))
			if err != nil {
				return err
			}
			if x.Activity == nil || uint64(got) != x.Activity.RequestsTotal {
				return fmt.Errorf("backend %s: the page says %v, the API %+v", x.ID, got, x.Activity)
			}
		}
		for addr := range b.calls {
			if byID[binnacle.BackendID(addr)] == nil {
				return fmt.Errorf("backend %s is not listed", addr)
			}
		}
		cl, err := c.client.Cluster(t.Context())
		if err != nil {
			return err
		}
		got, err := raw(`[data-testid="cluster-requests-total"]`)
		if err == nil && uint64(got) != cl.Activity.RequestsTotal {
			err = fmt.Errorf("the page says %v requests in all, the API %d", got, cl.Activity.RequestsTotal)
		}
		return err
	})
	visible(`[data-testid="chart-rps"] canvas`)
	visible(`[data-testid="chart-errors"] canvas`)
	visible(`[data-testid="chart-latency"] canvas`)
	sentence, err := chromedp.Run(ctx, chromedp.Text(`[data-testid="sentence"]`))
	if err != nil {
		t.Fatal(err)
	}
	shot, err := chromedp.Run(ctx, chromedp.FullScreenshot(100))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(sentence, "3") {
		t.Errorf("the sentence does not name the three nodes: %q", sentence)
	}
	t.Logf("the page says: %s", sentence)
	if len(problems) > 0 {
		t.Errorf("the browser complained: %v", problems)
	}
	if dir := os.Getenv("BINNACLE_SCREENSHOTS"); dir != "" {
		if err := os.WriteFile(filepath.Join(dir, "overview.png"), shot, 0o600); err != nil {
			t.Error(err)
		}
	}
}
