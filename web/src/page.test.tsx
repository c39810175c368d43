// The page as text: exact numbers, words of each state, and names of the
// user's world that must stay text.

import { renderToString } from "preact-render-to-string";
import { describe, expect, test } from "vitest";
import { arrange, compare } from "./components/table";
import { App } from "./app";
import { activity, backend, iso, node, NOW, overview } from "./fixtures";
import { retryDelay } from "./live";
import { joinBlock, managerAddress } from "./pages/empty";
import { Store } from "./store";
import type { Me, Overview } from "./api";

function page(path: string, o?: Overview, now = NOW, me?: Me, data: Record<string, unknown> = {}): string {
  const store = new Store(path, now);
  if (o) store.takeOverview(o, now);
  if (me) store.set({ me });
  for (const [p, body] of Object.entries(data)) store.takeData(p, { state: "ready", body, problem: "", status: 200 });
  Object.assign(globalThis, { location: { pathname: path, search: "", hostname: "manager.example" }, matchMedia: () => ({ matches: false }) });
  return renderToString(<App store={store} />);
}

/** The tag that has a test id, with its attributes. */
const tag = (html: string, testid: string): string => html.match(new RegExp(`<[^<>]*data-testid="${testid}"[^<>]*>[^<]*`))?.[0] ?? "";

describe("overview", () => {
  const o = overview(
    [node("n-1", { name: "gw-1", activity: activity({ requests_total: 1200 }) }), node("n-2", { name: "gw-2", state: "down", activity: null })],
    [backend("billing:8080", { activity: activity({ errors: 1234, requests: 50_000, error_ratio: 0.02468 }) })],
  );
  const html = page("/", o);

  test("shows exact numbers beside rounded ones", () => {
    expect(tag(html, "cluster-requests-total")).toContain('data-value="2000"');
    expect(tag(html, "cluster-requests-total")).toContain("2,000");
    const n = html.slice(html.indexOf('data-testid="node-row-n-1"'));
    expect(n.match(/<td[^>]*data-col="requests_total"[^>]*>[^<]*/)?.[0]).toMatch(/data-value="1200".*>1,200$/);
    const b = html.slice(html.indexOf('data-testid="backend-row-billing:8080"'));
    expect(b.match(/<td[^>]*data-col="errors"[^>]*>[^<]*/)?.[0]).toMatch(/data-value="1234".*>1,234$/);
  });
  test("says what is wrong", () => {
    expect(html).toContain("1 of 2 nodes");
    expect(html).toContain("no data yet");
  });
  test("before the first answer there is a frame, later words", () => {
    expect(page("/")).toContain("Overview");
  });
});

describe("hostile names stay text", () => {
  const evil = `<img src=x onerror=alert(1)>"'&`;
  const o = overview(
    [node("n-1", { name: evil, id: evil, group: evil, address: evil, version: evil, state: "down", state_cause: evil, labels: { [evil]: evil }, conditions: [{ kind: evil, cause: evil, since: iso(NOW) }] })],
    [backend(evil, { activity: activity({ errors: 6000, error_ratio: 1 }), nodes: [{ node: evil, activity: activity({ errors: 9 }) }], endpoints: [evil] })],
    { license: { plan: evil, state: "expired", seats: 1, seats_used: 1 } },
  );
  test.each(["/", "/nodes", "/backends", `/nodes/${encodeURIComponent(evil)}`, `/backends/${encodeURIComponent(evil)}`, "/events"])("on %s", (path) => {
    const html = page(path, o);
    expect(html.includes("&lt;img src=x") || path === "/events").toBe(true);
    const markup = html.replaceAll(/"[^"]*"/g, '""'); // what is quoted is a value
    expect(markup.includes("<img src=x")).toBe(false);
    expect(/<[^>]*\son[a-z]+=/.test(markup)).toBe(false);
  });
  test("links lead to nothing but paths of the page", () => {
    for (const [, href] of page("/", o).matchAll(/href="([^"]*)"/g)) expect(href).toMatch(/^[/#]/);
  });
});

describe("states that are easily forgotten", () => {
  test("empty: the block to paste", () => {
    const html = page("/", overview([]));
    expect(html).toContain("waiting for the first node");
    expect(html).toContain("manager.example:9899");
  });
  test("gone", () => {
    expect(page("/nodes/n-9", overview([node("n-1")]))).toContain("There is no node n-9");
    expect(page("/nope", overview([node("n-1")]))).toContain("There is no such view");
  });
  test("lost before anything came", () => {
    const store = new Store("/", NOW);
    store.lose("the manager cannot be reached", NOW);
    expect(renderToString(<App store={store} />)).toContain("the manager cannot be reached");
  });
});

describe("the store", () => {
  test("events are kept once, newest first", () => {
    const store = new Store("/", NOW);
    const e = (id: number) => ({ id, time: iso(NOW), kind: "k", actor: "a", message: "m" });
    store.addEvents([e(2), e(1)]);
    store.addEvents([e(3), e(2)]);
    expect(store.state.events.map((x) => x.id)).toEqual([3, 2, 1]);
  });
  test("a manager with another clock gives its own time", () => {
    const store = new Store("/", NOW);
    const me = { name: "admin", role: "admin" as const, rights: [] };
    store.takeVisitor(me, NOW, NOW - 60_000);
    expect(store.state.skew).toBe(60_000);
    store.takeVisitor(me, NOW, NOW - 500);
    expect(store.state.skew).toBe(0);
    store.takeVisitor(me, undefined, NOW);
    expect(store.state.skew).toBe(0);
  });
  test("a step of the charts is kept once", () => {
    const store = new Store("/", NOW);
    store.takeOverview(overview([]), NOW);
    store.takeOverview(overview([]), NOW + 100);
    expect(store.state.recent.map((p) => p.time)).toEqual([NOW / 1000]);
  });
  test("a loss keeps its beginning", () => {
    const store = new Store("/", NOW);
    store.lose("a", 100);
    store.lose("b", 200);
    expect(store.state.link).toEqual({ state: "lost", since: 100, problem: "b" });
  });
});

describe("tables", () => {
  const rows = [{ n: 3, s: "gw-10" }, { n: null, s: "gw-2" }, { n: 1, s: "gw-1" }];
  const columns = [
    { key: "n", label: "N", num: true, sort: (r: (typeof rows)[0]) => r.n, cell: () => "" },
    { key: "s", label: "S", sort: (r: (typeof rows)[0]) => r.s, cell: () => "" },
  ];
  test.each([
    ["n", [1, 3, null]],
    ["-n", [3, 1, null]],
    ["s", [1, null, 3]],
    ["", [3, null, 1]],
    ["unknown", [3, null, 1]],
  ])("sorted by %s", (sort, want) => expect(arrange({ rows, columns, sort, filter: "" }).map((r) => r.n)).toEqual(want));
  test("names with numbers are in natural order", () => expect(compare("gw-2", "gw-10", false)).toBeLessThan(0));
});

describe("small things", () => {
  test.each([
    [[], "h:9899"],
    [[{ name: "m", address: "x:9897", leader: true }], "h:9899"],
    [[{ name: "m", address: "x:9897", node_address: "0.0.0.0:19899", leader: true }], "h:19899"],
    [[{ name: "m", address: "x:9897", node_address: "[::]:19899", leader: true }], "h:19899"],
    [[{ name: "a", address: "", node_address: "10.0.0.4:9899", leader: false }, { name: "b", address: "", node_address: "10.0.0.5:9899", leader: true }], "10.0.0.5:9899"],
  ])("managerAddress %#", (managers, want) => expect(managerAddress(managers, "h")).toBe(want));
  test("the block is JSON", () => {
    const parsed = JSON.parse(`{${joinBlock("10.0.0.5:9899")}}`) as { extra_config: Record<string, unknown> };
    expect(parsed.extra_config["@cluster"]).toEqual({ manager: "10.0.0.5:9899", token_file: "/etc/binnacle/join.token" });
  });
  test("retries grow to a ceiling, with jitter", () => {
    expect(retryDelay(0, 0)).toBe(500);
    expect(retryDelay(0, 0.999)).toBeLessThan(1000);
    expect(retryDelay(50, 0.999)).toBeLessThanOrEqual(15_000);
    expect(retryDelay(50, 0)).toBe(7500);
  });
});

describe("roles", () => {
  const o = overview([node("n-1", { name: "gw-1" })]);
  const me = (role: Me["role"], name: string = role): Me => ({ name, role, rights: [] });
  const links = (html: string): string[] => [...html.slice(html.indexOf("<nav"), html.indexOf("</nav>")).matchAll(/>([A-Z][a-z]+)</g)].map((m) => m[1] ?? "");
  test("what a role may not do is not offered", () => {
    expect(links(page("/", o, NOW, me("viewer")))).toEqual(["Overview", "Nodes", "Backends", "Events", "License"]);
    expect(links(page("/", o, NOW, me("operator")))).toEqual(["Overview", "Nodes", "Backends", "Configuration", "Traces", "Events", "License"]);
    expect(links(page("/", o, NOW, me("admin")))).toContain("Tokens");
    expect(page("/nodes/n-1", o, NOW, me("viewer"))).not.toContain("node-actions");
    expect(page("/nodes/n-1", o, NOW, me("operator"))).toContain("Drain gw-1");
    expect(page("/nodes/n-1", o, NOW, me("operator"))).not.toContain("Forget gw-1");
    expect(page("/nodes/n-1", o, NOW, me("admin"))).toContain("Forget gw-1");
  });
  test("a view behind a role says which, and the way in", () => {
    const html = page("/tokens", o, NOW, me("viewer", "anonymous"));
    expect(html).toContain("needs the role admin");
    expect(html).toContain("/login?next=%2Ftokens");
  });
});

describe("the evidence of a gate", () => {
  const sample = (requests: number, bad: number) => ({ requests, bad });
  const rollout = (history: object) => ({
    id: "r1", group: "eu", from: 1, to: 2, strategy: "steps", state: "running", author: "a", started: iso(NOW), confirmed: ["n-1"], pending: [], step: 0,
    steps: [{ nodes: 1, bake: 60, state: "baking", added: ["n-1"], verdict: {
      result: "pass", reason: "fine", at: iso(NOW), from: iso(NOW - 60_000), canaries: ["n-1"], looks: 26, test: "t", history,
      saturation: [{ what: "memory", canary: 314572800, control: 104857600, limit: 478150656, canary_query: "c", control_query: "d", control_at: iso(NOW), result: "pass" }, { what: "cpu", canary: 0.125, control: 0.1, limit: 0.45, canary_query: "c", control_query: "d", control_at: iso(NOW), result: "pass" }],
      comparisons: [{ what: "errors", canary_query: "q", control_query: "q", canary: sample(520, 1), control: sample(520, 0), evidence: 1, needed: 10_000, result: "pass", exact: { canary: sample(500, 1), control: sample(520, 0), fails_from: 6, alpha: 0.0082, ceiling: 0.041, usual: 0.001, power: 0.963 } }],
    } }],
  });
  const hours = { from: iso(NOW - 21_600_000), to: iso(NOW), query: "sum(x)", spell_seconds: 120, spells: 180, sum: sample(200_000, 200), worst: 0.004, used: true };
  const html = (history: object) => page("/rollouts/r1", overview([node("n-1")]), NOW, { name: "a", role: "admin", rights: [] }, { "/v1/rollouts/r1": rollout(history), "/v1/groups/eu/revisions": { items: [] } }).replaceAll("\u00a0", " ");
  test("the hours before, and what the test is worth", () => {
    const text = html(hours);
    expect(text).toContain("0.1 % (200 of 200,000) failed, 0.4 % in the worst of 180 spells");
    expect(text).toContain("it fails 0.82 %, at most 4.1 % whatever happens to both sides; of those with 2 points more errors than the usual 0.1 % it finds 96.3 %");
    const start = NOW / 1000 - 21_600 + 120;
    expect(text).toContain(`start=${start}&amp;end=${NOW / 1000}&amp;step=120`);
  });
  test("what answering costs a node of each side", () => {
    const text = html(hours);
    expect(text).toContain("0.125 cores");
    expect(text).toContain("300 MiB");
    expect(text).toContain("456 MiB");
  });
  test("hours that did not count say why", () => {
    expect(html({ ...hours, used: false, note: "too few spells" })).toContain("before did not count: too few spells");
  });
});

describe("hostile values from other parts of the API stay text", () => {
  const evil = `<img src=x onerror=alert(1)>"'&`;
  const o = overview([node("n-1", { name: evil })], [backend(evil, { callers: 1, nodes: [{ node: "n-1", activity: activity({ requests: 10, errors: 9 }) }] })]);
  const admin: Me = { name: evil, role: "admin", rights: [] };
  const rollout = {
    id: "r1", group: "eu", from: 1, to: 2, strategy: "steps", state: "running", author: evil, started: iso(NOW), confirmed: ["n-1"], pending: [], refused: { "n-2": evil }, reason: evil, step: 0,
    steps: [{ nodes: 1, bake: 60, state: "baking", added: ["n-1"], verdict: { result: "fail", reason: evil, at: iso(NOW), from: iso(NOW - 60_000), canaries: ["n-1"], looks: 1, test: evil, history: { from: iso(NOW - 21_600_000), to: iso(NOW), query: evil, spell_seconds: 120, spells: 3, sum: { requests: 300, bad: 1 }, worst: 0.01, used: false, note: evil }, comparisons: [{ what: evil, endpoint: evil, canary_query: evil, control_query: evil, canary: { requests: 1, bad: 1 }, control: { requests: 1, bad: 0 }, evidence: 1, needed: 2, result: "fail", note: evil, exact: { canary: { requests: 500, bad: 1 }, control: { requests: 520, bad: 0 }, fails_from: 5, alpha: 0.0092, ceiling: 0.0092, power: 0.97 } }], saturation: [{ what: evil, canary: 1, control: 1, limit: 1, canary_query: evil, control_query: evil, control_at: iso(NOW), result: "fail" }] } }],
  };
  const data = {
    "/v1/groups": { items: [{ name: "eu", format: evil, desired: 1, revisions: 1, nodes: 1, activity: null }] },
    "/v1/rollouts": { items: [rollout] },
    "/v1/rollouts/r1": rollout,
    "/v1/groups/eu/revisions": { items: [{ number: 1, sha256: "aa", group: "eu", parent: 0, author: evil, message: evil, created: iso(NOW), bytes: 5, warnings: [{ stage: "build", message: evil }] }, { number: 2, sha256: "bb", group: "eu", parent: 1, message: evil, created: iso(NOW), bytes: 5 }] },
    "/v1/groups/eu/diff?from=1&to=2": { endpoints: [{ endpoint: evil, change: "changed", fields: [{ path: evil, before: evil, after: evil }], traffic: null }], service: [{ path: evil, after: evil }], removes_traffic: true, note: evil },
    "/v1/configs/aa": `a\n${evil}`,
    "/v1/configs/bb": `b\n${evil}`,
    "/jaeger/api/services": { data: [evil] },
    "/jaeger/api/traces?limit=50&lookback=300s": { data: [{ traceID: "t1", processes: { p1: { serviceName: evil, tags: [] } }, spans: [{ spanID: "s1", operationName: evil, references: [], startTime: 1, duration: 2, tags: [{ key: evil, type: "string", value: evil }], processID: "p1" }], warnings: [evil] }] },
    "/jaeger/api/traces/t1": { data: [{ traceID: "t1", processes: { p1: { serviceName: evil, tags: [{ key: evil, type: "string", value: evil }] } }, spans: [{ spanID: "s1", operationName: evil, references: [], startTime: 1, duration: 2, tags: [{ key: evil, type: "string", value: evil }], logs: [{ timestamp: 1, fields: [{ key: evil, type: "string", value: evil }] }], processID: "p1", warnings: [evil] }] }] },
    "/v1/license": { plan: evil, state: "valid", seats: 1, seats_used: 1, id: evil, customer: evil, issuer: evil, features: [evil], grace: 1, fallback_rate: 5, problem: evil },
    "/v1/tokens": { items: [{ id: evil, kind: "api", name: evil, role: evil, rights: [evil], created: iso(NOW), uses: 0, uses_max: 0 }] },
  };
  test.each(["/matrix", "/config", "/config/eu", "/config/eu?rollout=2", "/config/eu/upload", "/config/eu/diff?from=1&to=2", "/rollouts/r1", "/traces", "/traces/t1", "/license", "/tokens"])("on %s", (path) => {
    const html = page(path, o, NOW, admin, data);
    expect(html).toContain("&lt;img src=x");
    const markup = html.replaceAll(/"[^"]*"/g, '""');
    expect(markup.includes("<img src=x")).toBe(false);
    expect(/<[^>]*\son[a-z]+=/.test(markup)).toBe(false);
    for (const [, href] of html.matchAll(/href="([^"]*)"/g)) expect(href).toMatch(/^[/#?]/);
  });
});
