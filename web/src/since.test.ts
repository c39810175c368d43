import { describe, expect, test } from "vitest";
import { type Item, sinceWords } from "./health";
import { began, dateItems, NONE_UNDATED, runStart, sinceQueries, undatedOf } from "./since";

const NOW = 1_800_000_000_000;
const item = (key: string, since?: number): Item => ({ key, tone: "bad", subject: "x", text: "fails", href: "/", ...(since === undefined ? {} : { since }) });
const r = { start: 0, end: 3600, step: 30 };
/** One value for each step, by what f says. */
const series = (f: (t: number) => number): [number, string][] => Array.from({ length: 121 }, (_, i): [number, string] => [i * 30, String(f(i * 30))]);

describe("what is undated", () => {
  test("backends and nodes with errors, not what has its time", () => {
    const u = undatedOf([item("backend/b:1"), item("node/n-1/errors"), item("node/n-2/state"), item("backend/c:1", NOW), item("license/expired")], NONE_UNDATED, NOW);
    expect(u).toEqual({ backends: ["b:1"], nodes: ["n-1"], at: NOW / 1000 });
  });
  test("stays the same value until something new comes", () => {
    const first = undatedOf([item("backend/b:1"), item("backend/c:1")], NONE_UNDATED, NOW);
    expect(undatedOf([item("backend/c:1")], first, NOW + 60_000)).toBe(first);
    expect(undatedOf([item("backend/d:1")], first, NOW + 60_000).at).toBe(NOW / 1000 + 60);
  });
  test("nothing asks nothing", () => expect(sinceQueries(NONE_UNDATED)).toBeUndefined());
  test("names are literal in the query", () => {
    const q = sinceQueries({ backends: ['a.b"}:80'], nodes: [], at: 7200 })?.[0];
    expect(q?.query).toContain(String.raw`server_address=~"a\\.b\"\\}"`);
    expect(q?.range).toEqual({ start: 3600, end: 7200, step: 30 });
  });
});

describe("where the newest run begins", () => {
  test("in the middle", () => expect(runStart(series((t) => (t >= 1200 ? 0.2 : 0)), r)).toEqual({ at: 1_200_000, open: false }));
  test("before what is looked at", () => expect(runStart(series(() => 0.2), r)).toEqual({ at: 0, open: true }));
  test("a pause of two minutes is bridged, one of ten is not", () => {
    expect(runStart(series((t) => (t >= 1200 && !(t > 2000 && t < 2120) ? 0.2 : 0)), r)?.at).toBe(1_200_000);
    expect(runStart(series((t) => (t >= 1200 && !(t > 2000 && t < 2600) ? 0.2 : 0)), r)?.at).toBe(2_610_000);
  });
  test("nowhere, where it does not fail at the end", () => expect(runStart(series((t) => (t < 1200 ? 0.2 : 0)), r)).toBeUndefined());
  test("a division by zero is no failure", () => expect(runStart(series(() => NaN), r)).toBeUndefined());
});

test("a coarse look goes where the fine one saw no beginning", () => {
  const u = { backends: ["b:1", "c:1"], nodes: ["n-1"], at: 86_400 };
  const of = (metric: Record<string, string>, values: [number, string][]) => ({ metric, values });
  const to = (from: number, step: number): [number, string][] => Array.from({ length: (86_400 - from) / step + 1 }, (_, i): [number, string] => [from + i * step, "0.3"]);
  const fine = [of({ server_address: "b", server_port: "1" }, to(86_400 - 3600, 30)), of({ instance: "n-1" }, to(86_400 - 600, 30))];
  const coarse = [of({ server_address: "b", server_port: "1" }, to(43_200, 600)), of({ instance: "n-1" }, to(86_400 - 1200, 600))];
  const b = began(u, [fine, coarse]);
  expect([...b]).toEqual([["backend/b:1", { at: 43_200_000, open: false }], ["node/n-1/errors", { at: 85_800_000, open: false }], ["backend/c:1", { at: 86_400_000, open: false }]]);
  const dated = dateItems([item("backend/b:1"), item("backend/c:1"), item("node/n-1/errors", 5)], b);
  expect(dated.map((i) => i.since)).toEqual([43_200_000, 86_400_000, 5]);
});

test("what began too shortly ago for the store began when it was seen; nothing is said before the store answers", () => {
  const u = { backends: ["b:1"], nodes: ["n-1"], at: 7200 };
  expect(began(u, [undefined, []]).size).toBe(0);
  expect([...began(u, [[], undefined])]).toEqual([["backend/b:1", { at: 7_200_000, open: false }], ["node/n-1/errors", { at: 7_200_000, open: false }]]);
});

test("in words", () => {
  const at = new Date(2026, 10, 28, 2, 41).getTime();
  expect(sinceWords({}, at, at + 60_000)).toBe("since 02:41");
  expect(sinceWords({ longer: true }, at, at + 86_400_000)).toBe("for over 1\u00a0d");
});
