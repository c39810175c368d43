// Measures what the built page costs in the browser: how soon the first view is
// there once the bundle is cached, and the CPU time that following a fleet
// takes. Talks to the fake API with 1,000 nodes and 200 backends, or to a real
// manager with BINNACLE_URL and BINNACLE_TOKEN.
//
//   node dev/load.mjs [PATH ...]

import { spawn } from "node:child_process";
import { once } from "node:events";
import { startChromium } from "./chromium.mjs";

/** Views are left alone so long before their CPU time is counted, and counted so long. */
const WARM_MS = Number(process.env.WARM_MS ?? 15_000);
const COUNT_MS = Number(process.env.COUNT_MS ?? 40_000);
/** Loads with a warm cache. */
const LOADS = 7;

const paths = process.argv.length > 2 ? process.argv.slice(2) : ["/", "/nodes", "/matrix"];
const sleep = (ms) => new Promise((r) => setTimeout(r, ms));

// The fake runs in a process of its own: what it costs is not the page's.
const fake = process.env.BINNACLE_URL ? undefined : spawn(process.execPath, [new URL("fake.mjs", import.meta.url).pathname, "--port", "0", "--scene", process.env.SCENE ?? "many"], { stdio: ["ignore", "pipe", "inherit"] });
const base = fake ? /http:\S+?(?=\/?\s)/.exec(String((await once(fake.stdout, "data"))[0]))[0] : process.env.BINNACLE_URL;

/** Notes when the sentence and the charts are there, in milliseconds since the navigation began. */
const WATCH = `(() => {
  const at = (window.drawn = {});
  const look = () => {
    if (!at.sentence && document.querySelector('[data-testid="sentence"] a, [data-testid="sentence"] span, main h1')) at.sentence = performance.now();
    if (!at.table && document.querySelector('main tbody tr')) at.table = performance.now();
    if (!at.charts && document.querySelectorAll('[data-testid^="chart-"] canvas').length === 3) at.charts = performance.now();
  };
  new MutationObserver(look).observe(document, { childList: true, subtree: true, characterData: true });
})()`;

const chromium = startChromium();
try {
  const { targetId } = await chromium.send("Target.createTarget", { url: "about:blank" });
  const { sessionId } = await chromium.send("Target.attachToTarget", { targetId, flatten: true });
  const send = (method, params) => chromium.send(method, params, sessionId);
  let received = 0;
  let messages = 0;
  chromium.listen((m) => {
    if (m.method !== "Network.dataReceived") return;
    received += m.params.dataLength;
    messages++;
  });
  await Promise.all([send("Page.enable"), send("Runtime.enable"), send("Network.enable"), send("Performance.enable", { timeDomain: "threadTicks" })]);
  if (process.env.BINNACLE_TOKEN) await send("Network.setExtraHTTPHeaders", { headers: { authorization: `Bearer ${process.env.BINNACLE_TOKEN}` } });
  await send("Emulation.setDeviceMetricsOverride", { width: 1280, height: 900, deviceScaleFactor: 1, mobile: false });
  await send("Page.addScriptToEvaluateOnNewDocument", { source: WATCH });
  const value = async (expression) => (await send("Runtime.evaluate", { expression, returnByValue: true })).result.value;
  const cpu = async () => {
    const { processInfo } = await chromium.send("SystemInfo.getProcessInfo");
    const by = {};
    for (const p of processInfo) by[p.type] = (by[p.type] ?? 0) + p.cpuTime;
    return by;
  };
  /** CPU seconds of the page's own process so far. */
  const spent = async () => (await cpu()).renderer ?? 0;
  const median = (list) => [...list].sort((a, b) => a - b)[Math.floor(list.length / 2)];

  for (const path of paths) {
    const loads = [];
    const work = [];
    for (let i = 0; i <= LOADS; i++) {
      const idle = await spent();
      await send("Page.navigate", { url: base + path });
      const until = Date.now() + 20_000;
      while (!(await value("!!(window.drawn && drawn.sentence && (drawn.table || drawn.charts))")) && Date.now() < until) await sleep(20);
      await sleep(700);
      if (i > 0) loads.push(await value("({ ...drawn, paint: performance.getEntriesByName('first-contentful-paint')[0]?.startTime })")); // the first fills the cache
      if (i > 0) work.push((await spent()) - idle);
    }
    const of = (key) => (loads.every((l) => l[key]) ? `${median(loads.map((l) => l[key])).toFixed(0)} ms` : "–");
    console.log(`${path}: first paint ${of("paint")}, words ${of("sentence")}, rows ${of("table")}, charts ${of("charts")} (medians of ${loads.length} loads, bundle cached); CPU of the page ${(1000 * median(work)).toFixed(0)} ms a load`);
    await sleep(WARM_MS);
    const [before, began] = [await cpu(), Date.now()];
    [received, messages] = [0, 0];
    await sleep(COUNT_MS);
    const [after, seconds] = [await cpu(), (Date.now() - began) / 1000];
    const share = (type) => `${((100 * ((after[type] ?? 0) - (before[type] ?? 0))) / seconds).toFixed(1)} %`;
    const heap = await value("performance.memory ? (performance.memory.usedJSHeapSize / 1048576).toFixed(0) : '?'");
    console.log(`${path}: CPU of one core: page ${share("renderer")}, browser ${share("browser")}, drawing ${share("GPU")}; ${(received / 1024 / seconds).toFixed(0)} KiB/s, heap ${heap} MiB, ${await value("document.querySelectorAll('*').length")} elements`);
  }
} finally {
  await chromium.stop();
  fake?.kill();
}
