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
import type { Overview } from "./api";

function page(path: string, o?: Overview, now = NOW): string {
  const store = new Store(path, now);
  if (o) store.takeOverview(o, now);
  Object.assign(globalThis, { location: { pathname: path, search: "", hostname: "manager.example" } });
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
