package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// tab is one page of a real browser, used as a person would use it: it waits
// for what it should see, and clicks. What the browser complains about is kept.
type tab struct {
	t   *testing.T
	ctx context.Context

	mu       sync.Mutex // guards problems
	problems []string
}

// openBrowser starts headless Chromium, or skips the test where there is none.
func openBrowser(t *testing.T) context.Context {
	t.Helper()
	if _, err := exec.LookPath("chromium"); err != nil {
		t.Skip("chromium is not installed: `make test` installs it where it can")
	}
	opts := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath("chromium"), chromedp.NoSandbox,
		chromedp.Flag("disable-gpu", true), chromedp.Flag("disable-quic", true), chromedp.Flag("disable-component-update", true))
	alloc, cancel := chromedp.NewExecAllocator(t.Context(), opts...)
	t.Cleanup(cancel)
	ctx, cancel := chromedp.NewContext(alloc)
	t.Cleanup(cancel)
	if err := chromedp.Do(ctx); err != nil {
		t.Fatalf("start chromium: %v", err)
	}
	return ctx
}

// newTab opens a tab of a browser and logs it in with a one-time link.
func newTab(t *testing.T, browser context.Context, c *cluster) *tab {
	t.Helper()
	ctx, cancel := chromedp.NewContext(browser)
	t.Cleanup(cancel)
	if err := chromedp.Do(ctx); err != nil { // a tab, before the time of anything is bounded
		t.Fatal(err)
	}
	p := &tab{t: t, ctx: ctx}
	p.do(chromedp.EmulateViewport(1280, 900))
	var found []string
	collect := consoleErrors(&found)
	err := chromedp.Listen(ctx, func(ev any) {
		p.mu.Lock()
		defer p.mu.Unlock()
		found = nil
		collect(ev)
		p.problems = append(p.problems, found...)
	})
	if err != nil {
		t.Fatal(err)
	}
	code, err := c.client.LoginCode(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	p.open(c.base + "/login?code=" + code.Code)
	p.wait("the page is live", isLive)
	return p
}

// isLive is true when the view is drawn and its data are fresh.
const isLive = `document.querySelector('[data-testid="link"]')?.textContent === 'live' && document.querySelector('main h1, main [data-testid="sentence"]') !== null`

// settled is true when the view waits for nothing any more.
const settled = isLive + ` && document.querySelector('main .waiting') === null`

func (p *tab) do(steps ...chromedp.Action[chromedp.Void]) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, 30*time.Second)
	defer cancel()
	if err := chromedp.Do(ctx, steps...); err != nil {
		p.t.Fatalf("%v; the page says:\n%s", err, p.text())
	}
}

func (p *tab) open(url string) {
	p.t.Helper()
	p.do(chromedp.Navigate(url))
}

func (p *tab) text() string {
	ctx, cancel := context.WithTimeout(p.ctx, 5*time.Second)
	defer cancel()
	text, err := chromedp.Run(ctx, chromedp.Evaluate[string](`location.href + '\n' + document.body.innerText`))
	if err != nil {
		return err.Error()
	}
	return text
}

// wait waits until a JavaScript expression is true, over navigations too.
func (p *tab) wait(what, expression string) {
	p.t.Helper()
	p.waitFor(30*time.Second, what, expression)
}

func (p *tab) waitFor(within time.Duration, what, expression string) {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, within)
	defer cancel()
	tick := time.NewTicker(40 * time.Millisecond)
	defer tick.Stop()
	for {
		ok, err := chromedp.Run(ctx, chromedp.Evaluate[bool]("!!("+expression+")"))
		if err == nil && ok {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			p.t.Fatalf("waited %v until %s: %v; the page says:\n%s", within, what, err, p.text())
		}
	}
}

func eval[T any](p *tab, expression string) T {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, 60*time.Second)
	defer cancel()
	await := true
	v, err := chromedp.Run(ctx, chromedp.Evaluate[T](expression, func(e *runtime.EvaluateParams) { e.AwaitPromise = &await }))
	if err != nil {
		p.t.Fatalf("%.200s: %v", expression, err)
	}
	return v
}

func testid(id string) string { return fmt.Sprintf("[data-testid=%q]", id) }

// shows is an expression: the element with a test id is there and its text
// contains what is wanted.
func shows(id, want string) string {
	text, _ := json.Marshal(want)
	sel, _ := json.Marshal(testid(id))
	return fmt.Sprintf("document.querySelector(%s)?.textContent.includes(%s)", sel, text)
}

// click moves the mouse onto the element with a test id and presses it.
func (p *tab) click(id string) {
	p.t.Helper()
	sel, _ := json.Marshal(testid(id))
	p.wait(id+" can be clicked", fmt.Sprintf("(e => e && !e.disabled)(document.querySelector(%s))", sel))
	p.do(chromedp.Click(chromedp.CSS(testid(id))))
}

// confirm answers the question that an action asks; the question must name what
// is wanted.
func (p *tab) confirm(want string) {
	p.t.Helper()
	p.wait("the question names "+want, `document.querySelector('dialog[open]') !== null && `+shows("ask", want))
	p.click("confirm")
}

// typeInto puts text into a field as a paste would.
func (p *tab) typeInto(id, text string) {
	p.t.Helper()
	sel, _ := json.Marshal(testid(id))
	value, _ := json.Marshal(text)
	p.wait(id+" is there", fmt.Sprintf("document.querySelector(%s)", sel))
	eval[bool](p, fmt.Sprintf(`(() => {
		const e = document.querySelector(%s);
		Object.getOwnPropertyDescriptor(Object.getPrototypeOf(e), 'value').set.call(e, %s);
		e.dispatchEvent(new Event('input', { bubbles: true }));
		e.dispatchEvent(new Event('change', { bubbles: true }));
		return true;
	})()`, sel, value))
}

// theme makes the system light or dark.
func (p *tab) theme(name string) {
	p.t.Helper()
	_, err := chromedp.Call(p.ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: name}, {Name: "prefers-reduced-motion", Value: "reduce"}},
	})
	if err != nil {
		p.t.Fatal(err)
	}
}

// calm fails the test when the browser complained of anything since the last
// time: a script's error, a file that did not come, something that the content
// security policy refused.
func (p *tab) calm(where string) {
	p.t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.problems) > 0 {
		p.t.Errorf("%s: the browser complained:\n%s", where, strings.Join(p.problems, "\n"))
	}
	p.problems = nil
}

// forgive drops what the browser complained of: a manager that was stopped on
// purpose answers nothing.
func (p *tab) forgive() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.problems = nil
}

// axe is the accessibility checker's source, as a script for the page.
var axe = sync.OnceValues(func() (string, error) {
	b, err := os.ReadFile("../web/node_modules/axe-core/axe.min.js")
	return string(b), err
})

// accessible runs axe in the page and fails the test for all that it finds.
func (p *tab) accessible(where string) {
	p.t.Helper()
	src, err := axe()
	if err != nil {
		p.t.Fatalf("axe is not installed: run `make web`: %v", err)
	}
	if !eval[bool](p, `typeof axe === 'object'`) {
		eval[bool](p, src+";true")
	}
	found := eval[[]string](p, `axe.run(document, { resultTypes: ['violations'] }).then(r => r.violations.map(v => v.id + ' (' + v.impact + ', ' + v.nodes.length + '): ' + v.nodes.slice(0, 3).map(n => n.html.slice(0, 200) + ' – ' + ((n.any[0] || n.all[0] || n.none[0] || {}).message || '')).join(' | ')))`)
	for _, f := range found {
		p.t.Errorf("%s: axe found %s", where, f)
	}
}
