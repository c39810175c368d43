package e2e

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/binnacle-project/binnacle/api"
)

// clickActions does everything that the page offers, with the mouse, and asks
// the manager whether it happened.
func clickActions(p *tab, c *cluster, b *backends, ids map[string]string) {
	t := p.t
	nodePage := func(name string) {
		t.Helper()
		p.open(c.base + "/nodes/" + ids[name])
		p.wait("the node's page is drawn", `document.querySelector('[data-testid="node-actions"]') !== null && `+isLive)
	}
	draining := func(name string) error {
		for _, n := range must(c.client.Nodes(t.Context())) {
			for _, cond := range n.Conditions {
				if n.Name == name && cond.Kind == "draining" {
					return nil
				}
			}
		}
		return fmt.Errorf("no such condition")
	}

	// A node: drain asks with numbers, shows how it goes, and is taken back.
	nodePage("gw-1")
	p.click("drain")
	p.wait("the question is there", `document.querySelector('dialog[open]') !== null`)
	p.do(chromedp.KeyEvent("\x1b")) // Escape
	p.wait("Escape closes it", `document.querySelector('dialog[open]') === null`)
	p.click("drain")
	p.wait("the question is there again", `document.querySelector('dialog[open]') !== null`)
	// A browser tells of a close a moment later: who asks again before that is asked.
	eval[bool](p, `(() => { document.querySelector('dialog[open]').close(); document.querySelector('[data-testid="drain"]').click(); return true; })()`)
	p.confirm("move to 2 nodes")
	eventually(t, 15*time.Second, "gw-1 drains", func() error { return draining("gw-1") })
	p.wait("the page shows it", shows("node-actions", "Draining"))
	p.click("undrain")
	p.confirm("turns ready")
	p.wait("it serves again", `document.querySelector('[data-testid="drain"]') !== null`)
	p.click("restart")
	p.confirm("takes over its sockets")
	p.waitFor(40*time.Second, "the restart is reported", shows("node-actions", "reports the restart done"))
	p.calm("actions of a node")

	uploadAndRollOut(p, c, b)
	tokensAndLicense(p, c)

	// Forgetting and barring end on the list of nodes.
	nodePage("gw-3")
	p.click("revoke")
	p.confirm("for good")
	p.wait("the list is there", `location.pathname === '/nodes' && document.querySelectorAll('[data-testid^="node-row-n-"]').length === 2`)
	nodePage("gw-2")
	p.click("forget")
	p.confirm("enrolls it anew")
	p.wait("the list is there", `location.pathname === '/nodes'`)
	eventually(t, 10*time.Second, "gw-2 is forgotten", func() error {
		for _, n := range must(c.client.Nodes(t.Context())) {
			if string(n.ID) == ids["gw-2"] {
				return fmt.Errorf("it is still listed")
			}
		}
		return nil
	})
	p.calm("forgetting nodes")
}

// uploadAndRollOut uploads a faulty and a fine configuration and steers rollouts
// of it: started in steps, paused, resumed, promoted, aborted, rolled back.
func uploadAndRollOut(p *tab, c *cluster, b *backends) {
	t := p.t
	p.open(c.base + "/config/default/upload")
	p.typeInto("config-text", "{\n  \"version\": 3,\n  \"endpoints\": [}\n}")
	p.click("check")
	p.wait("the fault names its line", shows("faults", "Line 3"))
	p.forgive() // the refusal is an answer of 422
	conf := b.config()
	conf["name"] = "three"
	raw, err := json.MarshalIndent(conf, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	p.typeInto("config-text", string(raw))
	p.typeInto("config-message", hostile)
	p.click("check")
	p.wait("it is fine", shows("accepted", "It is fine"))
	p.click("push")
	p.wait("it is kept", shows("made", "Revision 3 is kept"))
	p.calm("uploading")

	rollout := func() api.Rollout {
		t.Helper()
		list := must(c.client.Rollouts(t.Context()))
		newest := list[0]
		for _, r := range list {
			if r.Started.After(newest.Started) {
				newest = r
			}
		}
		return newest
	}
	state := func(want api.RolloutState) {
		t.Helper()
		p.waitFor(40*time.Second, "the page says "+string(want), fmt.Sprintf(`document.querySelector('[data-testid="rollout-state"]')?.dataset.value === %q`, want))
		if r := rollout(); r.State != want {
			t.Fatalf("rollout %s: got %s (%s); want %s", r.ID, r.State, r.Reason, want)
		}
	}
	p.click("to-rollout")
	p.wait("the form is there", shows("rollout-form", "Roll out revision 3"))
	p.click("start-rollout")
	p.confirm("gets revision 3 first")
	p.wait("the rollout's page is there", `location.pathname.startsWith('/rollouts/') && document.querySelector('[data-testid="path"]') !== null`)
	p.waitFor(30*time.Second, "the canary confirmed", `document.querySelector('[data-testid="confirmed"]')?.textContent === '1'`)
	p.click("pause")
	p.confirm("no more get it")
	state(api.RolloutPaused)
	p.click("resume")
	p.confirm("goes on from step 1")
	state(api.RolloutRunning)
	p.waitFor(40*time.Second, "the gate's evidence is drawn", `document.querySelector('[data-testid="evidence-errors"] canvas') !== null && document.querySelectorAll('[data-testid="comparisons"] tbody tr').length > 0`)
	p.accessible("a rollout under way")
	p.click("promote")
	p.confirm("passes without its gate")
	p.wait("the step is promoted", shows("step-0", "promoted by"))
	p.click("abort")
	p.confirm("back to")
	state(api.RolloutAborted)
	p.calm("steering a rollout")

	// To all at once, then back.
	p.open(c.base + "/config/default?rollout=3")
	p.click("strategy-all")
	p.click("start-rollout")
	p.confirm("3 nodes")
	p.wait("the rollout's page is there", `location.pathname.startsWith('/rollouts/')`)
	state(api.RolloutCompleted)
	p.open(c.base + "/config/default")
	p.wait("3 is desired", shows("group-desired", "revision 3"))
	p.click("rollback")
	p.confirm("3 nodes")
	p.wait("the rollout's page is there", `location.pathname.startsWith('/rollouts/')`)
	state(api.RolloutCompleted)
	if r := rollout(); r.To != 1 {
		t.Errorf("rolled back to %d; want 1", r.To)
	}
	p.open(c.base + "/config/default")
	p.click("restart-group")
	p.confirm("one after the other")
	p.wait("the restart's page is there", `location.pathname.startsWith('/rollouts/') && document.querySelector('h1').textContent.includes('Restart')`)
	p.click("abort") // it need not be waited for
	p.confirm("stay as they are")
	p.calm("rolling back")
}

// tokensAndLicense makes and revokes a token, logs in with it and out again,
// sees that its role is honored, and installs a license.
func tokensAndLicense(p *tab, c *cluster) {
	t := p.t
	p.open(c.base + "/license")
	p.wait("the license is there", shows("seats", "of 9"))
	var larger string
	for i, a := range c.args {
		if a == "--license" {
			larger = sibling(t, c.args[i+1], "larger.jwt")
		}
	}
	p.typeInto("license-text", larger)
	p.click("license-install")
	p.confirm("takes the place")
	p.wait("it is installed", shows("seats", "of 40"))
	p.typeInto("license-text", "eyJhbGciOiJub25lIn0.e30.")
	p.click("license-install")
	p.confirm("takes the place")
	p.wait("a forged one is refused", `document.querySelector('[data-testid="progress-license"]')?.textContent.startsWith('Not done')`)
	p.forgive() // the refusal is an answer of 4xx

	p.open(c.base + "/tokens")
	p.click("kind-api")
	p.typeInto("token-name", "from the page")
	p.click("make-token")
	p.wait("it is shown once", `document.querySelector('[data-testid="made-token"] pre') !== null`)
	secret := eval[string](p, `document.querySelector('[data-testid="made-token"] pre').textContent`)
	var id string
	for _, tok := range must(c.client.Tokens(t.Context())) {
		if tok.Name == "from the page" {
			id = tok.ID
		}
	}
	if id == "" || !strings.HasPrefix(secret, id) {
		t.Fatalf("no token was made: id %q", id)
	}
	p.calm("making a token")

	// Out, and in again as the viewer that the token is.
	p.click("log-out")
	p.wait("the login page is there", `location.pathname === '/login'`)
	p.do(chromedp.SendKeys(chromedp.CSS("#token"), "nonsense\r"))
	p.wait("nonsense is refused", `location.search.includes('error=token')`)
	p.forgive()
	p.do(chromedp.SendKeys(chromedp.CSS("#token"), secret+"\r"))
	p.wait("the overview is there", `location.pathname === '/' && `+isLive)
	nav := eval[string](p, `[...document.querySelectorAll('.top nav a')].map(a => a.textContent).join(' ')`)
	if nav != "Overview Nodes Backends Events License" {
		t.Errorf("a viewer is offered %q", nav)
	}
	p.open(c.base + "/tokens")
	p.wait("the view says what it needs", shows("refused", "admin"))
	if eval[int](p, `document.querySelectorAll('main button').length`) > 0 {
		t.Error("a viewer is offered actions")
	}
	p.calm("a viewer")

	// Revoked by an admin, the viewer is nobody in particular, who may look.
	if err := c.client.RevokeToken(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	p.open(c.base + "/nodes")
	p.click("log-in")
	p.wait("the login page is there", `location.pathname === '/login'`)
	p.forgive()
	p.do(chromedp.SendKeys(chromedp.CSS("#token"), c.token("admin.token")+"\r"))
	p.wait("the admin is where the visitor was", `location.pathname === '/nodes' && `+isLive)
	made := must(c.client.CreateToken(t.Context(), api.NewToken{Kind: "join", Name: "short lived"}))
	p.open(c.base + "/tokens")
	p.click("revoke-" + made.ID)
	p.confirm("join with it")
	p.wait("it is gone", fmt.Sprintf(`document.querySelector('[data-testid="token-row-%s"]') === null && document.querySelector('[data-testid^="token-row-"]') !== null`, made.ID))
	if strings.Contains(fmt.Sprint(must(c.client.Tokens(t.Context()))), made.ID) {
		t.Error("the token is still there")
	}
	p.calm("revoking a token")
}
