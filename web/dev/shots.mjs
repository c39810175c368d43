// Takes screenshots of the built page against the fake API, in both themes and
// three widths, and fails on anything that the browser complains about: a
// script error, a refused file, a broken policy. Talks to Chromium over a pipe.
//
//   node dev/shots.mjs DIR [SCENE[:PATH[:WIDTHxHEIGHT[:light|dark]]] ...]
//
// BINNACLE_URL=http://127.0.0.1:9897 takes a real manager, to which BINNACLE_TOKEN
// opens the door; SCENE is then only the name of the picture.
// FULL=1 takes the whole length of the page, STALE=1 takes the API away first,
// EVALFILE=FILE prints what a script gives in the page.

import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { startChromium } from "./chromium.mjs";
import { listen } from "./fake.mjs";

/** How long a page may take to draw what it waits for, and how long charts are given then. */
const DRAW_MS = 10_000;
const SETTLE_MS = 2600;

/** With STALE=1 the API goes away and the picture is taken this much later. */
const STALE_MS = 9000;

const [dir = "shots", ...wanted] = process.argv.slice(2);
const SIZES = ["1280x860", "390x844", "2560x1440"];
const shots = (wanted.length > 0 ? wanted : ["demo", "calm", "empty"]).flatMap((w) => {
  const [scene, path = "/", size, theme] = w.split(":");
  return (size ? [size] : SIZES).flatMap((s) => (theme ? [theme] : ["light", "dark"]).map((t) => ({ scene, path, size: s.split("x").map(Number), theme: t })));
});

mkdirSync(dir, { recursive: true });
const chromium = startChromium();
const complaints = [];
chromium.listen((m) => {
  if (m.method === "Runtime.exceptionThrown") complaints.push(m.params.exceptionDetails.exception?.description ?? m.params.exceptionDetails.text);
  if (!process.env.STALE && m.method === "Log.entryAdded" && m.params.entry.level === "error") complaints.push(`${m.params.entry.text} ${m.params.entry.url ?? ""}`);
});
const servers = new Map();
try {
  for (const { scene, path, size, theme } of shots) {
    if (!process.env.BINNACLE_URL && !servers.has(scene)) servers.set(scene, await listen({ scene }));
    const { targetId } = await chromium.send("Target.createTarget", { url: "about:blank" });
    const { sessionId } = await chromium.send("Target.attachToTarget", { targetId, flatten: true });
    const send = (method, params) => chromium.send(method, params, sessionId);
    await Promise.all([send("Runtime.enable"), send("Log.enable"), send("Page.enable")]);
    await send("Emulation.setEmulatedMedia", { features: [{ name: "prefers-color-scheme", value: theme }] });
    await send("Emulation.setDeviceMetricsOverride", { width: size[0], height: size[1], deviceScaleFactor: Number(process.env.SCALE ?? 1), mobile: size[0] < 500 });
    if (process.env.BINNACLE_TOKEN) {
      await send("Network.enable");
      await send("Network.setExtraHTTPHeaders", { headers: { authorization: `Bearer ${process.env.BINNACLE_TOKEN}` } });
    }
    const base = process.env.BINNACLE_URL ?? `http://127.0.0.1:${servers.get(scene).address().port}`;
    await send("Page.navigate", { url: base + path });
    const ready = `(() => { const s = document.querySelector('[data-testid="sentence"], h1'); return s !== null && s.textContent.trim() !== ""; })()`;
    const until = Date.now() + DRAW_MS;
    for (;;) {
      const { result } = await send("Runtime.evaluate", { expression: ready });
      if (result.value) break;
      if (Date.now() > until) throw new Error(`${scene}${path}: nothing drawn within ${DRAW_MS} ms`);
      await new Promise((r) => setTimeout(r, 100));
    }
    await new Promise((r) => setTimeout(r, SETTLE_MS));
    if (process.env.STALE) {
      const server = servers.get(scene);
      servers.delete(scene);
      server.close();
      server.closeAllConnections();
      await new Promise((r) => setTimeout(r, STALE_MS));
    }
    if (process.env.EVALFILE) console.log((await send("Runtime.evaluate", { expression: readFileSync(process.env.EVALFILE, "utf8"), awaitPromise: true, returnByValue: true })).result.value);
    const wide = (await send("Runtime.evaluate", { expression: "document.documentElement.scrollWidth - innerWidth" })).result.value;
    if (wide > 0) complaints.push(`${scene}${path} at ${size[0]}: ${wide} px too wide`);
    const { data } = await send("Page.captureScreenshot", { format: "png", captureBeyondViewport: process.env.FULL === "1" });
    const view = process.env.BINNACLE_URL ? "" : path.replaceAll(/[^a-z0-9]+/gi, "-").replace(/-$/, "");
    const name = `${scene}${view}-${size[0]}-${theme}.png`;
    writeFileSync(join(dir, name), Buffer.from(data, "base64"));
    console.log(name);
    await chromium.send("Target.closeTarget", { targetId });
  }
} finally {
  await chromium.stop();
  for (const s of servers.values()) {
    s.closeAllConnections();
    s.close();
  }
}
if (complaints.length > 0) {
  console.error(`the browser complained:\n${complaints.join("\n")}`);
  process.exit(1);
}
