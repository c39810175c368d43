// A small fake of the operator API with plausible moving data, for `npm run
// dev` and for screenshots. No dependency. Run alone it also serves the built
// page with the manager's content security policy:
//
//   node dev/fake.mjs [--port 9797] [--scene demo|calm|empty|many|nohistory|hostile]

import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { pathToFileURL } from "node:url";

const STEP_MS = 2000;

/** A smooth pseudo-random number in [0, 1) that depends on t and a seed only. */
function noise(t, seed) {
  const at = (i) => {
    const x = Math.sin(i * 127.1 + seed * 311.7) * 43758.5453;
    return x - Math.floor(x);
  };
  const i = Math.floor(t);
  const f = t - i;
  const s = f * f * (3 - 2 * f);
  return at(i) * (1 - s) + at(i + 1) * s;
}

/** The four backends of the demo: how fast, how broken at second t. */
const BACKENDS = [
  { id: "users.internal:8080", share: 1, p50: 0.004, tail: 3, errors: () => 0 },
  { id: "search.internal:8081", share: 0.45, p50: 0.042, tail: 14, errors: () => 0.0002 },
  { id: "billing.internal:8082", share: 0.6, p50: 0.009, tail: 4, errors: () => 0.03 },
  { id: "stock.internal:8083", share: 0.8, p50: 0.006, tail: 3, errors: (t) => (t % 60 < 10 ? 1 : 0) },
];

const SCENES = {
  demo: { nodes: 3, rate: 130, broken: true },
  calm: { nodes: 12, rate: 4200, broken: false },
  empty: { nodes: 0, rate: 0, broken: false },
  many: { nodes: 1000, rate: 90_000, broken: true },
  nohistory: { nodes: 3, rate: 130, broken: true },
  hostile: { nodes: 3, rate: 130, broken: true },
};

/** Requests per second by outcome, and latency, of the whole cluster at Unix second t. */
function clusterAt(scene, t) {
  const base = scene.rate * (0.8 + 0.25 * noise(t / 40, 1) + 0.06 * noise(t / 3, 2)) * (0.75 + 0.25 * Math.sin(t / 13750));
  const shares = scene.broken ? BACKENDS : BACKENDS.slice(0, 2);
  const weight = shares.reduce((n, b) => n + b.share, 0);
  const failed = scene.broken ? shares.reduce((n, b) => n + (b.share / weight) * b.errors(t), 0) : 0;
  const error = base * failed * (0.9 + 0.2 * noise(t / 5, 3));
  const clientError = base * (0.008 + 0.012 * noise(t / 25, 4));
  return {
    ok: Math.max(0, base - error - clientError),
    client_error: clientError,
    error,
    p50: 0.006 * (1 + 0.3 * noise(t / 30, 5)),
    p95: 0.052 * (1 + 0.5 * noise(t / 20, 6)),
    p99: 0.21 * (1 + 1.1 * noise(t / 12, 7)),
  };
}

function activity(window, rate, errorRatio, clientRatio, p50, tail, total, now) {
  const requests = Math.round(rate * window);
  const errors = Math.round(requests * errorRatio);
  return {
    window,
    requests,
    requests_per_second: requests / window,
    errors,
    error_ratio: requests === 0 ? null : errors / requests,
    client_errors: Math.round(requests * clientRatio),
    limited: 0,
    latency: requests === 0 ? null : { p50, p95: p50 * tail, p99: p50 * tail * 2.6 },
    requests_total: total,
    last_seen: new Date(now - 900).toISOString(),
  };
}

const sha = (s) => createHash("sha256").update(s).digest("hex");

function makeNodes(sceneName, scene, now, started) {
  const t = now / 1000;
  const c = clusterAt(scene, t);
  const rate = c.ok + c.client_error + c.error;
  const live = Array.from({ length: scene.nodes }, (_, i) => i).filter((i) => !(sceneName === "many" && i % 97 === 13));
  return Array.from({ length: scene.nodes }, (_, i) => {
    const down = !live.includes(i);
    const share = (rate / Math.max(1, live.length)) * (0.9 + 0.2 * noise(t / 9, 100 + i));
    const id = `n-${sha(`node${i}`).slice(0, 10)}`;
    const name = sceneName === "hostile" && i === 0 ? `<img src=x onerror="document.title='owned'">` : `gw-${i + 1}`;
    const entry = { number: 7, sha256: sha("7"), time: new Date(started - 3600_000).toISOString() };
    return {
      id,
      name,
      group: scene.nodes > 5 && i % 4 === 0 ? "eu" : "default",
      labels: { zone: "abc"[i % 3] },
      address: `10.0.${Math.floor(i / 250)}.${(i % 250) + 11}:8080`,
      version: "0.1.0",
      managed: !(sceneName === "many" && i % 211 === 5),
      state: down ? "down" : "alive",
      state_since: new Date(started - (down ? 900_000 : 7200_000)).toISOString(),
      state_cause: down ? "no poll and no gossip for 5 min" : "",
      conditions: sceneName === "many" && i % 333 === 20 ? [{ kind: "draining", cause: "ordered by admin", since: new Date(started).toISOString() }] : [],
      enrolled: new Date(started - 86400_000 * 3).toISOString(),
      last_poll: new Date(now - 12_000).toISOString(),
      lease: { issued: new Date(started).toISOString(), expires: new Date(started + 5 * 86400_000).toISOString() },
      ledger: { desired: entry, attempted: entry, applied: entry, last_good: entry },
      activity: down ? null : activity(60, share, scene.broken ? c.error / rate : 0, 0.012, c.p50 * (0.95 + 0.1 * noise(t / 8, 200 + i)), 9, Math.round(share * 3600 * 31 + (t % 86400) * share), now),
    };
  });
}

function makeBackends(sceneName, scene, nodes, now) {
  if (scene.nodes === 0) return [];
  const t = now / 1000;
  const c = clusterAt(scene, t);
  const rate = c.ok + c.client_error + c.error;
  const list = sceneName === "many" ? Array.from({ length: 200 }, (_, i) => ({ ...BACKENDS[i % 4], id: `svc-${i + 1}.internal:8080`, share: 0.02, errors: i % 40 === 2 ? () => 0.03 : () => 0 })) : scene.broken ? BACKENDS : BACKENDS.slice(0, 2);
  return list.map((b, i) => {
    const calls = rate * b.share * (0.95 + 0.1 * noise(t / 11, 300 + i));
    // The window is a minute: the backend that goes away for ten seconds of it fails a sixth.
    const failing = sceneName === "demo" && b.id.startsWith("stock") ? 0.164 : scene.broken ? b.errors(t + 30) : 0;
    const [address, port] = b.id.split(":");
    const alive = nodes.filter((n) => n.activity).slice(0, 12);
    return {
      id: b.id,
      address,
      port: Number(port),
      activity: activity(60, calls, failing, 0, b.p50 * (1 + 0.1 * noise(t / 7, 400 + i)), b.tail, Math.round(calls * 3600 * 31 + (t % 86400) * calls), now),
      nodes: alive.map((n) => ({ node: n.id, activity: activity(60, calls / alive.length, failing, 0, b.p50, b.tail, Math.round((calls / alive.length) * 3600 * 31), now) })),
      endpoints: [`/v1/${b.id.split(".")[0]}/{id}`],
    };
  });
}

function makeOverview(sceneName, scene, started) {
  const now = Date.now();
  const nodes = makeNodes(sceneName, scene, now, started);
  const c = clusterAt(scene, now / 1000);
  const rate = c.ok + c.client_error + c.error;
  const states = {};
  for (const n of nodes) states[n.state] = (states[n.state] ?? 0) + 1;
  return {
    time: new Date(now).toISOString(),
    cluster: {
      id: "c-7f3a91d2",
      version: "0.1.0",
      started: new Date(started).toISOString(),
      managers: [{ name: "manager-1", address: "0.0.0.0:9897", node_address: "0.0.0.0:9899", leader: true }],
      nodes: states,
      unmanaged: nodes.filter((n) => !n.managed).length,
      activity: scene.nodes === 0 ? null : { ...activity(60, rate, scene.broken ? c.error / rate : 0, 0.012, c.p50, 8, nodes.reduce((n, x) => n + (x.activity?.requests_total ?? 0), 0), now), latency: { p50: c.p50, p95: c.p95, p99: c.p99 } },
      license: { plan: "community", state: "valid", seats: 0, seats_used: nodes.filter((n) => n.managed).length },
      rollouts: sceneName === "calm" ? [{ id: "42", group: "default", from: 6, to: 7, strategy: "all", state: "running", started: new Date(now - 40_000).toISOString(), confirmed: ["a", "b", "c", "d", "e", "f", "g"], pending: ["h", "i"] }] : [],
    },
    nodes,
    backends: makeBackends(sceneName, scene, nodes, now),
    recent: scene.nodes === 0 ? null : activity(2, rate, c.error / rate, 0.012, c.p50, 8, 0, now),
  };
}

function makeEvents(scene, started) {
  if (scene.nodes === 0) return [{ id: 1, time: new Date(started - 60_000).toISOString(), kind: "manager.started", actor: "manager", message: "the manager started" }];
  const at = (s) => new Date(started - s * 1000).toISOString();
  const name = (i) => `gw-${i}`;
  const node = (i) => `n-${sha(`node${i - 1}`).slice(0, 10)}`;
  return [
    { id: 1, time: at(9000), kind: "manager.started", actor: "manager", message: "the manager started" },
    { id: 2, time: at(8990), kind: "license.installed", actor: "manager", message: "the community license was made: unlimited seats" },
    ...[1, 2, 3].map((i) => ({ id: 2 + i, time: at(8900 - i), kind: "node.joined", group: "default", node: node(i), actor: node(i), message: `${name(i)} enrolled and joined` })),
    { id: 6, time: at(1900), kind: "revision.created", group: "default", actor: "admin", message: "revision 7: raise the timeout of /search" },
    { id: 7, time: at(205), kind: "rollout.started", group: "default", actor: "admin", message: "rollout of revision 7 to all 3 nodes started" },
    { id: 8, time: at(203), kind: "rollout.completed", group: "default", actor: "manager", message: "revision 7 is confirmed by all 3 nodes" },
    { id: 9, time: at(75), kind: "node.restarted", group: "default", node: node(2), actor: "admin", message: `${name(2)} was restarted` },
  ];
}

function matrix(scene, params) {
  const [start, end, step] = ["start", "end", "step"].map((k) => Number(params.get(k)));
  const query = params.get("query") ?? "";
  const names = query.includes("histogram_quantile") ? ["p50", "p95", "p99"] : ["ok", "client_error", ...(scene.broken ? ["error"] : [])];
  const label = query.includes("histogram_quantile") ? "quantile" : "outcome";
  return names.map((name) => {
    const values = [];
    for (let t = start; t <= end; t += step) {
      // A rate is a mean over its range: sample it as one.
      const n = 6;
      const range = Math.max(30, 2 * step);
      let sum = 0;
      for (let i = 0; i < n; i++) sum += clusterAt(scene, t - (range * i) / n)[name];
      const missing = t > end - 3600 * 9 && t < end - 3600 * 8.4; // a manager that was away, seen at 24 h
      if (!missing) values.push([t, String(sum / n)]);
    }
    return { metric: { [label]: name }, values };
  });
}

/** Makes a handler of node's http: it answers API requests, and returns false for the others. */
export function makeFake({ scene: sceneName = process.env.SCENE ?? "demo" }) {
  const scene = SCENES[sceneName];
  if (!scene) throw new Error(`no scene ${sceneName}: have ${Object.keys(SCENES).join(", ")}`);
  const started = Date.now();
  const events = makeEvents(scene, started);
  const json = (res, body, status = 200) => {
    res.writeHead(status, { "content-type": "application/json" });
    res.end(JSON.stringify(body));
    return true;
  };
  const stream = (req, res, ms, next) => {
    res.writeHead(200, { "content-type": "text/event-stream", "cache-control": "no-store" });
    const send = () => res.write(next());
    send();
    const timer = setInterval(send, ms);
    req.on("close", () => clearInterval(timer));
    return true;
  };
  return (req, res) => {
    const url = new URL(req.url, "http://fake");
    switch (url.pathname) {
      case "/v1/me":
        return json(res, { name: "admin", role: "admin", rights: [] });
      case "/v1/cluster":
        return json(res, makeOverview(sceneName, scene, started).cluster);
      case "/v1/nodes":
        return json(res, { items: makeOverview(sceneName, scene, started).nodes });
      case "/v1/backends":
        return json(res, { items: makeOverview(sceneName, scene, started).backends });
      case "/v1/activity/stream":
        return stream(req, res, STEP_MS, () => `event: overview\ndata: ${JSON.stringify(makeOverview(sceneName, scene, started))}\n\n`);
      case "/v1/events":
        return json(res, { items: events.filter((e) => e.id > Number(url.searchParams.get("after") ?? 0)) });
      case "/v1/events/stream":
        return stream(req, res, 15_000, () => ":\n\n");
      case "/prometheus/api/v1/query_exemplars": {
        const [from, to] = ["start", "end"].map((k) => Number(url.searchParams.get(k)));
        const points = scene.nodes === 0 ? [] : Array.from({ length: 40 }, (_, i) => from + ((i + noise(i, 8)) * (to - from)) / 40);
        const exemplars = points.map((t) => ({ labels: { trace_id: sha(`trace${Math.round(t)}`).slice(0, 32) }, value: String(clusterAt(scene, t).p99 * (0.4 + 4 * noise(t, 9) ** 3)), timestamp: t }));
        return json(res, { status: "success", data: exemplars.length ? [{ seriesLabels: { http_request_method: "GET", http_route: "/v1/search" }, exemplars }] : [] });
      }
      case "/prometheus/api/v1/query_range":
        if (sceneName === "nohistory") return json(res, { status: "error", error: "the store is being repaired" }, 503);
        return json(res, { status: "success", data: { resultType: "matrix", result: matrix(scene, url.searchParams) } });
    }
    if (url.pathname.startsWith("/v1/") || url.pathname.startsWith("/prometheus/")) return json(res, { title: "Not Found", status: 404, detail: `the fake has no ${url.pathname}` }, 404);
    return false;
  };
}

const TYPES = { html: "text/html; charset=utf-8", css: "text/css; charset=utf-8", js: "text/javascript; charset=utf-8", svg: "image/svg+xml" };
const CSP = "default-src 'self'; object-src 'none'; base-uri 'none'; frame-ancestors 'none'; style-src 'self'";

/** Serves the built page, as the manager would. */
function serveDist(req, res) {
  const path = new URL(req.url, "http://fake").pathname;
  const file = path === "/login" ? "login.html" : /\.[a-z]+$/.test(path) ? path.slice(1) : "index.html";
  try {
    const body = readFileSync(new URL(`../dist/${file}`, import.meta.url));
    res.writeHead(200, { "content-type": TYPES[file.split(".").pop()] ?? "application/octet-stream", "content-security-policy": CSP });
    res.end(body);
  } catch {
    res.writeHead(404).end("not built, or no such file\n");
  }
}

/** Listens on 127.0.0.1; resolves to the server. */
export function listen({ port = 0, scene }) {
  const fake = makeFake({ scene });
  const server = createServer((req, res) => {
    if (!fake(req, res)) serveDist(req, res);
  });
  return new Promise((resolve, reject) => {
    server.once("error", reject);
    server.listen(port, "127.0.0.1", () => resolve(server));
  });
}

if (process.argv[1] && import.meta.url === pathToFileURL(process.argv[1]).href) {
  const flag = (name, fallback) => {
    const i = process.argv.indexOf(`--${name}`);
    return i < 0 ? fallback : process.argv[i + 1];
  };
  const server = await listen({ port: Number(flag("port", "9797")), scene: flag("scene", "demo") });
  console.log(`fake manager on http://127.0.0.1:${server.address().port}/`);
}
